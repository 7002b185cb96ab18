/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the test driver drm_pagemap_client.ko offers to the conformance suite.
 *
 * Private to this folder: the driver and its one user are built together.
 *
 * Opening /dev/drm_pagemap_client makes a world of its own: GPUs, allocations
 * and pagemaps that nobody else sees. Closing it brings everything home and
 * takes the GPUs away; a world that can't be emptied is left as it is, and
 * counted in the module's parameter "lost".
 *
 * An ioctl returns an error only when the request itself makes no sense. What
 * the provider of drm_pagemap returned is in @result, 0 or a negative errno.
 * Addresses and sizes are in bytes, ids and GPU numbers count from 0.
 */
#ifndef _DRM_PAGEMAP_CLIENT_H_
#define _DRM_PAGEMAP_CLIENT_H_

#include <linux/ioctl.h>
#include <linux/types.h>

#define CLIENT_MAX_GPUS		4
#define CLIENT_MAX_PAGEMAPS	8
#define CLIENT_MAX_PEERS	6

/* --- GPUs ------------------------------------------------------------------ */

/* pagemap_ops without device_unmap. */
#define CLIENT_GPU_NO_UNMAP	(1 << 0)
/* pagemap_ops without device_map and device_unmap. */
#define CLIENT_GPU_NO_MAP	(1 << 1)
/* On the interconnect, this GPU's memory starts at address 0. */
#define CLIENT_GPU_BUS_ZERO	(1 << 2)
/* No fast interconnect with any other GPU, so an owner of its own. */
#define CLIENT_GPU_ALONE	(1 << 3)
/* With a shrinker and a cache; the pagemap is in the cache. */
#define CLIENT_GPU_CACHE	(1 << 4)
/* VRAM is memory that the CPU can reach, MEMORY_DEVICE_COHERENT (parameter "coherent"). */
#define CLIENT_GPU_COHERENT	(1 << 5)

struct client_add_gpu {
	__u32 flags;
	__u32 vram_pages;
	__u32 gpu;		/* out */
	__s32 result;
};

struct client_stats {
	__u32 gpu;
	__u32 vram_pages;
	__u64 free_pages;
	/* Copy callbacks, and what they moved. */
	__u64 copies_in, bytes_in, bytes_cleared;
	__u64 copies_out, bytes_out;
	__u64 bytes_peer;	/* of bytes_in and bytes_out: over the interconnect */
	__u64 stray_bytes;	/* written to VRAM of another allocation, or of none */
	__u64 max_order;	/* of a copied piece */
	__u64 fences;		/* copies that were given a fence */
	/* The interconnect, and DMA mappings of this GPU's device. */
	__u64 maps, unmaps, bad_unmaps;
	__u64 dma_maps, dma_live;
	/* Allocations. */
	__u64 live, released;
	__u64 destroyed;	/* calls of the pagemaps' destroy op */
};

/* --- Migration ------------------------------------------------------------- */

enum client_layout {
	CLIENT_CONTIGUOUS,	/* and 2 MiB aligned, if of 2 MiB */
	CLIENT_REVERSED,
	CLIENT_SCATTERED,	/* every second page */
	CLIENT_UNALIGNED,	/* contiguous from an odd page on */
};

#define CLIENT_SAME_PAGEMAP	(1 << 0)	/* can_migrate_same_pagemap */
#define CLIENT_POPULATE_MM	(1 << 1)	/* through drm_pagemap_populate_mm() */
#define CLIENT_FENCE		(1 << 2)	/* with a pre_migrate_fence */
#define CLIENT_KEEP		(1 << 7)	/* the test has a reference, until its world ends */
/* devmem_ops without one of its members. */
#define CLIENT_NO_RELEASE	(1 << 3)
#define CLIENT_NO_PFNS		(1 << 4)
#define CLIENT_NO_COPY_IN	(1 << 5)
#define CLIENT_NO_COPY_OUT	(1 << 6)

struct client_migrate {
	__u32 gpu;
	__u32 flags;
	__u64 start, end;
	__u64 size;		/* of the allocation; 0: end - start */
	__u64 timeslice_ms;
	__u32 layout;
	__u32 id;		/* out: of the allocation */
	__s32 result;
	__u32 pad;
};

/* An allocation that nobody has any more is not evicted: result 0. */
struct client_evict {
	__u32 id;
	__s32 result;
};

struct client_alloc_info {
	__u32 id;
	__u32 released;		/* calls of devmem_release */
	__u32 detached;		/* the completion is done */
	__u32 pad;
};

/* --- Pages ----------------------------------------------------------------- */

/* What client_residency says of a page: the low byte, and the order above. */
#define CLIENT_ABSENT		0
#define CLIENT_RAM		1
#define CLIENT_GPU(n)		(2 + (n))
#define CLIENT_WHERE(state)	((state) & 0xff)
#define CLIENT_ORDER(state)	((state) >> 8)

struct client_residency {
	__u64 start, end;
	__u64 states;		/* pointer to a __u16 for each page */
};

