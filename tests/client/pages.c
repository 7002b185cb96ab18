// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Where pages are, and references on them that are not the page tables'.
 */

#include <linux/hmm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "driver.h"

/* --- Looking --------------------------------------------------------------- */

static bool no_invalidation(struct mmu_interval_notifier *notifier,
			    const struct mmu_notifier_range *range, unsigned long seq)
{
	mmu_interval_set_seq(notifier, seq);
	return true;
}

static const struct mmu_interval_notifier_ops look_ops = {
	.invalidate = no_invalidation,
};

/* What is mapped from @start on, device pages of @owner included, faulting nothing in. */
static int look(void *owner, unsigned long start, unsigned long npages, unsigned long *pfns)
{
	struct mmu_interval_notifier notifier;
	struct hmm_range range = {
		.notifier = &notifier,
		.start = start,
		.end = start + (npages << PAGE_SHIFT),
		.hmm_pfns = pfns,
		.dev_private_owner = owner,
	};
	int ret = mmu_interval_notifier_insert(&notifier, current->mm, start,
					       npages << PAGE_SHIFT, &look_ops);

	if (ret)
		return ret;
	do {
		range.notifier_seq = mmu_interval_read_begin(&notifier);
		mmap_read_lock(current->mm);
		ret = hmm_range_fault(&range);
		mmap_read_unlock(current->mm);
	} while (ret == -EBUSY);
	mmu_interval_notifier_remove(&notifier);
	return ret;
}

int residency(struct world *world, const struct client_residency *args)
{
	unsigned long npages = (args->end - args->start) >> PAGE_SHIFT;
	unsigned long *pfns;
	u16 *states;
	int ret = 0;

	if (!npages || npages > 1 << 16)
		return -EINVAL;
	pfns = kvcalloc(npages, sizeof(*pfns), GFP_KERNEL);
	states = kvcalloc(npages, sizeof(*states), GFP_KERNEL);
	if (!pfns || !states)
		ret = -ENOMEM;

	/* A GPU's pages show up only to their owner. */
	for (int i = -1; i < CLIENT_MAX_GPUS && !ret; i++) {
		struct gpu *gpu = i < 0 ? NULL : world->gpus[i];

		if (i >= 0 && !gpu)
			continue;
		memset(pfns, 0, npages * sizeof(*pfns));
		ret = look(gpu ? gpu->pgmap.owner : NULL, args->start, npages, pfns);
		for (unsigned long n = 0; n < npages && !ret; n++) {
			struct page *page;

			if (!(pfns[n] & HMM_PFN_VALID))
				continue;
			page = hmm_pfn_to_page(pfns[n]);
			if (gpu && gpu_of(page) != gpu)
				continue;
			states[n] = gpu ? CLIENT_GPU(i) : CLIENT_RAM;
			states[n] |= hmm_pfn_to_map_order(pfns[n]) << 8;
		}
	}
	if (!ret && copy_to_user(u64_to_user_ptr(args->states), states, npages * sizeof(*states)))
		ret = -EFAULT;
	kvfree(states);
	kvfree(pfns);
	return ret;
}

/* The page at @addr, of whichever GPU or of none, with a reference; or NULL. */
static struct page *page_at(struct world *world, unsigned long addr)
{
	for (int i = -1; i < CLIENT_MAX_GPUS; i++) {
		struct gpu *gpu = i < 0 ? NULL : world->gpus[i];
		unsigned long pfn = 0, nr;
		struct page *page;

		if (i >= 0 && !gpu)
			continue;
		if (look(gpu ? gpu->pgmap.owner : NULL, addr & PAGE_MASK, 1, &pfn))
			return NULL;
		if (!(pfn & HMM_PFN_VALID))
			continue;
		page = hmm_pfn_to_page(pfn);
		/* For the middle of a huge device page, hmm gives the first one in it. */
		nr = 1ul << hmm_pfn_to_map_order(pfn);
		page = pfn_to_page((page_to_pfn(page) & ~(nr - 1)) + ((addr >> PAGE_SHIFT) & (nr - 1)));
		/* The test has nobody else at this page right now. */
		get_page(page);
		return page;
	}
	return NULL;
}

/* --- References ------------------------------------------------------------ */

struct drop {
	struct delayed_work work;
	struct world *world;
	struct page *page;
};

static void drop_later(struct work_struct *work)
{
	struct drop *drop = container_of(to_delayed_work(work), struct drop, work);
	struct world *world = drop->world;

	put_page(drop->page);
	kfree(drop);
	/* The last touch of the world. */
	atomic_dec(&world->pending);
}

