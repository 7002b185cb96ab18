// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The module's parameters, which are the policy for the pagemaps of C drivers.
//!
//! They are defined in `params.c`: those of Rust's `module!` can't be changed once the module is
//! loaded, and can't be words.

use super::{
    FaultWindow,
    Policy, //
};
use crate::bindings;

/// What they say now.
pub(super) fn policy() -> Policy {
    // SAFETY: No requirements.
    let window = match unsafe { bindings::drm_pagemap_param_fault_window() } {
        bindings::drm_pagemap_fault_window_DRM_PAGEMAP_WINDOW_PAGE => FaultWindow::Page,
        bindings::drm_pagemap_fault_window_DRM_PAGEMAP_WINDOW_ADAPTIVE => FaultWindow::Adaptive,
        _ => FaultWindow::Allocation,
    };

    Policy::new().with_window(window)
}
