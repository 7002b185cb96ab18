// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Allocations of VRAM, and what a driver does for drm_pagemap with them. The
 * copies are real ones: the right bytes in the right place can only come from
 * pages and addresses that were right.
 */

#include <linux/dma-direct.h>
#include <linux/dma-fence.h>
#include <linux/slab.h>

#include "driver.h"

#define POISON	0xa5

/* --- Copies ---------------------------------------------------------------- */

static u8 *vram_of(struct gpu *gpu, struct page *page)
{
	return gpu->vram + ((page_to_pfn(page) - gpu_pfn(gpu)) << PAGE_SHIFT);
}

/* How much of @size from @at on is in this GPU's VRAM. */
static size_t within(struct gpu *gpu, u8 *at, size_t size)
{
	return min_t(size_t, size, gpu->vram + ((size_t)gpu->nr_pages << PAGE_SHIFT) - at);
}

/* Counts what is about to be written to pages that the first one's owner does not own. */
static void check_stray(struct gpu *gpu, u8 *at, size_t size)
{
	size_t first = (at - gpu->vram) >> PAGE_SHIFT;
	struct alloc *owner = READ_ONCE(gpu->owners[first]);

	for (size_t i = 0; i < size >> PAGE_SHIFT; i++)
		if (!owner || first + i >= gpu->nr_pages ||
		    READ_ONCE(gpu->owners[first + i]) != owner)
			atomic64_add(PAGE_SIZE, &gpu->stray_bytes);
}

/* What is at an address that the provider gave to a copy of @gpu; NULL if nothing is. */
static u8 *at_address(struct gpu *gpu, const struct drm_pagemap_addr *addr, struct gpu **peer)
{
	*peer = NULL;
	if (addr->proto == DRM_INTERCONNECT_SYSTEM)
		return addr->addr ? phys_to_virt(dma_to_phys(&gpu->faux->dev, addr->addr)) : NULL;

	for (int i = 0; i < CLIENT_MAX_GPUS; i++) {
		struct gpu *other = gpu->world->gpus[i];
		u64 offset;

		if (!other)
			continue;
		offset = addr->addr - other->bus_base;
		if (offset < (u64)other->nr_pages << PAGE_SHIFT) {
			*peer = other;
			return other->vram + offset;
		}
	}
	return NULL;
}

static void note_order(struct gpu *gpu, u64 order)
{
	if (order > atomic64_read(&gpu->max_order))
		atomic64_set(&gpu->max_order, order);
}

static struct gpu *gpu_of_copy(struct page **pages, unsigned long npages)
{
	for (unsigned long i = 0; i < npages; i++)
		if (pages[i])
			return gpu_of(pages[i]);
	return NULL;
}

static int copy_in(struct page **pages, struct drm_pagemap_addr *addr, unsigned long npages,
		   struct dma_fence *fence)
{
	struct gpu *gpu = gpu_of_copy(pages, npages);
	int ret;

	if (!gpu)
		return 0;
	atomic64_inc(&gpu->copies_in);
	if (fence)
		atomic64_inc(&gpu->fences);
	ret = hook_call(gpu, CLIENT_HOOK_COPY_IN);
	if (ret)
		return ret;

	for (unsigned long i = 0; i < npages; i += 1ul << addr[i].order) {
		size_t size = PAGE_SIZE << addr[i].order;
		struct gpu *peer;
		u8 *from, *to;

		if (!pages[i])
			continue;
		to = vram_of(gpu, pages[i]);
		from = at_address(gpu, &addr[i], &peer);
		/* Nothing to copy from: memory that nobody has touched yet. */
		if (!from && !PageTail(pages[i]))
			size = page_size(pages[i]);
		check_stray(gpu, to, size);
		size = within(gpu, to, size);
		if (!from) {
			memset(to, 0, size);
			atomic64_add(size, &gpu->bytes_cleared);
			continue;
		}
		memcpy(to, from, size);
		atomic64_add(size, &gpu->bytes_in);
		if (peer)
			atomic64_add(size, &gpu->bytes_peer);
		note_order(gpu, addr[i].order);
	}
	return 0;
}

static bool reads_bad_page(struct gpu *gpu, struct page *page, size_t size)
{
	unsigned long first = page_to_pfn(page);

	return gpu->bad_pfn >= first && gpu->bad_pfn < first + (size >> PAGE_SHIFT);
}

static int copy_out(struct page **pages, struct drm_pagemap_addr *addr, unsigned long npages,
		    struct dma_fence *fence)
{
	struct gpu *gpu = gpu_of_copy(pages, npages);
	int ret;

	if (!gpu)
		return 0;
	atomic64_inc(&gpu->copies_out);
	if (fence)
		atomic64_inc(&gpu->fences);
	ret = hook_call(gpu, CLIENT_HOOK_COPY_OUT);
	if (ret)
		return ret;

