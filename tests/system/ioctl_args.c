// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Wrong ioctl arguments: each gives the error of the UAPI header, quickly, and
 * changes nothing.
 */
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "procs.h"

#define SIZE (64 * KB)

/* A buffer in VRAM, and arguments for each ioctl that are right for it. */
struct valid {
	struct buffer buf;
	struct drm_simgpu_info info;
	struct drm_simgpu_populate populate;
	struct drm_simgpu_evict evict;
	struct drm_simgpu_vram_op vram_op;
	struct drm_simgpu_residency residency;
	struct drm_simgpu_inject inject;
};

static struct valid make_valid(void)
{
	struct valid valid = { 0 };
	uint64_t start;

	buffer_init_in_vram(&valid.buf, SIZE);
	start = (uintptr_t)valid.buf.mem;
	valid.populate = (struct drm_simgpu_populate){ .start = start, .size = SIZE };
	valid.evict = (struct drm_simgpu_evict){ .start = start, .size = SIZE };
	valid.vram_op = (struct drm_simgpu_vram_op){
		.start = start, .size = SIZE, .op = SIMGPU_OP_XOR, .value = 0x1,
	};
	valid.residency = (struct drm_simgpu_residency){ .start = start, .size = SIZE };
	valid.inject = (struct drm_simgpu_inject){ .what = SIMGPU_INJECT_FAIL };
	return valid;
}

/* All that was refused has left the buffer as it was. */
static void expect_unchanged(const struct valid *valid)
{
	buffer_expect(&valid->buf, SIMGPU_PLACE_VRAM);
	buffer_verify(&valid->buf);
}

static int call(unsigned long request, const void *args)
{
	unsigned char copy[256];

	memcpy(copy, args, _IOC_SIZE(request));
	return simgpu_ioctl(gpu(), request, copy);
}

#define POPULATE	DRM_IOCTL_SIMGPU_POPULATE
#define EVICT		DRM_IOCTL_SIMGPU_EVICT
#define VRAM_OP		DRM_IOCTL_SIMGPU_VRAM_OP
#define RESIDENCY	DRM_IOCTL_SIMGPU_RESIDENCY
#define INJECT		DRM_IOCTL_SIMGPU_INJECT

/* With one member changed, the ioctl gives @expected. */
#define with(valid, request, args, member, value_, expected)		\
	do {								\
		struct valid changed = (valid);				\
									\
		changed.args.member = (value_);				\
		check_result(call(request, &changed.args), expected);	\
	} while (0)

static void right_arguments(void)
{
	struct valid valid = make_valid();

	check_ok(call(DRM_IOCTL_SIMGPU_INFO, &valid.info));
	check_ok(call(POPULATE, &valid.populate));
	check_ok(call(VRAM_OP, &valid.vram_op));
	check_ok(call(VRAM_OP, &valid.vram_op));	/* XOR twice: as before. */
	check_ok(call(RESIDENCY, &valid.residency));
	check_ok(call(INJECT, &valid.inject));
	expect_unchanged(&valid);
	check_ok(call(EVICT, &valid.evict));
	buffer_verify(&valid.buf);
}

static void unknown_flags(void)
{
	struct valid valid = make_valid();

	for (int bit = 0; bit < 32; bit++) {
		uint32_t flag = UINT32_C(1) << bit;

		with(valid, DRM_IOCTL_SIMGPU_INFO, info, flags, flag, -EINVAL);
		with(valid, POPULATE, populate, flags, flag, -EINVAL);
		with(valid, EVICT, evict, flags, flag, -EINVAL);
		with(valid, VRAM_OP, vram_op, flags, flag, -EINVAL);
		with(valid, RESIDENCY, residency, flags, flag, -EINVAL);
		with(valid, INJECT, inject, flags, flag, -EINVAL);
	}
	expect_unchanged(&valid);
}

static void padding(void)
{
	struct valid valid = make_valid();

	with(valid, DRM_IOCTL_SIMGPU_INFO, info, pad, 1, -EINVAL);
	with(valid, EVICT, evict, pad, 0x80000000, -EINVAL);
	with(valid, RESIDENCY, residency, pad, 1, -EINVAL);
	expect_unchanged(&valid);
}

