// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * drm_pagemap_client: a driver in C for the conformance suite. Of drm_pagemap it
 * knows <drm/drm_pagemap.h> and <drm/drm_pagemap_util.h> and nothing else, so that
 * it goes with any provider of them. See client.h for what it does.
 */

#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "driver.h"

/* How long closing a world waits for its memory to come home, in ms. */
#define CLOSE_MS	3000

/* Worlds that could not be emptied, and are left as they are. */
static unsigned int lost;
module_param(lost, uint, 0444);

/* Make a pagemap while this module unloads. */
static bool init_at_exit;
module_param(init_at_exit, bool, 0644);

const struct dev_pagemap_ops *client_pgmap_ops;

/* --- ioctls ---------------------------------------------------------------- */

static struct gpu *gpu_at(struct world *world, u32 index)
{
	return index < CLIENT_MAX_GPUS ? world->gpus[index] : NULL;
}

static int add_gpu(struct world *world, struct client_add_gpu *args)
{
	struct gpu *gpu;
	u32 i;

	if (!args->vram_pages || args->vram_pages % 512 || args->vram_pages > 1 << 16)
		return -EINVAL;
	mutex_lock(&world->lock);
	for (i = 0; i < CLIENT_MAX_GPUS && world->gpus[i]; i++)
		;
	if (i == CLIENT_MAX_GPUS) {
		mutex_unlock(&world->lock);
		return -ENOSPC;
	}
	gpu = gpu_new(world, i, args->flags, args->vram_pages);
	args->result = PTR_ERR_OR_ZERO(gpu);
	if (!args->result) {
		args->gpu = i;
		WRITE_ONCE(world->gpus[i], gpu);
	}
	mutex_unlock(&world->lock);
	return 0;
}

static int stats(struct gpu *gpu, struct client_stats *args)
{
	args->vram_pages = gpu->nr_pages;
	spin_lock_irq(&gpu->lock);
	args->free_pages = gpu->nr_pages - bitmap_weight(gpu->used, gpu->nr_pages);
	spin_unlock_irq(&gpu->lock);
	args->copies_in = atomic64_read(&gpu->copies_in);
	args->bytes_in = atomic64_read(&gpu->bytes_in);
	args->bytes_cleared = atomic64_read(&gpu->bytes_cleared);
	args->copies_out = atomic64_read(&gpu->copies_out);
	args->bytes_out = atomic64_read(&gpu->bytes_out);
	args->bytes_peer = atomic64_read(&gpu->bytes_peer);
	args->stray_bytes = atomic64_read(&gpu->stray_bytes);
	args->max_order = atomic64_read(&gpu->max_order);
	args->fences = atomic64_read(&gpu->fences);
	args->maps = atomic64_read(&gpu->maps);
	args->unmaps = atomic64_read(&gpu->unmaps);
	args->bad_unmaps = atomic64_read(&gpu->bad_unmaps);
	args->dma_maps = atomic64_read(&gpu->dma_maps);
	args->dma_live = atomic64_read(&gpu->dma_live);
	args->live = atomic64_read(&gpu->live);
	args->released = atomic64_read(&gpu->released);
	args->destroyed = 0;
	for (int i = 0; i < CLIENT_MAX_PAGEMAPS; i++)
		if (gpu->pagemaps[i])
			args->destroyed += atomic_read(&gpu->pagemaps[i]->destroyed);
	return 0;
}

static int evict(struct world *world, struct client_evict *args)
{
	struct alloc *alloc;

	mutex_lock(&world->lock);
	alloc = alloc_find(world, args->id);
	mutex_unlock(&world->lock);
	if (!alloc)
		return -ENOENT;
	args->result = 0;
	if (alloc_get(alloc)) {
		args->result = drm_pagemap_evict_to_ram(&alloc->base);
		alloc_put(alloc);
	}
	return 0;
}

