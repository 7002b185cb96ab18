// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! KUnit suites for drm_pagemap, against a mock GPU whose memory is a buffer in RAM.
//!
//! - [`harness`] is what a test is made of, [`user`] a process's memory, [`gpu`] and [`vram`] the
//!   mock, [`thread`] more CPUs;
//! - each other module is a suite;
//! - `c_driver.c` is a suite in C, of the C front door.
//!
//! fork() and mremap() are out of a module's reach: the system tests cover them.

mod ffi;
#[macro_use]
mod harness;
mod gpu;
mod least_driver;
mod random;
mod thread;
mod user;
mod vram;

// The suites run in this order: from the small to the large.
mod mirrors;

mod gate;

mod pagemap;

mod zdd;

mod round_trip;

mod to_devmem;

mod one_page;

mod copies;

mod chunks;

mod fault;

mod window;

mod thrash;

mod evict;

mod large;

mod missing;

mod peers;

mod timeslice;

mod dma;

mod held_pages;

mod errors;

mod alloc_failures;

mod lost;

mod registration;

mod owner_list;

mod interval;

mod range_fault;

mod exclusive;

mod svm_range;

mod concurrency;

use kernel::{
    drm::DriverInfo,
    error::to_result,
    prelude::*, //
};

/// The mock GPU's driver.
const DRM_INFO: DriverInfo = DriverInfo {
    major: 0,
    minor: 0,
    patchlevel: 0,
    name: c"drm_pagemap_kunit",
    desc: c"drm_pagemap KUnit",
};

/// What watches the DMA layer, and migrations.
struct TestModule {
    _dma: Watch,
    _remap: Watch,
}

/// Something that is undone when it is dropped.
struct Watch(unsafe extern "C" fn());

impl Watch {
    /// # Safety
    ///
    /// `init` and `exit` must be sound to call, in this order.
    unsafe fn new(
        init: unsafe extern "C" fn() -> i32,
        exit: unsafe extern "C" fn(),
    ) -> Result<Self> {
        // SAFETY: Promised by the caller.
        to_result(unsafe { init() })?;
        Ok(Self(exit))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: Promised by the caller of `new`.
        unsafe { (self.0)() };
    }
}

impl kernel::Module for TestModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: They belong together, and have no requirements.
        unsafe {
            Ok(Self {
                _dma: Watch::new(
                    ffi::drm_pagemap_kunit_dma_init,
                    ffi::drm_pagemap_kunit_dma_exit,
                )?,
                _remap: Watch::new(
                    ffi::drm_pagemap_kunit_remap_init,
                    ffi::drm_pagemap_kunit_remap_exit,
                )?,
            })
        }
    }
}

module! {
    type: TestModule,
    name: "drm_pagemap_kunit",
    authors: ["drm_pagemap in Rust maintainers"],
    description: "KUnit suites of drm_pagemap",
    license: "Dual MIT/GPL",
}
