/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A small C driver for the tests, with a buffer in RAM for a GPU's memory.
 */
#ifndef _DRM_PAGEMAP_KUNIT_C_GPU_H_
#define _DRM_PAGEMAP_KUNIT_C_GPU_H_

#include <linux/atomic.h>
#include <linux/device/faux.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/range.h>
#include <linux/spinlock.h>

#include <drm/drm_device.h>
#include <drm/drm_pagemap.h>

#define VRAM_PAGES	64
#define POISON		0xa5

struct c_gpu {
	struct faux_device *faux;
	struct drm_device *drm;
	struct dev_pagemap pgmap;
	struct range res;
	struct drm_pagemap dpagemap;
	/* Whether the test, or nobody, has the first reference. */
	bool held;
	u8 *vram;
	DECLARE_BITMAP(used, VRAM_PAGES);
	spinlock_t lock;
	struct mm_struct *mm;

	atomic_t destroyed;
	atomic_t released;
	atomic_t live;
	atomic_t copies_in;
	atomic_t copies_out;
	struct dma_fence *copy_fence;
	int fail_copy_in;
	int fail_copy_out;
	int populate_ret;
};

struct c_alloc {
	struct drm_pagemap_devmem base;
	struct c_gpu *gpu;
	unsigned int first, nr;
};

extern const struct drm_pagemap_ops c_ops;
extern const struct drm_pagemap_devmem_ops c_devmem_ops;

static inline unsigned long first_pfn(struct c_gpu *gpu)
{
	return PHYS_PFN(gpu->res.start);
}

struct c_gpu *c_gpu_new(void);
void c_gpu_free(struct c_gpu *gpu);
struct c_alloc *c_alloc(struct c_gpu *gpu, unsigned int pages);
struct c_alloc *c_alloc_with(struct c_gpu *gpu, unsigned int pages,
			     const struct drm_pagemap_devmem_ops *ops,
			     struct dma_fence *fence);

int c_copy_in(struct page **pages, struct drm_pagemap_addr *addr,
	      unsigned long npages, struct dma_fence *fence);
int c_copy_out(struct page **pages, struct drm_pagemap_addr *addr,
	       unsigned long npages, struct dma_fence *fence);

#endif
