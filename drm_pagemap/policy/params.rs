// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The module's parameters, which are the policy for the pagemaps of C drivers.
//!
//! They are defined in `params.c`: those of Rust's `module!` can't be changed once the module is
//! loaded, and can't be words.

use super::{
    FaultWindow,
    Policy,
    SliceWait,
    Thrash, //
};
use crate::bindings;

fn window_of(window: bindings::drm_pagemap_fault_window) -> FaultWindow {
    match window {
        bindings::drm_pagemap_fault_window_DRM_PAGEMAP_WINDOW_PAGE => FaultWindow::Page,
        bindings::drm_pagemap_fault_window_DRM_PAGEMAP_WINDOW_ADAPTIVE => FaultWindow::Adaptive,
        _ => FaultWindow::Allocation,
    }
}

/// How much comes home on a CPU fault, now.
#[inline]
pub(super) fn window() -> FaultWindow {
    // SAFETY: Reads a variable.
    window_of(unsafe { bindings::drm_pagemap_read_fault_window() })
}

/// Whether fights are watched, now.
#[inline]
pub(super) fn watches() -> bool {
    // SAFETY: Reads a variable.
    unsafe { bindings::drm_pagemap_read_thrash_pin_ms() != 0 }
}

/// What they say now.
pub(super) fn policy() -> Policy {
    let mut params = bindings::drm_pagemap_params::default();

    // SAFETY: Fills in the structure.
    unsafe { bindings::drm_pagemap_read_params(&mut params) };
    Policy {
        window: window_of(params.fault_window),
        slice_wait: if params.slice_wait {
            SliceWait::Sleep
        } else {
            SliceWait::Refault
        },
        thrash: Thrash {
            bounces: params.thrash_bounces,
            window_ms: params.thrash_window_ms,
            pin_ms: params.thrash_pin_ms,
        },
    }
}