/* Every ioctl that takes a range refuses this one. */
static void expect_bad_range(const struct valid *valid, uint64_t start, uint64_t size)
{
	struct valid bad = *valid;

	bad.populate.start = start;
	bad.populate.size = size;
	bad.evict.start = start;
	bad.evict.size = size;
	bad.vram_op.start = start;
	bad.vram_op.size = size;
	bad.residency.start = start;
	bad.residency.size = size;
	check_result(call(POPULATE, &bad.populate), -EINVAL);
	check_result(call(EVICT, &bad.evict), -EINVAL);
	check_result(call(VRAM_OP, &bad.vram_op), -EINVAL);
	check_result(call(RESIDENCY, &bad.residency), -EINVAL);
}

static void misaligned_ranges(void)
{
	struct valid valid = make_valid();
	uint64_t start = (uintptr_t)valid.buf.mem;

	expect_bad_range(&valid, start + 1, PAGE);
	expect_bad_range(&valid, start + 8, SIZE - 8);
	expect_bad_range(&valid, start + PAGE - 1, PAGE);
	expect_bad_range(&valid, start, 1);
	expect_bad_range(&valid, start, PAGE - 1);
	expect_bad_range(&valid, start, PAGE + 1);
	expect_unchanged(&valid);
}

static void empty_ranges(void)
{
	struct valid valid = make_valid();

	expect_bad_range(&valid, (uintptr_t)valid.buf.mem, 0);
	expect_bad_range(&valid, 0, 0);
	expect_unchanged(&valid);
}

static void ranges_that_wrap(void)
{
	struct valid valid = make_valid();
	uint64_t start = (uintptr_t)valid.buf.mem;

	expect_bad_range(&valid, -PAGE, PAGE);		/* The end is 0... */
	expect_bad_range(&valid, start, -start);	/* ...here too. */
	expect_bad_range(&valid, -PAGE, 2 * PAGE);
	expect_bad_range(&valid, start, -PAGE);
	expect_bad_range(&valid, start, -start + PAGE);
	expect_bad_range(&valid, PAGE, -PAGE);
	expect_unchanged(&valid);
}

static void addresses_that_are_not_the_users(void)
{
	struct valid valid = make_valid();
	uint64_t start = (uintptr_t)valid.buf.mem;

	expect_bad_range(&valid, 0xffff888000000000, SIZE);
	expect_bad_range(&valid, 0xffffffff81000000, PAGE);
	expect_bad_range(&valid, UINT64_C(1) << 60, PAGE);	/* Not canonical. */
	/* From inside to outside, whether page tables have four levels or five. */
	expect_bad_range(&valid, (UINT64_C(1) << 56) - 2 * PAGE, 2 * PAGE);
	expect_bad_range(&valid, start, (UINT64_C(1) << 56) - start);
	expect_bad_range(&valid, start, UINT64_C(1) << 62);
	expect_unchanged(&valid);
}

