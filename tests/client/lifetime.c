// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Pagemaps that come and go: references, cache, unplug; and owners of
 * interconnect groups.
 */

#include <linux/delay.h>
#include <linux/module.h>

#include <drm/drm_drv.h>

#include "driver.h"

/* Which of the GPU's pagemaps this is. */
static unsigned int slot_of(struct gpu *gpu, struct drm_pagemap *dpagemap)
{
	unsigned int i;

	for (i = 0; i < CLIENT_MAX_PAGEMAPS; i++)
		if (gpu->pagemaps[i] && &gpu->pagemaps[i]->base == dpagemap)
			break;
	return i;
}

/* A pagemap with a reference, from the cache or new. */
static int lookup(struct gpu *gpu, struct client_lifetime *args)
{
	struct drm_pagemap *dpagemap;
	struct pagemap *pagemap;
	int ret = drm_pagemap_cache_lock_lookup(gpu->cache);

	if (ret)
		return ret;
	args->arg = 0;
	dpagemap = drm_pagemap_get_from_cache(gpu->cache);
	if (IS_ERR(dpagemap)) {
		ret = PTR_ERR(dpagemap);
	} else if (dpagemap) {
		pagemap = pagemap_of(dpagemap);
		args->slot = slot_of(gpu, dpagemap);
		atomic_inc(&pagemap->held);
	} else {
		ret = pagemap_new(gpu, &args->slot);
		if (!ret) {
			args->arg = 1;
			drm_pagemap_cache_set_pagemap(gpu->cache,
						      &gpu->pagemaps[args->slot]->base);
		}
	}
	drm_pagemap_cache_unlock_lookup(gpu->cache);
	return ret;
}

/* As a driver's ioctl does it: the device can't go meanwhile. */
static int lookup_entered(struct gpu *gpu, struct client_lifetime *args)
{
	int idx, ret;

	if (!drm_dev_enter(gpu->drm, &idx))
		return -ENODEV;
	if (args->arg)
		msleep(args->arg);
	ret = lookup(gpu, args);
	drm_dev_exit(idx);
	return ret;
}

/* While the test has a pagemap that it looked up, a second look must find the same. */
static int lookup_loop(struct gpu *gpu, struct client_lifetime *args)
{
	u64 times = args->arg;
	int lost = 0;

	for (u64 i = 0; i < times && !signal_pending(current); i++) {
		struct client_lifetime one = {};
		struct drm_pagemap *found;
		struct pagemap *pagemap;
		int ret = lookup(gpu, &one);

		if (ret)
			return ret;
		pagemap = gpu->pagemaps[one.slot];
		/* Whoever was at it has the time to finish. */
		if (one.arg)
			usleep_range(500, 1000);
		found = drm_pagemap_get_from_cache_if_active(gpu->cache);
		if (found != &pagemap->base)
			lost++;
		drm_pagemap_put(found);
		atomic_dec(&pagemap->held);
		drm_pagemap_put(&pagemap->base);
		/* It is the shrinker's turn, or nearly. */
		usleep_range(1, 100);
	}
	return lost;
}

int lifetime_op(struct world *world, struct client_lifetime *args)
{
	struct gpu *gpu = args->gpu < CLIENT_MAX_GPUS ? world->gpus[args->gpu] : NULL;
	struct drm_pagemap *dpagemap;
	struct pagemap *pagemap;

	if (args->verb == CLIENT_MODULE_REFS) {
		args->result = module_refcount(THIS_MODULE);
		return 0;
	}
	if (!gpu || args->slot >= CLIENT_MAX_PAGEMAPS)
		return -ENOENT;
	pagemap = gpu->pagemaps[args->slot];

	switch (args->verb) {
	case CLIENT_PAGEMAP_NEW:
		args->result = pagemap_new(gpu, &args->slot);
		return 0;
	case CLIENT_CACHE_LOOKUP:
		args->result = gpu->cache ? lookup_entered(gpu, args) : -ENOENT;
		return 0;
	case CLIENT_CACHE_LOOKUP_LOOP:
		args->result = gpu->cache ? lookup_loop(gpu, args) : -ENOENT;
		return 0;
	case CLIENT_CACHE_IF_ACTIVE:
		dpagemap = gpu->cache ? drm_pagemap_get_from_cache_if_active(gpu->cache) : NULL;
		args->result = dpagemap ? 0 : -ENOENT;
		if (dpagemap) {
			args->slot = slot_of(gpu, dpagemap);
			atomic_inc(&pagemap_of(dpagemap)->held);
		}
		return 0;
	case CLIENT_UNPLUG:
		drm_dev_unplug(gpu->drm);
		return 0;
	case CLIENT_REMOVE:
		gpu_remove(gpu);
		gpu->cache = NULL;
		return 0;
	}

	if (!pagemap)
		return -ENOENT;
	args->result = 0;
	switch (args->verb) {
	case CLIENT_PAGEMAP_GET:
		drm_pagemap_get(&pagemap->base);
		atomic_inc(&pagemap->held);
		return 0;
	case CLIENT_PAGEMAP_PUT:
		if (atomic_dec_if_positive(&pagemap->held) < 0)
			return -EINVAL;
		drm_pagemap_put(&pagemap->base);
		return 0;
	case CLIENT_PAGEMAP_REINIT:
		/* Only what its destroy op was called for can begin again. */
		if (atomic_read(&pagemap->destroyed) != atomic_read(&pagemap->created))
			return -EBUSY;
		args->result = drm_pagemap_reinit(&pagemap->base);
		if (!args->result) {
			atomic_inc(&pagemap->created);
			atomic_inc(&pagemap->held);
		}
		return 0;
	case CLIENT_PAGEMAP_REFS:
		args->result = kref_read(&pagemap->base.ref);
		return 0;
	case CLIENT_PAGEMAP_LISTED:
		args->result = !list_empty_careful(&pagemap->base.shrink_link);
		return 0;
	}
	return -EINVAL;
}

/* --- Owners ---------------------------------------------------------------- */

static bool linked(struct drm_pagemap_peer *a, struct drm_pagemap_peer *b)
{
	struct world *world = a->private;
	int index = b - world->peers;

	return world->peer_links[a - world->peers] & (1u << index);
}

int owner_op(struct world *world, struct client_owner *args)
{
	struct drm_pagemap_peer *peer;

	if (args->peer >= CLIENT_MAX_PEERS)
		return -EINVAL;
	peer = &world->peers[args->peer];
	args->result = 0;
	if (args->verb == CLIENT_OWNER_ACQUIRE) {
		peer->private = world;
		world->peer_links[args->peer] = args->peers;
		args->result = drm_pagemap_acquire_owner(peer, &world->owners, linked);
	} else {
		drm_pagemap_release_owner(peer);
	}
	args->owner = (uintptr_t)peer->owner;
	return 0;
}

void owners_fini(struct world *world)
{
	for (int i = 0; i < CLIENT_MAX_PEERS; i++)
		if (world->peers[i].owner)
			drm_pagemap_release_owner(&world->peers[i]);
}
