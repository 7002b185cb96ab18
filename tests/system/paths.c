// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The ways of a page: to VRAM by populate, home by a CPU touch or by eviction.
 */
#include <string.h>
#include <sys/mman.h>

#include "buffer.h"
#include "ktap.h"
#include "pattern.h"

static const size_t sizes[] = {
	4 * KB, 8 * KB, 64 * KB, 2 * MB - 4 * KB, 2 * MB, 2 * MB + 4 * KB, 8 * MB, 32 * MB,
};

#define for_each_size(i) for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)

static void populate_then_touch(void)
{
	for_each_size(i) {
		struct buffer buf;

		buffer_init_in_vram(&buf, sizes[i]);
		buffer_verify(&buf);
		buffer_expect(&buf, SIMGPU_PLACE_RAM);
		buffer_unmap(&buf);
	}
}

static void populate_then_evict(void)
{
	for_each_size(i) {
		struct buffer buf;

		buffer_init_in_vram(&buf, sizes[i]);
		buffer_evict(&buf);
		buffer_expect(&buf, SIMGPU_PLACE_RAM);
		buffer_verify(&buf);
		buffer_unmap(&buf);
	}
}

static void one_touch_brings_that_page_home(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, 4 * MB);
	buffer_touch(&buf, 3 * MB + 5 * PAGE);
	buffer_expect_range(&buf, 3 * MB + 5 * PAGE, PAGE, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void cpu_writes_survive(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, 2 * MB);
	/* The first touch is a write, and not to all of the page. */
	for (size_t page = 0; page < buf.size / PAGE; page++)
		((uint64_t *)(buf.mem + page * PAGE))[page % 512] ^= 0xff;
	for (size_t page = 0; page < buf.size / PAGE; page++)
		((uint64_t *)(buf.mem + page * PAGE))[page % 512] ^= 0xff;
	buffer_verify(&buf);
}

static void never_touched_reads_zero(void)
{
	struct buffer buf;

	buffer_map(&buf, 8 * MB);
	buffer_expect(&buf, SIMGPU_PLACE_NONE);
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_checksum(&buf);
	buffer_verify_range(&buf, 0, 4 * MB);
	buffer_evict(&buf);
	buffer_verify(&buf);
}

/* VRAM that held data before must not show through. */
static void recycled_vram_reads_zero(void)
{
	size_t half = (gpu_info().vram_free / 2) & -(2 * MB);
	struct buffer old, new;

	/* Fill all VRAM, so that whatever comes next is recycled. */
	buffer_map_at(&old, half, 0);
	buffer_populate(&old);
	buffer_fill_range(&old, 0, old.size, 0xdeadbeefdeadbeef);
	buffer_map_at(&new, half, 0);
	buffer_populate(&new);
	buffer_fill_range(&new, 0, new.size, 0xdeadbeefdeadbeef);
	buffer_unmap(&old);
	buffer_unmap(&new);
	gpu_expect_all_free();

	buffer_map(&new, 16 * MB);
	buffer_populate(&new);
	buffer_checksum(&new);
	buffer_verify(&new);
}

static void read_touched_reads_zero(void)
{
	struct buffer buf;

	buffer_map(&buf, 2 * MB);
	buffer_verify(&buf);	/* Maps the kernel's zero page everywhere. */
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_xor(&buf, 0x77);
	buffer_verify(&buf);
}

static void partly_touched(void)
{
	struct buffer buf;

	buffer_map(&buf, 6 * MB);
	for (size_t offset = 0; offset < buf.size; offset += 3 * PAGE)
		if (offset + PAGE <= buf.size)
			buffer_write_range(&buf, offset, PAGE);
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_checksum(&buf);
	buffer_xor(&buf, 0x1111222233334444);
	buffer_verify(&buf);
}

static void populate_twice(void)
{
	struct buffer buf;
	uint64_t free;

	buffer_init_in_vram(&buf, 4 * MB);
	free = gpu_info().vram_free;
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	check(gpu_wait_for_free(free), "populating what is in VRAM took more VRAM");
	buffer_xor(&buf, 0xabc);
	buffer_verify(&buf);
}

static void overlapping_ranges(void)
{
	struct buffer buf;

	buffer_init(&buf, 8 * MB);
	buffer_populate_range(&buf, 2 * MB, 2 * MB);
	buffer_expect_range(&buf, 2 * MB, 2 * MB, SIMGPU_PLACE_VRAM);
	buffer_expect_range(&buf, 0, 2 * MB, SIMGPU_PLACE_RAM);
	buffer_xor_range(&buf, 2 * MB, 2 * MB, 0x10);
	buffer_populate_range(&buf, MB, 2 * MB);
	buffer_expect_range(&buf, MB, 3 * MB, SIMGPU_PLACE_VRAM);
	buffer_xor_range(&buf, MB, 3 * MB, 0x200);
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_xor(&buf, 0x3000);
	buffer_verify(&buf);
}

