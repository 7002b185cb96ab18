// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Bindings for what `kernel::bindings` leaves out, made by bindgen from `bindings_helper.h`.
//!
//! Types that `kernel::bindings` has are taken from there, so they are the same types.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    improper_ctypes_definitions,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

mod generated {
    // Where the kernel's bindings have an item too (which depends on its configuration), the one
    // below wins over this import.
    pub(crate) use kernel::bindings::*;

    use kernel::{
        ffi,
        prelude::Zeroable, //
    };
    use pin_init::MaybeZeroable;

    include!(concat!(
        env!("DRM_PAGEMAP_GENERATED"),
        "/bindings_generated.rs"
    ));
}

pub(crate) use generated::*;
