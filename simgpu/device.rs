// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The DRM device.

use crate::{
    clients::Clients,
    file::File,
    ioctl,
    pagemap::SimgpuPagemap,
    svm::Svm, //
};
use drm_pagemap::Pagemap;
use kernel::{
    device::DeviceContext,
    drm::{
        self,
        gem,
        ioctl::DrmIoctlDescriptor, //
    },
    pci,
    prelude::*,
    sync::Arc, //
};

/// The DRM driver.
pub(crate) struct SimgpuDrm;

/// The DRM device.
pub(crate) type SimgpuDevice<Ctx = drm::Normal> = drm::Device<SimgpuDrm, Ctx>;

/// What ioctls work on, for as long as the device is registered.
pub(crate) struct RegistrationData {
    pub(crate) pagemap: Arc<Pagemap<SimgpuPagemap>>,
    pub(crate) svm: Arc<Svm>,
}

#[vtable]
impl drm::Driver for SimgpuDrm {
    type Data = Arc<Clients>;
    type RegistrationData<'a> = RegistrationData;
    type File = File;
    type Object = gem::Object<Object>;
    type ParentDevice<Ctx: DeviceContext> = pci::Device<Ctx>;

    const INFO: drm::DriverInfo = drm::DriverInfo {
        major: 0,
        minor: 2,
        patchlevel: 0,
        name: c"simgpu",
        desc: c"Emulated GPU that shares a process's address space",
    };
    const IOCTLS: &'static [DrmIoctlDescriptor] = ioctl::TABLE;
    const FEAT_RENDER: bool = true;
}

/// A buffer object. The driver has none, but DRM's abstraction wants a type for them.
#[pin_data]
pub(crate) struct Object {}

impl gem::DriverObject for Object {
    type Driver = SimgpuDrm;
    type Args = ();

    fn new(_device: &SimgpuDevice, _size: usize, _args: ()) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {})
    }
}
