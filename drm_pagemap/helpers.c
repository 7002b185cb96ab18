// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The bodies of helpers.h. No logic here: each one is a call or two.
 */

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/cpuset.h>
#include <linux/dma-fence.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/shrinker.h>
#include <linux/workqueue.h>

#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_pagemap_util.h>

#include "helpers.h"

struct page *drm_pagemap_helper_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

unsigned long drm_pagemap_helper_page_to_pfn(const struct page *page)
{
	return page_to_pfn(page);
}

bool drm_pagemap_helper_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

void drm_pagemap_helper_folio_lock(struct folio *folio)
{
	folio_lock(folio);
}

/* The next one after @cpu that is there, and that this task may use; -1: none. */
int drm_pagemap_helper_next_cpu(int cpu)
{
	cpu = cpumask_next_and(cpu, current->cpus_ptr, cpu_online_mask);
	return cpu < nr_cpu_ids ? cpu : -1;
}

/* The same, whether this task may use it or not. */
int drm_pagemap_helper_next_online_cpu(int cpu)
{
	cpu = cpumask_next(cpu, cpu_online_mask);
	return cpu < nr_cpu_ids ? cpu : -1;
}

struct workqueue_struct *drm_pagemap_helper_alloc_crew_queue(const char *name)
{
	return alloc_workqueue("%s", WQ_PERCPU | WQ_CPU_INTENSIVE, 0, name);
}

/* Whether this task must take care not to wait for what memory reclaim may wait for. */
bool drm_pagemap_helper_is_in_reclaim(void)
{
	return current->flags & (PF_MEMALLOC | PF_MEMALLOC_NOFS | PF_MEMALLOC_NOIO | PF_KSWAPD);
}

/* Whether it matters which task takes RAM: this one, or one of the kernel's own. */
bool drm_pagemap_helper_has_mempolicy(void)
{
#ifdef CONFIG_NUMA
	if (current->mempolicy)
		return true;
#endif
	return !nodes_subset(node_states[N_MEMORY], cpuset_current_mems_allowed);
}

bool drm_pagemap_helper_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

void drm_pagemap_helper_folio_put(struct folio *folio)
{
	folio_put(folio);
}

void drm_pagemap_helper_clear_head(struct page *page)
{
	ClearPageHead(page);
}

void drm_pagemap_helper_folio_get(struct folio *folio)
{
	folio_get(folio);
}

/* How often more than it was mapped a large folio was unmapped; makes it say that it is not mapped. */
static int folio_take_debt(struct folio *folio)
{
	int debt = -folio_mapcount(folio);

	if (likely(debt <= 0))
		return 0;
	atomic_set(&folio->_large_mapcount, -1);
	atomic_set(&folio->_entire_mapcount, -1);
	atomic_set(&folio->_nr_pages_mapped, 0);
	return debt;
}

/* mm/zap_guard.rs has what these are about. */
void drm_pagemap_helper_folio_give_back(struct folio *folio)
{
	int debt = folio_take_debt(folio);

	if (unlikely(debt))
		folio_ref_add(folio, debt);
}

/* In the private word, which nobody uses of device-private folios. */
#define REVIVED ((void *)1)

bool drm_pagemap_helper_folio_revive(struct folio *folio)
{
	int debt;

	/* Who has the lock has a reference. */
	if (likely(!folio_test_locked(folio)))
		return false;
	debt = folio_take_debt(folio);
	if (!debt)
		return false;
	/* The core puts these when the callback returns. */
	percpu_ref_get_many(&folio->pgmap->ref, folio_nr_pages(folio));
	folio->private = REVIVED;
	/* One for the mark. */
	folio_ref_add(folio, debt + 1);
	return true;
}

void drm_pagemap_helper_folio_end_revival(struct folio *folio)
{
	if (likely(folio->private != REVIVED))
		return;
	folio->private = NULL;
	folio_put(folio);
}

int drm_pagemap_helper_folio_ref_count(const struct folio *folio)
{
	return folio_ref_count(folio);
}

struct folio *drm_pagemap_helper_locked_ram_folio(gfp_t gfp, unsigned int order,
						  struct vm_area_struct *vma, unsigned long addr)
{
	struct folio *folio = vma ? vma_alloc_folio(gfp, order, vma, addr) :
				    folio_alloc(gfp, order);

	if (folio) {
		/* Nobody else knows of it. */
		__folio_set_locked(folio);
		/* A device may have written what comes here, and no page table says so. */
		folio_set_dirty(folio);
	}
	return folio;
}

void drm_pagemap_helper_zone_device_folio_init(struct folio *folio,
					       struct dev_pagemap *pgmap,
					       unsigned int order)
{
	zone_device_folio_init(folio, pgmap, order);
}