static void scattered_pages(void)
{
	unsigned char map[64];
	uint64_t counts[SIMGPU_PLACES];
	struct buffer buf;

	buffer_init(&buf, sizeof(map) * PAGE);
	for (size_t page = 0; page < sizeof(map); page += 3) {
		buffer_populate_range(&buf, page * PAGE, PAGE);
		buffer_xor_range(&buf, page * PAGE, PAGE, page + 1);
	}
	check_ok(simgpu_residency(gpu(), buf.mem, buf.size, map, counts));
	for (size_t page = 0; page < sizeof(map); page++) {
		int expected = page % 3 ? SIMGPU_PLACE_RAM : SIMGPU_PLACE_VRAM;

		check(map[page] == expected, "page %zu is in place %u, expected %d", page,
		      map[page], expected);
	}
	check(counts[SIMGPU_PLACE_VRAM] == 22 && counts[SIMGPU_PLACE_RAM] == 42,
	      "the residency counts contradict the map");
	buffer_verify(&buf);
}

static void not_aligned_to_2m(void)
{
	static const size_t offsets[] = { PAGE, MB, 2 * MB - PAGE };

	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
		struct buffer buf;

		buffer_map_at(&buf, 4 * MB + 3 * PAGE, offsets[i]);
		buffer_write(&buf);
		buffer_populate(&buf);
		buffer_expect(&buf, SIMGPU_PLACE_VRAM);
		buffer_xor(&buf, offsets[i]);
		buffer_evict_range(&buf, 2 * MB, PAGE);
		buffer_verify(&buf);
		buffer_unmap(&buf);
	}
}

static void map_huge(struct buffer *buf, size_t size)
{
	buffer_map_at(buf, size, 0);
	if (madvise(buf->mem, size, MADV_HUGEPAGE))
		skip("the kernel has no transparent huge pages");
}

