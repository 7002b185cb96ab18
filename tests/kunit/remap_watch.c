// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Does something in the middle of a migration: when the page that replaces
 * another one has just been mapped, but the migration still has its references.
 * By means of a tracepoint, when a test wants it:
 * - takes a reference on the page that was replaced. Speculative references
 *   come and go like that at any time;
 * - counts the DMA mappings that there still are.
 */

#include <linux/mm.h>
#include <linux/string.h>
#include <linux/tracepoint.h>

#include <trace/events/migrate.h>

#include "helpers.h"

static struct tracepoint *tp_remap;
static bool watched;

static unsigned long wanted_addr;
static struct page *wanted_page;

static unsigned long looked_at_addr;
static struct device *looked_at_dev;
static long seen_live;

static void probe_remap(void *data, unsigned long addr, unsigned long pte,
			int order)
{
	if (addr == READ_ONCE(wanted_addr)) {
		get_page(wanted_page);
		WRITE_ONCE(wanted_addr, 0);
	}
	if (addr == READ_ONCE(looked_at_addr)) {
		WRITE_ONCE(seen_live, drm_pagemap_kunit_dma_live(looked_at_dev));
		WRITE_ONCE(looked_at_addr, 0);
	}
}

static void find_tracepoint(struct tracepoint *tp, void *data)
{
	if (!strcmp(tp->name, "remove_migration_pte"))
		tp_remap = tp;
}

/* Not an error if the kernel has no such tracepoint: tests ask. */
int drm_pagemap_kunit_remap_init(void)
{
	int ret;

	check_trace_callback_type_remove_migration_pte(probe_remap);

	for_each_kernel_tracepoint(find_tracepoint, NULL);
	if (!tp_remap)
		return 0;
	ret = tracepoint_probe_register(tp_remap, probe_remap, NULL);
	watched = !ret;
	return ret;
}

void drm_pagemap_kunit_remap_exit(void)
{
	if (!watched)
		return;
	tracepoint_probe_unregister(tp_remap, probe_remap, NULL);
	tracepoint_synchronize_unregister();
	watched = false;
}

bool drm_pagemap_kunit_remap_watched(void)
{
	return watched;
}

/* The next time that addr is mapped again, takes a reference on page. */
void drm_pagemap_kunit_get_page_on_remap(unsigned long addr, struct page *page)
{
	wanted_page = page;
	WRITE_ONCE(wanted_addr, addr);
}

/* Whether it did; if not, it won't any more. */
bool drm_pagemap_kunit_got_page_on_remap(void)
{
	return !xchg(&wanted_addr, 0);
}

/* The next time that addr is mapped again, counts the DMA mappings of dev. */
void drm_pagemap_kunit_look_on_remap(unsigned long addr, struct device *dev)
{
	looked_at_dev = dev;
	seen_live = -1;
	WRITE_ONCE(looked_at_addr, addr);
}

/* How many there were; -1: it was not mapped, and won't be looked at any more. */
long drm_pagemap_kunit_live_on_remap(void)
{
	WRITE_ONCE(looked_at_addr, 0);
	return READ_ONCE(seen_live);
}