void drm_pagemap_helper_mmap_assert_locked(const struct mm_struct *mm)
{
	mmap_assert_locked(mm);
}

bool drm_pagemap_helper_is_zero_pfn(unsigned long pfn)
{
	return is_zero_pfn(pfn);
}

bool drm_pagemap_helper_vma_is_anonymous(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma);
}

/* ... with pages of the page cache, which migrate_vma_setup() allows. */
bool drm_pagemap_helper_vma_is_private_file(struct vm_area_struct *vma)
{
	return !vma_is_anonymous(vma) && !vma_is_dax(vma) &&
	       !(vma->vm_flags & (VM_MAYSHARE | VM_SPECIAL | VM_HUGETLB));
}

u64 drm_pagemap_helper_get_jiffies_64(void)
{
	return get_jiffies_64();
}

void drm_pagemap_helper_init_completion(struct completion *done)
{
	init_completion(done);
}

bool drm_pagemap_helper_dma_mapping_error(struct device *dev,
					  dma_addr_t addr)
{
	return dma_mapping_error(dev, addr);
}

bool drm_pagemap_helper_dma_iova_try_alloc(struct device *dev,
					   struct dma_iova_state *state,
					   size_t size)
{
	return dma_iova_try_alloc(dev, state, 0, size);
}

int drm_pagemap_helper_dma_iova_link(struct device *dev,
				     struct dma_iova_state *state,
				     phys_addr_t phys, size_t offset,
				     size_t size, enum dma_data_direction dir)
{
	return dma_iova_link(dev, state, phys, offset, size, dir, 0);
}

int drm_pagemap_helper_dma_iova_sync(struct device *dev,
				     struct dma_iova_state *state, size_t size)
{
	return dma_iova_sync(dev, state, 0, size);
}

void drm_pagemap_helper_dma_iova_destroy(struct device *dev,
					 struct dma_iova_state *state,
					 size_t linked,
					 enum dma_data_direction dir)
{
	dma_iova_destroy(dev, state, linked, dir, 0);
}

struct folio *drm_pagemap_helper_folio_get_nontail_page(struct page *page)
{
	return folio_get_nontail_page(page);
}

bool drm_pagemap_helper_folio_mapped(const struct folio *folio)
{
	return folio_mapped(folio);
}

/* Under RCU, as on core mm's fast path; returns whose lock it is, or NULL. */
struct anon_vma *
drm_pagemap_helper_anon_vma_trylock_read(struct anon_vma *anon_vma)
{
	struct anon_vma *root = READ_ONCE(anon_vma->root);

	return down_read_trylock(&root->rwsem) ? root : NULL;
}

void drm_pagemap_helper_anon_vma_unlock_read(struct anon_vma *root)
{
	up_read(&root->rwsem);
}

bool drm_pagemap_helper_mmap_read_trylock(struct mm_struct *mm)
{
	return mmap_read_trylock(mm);
}

void drm_pagemap_helper_dma_fence_put(struct dma_fence *fence)
{
	dma_fence_put(fence);
}

struct module *drm_pagemap_helper_drm_module(struct drm_device *drm)
{
	return drm->driver->fops->owner;
}

bool drm_pagemap_helper_drm_try_module_get(struct drm_device *drm)
{
	return try_module_get(drm->driver->fops->owner);
}

void drm_pagemap_helper_drm_module_put(struct module *owner)
{
	module_put(owner);
}

/* This module; who calls it uses it. */
void drm_pagemap_helper_hold_module(void)
{
	__module_get(THIS_MODULE);
}

void drm_pagemap_helper_put_module(void)
{
	module_put(THIS_MODULE);
}

struct device *drm_pagemap_helper_drm_parent(struct drm_device *drm)
{
	return drm->dev;
}

void drm_pagemap_helper_init_work(struct work_struct *work, work_func_t func)
{
	INIT_WORK(work, func);
}

struct workqueue_struct *drm_pagemap_helper_alloc_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}

void drm_pagemap_helper_list_del_init(struct list_head *entry)
{
	list_del_init(entry);
}

struct shrinker *drm_pagemap_helper_shrinker_alloc(struct drm_device *drm)
{
	return shrinker_alloc(0, "drm-drm_pagemap:%s", drm->unique);
}

/* Lockdep's name of the lock is that of the argument. */
void drm_pagemap_helper_cache_lookup_init(struct mutex *lookup_mutex)
{
	mutex_init(lookup_mutex);
}

int drm_pagemap_helper_mutex_lock_interruptible(struct mutex *lock)
{
	return mutex_lock_interruptible(lock);
}

/* For Rust's lists; those of C drivers are initialized statically. */
void drm_pagemap_helper_owner_list_init(struct drm_pagemap_owner_list *list)
{
	mutex_init(&list->lock);
	INIT_LIST_HEAD(&list->peers);
}
