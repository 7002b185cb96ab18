/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the files of drm_pagemap_bench.ko share.
 */
#ifndef _DRM_PAGEMAP_BENCH_DRIVER_H_
#define _DRM_PAGEMAP_BENCH_DRIVER_H_

#include <linux/atomic.h>
#include <linux/device/faux.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/vmstat.h>

#include <drm/drm_device.h>
#include <drm/drm_pagemap.h>
#include <drm/drm_pagemap_util.h>

#include "bench.h"
#include "engine.h"
#include "marker.h"

#define BENCH_GPUS	2

/* Copies are for the copy engine of the emulated GPU; else the CPU makes them. */
extern bool use_engine;

/*
 * A GPU, with a part of VRAM. All of them reach each other's. With the copy engine they
 * are two parts of one device, else two devices.
 */
struct gpu {
	struct device *dev;
	struct faux_device *faux;
	struct drm_device *drm;
	struct dev_pagemap pgmap;
	struct drm_pagemap dpagemap;
	struct drm_pagemap_peer peer;
	bool has_owner, has_dpagemap;
	struct completion destroyed;
	/* Where its VRAM is in all of it. */
	u64 vram;
	unsigned long nr_pages;
	spinlock_t lock;
	unsigned long *used;
};

/* An allocation of VRAM: contiguous, and from 2 MiB on aligned to that. */
struct alloc {
	struct drm_pagemap_devmem base;
	struct gpu *gpu;
	struct list_head link;
	u32 id;
	/* Who has it: drm_pagemap until it releases it, and an op. */
	refcount_t users;
	unsigned long first, nr;
};

/* What the callbacks did since an op began. */
struct tally {
	atomic64_t callback_ns, copied, cleared;
	/* Free RAM before, and the least there was in a copy to VRAM; in pages. */
	long free_before, free_least;
};

extern struct tally tally;

/* The part of an op that is not the provider's own. */
static inline u64 callback_begin(void)
{
	marker(MARKER_CALLBACK);
	return ktime_get_ns();
}

static inline void callback_end(u64 begin)
{
	atomic64_add(ktime_get_ns() - begin, &tally.callback_ns);
	marker(MARKER_CALLBACK_END);
}

static inline long free_ram(void)
{
	return global_zone_page_state(NR_FREE_PAGES);
}

/* Copies in the making, the last of which may grow yet. */
struct copies {
	struct device *dev;
	enum engine_op op;
	u64 src, dst, len;
	int ret;
};

/* Of whole pages. */
void copy_pages(void *dst, const void *src, u64 len);
void zero_pages(void *dst, u64 len);

int vram_init(size_t size);
void vram_fini(void);

void copies_begin(struct copies *copies, struct device *dev);
void copies_add(struct copies *copies, enum engine_op op, u64 src, u64 dst, u64 len);
int copies_end(struct copies *copies);

int gpu_init(struct gpu *gpu, unsigned int index, size_t vram);
void gpu_fini(struct gpu *gpu);

struct alloc *alloc_new(struct gpu *gpu, size_t size);
struct alloc *alloc_get(u32 id);
void alloc_put(struct alloc *alloc);

#endif
