// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The GPUs, their memory, and what drm_pagemap calls.
 */

#include <linux/bitmap.h>
#include <linux/dma-mapping.h>
#include <linux/huge_mm.h>
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include <drm/drm_drv.h>

#include "driver.h"

static DRM_PAGEMAP_OWNER_LIST_DEFINE(owners);

/* What VRAM's offset 0 is at for the others, where no RAM is. */
#define VRAM_BUS	(1ull << 40)

static LIST_HEAD(allocs);
static DEFINE_SPINLOCK(allocs_lock);
static u32 next_id;

static const struct file_operations bench_drm_fops = {
	.owner = THIS_MODULE,
};

static const struct drm_driver bench_drm_driver = {
	.fops = &bench_drm_fops,
	.name = "drm_pagemap_bench",
	.desc = "drm_pagemap benchmark",
};

/* --- Copies ---------------------------------------------------------------- */

static unsigned long first_pfn(struct gpu *gpu)
{
	return PHYS_PFN(gpu->pgmap.range.start);
}

static struct gpu *gpu_of(struct page *page)
{
	return container_of(page_pgmap(page), struct gpu, pgmap);
}

static u64 vram_of(struct page *page)
{
	struct gpu *gpu = gpu_of(page);

	return gpu->vram + ((u64)(page_to_pfn(page) - first_pfn(gpu)) << PAGE_SHIFT);
}

/* @addr is what the provider made of the other page, if there is one. */
static int copy(struct page **pages, struct drm_pagemap_addr *addr, unsigned long npages, bool in)
{
	struct copies copies = {};
	bool begun = false;
	unsigned long nr;
	int ret = 0;
	u64 begin;

	/*
	 * Copies by the CPU are taken off what is measured. The provider may have another
	 * task at the same work, which must not run meanwhile.
	 */
	if (!use_engine)
		preempt_disable();
	begin = callback_begin();
	if (in)
		WRITE_ONCE(tally.free_least, min(READ_ONCE(tally.free_least), free_ram()));
	for (unsigned long i = 0; i < npages; i += nr) {
		u64 other = addr[i].addr, vram;
		enum engine_op op;

		nr = 1ul << addr[i].order;
		if (!pages[i] || (!other && !in))
			continue;
		if (!begun)
			copies_begin(&copies, gpu_of(pages[i])->dev);
		begun = true;
		vram = vram_of(pages[i]);
		if (!other) {
			/* Memory that nobody has touched yet. */
			nr = PageTail(pages[i]) ? 1 : compound_nr(pages[i]);
			copies_add(&copies, ENGINE_CLEAR, 0, vram, nr << PAGE_SHIFT);
			continue;
		}
		op = in ? ENGINE_TO_VRAM : ENGINE_FROM_VRAM;
		if (addr[i].proto == DRM_INTERCONNECT_DRIVER) {
			op = ENGINE_VRAM;
			other -= VRAM_BUS;
		}
		copies_add(&copies, op, in ? other : vram, in ? vram : other, nr << PAGE_SHIFT);
	}
	if (begun)
		ret = copies_end(&copies);
	callback_end(begin);
	if (!use_engine)
		preempt_enable();
	return ret;
}

static int copy_in(struct page **pages, struct drm_pagemap_addr *addr, unsigned long npages,
		   struct dma_fence *fence)
{
	return copy(pages, addr, npages, true);
}

static int copy_out(struct page **pages, struct drm_pagemap_addr *addr, unsigned long npages,
		    struct dma_fence *fence)
{
	return copy(pages, addr, npages, false);
}

/* --- The interconnect ------------------------------------------------------ */

/* As cheap as a look at the clock, so they don't; the plugin knows them by name. */
static struct drm_pagemap_addr vram_map(struct drm_pagemap *dpagemap, struct device *dev,
					struct page *page, unsigned int order,
					enum dma_data_direction dir)
{
	return drm_pagemap_addr_encode(VRAM_BUS + vram_of(page), DRM_INTERCONNECT_DRIVER, order, dir);
}

