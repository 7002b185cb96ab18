// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What a process may do to its mappings while their pages are in VRAM.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "buffer.h"
#include "ktap.h"
#include "procs.h"

#define SIZE (4 * MB)

static void check_unmap(void *mem, size_t size)
{
	check(!munmap(mem, size), "munmap: %s", strerror(errno));
}

/* Unmap a part; the rest must be right, whichever way it comes home. */
static void unmap_part(size_t offset, size_t len)
{
	for (int evict = 0; evict < 2; evict++) {
		struct buffer buf;

		buffer_init_in_vram(&buf, SIZE);
		check_unmap(buf.mem + offset, len);
		buffer_expect_range(&buf, offset, len, SIMGPU_PLACE_NONE);
		if (evict)
			buffer_evict(&buf);
		buffer_verify_range(&buf, 0, offset);
		buffer_verify_range(&buf, offset + len, SIZE - offset - len);
		buffer_unmap(&buf);
	}
}

static void munmap_front(void)
{
	unmap_part(0, MB);
}

static void munmap_middle(void)
{
	unmap_part(MB + PAGE, MB);
}

static void munmap_end(void)
{
	unmap_part(SIZE - PAGE, PAGE);
}

static void munmap_all(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	buffer_unmap(&buf);
	gpu_expect_all_free();
}

