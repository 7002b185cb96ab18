// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The C front door, from a C driver's side: nothing but <drm/drm_pagemap.h>.
 */

#include <kunit/test.h>

#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/jiffies.h>
#include <linux/kref.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "c_gpu.h"
#include "helpers.h"

/* --- What tests share ----------------------------------------------------- */

static int c_migrate(struct c_alloc *alloc, unsigned long start,
		     unsigned long end, unsigned long timeslice_ms)
{
	struct drm_pagemap_migrate_details details = {
		.timeslice_ms = timeslice_ms,
	};
	struct mm_struct *mm = current->mm;
	int ret;

	mmap_read_lock(mm);
	ret = drm_pagemap_migrate_to_devmem(&alloc->base, mm, start, end,
					    &details);
	mmap_read_unlock(mm);
	return ret;
}

static int c_driver_init(struct kunit *test)
{
	struct c_gpu *gpu;
	int ret;

	ret = kunit_attach_mm();
	if (ret)
		return ret;

	gpu = c_gpu_new();
	if (!gpu)
		return -ENOMEM;
	test->priv = gpu;

	ret = drm_pagemap_init(&gpu->dpagemap, &gpu->pgmap, gpu->drm, &c_ops);
	gpu->held = !ret;
	return ret;
}

/*
 * Runs in another thread, when that of the test is gone, and its address space
 * with it. If anything is left, the device stays for ever: removing it would
 * hang.
 */
static void c_driver_exit(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned int drm_refs;

	if (!gpu)
		return;
	if (gpu->held)
		drm_pagemap_put(&gpu->dpagemap);

	KUNIT_EXPECT_TRUE(test, wait_for(!atomic_read(&gpu->live)));
	KUNIT_EXPECT_TRUE(test, wait_for(!kref_read(&gpu->dpagemap.ref)));
	KUNIT_EXPECT_TRUE(test, wait_for(kref_read(&gpu->drm->ref) == 1));
	KUNIT_EXPECT_TRUE(test, bitmap_empty(gpu->used, VRAM_PAGES));
	if (drm_pagemap_kunit_dma_watched())
		KUNIT_EXPECT_TRUE(test, drm_pagemap_kunit_dma_all_undone(&gpu->faux->dev));

	drm_refs = kref_read(&gpu->drm->ref);
	if (!atomic_read(&gpu->live) && drm_refs == 1)
		c_gpu_free(gpu);
}

static unsigned long map_filled(struct kunit *test, unsigned int pages, u8 seed)
{
	size_t len = (size_t)pages << PAGE_SHIFT;
	unsigned long addr;
	u8 *bytes;

	addr = drm_pagemap_kunit_mmap(0, len, DRM_PAGEMAP_KUNIT_MAP_PRIVATE);
	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(addr));
	bytes = kunit_kmalloc(test, len, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, bytes);
	for (size_t i = 0; i < len; i++)
		bytes[i] = seed + i + (i >> PAGE_SHIFT);
	KUNIT_ASSERT_EQ(test, copy_to_user((void __user *)addr, bytes, len), 0);
	kunit_kfree(test, bytes);
	return addr;
}

static void expect_filled(struct kunit *test, unsigned long addr,
			  unsigned int pages, u8 seed)
{
	size_t len = (size_t)pages << PAGE_SHIFT;
	u8 *bytes = kunit_kmalloc(test, len, GFP_KERNEL);
	size_t wrong = 0;

	KUNIT_ASSERT_NOT_NULL(test, bytes);
	KUNIT_ASSERT_EQ(test, copy_from_user(bytes, (void __user *)addr, len), 0);
	for (size_t i = 0; i < len; i++)
		wrong += bytes[i] != (u8)(seed + i + (i >> PAGE_SHIFT));
	KUNIT_EXPECT_EQ(test, wrong, 0);
	kunit_kfree(test, bytes);
}

/* References on the module by who holds it; built in, it is no module. */
#ifdef MODULE
#define HELD 1
#else
#define HELD 0
#endif

/* --- The tests ------------------------------------------------------------ */

