// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The bodies of c_gpu.h: what a C driver does with <drm/drm_pagemap.h>.
 */

#include <linux/bitmap.h>
#include <linux/dma-fence.h>
#include <linux/ioport.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include <drm/drm_drv.h>

#include "c_gpu.h"
#include "helpers.h"

/* The suite's tests run one after the other. */
static struct c_gpu *the_gpu;

/* --- The driver's operations ---------------------------------------------- */

static void c_release(struct drm_pagemap_devmem *devmem)
{
	struct c_alloc *alloc = container_of(devmem, struct c_alloc, base);
	struct c_gpu *gpu = alloc->gpu;
	unsigned long flags;

	/* In any context, for C drivers. */
	spin_lock_irqsave(&gpu->lock, flags);
	bitmap_clear(gpu->used, alloc->first, alloc->nr);
	spin_unlock_irqrestore(&gpu->lock, flags);

	kfree(alloc);
	atomic_inc(&gpu->released);
	atomic_dec(&gpu->live);
}

static int c_populate_pfn(struct drm_pagemap_devmem *devmem,
			  unsigned long npages, unsigned long *pfn)
{
	struct c_alloc *alloc = container_of(devmem, struct c_alloc, base);

	if (npages > alloc->nr)
		return -EINVAL;
	for (unsigned long i = 0; i < npages; i++)
		pfn[i] = first_pfn(alloc->gpu) + alloc->first + i;
	return 0;
}

static u8 *vram_of(struct c_gpu *gpu, struct page *page)
{
	return gpu->vram + ((page_to_pfn(page) - first_pfn(gpu)) << PAGE_SHIFT);
}

int c_copy_in(struct page **pages, struct drm_pagemap_addr *addr,
	      unsigned long npages, struct dma_fence *fence)
{
	struct c_gpu *gpu = the_gpu;

	atomic_inc(&gpu->copies_in);
	gpu->copy_fence = fence;
	if (gpu->fail_copy_in)
		return gpu->fail_copy_in;

	for (unsigned long i = 0; i < npages; i += 1 << addr[i].order) {
		size_t size = PAGE_SIZE << addr[i].order;

		if (!pages[i])
			continue;
		if (addr[i].addr)
			memcpy(vram_of(gpu, pages[i]),
			       drm_pagemap_kunit_dma_to_virt(&gpu->faux->dev,
							     addr[i].addr),
			       size);
		else
			memset(vram_of(gpu, pages[i]), 0, size);
	}
	return 0;
}

int c_copy_out(struct page **pages, struct drm_pagemap_addr *addr,
	       unsigned long npages, struct dma_fence *fence)
{
	struct c_gpu *gpu = the_gpu;

	atomic_inc(&gpu->copies_out);
	if (gpu->fail_copy_out)
		return gpu->fail_copy_out;

	for (unsigned long i = 0; i < npages; i += 1 << addr[i].order)
		if (pages[i] && addr[i].addr)
			memcpy(drm_pagemap_kunit_dma_to_virt(&gpu->faux->dev,
							     addr[i].addr),
			       vram_of(gpu, pages[i]),
			       PAGE_SIZE << addr[i].order);
	return 0;
}

const struct drm_pagemap_devmem_ops c_devmem_ops = {
	.devmem_release = c_release,
	.populate_devmem_pfn = c_populate_pfn,
	.copy_to_devmem = c_copy_in,
	.copy_to_ram = c_copy_out,
};

struct c_alloc *c_alloc_with(struct c_gpu *gpu, unsigned int pages,
			     const struct drm_pagemap_devmem_ops *ops,
			     struct dma_fence *fence)
{
	struct c_alloc *alloc = kzalloc_obj(*alloc);
	unsigned long flags;

	if (!alloc)
		return NULL;

	spin_lock_irqsave(&gpu->lock, flags);
	alloc->first = bitmap_find_next_zero_area(gpu->used, VRAM_PAGES, 0,
						  pages, 0);
	if (alloc->first < VRAM_PAGES)
		bitmap_set(gpu->used, alloc->first, pages);
	spin_unlock_irqrestore(&gpu->lock, flags);
	if (alloc->first >= VRAM_PAGES) {
		kfree(alloc);
		return NULL;
	}

