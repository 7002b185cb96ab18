// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The bodies of helpers.h.
 */

#include <kunit/test.h>

#include <linux/completion.h>
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/huge_mm.h>
#include <linux/ioport.h>
#include <linux/irqflags.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/preempt.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>

#include <drm/drm_device.h>
#include <drm/drm_pagemap.h>

#include "helpers.h"

/* --- KUnit ---------------------------------------------------------------- */

void drm_pagemap_kunit_fail(struct kunit *test, const char *file,
			    unsigned int line, const char *what)
{
	kunit_err(test, "%s:%u: %s", file, line, what);
	kunit_set_failure(test);
}

void drm_pagemap_kunit_skip(struct kunit *test, const char *why)
{
	kunit_mark_skipped(test, "%s", why);
}

struct kunit_suppressed_warning *
drm_pagemap_kunit_suppress_warnings(struct kunit *test)
{
	return kunit_start_suppress_warning(test);
}

void drm_pagemap_kunit_unsuppress_warnings(struct kunit *test,
					   struct kunit_suppressed_warning *w)
{
	if (w)
		kunit_end_suppress_warning(test, w);
}

/* --- The current task's address space ------------------------------------- */

int drm_pagemap_kunit_mm_attach(void)
{
	return kunit_attach_mm();
}

/* Leaves the address space; the caller gets the task's reference on it. */
struct mm_struct *drm_pagemap_kunit_mm_detach(void)
{
	struct mm_struct *mm = current->mm;

	if (mm)
		kthread_unuse_mm(mm);
	return mm;
}

void drm_pagemap_kunit_mm_put(struct mm_struct *mm)
{
	mmput(mm);
}

unsigned long drm_pagemap_kunit_mmap(unsigned long addr, size_t len,
				     enum drm_pagemap_kunit_map kind)
{
	unsigned long prot = PROT_READ | PROT_WRITE;
	unsigned long flags = MAP_PRIVATE;
	struct file *file = NULL;
	unsigned long ret;

	switch (kind) {
	case DRM_PAGEMAP_KUNIT_MAP_PRIVATE:
		flags |= MAP_ANONYMOUS;
		break;
	case DRM_PAGEMAP_KUNIT_MAP_PRIVATE_RO:
		prot = PROT_READ;
		flags |= MAP_ANONYMOUS;
		break;
	case DRM_PAGEMAP_KUNIT_MAP_LOCKED:
		flags |= MAP_ANONYMOUS | MAP_LOCKED;
		break;
	case DRM_PAGEMAP_KUNIT_MAP_SHARED:
		flags = MAP_SHARED | MAP_ANONYMOUS;
		break;
	case DRM_PAGEMAP_KUNIT_MAP_FILE_SHARED:
		flags = MAP_SHARED;
		fallthrough;
	case DRM_PAGEMAP_KUNIT_MAP_FILE_PRIVATE:
		file = shmem_file_setup("drm_pagemap_kunit", len, EMPTY_VMA_FLAGS);
		if (IS_ERR(file))
			return PTR_ERR(file);
		break;
	}

	if (addr)
		flags |= MAP_FIXED_NOREPLACE;
	ret = vm_mmap(file, addr, len, prot, flags, 0);
	if (file)
		fput(file);
	return ret;
}

int drm_pagemap_kunit_munmap(unsigned long addr, size_t len)
{
	return vm_munmap(addr, len);
}

void drm_pagemap_kunit_mmap_write_lock(struct mm_struct *mm)
{
	mmap_write_lock(mm);
}

void drm_pagemap_kunit_mmap_write_unlock(struct mm_struct *mm)
{
	mmap_write_unlock(mm);
}

/* Pages stay as they are mapped. */
static int change_flags(unsigned long addr, vm_flags_t set, vm_flags_t clear)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	int ret = -ENOENT;

	mmap_write_lock(mm);
	vma = vma_lookup(mm, addr);
	if (vma) {
		vm_flags_mod(vma, set, clear);
		vma->vm_page_prot = vm_get_page_prot(vma->vm_flags);
		ret = 0;
	}
	mmap_write_unlock(mm);
	return ret;
}