/* The pagemap holds the device and the module until the last put. */
static void pagemap_references(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	int modules = drm_pagemap_kunit_module_refs();

	KUNIT_EXPECT_EQ(test, kref_read(&gpu->dpagemap.ref), 1);
	KUNIT_EXPECT_EQ(test, kref_read(&gpu->drm->ref), 2);
	KUNIT_EXPECT_PTR_EQ(test, gpu->dpagemap.pagemap, &gpu->pgmap);
	KUNIT_EXPECT_PTR_EQ(test, gpu->dpagemap.drm, gpu->drm);
	KUNIT_EXPECT_PTR_EQ(test, gpu->dpagemap.ops, &c_ops);
	KUNIT_EXPECT_NULL(test, gpu->dpagemap.cache);

	drm_pagemap_get(&gpu->dpagemap);
	drm_pagemap_put(&gpu->dpagemap);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->destroyed), 0);

	drm_pagemap_put(&gpu->dpagemap);
	gpu->held = false;
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->destroyed), 1);
	KUNIT_EXPECT_NULL(test, drm_pagemap_get_unless_zero(&gpu->dpagemap));
	KUNIT_EXPECT_TRUE(test, wait_for(kref_read(&gpu->drm->ref) == 1));
	KUNIT_EXPECT_TRUE(test, wait_for(drm_pagemap_kunit_module_refs() ==
					 modules - HELD));
}

/* A pagemap that its driver kept is brought back to life. */
static void pagemap_reinit(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;

	for (int i = 1; i <= 5; i++) {
		drm_pagemap_put(&gpu->dpagemap);
		gpu->held = false;
		KUNIT_EXPECT_EQ(test, atomic_read(&gpu->destroyed), i);
		KUNIT_ASSERT_EQ(test, drm_pagemap_reinit(&gpu->dpagemap), 0);
		gpu->held = true;
		KUNIT_EXPECT_EQ(test, kref_read(&gpu->dpagemap.ref), 1);
		KUNIT_EXPECT_GE(test, kref_read(&gpu->drm->ref), 2);
	}
	KUNIT_EXPECT_TRUE(test, wait_for(kref_read(&gpu->drm->ref) == 2));
}

/* Without a destroy operation the pagemap is freed. */
static void pagemap_without_destroy(struct kunit *test)
{
	static const struct drm_pagemap_ops no_ops;
	struct c_gpu *gpu = test->priv;
	struct drm_pagemap *dpagemap = kzalloc_obj(*dpagemap);
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, dpagemap);
	ret = drm_pagemap_init(dpagemap, &gpu->pgmap, gpu->drm, &no_ops);
	if (ret)
		kfree(dpagemap);
	KUNIT_ASSERT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, kref_read(&gpu->drm->ref), 3);

	KUNIT_EXPECT_EQ(test, drm_pagemap_populate_mm(dpagemap, PAGE_SIZE,
						      2 * PAGE_SIZE,
						      current->mm, 0),
			-EOPNOTSUPP);

	/* Freed here: KASAN or kmemleak would tell. */
	drm_pagemap_put(dpagemap);
	KUNIT_EXPECT_TRUE(test, wait_for(kref_read(&gpu->drm->ref) == 2));
}

static void put_null(struct kunit *test)
{
	drm_pagemap_put(NULL);
}

static void zone_device_ops(struct kunit *test)
{
	const struct dev_pagemap_ops *ops = drm_pagemap_pagemap_ops_get();

	KUNIT_ASSERT_NOT_NULL(test, ops);
	KUNIT_EXPECT_PTR_EQ(test, ops, drm_pagemap_pagemap_ops_get());
	KUNIT_EXPECT_NOT_NULL(test, ops->folio_free);
	KUNIT_EXPECT_NOT_NULL(test, ops->migrate_to_ram);
	KUNIT_EXPECT_NOT_NULL(test, ops->folio_split);
}