/* A new mapping where the old one was must not show the old one's data. */
static void map_anew(void)
{
	struct buffer buf;
	void *mem;

	buffer_init_in_vram(&buf, SIZE);
	mem = mmap(buf.mem + MB, MB, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	check(mem == buf.mem + MB, "mmap: %s", strerror(errno));
	buffer_model_zero(&buf, MB, MB);
	buffer_populate(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_xor(&buf, 0x1);
	buffer_verify(&buf);
}

static unsigned char *check_mremap(void *old, size_t old_size, size_t new_size, int flags,
				   void *to)
{
	void *new = mremap(old, old_size, new_size, flags, to);

	check(new != MAP_FAILED, "mremap: %s", strerror(errno));
	return new;
}

/* Move @buf to an address that has another offset from a 2 MiB boundary. */
static void move(struct buffer *buf, int flags)
{
	struct buffer target;

	buffer_map_at(&target, buf->size, ((uintptr_t)buf->mem + 5 * PAGE) % (2 * MB));
	buf->mem = check_mremap(buf->mem, buf->size, buf->size,
				MREMAP_MAYMOVE | MREMAP_FIXED | flags, target.mem);
}

static void mremap_move_then_touch(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	move(&buf, 0);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_verify(&buf);
}

static void mremap_move_then_evict(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	move(&buf, 0);
	buffer_evict(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void mremap_move_then_gpu(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	move(&buf, 0);
	buffer_populate(&buf);
	buffer_xor(&buf, 0x313131);
	buffer_checksum(&buf);
	buffer_verify(&buf);
}

static void mremap_grow(void)
{
	struct buffer buf, grown;

	buffer_init_in_vram(&buf, SIZE);
	buffer_adopt(&grown, check_mremap(buf.mem, SIZE, 2 * SIZE, MREMAP_MAYMOVE, NULL),
		     2 * SIZE);
	buf.mem = grown.mem;
	buffer_verify_range(&grown, SIZE, SIZE);	/* The new half: zero. */
	buffer_populate_range(&buf, 0, SIZE);
	buffer_xor(&buf, 0x9);
	buffer_verify(&buf);
}

static void mremap_shrink(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	check_mremap(buf.mem, SIZE, SIZE / 2, 0, NULL);
	buffer_expect_range(&buf, SIZE / 2, SIZE / 2, SIMGPU_PLACE_NONE);
	buffer_evict_range(&buf, 0, SIZE / 2);
	buffer_verify_range(&buf, 0, SIZE / 2);
}

static void mremap_dontunmap(void)
{
	struct buffer buf, old;

	buffer_init_in_vram(&buf, SIZE);
	buffer_adopt(&old, buf.mem, SIZE);
	move(&buf, MREMAP_DONTUNMAP);
	buffer_populate(&old);	/* Still mapped, and empty now. */
	buffer_xor(&buf, 0x4d);
	buffer_verify(&old);
	buffer_verify(&buf);
}

static void check_madvise(void *mem, size_t size, int advice)
{
	check(!madvise(mem, size, advice), "madvise: %s", strerror(errno));
}

static void madvise_dontneed(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	check_madvise(buf.mem + MB, MB, MADV_DONTNEED);
	buffer_expect_range(&buf, MB, MB, SIMGPU_PLACE_NONE);
	buffer_model_zero(&buf, MB, MB);
	buffer_verify(&buf);
}

static void madvise_dontneed_all(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	check_madvise(buf.mem, SIZE, MADV_DONTNEED);
	gpu_expect_all_free();	/* While it is mapped. */
	buffer_model_zero(&buf, 0, SIZE);
	buffer_populate(&buf);
	buffer_checksum(&buf);
	buffer_verify(&buf);
}

/* The kernel may drop a page until it is written to: either all of it or nothing. */
static void madvise_free(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	check_madvise(buf.mem, SIZE, MADV_FREE);
	for (size_t offset = 0; offset < SIZE; offset += PAGE) {
		const uint64_t *words = (const uint64_t *)(buf.mem + offset);

		if (!words[0] && !words[1])
			buffer_model_zero(&buf, offset, PAGE);
	}
	buffer_verify(&buf);
	buffer_write(&buf);
	buffer_populate(&buf);
	buffer_xor(&buf, 0x21);
	buffer_verify(&buf);
}

static void check_mprotect(void *mem, size_t size, int protection)
{
	check(!mprotect(mem, size, protection), "mprotect: %s", strerror(errno));
}

static void mprotect_read_only(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	check_mprotect(buf.mem, SIZE, PROT_READ);
	check(signal_of_write(buf.mem) == SIGSEGV, "a write to read-only memory got through");
	buffer_verify(&buf);
	check(signal_of_write(buf.mem) == SIGSEGV, "a write to read-only memory got through");
	check_mprotect(buf.mem, SIZE, PROT_READ | PROT_WRITE);
	buffer_write(&buf);
	buffer_verify(&buf);
}

static void mprotect_none(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	check_mprotect(buf.mem, SIZE, PROT_NONE);
	check(signal_of_read(buf.mem) == SIGSEGV, "a read of inaccessible memory got through");
	check_mprotect(buf.mem, SIZE, PROT_READ | PROT_WRITE);
	buffer_verify(&buf);
}

/* Evicted while no access is allowed: the protection must survive. */
static void mprotect_none_then_evict(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	check_mprotect(buf.mem, SIZE, PROT_NONE);
	buffer_evict(&buf);
	check(signal_of_read(buf.mem) == SIGSEGV, "a read of inaccessible memory got through");
	check_mprotect(buf.mem, SIZE, PROT_READ | PROT_WRITE);
	buffer_verify(&buf);
}

static void read_only_keeps_the_gpu_out(void)
{
	struct buffer buf;
	int err;

	buffer_init_in_vram(&buf, SIZE);
	check_mprotect(buf.mem, SIZE, PROT_READ);
	err = simgpu_xor(gpu(), buf.mem, SIZE, 0x1);
	check(err == -EFAULT || err == -EACCES, "a GPU write to read-only memory gave %s",
	      error_name(err));
	buffer_verify(&buf);
}

static void mlock_brings_home(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	check(!mlock(buf.mem, SIZE), "mlock: %s", strerror(errno));
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void mlocked_memory(void)
{
	struct buffer buf;
	int err;

	buffer_init(&buf, MB);
	check(!mlock(buf.mem, MB), "mlock: %s", strerror(errno));
	err = simgpu_populate(gpu(), buf.mem, MB, 0);
	check(!err || err == -EBUSY, "populating locked memory gave %s", error_name(err));
	if (!err)
		buffer_xor(&buf, 0x10c4);
	buffer_verify(&buf);
	check(!munlock(buf.mem, MB), "munlock: %s", strerror(errno));
	buffer_populate(&buf);
	buffer_xor(&buf, 0x10c5);
	buffer_verify(&buf);
}

static const struct ktap_test tests[] = {
	{ "munmap_front", munmap_front, 0 },
	{ "munmap_middle", munmap_middle, 0 },
	{ "munmap_end", munmap_end, 0 },
	{ "munmap_all", munmap_all, 0 },
	{ "map_anew", map_anew, 0 },
	{ "mremap_move_then_touch", mremap_move_then_touch, 0 },
	{ "mremap_move_then_evict", mremap_move_then_evict, 0 },
	{ "mremap_move_then_gpu", mremap_move_then_gpu, 0 },
	{ "mremap_grow", mremap_grow, 0 },
	{ "mremap_shrink", mremap_shrink, 0 },
	{ "mremap_dontunmap", mremap_dontunmap, 0 },
	{ "madvise_dontneed", madvise_dontneed, 0 },
	{ "madvise_dontneed_all", madvise_dontneed_all, 0 },
	{ "madvise_free", madvise_free, 0 },
	{ "mprotect_read_only", mprotect_read_only, 0 },
	{ "mprotect_none", mprotect_none, 0 },
	{ "mprotect_none_then_evict", mprotect_none_then_evict, 0 },
	{ "read_only_keeps_the_gpu_out", read_only_keeps_the_gpu_out, 0 },
	{ "mlock_brings_home", mlock_brings_home, 0 },
	{ "mlocked_memory", mlocked_memory, 0 },
};

KTAP_MAIN(tests, gpu_after_test)
