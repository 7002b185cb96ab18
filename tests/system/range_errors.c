// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Ranges that cannot be populated: a clear error, and no byte changes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "ktap.h"

#define SIZE (2 * MB)

/* Populate @size bytes at @start; it must fail with @expected. */
static void expect_error(const void *start, size_t size, int expected)
{
	check_result(simgpu_populate(gpu(), (void *)start, size, 0), expected);
}

/* A file, in memory, of SIZE bytes. */
static int open_file(void)
{
	int file = memfd_create("simgpu-test", MFD_CLOEXEC);

	check(file >= 0 && !ftruncate(file, SIZE), "memfd_create: %s", strerror(errno));
	return file;
}

/* Adopt a mapping that is not private anonymous: it must be refused as a whole. */
static void expect_unsupported(int flags, int file, bool write_first)
{
	void *mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, file, 0);
	struct buffer buf;

	check(mem != MAP_FAILED, "mmap: %s", strerror(errno));
	buffer_adopt(&buf, mem, SIZE);
	if (write_first)
		buffer_write(&buf);
	expect_error(buf.mem, SIZE, -EOPNOTSUPP);
	check(!buffer_count(&buf, 0, SIZE, SIMGPU_PLACE_VRAM), "some pages got into VRAM");
	buffer_verify(&buf);
}

static void shared_file(void)
{
	expect_unsupported(MAP_SHARED, open_file(), true);
}

static void private_file(void)
{
	expect_unsupported(MAP_PRIVATE, open_file(), false);
}

static void private_file_written_to(void)
{
	expect_unsupported(MAP_PRIVATE, open_file(), true);
}

static void shared_anonymous(void)
{
	expect_unsupported(MAP_SHARED | MAP_ANONYMOUS, -1, true);
}

static void program_text(void)
{
	uintptr_t page = (uintptr_t)program_text & -PAGE;

	expect_error((void *)page, PAGE, -EOPNOTSUPP);
}

static void the_kernels_own_mappings(void)
{
	unsigned long start, end;
	char line[300];
	FILE *maps = fopen("/proc/self/maps", "r");
	int found = 0;

	check(maps, "/proc/self/maps: %s", strerror(errno));
	while (fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "[vdso]") && !strstr(line, "[vvar]"))
			continue;
		check(sscanf(line, "%lx-%lx", &start, &end) == 2, "cannot read %s", line);
		expect_error((void *)start, end - start, -EOPNOTSUPP);
		found++;
	}
	fclose(maps);
	if (!found)
		skip("the kernel gave this process no vdso");
}

static void not_mapped(void)
{
	struct buffer buf;

	buffer_map(&buf, SIZE);
	check(!munmap(buf.mem, SIZE), "munmap: %s", strerror(errno));
	expect_error(buf.mem, SIZE, -ENOENT);
	expect_error(NULL, PAGE, -ENOENT);
}

/* Unmap a part of a buffer, populate all of it: what is mapped stays as it was. */
static void expect_hole_refused(size_t offset, size_t len)
{
	struct buffer buf;

	buffer_init(&buf, SIZE);
	check(!munmap(buf.mem + offset, len), "munmap: %s", strerror(errno));
	expect_error(buf.mem, SIZE, -ENOENT);
	if (offset + len < SIZE)
		check(!buffer_count(&buf, offset + len, SIZE - offset - len, SIMGPU_PLACE_VRAM),
		      "pages beyond the hole got into VRAM");
	buffer_verify_range(&buf, 0, offset);
	buffer_verify_range(&buf, offset + len, SIZE - offset - len);
}

static void hole_at_the_front(void)
{
	expect_hole_refused(0, PAGE);
}

static void hole_in_the_middle(void)
{
	expect_hole_refused(MB + 3 * PAGE, PAGE);
}

static void past_the_end(void)
{
	expect_hole_refused(SIZE - PAGE, PAGE);
}

/* Anonymous memory in front of a file. */
static void anonymous_then_file(void)
{
	struct buffer buf;
	void *mem;

	buffer_init(&buf, 2 * SIZE);
	mem = mmap(buf.mem + SIZE, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		   open_file(), 0);
	check(mem != MAP_FAILED, "mmap: %s", strerror(errno));
	buffer_model_zero(&buf, SIZE, SIZE);
	expect_error(buf.mem, 2 * SIZE, -EOPNOTSUPP);
	buffer_verify(&buf);
	/* What is in front of it is not tainted by it. */
	buffer_populate_range(&buf, 0, SIZE);
	buffer_xor_range(&buf, 0, SIZE, 0x7);
	buffer_verify(&buf);
}

/* Eviction takes any range; what the GPU works on must be in VRAM. */
static void other_operations_on_such_ranges(void)
{
	uint64_t sum, counts[SIMGPU_PLACES];
	struct buffer buf;

	buffer_init(&buf, SIZE);
	buffer_populate_range(&buf, 0, MB);
	check(!munmap(buf.mem + MB, PAGE), "munmap: %s", strerror(errno));

	check_result(simgpu_xor(gpu(), buf.mem, SIZE, 0x1), -EFAULT);
	check_result(simgpu_fill(gpu(), buf.mem, MB + PAGE, 0x1), -EFAULT);
	check_result(simgpu_checksum(gpu(), buf.mem + MB, PAGE, &sum), -EFAULT);
	buffer_checksum_range(&buf, 0, MB);

	check_ok(simgpu_residency(gpu(), buf.mem, SIZE, NULL, counts));
	check(counts[SIMGPU_PLACE_VRAM] == MB / PAGE && counts[SIMGPU_PLACE_NONE] == 1 &&
	      counts[SIMGPU_PLACE_RAM] == MB / PAGE - 1, "the residency counts are wrong");

	check_ok(simgpu_evict(gpu(), buf.mem, SIZE));
	buffer_expect_range(&buf, 0, MB, SIMGPU_PLACE_RAM);
	buffer_verify_range(&buf, 0, MB);
	check(!munmap(buf.mem, SIZE), "munmap: %s", strerror(errno));
	check_ok(simgpu_evict(gpu(), buf.mem, SIZE));
}

/* One page that is not in VRAM: the GPU must not touch any other either. */
static void gpu_changes_nothing_on_error(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	buffer_verify_range(&buf, SIZE - PAGE, PAGE);
	buffer_populate_range(&buf, 0, MB);
	buffer_expect_range(&buf, SIZE - PAGE, PAGE, SIMGPU_PLACE_RAM);
	check_result(simgpu_xor(gpu(), buf.mem, SIZE, 0x1), -EFAULT);
	check_result(simgpu_fill(gpu(), buf.mem, SIZE, 0x1), -EFAULT);
	buffer_verify(&buf);
}

static const struct ktap_test tests[] = {
	{ "shared_file", shared_file, 0 },
	{ "private_file", private_file, 0 },
	{ "private_file_written_to", private_file_written_to, 0 },
	{ "shared_anonymous", shared_anonymous, 0 },
	{ "program_text", program_text, 0 },
	{ "the_kernels_own_mappings", the_kernels_own_mappings, 0 },
	{ "not_mapped", not_mapped, 0 },
	{ "hole_at_the_front", hole_at_the_front, 0 },
	{ "hole_in_the_middle", hole_in_the_middle, 0 },
	{ "past_the_end", past_the_end, 0 },
	{ "anonymous_then_file", anonymous_then_file, 0 },
	{ "other_operations_on_such_ranges", other_operations_on_such_ranges, 0 },
	{ "gpu_changes_nothing_on_error", gpu_changes_nothing_on_error, 0 },
};

KTAP_MAIN(tests, gpu_after_test)
