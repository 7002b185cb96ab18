// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the driver sees and does through the kernel's tracepoints: it counts the
 * DMA mappings of its devices and makes some of them fail, and it sees with
 * which flags user pages are allocated.
 *
 * x86 has no hook in the DMA layer, so a mapping fails because the device is
 * said to reach nothing (dma_mask): the probe that sees the mapping before
 * takes the mask away, the probe that sees the last failure gives it back.
 */

#include <linux/dma-mapping.h>
#include <linux/gfp.h>
#include <linux/string.h>
#include <linux/tracepoint.h>

#include <trace/events/dma.h>
#include <trace/events/kmem.h>

#include "driver.h"

#define MAX_WATCHES	32

static struct watch {
	struct device *dev;
	struct gpu *gpu;
	atomic_t good, bad;
} watches[MAX_WATCHES];

static DEFINE_SPINLOCK(watches_lock);
static struct tracepoint *tp_map, *tp_unmap, *tp_alloc;

/* User pages that this process gets. */
static pid_t gfp_tgid;
static u64 gfp_4k, gfp_2m;

static struct watch *watch_of(struct device *dev)
{
	for (int i = 0; i < MAX_WATCHES; i++)
		if (READ_ONCE(watches[i].dev) == dev)
			return &watches[i];
	return NULL;
}

static void reach(struct device *dev, bool everything)
{
	*dev->dma_mask = everything ? DMA_BIT_MASK(64) : 0xff;
}

static void probe_map(void *data, struct device *dev, phys_addr_t phys_addr, dma_addr_t dma_addr,
		      size_t size, enum dma_data_direction dir, unsigned long attrs)
{
	struct watch *watch = watch_of(dev);

	if (!watch)
		return;
	if (dma_addr == DMA_MAPPING_ERROR) {
		if (atomic_dec_if_positive(&watch->bad) <= 0)
			reach(dev, true);
		return;
	}
	atomic64_inc(&watch->gpu->dma_maps);
	atomic64_inc(&watch->gpu->dma_live);
	if (atomic_dec_if_positive(&watch->good) == 0)
		reach(dev, false);
}

static void probe_unmap(void *data, struct device *dev, dma_addr_t addr, size_t size,
			enum dma_data_direction dir, unsigned long attrs)
{
	struct watch *watch = watch_of(dev);

	if (watch)
		atomic64_dec(&watch->gpu->dma_live);
}

static void probe_alloc(void *data, struct page *page, unsigned int order, gfp_t gfp,
			int migratetype)
{
	if (!page || current->tgid != READ_ONCE(gfp_tgid) || !(gfp & __GFP_HIGHMEM))
		return;
	if (!order)
		WRITE_ONCE(gfp_4k, (__force u64)gfp);
	else if (order == HPAGE_PMD_ORDER)
		WRITE_ONCE(gfp_2m, (__force u64)gfp);
}

static void find_tracepoint(struct tracepoint *tp, void *data)
{
	if (!strcmp(tp->name, "dma_map_phys"))
		tp_map = tp;
	if (!strcmp(tp->name, "dma_unmap_phys"))
		tp_unmap = tp;
	if (!strcmp(tp->name, "mm_page_alloc"))
		tp_alloc = tp;
}

/*
 * The DMA layer warns, once, of a mapping that is out of reach. That shall be over
 * before any case begins, so that the failures which cases ask for look like any other.
 */
static int warn_now(void)
{
	struct faux_device *faux = faux_device_create("drm_pagemap_client.warn", NULL, NULL);
	struct page *page = alloc_page(GFP_KERNEL);
	int ret = -ENOMEM;

	if (faux && page) {
		ret = dma_coerce_mask_and_coherent(&faux->dev, DMA_BIT_MASK(64));
		if (!ret) {
			dma_addr_t addr;

			pr_info("drm_pagemap_client: a DMA warning follows, on purpose\n");
			reach(&faux->dev, false);
			addr = dma_map_page(&faux->dev, page, 0, PAGE_SIZE, DMA_TO_DEVICE);
			if (!dma_mapping_error(&faux->dev, addr)) {
				dma_unmap_page(&faux->dev, addr, PAGE_SIZE, DMA_TO_DEVICE);
				/* Then no case could make one fail. */
				ret = -EOPNOTSUPP;
			}
		}
	}
	if (page)
		__free_page(page);
	if (faux)
		faux_device_destroy(faux);
	return ret;
}

