// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * To device memory and home again: sizes, holes, layouts, evictions, errors, and
 * what the driver's callbacks are given.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "world.h"

/* Fill, migrate, look, touch, compare: with all that must be given back. */
static void round_trip(unsigned char *at, size_t len, bool huge)
{
	unsigned int gpu = gpu_add(0), id;
	struct client_stats now;

	fill(at, len);
	id = place(gpu, at, len);
	check_all_in(CLIENT_GPU(gpu), at, len);
	now = stats(gpu);
	check(now.bytes_in == len, "%llu bytes were copied in", now.bytes_in);
	check(now.live == 1 && now.free_pages == now.vram_pages - len / PAGE, "VRAM is wrong");
	check(now.dma_live == 0, "%llu DMA mappings are left", now.dma_live);
	if (huge)
		check(order_at(at) == 9 && now.max_order == 9, "not a 2 MiB page: order %u, %llu",
		      order_at(at), now.max_order);
	check(page_op(CLIENT_PAGE_INVERT, at, len) == (int)(len / PAGE), "not all there");
	verify_inverse(at, len);
	check_all_in(CLIENT_RAM, at, len);
	if (huge)
		check(order_at(at) == 9, "came home as small pages");
	wait_stat(gpu, live, 0);
	now = stats(gpu);
	check(now.released == 1 && now.free_pages == now.vram_pages, "VRAM is not free");
	check(now.bytes_out == len, "%llu bytes were copied out", now.bytes_out);
	check(now.dma_live == 0 && !now.stray_bytes, "mappings or stray bytes");
	check(alloc_info(id).detached, "not detached");
}

static void round_trip_4k(void)
{
	round_trip(map(PAGE), PAGE, false);
}

static void round_trip_64k(void)
{
	round_trip(map(64 * KB), 64 * KB, false);
}

static void round_trip_2m_small(void)
{
	round_trip(map(HUGE), HUGE, false);
}

static void round_trip_2m_huge(void)
{
	round_trip(map_huge(HUGE), HUGE, true);
}

static void round_trip_4m_huge(void)
{
	round_trip(map_huge(2 * HUGE), 2 * HUGE, true);
}

/* With swiotlb=force: every byte goes through a bounce buffer. */
static void swiotlb_round_trip(void)
{
	round_trip(map(128 * KB), 128 * KB, false);
}

static void mixed_huge_and_small(void)
{
	unsigned char *at = map_huge(2 * HUGE);
	unsigned int gpu = gpu_add(0);

	fill(at, HUGE);
	fill_small(at + HUGE, HUGE);
	place(gpu, at, 2 * HUGE);
	check_all_in(CLIENT_GPU(gpu), at, 2 * HUGE);
	check(order_at(at) == 9 && order_at(at + HUGE) == 0, "orders %u and %u", order_at(at),
	      order_at(at + HUGE));
	verify(at, 2 * HUGE);
}

static void holes_are_zero(void)
{
	unsigned char *at = map(64 * KB);
	unsigned int gpu = gpu_add(0);

	place(gpu, at, 64 * KB);
	check_all_in(CLIENT_GPU(gpu), at, 64 * KB);
	verify_zero(at, 64 * KB);
	check(stats(gpu).bytes_in == 0, "copied from somewhere");
}

static void holes_between_pages(void)
{
	unsigned char *at = map(64 * KB);
	unsigned int gpu = gpu_add(0);

	for (size_t i = 0; i < 64 * KB; i += 2 * PAGE)
		fill(at + i, PAGE);
	place(gpu, at, 64 * KB);
	check_all_in(CLIENT_GPU(gpu), at, 64 * KB);
	for (size_t i = 0; i < 64 * KB; i += 2 * PAGE) {
		verify(at + i, PAGE);
		verify_zero(at + i + PAGE, PAGE);
	}
}

static void zero_page_is_zero(void)
{
	unsigned char *at = map(64 * KB);
	unsigned int gpu = gpu_add(0);

	/* Reading maps the kernel's shared page of zeroes. */
	verify_zero(at, 64 * KB);
	place(gpu, at, 64 * KB);
	check_all_in(CLIENT_GPU(gpu), at, 64 * KB);
	fill(at, PAGE);
	verify(at, PAGE);
	verify_zero(at + PAGE, 60 * KB);
}