static void huge_pages(void)
{
	struct buffer buf;

	map_huge(&buf, 8 * MB);
	buffer_write(&buf);
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_xor(&buf, 0x4444);
	buffer_verify_range(&buf, 0, 4 * MB);
	buffer_evict(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void part_of_a_huge_page(void)
{
	struct buffer buf;

	map_huge(&buf, 4 * MB);
	buffer_write(&buf);
	buffer_populate_range(&buf, MB, MB + 4 * PAGE);
	buffer_expect_range(&buf, MB, MB + 4 * PAGE, SIMGPU_PLACE_VRAM);
	buffer_xor_range(&buf, MB, MB + 4 * PAGE, 0x99);
	buffer_verify(&buf);
}

static void huge_page_never_touched(void)
{
	struct buffer buf;

	map_huge(&buf, 4 * MB);
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_checksum(&buf);
	buffer_verify(&buf);
}

/* A range that has a huge page, single pages and holes. */
static void mixed_huge_and_small(void)
{
	struct buffer buf;

	map_huge(&buf, 8 * MB);
	check(!madvise(buf.mem + 4 * MB, 4 * MB, MADV_NOHUGEPAGE), "madvise failed");
	buffer_write_range(&buf, 0, 2 * MB);
	buffer_write_range(&buf, 5 * MB, 7 * PAGE);
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_xor(&buf, 0x6161);
	buffer_verify(&buf);
}

static void evict_one_page(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, 4 * MB);
	buffer_evict_range(&buf, 2 * MB + PAGE, PAGE);
	buffer_expect_range(&buf, 2 * MB + PAGE, PAGE, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void evict_what_is_in_ram(void)
{
	struct buffer buf;

	buffer_init(&buf, MB);
	buffer_evict(&buf);
	buffer_verify(&buf);
	buffer_populate_range(&buf, 0, 512 * KB);
	buffer_evict(&buf);
	buffer_evict(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void gpu_works_on_parts(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, 4 * MB);
	buffer_xor_range(&buf, PAGE, PAGE, 0x1);
	buffer_fill_range(&buf, MB, 17 * PAGE, 0x123456789);
	buffer_xor_range(&buf, MB + PAGE, 2 * MB, 0xff00);
	buffer_checksum_range(&buf, 0, PAGE);
	buffer_checksum_range(&buf, PAGE, MB);
	buffer_checksum(&buf);
	buffer_verify(&buf);
}

/* One operation over pages that came to VRAM at different times and sizes. */
static void each_page_exactly_once(void)
{
	struct buffer buf;
	size_t offset = 0;

	buffer_init(&buf, 4 * MB);
	for (size_t len = PAGE; offset < buf.size; len = len * 3 % MB) {
		if (len > buf.size - offset)
			len = buf.size - offset;
		buffer_populate_range(&buf, offset, len);
		offset += len;
	}
	for (int i = 0; i < 3; i++) {
		buffer_xor(&buf, 0x8000000000000001);
		buffer_checksum(&buf);
	}
	buffer_verify(&buf);
}

static void several_mappings_in_one_range(void)
{
	struct buffer buf;

	buffer_init(&buf, 4 * MB);
	check(!mprotect(buf.mem + MB, MB, PROT_READ), "mprotect failed");
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_checksum(&buf);
	buffer_xor_range(&buf, 2 * MB, 2 * MB, 0x2);
	buffer_verify(&buf);
}

static void stack_pages(void)
{
	unsigned char area[64 * KB + PAGE];
	struct buffer buf;

	buffer_adopt(&buf, (void *)(((uintptr_t)area + PAGE - 1) & -PAGE), 64 * KB);
	buffer_write(&buf);
	buffer_populate(&buf);
	buffer_xor(&buf, 0x57ac);
	buffer_verify(&buf);
}

static void counters_count(void)
{
	struct drm_simgpu_info before = gpu_info(), after;
	const size_t pages = 2 * MB / PAGE;
	struct buffer buf;

	buffer_init_in_vram(&buf, 2 * MB);
	after = gpu_info();
	check(after.populated - before.populated == pages, "populated grew by %zu, expected %zu",
	      (size_t)(after.populated - before.populated), pages);
	check(before.vram_free - after.vram_free >= buf.size, "VRAM is used but not counted");

	buffer_verify(&buf);
	after = gpu_info();
	check(after.faulted - before.faulted == pages, "faulted grew by %zu, expected %zu",
	      (size_t)(after.faulted - before.faulted), pages);

	buffer_populate(&buf);
	buffer_evict(&buf);
	after = gpu_info();
	check(after.evicted - before.evicted == pages, "evicted grew by %zu, expected %zu",
	      (size_t)(after.evicted - before.evicted), pages);
	check(after.populated - before.populated == 2 * pages,
	      "populated grew by %zu, expected %zu",
	      (size_t)(after.populated - before.populated), 2 * pages);
}

static void many_round_trips(void)
{
	struct buffer buf;

	buffer_init(&buf, 2 * MB);
	for (uint64_t i = 1; i <= 20; i++) {
		buffer_populate(&buf);
		buffer_xor(&buf, i << (3 * (i % 16)));
		if (i % 2)
			buffer_evict(&buf);
		buffer_verify(&buf);
	}
}

static const struct ktap_test tests[] = {
	{ "populate_then_touch", populate_then_touch, 60 },
	{ "populate_then_evict", populate_then_evict, 60 },
	{ "one_touch_brings_that_page_home", one_touch_brings_that_page_home, 0 },
	{ "cpu_writes_survive", cpu_writes_survive, 0 },
	{ "never_touched_reads_zero", never_touched_reads_zero, 0 },
	{ "recycled_vram_reads_zero", recycled_vram_reads_zero, 60 },
	{ "read_touched_reads_zero", read_touched_reads_zero, 0 },
	{ "partly_touched", partly_touched, 0 },
	{ "populate_twice", populate_twice, 0 },
	{ "overlapping_ranges", overlapping_ranges, 0 },
	{ "scattered_pages", scattered_pages, 0 },
	{ "not_aligned_to_2m", not_aligned_to_2m, 0 },
	{ "huge_pages", huge_pages, 0 },
	{ "part_of_a_huge_page", part_of_a_huge_page, 0 },
	{ "huge_page_never_touched", huge_page_never_touched, 0 },
	{ "mixed_huge_and_small", mixed_huge_and_small, 0 },
	{ "evict_one_page", evict_one_page, 0 },
	{ "evict_what_is_in_ram", evict_what_is_in_ram, 0 },
	{ "gpu_works_on_parts", gpu_works_on_parts, 0 },
	{ "each_page_exactly_once", each_page_exactly_once, 0 },
	{ "several_mappings_in_one_range", several_mappings_in_one_range, 0 },
	{ "stack_pages", stack_pages, 0 },
	{ "counters_count", counters_count, 0 },
	{ "many_round_trips", many_round_trips, 0 },
};

KTAP_MAIN(tests, gpu_after_test)
