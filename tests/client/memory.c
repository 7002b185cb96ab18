// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A machine with no free 2 MiB page: all memory that such a page could be made
 * of is taken, and of each 2 MiB block one half is given back. Nobody can move
 * the other half, so the allocator can't make a whole one again.
 */

#include <linux/gfp.h>
#include <linux/slab.h>

#include "driver.h"

struct hog {
	struct list_head link;
	struct page *page;
	unsigned int order;
};

static bool take(struct world *world, gfp_t gfp, unsigned int order)
{
	struct hog *hog;
	struct page *page = alloc_pages(gfp | __GFP_NOWARN, order);

	if (!page)
		return false;
	hog = kzalloc_obj(*hog);
	if (!hog) {
		__free_pages(page, order);
		return false;
	}
	hog->page = page;
	hog->order = order;
	list_add(&hog->link, &world->hogs);
	return true;
}

/* Splits the block into 4 KiB pages and gives back the upper half of them. */
static void give_half(struct hog *hog)
{
	unsigned int nr = 1 << hog->order;

	split_page(hog->page, hog->order);
	for (unsigned int i = nr / 2; i < nr; i++)
		__free_page(hog->page + i);
	/* The rest is order-0 pages now. */
	hog->order = -1;
}

static int fragment(struct world *world)
{
	const gfp_t plain = GFP_HIGHUSER_MOVABLE | __GFP_NORETRY;
	struct hog *hog;
	bool again;

	for (;;) {
		while (take(world, plain, HPAGE_PMD_ORDER)) {
			if (signal_pending(current))
				return -EINTR;
			cond_resched();
		}
		again = false;
		list_for_each_entry(hog, &world->hogs, link)
			if (hog->order == HPAGE_PMD_ORDER) {
				give_half(hog);
				again = true;
			}
		/* Twice in a row nothing was to be had: nobody else gets any either. */
		if (!again)
			return 0;
	}
}

void memory_restore(struct world *world)
{
	struct hog *hog, *next;

	list_for_each_entry_safe(hog, next, &world->hogs, link) {
		if (hog->order == -1u)
			for (unsigned int i = 0; i < HPAGE_PMD_NR / 2; i++)
				__free_page(hog->page + i);
		else
			__free_pages(hog->page, hog->order);
		list_del(&hog->link);
		kfree(hog);
	}
}

int memory_op(struct world *world, struct client_memory *args)
{
	unsigned int nth = quiet_begin();
	int ret = 0;

	args->result = 0;
	mutex_lock(&world->lock);
	switch (args->verb) {
	case CLIENT_MEMORY_FRAGMENT:
		args->result = fragment(world);
		break;
	case CLIENT_MEMORY_RESTORE:
		memory_restore(world);
		break;
	case CLIENT_MEMORY_WATCH:
		gfp_watch(args);
		break;
	default:
		ret = -EINVAL;
	}
	mutex_unlock(&world->lock);
	quiet_end(nth);
	return ret;
}