/* As madvise(MADV_HUGEPAGE), which modules can't call, for faults. */
int drm_pagemap_kunit_want_huge(unsigned long addr, bool huge)
{
	return huge ? change_flags(addr, VM_HUGEPAGE, VM_NOHUGEPAGE) :
		      change_flags(addr, VM_NOHUGEPAGE, VM_HUGEPAGE);
}

/* As mprotect(PROT_READ | PROT_WRITE), which modules can't call. */
int drm_pagemap_kunit_make_writable(unsigned long addr)
{
	return change_flags(addr, VM_WRITE, 0);
}

int drm_pagemap_kunit_pin_page(unsigned long addr, struct page **page)
{
	int ret = pin_user_pages_fast(addr, 1, FOLL_WRITE, page);

	return ret == 1 ? 0 : ret ?: -EFAULT;
}

void drm_pagemap_kunit_unpin_page(struct page *page)
{
	unpin_user_page(page);
}

int drm_pagemap_kunit_get_user_page(unsigned long addr, struct page **page)
{
	int ret = get_user_pages_fast(addr, 1, FOLL_WRITE, page);

	return ret == 1 ? 0 : ret ?: -EFAULT;
}

/* --- Pages ---------------------------------------------------------------- */

struct page *drm_pagemap_kunit_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

unsigned long drm_pagemap_kunit_page_to_pfn(const struct page *page)
{
	return page_to_pfn(page);
}

unsigned long drm_pagemap_kunit_migrate_pfn(unsigned long pfn)
{
	return migrate_pfn(pfn);
}

struct page *drm_pagemap_kunit_migrate_pfn_to_page(unsigned long mpfn)
{
	return migrate_pfn_to_page(mpfn);
}

unsigned long drm_pagemap_kunit_migrate_flags(int which)
{
	switch (which) {
	case 0:
		return MIGRATE_PFN_VALID;
	case 1:
		return MIGRATE_PFN_MIGRATE;
	case 2:
		return MIGRATE_PFN_WRITE;
	default:
		return MIGRATE_PFN_COMPOUND;
	}
}

struct folio *drm_pagemap_kunit_page_folio(struct page *page)
{
	return page_folio(page);
}

unsigned int drm_pagemap_kunit_folio_order(struct folio *folio)
{
	return folio_order(folio);
}

bool drm_pagemap_kunit_folio_test_large(struct folio *folio)
{
	return folio_test_large(folio);
}

bool drm_pagemap_kunit_folio_is_zone_device(struct folio *folio)
{
	return folio_is_zone_device(folio);
}

bool drm_pagemap_kunit_folio_is_device_private(struct folio *folio)
{
	return folio_is_device_private(folio);
}

void *drm_pagemap_kunit_zone_device_data(struct folio *folio)
{
	return folio_zone_device_data(folio);
}

void *drm_pagemap_kunit_page_pgmap(struct folio *folio)
{
	return page_pgmap(folio_page(folio, 0));
}

bool drm_pagemap_kunit_folio_test_locked(struct folio *folio)
{
	return folio_test_locked(folio);
}

int drm_pagemap_kunit_folio_ref_count(struct folio *folio)
{
	return folio_ref_count(folio);
}

/* Calls the callback that core mm calls for each part of a device folio that it splits. */
void drm_pagemap_kunit_device_folio_split(struct folio *old, struct folio *new)
{
	page_pgmap(&old->page)->ops->folio_split(old, new);
}

unsigned int drm_pagemap_kunit_pmd_order(void)
{
	return PMD_SHIFT - PAGE_SHIFT;
}

struct page *drm_pagemap_kunit_alloc_pages(unsigned int order)
{
	return alloc_pages(GFP_KERNEL | (order ? __GFP_COMP : 0), order);
}

void drm_pagemap_kunit_free_pages(struct page *page, unsigned int order)
{
	__free_pages(page, order);
}

/* A page of each block that a huge page could be made of; linked by ->private. */
struct drm_pagemap_kunit_shards {
	struct page *first;
};

/*
 * Sees to it that the kernel has no huge page to give, but most of its memory
 * in smaller ones. NULL: it still has some, or no memory for this.
 */