	for (unsigned long i = 0; i < npages; i += 1ul << addr[i].order) {
		size_t size = PAGE_SIZE << addr[i].order;
		struct gpu *peer;
		u8 *from, *to;

		if (!pages[i])
			continue;
		to = at_address(gpu, &addr[i], &peer);
		if (!to)
			continue;
		if (reads_bad_page(gpu, pages[i], size))
			return -EIO;
		from = vram_of(gpu, pages[i]);
		size = within(gpu, from, size);
		if (peer) {
			check_stray(peer, to, size);
			size = within(peer, to, size);
			atomic64_add(size, &gpu->bytes_peer);
		}
		memcpy(to, from, size);
		atomic64_add(size, &gpu->bytes_out);
		note_order(gpu, addr[i].order);
	}
	return 0;
}

/* --- The interconnect ------------------------------------------------------ */

struct drm_pagemap_addr vram_map(struct drm_pagemap *dpagemap, struct device *dev,
				 struct page *page, unsigned int order,
				 enum dma_data_direction dir)
{
	struct gpu *gpu = pagemap_of(dpagemap)->gpu;
	u64 addr = gpu->bus_base + ((page_to_pfn(page) - gpu_pfn(gpu)) << PAGE_SHIFT);

	if (hook_call(gpu, CLIENT_HOOK_MAP))
		addr = DMA_MAPPING_ERROR;
	else
		atomic64_inc(&gpu->maps);
	return drm_pagemap_addr_encode(addr, DRM_INTERCONNECT_DRIVER, order, dir);
}

void vram_unmap(struct drm_pagemap *dpagemap, struct device *dev,
		const struct drm_pagemap_addr *addr)
{
	struct gpu *gpu = pagemap_of(dpagemap)->gpu;

	if (addr->proto != DRM_INTERCONNECT_DRIVER ||
	    addr->addr - gpu->bus_base >= (u64)gpu->nr_pages << PAGE_SHIFT)
		atomic64_inc(&gpu->bad_unmaps);
	atomic64_inc(&gpu->unmaps);
}

/* --- Allocations ----------------------------------------------------------- */

static int vram_pfns(struct drm_pagemap_devmem *devmem, unsigned long npages, unsigned long *pfn)
{
	struct alloc *alloc = container_of(devmem, struct alloc, base);
	int ret = hook_call(alloc->gpu, CLIENT_HOOK_PFNS);

	if (ret)
		return ret;
	if (npages > alloc->nr)
		return -EINVAL;
	for (unsigned long i = 0; i < npages; i++)
		pfn[i] = gpu_pfn(alloc->gpu) + alloc->pages[i];
	return 0;
}

bool alloc_get(struct alloc *alloc)
{
	return refcount_inc_not_zero(&alloc->users);
}

/* Gives the VRAM back, with the last reference. The struct stays for those who ask about it. */
void alloc_put(struct alloc *alloc)
{
	struct gpu *gpu = alloc->gpu;
	unsigned long flags;

	if (!refcount_dec_and_test(&alloc->users))
		return;
	spin_lock_irqsave(&gpu->lock, flags);
	for (unsigned int i = 0; i < alloc->nr; i++) {
		gpu->owners[alloc->pages[i]] = NULL;
		__clear_bit(alloc->pages[i], gpu->used);
	}
	spin_unlock_irqrestore(&gpu->lock, flags);
	atomic64_dec(&gpu->live);
}

static void vram_release(struct drm_pagemap_devmem *devmem)
{
	struct alloc *alloc = container_of(devmem, struct alloc, base);

	atomic64_inc(&alloc->gpu->released);
	/* Once is enough; more is for the test to see. */
	if (atomic_inc_return(&alloc->released) == 1)
		alloc_put(alloc);
}

static const struct drm_pagemap_devmem_ops devmem_ops = {
	.devmem_release = vram_release,
	.populate_devmem_pfn = vram_pfns,
	.copy_to_devmem = copy_in,
	.copy_to_ram = copy_out,
};

/* Finds free pages in the layout that is wanted; false if there are too few. */
static bool find_pages(struct gpu *gpu, struct alloc *alloc, u32 layout)
{
	unsigned int nr = alloc->nr, step = layout == CLIENT_SCATTERED ? 2 : 1, first;
	unsigned long mask = nr % HPAGE_PMD_NR ? 0 : HPAGE_PMD_NR - 1;
	unsigned long offset = layout == CLIENT_UNALIGNED;

	first = bitmap_find_next_zero_area_off(gpu->used, gpu->nr_pages, 0, nr * step, mask,
					       offset ? mask : 0);
	if (first + nr * step > gpu->nr_pages)
		return false;
	for (unsigned int i = 0; i < nr; i++) {
		u32 page = first + step * (layout == CLIENT_REVERSED ? nr - 1 - i : i);

		alloc->pages[i] = page;
		__set_bit(page, gpu->used);
		gpu->owners[page] = alloc;
	}
	return true;
}