static int alloc_info(struct world *world, struct client_alloc_info *args)
{
	struct alloc *alloc;

	mutex_lock(&world->lock);
	alloc = alloc_find(world, args->id);
	mutex_unlock(&world->lock);
	if (!alloc)
		return -ENOENT;
	args->released = atomic_read(&alloc->released);
	args->detached = completion_done(&alloc->base.detached);
	return 0;
}

static int inject(struct gpu *gpu, const struct client_inject *args)
{
	struct hook *hook;

	if (args->hook >= CLIENT_NR_HOOKS)
		return -EINVAL;
	if (args->hook == CLIENT_HOOK_DMA) {
		dma_fail(gpu, args->nth, args->times);
		return 0;
	}
	hook = &gpu->hooks[args->hook];
	atomic_set(&hook->times, 0);
	hook->err = args->err;
	hook->pause_ms = args->pause_ms;
	atomic_set(&hook->nth, args->nth);
	atomic_set(&hook->times, args->times);
	return 0;
}

union args {
	struct client_add_gpu add_gpu;
	struct client_stats stats;
	struct client_migrate migrate;
	struct client_evict evict;
	struct client_alloc_info alloc;
	struct client_residency residency;
	struct client_page page;
	struct client_inject inject;
	struct client_memory memory;
	struct client_lifetime lifetime;
	struct client_owner owner;
};

static int dispatch(struct world *world, unsigned int cmd, union args *args)
{
	struct gpu *gpu;

	switch (cmd) {
	case CLIENT_IOC_ADD_GPU:
		return add_gpu(world, &args->add_gpu);
	case CLIENT_IOC_STATS:
		gpu = gpu_at(world, args->stats.gpu);
		return gpu ? stats(gpu, &args->stats) : -ENOENT;
	case CLIENT_IOC_MIGRATE:
		gpu = gpu_at(world, args->migrate.gpu);
		return gpu ? migrate(gpu, &args->migrate) : -ENOENT;
	case CLIENT_IOC_EVICT:
		return evict(world, &args->evict);
	case CLIENT_IOC_ALLOC:
		return alloc_info(world, &args->alloc);
	case CLIENT_IOC_RESIDENCY:
		return residency(world, &args->residency);
	case CLIENT_IOC_PAGE:
		return page_op(world, &args->page);
	case CLIENT_IOC_INJECT:
		gpu = gpu_at(world, args->inject.gpu);
		return gpu ? inject(gpu, &args->inject) : -ENOENT;
	case CLIENT_IOC_MEMORY:
		return memory_op(world, &args->memory);
	case CLIENT_IOC_LIFETIME:
		return lifetime_op(world, &args->lifetime);
	case CLIENT_IOC_OWNER:
		return owner_op(world, &args->owner);
	}
	return -ENOTTY;
}

static long client_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *user = (void __user *)arg;
	union args args;
	int ret;

	if (_IOC_SIZE(cmd) > sizeof(args))
		return -ENOTTY;
	if (copy_from_user(&args, user, _IOC_SIZE(cmd)))
		return -EFAULT;
	ret = dispatch(file->private_data, cmd, &args);
	if (!ret && copy_to_user(user, &args, _IOC_SIZE(cmd)))
		ret = -EFAULT;
	return ret;
}

/* --- Worlds ---------------------------------------------------------------- */

static struct world *world_new(void)
{
	struct world *world = kzalloc_obj(*world);

	if (!world)
		return NULL;
	mutex_init(&world->lock);
	spin_lock_init(&world->held_lock);
	INIT_LIST_HEAD(&world->allocs);
	INIT_LIST_HEAD(&world->held);
	INIT_LIST_HEAD(&world->hogs);
	mutex_init(&world->owners.lock);
	INIT_LIST_HEAD(&world->owners.peers);
	return world;
}

