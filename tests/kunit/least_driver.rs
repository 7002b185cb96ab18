// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The least that a DRM driver is made of, for a device with memory and nothing else: for these
//! suites, and for the other test modules, which have it as a file of theirs. Their crate says
//! `DRM_INFO`.

use crate::DRM_INFO;
use kernel::{
    device,
    drm::{
        self,
        gem, //
    },
    faux,
    prelude::*, //
};

#[pin_data]
pub(crate) struct DriverData {}
pub(crate) struct Driver;
pub(crate) struct File;
#[pin_data]
pub(crate) struct Object {}

impl drm::file::DriverFile for File {
    type Driver = Driver;

    fn open(_dev: &drm::Device<Driver>) -> Result<core::pin::Pin<KBox<Self>>> {
        Ok(KBox::new(Self, GFP_KERNEL)?.into())
    }
}

impl gem::DriverObject for Object {
    type Driver = Driver;
    type Args = ();

    fn new(_dev: &drm::Device<Driver>, _size: usize, _args: ()) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {})
    }
}

#[vtable]
impl drm::Driver for Driver {
    type Data = DriverData;
    type RegistrationData<'a> = ();
    type File = File;
    type Object = gem::Object<Object>;
    type ParentDevice<Ctx: device::DeviceContext> = faux::Device<Ctx>;

    const INFO: drm::DriverInfo = DRM_INFO;
    const IOCTLS: &'static [drm::ioctl::DrmIoctlDescriptor] = &[];
}
