// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Counts the DMA mappings of the tests' devices, and makes one fail.
 *
 * The DMA layer has no hook for that on x86 (struct dma_map_ops is not built
 * in), but it has tracepoints: one after each mapping, one after each
 * unmapping. To let the nth mapping fail, the probe that sees the one before
 * it takes away all of the device's address space; the probe that sees the
 * last failure gives it back.
 */

#include <linux/atomic.h>
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/hash.h>
#include <linux/string.h>
#include <linux/tracepoint.h>

#include <trace/events/dma.h>

#include "helpers.h"

struct watch {
	struct device *dev;
	atomic_long_t maps;
	atomic_long_t live;
	/* The sum of what identifies those: 0 if each was undone as it was made. */
	atomic64_t sum;
	/* The number of good mappings before one fails; 0: not in sight. */
	atomic_long_t good;
	/* How many mappings shall fail from then on. */
	atomic_long_t bad;
};

/* As many as there are devices in one test. */
static struct watch watches[4];

static struct tracepoint *tp_map, *tp_unmap;
static bool watched;

static struct watch *watch_of(struct device *dev)
{
	for (int i = 0; i < ARRAY_SIZE(watches); i++)
		if (READ_ONCE(watches[i].dev) == dev)
			return &watches[i];
	return NULL;
}

/* Two mappings that differ in anything give two numbers. */
static s64 identity(dma_addr_t addr, size_t size, enum dma_data_direction dir)
{
	return hash_64(hash_64(hash_64(addr, 64) ^ size, 64) ^ dir, 62);
}

static void reach_nothing(struct device *dev)
{
	*dev->dma_mask = 0xff;
}

static void reach_everything(struct device *dev)
{
	*dev->dma_mask = DMA_BIT_MASK(64);
}

static void probe_map(void *data, struct device *dev, phys_addr_t phys_addr,
		      dma_addr_t dma_addr, size_t size,
		      enum dma_data_direction dir, unsigned long attrs)
{
	struct watch *watch = watch_of(dev);

	if (!watch)
		return;
	if (dma_addr == DMA_MAPPING_ERROR) {
		if (atomic_long_dec_and_test(&watch->bad))
			reach_everything(dev);
		return;
	}
	atomic_long_inc(&watch->maps);
	atomic_long_inc(&watch->live);
	atomic64_add(identity(dma_addr, size, dir), &watch->sum);
	if (atomic_long_dec_if_positive(&watch->good) == 0)
		reach_nothing(dev);
}

static void probe_unmap(void *data, struct device *dev, dma_addr_t addr,
			size_t size, enum dma_data_direction dir,
			unsigned long attrs)
{
	struct watch *watch = watch_of(dev);

	if (!watch)
		return;
	atomic_long_dec(&watch->live);
	atomic64_sub(identity(addr, size, dir), &watch->sum);
}

static void find_tracepoint(struct tracepoint *tp, void *data)
{
	if (!strcmp(tp->name, "dma_map_phys"))
		tp_map = tp;
	if (!strcmp(tp->name, "dma_unmap_phys"))
		tp_unmap = tp;
}

/* Not an error if the kernel has no such tracepoints: tests ask. */
int drm_pagemap_kunit_dma_init(void)
{
	int ret;

	check_trace_callback_type_dma_map_phys(probe_map);
	check_trace_callback_type_dma_unmap_phys(probe_unmap);

	for_each_kernel_tracepoint(find_tracepoint, NULL);
	if (!tp_map || !tp_unmap)
		return 0;

	ret = tracepoint_probe_register(tp_map, probe_map, NULL);
	if (ret)
		return ret;
	ret = tracepoint_probe_register(tp_unmap, probe_unmap, NULL);
	if (ret) {
		tracepoint_probe_unregister(tp_map, probe_map, NULL);
		tracepoint_synchronize_unregister();
		return ret;
	}
	watched = true;
	return 0;
}

void drm_pagemap_kunit_dma_exit(void)
{
	if (!watched)
		return;
	tracepoint_probe_unregister(tp_map, probe_map, NULL);
	tracepoint_probe_unregister(tp_unmap, probe_unmap, NULL);
	tracepoint_synchronize_unregister();
	watched = false;
}

bool drm_pagemap_kunit_dma_watched(void)
{
	return watched;
}

/* Makes the device able to do DMA, and watches it. */
int drm_pagemap_kunit_dma_add(struct device *dev)
{
	int ret = dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));

	if (ret)
		return ret;

	for (int i = 0; i < ARRAY_SIZE(watches); i++) {
		if (watches[i].dev)
			continue;
		atomic_long_set(&watches[i].maps, 0);
		atomic_long_set(&watches[i].live, 0);
		atomic64_set(&watches[i].sum, 0);
		atomic_long_set(&watches[i].good, 0);
		atomic_long_set(&watches[i].bad, 0);
		WRITE_ONCE(watches[i].dev, dev);
		return 0;
	}
	return -ENOSPC;
}

void drm_pagemap_kunit_dma_remove(struct device *dev)
{
	struct watch *watch = watch_of(dev);

	if (watch)
		WRITE_ONCE(watch->dev, NULL);
}

/* How many mappings there were. */
long drm_pagemap_kunit_dma_maps(struct device *dev)
{
	struct watch *watch = watch_of(dev);

	return watch ? atomic_long_read(&watch->maps) : -1;
}

/* How many of them there are now. */
long drm_pagemap_kunit_dma_live(struct device *dev)
{
	struct watch *watch = watch_of(dev);

	return watch ? atomic_long_read(&watch->live) : -1;
}

/*
 * Whether there is none, and all that there were have been undone with the
 * address, size and direction that they were made with.
 */
bool drm_pagemap_kunit_dma_all_undone(struct device *dev)
{
	struct watch *watch = watch_of(dev);

	return watch && !atomic_long_read(&watch->live) && !atomic64_read(&watch->sum);
}

/* Lets the nth mapping from now on fail, and those after it, times in all. */
void drm_pagemap_kunit_dma_fail(struct device *dev, unsigned long nth,
				unsigned long times)
{
	struct watch *watch = watch_of(dev);

	if (!watch)
		return;
	atomic_long_set(&watch->bad, times);
	atomic_long_set(&watch->good, nth > 1 ? nth - 1 : 0);
	if (nth == 1)
		reach_nothing(dev);
	else
		reach_everything(dev);
}

void *drm_pagemap_kunit_dma_to_virt(struct device *dev, dma_addr_t addr)
{
	return phys_to_virt(dma_to_phys(dev, addr));
}

/* The most bytes that can be mapped at once. */
size_t drm_pagemap_kunit_dma_max(struct device *dev)
{
	return dma_max_mapping_size(dev);
}
