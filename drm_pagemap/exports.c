// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The exported symbols. The C ones are defined in abi.rs, which compares them
 * with the prototypes of the headers; the licence class of each is the one that
 * C's drm_pagemap.c and drm_pagemap_util.c give it. What those two have only for
 * each other is not exported here either: drm_pagemap_destroy,
 * drm_pagemap_shrinker_add and drm_pagemap_shrinker_might_lock. The Rust ones,
 * for Rust drivers, are all that the crate defines, listed by Kbuild.
 */

#include <linux/export.h>

#include <drm/drm_pagemap.h>
#include <drm/drm_pagemap_util.h>

EXPORT_SYMBOL_GPL(drm_pagemap_migrate_to_devmem);
EXPORT_SYMBOL_GPL(drm_pagemap_evict_to_ram);
EXPORT_SYMBOL(drm_pagemap_reinit);
EXPORT_SYMBOL(drm_pagemap_init);
EXPORT_SYMBOL(drm_pagemap_put);
EXPORT_SYMBOL_GPL(drm_pagemap_pagemap_ops_get);
EXPORT_SYMBOL_GPL(drm_pagemap_devmem_init);
EXPORT_SYMBOL_GPL(drm_pagemap_page_to_dpagemap);
EXPORT_SYMBOL(drm_pagemap_populate_mm);

EXPORT_SYMBOL(drm_pagemap_cache_create_devm);
EXPORT_SYMBOL(drm_pagemap_cache_lock_lookup);
EXPORT_SYMBOL(drm_pagemap_cache_unlock_lookup);
EXPORT_SYMBOL(drm_pagemap_get_from_cache);
EXPORT_SYMBOL(drm_pagemap_cache_set_pagemap);
EXPORT_SYMBOL(drm_pagemap_get_from_cache_if_active);
EXPORT_SYMBOL(drm_pagemap_shrinker_create_devm);
EXPORT_SYMBOL(drm_pagemap_release_owner);
EXPORT_SYMBOL(drm_pagemap_acquire_owner);

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "exports_rust_generated.h"
