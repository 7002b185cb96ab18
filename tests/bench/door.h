/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A GPU of the Rust door (door_rust.rs), and what C does for it. Only where the provider
 * of drm_pagemap is ours: BENCH_DOOR is defined then.
 */
#ifndef _DRM_PAGEMAP_BENCH_DOOR_H_
#define _DRM_PAGEMAP_BENCH_DOOR_H_

#include <linux/types.h>

struct device;
struct mm_struct;

void *bench_door_new(void *vram, size_t size);
void bench_door_free(void *gpu);
void *bench_door_alloc(void *gpu, size_t size);
int bench_door_migrate(void *devmem, const struct mm_struct *mm, size_t start, size_t end);

/* Lets a device reach all of RAM. */
int bench_door_dma(struct device *dev);
/* Copies @len bytes from @addr to @offset of VRAM (@mode 0) or back (1), or clears them (2). */
void bench_door_copy(struct device *dev, void *vram, u64 offset, u64 addr, u64 len, int mode);

#endif