/* Far more than is mapped, but within the user's addresses. */
static void huge_sizes(void)
{
	struct valid valid = make_valid();
	uint64_t begun = now_ms(), sum;
	struct buffer buf;
	/* Nothing behind it, and low enough for the end to be a user's address wherever this runs. */
	void *mem = mmap((void *)((size_t)1 << 32), PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	check(mem != MAP_FAILED, "mmap: %s", strerror(errno));
	buffer_adopt(&buf, mem, PAGE);
	buffer_write(&buf);
	check_result(simgpu_populate(gpu(), buf.mem, (size_t)1 << 40, 0), -ENOENT);
	check_result(simgpu_checksum(gpu(), buf.mem, (size_t)1 << 40, &sum), -EFAULT);
	check_ok(simgpu_evict(gpu(), buf.mem, (size_t)1 << 40));
	buffer_verify(&buf);
	check(now_ms() - begun < 10000 * ktap_scale(), "huge ranges took %u ms",
	      (unsigned int)(now_ms() - begun));
	buffer_verify(&valid.buf);
}

static void residency_of_a_sparse_gigabyte(void)
{
	uint64_t counts[SIMGPU_PLACES];
	size_t size = (size_t)1 << 30;
	struct buffer buf;
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check(mem != MAP_FAILED, "mmap: %s", strerror(errno));
	buffer_adopt(&buf, (unsigned char *)mem + size / 2, 4 * PAGE);
	buffer_write(&buf);
	buffer_populate_range(&buf, 0, PAGE);
	check_ok(simgpu_residency(gpu(), mem, size, NULL, counts));
	check(counts[SIMGPU_PLACE_VRAM] == 1 && counts[SIMGPU_PLACE_RAM] == 3 &&
	      counts[SIMGPU_PLACE_NONE] == size / PAGE - 4, "the residency counts are wrong");
	buffer_verify(&buf);
}

static void unknown_operations(void)
{
	struct valid valid = make_valid();

	with(valid, VRAM_OP, vram_op, op, SIMGPU_OP_CHECKSUM + 1, -EINVAL);
	with(valid, VRAM_OP, vram_op, op, UINT32_MAX, -EINVAL);
	/* A checksum takes no pattern. */
	with(valid, VRAM_OP, vram_op, op, SIMGPU_OP_CHECKSUM, -EINVAL);
	expect_unchanged(&valid);
}

static void timeslice_too_long(void)
{
	struct valid valid = make_valid();

	with(valid, POPULATE, populate, timeslice_ms, 10001, -EINVAL);
	with(valid, POPULATE, populate, timeslice_ms, UINT32_MAX, -EINVAL);
	expect_unchanged(&valid);
}

static void not_resident(void)
{
	struct valid valid = make_valid();
	struct buffer buf;
	uint64_t sum;

	buffer_init(&buf, SIZE);
	check_result(simgpu_xor(gpu(), buf.mem, SIZE, 1), -EFAULT);
	check_result(simgpu_fill(gpu(), buf.mem, SIZE, 1), -EFAULT);
	check_result(simgpu_checksum(gpu(), buf.mem, SIZE, &sum), -EFAULT);
	buffer_verify(&buf);
	expect_unchanged(&valid);
}

static void unknown_ioctls(void)
{
	struct valid valid = make_valid();
	unsigned char args[128] = { 0 };

	for (int nr = DRM_SIMGPU_COUNTERS + 1; nr < 0x60; nr++)
		check_result(simgpu_ioctl(gpu(), DRM_IOWR(DRM_COMMAND_BASE + nr, args), args),
			     -EINVAL);
	/* Not DRM's letter. */
	check_result(simgpu_ioctl(gpu(), _IO('S', DRM_COMMAND_BASE), args), -ENOTTY);
	expect_unchanged(&valid);
}

static void bad_argument_pointers(void)
{
	static const unsigned long requests[] = {
		DRM_IOCTL_SIMGPU_INFO, POPULATE, EVICT, VRAM_OP, RESIDENCY, INJECT,
	};
	struct valid valid = make_valid();
	void *none = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
		check_result(simgpu_ioctl(gpu(), requests[i], NULL), -EFAULT);
		check_result(simgpu_ioctl(gpu(), requests[i], none), -EFAULT);
		check_result(simgpu_ioctl(gpu(), requests[i], (void *)0xffff888000000000),
			     -EFAULT);
	}
	expect_unchanged(&valid);
}

/* A caller with an older, shorter struct: what it lacks is 0, here an empty range. */
static void short_arguments(void)
{
	struct valid valid = make_valid();
	unsigned long request = _IOC(_IOC_WRITE, DRM_IOCTL_BASE,
				     DRM_COMMAND_BASE + DRM_SIMGPU_POPULATE, 8);

	check_result(call(request, &valid.populate), -EINVAL);
	expect_unchanged(&valid);
}

