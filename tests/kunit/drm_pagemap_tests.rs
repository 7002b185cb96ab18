// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! KUnit suites for drm_pagemap, against a mock GPU whose memory is a buffer in RAM.
//!
//! - [`harness`] is what a test is made of, [`user`] a process's memory, [`gpu`] and [`vram`] the mock,
//!   [`thread`] more CPUs;
//! - each other module is a suite;
//! - `c_driver.c` is a suite in C, of the C front door.
//!
//! fork() and mremap() are out of a module's reach: the system tests cover them.

mod ffi;
#[macro_use]
mod harness;
mod gpu;
mod random;
mod thread;
mod user;
mod vram;

mod concurrency;
mod copies;
mod errors;
mod evict;
mod fault;
mod gate;
mod held_pages;
mod mirrors;
mod pagemap;
mod registration;
mod timeslice;
mod to_devmem;
mod zdd;

use kernel::{
    error::to_result,
    prelude::*, //
};

struct TestModule;

impl kernel::Module for TestModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: Undone when the module goes away.
        to_result(unsafe { ffi::drm_pagemap_kunit_dma_init() })?;
        Ok(Self)
    }
}

impl Drop for TestModule {
    fn drop(&mut self) {
        // SAFETY: Done by `init`.
        unsafe { ffi::drm_pagemap_kunit_dma_exit() };
    }
}

module! {
    type: TestModule,
    name: "drm_pagemap_kunit",
    authors: ["drm_pagemap in Rust maintainers"],
    description: "KUnit suites of drm_pagemap",
    license: "Dual MIT/GPL",
}