static void devmem_init(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	struct dma_fence *fence = dma_fence_get_stub();
	struct drm_pagemap_devmem devmem;

	memset(&devmem, 0xff, sizeof(devmem));
	drm_pagemap_devmem_init(&devmem, &gpu->faux->dev, current->mm,
				&c_devmem_ops, &gpu->dpagemap, 5 * PAGE_SIZE,
				fence);
	KUNIT_EXPECT_PTR_EQ(test, devmem.dev, &gpu->faux->dev);
	KUNIT_EXPECT_PTR_EQ(test, devmem.mm, current->mm);
	KUNIT_EXPECT_PTR_EQ(test, devmem.ops, &c_devmem_ops);
	KUNIT_EXPECT_PTR_EQ(test, devmem.dpagemap, &gpu->dpagemap);
	KUNIT_EXPECT_EQ(test, devmem.size, 5 * PAGE_SIZE);
	KUNIT_EXPECT_PTR_EQ(test, devmem.pre_migrate_fence, fence);
	KUNIT_EXPECT_FALSE(test, completion_done(&devmem.detached));
	/* It is the caller's memory, and its references. */
	KUNIT_EXPECT_EQ(test, kref_read(&gpu->dpagemap.ref), 1);
	dma_fence_put(fence);
}

/* There, and home by a CPU fault. */
static void migrate_and_fault(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned long addr = map_filled(test, 8, 3);
	struct c_alloc *alloc = c_alloc(gpu, 8);

	KUNIT_ASSERT_NOT_NULL(test, alloc);
	KUNIT_ASSERT_EQ(test, c_migrate(alloc, addr, addr + 8 * PAGE_SIZE, 0), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->copies_in), 1);
	KUNIT_EXPECT_EQ(test, gpu->vram[8 * PAGE_SIZE - 1],
			(u8)(3 + 8 * PAGE_SIZE - 1 + 7));
	KUNIT_EXPECT_EQ(test, kref_read(&gpu->dpagemap.ref), 2);

	expect_filled(test, addr, 8, 3);
	KUNIT_EXPECT_GE(test, atomic_read(&gpu->copies_out), 1);
	KUNIT_EXPECT_TRUE(test, wait_for(atomic_read(&gpu->released) == 1));
	KUNIT_EXPECT_TRUE(test, wait_for(kref_read(&gpu->dpagemap.ref) == 1));
}

/* An eviction that fails leaves the data where it is; what the device writes there is what comes home. */
static void failed_eviction(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned long addr = map_filled(test, 8, 3);
	struct c_alloc *alloc = c_alloc(gpu, 8);
	unsigned int first;

	KUNIT_ASSERT_NOT_NULL(test, alloc);
	first = alloc->first;
	KUNIT_ASSERT_EQ(test, c_migrate(alloc, addr, addr + 8 * PAGE_SIZE, 0), 0);

	for (size_t i = 0; i < 8 * PAGE_SIZE; i++)
		gpu->vram[(first << PAGE_SHIFT) + i]++;

	gpu->fail_copy_out = -EIO;
	KUNIT_EXPECT_EQ(test, drm_pagemap_evict_to_ram(&alloc->base), -EIO);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->released), 0);
	gpu->fail_copy_out = 0;
	KUNIT_EXPECT_FALSE(test, completion_done(&alloc->base.detached));
	expect_filled(test, addr, 8, 4);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->released), 1);
}

/* Allocations that outlive their release, as those of drivers do. */
struct kept_alloc {
	struct drm_pagemap_devmem base;
	unsigned long pfn;
	atomic_t released;
};

static void kept_release(struct drm_pagemap_devmem *devmem)
{
	atomic_inc(&container_of(devmem, struct kept_alloc, base)->released);
}

static int kept_populate_pfn(struct drm_pagemap_devmem *devmem,
			     unsigned long npages, unsigned long *pfn)
{
	for (unsigned long i = 0; i < npages; i++)
		pfn[i] = container_of(devmem, struct kept_alloc, base)->pfn + i;
	return 0;
}

static const struct drm_pagemap_devmem_ops kept_ops = {
	.devmem_release = kept_release,
	.populate_devmem_pfn = kept_populate_pfn,
	.copy_to_devmem = c_copy_in,
	.copy_to_ram = c_copy_out,
};

static int kept_migrate_part(struct c_gpu *gpu, struct kept_alloc *kept,
			     unsigned int size, unsigned long addr,
			     unsigned int pages, unsigned long timeslice_ms)
{
	struct drm_pagemap_migrate_details details = {
		.timeslice_ms = timeslice_ms,
	};
	struct mm_struct *mm = current->mm;
	int ret;

	memset(kept, 0, sizeof(*kept));
	kept->pfn = first_pfn(gpu);
	drm_pagemap_devmem_init(&kept->base, &gpu->faux->dev, mm, &kept_ops,
				&gpu->dpagemap, size * PAGE_SIZE, NULL);
	mmap_read_lock(mm);
	ret = drm_pagemap_migrate_to_devmem(&kept->base, mm, addr,
					    addr + pages * PAGE_SIZE, &details);
	mmap_read_unlock(mm);
	return ret;
}

