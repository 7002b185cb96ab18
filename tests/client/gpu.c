// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The emulated GPUs: a faux device and a DRM device each, with a buffer in RAM
 * for VRAM, and one or more pagemaps.
 */

#include <linux/delay.h>
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include <drm/drm_drv.h>
#include <drm/drm_managed.h>

#include "driver.h"

/* Where VRAM of CLIENT_GPU_COHERENT is: RAM that the kernel was told to leave alone (memmap=). */
static unsigned long coherent;
module_param(coherent, ulong, 0444);

/* All GPUs with a fast interconnect have this list's owner in common. */
static DRM_PAGEMAP_OWNER_LIST_DEFINE(interconnects);

static const struct file_operations client_drm_fops = {
	.owner = THIS_MODULE,
};

static const struct drm_driver client_drm_driver = {
	.fops = &client_drm_fops,
	.name = "drm_pagemap_client",
	.desc = "drm_pagemap test client",
};

/* Whether this call of the hook shall fail, and how; may sleep. */
int hook_call(struct gpu *gpu, enum client_hook number)
{
	struct hook *hook = &gpu->hooks[number];

	if (!atomic_read(&hook->times))
		return 0;
	if (atomic_dec_if_positive(&hook->nth) > 0)
		return 0;
	if (atomic_dec_if_positive(&hook->times) < 0)
		return 0;
	if (!hook->err)
		msleep(hook->pause_ms);
	return -hook->err;
}

struct pagemap *pagemap_of(struct drm_pagemap *dpagemap)
{
	return container_of(dpagemap, struct pagemap, base);
}

struct gpu *gpu_of(struct page *page)
{
	struct dev_pagemap *pgmap;

	if (!is_zone_device_page(page))
		return NULL;
	pgmap = page_pgmap(page);
	return pgmap->ops == client_pgmap_ops ? container_of(pgmap, struct gpu, pgmap) : NULL;
}

static void pagemap_destroy(struct drm_pagemap *dpagemap, bool is_atomic_or_reclaim)
{
	atomic_inc(&pagemap_of(dpagemap)->destroyed);
}

/* A further pagemap for the GPU's memory, with the test's reference. */
int pagemap_new(struct gpu *gpu, unsigned int *slot)
{
	unsigned int nth = quiet_begin();
	struct pagemap *pagemap = kzalloc_obj(*pagemap);
	unsigned int i;
	int ret;

	quiet_end(nth);
	if (!pagemap)
		return -ENOMEM;
	for (i = 0; i < CLIENT_MAX_PAGEMAPS && gpu->pagemaps[i]; i++)
		;
	if (i == CLIENT_MAX_PAGEMAPS) {
		/* One that is gone for good makes room. */
		for (i = 1; i < CLIENT_MAX_PAGEMAPS; i++)
			if (atomic_read(&gpu->pagemaps[i]->destroyed) ==
			    atomic_read(&gpu->pagemaps[i]->created))
				break;
		if (i == CLIENT_MAX_PAGEMAPS) {
			kfree(pagemap);
			return -ENOSPC;
		}
		kfree(gpu->pagemaps[i]);
		gpu->pagemaps[i] = NULL;
	}

	pagemap->gpu = gpu;
	pagemap->ops.populate_mm = vram_populate;
	pagemap->ops.destroy = pagemap_destroy;
	if (!(gpu->flags & CLIENT_GPU_NO_MAP)) {
		pagemap->ops.device_map = vram_map;
		if (!(gpu->flags & CLIENT_GPU_NO_UNMAP))
			pagemap->ops.device_unmap = vram_unmap;
	}

	ret = drm_pagemap_init(&pagemap->base, &gpu->pgmap, gpu->drm, &pagemap->ops);
	if (ret) {
		kfree(pagemap);
		return ret;
	}
	atomic_set(&pagemap->created, 1);
	atomic_set(&pagemap->held, 1);
	gpu->pagemaps[i] = pagemap;
	*slot = i;
	return 0;
}

static bool interconnected(struct drm_pagemap_peer *a, struct drm_pagemap_peer *b)
{
	struct gpu *gpu_a = a->private, *gpu_b = b->private;

	return gpu_a->world == gpu_b->world && !((gpu_a->flags | gpu_b->flags) & CLIENT_GPU_ALONE);
}

static int vram_init(struct gpu *gpu)
{
	size_t size = (size_t)gpu->nr_pages << PAGE_SHIFT;
	struct resource *res;
	void *mapped;

	gpu->used = bitmap_zalloc(gpu->nr_pages, GFP_KERNEL);
	gpu->owners = kvcalloc(gpu->nr_pages, sizeof(*gpu->owners), GFP_KERNEL);
	if (!gpu->used || !gpu->owners)
		return -ENOMEM;

	if (gpu->flags & CLIENT_GPU_COHERENT) {
		gpu->pgmap.type = MEMORY_DEVICE_COHERENT;
		gpu->pgmap.range.start = coherent;
		gpu->pgmap.range.end = coherent + size - 1;
		if (!coherent)
			return -ENODEV;
	} else {
		gpu->vram = vmalloc(size);
		if (!gpu->vram)
			return -ENOMEM;
		res = request_free_mem_region(&iomem_resource, size, "drm_pagemap_client");
		if (IS_ERR(res))
			return PTR_ERR(res);
		gpu->pgmap.type = MEMORY_DEVICE_PRIVATE;
		gpu->pgmap.range.start = res->start;
		gpu->pgmap.range.end = res->end;
	}
	gpu->pgmap.nr_range = 1;
	gpu->pgmap.ops = drm_pagemap_pagemap_ops_get();
	gpu->pgmap.owner = gpu->peer.owner;
	mapped = memremap_pages(&gpu->pgmap, NUMA_NO_NODE);
	if (IS_ERR(mapped)) {
		gpu->pgmap.nr_range = 0;
		return PTR_ERR(mapped);
	}
	if (gpu->flags & CLIENT_GPU_COHERENT)
		gpu->vram = mapped;
	return 0;
}

