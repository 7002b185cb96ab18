/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the driver drm_pagemap_bench.ko does for the program bench.
 *
 * Private to this folder: the two are built together. Addresses and sizes are in
 * bytes, times in nanoseconds. An ioctl fails only where the request makes no
 * sense; what the provider of drm_pagemap returned is in @result.
 */
#ifndef _DRM_PAGEMAP_BENCH_H_
#define _DRM_PAGEMAP_BENCH_H_

#include <linux/ioctl.h>
#include <linux/types.h>

enum bench_verb {
	/* Move [start, end) to a new allocation of @gpu; out: its @id. */
	BENCH_MIGRATE,
	/* Bring the allocation @id home. */
	BENCH_EVICT,
	/* Read a byte in every @stride bytes of [start, end), as a CPU does. */
	BENCH_TOUCH,
	/* Marks for the plugin: what was measured since is one sample; the next case. */
	BENCH_REPEAT,
	BENCH_CASE,
};

/* On -EBUSY, evict and try again, as drivers do. */
#define BENCH_RETRY		(1 << 0)
/* Evict the allocation @id before, in the time measured. */
#define BENCH_EVICT_FIRST	(1 << 1)
/* On a GPU of the Rust door, only what is missing; -EOPNOTSUPP where there is none. */
#define BENCH_MISSING		(1 << 3)
/* Part of the preparation: the plugin is told nothing. */
#define BENCH_UNCOUNTED		(1 << 2)

struct bench_op {
	__u32 verb;
	__u32 gpu;
	__u64 start, end;
	__u64 stride;
	__u32 flags;
	__u32 id;
	/* Out. */
	__s32 result;
	__u32 tries;		/* calls of drm_pagemap_migrate_to_devmem() */
	__u64 total_ns;		/* of the provider's calls */
	__u64 callback_ns;	/* of these, in the driver's callbacks */
	/* Of these, with the copy engine: before its first work, while it had some, since the last. */
	__u64 before_ns, copying_ns, after_ns;
	__u64 copied, cleared;	/* bytes, by these callbacks */
	__u64 held;		/* bytes of RAM less than before, at most, in a copy to VRAM */
};

#define BENCH_IOC_OP	_IOWR('B', 0, struct bench_op)

#endif