static void huge_zero_page_is_zero(void)
{
	unsigned char *at = map_huge(HUGE);
	unsigned int gpu = gpu_add(0);
	int ret;

	verify_zero(at, HUGE);
	/* Whatever it returns (defect 1), the bytes are right. */
	ret = to_gpu(gpu, at, HUGE);
	observed("%s, %zu pages in VRAM", error_name(ret), pages_in(CLIENT_GPU(gpu), at, HUGE));
	verify_zero(at, HUGE);
	fill(at, HUGE);
	verify(at, HUGE);
}

static void layout(unsigned int layout, size_t len)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(len);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + len, .layout = layout,
	};

	fill(at, len);
	place_with(&args);
	check_all_in(CLIENT_GPU(gpu), at, len);
	verify(at, len);
	id = place_with(&args);
	check_result(evict(id), 0);
	check_all_in(CLIENT_RAM, at, len);
	verify(at, len);
	check(!stats(gpu).stray_bytes, "wrote to pages of nobody");
}

static void layout_reversed(void)
{
	layout(CLIENT_REVERSED, 256 * KB);
}

static void layout_scattered(void)
{
	layout(CLIENT_SCATTERED, 256 * KB);
}

static void layout_unaligned_2m(void)
{
	layout(CLIENT_UNALIGNED, HUGE);
}

static void allocation_larger_than_range(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 16 * KB, .size = 64 * KB,
	};

	fill(at, 64 * KB);
	place_with(&args);
	check_all_in(CLIENT_GPU(gpu), at, 16 * KB);
	check_all_in(CLIENT_RAM, at + 16 * KB, 48 * KB);
	verify(at, 64 * KB);
	wait_stat(gpu, live, 0);
}

/* --- Eviction -------------------------------------------------------------- */

static void evict_of(unsigned char *at, size_t len)
{
	unsigned int gpu = gpu_add(0), id;

	fill(at, len);
	id = place(gpu, at, len);
	check_result(evict(id), 0);
	check_all_in(CLIENT_RAM, at, len);
	check(stats(gpu).copies_out == 1, "%llu copies", stats(gpu).copies_out);
	verify(at, len);
	check(stats(gpu).live == 0 && alloc_info(id).released == 1 && alloc_info(id).detached,
	      "not released");
}

static void evict_4k(void)
{
	evict_of(map(PAGE), PAGE);
}

static void evict_64k(void)
{
	evict_of(map(64 * KB), 64 * KB);
}

static void evict_2m_huge(void)
{
	evict_of(map_huge(HUGE), HUGE);
}

static void evict_what_is_home(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(64 * KB);

	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.flags = CLIENT_KEEP,
	};

	fill(at, 64 * KB);
	id = place_with(&args);
	verify(at, 64 * KB);
	check_result(evict(id), 0);
	check_result(evict(id), 0);
	check(alloc_info(id).released == 1, "released %u times", alloc_info(id).released);
}

static void evict_the_rest(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	id = place(gpu, at, 64 * KB);
	check(!madvise(at + 16 * KB, 16 * KB, MADV_DONTNEED), "madvise");
	check_result(evict(id), 0);
	verify(at, 16 * KB);
	verify_zero(at + 16 * KB, 16 * KB);
	verify(at + 32 * KB, 32 * KB);
}

static void evict_copy_fails_once(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(64 * KB);
	int ret;

	fill(at, 64 * KB);
	id = place(gpu, at, 64 * KB);
	inject(gpu, CLIENT_HOOK_COPY_OUT, 1, 1, EIO);
	ret = evict(id);
	observed("%s", error_name(ret));
	check_result(evict(id), 0);
	check_all_in(CLIENT_RAM, at, 64 * KB);
	verify(at, 64 * KB);
}

static void evict_copy_always_fails(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	id = place(gpu, at, 64 * KB);
	inject(gpu, CLIENT_HOOK_COPY_OUT, 1, 1000, EIO);
	check_result(evict(id), -EIO);
	check_all_in(CLIENT_GPU(gpu), at, 64 * KB);
	inject(gpu, CLIENT_HOOK_COPY_OUT, 0, 0, 0);
	verify(at, 64 * KB);
	check(!stats(gpu).dma_live, "DMA mappings are left");
}

/* --- Ranges, sources, time slices ------------------------------------------ */

static void populate_mm(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.flags = CLIENT_POPULATE_MM,
	};

	fill(at, 64 * KB);
	check_result(migrate(&args), 0);
	check_all_in(CLIENT_GPU(gpu), at, 64 * KB);
	inject(gpu, CLIENT_HOOK_POPULATE, 1, 1, ENODEV);
	check_result(migrate(&args), -ENODEV);
	verify(at, 64 * KB);
}

