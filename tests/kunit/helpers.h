/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the Rust test suites can't call by themselves: KUnit's macros, inline
 * functions of the memory management core, and the C originals of what the
 * drm_pagemap crate does inline. ffi.rs declares the same for Rust.
 */
#ifndef _DRM_PAGEMAP_KUNIT_HELPERS_H_
#define _DRM_PAGEMAP_KUNIT_HELPERS_H_

#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/types.h>

/*
 * Waits for up to 5 s until the condition is true, and returns whether it is:
 * what other threads, or the layer's work queue, do takes a moment.
 */
#define wait_for(cond)							\
({									\
	unsigned long __end = jiffies + 5 * HZ;				\
									\
	while (!(cond) && time_before(jiffies, __end))			\
		usleep_range(1000, 2000);				\
	(cond);								\
})

struct completion;
struct device;
struct drm_device;
struct drm_pagemap_addr;
struct folio;
struct kunit;
struct kunit_suppressed_warning;
struct mm_struct;
struct module;
struct page;
struct task_struct;

/* KUnit */
void drm_pagemap_kunit_fail(struct kunit *test, const char *file,
			    unsigned int line, const char *what);
void drm_pagemap_kunit_skip(struct kunit *test, const char *why);
struct kunit_suppressed_warning *
drm_pagemap_kunit_suppress_warnings(struct kunit *test);
void drm_pagemap_kunit_unsuppress_warnings(struct kunit *test,
					   struct kunit_suppressed_warning *w);

/* The current task's address space */
enum drm_pagemap_kunit_map {
	DRM_PAGEMAP_KUNIT_MAP_PRIVATE,
	DRM_PAGEMAP_KUNIT_MAP_PRIVATE_RO,
	DRM_PAGEMAP_KUNIT_MAP_LOCKED,
	DRM_PAGEMAP_KUNIT_MAP_SHARED,
	DRM_PAGEMAP_KUNIT_MAP_FILE_PRIVATE,
	DRM_PAGEMAP_KUNIT_MAP_FILE_SHARED,
};

int drm_pagemap_kunit_mm_attach(void);
struct mm_struct *drm_pagemap_kunit_mm_detach(void);
void drm_pagemap_kunit_mm_put(struct mm_struct *mm);
unsigned long drm_pagemap_kunit_mmap(unsigned long addr, size_t len,
				     enum drm_pagemap_kunit_map kind);
int drm_pagemap_kunit_munmap(unsigned long addr, size_t len);
void drm_pagemap_kunit_mmap_write_lock(struct mm_struct *mm);
void drm_pagemap_kunit_mmap_write_unlock(struct mm_struct *mm);
int drm_pagemap_kunit_want_huge(unsigned long addr, bool huge);
int drm_pagemap_kunit_make_writable(unsigned long addr);
int drm_pagemap_kunit_pin_page(unsigned long addr, struct page **page);
void drm_pagemap_kunit_unpin_page(struct page *page);
int drm_pagemap_kunit_get_user_page(unsigned long addr, struct page **page);

/* Pages */
struct page *drm_pagemap_kunit_pfn_to_page(unsigned long pfn);
unsigned long drm_pagemap_kunit_page_to_pfn(const struct page *page);
unsigned long drm_pagemap_kunit_migrate_pfn(unsigned long pfn);
struct page *drm_pagemap_kunit_migrate_pfn_to_page(unsigned long mpfn);
unsigned long drm_pagemap_kunit_migrate_flags(int which);
struct folio *drm_pagemap_kunit_page_folio(struct page *page);
unsigned int drm_pagemap_kunit_folio_order(struct folio *folio);
bool drm_pagemap_kunit_folio_test_large(struct folio *folio);
bool drm_pagemap_kunit_folio_is_zone_device(struct folio *folio);
bool drm_pagemap_kunit_folio_is_device_private(struct folio *folio);
void *drm_pagemap_kunit_zone_device_data(struct folio *folio);
void *drm_pagemap_kunit_page_pgmap(struct folio *folio);
bool drm_pagemap_kunit_folio_test_locked(struct folio *folio);
int drm_pagemap_kunit_folio_ref_count(struct folio *folio);
void drm_pagemap_kunit_device_folio_split(struct folio *old, struct folio *new);
unsigned int drm_pagemap_kunit_pmd_order(void);
struct page *drm_pagemap_kunit_alloc_pages(unsigned int order);
void drm_pagemap_kunit_free_pages(struct page *page, unsigned int order);
struct drm_pagemap_kunit_shards;
struct drm_pagemap_kunit_shards *drm_pagemap_kunit_shatter(void);
void drm_pagemap_kunit_unshatter(struct drm_pagemap_kunit_shards *shards);
void drm_pagemap_kunit_get_page(struct page *page);
void drm_pagemap_kunit_put_page(struct page *page);
void drm_pagemap_kunit_put_page_irqs_off(struct page *page);
void drm_pagemap_kunit_put_page_in_timer(struct page *page);
void drm_pagemap_kunit_lock_page(struct page *page);
void drm_pagemap_kunit_unlock_page(struct page *page);
void drm_pagemap_kunit_addr_encode(u64 addr, unsigned int order, int dir,
				   struct drm_pagemap_addr *out);