static void keep(struct world *world, struct held *held, struct page *page)
{
	held->page = page;
	spin_lock(&world->held_lock);
	list_add(&held->link, &world->held);
	spin_unlock(&world->held_lock);
}

static int hold(struct world *world, struct page *page, u64 ms)
{
	if (ms) {
		struct drop *drop = kzalloc_obj(*drop);

		if (!drop)
			return -ENOMEM;
		drop->world = world;
		drop->page = page;
		get_page(page);
		atomic_inc(&world->pending);
		INIT_DELAYED_WORK(&drop->work, drop_later);
		schedule_delayed_work(&drop->work, msecs_to_jiffies(ms));
	} else {
		struct held *held = kzalloc_obj(*held);

		if (!held)
			return -ENOMEM;
		get_page(page);
		keep(world, held, page);
	}
	return 0;
}

void pages_release(struct world *world)
{
	struct held *held;

	for (;;) {
		spin_lock(&world->held_lock);
		held = list_first_entry_or_null(&world->held, struct held, link);
		if (held)
			list_del(&held->link);
		spin_unlock(&world->held_lock);
		if (!held)
			return;
		put_page(held->page);
		kfree(held);
	}
}

/* --- A reference in the middle of a migration ------------------------------ */

static void notifier_end(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct world *world = container_of(notifier, struct world, notifier);
	struct page *page;
	struct held *held;

	if (range->event != MMU_NOTIFY_MIGRATE || atomic_dec_if_positive(&world->notifier_nth))
		return;
	page = xchg(&world->notifier_page, NULL);
	held = page ? kzalloc_obj(*held, GFP_ATOMIC) : NULL;
	if (!held)
		return;
	/* Still the source of the migration that called, so somebody has a reference. */
	get_page(page);
	keep(world, held, page);
}

static const struct mmu_notifier_ops notifier_ops = {
	.invalidate_range_end = notifier_end,
};

static int hold_at_notifier(struct world *world, struct page *page, u64 nth)
{
	int ret = 0;

	WRITE_ONCE(world->notifier_page, page);
	atomic_set(&world->notifier_nth, nth);
	if (!world->has_notifier) {
		world->notifier.ops = &notifier_ops;
		ret = mmu_notifier_register(&world->notifier, current->mm);
		if (!ret) {
			world->has_notifier = true;
			mmgrab(world->notifier.mm);
		}
	}
	return ret;
}

void pages_fini(struct world *world)
{
	if (world->has_notifier) {
		struct mm_struct *mm = world->notifier.mm;

		mmu_notifier_unregister(&world->notifier, mm);
		mmdrop(mm);
		world->has_notifier = false;
	}
	pages_release(world);
}

/* --- The ioctl ------------------------------------------------------------- */

/* As a GPU that writes: the bytes in VRAM change, and no CPU sees it happen. */
static int invert(struct world *world, u64 addr, u64 len)
{
	int there = 0;

	for (u64 at = addr; at < addr + len; at += PAGE_SIZE) {
		struct page *page = page_at(world, at);
		struct gpu *gpu = page ? gpu_of(page) : NULL;

		if (gpu) {
			u8 *bytes = gpu->vram + ((page_to_pfn(page) - gpu_pfn(gpu)) << PAGE_SHIFT);

			for (int i = 0; i < PAGE_SIZE; i++)
				bytes[i] = ~bytes[i];
			there++;
		}
		if (page)
			put_page(page);
	}
	return there;
}

int page_op(struct world *world, struct client_page *args)
{
	struct page *page;
	struct gpu *gpu;
	int ret = 0;

	if (args->verb == CLIENT_PAGE_RELEASE) {
		pages_release(world);
		return 0;
	}
	if (args->verb == CLIENT_PAGE_INVERT) {
		args->result = invert(world, args->addr, args->arg);
		return 0;
	}

	page = page_at(world, args->addr);
	if (!page)
		return -ENOENT;
	gpu = gpu_of(page);
	switch (args->verb) {
	case CLIENT_PAGE_HOLD:
		ret = hold(world, page, args->arg);
		break;
	case CLIENT_PAGE_TO_DPAGEMAP:
		if (gpu)
			args->result = pagemap_of(drm_pagemap_page_to_dpagemap(page))->gpu->index;
		else
			ret = -ENODEV;
		break;
	case CLIENT_PAGE_BAD:
		if (gpu)
			gpu->bad_pfn = page_to_pfn(page);
		else
			ret = -ENODEV;
		break;
	case CLIENT_PAGE_HOLD_AT_NOTIFIER:
		ret = hold_at_notifier(world, page, args->arg);
		break;
	default:
		ret = -EINVAL;
	}
	put_page(page);
	return ret;
}