static void already_there(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
	};

	fill(at, 64 * KB);
	id = place(gpu, at, 64 * KB);
	check_result(migrate(&args), 0);
	check(stats(gpu).copies_in == 1, "copied again");
	check(alloc_info(args.id).released == 1 && !alloc_info(id).released,
	      "the new allocation was not released, or the old one was");
	verify(at, 64 * KB);
}

static void partly_there(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	place(gpu, at, 16 * KB);
	check_result(to_gpu(gpu, at, 64 * KB), -EBUSY);
	check_all_in(CLIENT_GPU(gpu), at, 16 * KB);
	check_all_in(CLIENT_RAM, at + 16 * KB, 48 * KB);
	check(stats(gpu).live == 1, "%llu allocations", stats(gpu).live);
	verify(at, 64 * KB);
}

static void partly_there_same_pagemap(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.flags = CLIENT_SAME_PAGEMAP,
	};

	fill(at, 64 * KB);
	place(gpu, at + 16 * KB, 16 * KB);
	place_with(&args);
	check_all_in(CLIENT_GPU(gpu), at, 64 * KB);
	check(stats(gpu).live == 1, "%llu allocations", stats(gpu).live);
	check(stats(gpu).maps == stats(gpu).unmaps, "%llu maps, %llu unmaps", stats(gpu).maps,
	      stats(gpu).unmaps);
	verify(at, 64 * KB);
}

static void timeslice_holds(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.timeslice_ms = 400,
	};
	uint64_t begin;

	fill(at, 64 * KB);
	begin = now_ms();
	place_with(&args);
	verify(at, 64 * KB);
	check(now_ms() - begin >= 350, "home after %llu ms", (unsigned long long)(now_ms() - begin));
	check(now_ms() - begin < 2000 * ktap_scale(), "only home after %llu ms",
	      (unsigned long long)(now_ms() - begin));
}

static void timeslice_evict(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.timeslice_ms = 60000,
	};

	fill(at, 64 * KB);
	id = place_with(&args);
	check_result(evict(id), 0);
	verify(at, 64 * KB);
}

static void fence_is_passed(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.flags = CLIENT_FENCE,
	};

	fill(at, 64 * KB);
	place_with(&args);
	check(stats(gpu).fences == 1, "%llu copies saw the fence", stats(gpu).fences);
	verify(at, 64 * KB);
	check(stats(gpu).fences == 1, "the way home saw the fence");
}

static void page_to_dpagemap(void)
{
	unsigned int gpu_a = gpu_add(0), gpu_b = gpu_add(0);
	unsigned char *at = map(64 * KB);

	place(gpu_a, at, 32 * KB);
	place(gpu_b, at + 32 * KB, 32 * KB);
	check(page_op(CLIENT_PAGE_TO_DPAGEMAP, at, 0) == (int)gpu_a, "not the first GPU");
	check(page_op(CLIENT_PAGE_TO_DPAGEMAP, at + 32 * KB, 0) == (int)gpu_b, "not the second");
}

/* --- Errors ---------------------------------------------------------------- */

/* A migration that fails leaves nothing behind and no byte wrong. */
static void fails(unsigned int gpu, unsigned char *at, size_t len, int expected)
{
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + len,
	};

	check_result(migrate(&args), expected);
	check(alloc_info(args.id).released == 1, "released %u times", alloc_info(args.id).released);
	check(stats(gpu).free_pages == stats(gpu).vram_pages && !stats(gpu).dma_live,
	      "VRAM or DMA mappings are left");
}

static void error_no_area(void)
{
	unsigned char *at = map(64 * KB);

	check(!munmap(at, 64 * KB), "munmap");
	fails(gpu_add(0), at, 64 * KB, -ENOENT);
}

static void error_beyond_area(void)
{
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	fails(gpu_add(0), at + 32 * KB, 64 * KB, -EINVAL);
	verify(at, 64 * KB);
}

static void error_pfns(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	inject(gpu, CLIENT_HOOK_PFNS, 1, 1, EXDEV);
	fails(gpu, at, 64 * KB, -EXDEV);
	check_all_in(CLIENT_RAM, at, 64 * KB);
	verify(at, 64 * KB);
}

static void error_copy_in(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	inject(gpu, CLIENT_HOOK_COPY_IN, 1, 1, EIO);
	fails(gpu, at, 64 * KB, -EIO);
	check_all_in(CLIENT_RAM, at, 64 * KB);
	verify(at, 64 * KB);
}