static bool world_empty(struct world *world)
{
	if (atomic_read(&world->pending))
		return false;
	for (int i = 0; i < CLIENT_MAX_GPUS; i++)
		if (world->gpus[i] && !gpu_empty(world->gpus[i]))
			return false;
	return true;
}

/* Brings everything home; false if that can't be done. */
static bool world_clear(struct world *world)
{
	unsigned long end = jiffies + msecs_to_jiffies(CLOSE_MS);
	struct alloc *alloc;

	for (int i = 0; i < CLIENT_MAX_GPUS; i++) {
		if (!world->gpus[i])
			continue;
		world->gpus[i]->bad_pfn = -1ul;
		for (int hook = 0; hook < CLIENT_NR_HOOKS; hook++)
			atomic_set(&world->gpus[i]->hooks[hook].times, 0);
		dma_fail(world->gpus[i], 0, 0);
	}
	pages_fini(world);
	memory_restore(world);
	owners_fini(world);
	for (int i = 0; i < CLIENT_MAX_GPUS; i++)
		if (world->gpus[i])
			gpu_put_pagemaps(world->gpus[i]);

	list_for_each_entry(alloc, &world->allocs, link)
		if (alloc->kept)
			alloc_put(alloc);
	for (;;) {
		list_for_each_entry(alloc, &world->allocs, link) {
			if (!alloc->ops.devmem_release || !alloc_get(alloc))
				continue;
			drm_pagemap_evict_to_ram(&alloc->base);
			alloc_put(alloc);
		}
		/* Cached pagemaps go with the device. */
		for (int i = 0; i < CLIENT_MAX_GPUS; i++)
			if (world->gpus[i] && !atomic64_read(&world->gpus[i]->live))
				gpu_remove(world->gpus[i]);
		if (world_empty(world))
			return true;
		if (time_after(jiffies, end))
			return false;
		msleep(20);
	}
}

static void world_free(struct world *world)
{
	struct alloc *alloc, *next;

	if (!world_clear(world)) {
		pr_warn("drm_pagemap_client: a world could not be emptied\n");
		lost++;
		/* Those who have its memory may still call us. */
		__module_get(THIS_MODULE);
		return;
	}
	for (int i = 0; i < CLIENT_MAX_GPUS; i++)
		if (world->gpus[i])
			gpu_free(world->gpus[i]);
	list_for_each_entry_safe(alloc, next, &world->allocs, link)
		alloc_free(alloc);
	kfree(world);
}

static int client_open(struct inode *inode, struct file *file)
{
	file->private_data = world_new();
	return file->private_data ? 0 : -ENOMEM;
}

static int client_release(struct inode *inode, struct file *file)
{
	world_free(file->private_data);
	return 0;
}

static const struct file_operations client_fops = {
	.owner = THIS_MODULE,
	.open = client_open,
	.release = client_release,
	.unlocked_ioctl = client_ioctl,
};

static struct miscdevice client_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "drm_pagemap_client",
	.fops = &client_fops,
};

static int __init client_init(void)
{
	int ret;

	client_pgmap_ops = drm_pagemap_pagemap_ops_get();
	ret = probes_init();
	if (ret)
		return ret;
	ret = misc_register(&client_misc);
	if (ret)
		probes_exit();
	return ret;
}

static void __exit client_exit(void)
{
	misc_deregister(&client_misc);
	if (init_at_exit) {
		struct world *world = world_new();
		struct gpu *gpu = world ? gpu_new(world, 0, 0, 512) : NULL;

		/* Either answer is fine: what counts is the module's reference count. */
		if (!IS_ERR_OR_NULL(gpu))
			world->gpus[0] = gpu;
		if (world)
			world_free(world);
		/* The provider gives back its references in a work item. */
		msleep(200);
	}
	probes_exit();
}

module_init(client_init);
module_exit(client_exit);
MODULE_DESCRIPTION("Test client of drm_pagemap, in C");
MODULE_LICENSE("Dual MIT/GPL");