static void vram_unmap(struct drm_pagemap *dpagemap, struct device *dev,
		       const struct drm_pagemap_addr *addr)
{
}

static void pagemap_destroy(struct drm_pagemap *dpagemap, bool is_atomic_or_reclaim)
{
	complete(&container_of(dpagemap, struct gpu, dpagemap)->destroyed);
}

static const struct drm_pagemap_ops pagemap_ops = {
	.device_map = vram_map,
	.device_unmap = vram_unmap,
	.destroy = pagemap_destroy,
};

static bool interconnected(struct drm_pagemap_peer *a, struct drm_pagemap_peer *b)
{
	return true;
}

/* --- Allocations ----------------------------------------------------------- */

static int vram_pfns(struct drm_pagemap_devmem *devmem, unsigned long npages, unsigned long *pfn)
{
	struct alloc *alloc = container_of(devmem, struct alloc, base);
	u64 begin = callback_begin();

	for (unsigned long i = 0; i < npages; i++)
		pfn[i] = first_pfn(alloc->gpu) + alloc->first + i;
	callback_end(begin);
	return 0;
}

void alloc_put(struct alloc *alloc)
{
	struct gpu *gpu = alloc->gpu;
	unsigned long flags;

	if (!refcount_dec_and_test(&alloc->users))
		return;
	spin_lock_irqsave(&allocs_lock, flags);
	list_del(&alloc->link);
	spin_unlock_irqrestore(&allocs_lock, flags);
	spin_lock_irqsave(&gpu->lock, flags);
	bitmap_clear(gpu->used, alloc->first, alloc->nr);
	spin_unlock_irqrestore(&gpu->lock, flags);
	kfree(alloc);
}

static void vram_release(struct drm_pagemap_devmem *devmem)
{
	u64 begin = callback_begin();

	alloc_put(container_of(devmem, struct alloc, base));
	callback_end(begin);
}

static const struct drm_pagemap_devmem_ops devmem_ops = {
	.devmem_release = vram_release,
	.populate_devmem_pfn = vram_pfns,
	.copy_to_devmem = copy_in,
	.copy_to_ram = copy_out,
};

/* A reference on an allocation, or NULL if it is gone. */
struct alloc *alloc_get(u32 id)
{
	struct alloc *alloc, *found = NULL;

	spin_lock_irq(&allocs_lock);
	list_for_each_entry(alloc, &allocs, link)
		if (alloc->id == id && refcount_inc_not_zero(&alloc->users)) {
			found = alloc;
			break;
		}
	spin_unlock_irq(&allocs_lock);
	return found;
}

/* With two references: drm_pagemap's and the caller's. */
struct alloc *alloc_new(struct gpu *gpu, size_t size)
{
	struct alloc *alloc = kzalloc_obj(*alloc);
	unsigned long mask = size < HPAGE_PMD_SIZE ? 0 : HPAGE_PMD_NR - 1;

	if (!alloc)
		return ERR_PTR(-ENOMEM);
	alloc->gpu = gpu;
	alloc->nr = size >> PAGE_SHIFT;
	refcount_set(&alloc->users, 2);
	spin_lock_irq(&gpu->lock);
	alloc->first = bitmap_find_next_zero_area(gpu->used, gpu->nr_pages, 0, alloc->nr, mask);
	if (alloc->first + alloc->nr <= gpu->nr_pages)
		bitmap_set(gpu->used, alloc->first, alloc->nr);
	else
		alloc->nr = 0;
	spin_unlock_irq(&gpu->lock);
	if (!alloc->nr) {
		kfree(alloc);
		return ERR_PTR(-ENOSPC);
	}
	drm_pagemap_devmem_init(&alloc->base, gpu->dev, current->mm, &devmem_ops,
				&gpu->dpagemap, size, NULL);
	spin_lock_irq(&allocs_lock);
	alloc->id = ++next_id;
	list_add_tail(&alloc->link, &allocs);
	spin_unlock_irq(&allocs_lock);
	return alloc;
}