static int kept_migrate(struct c_gpu *gpu, struct kept_alloc *kept,
			unsigned long addr, unsigned int pages,
			unsigned long timeslice_ms)
{
	return kept_migrate_part(gpu, kept, pages, addr, pages, timeslice_ms);
}

/* Evictions: a good one, and those that come after it. */
static void evict(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	struct kept_alloc *kept = kunit_kzalloc(test, sizeof(*kept), GFP_KERNEL);
	unsigned long addr = map_filled(test, 8, 3);

	KUNIT_ASSERT_NOT_NULL(test, kept);
	KUNIT_ASSERT_EQ(test, kept_migrate(gpu, kept, addr, 8, 1000000), 0);
	KUNIT_EXPECT_FALSE(test, completion_done(&kept->base.detached));

	KUNIT_EXPECT_EQ(test, drm_pagemap_evict_to_ram(&kept->base), 0);
	KUNIT_EXPECT_TRUE(test, completion_done(&kept->base.detached));
	KUNIT_EXPECT_EQ(test, atomic_read(&kept->released), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->copies_out), 1);

	KUNIT_EXPECT_EQ(test, drm_pagemap_evict_to_ram(&kept->base), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->copies_out), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&kept->released), 1);
	expect_filled(test, addr, 8, 3);
}

/* The range may be smaller than the allocation, but not larger. */
static void sizes(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	struct kept_alloc *kept = kunit_kzalloc(test, sizeof(*kept), GFP_KERNEL);
	unsigned long addr = map_filled(test, 4, 3);

	KUNIT_ASSERT_NOT_NULL(test, kept);
	KUNIT_EXPECT_EQ(test, kept_migrate_part(gpu, kept, 3, addr, 4, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, atomic_read(&kept->released), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->copies_in), 0);
	expect_filled(test, addr, 4, 3);

	KUNIT_ASSERT_EQ(test, kept_migrate_part(gpu, kept, 5, addr, 4, 0), 0);
	KUNIT_EXPECT_EQ(test, drm_pagemap_evict_to_ram(&kept->base), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&kept->released), 1);
	expect_filled(test, addr, 4, 3);
}

/* The time slice is in milliseconds. */
static void timeslice(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	struct kept_alloc *kept = kunit_kzalloc(test, sizeof(*kept), GFP_KERNEL);
	unsigned long addr = map_filled(test, 2, 3);
	u64 before = get_jiffies_64();

	KUNIT_ASSERT_NOT_NULL(test, kept);
	KUNIT_ASSERT_EQ(test, kept_migrate(gpu, kept, addr, 2, 100), 0);
	KUNIT_EXPECT_GE(test, kept->base.timeslice_expiration,
			before + msecs_to_jiffies(100));
	KUNIT_EXPECT_LE(test, kept->base.timeslice_expiration,
			get_jiffies_64() + msecs_to_jiffies(100));
	expect_filled(test, addr, 2, 3);
	KUNIT_EXPECT_GE(test, get_jiffies_64(), before + msecs_to_jiffies(100));
	KUNIT_EXPECT_EQ(test, atomic_read(&kept->released), 1);
}

/* Whose page it is. */
static void page_to_dpagemap(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	struct kept_alloc *kept = kunit_kzalloc(test, sizeof(*kept), GFP_KERNEL);
	unsigned long addr = map_filled(test, 4, 3);
	struct page *ram = drm_pagemap_kunit_alloc_pages(0);

	KUNIT_ASSERT_NOT_NULL(test, kept);
	KUNIT_ASSERT_NOT_NULL(test, ram);
	KUNIT_EXPECT_NULL(test, drm_pagemap_page_to_dpagemap(ram));
	drm_pagemap_kunit_free_pages(ram, 0);

	KUNIT_ASSERT_EQ(test, kept_migrate(gpu, kept, addr, 4, 0), 0);
	for (int i = 0; i < 4; i++)
		KUNIT_EXPECT_PTR_EQ(test,
				    drm_pagemap_page_to_dpagemap(pfn_to_page(kept->pfn + i)),
				    &gpu->dpagemap);
	KUNIT_EXPECT_EQ(test, drm_pagemap_evict_to_ram(&kept->base), 0);
}