	alloc->gpu = gpu;
	alloc->nr = pages;
	drm_pagemap_devmem_init(&alloc->base, &gpu->faux->dev, current->mm, ops,
				&gpu->dpagemap, (size_t)pages << PAGE_SHIFT,
				fence);
	atomic_inc(&gpu->live);
	return alloc;
}

struct c_alloc *c_alloc(struct c_gpu *gpu, unsigned int pages)
{
	return c_alloc_with(gpu, pages, &c_devmem_ops, NULL);
}

static int c_populate_mm(struct drm_pagemap *dpagemap, unsigned long start,
			 unsigned long end, struct mm_struct *mm,
			 unsigned long timeslice_ms)
{
	struct c_gpu *gpu = container_of(dpagemap, struct c_gpu, dpagemap);
	struct drm_pagemap_migrate_details details = {
		.timeslice_ms = timeslice_ms,
	};
	struct c_alloc *alloc;

	/* Not all kernels check mmap_assert_locked(). */
	if (!rwsem_is_locked(&mm->mmap_lock))
		return -ENOLCK;
	if (gpu->populate_ret)
		return gpu->populate_ret;
	alloc = c_alloc(gpu, (end - start) >> PAGE_SHIFT);
	if (!alloc)
		return -ENOSPC;
	return drm_pagemap_migrate_to_devmem(&alloc->base, mm, start, end,
					     &details);
}

static void c_destroy(struct drm_pagemap *dpagemap, bool is_atomic_or_reclaim)
{
	struct c_gpu *gpu = container_of(dpagemap, struct c_gpu, dpagemap);

	atomic_inc(&gpu->destroyed);
}

const struct drm_pagemap_ops c_ops = {
	.populate_mm = c_populate_mm,
	.destroy = c_destroy,
};

/* --- The driver's device -------------------------------------------------- */

static const struct file_operations c_fops = {
	.owner = THIS_MODULE,
};

static const struct drm_driver c_drm_driver = {
	.fops = &c_fops,
	.name = "drm_pagemap_kunit_c",
	.desc = "drm_pagemap KUnit, in C",
};

void c_gpu_free(struct c_gpu *gpu)
{
	if (gpu->pgmap.nr_range)
		memunmap_pages(&gpu->pgmap);
	if (gpu->res.end)
		release_mem_region(gpu->res.start, range_len(&gpu->res));
	if (!IS_ERR_OR_NULL(gpu->drm))
		drm_dev_put(gpu->drm);
	if (gpu->faux) {
		drm_pagemap_kunit_dma_remove(&gpu->faux->dev);
		faux_device_destroy(gpu->faux);
	}
	vfree(gpu->vram);
	the_gpu = NULL;
	kfree(gpu);
}

struct c_gpu *c_gpu_new(void)
{
	struct c_gpu *gpu = kzalloc_obj(*gpu);
	struct resource *res;
	void *mapped;

	if (!gpu)
		return NULL;
	the_gpu = gpu;
	spin_lock_init(&gpu->lock);

	gpu->vram = vmalloc(VRAM_PAGES * PAGE_SIZE);
	gpu->faux = faux_device_create("drm_pagemap_kunit_c", NULL, NULL);
	if (!gpu->vram || !gpu->faux ||
	    drm_pagemap_kunit_dma_add(&gpu->faux->dev))
		goto err;
	memset(gpu->vram, POISON, VRAM_PAGES * PAGE_SIZE);

	gpu->drm = drm_dev_alloc(&c_drm_driver, &gpu->faux->dev);
	if (IS_ERR(gpu->drm))
		goto err;

	res = request_free_mem_region(&iomem_resource, VRAM_PAGES * PAGE_SIZE,
				      "drm_pagemap_kunit_c");
	if (IS_ERR(res))
		goto err;
	gpu->res.start = res->start;
	gpu->res.end = res->end;

	gpu->pgmap.type = MEMORY_DEVICE_PRIVATE;
	gpu->pgmap.range = gpu->res;
	gpu->pgmap.nr_range = 1;
	gpu->pgmap.ops = drm_pagemap_pagemap_ops_get();
	gpu->pgmap.owner = gpu;
	mapped = memremap_pages(&gpu->pgmap, NUMA_NO_NODE);
	if (IS_ERR(mapped)) {
		gpu->pgmap.nr_range = 0;
		goto err;
	}
	return gpu;

err:
	c_gpu_free(gpu);
	return NULL;
}