/* --- GPUs ------------------------------------------------------------------ */

static int device_init(struct gpu *gpu, unsigned int index)
{
	char name[32];
	int ret;

	/* Not before there is VRAM, so the engine's device is there. */
	if (use_engine) {
		gpu->dev = engine_device();
	} else {
		snprintf(name, sizeof(name), "drm_pagemap_bench.%u", index);
		gpu->faux = faux_device_create(name, NULL, NULL);
		if (!gpu->faux)
			return -ENODEV;
		gpu->dev = &gpu->faux->dev;
		ret = dma_coerce_mask_and_coherent(gpu->dev, DMA_BIT_MASK(64));
		if (ret)
			return ret;
	}
	if (use_engine && index) {
		gpu->drm = (gpu - index)->drm;
		drm_dev_get(gpu->drm);
		return 0;
	}
	gpu->drm = drm_dev_alloc(&bench_drm_driver, gpu->dev);
	if (IS_ERR(gpu->drm))
		return PTR_ERR(gpu->drm);
	return drm_dev_register(gpu->drm, 0);
}

/* In an array of GPUs, that of @index; the ones before it are there. */
int gpu_init(struct gpu *gpu, unsigned int index, size_t vram)
{
	struct resource *res;
	void *mapped;
	int ret;

	gpu->nr_pages = vram >> PAGE_SHIFT;
	gpu->vram = (u64)index * vram;
	spin_lock_init(&gpu->lock);
	init_completion(&gpu->destroyed);

	gpu->used = bitmap_zalloc(gpu->nr_pages, GFP_KERNEL);
	if (!gpu->used)
		return -ENOMEM;
	ret = device_init(gpu, index);
	if (ret)
		return ret;
	ret = drm_pagemap_acquire_owner(&gpu->peer, &owners, interconnected);
	if (ret)
		return ret;
	gpu->has_owner = true;

	res = request_free_mem_region(&iomem_resource, vram, "drm_pagemap_bench");
	if (IS_ERR(res))
		return PTR_ERR(res);
	gpu->pgmap.type = MEMORY_DEVICE_PRIVATE;
	gpu->pgmap.range.start = res->start;
	gpu->pgmap.range.end = res->end;
	gpu->pgmap.nr_range = 1;
	gpu->pgmap.ops = drm_pagemap_pagemap_ops_get();
	gpu->pgmap.owner = gpu->peer.owner;
	mapped = memremap_pages(&gpu->pgmap, NUMA_NO_NODE);
	if (IS_ERR(mapped)) {
		gpu->pgmap.nr_range = 0;
		return PTR_ERR(mapped);
	}
	ret = drm_pagemap_init(&gpu->dpagemap, &gpu->pgmap, gpu->drm, &pagemap_ops);
	gpu->has_dpagemap = !ret;
	return ret;
}

/* After a gpu_init() that failed, too. */
void gpu_fini(struct gpu *gpu)
{
	if (gpu->has_dpagemap) {
		drm_pagemap_put(&gpu->dpagemap);
		wait_for_completion(&gpu->destroyed);
	}
	if (gpu->pgmap.nr_range)
		memunmap_pages(&gpu->pgmap);
	if (gpu->pgmap.range.start)
		release_mem_region(gpu->pgmap.range.start, range_len(&gpu->pgmap.range));
	if (gpu->has_owner)
		drm_pagemap_release_owner(&gpu->peer);
	if (!IS_ERR_OR_NULL(gpu->drm)) {
		if (!use_engine || !gpu->vram)
			drm_dev_unplug(gpu->drm);
		drm_dev_put(gpu->drm);
	}
	if (gpu->faux)
		faux_device_destroy(gpu->faux);
	bitmap_free(gpu->used);
	memset(gpu, 0, sizeof(*gpu));
}