/* Operations that migration can't do without: the reference is consumed all the same. */
static void missing_ops(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned long addr = map_filled(test, 2, 3);
	struct drm_pagemap_devmem_ops ops[3] = {
		c_devmem_ops, c_devmem_ops, c_devmem_ops,
	};

	ops[0].populate_devmem_pfn = NULL;
	ops[1].copy_to_devmem = NULL;
	ops[2].copy_to_ram = NULL;
	for (int i = 0; i < ARRAY_SIZE(ops); i++) {
		struct c_alloc *alloc = c_alloc_with(gpu, 2, &ops[i], NULL);

		KUNIT_ASSERT_NOT_NULL(test, alloc);
		KUNIT_EXPECT_EQ(test,
				c_migrate(alloc, addr, addr + 2 * PAGE_SIZE, 0),
				-EOPNOTSUPP);
		KUNIT_EXPECT_EQ(test, atomic_read(&gpu->released), i + 1);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->copies_in), 0);
	expect_filled(test, addr, 2, 3);
}

/* The release operation may be missing. */
static void no_release(struct kunit *test)
{
	struct drm_pagemap_devmem_ops ops = kept_ops;
	struct c_gpu *gpu = test->priv;
	struct kept_alloc *kept = kunit_kzalloc(test, sizeof(*kept), GFP_KERNEL);
	struct drm_pagemap_migrate_details details = {};
	unsigned long addr = map_filled(test, 2, 3);
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, kept);
	ops.devmem_release = NULL;
	kept->pfn = first_pfn(gpu);
	drm_pagemap_devmem_init(&kept->base, &gpu->faux->dev, current->mm, &ops,
				&gpu->dpagemap, 2 * PAGE_SIZE, NULL);
	mmap_read_lock(current->mm);
	ret = drm_pagemap_migrate_to_devmem(&kept->base, current->mm, addr,
					    addr + 2 * PAGE_SIZE, &details);
	mmap_read_unlock(current->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, drm_pagemap_evict_to_ram(&kept->base), 0);
	KUNIT_EXPECT_TRUE(test, completion_done(&kept->base.detached));
	expect_filled(test, addr, 2, 3);
}

/* Ranges that can't be migrated: C drivers get the errors they always got. */
static void bad_ranges(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned long addr = map_filled(test, 4, 3);
	unsigned long shared, gone;
	struct {
		unsigned long start, end;
		int ret;
	} cases[] = {
		{ addr, addr + 4 * PAGE_SIZE, 0 },
		{ addr, addr + 4 * PAGE_SIZE, -EBUSY },
		{ addr, addr + 4 * PAGE_SIZE, -ENOENT },
		{ addr, addr, -EINVAL },
		{ addr + 1, addr + PAGE_SIZE, -EINVAL },
		{ addr, addr + 1000 * PAGE_SIZE, -EINVAL },
	};

	shared = drm_pagemap_kunit_mmap(0, 4 * PAGE_SIZE,
					DRM_PAGEMAP_KUNIT_MAP_SHARED);
	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(shared));
	cases[1].start = shared;
	cases[1].end = shared + 4 * PAGE_SIZE;
	gone = drm_pagemap_kunit_mmap(0, 4 * PAGE_SIZE,
				      DRM_PAGEMAP_KUNIT_MAP_PRIVATE);
	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(gone));
	KUNIT_ASSERT_EQ(test, drm_pagemap_kunit_munmap(gone, 4 * PAGE_SIZE), 0);
	cases[2].start = gone;
	cases[2].end = gone + 4 * PAGE_SIZE;

	for (int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct c_alloc *alloc = c_alloc(gpu, 4);

		KUNIT_ASSERT_NOT_NULL(test, alloc);
		KUNIT_EXPECT_EQ(test,
				c_migrate(alloc, cases[i].start, cases[i].end, 0),
				cases[i].ret);
		/* The first one is released by this. */
		expect_filled(test, addr, 4, 3);
		KUNIT_EXPECT_EQ(test, atomic_read(&gpu->released), i + 1);
	}
}