struct drm_pagemap_kunit_shards *drm_pagemap_kunit_shatter(void)
{
	struct drm_pagemap_kunit_shards *shards = kzalloc_obj(*shards);
	unsigned int order = HPAGE_PMD_ORDER;
	struct page *page;

	if (!shards)
		return NULL;

	/* Harder than the layer tries, and once more where that gave up too early. */
	for (int tries = 0; tries < 3; tries++) {
		while ((page = alloc_pages((GFP_TRANSHUGE | __GFP_NORETRY) & ~__GFP_COMP,
					   order))) {
			split_page(page, order);
			for (int i = 1; i < 1 << order; i++)
				__free_page(page + i);
			set_page_private(page, (unsigned long)shards->first);
			shards->first = page;
			cond_resched();
			tries = 0;
		}
	}
	return shards;
}

void drm_pagemap_kunit_unshatter(struct drm_pagemap_kunit_shards *shards)
{
	while (shards->first) {
		struct page *page = shards->first;

		shards->first = (struct page *)page_private(page);
		set_page_private(page, 0);
		__free_page(page);
	}
	kfree(shards);
}

void drm_pagemap_kunit_get_page(struct page *page)
{
	get_page(page);
}

void drm_pagemap_kunit_put_page(struct page *page)
{
	put_page(page);
}

void drm_pagemap_kunit_put_page_irqs_off(struct page *page)
{
	unsigned long flags;

	local_irq_save(flags);
	put_page(page);
	local_irq_restore(flags);
}

struct put_timer {
	struct hrtimer timer;
	struct completion done;
	struct page *page;
};

static enum hrtimer_restart put_timer_fn(struct hrtimer *timer)
{
	struct put_timer *put = container_of(timer, struct put_timer, timer);

	put_page(put->page);
	complete(&put->done);
	return HRTIMER_NORESTART;
}

void drm_pagemap_kunit_put_page_in_timer(struct page *page)
{
	struct put_timer put = { .page = page };

	init_completion(&put.done);
	/* Not a hard interrupt: complete_all(), which the last put calls, may not run there. */
	hrtimer_setup_on_stack(&put.timer, put_timer_fn, CLOCK_MONOTONIC,
			       HRTIMER_MODE_REL_SOFT);
	hrtimer_start(&put.timer, us_to_ktime(10), HRTIMER_MODE_REL_SOFT);
	wait_for_completion(&put.done);
	hrtimer_cancel(&put.timer);
	destroy_hrtimer_on_stack(&put.timer);
}

void drm_pagemap_kunit_lock_page(struct page *page)
{
	lock_page(page);
}

void drm_pagemap_kunit_unlock_page(struct page *page)
{
	unlock_page(page);
}

void drm_pagemap_kunit_addr_encode(u64 addr, unsigned int order, int dir,
				   struct drm_pagemap_addr *out)
{
	*out = drm_pagemap_addr_encode(addr, DRM_INTERCONNECT_SYSTEM, order,
				       dir);
}

/* --- Context, time, references -------------------------------------------- */

/* To another processor than this one, if there is one; from there, the task may go anywhere. */
int drm_pagemap_kunit_change_processor(void)
{
	unsigned int cpu = cpumask_any_but(cpu_online_mask, raw_smp_processor_id());

	if (cpu >= nr_cpu_ids)
		return 0;
	return set_cpus_allowed_ptr(current, cpumask_of(cpu)) ?:
	       set_cpus_allowed_ptr(current, cpu_possible_mask);
}

bool drm_pagemap_kunit_may_sleep(void)
{
	return preemptible() && !rcu_preempt_depth();
}

u64 drm_pagemap_kunit_jiffies(void)
{
	return get_jiffies_64();
}

unsigned int drm_pagemap_kunit_drm_refs(struct drm_device *drm)
{
	return kref_read(&drm->ref);
}

/* Built in, the suites are no module, and have no references. */
int drm_pagemap_kunit_module_refs(void)
{
#ifdef MODULE
	return module_refcount(THIS_MODULE);
#else
	return 0;
#endif
}

/* How many regions of physical addresses are called @name. Those come and go with tests only. */
unsigned int drm_pagemap_kunit_regions(const char *name)
{
	unsigned int nr = 0;

	for (struct resource *res = iomem_resource.child; res; res = res->sibling)
		nr += res->name && !strcmp(res->name, name);
	return nr;
}

