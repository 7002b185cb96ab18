/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the files of drm_pagemap_client.ko share.
 */
#ifndef _DRM_PAGEMAP_CLIENT_DRIVER_H_
#define _DRM_PAGEMAP_CLIENT_DRIVER_H_

#include <linux/atomic.h>
#include <linux/device/faux.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include <drm/drm_device.h>
#include <drm/drm_pagemap.h>
#include <drm/drm_pagemap_util.h>

#include "client.h"

struct gpu;
struct world;

/* One struct drm_pagemap of a GPU. Its memory stays until the world ends. */
struct pagemap {
	struct drm_pagemap base;
	struct gpu *gpu;
	struct drm_pagemap_ops ops;
	/* Calls of destroy, and how many there must be in the end. */
	atomic_t destroyed, created;
	/* References that the test has. */
	atomic_t held;
};

struct hook {
	atomic_t nth, times;
	int err;
	unsigned int pause_ms;
};

struct gpu {
	struct world *world;
	unsigned int index;
	u32 flags;
	struct faux_device *faux;
	struct drm_device *drm;
	bool removed;
	struct dev_pagemap pgmap;
	struct drm_pagemap_peer peer;
	bool has_owner;
	struct drm_pagemap_shrinker *shrinker;
	struct drm_pagemap_cache *cache;
	struct pagemap *pagemaps[CLIENT_MAX_PAGEMAPS];

	/* VRAM: bytes, and who has which page. */
	u8 *vram;
	unsigned int nr_pages;
	u64 bus_base;
	spinlock_t lock;
	unsigned long *used;
	struct alloc **owners;
	unsigned long bad_pfn;

	struct hook hooks[CLIENT_NR_HOOKS];
	atomic64_t copies_in, bytes_in, bytes_cleared, copies_out, bytes_out;
	atomic64_t bytes_peer, stray_bytes, max_order, fences;
	atomic64_t maps, unmaps, bad_unmaps, dma_maps, dma_live;
	atomic64_t live, released;
};

/* An allocation of VRAM. Its memory stays until the world ends. */
struct alloc {
	struct drm_pagemap_devmem base;
	struct drm_pagemap_devmem_ops ops;
	struct gpu *gpu;
	struct list_head link;
	u32 id;
	/* Who uses its VRAM: drm_pagemap, evictions, the test. */
	refcount_t users;
	bool kept;
	atomic_t released;
	struct mm_struct *mm;
	unsigned int nr;
	u32 pages[] __counted_by(nr);
};

struct held {
	struct list_head link;
	struct page *page;
};

/* All that one open file has. */
struct world {
	struct mutex lock;
	struct gpu *gpus[CLIENT_MAX_GPUS];
	struct list_head allocs;
	u32 next_id;
	struct list_head held;
	spinlock_t held_lock;
	/* Delayed drops of page references that are still to come. */
	atomic_t pending;
	struct list_head hogs;
	struct drm_pagemap_peer peers[CLIENT_MAX_PEERS];
	struct drm_pagemap_owner_list owners;
	u32 peer_links[CLIENT_MAX_PEERS];
	struct mmu_notifier notifier;
	bool has_notifier;
	struct page *notifier_page;
	atomic_t notifier_nth;
};

/*
 * The kernel's fault injection (/proc/PID/fail-nth) shall count the provider's
 * allocations and leave out the driver's own: those are between these two.
 */
static inline unsigned int quiet_begin(void)
{
	unsigned int nth = 0;

#ifdef CONFIG_FAULT_INJECTION
	nth = READ_ONCE(current->fail_nth);
	WRITE_ONCE(current->fail_nth, 0);
#endif
	return nth;
}

static inline void quiet_end(unsigned int nth)
{
#ifdef CONFIG_FAULT_INJECTION
	WRITE_ONCE(current->fail_nth, nth);
#endif
}

static inline unsigned long gpu_pfn(struct gpu *gpu)
{
	return PHYS_PFN(gpu->pgmap.range.start);
}

/* The GPU that a device page belongs to, or NULL if it is no page of a client's GPU. */
struct gpu *gpu_of(struct page *page);

/* gpu.c */
struct gpu *gpu_new(struct world *world, unsigned int index, u32 flags, u32 pages);
bool gpu_empty(struct gpu *gpu);
void gpu_free(struct gpu *gpu);
void gpu_remove(struct gpu *gpu);
void gpu_put_pagemaps(struct gpu *gpu);
int pagemap_new(struct gpu *gpu, unsigned int *slot);
struct pagemap *pagemap_of(struct drm_pagemap *dpagemap);
int hook_call(struct gpu *gpu, enum client_hook hook);
extern const struct dev_pagemap_ops *client_pgmap_ops;

/* vram.c */
struct alloc *alloc_new(struct gpu *gpu, const struct client_migrate *args);
struct alloc *alloc_find(struct world *world, u32 id);
bool alloc_get(struct alloc *alloc);
void alloc_put(struct alloc *alloc);
void alloc_free(struct alloc *alloc);
struct drm_pagemap_addr vram_map(struct drm_pagemap *dpagemap, struct device *dev,
				 struct page *page, unsigned int order,
				 enum dma_data_direction dir);
void vram_unmap(struct drm_pagemap *dpagemap, struct device *dev,
		const struct drm_pagemap_addr *addr);
int vram_populate(struct drm_pagemap *dpagemap, unsigned long start, unsigned long end,
		  struct mm_struct *mm, unsigned long timeslice_ms);
int migrate(struct gpu *gpu, struct client_migrate *args);

/* pages.c */
int residency(struct world *world, const struct client_residency *args);
int page_op(struct world *world, struct client_page *args);
void pages_release(struct world *world);
void pages_fini(struct world *world);

/* memory.c */
int memory_op(struct world *world, struct client_memory *args);
void memory_restore(struct world *world);

/* lifetime.c */
int lifetime_op(struct world *world, struct client_lifetime *args);
int owner_op(struct world *world, struct client_owner *args);
void owners_fini(struct world *world);

/* probes.c */
int probes_init(void);
void probes_exit(void);
int dma_add(struct gpu *gpu);
void dma_remove(struct gpu *gpu);
void dma_fail(struct gpu *gpu, unsigned int nth, unsigned int times);
void gfp_watch(struct client_memory *args);

#endif