/* Context, time, references */
bool drm_pagemap_kunit_may_sleep(void);
int drm_pagemap_kunit_change_processor(void);
u64 drm_pagemap_kunit_jiffies(void);
unsigned int drm_pagemap_kunit_drm_refs(struct drm_device *drm);
int drm_pagemap_kunit_module_refs(void);
unsigned int drm_pagemap_kunit_regions(const char *name);

/* DMA, watched by means of tracepoints */
int drm_pagemap_kunit_dma_init(void);
void drm_pagemap_kunit_dma_exit(void);
bool drm_pagemap_kunit_dma_watched(void);
int drm_pagemap_kunit_dma_add(struct device *dev);
void drm_pagemap_kunit_dma_remove(struct device *dev);
long drm_pagemap_kunit_dma_maps(struct device *dev);
long drm_pagemap_kunit_dma_live(struct device *dev);
bool drm_pagemap_kunit_dma_all_undone(struct device *dev);
void drm_pagemap_kunit_dma_fail(struct device *dev, unsigned long nth,
				unsigned long times);
void *drm_pagemap_kunit_dma_to_virt(struct device *dev, dma_addr_t addr);
size_t drm_pagemap_kunit_dma_max(struct device *dev);

/* References taken in the middle of a migration */
int drm_pagemap_kunit_remap_init(void);
void drm_pagemap_kunit_remap_exit(void);
bool drm_pagemap_kunit_remap_watched(void);
void drm_pagemap_kunit_get_page_on_remap(unsigned long addr, struct page *page);
bool drm_pagemap_kunit_got_page_on_remap(void);
void drm_pagemap_kunit_look_on_remap(unsigned long addr, struct device *dev);
long drm_pagemap_kunit_live_on_remap(void);

/* Allocation failures */
bool drm_pagemap_kunit_can_fail_alloc(void);
void drm_pagemap_kunit_fail_nth(unsigned int nth);
unsigned int drm_pagemap_kunit_fail_left(void);

/* Threads */
struct task_struct *drm_pagemap_kunit_thread(int (*fn)(void *), void *data);
void drm_pagemap_kunit_thread_join(struct task_struct *task);
struct mm_struct *drm_pagemap_kunit_mm_get(void);
void drm_pagemap_kunit_mm_use(struct mm_struct *mm);
void drm_pagemap_kunit_mm_unuse(struct mm_struct *mm);

/* A C driver's allocation on any pagemap: no operations but release */
struct drm_pagemap;
struct drm_pagemap_devmem;
struct drm_pagemap_kunit_devmem;
struct drm_pagemap_kunit_devmem *
drm_pagemap_kunit_devmem_new(struct device *dev, struct drm_pagemap *dpagemap,
			     size_t size);
struct drm_pagemap_devmem *
drm_pagemap_kunit_devmem_base(struct drm_pagemap_kunit_devmem *devmem);
int drm_pagemap_kunit_devmem_released(struct drm_pagemap_kunit_devmem *devmem);
bool drm_pagemap_kunit_devmem_detached(struct drm_pagemap_kunit_devmem *devmem);
void drm_pagemap_kunit_devmem_free(struct drm_pagemap_kunit_devmem *devmem);

#endif