/* --- Allocation failures -------------------------------------------------- */

/*
 * Whether fault injection is set up to fail any allocation of a task, which
 * takes a kernel that has it, and these settings in debugfs:
 *
 *	failslab/ignore-gfp-wait		N
 *	fail_page_alloc/ignore-gfp-wait		N
 *	fail_page_alloc/ignore-gfp-highmem	N
 *	fail_page_alloc/min-order		0
 */
bool drm_pagemap_kunit_can_fail_alloc(void)
{
	struct page *page;
	void *slab;

	drm_pagemap_kunit_fail_nth(1);
	slab = kmalloc(32, GFP_KERNEL | __GFP_NOWARN);
	drm_pagemap_kunit_fail_nth(1);
	page = alloc_page(GFP_HIGHUSER_MOVABLE | __GFP_NOWARN);
	drm_pagemap_kunit_fail_nth(0);

	kfree(slab);
	if (page)
		__free_page(page);
	return !slab && !page;
}

void drm_pagemap_kunit_fail_nth(unsigned int nth)
{
#ifdef CONFIG_FAULT_INJECTION
	WRITE_ONCE(current->fail_nth, nth);
#endif
}

unsigned int drm_pagemap_kunit_fail_left(void)
{
#ifdef CONFIG_FAULT_INJECTION
	return READ_ONCE(current->fail_nth);
#else
	return 0;
#endif
}

/* --- Threads -------------------------------------------------------------- */

struct task_struct *drm_pagemap_kunit_thread(int (*fn)(void *), void *data)
{
	struct task_struct *task;

	task = kthread_create(fn, data, "drm_pagemap_kunit");
	if (IS_ERR(task))
		return NULL;
	get_task_struct(task);
	wake_up_process(task);
	return task;
}

/* Only once the thread's function is known to run. */
void drm_pagemap_kunit_thread_join(struct task_struct *task)
{
	kthread_stop(task);
	put_task_struct(task);
}

struct mm_struct *drm_pagemap_kunit_mm_get(void)
{
	mmget(current->mm);
	return current->mm;
}

void drm_pagemap_kunit_mm_use(struct mm_struct *mm)
{
	kthread_use_mm(mm);
}

void drm_pagemap_kunit_mm_unuse(struct mm_struct *mm)
{
	kthread_unuse_mm(mm);
}

/* --- A C driver's allocation ---------------------------------------------- */

struct drm_pagemap_kunit_devmem {
	struct drm_pagemap_devmem base;
	atomic_t released;
	bool detached_before_release;
};

static void devmem_release(struct drm_pagemap_devmem *base)
{
	struct drm_pagemap_kunit_devmem *devmem =
		container_of(base, struct drm_pagemap_kunit_devmem, base);

	devmem->detached_before_release = completion_done(&base->detached);
	atomic_inc(&devmem->released);
}

static const struct drm_pagemap_devmem_ops devmem_ops = {
	.devmem_release = devmem_release,
};

struct drm_pagemap_kunit_devmem *
drm_pagemap_kunit_devmem_new(struct device *dev, struct drm_pagemap *dpagemap,
			     size_t size)
{
	struct drm_pagemap_kunit_devmem *devmem = kzalloc_obj(*devmem);

	if (devmem)
		drm_pagemap_devmem_init(&devmem->base, dev, current->mm,
					&devmem_ops, dpagemap, size, NULL);
	return devmem;
}

struct drm_pagemap_devmem *
drm_pagemap_kunit_devmem_base(struct drm_pagemap_kunit_devmem *devmem)
{
	return &devmem->base;
}

/* How often it was released; -1 if it was not detached first. */
int drm_pagemap_kunit_devmem_released(struct drm_pagemap_kunit_devmem *devmem)
{
	int released = atomic_read(&devmem->released);

	return released && !devmem->detached_before_release ? -1 : released;
}

bool drm_pagemap_kunit_devmem_detached(struct drm_pagemap_kunit_devmem *devmem)
{
	return completion_done(&devmem->base.detached);
}

void drm_pagemap_kunit_devmem_free(struct drm_pagemap_kunit_devmem *devmem)
{
	kfree(devmem);
}
