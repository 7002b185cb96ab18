// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Sizes, alignments and offsets of the C structs that Rust uses in place, as
 * the compiler that builds the kernel sees them. Not linked: Kbuild reads the
 * numbers from the assembly, and layout.rs, which lists the same structs and
 * fields, compares them with Rust's.
 */

#include <linux/kbuild.h>

#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/shrinker.h>

#include <drm/drm_pagemap.h>
#include <drm/drm_pagemap_util.h>

#define STRUCT(type)						\
do {								\
	DEFINE(type##__SIZE, sizeof(struct type));		\
	DEFINE(type##__ALIGN, __alignof__(struct type));	\
} while (0)
#define FIELD(type, field) DEFINE(type##__##field, offsetof(struct type, field))

static void __used layout(void)
{
	STRUCT(drm_pagemap);
	FIELD(drm_pagemap, ops);
	FIELD(drm_pagemap, ref);
	FIELD(drm_pagemap, drm);
	FIELD(drm_pagemap, pagemap);
	FIELD(drm_pagemap, dev_hold);
	FIELD(drm_pagemap, cache);
	FIELD(drm_pagemap, shrink_link);

	STRUCT(drm_pagemap_ops);
	FIELD(drm_pagemap_ops, device_map);
	FIELD(drm_pagemap_ops, device_unmap);
	FIELD(drm_pagemap_ops, populate_mm);
	FIELD(drm_pagemap_ops, destroy);

	STRUCT(drm_pagemap_devmem);
	FIELD(drm_pagemap_devmem, dev);
	FIELD(drm_pagemap_devmem, mm);
	FIELD(drm_pagemap_devmem, detached);
	FIELD(drm_pagemap_devmem, ops);
	FIELD(drm_pagemap_devmem, dpagemap);
	FIELD(drm_pagemap_devmem, size);
	FIELD(drm_pagemap_devmem, timeslice_expiration);
	FIELD(drm_pagemap_devmem, pre_migrate_fence);

	STRUCT(drm_pagemap_devmem_ops);
	FIELD(drm_pagemap_devmem_ops, devmem_release);
	FIELD(drm_pagemap_devmem_ops, populate_devmem_pfn);
	FIELD(drm_pagemap_devmem_ops, copy_to_devmem);
	FIELD(drm_pagemap_devmem_ops, copy_to_ram);

	/* The rest of these two are bit-fields. */
	STRUCT(drm_pagemap_addr);
	FIELD(drm_pagemap_addr, addr);
	STRUCT(drm_pagemap_migrate_details);
	FIELD(drm_pagemap_migrate_details, timeslice_ms);

	STRUCT(drm_pagemap_peer);
	FIELD(drm_pagemap_peer, list);
	FIELD(drm_pagemap_peer, link);
	FIELD(drm_pagemap_peer, owner);
	FIELD(drm_pagemap_peer, private);

	STRUCT(drm_pagemap_owner_list);
	FIELD(drm_pagemap_owner_list, lock);
	FIELD(drm_pagemap_owner_list, peers);

	STRUCT(migrate_vma);
	FIELD(migrate_vma, vma);
	FIELD(migrate_vma, dst);
	FIELD(migrate_vma, src);
	FIELD(migrate_vma, cpages);
	FIELD(migrate_vma, npages);
	FIELD(migrate_vma, start);
	FIELD(migrate_vma, end);
	FIELD(migrate_vma, pgmap_owner);
	FIELD(migrate_vma, flags);
	FIELD(migrate_vma, fault_page);

	STRUCT(dev_pagemap);
	FIELD(dev_pagemap, type);
	FIELD(dev_pagemap, ops);
	FIELD(dev_pagemap, owner);
	FIELD(dev_pagemap, nr_range);
	FIELD(dev_pagemap, ranges);

	STRUCT(shrinker);
	FIELD(shrinker, count_objects);
	FIELD(shrinker, scan_objects);
	FIELD(shrinker, private_data);

	STRUCT(shrink_control);
	FIELD(shrink_control, nr_to_scan);
	FIELD(shrink_control, nr_scanned);
}
