/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Memory of one of several kinds, and a shadow: what it must contain, byte for
 * byte.
 *
 * All fail the test if they fail. Offsets and lengths are bytes, multiples of
 * the page size but for area_write().
 */
#ifndef AREA_H
#define AREA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu.h"
#include "gpu_access.h"

enum kind { KIND_MALLOC, KIND_MMAP, KIND_HUGE, KIND_MLOCK, KIND_FILE, KIND_SHMEM };

struct area {
	enum kind kind;
	unsigned char *mem;
	size_t size;
	unsigned char *shadow;	/* Processes that share the memory share this, too. */
	unsigned char *base;	/* Of KIND_FILE: what the file contains. */
	void *block;		/* Of KIND_MALLOC: what is to be freed. */
	int file;
};

/* Never touched, but for malloc and files. @offset: from a 2 MiB boundary, where that can be had. */
void area_init(struct area *area, enum kind kind, size_t size, size_t offset);
void area_free(struct area *area);

/* A range of addresses where a test may map what it likes. */
void *reserve(size_t size, size_t offset);

/* CPU: write something new; compare every byte. */
void area_write(struct area *area, size_t offset, size_t len, uint64_t seed);
void area_verify(const struct area *area, size_t offset, size_t len);

/* GPU: what can't be in VRAM it uses where it is. */
void area_gpu(struct area *area, enum gpu_op op, size_t offset, size_t len, uint64_t value);
void area_prefetch(struct area *area, size_t offset, size_t len);
void area_evict(struct area *area, size_t offset, size_t len);

/* The shadow alone: the process's own pages there are gone. */
void area_revert(struct area *area, size_t offset, size_t len);
/* Map a part anew, as it was in the beginning. */
void area_map_anew(struct area *area, size_t offset, size_t len);

/*
 * madvise(); or, of what can't be advised so, that it is refused. After MADV_FREE
 * nobody knows what is there until it has been written to: area_settle() does that
 * and looks; the kernel may have dropped it page by page.
 */
void area_settle(struct area *area, size_t offset, size_t len);
void area_advise(struct area *area, size_t offset, size_t len, int advice);

#endif /* AREA_H */