struct gpu *gpu_new(struct world *world, unsigned int index, u32 flags, u32 pages)
{
	struct gpu *gpu = kzalloc_obj(*gpu);
	char name[32];
	unsigned int slot;
	int ret;

	if (!gpu)
		return ERR_PTR(-ENOMEM);
	gpu->world = world;
	gpu->index = index;
	gpu->flags = flags;
	gpu->nr_pages = pages;
	gpu->bus_base = flags & CLIENT_GPU_BUS_ZERO ? 0 : (u64)(index + 1) << 40;
	gpu->bad_pfn = -1ul;
	spin_lock_init(&gpu->lock);

	ret = -ENODEV;
	snprintf(name, sizeof(name), "drm_pagemap_client.%u", index);
	gpu->faux = faux_device_create(name, NULL, NULL);
	if (!gpu->faux)
		goto err;
	ret = dma_add(gpu);
	if (ret)
		goto err;
	gpu->drm = drm_dev_alloc(&client_drm_driver, &gpu->faux->dev);
	if (IS_ERR(gpu->drm)) {
		ret = PTR_ERR(gpu->drm);
		goto err;
	}
	ret = drm_dev_register(gpu->drm, 0);
	if (ret)
		goto err;

	gpu->peer.private = gpu;
	ret = drm_pagemap_acquire_owner(&gpu->peer, &interconnects, interconnected);
	if (ret)
		goto err;
	gpu->has_owner = true;
	ret = vram_init(gpu);
	if (ret)
		goto err;
	ret = pagemap_new(gpu, &slot);
	if (ret)
		goto err;

	if (flags & CLIENT_GPU_CACHE) {
		gpu->shrinker = drm_pagemap_shrinker_create_devm(gpu->drm);
		ret = PTR_ERR_OR_ZERO(gpu->shrinker);
		if (ret)
			goto err_pagemap;
		gpu->cache = drm_pagemap_cache_create_devm(gpu->shrinker);
		ret = PTR_ERR_OR_ZERO(gpu->cache);
		if (ret)
			goto err_pagemap;
		ret = drm_pagemap_cache_lock_lookup(gpu->cache);
		if (ret)
			goto err_pagemap;
		drm_pagemap_cache_set_pagemap(gpu->cache, &gpu->pagemaps[0]->base);
		drm_pagemap_cache_unlock_lookup(gpu->cache);
	}
	return gpu;

err_pagemap:
	gpu_put_pagemaps(gpu);
err:
	gpu_free(gpu);
	return ERR_PTR(ret);
}

/* The device goes away: what it manages (cache, shrinker) goes with it. */
void gpu_remove(struct gpu *gpu)
{
	if (gpu->removed)
		return;
	gpu->removed = true;
	drm_dev_unplug(gpu->drm);
	dma_remove(gpu);
	faux_device_destroy(gpu->faux);
}

/* Gives back the references that the test still has. */
void gpu_put_pagemaps(struct gpu *gpu)
{
	for (int i = 0; i < CLIENT_MAX_PAGEMAPS; i++)
		if (gpu->pagemaps[i])
			while (atomic_dec_if_positive(&gpu->pagemaps[i]->held) >= 0)
				drm_pagemap_put(&gpu->pagemaps[i]->base);
}

/* Whether nobody uses the GPU's memory and pagemaps. */
bool gpu_empty(struct gpu *gpu)
{
	if (atomic64_read(&gpu->live) > 0)
		return false;
	for (int i = 0; i < CLIENT_MAX_PAGEMAPS; i++)
		if (gpu->pagemaps[i] && atomic_read(&gpu->pagemaps[i]->destroyed) <
					atomic_read(&gpu->pagemaps[i]->created))
			return false;
	return true;
}

void gpu_free(struct gpu *gpu)
{
	bool vram_is_ours = !(gpu->flags & CLIENT_GPU_COHERENT);

	if (gpu->pgmap.nr_range)
		memunmap_pages(&gpu->pgmap);
	if (vram_is_ours && gpu->pgmap.range.start)
		release_mem_region(gpu->pgmap.range.start, range_len(&gpu->pgmap.range));
	if (gpu->has_owner)
		drm_pagemap_release_owner(&gpu->peer);
	if (!gpu->removed && gpu->faux) {
		if (!IS_ERR_OR_NULL(gpu->drm))
			drm_dev_unplug(gpu->drm);
		dma_remove(gpu);
		faux_device_destroy(gpu->faux);
	}
	if (!IS_ERR_OR_NULL(gpu->drm))
		drm_dev_put(gpu->drm);
	for (int i = 0; i < CLIENT_MAX_PAGEMAPS; i++)
		kfree(gpu->pagemaps[i]);
	if (vram_is_ours)
		vfree(gpu->vram);
	kvfree(gpu->owners);
	bitmap_free(gpu->used);
	kfree(gpu);
}
