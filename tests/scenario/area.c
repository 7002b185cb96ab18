// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "area.h"
#include "buffer.h"
#include "ktap.h"
#include "pattern.h"
#include "svm.h"

#define HUGE (2 * MB)

static void *map(void *where, size_t size, int protection, int flags, int file, off_t offset)
{
	void *mem = mmap(where, size, protection, flags, file, offset);

	check(mem != MAP_FAILED, "mmap of %zu bytes: %s", size, strerror(errno));
	return mem;
}

void *reserve(size_t size, size_t offset)
{
	size_t spare = size + 2 * HUGE;
	unsigned char *all = map(NULL, spare, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *mem = (unsigned char *)(((uintptr_t)all + HUGE - 1) & -HUGE) + offset % HUGE;

	if (mem > all)
		munmap(all, mem - all);
	munmap(mem + size, all + spare - (mem + size));
	return mem;
}

/* Where processes that share the memory share what they know of it. */
static unsigned char *knowledge(size_t size, bool shared)
{
	return map(NULL, size, PROT_READ | PROT_WRITE,
		   (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
}

static void map_part(struct area *area, size_t offset, size_t len)
{
	bool anonymous = area->file < 0;
	int flags = MAP_FIXED | (anonymous ? MAP_ANONYMOUS : 0) |
		    (area->kind == KIND_SHMEM ? MAP_SHARED : MAP_PRIVATE);

	map(area->mem + offset, len, PROT_READ | PROT_WRITE, flags, area->file,
	    anonymous ? 0 : offset);
	if (area->kind == KIND_HUGE)
		check(!madvise(area->mem + offset, len, MADV_HUGEPAGE), "MADV_HUGEPAGE: %s",
		      strerror(errno));
	if (area->kind == KIND_MLOCK)
		check(!mlock(area->mem + offset, len), "mlock: %s", strerror(errno));
}

/* A file that has something in it. */
static void init_file(struct area *area)
{
	char path[] = "/tmp/scenario-XXXXXX";

	area->file = mkstemp(path);
	check(area->file >= 0, "%s: %s", path, strerror(errno));
	unlink(path);
	area->base = knowledge(area->size, true);
	pattern_fill((uint64_t *)area->base, area->size / 8, 0, 0xf11e);
	check(pwrite(area->file, area->base, area->size, 0) == (ssize_t)area->size,
	      "write to a file: %s", strerror(errno));
	memcpy(area->shadow, area->base, area->size);
}

void area_init(struct area *area, enum kind kind, size_t size, size_t offset)
{
	*area = (struct area){ .kind = kind, .size = size, .file = -1 };
	area->shadow = knowledge(size, kind == KIND_SHMEM);

	switch (kind) {
	case KIND_MALLOC:
		check(!posix_memalign(&area->block, PAGE, size), "malloc of %zu bytes", size);
		area->mem = area->block;
		/* It may have been somebody else's before. */
		memset(area->mem, 0, size);
		return;
	case KIND_FILE:
		init_file(area);
		break;
	case KIND_SHMEM:
		area->file = memfd_create("scenario", MFD_CLOEXEC);
		check(area->file >= 0 && !ftruncate(area->file, size), "memfd: %s",
		      strerror(errno));
		break;
	default:
		break;
	}
	area->mem = reserve(size, offset);
	map_part(area, 0, size);
}

void area_free(struct area *area)
{
	if (area->mem != area->block)
		munmap(area->mem, area->size);
	free(area->block);
	munmap(area->shadow, area->size);
	if (area->base)
		munmap(area->base, area->size);
	if (area->file >= 0)
		close(area->file);
}

void area_write(struct area *area, size_t offset, size_t len, uint64_t seed)
{
	for (size_t done = 0; done < len; done += sizeof(seed)) {
		uint64_t word = pattern_word(seed, done);

		memcpy(area->shadow + offset + done, &word,
		       len - done < sizeof(word) ? len - done : sizeof(word));
	}
	memcpy(area->mem + offset, area->shadow + offset, len);
}

void area_verify(const struct area *area, size_t offset, size_t len)
{
	size_t bad = offset;

	if (!memcmp(area->mem + offset, area->shadow + offset, len))
		return;
	/* It may be right by now, which does not make it right. */
	while (bad < offset + len - 1 && area->mem[bad] == area->shadow[bad])
		bad++;
	fail("wrong data at byte 0x%zx of 0x%zx (page %zu): %02x, expected %02x", bad, area->size,
	     bad / PAGE, area->mem[bad], area->shadow[bad]);
}

static uint64_t *shadow_words(const struct area *area, size_t offset)
{
	return (uint64_t *)(area->shadow + offset);
}

static uint64_t shadow_sum(const struct area *area, size_t offset, size_t len)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < len / 8; i++)
		sum += shadow_words(area, offset)[i];
	return sum;
}

void area_gpu(struct area *area, enum gpu_op op, size_t offset, size_t len, uint64_t value)
{
	uint64_t in_out = op == GPU_SUM ? 0 : value;
	int err;

	/* Half of the additions are atomic, where they can be. */
	if (op == GPU_ADD && area->file < 0 && value & 1)
		op = GPU_ATOMIC;
	err = gpu_access(op, area->mem + offset, len, &in_out);
	check(!err, "a GPU %s of 0x%zx bytes at 0x%zx gave %s", gpu_op_names[op], len, offset,
	      error_name(err));
	/* Such memory doesn't move. */
	if (area->file >= 0)
		check(!count_places(area->mem + offset, len, SIMGPU_PLACE_VRAM),
		      "pages of a file are in VRAM");
	if (op == GPU_SUM) {
		uint64_t sum = shadow_sum(area, offset, len);

		check(in_out == sum, "the GPU's sum of 0x%zx bytes at 0x%zx is %016" PRIx64
		      ", expected %016" PRIx64, len, offset, in_out, sum);
		return;
	}
	for (size_t i = 0; i < len / 8; i++) {
		uint64_t *word = &shadow_words(area, offset)[i];

		*word = gpu_result(op, *word, value);
	}
}

void area_prefetch(struct area *area, size_t offset, size_t len)
{
	check_ok(gpu_prefetch(area->mem + offset, len));
}

void area_evict(struct area *area, size_t offset, size_t len)
{
	check_ok(simgpu_evict(gpu(), area->mem + offset, len));
}

void area_revert(struct area *area, size_t offset, size_t len)
{
	if (area->kind == KIND_FILE)
		memcpy(area->shadow + offset, area->base + offset, len);
	else if (area->kind != KIND_SHMEM)
		memset(area->shadow + offset, 0, len);
}

void area_map_anew(struct area *area, size_t offset, size_t len)
{
	map_part(area, offset, len);
	area_revert(area, offset, len);
}

void area_settle(struct area *area, size_t offset, size_t len)
{
	for (size_t page = offset; page < offset + len; page += PAGE) {
		static const unsigned char zero[PAGE];

		__atomic_fetch_or(area->mem + page, 0, __ATOMIC_RELAXED);
		if (!memcmp(area->mem + page, zero, PAGE))
			memset(area->shadow + page, 0, PAGE);
	}
}

void area_advise(struct area *area, size_t offset, size_t len, int advice)
{
	bool refused = area->kind == KIND_MLOCK || (advice == MADV_FREE && area->file >= 0);
	int err = madvise(area->mem + offset, len, advice) ? -errno : 0;

	check(err == (refused ? -EINVAL : 0), "madvise %d gave %s", advice, error_name(err));
	if (err)
		return;
	if (advice == MADV_DONTNEED)
		area_revert(area, offset, len);
}
