/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Input for bindgen: the headers that the kernel's own bindings leave out.
 * Kbuild lists the items wanted; types that kernel::bindings has stay its own.
 */
#include <linux/completion.h>
#include <linux/hmm.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mmu_notifier.h>
#include <linux/rmap.h>
#include <linux/dma-mapping.h>
#include <linux/shrinker.h>
#include <linux/workqueue.h>

#include <drm/drm_drv.h>
#include <drm/drm_pagemap.h>
#include <drm/drm_pagemap_util.h>

#include "helpers.h"
#include "peek.h"
#include "params.h"
#include "trace.h"

/* Macros that bindgen can't evaluate. */
static const gfp_t RUST_CONST_HELPER_GFP_RAM_FOLIO = GFP_HIGHUSER_MOVABLE;
static const gfp_t RUST_CONST_HELPER_GFP_RAM_FOLIO_LARGE = GFP_TRANSHUGE_LIGHT;
static const unsigned long RUST_CONST_HELPER_FOLIO_ANON_FLAG = FOLIO_MAPPING_ANON;
static const unsigned long RUST_CONST_HELPER_FOLIO_FLAGS_MASK = FOLIO_MAPPING_FLAGS;
static const unsigned long RUST_CONST_HELPER_MIGRATE_VALID = MIGRATE_PFN_VALID;
static const unsigned long RUST_CONST_HELPER_MIGRATE_MIGRATE = MIGRATE_PFN_MIGRATE;
static const unsigned long RUST_CONST_HELPER_MIGRATE_WRITE = MIGRATE_PFN_WRITE;
static const unsigned long RUST_CONST_HELPER_MIGRATE_COMPOUND = MIGRATE_PFN_COMPOUND;
static const unsigned long RUST_CONST_HELPER_ZDD_FLAG_MIGRATED = DRM_PAGEMAP_ZDD_FLAG_MIGRATED;
#ifdef ZONES_PGSHIFT
static const unsigned long RUST_CONST_HELPER_PAGE_ZONE_SHIFT = ZONES_PGSHIFT;
static const unsigned long RUST_CONST_HELPER_PAGE_ZONE_MASK = ZONES_MASK;
#endif