int probes_init(void)
{
	int ret = warn_now();

	if (ret)
		return ret;

	check_trace_callback_type_dma_map_phys(probe_map);
	check_trace_callback_type_dma_unmap_phys(probe_unmap);
	check_trace_callback_type_mm_page_alloc(probe_alloc);
	for_each_kernel_tracepoint(find_tracepoint, NULL);
	if (!tp_map || !tp_unmap || !tp_alloc)
		return -EOPNOTSUPP;

	ret = tracepoint_probe_register(tp_map, probe_map, NULL);
	if (ret)
		return ret;
	ret = tracepoint_probe_register(tp_unmap, probe_unmap, NULL);
	if (ret)
		goto err_map;
	ret = tracepoint_probe_register(tp_alloc, probe_alloc, NULL);
	if (ret)
		goto err_unmap;
	return 0;

err_unmap:
	tracepoint_probe_unregister(tp_unmap, probe_unmap, NULL);
err_map:
	tracepoint_probe_unregister(tp_map, probe_map, NULL);
	tracepoint_synchronize_unregister();
	return ret;
}

void probes_exit(void)
{
	tracepoint_probe_unregister(tp_alloc, probe_alloc, NULL);
	tracepoint_probe_unregister(tp_unmap, probe_unmap, NULL);
	tracepoint_probe_unregister(tp_map, probe_map, NULL);
	tracepoint_synchronize_unregister();
}

/* Makes the GPU's device able to do DMA, and watches it. */
int dma_add(struct gpu *gpu)
{
	struct device *dev = &gpu->faux->dev;
	int ret = dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));

	if (ret)
		return ret;
	ret = -ENOSPC;
	spin_lock(&watches_lock);
	for (int i = 0; i < MAX_WATCHES; i++) {
		if (watches[i].dev)
			continue;
		watches[i].gpu = gpu;
		atomic_set(&watches[i].good, 0);
		atomic_set(&watches[i].bad, 0);
		WRITE_ONCE(watches[i].dev, dev);
		ret = 0;
		break;
	}
	spin_unlock(&watches_lock);
	return ret;
}

void dma_remove(struct gpu *gpu)
{
	struct watch *watch = watch_of(&gpu->faux->dev);

	if (watch)
		WRITE_ONCE(watch->dev, NULL);
	/* A probe that found it has it no longer. */
	tracepoint_synchronize_unregister();
}

/* From the nth mapping on, so many fail; 0 times: none. */
void dma_fail(struct gpu *gpu, unsigned int nth, unsigned int times)
{
	struct watch *watch = gpu->removed ? NULL : watch_of(&gpu->faux->dev);

	if (!watch)
		return;
	atomic_set(&watch->good, 0);
	atomic_set(&watch->bad, times);
	if (nth > 1 && times)
		atomic_set(&watch->good, nth - 1);
	reach(watch->dev, !(nth == 1 && times));
}

/* Says what was seen, and begins anew for the calling process. */
void gfp_watch(struct client_memory *args)
{
	args->gfp_4k = READ_ONCE(gfp_4k);
	args->gfp_2m = READ_ONCE(gfp_2m);
	args->bits_movable = (__force u64)__GFP_MOVABLE;
	args->bits_reclaim = (__force u64)__GFP_DIRECT_RECLAIM;
	WRITE_ONCE(gfp_4k, 0);
	WRITE_ONCE(gfp_2m, 0);
	WRITE_ONCE(gfp_tgid, current->tgid);
}
