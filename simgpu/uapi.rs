// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The user API: structures and constants that bindgen makes of
//! [`include/uapi/drm/simgpu_drm.h`](../include/uapi/drm/simgpu_drm.h).
//!
//! `kernel::uapi` has those of the kernel's own drivers only.

#![expect(non_camel_case_types)]
#![allow(dead_code, unreachable_pub)]

use kernel::{
    ffi,
    prelude::{
        FromBytes,
        IntoBytes, //
    }, //
};
use pin_init::MaybeZeroable;

include!(concat!(env!("SIMGPU_GENERATED"), "/uapi_generated.rs"));
