// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The kernel's coarse clock.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use crate::bindings;

/// Jiffies since shortly before the boot; `get_jiffies_64()`. It never wraps around.
pub(crate) fn now() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::drm_pagemap_helper_get_jiffies_64() }
}