enum client_page_verb {
	/* Take a reference on the page at @addr; drop it after @arg ms, 0: on RELEASE. */
	CLIENT_PAGE_HOLD,
	CLIENT_PAGE_RELEASE,	/* all those held */
	/* Invert @arg bytes from @addr on in VRAM; result: pages that are there. */
	CLIENT_PAGE_INVERT,
	CLIENT_PAGE_TO_DPAGEMAP,	/* result: the GPU */
	/* Copies that read the VRAM page at @addr fail with -EIO. */
	CLIENT_PAGE_BAD,
	/*
	 * Take a reference on the page at @addr (a device page) at the end of the
	 * @arg-th MMU notifier section from now on in this process.
	 */
	CLIENT_PAGE_HOLD_AT_NOTIFIER,
};

struct client_page {
	__u32 verb;
	__s32 result;
	__u64 addr;
	__u64 arg;
};

/* --- Faults that are made -------------------------------------------------- */

enum client_hook {
	CLIENT_HOOK_PFNS,	/* populate_devmem_pfn */
	CLIENT_HOOK_COPY_IN,	/* copy_to_devmem */
	CLIENT_HOOK_COPY_OUT,	/* copy_to_ram */
	CLIENT_HOOK_MAP,	/* device_map; the errno is not seen */
	CLIENT_HOOK_POPULATE,	/* populate_mm */
	CLIENT_HOOK_DMA,	/* a DMA mapping of this GPU's device */
	CLIENT_NR_HOOKS,
};

/*
 * From the @nth call on (counting from 1), @times calls fail with -@err, or, if
 * @err is 0, take @pause_ms longer. Times 0 ends it.
 */
struct client_inject {
	__u32 gpu;
	__u32 hook;
	__u32 nth, times;
	__u32 err, pause_ms;
};

enum client_memory_verb {
	/* Take all memory that 2 MiB pages could be made of, give half of it back. */
	CLIENT_MEMORY_FRAGMENT,
	CLIENT_MEMORY_RESTORE,
	/* Watch this process's allocations of user pages from now on. */
	CLIENT_MEMORY_WATCH,
};

struct client_memory {
	__u32 verb;
	__s32 result;
	/* Of WATCH: what was seen until now, 0 for none. */
	__u64 gfp_4k, gfp_2m;
	__u64 bits_movable, bits_reclaim;	/* what to look for in these */
};

/* --- Lifetimes ------------------------------------------------------------- */

enum client_lifetime_verb {
	CLIENT_PAGEMAP_NEW,		/* drm_pagemap_init; out: slot */
	CLIENT_PAGEMAP_GET,
	CLIENT_PAGEMAP_PUT,
	CLIENT_PAGEMAP_REINIT,
	CLIENT_PAGEMAP_REFS,		/* result: its reference count */
	CLIENT_PAGEMAP_LISTED,		/* result: whether it is on a shrinker's list */
	/*
	 * Lock the cache, look up, create if there is none, unlock. Out: slot, and in
	 * @arg whether it was created. In: @arg ms to wait before, inside drm_dev_enter.
	 */
	CLIENT_CACHE_LOOKUP,
	CLIENT_CACHE_IF_ACTIVE,		/* out: slot; result -ENOENT if not */
	CLIENT_CACHE_LOOKUP_LOOP,	/* look up and put @arg times; result: how many were lost */
	CLIENT_UNPLUG,			/* drm_dev_unplug */
	CLIENT_REMOVE,			/* the device goes, and with it what is device-managed */
	CLIENT_MODULE_REFS,		/* result: of this module */
};

struct client_lifetime {
	__u32 verb;
	__u32 gpu;
	__u32 slot;		/* which of this GPU's pagemaps; 0 is the first one */
	__s32 result;
	__u64 arg;
};

enum client_owner_verb {
	CLIENT_OWNER_ACQUIRE,
	CLIENT_OWNER_RELEASE,
};

/* @peers: a bit for each peer with which this one has a fast interconnect. */
struct client_owner {
	__u32 verb;
	__u32 peer;
	__u32 peers;
	__s32 result;
	__u64 owner;		/* out: a name for it; 0 for none */
};

#define CLIENT_IOC(nr, type)	_IOWR('C', nr, struct type)
#define CLIENT_IOC_ADD_GPU	CLIENT_IOC(0, client_add_gpu)
#define CLIENT_IOC_STATS	CLIENT_IOC(1, client_stats)
#define CLIENT_IOC_MIGRATE	CLIENT_IOC(2, client_migrate)
#define CLIENT_IOC_EVICT	CLIENT_IOC(3, client_evict)
#define CLIENT_IOC_ALLOC	CLIENT_IOC(4, client_alloc_info)
#define CLIENT_IOC_RESIDENCY	CLIENT_IOC(5, client_residency)
#define CLIENT_IOC_PAGE		CLIENT_IOC(6, client_page)
#define CLIENT_IOC_INJECT	CLIENT_IOC(7, client_inject)
#define CLIENT_IOC_MEMORY	CLIENT_IOC(8, client_memory)
#define CLIENT_IOC_LIFETIME	CLIENT_IOC(9, client_lifetime)
#define CLIENT_IOC_OWNER	CLIENT_IOC(10, client_owner)

#endif