struct alloc *alloc_find(struct world *world, u32 id)
{
	struct alloc *alloc;

	list_for_each_entry(alloc, &world->allocs, link)
		if (alloc->id == id)
			return alloc;
	return NULL;
}

/* Before its world ends, and when nobody has it any more. */
void alloc_free(struct alloc *alloc)
{
	list_del(&alloc->link);
	mmdrop(alloc->mm);
	kvfree(alloc);
}

struct alloc *alloc_new(struct gpu *gpu, const struct client_migrate *args)
{
	struct world *world = gpu->world;
	u64 size = args->size ?: args->end - args->start;
	unsigned int nr = DIV_ROUND_UP(size, PAGE_SIZE);
	struct alloc *alloc;
	bool found;

	if (!size || size > (u64)gpu->nr_pages << PAGE_SHIFT)
		return ERR_PTR(-ENOSPC);
	alloc = kvzalloc_flex(*alloc, pages, nr);
	if (!alloc)
		return ERR_PTR(-ENOMEM);
	alloc->nr = nr;
	alloc->gpu = gpu;
	refcount_set(&alloc->users, 1);
	spin_lock_irq(&gpu->lock);
	found = find_pages(gpu, alloc, args->layout);
	spin_unlock_irq(&gpu->lock);
	if (!found) {
		kvfree(alloc);
		return ERR_PTR(-ENOSPC);
	}
	/* Whoever sees these bytes was given a page that nobody wrote. */
	for (unsigned int i = 0; i < nr; i++)
		memset(gpu->vram + ((size_t)alloc->pages[i] << PAGE_SHIFT), POISON, PAGE_SIZE);

	alloc->ops = devmem_ops;
	if (args->flags & CLIENT_NO_RELEASE)
		alloc->ops.devmem_release = NULL;
	if (args->flags & CLIENT_NO_PFNS)
		alloc->ops.populate_devmem_pfn = NULL;
	if (args->flags & CLIENT_NO_COPY_IN)
		alloc->ops.copy_to_devmem = NULL;
	if (args->flags & CLIENT_NO_COPY_OUT)
		alloc->ops.copy_to_ram = NULL;
	alloc->mm = current->mm;
	mmgrab(alloc->mm);
	drm_pagemap_devmem_init(&alloc->base, &gpu->faux->dev, alloc->mm, &alloc->ops,
				&gpu->pagemaps[0]->base, size,
				args->flags & CLIENT_FENCE ? dma_fence_get_stub() : NULL);
	/* Without the op, nobody is told that the allocation is free. */
	if (alloc->ops.devmem_release)
		atomic64_inc(&gpu->live);
	alloc->kept = args->flags & CLIENT_KEEP;
	if (alloc->kept)
		refcount_inc(&alloc->users);

	mutex_lock(&world->lock);
	alloc->id = world->next_id++;
	list_add_tail(&alloc->link, &world->allocs);
	mutex_unlock(&world->lock);
	return alloc;
}

static int migrate_locked(struct gpu *gpu, struct mm_struct *mm, struct client_migrate *args)
{
	struct drm_pagemap_migrate_details details = {
		.timeslice_ms = args->timeslice_ms,
		.can_migrate_same_pagemap = !!(args->flags & CLIENT_SAME_PAGEMAP),
	};
	unsigned int nth = quiet_begin();
	struct alloc *alloc = alloc_new(gpu, args);

	quiet_end(nth);
	if (IS_ERR(alloc))
		return PTR_ERR(alloc);
	args->id = alloc->id;
	return drm_pagemap_migrate_to_devmem(&alloc->base, mm, args->start, args->end, &details);
}

int vram_populate(struct drm_pagemap *dpagemap, unsigned long start, unsigned long end,
		  struct mm_struct *mm, unsigned long timeslice_ms)
{
	struct gpu *gpu = pagemap_of(dpagemap)->gpu;
	struct client_migrate args = {
		.start = start,
		.end = end,
		.timeslice_ms = timeslice_ms,
	};
	int ret = hook_call(gpu, CLIENT_HOOK_POPULATE);

	mmap_assert_locked(mm);
	return ret ?: migrate_locked(gpu, mm, &args);
}

int migrate(struct gpu *gpu, struct client_migrate *args)
{
	struct mm_struct *mm = current->mm;

	args->id = -1;
	if (args->flags & CLIENT_POPULATE_MM) {
		args->result = drm_pagemap_populate_mm(&gpu->pagemaps[0]->base, args->start,
						       args->end, mm, args->timeslice_ms);
		return 0;
	}
	mmap_read_lock(mm);
	args->result = migrate_locked(gpu, mm, args);
	mmap_read_unlock(mm);
	return 0;
}