static void error_copy_in_huge(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map_huge(HUGE);

	fill(at, HUGE);
	inject(gpu, CLIENT_HOOK_COPY_IN, 1, 1, EIO);
	fails(gpu, at, HUGE, -EIO);
	verify(at, HUGE);
	place(gpu, at, HUGE);
	verify(at, HUGE);
}

static void error_dma_in(void)
{
	unsigned char *at = map(64 * KB);

	/*
	 * What is side by side in RAM, too, may be mapped in one go: so few of
	 * these are. Where that fails, single pages may be tried.
	 */
	for (int odd = 0; odd < 2; odd++)
		for (size_t page = odd; page < 16; page += 2)
			at[page * PAGE] = 1;
	fill(at, 64 * KB);
	for (unsigned int nth = 1; nth <= 11; nth += 5) {
		unsigned int gpu = nth == 1 ? gpu_add(0) : 0;

		inject(gpu, CLIENT_HOOK_DMA, nth, 1000, EFAULT);
		fails(gpu, at, 64 * KB, -EFAULT);
		verify(at, 64 * KB);
	}
}

static void error_copy_home_kills(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(PAGE);
	enum touch got;

	fill(at, PAGE);
	place(gpu, at, PAGE);
	inject(gpu, CLIENT_HOOK_COPY_OUT, 1, 1000, EIO);
	got = touch(at, 3000);
	check(got == TOUCH_SIGBUS, "a reader %s", touch_name(got));
	inject(gpu, CLIENT_HOOK_COPY_OUT, 0, 0, 0);
	check_all_in(CLIENT_GPU(gpu), at, PAGE);
	verify(at, PAGE);
}

static void unmovable_page(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	page_op(CLIENT_PAGE_HOLD, at + 20 * KB, 0);
	fails(gpu, at, 64 * KB, -EBUSY);
	check_all_in(CLIENT_RAM, at, 64 * KB);
	page_op(CLIENT_PAGE_RELEASE, at, 0);
	place(gpu, at, 64 * KB);
	verify(at, 64 * KB);
}

static const struct ktap_test tests[] = {
	{ "round_trip_4k", round_trip_4k, 10 },
	{ "round_trip_64k", round_trip_64k, 10 },
	{ "round_trip_2m_small", round_trip_2m_small, 10 },
	{ "round_trip_2m_huge", round_trip_2m_huge, 10 },
	{ "round_trip_4m_huge", round_trip_4m_huge, 10 },
	{ "swiotlb_round_trip", swiotlb_round_trip, 10 },
	{ "mixed_huge_and_small", mixed_huge_and_small, 10 },
	{ "holes_are_zero", holes_are_zero, 10 },
	{ "holes_between_pages", holes_between_pages, 10 },
	{ "zero_page_is_zero", zero_page_is_zero, 10 },
	{ "huge_zero_page_is_zero", huge_zero_page_is_zero, 10 },
	{ "layout_reversed", layout_reversed, 10 },
	{ "layout_scattered", layout_scattered, 10 },
	{ "layout_unaligned_2m", layout_unaligned_2m, 10 },
	{ "allocation_larger_than_range", allocation_larger_than_range, 10 },
	{ "evict_4k", evict_4k, 10 },
	{ "evict_64k", evict_64k, 10 },
	{ "evict_2m_huge", evict_2m_huge, 10 },
	{ "evict_what_is_home", evict_what_is_home, 10 },
	{ "evict_the_rest", evict_the_rest, 10 },
	{ "evict_copy_fails_once", evict_copy_fails_once, 10 },
	{ "evict_copy_always_fails", evict_copy_always_fails, 10 },
	{ "populate_mm", populate_mm, 10 },
	{ "already_there", already_there, 10 },
	{ "partly_there", partly_there, 10 },
	{ "partly_there_same_pagemap", partly_there_same_pagemap, 10 },
	{ "timeslice_holds", timeslice_holds, 10 },
	{ "timeslice_evict", timeslice_evict, 10 },
	{ "fence_is_passed", fence_is_passed, 10 },
	{ "page_to_dpagemap", page_to_dpagemap, 10 },
	{ "error_no_area", error_no_area, 10 },
	{ "error_beyond_area", error_beyond_area, 10 },
	{ "error_pfns", error_pfns, 10 },
	{ "error_copy_in", error_copy_in, 10 },
	{ "error_copy_in_huge", error_copy_in_huge, 10 },
	{ "error_dma_in", error_dma_in, 10 },
	{ "error_copy_home_kills", error_copy_home_kills, 10 },
	{ "unmovable_page", unmovable_page, 10 },
};

CASES(contract_cases, tests);
