/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What Rust can't call by itself: inline functions and macros of the kernel's
 * headers, each under its own name with the prefix drm_pagemap_helper_.
 */
#ifndef _DRM_PAGEMAP_HELPERS_H_
#define _DRM_PAGEMAP_HELPERS_H_

#include <linux/dma-mapping.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/types.h>

struct anon_vma;
struct drm_device;
struct drm_pagemap_owner_list;
struct shrinker;

struct page *drm_pagemap_helper_pfn_to_page(unsigned long pfn);
unsigned long drm_pagemap_helper_page_to_pfn(const struct page *page);
bool drm_pagemap_helper_folio_trylock(struct folio *folio);
void drm_pagemap_helper_folio_lock(struct folio *folio);
void drm_pagemap_helper_folio_put(struct folio *folio);
int drm_pagemap_helper_next_cpu(int cpu);
int drm_pagemap_helper_next_online_cpu(int cpu);
struct workqueue_struct *drm_pagemap_helper_alloc_crew_queue(const char *name);
bool drm_pagemap_helper_is_in_reclaim(void);
bool drm_pagemap_helper_has_mempolicy(void);
bool drm_pagemap_helper_fatal_signal_pending(void);
void drm_pagemap_helper_clear_head(struct page *page);
void drm_pagemap_helper_folio_get(struct folio *folio);
void drm_pagemap_helper_folio_give_back(struct folio *folio);
bool drm_pagemap_helper_folio_revive(struct folio *folio);
void drm_pagemap_helper_folio_end_revival(struct folio *folio);
int drm_pagemap_helper_folio_ref_count(const struct folio *folio);
struct folio *drm_pagemap_helper_locked_ram_folio(gfp_t gfp, unsigned int order,
						  struct vm_area_struct *vma, unsigned long addr);
void drm_pagemap_helper_zone_device_folio_init(struct folio *folio,
					       struct dev_pagemap *pgmap,
					       unsigned int order);
void drm_pagemap_helper_mmap_assert_locked(const struct mm_struct *mm);
bool drm_pagemap_helper_is_zero_pfn(unsigned long pfn);
bool drm_pagemap_helper_vma_is_anonymous(struct vm_area_struct *vma);
bool drm_pagemap_helper_vma_is_private_file(struct vm_area_struct *vma);
u64 drm_pagemap_helper_get_jiffies_64(void);
void drm_pagemap_helper_init_completion(struct completion *done);
bool drm_pagemap_helper_dma_mapping_error(struct device *dev,
					  dma_addr_t addr);
bool drm_pagemap_helper_dma_iova_try_alloc(struct device *dev,
					   struct dma_iova_state *state,
					   size_t size);
int drm_pagemap_helper_dma_iova_link(struct device *dev,
				     struct dma_iova_state *state,
				     phys_addr_t phys, size_t offset,
				     size_t size, enum dma_data_direction dir);
int drm_pagemap_helper_dma_iova_sync(struct device *dev,
				     struct dma_iova_state *state,
				     size_t size);
void drm_pagemap_helper_dma_iova_destroy(struct device *dev,
					 struct dma_iova_state *state,
					 size_t linked,
					 enum dma_data_direction dir);
struct folio *drm_pagemap_helper_folio_get_nontail_page(struct page *page);
bool drm_pagemap_helper_folio_mapped(const struct folio *folio);
struct anon_vma *
drm_pagemap_helper_anon_vma_trylock_read(struct anon_vma *anon_vma);
void drm_pagemap_helper_anon_vma_unlock_read(struct anon_vma *root);
bool drm_pagemap_helper_mmap_read_trylock(struct mm_struct *mm);
void drm_pagemap_helper_dma_fence_put(struct dma_fence *fence);
bool drm_pagemap_helper_drm_try_module_get(struct drm_device *drm);
void drm_pagemap_helper_drm_module_put(struct module *owner);
void drm_pagemap_helper_hold_module(void);
void drm_pagemap_helper_put_module(void);
struct module *drm_pagemap_helper_drm_module(struct drm_device *drm);
struct device *drm_pagemap_helper_drm_parent(struct drm_device *drm);
void drm_pagemap_helper_init_work(struct work_struct *work,
				  work_func_t func);
struct workqueue_struct *drm_pagemap_helper_alloc_workqueue(const char *name);
void drm_pagemap_helper_list_del_init(struct list_head *entry);
struct shrinker *drm_pagemap_helper_shrinker_alloc(struct drm_device *drm);
void drm_pagemap_helper_cache_lookup_init(struct mutex *lookup_mutex);
int drm_pagemap_helper_mutex_lock_interruptible(struct mutex *lock);
void drm_pagemap_helper_owner_list_init(struct drm_pagemap_owner_list *list);

/* In tracepoints.c. */
int drm_pagemap_helper_trace_pid(const struct mm_struct *mm);
int drm_pagemap_helper_trace_device(const struct drm_device *drm);

#endif
