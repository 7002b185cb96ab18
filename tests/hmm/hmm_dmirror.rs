// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A device for the kernel's own HMM tests, `tools/testing/selftests/mm/hmm-tests.c`.
//!
//! They come with a device of their own, `lib/test_hmm.c`, which brings its own migration code
//! along. This one has the same user interface and stands on drm_pagemap: [`node`] has the ioctls,
//! [`mirror`] and [`table`] what a process's device does, [`device`] and [`vram`] its memory, which
//! is RAM that is copied by the CPU, in [`ram`].

mod device;
#[path = "../kunit/least_driver.rs"]
mod least_driver;
mod mirror;
mod node;
mod ram;
mod table;
mod uapi;
mod vram;

use crate::{
    device::Device,
    node::{
        Node,
        TABLE, //
    },
};
use kernel::{
    drm::DriverInfo,
    miscdevice::{
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*, //
};

/// The devices' driver, for DRM. They are never registered there: user space knows them by another
/// name.
const DRM_INFO: DriverInfo = DriverInfo {
    major: 0,
    minor: 0,
    patchlevel: 0,
    name: c"hmm_dmirror",
    desc: c"mirror for the kernel's HMM tests",
};

/// The registration of a [`Node`].
type Registered<const N: usize> = Pin<KBox<MiscDeviceRegistration<Node<N>>>>;

/// The nodes, and what is behind them.
struct DmirrorModule {
    // Dropped in this order.
    _nodes: (Registered<0>, Registered<1>),
    _devices: Devices,
}

/// The devices in [`TABLE`], which go with this.
struct Devices;

impl Devices {
    fn new() -> Result<Self> {
        let this = Self;

        for (number, name) in [c"hmm_dmirror.0", c"hmm_dmirror.1"].into_iter().enumerate() {
            let device = Device::new(name)?;

            TABLE.lock()[number] = Some(device);
        }
        Ok(this)
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        let devices = core::mem::take(&mut *TABLE.lock());

        // Not under the lock: this moves pages.
        drop(devices);
    }
}

fn node<const N: usize>(name: &'static CStr) -> Result<Registered<N>> {
    KBox::try_pin_init(
        MiscDeviceRegistration::register(MiscDeviceOptions { name }),
        GFP_KERNEL,
    )
}

impl kernel::Module for DmirrorModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: Called once, before anybody uses it.
        unsafe { TABLE.init() };

        let devices = Devices::new()?;
        Ok(Self {
            _nodes: (node(c"hmm_dmirror0")?, node(c"hmm_dmirror1")?),
            _devices: devices,
        })
    }
}

module! {
    type: DmirrorModule,
    name: "hmm_dmirror",
    authors: ["drm_pagemap in Rust maintainers"],
    description: "Device for the kernel's HMM tests, on drm_pagemap",
    license: "Dual MIT/GPL",
}
