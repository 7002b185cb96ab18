// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The exported symbols. The C ones are defined in abi.rs, which compares them
 * with the prototypes of the header; the licence class of each is the one that
 * C's drm_pagemap.c gives it. The Rust ones, for Rust drivers, are all that the
 * crate defines, listed by Kbuild.
 */

#include <linux/export.h>

#include <drm/drm_pagemap.h>

EXPORT_SYMBOL_GPL(drm_pagemap_migrate_to_devmem);
EXPORT_SYMBOL_GPL(drm_pagemap_evict_to_ram);
EXPORT_SYMBOL(drm_pagemap_reinit);
EXPORT_SYMBOL(drm_pagemap_init);
EXPORT_SYMBOL(drm_pagemap_put);
EXPORT_SYMBOL_GPL(drm_pagemap_pagemap_ops_get);
EXPORT_SYMBOL_GPL(drm_pagemap_devmem_init);
EXPORT_SYMBOL_GPL(drm_pagemap_page_to_dpagemap);
EXPORT_SYMBOL(drm_pagemap_populate_mm);

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "exports_rust_generated.h"