/* An error of the copy is handed on; the reference is consumed. */
static void copy_fails(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned long addr = map_filled(test, 4, 3);
	struct c_alloc *alloc = c_alloc(gpu, 4);

	KUNIT_ASSERT_NOT_NULL(test, alloc);
	gpu->fail_copy_in = -ENOLINK;
	KUNIT_EXPECT_EQ(test, c_migrate(alloc, addr, addr + 4 * PAGE_SIZE, 0),
			-ENOLINK);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->released), 1);
	expect_filled(test, addr, 4, 3);
}

/* The fence is handed to the copy, and put after it. */
static void fence(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned long addr = map_filled(test, 4, 3);
	struct dma_fence *fence = dma_fence_allocate_private_stub(ktime_get());
	struct c_alloc *alloc;

	KUNIT_ASSERT_NOT_NULL(test, fence);
	alloc = c_alloc_with(gpu, 4, &c_devmem_ops, dma_fence_get(fence));
	KUNIT_EXPECT_EQ(test, kref_read(&fence->refcount), 2);
	if (alloc) {
		KUNIT_EXPECT_EQ(test,
				c_migrate(alloc, addr, addr + 4 * PAGE_SIZE, 0), 0);
		KUNIT_EXPECT_PTR_EQ(test, gpu->copy_fence, fence);
		KUNIT_EXPECT_NULL(test, alloc->base.pre_migrate_fence);
	}
	KUNIT_EXPECT_NOT_NULL(test, alloc);
	KUNIT_EXPECT_EQ(test, kref_read(&fence->refcount), 1);
	dma_fence_put(fence);
	expect_filled(test, addr, 4, 3);
}

/* The driver is asked to populate, with the mmap lock held. */
static void populate_mm(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned long addr = map_filled(test, 4, 3);
	unsigned long end = addr + 4 * PAGE_SIZE;

	gpu->populate_ret = -ENODEV;
	KUNIT_EXPECT_EQ(test, drm_pagemap_populate_mm(&gpu->dpagemap, addr, end,
						      current->mm, 0),
			-ENODEV);
	gpu->populate_ret = 0;
	KUNIT_EXPECT_EQ(test, drm_pagemap_populate_mm(&gpu->dpagemap, addr, end,
						      current->mm, 0),
			0);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->copies_in), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->live), 1);
	expect_filled(test, addr, 4, 3);
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->live), 0);
}

/* The process ends; see also c_driver_exit(). */
static void process_ends(struct kunit *test)
{
	struct c_gpu *gpu = test->priv;
	unsigned long addr = map_filled(test, 8, 3);

	for (int i = 0; i < 4; i++) {
		struct c_alloc *alloc = c_alloc(gpu, 2);
		unsigned long start = addr + 2 * i * PAGE_SIZE;

		KUNIT_ASSERT_NOT_NULL(test, alloc);
		KUNIT_EXPECT_EQ(test,
				c_migrate(alloc, start, start + 2 * PAGE_SIZE, 0),
				0);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&gpu->live), 4);
}

static struct kunit_case c_driver_cases[] = {
	KUNIT_CASE(pagemap_references),
	KUNIT_CASE(pagemap_reinit),
	KUNIT_CASE(pagemap_without_destroy),
	KUNIT_CASE(put_null),
	KUNIT_CASE(zone_device_ops),
	KUNIT_CASE(devmem_init),
	KUNIT_CASE(migrate_and_fault),
	KUNIT_CASE(failed_eviction),
	KUNIT_CASE(evict),
	KUNIT_CASE(sizes),
	KUNIT_CASE(timeslice),
	KUNIT_CASE(page_to_dpagemap),
	KUNIT_CASE(missing_ops),
	KUNIT_CASE(no_release),
	KUNIT_CASE(bad_ranges),
	KUNIT_CASE(copy_fails),
	KUNIT_CASE(fence),
	KUNIT_CASE(populate_mm),
	KUNIT_CASE(process_ends),
	{}
};

static struct kunit_suite c_driver_suite = {
	.name = "drm_pagemap_c_driver",
	.init = c_driver_init,
	.exit = c_driver_exit,
	.test_cases = c_driver_cases,
};

kunit_test_suite(c_driver_suite);