static void bad_map_pointers(void)
{
	struct valid valid = make_valid();
	unsigned char *map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t pages = SIZE / PAGE;

	check(map != MAP_FAILED, "mmap: %s", strerror(errno));
	with(valid, RESIDENCY, residency, map_ptr, 1, -EFAULT);
	with(valid, RESIDENCY, residency, map_ptr, 0xffff888000000000, -EFAULT);
	with(valid, RESIDENCY, residency, map_ptr, UINT64_MAX - 3, -EFAULT);

	/* Up to the last byte of a page is fine, one byte more is not. */
	check(!mprotect(map + PAGE, PAGE, PROT_READ), "mprotect: %s", strerror(errno));
	with(valid, RESIDENCY, residency, map_ptr, (uintptr_t)map + PAGE - pages, 0);
	for (size_t page = 0; page < pages; page++)
		check(map[PAGE - pages + page] == SIMGPU_PLACE_VRAM, "the map is wrong");
	with(valid, RESIDENCY, residency, map_ptr, (uintptr_t)map + PAGE - pages + 1, -EFAULT);
	with(valid, RESIDENCY, residency, map_ptr, (uintptr_t)map + PAGE, -EFAULT);
	expect_unchanged(&valid);
}

static void bad_injections(void)
{
	struct valid valid = make_valid();

	with(valid, INJECT, inject, what, 0, -EINVAL);
	with(valid, INJECT, inject, what, SIMGPU_INJECT_DELAY + 1, -EINVAL);
	with(valid, INJECT, inject, what, SIMGPU_INJECT_IRQ + SIMGPU_INJECT_FAIL, -EINVAL);
	with(valid, INJECT, inject, what, SIMGPU_INJECT_IRQ + 0x100 + SIMGPU_INJECT_FAIL, -EINVAL);
	with(valid, INJECT, inject, delay_us, 1, -EINVAL);	/* Not a delay. */
	expect_unchanged(&valid);
}

static void drop_sys_admin(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	check(!syscall(SYS_capget, &header, data), "capget: %s", strerror(errno));
	data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
	data[CAP_TO_INDEX(CAP_SYS_ADMIN)].permitted &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
	check(!syscall(SYS_capset, &header, data), "capset: %s", strerror(errno));
}

static void unprivileged_injection(void *arg)
{
	struct valid *valid = arg;

	drop_sys_admin();
	check_result(simgpu_inject(gpu(), SIMGPU_INJECT_FAIL, 1000, 0), -EACCES);
	/* Nothing was injected, and the rest needs no privilege. */
	buffer_populate(&valid->buf);
	check_ok(call(EVICT, &valid->evict));
	buffer_verify(&valid->buf);
}

static void injection_needs_sys_admin(void)
{
	struct valid valid = make_valid();

	reap_ok(start(unprivileged_injection, &valid));
	buffer_verify(&valid.buf);
}

static const struct ktap_test tests[] = {
	{ "right_arguments", right_arguments, 0 },
	{ "unknown_flags", unknown_flags, 0 },
	{ "padding", padding, 0 },
	{ "misaligned_ranges", misaligned_ranges, 0 },
	{ "empty_ranges", empty_ranges, 0 },
	{ "ranges_that_wrap", ranges_that_wrap, 0 },
	{ "addresses_that_are_not_the_users", addresses_that_are_not_the_users, 0 },
	{ "huge_sizes", huge_sizes, 0 },
	{ "residency_of_a_sparse_gigabyte", residency_of_a_sparse_gigabyte, 0 },
	{ "unknown_operations", unknown_operations, 0 },
	{ "timeslice_too_long", timeslice_too_long, 0 },
	{ "not_resident", not_resident, 0 },
	{ "unknown_ioctls", unknown_ioctls, 0 },
	{ "bad_argument_pointers", bad_argument_pointers, 0 },
	{ "short_arguments", short_arguments, 0 },
	{ "bad_map_pointers", bad_map_pointers, 0 },
	{ "bad_injections", bad_injections, 0 },
	{ "injection_needs_sys_admin", injection_needs_sys_admin, 0 },
};

KTAP_MAIN(tests, gpu_after_test)
