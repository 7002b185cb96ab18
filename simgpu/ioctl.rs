// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The ioctls: what user space says is checked here.

use crate::{
    device::{
        RegistrationData,
        SimgpuDevice, //
    },
    evict::evict_range,
    file::File,
    populate::populate,
    range,
    residency::residency,
    uapi::{
        self,
        drm_simgpu_advise,
        drm_simgpu_counters,
        drm_simgpu_evict,
        drm_simgpu_info,
        drm_simgpu_inject,
        drm_simgpu_populate,
        drm_simgpu_prefetch,
        drm_simgpu_residency,
        drm_simgpu_submit,
        drm_simgpu_vm_create,
        drm_simgpu_vm_destroy,
        drm_simgpu_vram_op,
        drm_simgpu_wait, //
    },
    vram_op::{
        self,
        VramOp, //
    }, //
};
use drm_pagemap::queue;
use kernel::{
    drm::{
        self,
        ioctl::{
            internal,
            DrmIoctlDescriptor,
            IOW,
            IOWR,
            RENDER_ALLOW,
            ROOT_ONLY, //
        },
    },
    mm::MmWithUser,
    prelude::*,
    str::as_char_ptr_in_const_context, //
};

/// The longest time slice, in milliseconds.
pub(crate) const MAX_TIMESLICE_MS: u32 = 10000;

/// Who calls an ioctl, and for what.
pub(crate) struct Call<'a> {
    pub(crate) data: &'a RegistrationData,
    /// The caller's address space.
    pub(crate) mm: &'a MmWithUser,
    pub(crate) file: &'a File,
}

/// The bits of `what` that say how to misbehave; the others say who.
const KIND_MASK: u32 = 0xff;

/// The last queue, of those.
const LAST_QUEUE: u32 = uapi::SIMGPU_INJECT_QUEUE0 + 3 * uapi::SIMGPU_INJECT_MMU;

/// An ioctl, by the structure that it takes. That is made of integers, without holes between them.
pub(crate) trait Ioctl: FromBytes + IntoBytes {
    /// Its number.
    const COMMAND: u32;
    /// Its name, for DRM's debug messages.
    const NAME: &'static CStr;
    /// Who may call it.
    const FLAGS: u32 = RENDER_ALLOW;

    /// Carries it out.
    fn run(&mut self, call: &Call<'_>) -> Result;

    /// Waits for what it is about, after [`run`](Self::run). Meanwhile the device may be unplugged,
    /// which does not wait for this.
    fn wait(&mut self, _file: &File) -> Result {
        Ok(())
    }
}

/// The ioctls in the order of their numbers, from `DRM_COMMAND_BASE` on.
pub(crate) const TABLE: &[DrmIoctlDescriptor] = &[
    descriptor::<drm_simgpu_info>(),
    descriptor::<drm_simgpu_populate>(),
    descriptor::<drm_simgpu_evict>(),
    descriptor::<drm_simgpu_vram_op>(),
    descriptor::<drm_simgpu_residency>(),
    descriptor::<drm_simgpu_inject>(),
    descriptor::<drm_simgpu_vm_create>(),
    descriptor::<drm_simgpu_vm_destroy>(),
    descriptor::<drm_simgpu_submit>(),
    descriptor::<drm_simgpu_wait>(),
    descriptor::<drm_simgpu_advise>(),
    descriptor::<drm_simgpu_prefetch>(),
    descriptor::<drm_simgpu_counters>(),
];

pub(crate) const fn number(nr: u32) -> u32 {
    kernel::uapi::DRM_COMMAND_BASE + nr
}

/// What DRM wants to know of an ioctl.
///
/// It is this, and not `kernel::declare_drm_ioctls!`, because that knows only user APIs that are in
/// `kernel::uapi`.
const fn descriptor<T: Ioctl>() -> DrmIoctlDescriptor {
    DrmIoctlDescriptor {
        cmd: T::COMMAND,
        flags: T::FLAGS,
        func: Some(call::<T>),
        name: as_char_ptr_in_const_context(T::NAME),
    }
}

/// Calls an ioctl for C.
///
/// # Safety
///
/// Only DRM may call it, for an ioctl `T` of a device of this driver: `device` is valid and was
/// registered; `args` is the kernel's own copy of the argument, of the size that is in the ioctl's
/// number; `file` is an open file of the device.
unsafe extern "C" fn call<T: Ioctl>(
    device: *mut internal::drm_device,
    args: *mut c_void,
    file: *mut internal::drm_file,
) -> c_int {
    const { assert!(kernel::ioctl::_IOC_SIZE(T::COMMAND) == size_of::<T>()) };

    // SAFETY: By the requirements of this function.
    let device = unsafe { SimgpuDevice::<drm::Ioctl>::from_raw(device) };
    // SAFETY: By the requirements of this function nobody else has that memory, and it is large
    // enough. DRM's buffers are aligned for any UAPI type.
    let args = unsafe { &mut *args.cast::<T>() };
    // SAFETY: By the requirements of this function.
    let file = unsafe { drm::File::<File>::from_raw(file) }.inner();

    let result = run(device, args, &file).and_then(|()| args.wait(&file));

    result.map_or_else(|err| err.to_errno(), |()| 0)
}

/// Carries an ioctl out, as long as the driver is bound to the device.
fn run<T: Ioctl>(device: &SimgpuDevice<drm::Ioctl>, args: &mut T, file: &File) -> Result {
    let device = device.registration_guard().ok_or(ENODEV)?;

    device.registration_data_with(|data| {
        data.pagemap.engine.check_alive()?;
        args.run(&Call {
            data,
            mm: kernel::current!().mm().ok_or(EINVAL)?,
            file,
        })
    })
}

/// [`EINVAL`] unless all of `fields` are 0.
pub(crate) fn must_be_zero(fields: &[u32]) -> Result {
    if fields.iter().any(|&field| field != 0) {
        return Err(EINVAL);
    }
    Ok(())
}

impl Ioctl for drm_simgpu_info {
    const COMMAND: u32 = IOWR::<Self>(number(uapi::DRM_SIMGPU_INFO));
    const NAME: &'static CStr = c"SIMGPU_INFO";

    fn run(&mut self, &Call { data, .. }: &Call<'_>) -> Result {
        must_be_zero(&[self.flags, self.pad])?;

        // So that what was freed before is free.
        queue::flush();
        self.vram_size = data.pagemap.vram.size();
        self.vram_free = data.pagemap.vram.free();
        self.populated = data.pagemap.populated();
        self.evicted = data.pagemap.evicted();
        self.faulted = data.pagemap.faulted();
        Ok(())
    }
}

impl Ioctl for drm_simgpu_populate {
    const COMMAND: u32 = IOW::<Self>(number(uapi::DRM_SIMGPU_POPULATE));
    const NAME: &'static CStr = c"SIMGPU_POPULATE";

    fn run(&mut self, &Call { data, mm, .. }: &Call<'_>) -> Result {
        must_be_zero(&[self.flags])?;
        if self.timeslice_ms > MAX_TIMESLICE_MS {
            return Err(EINVAL);
        }
        let range = range::checked(mm, self.start, self.size)?;

        populate(
            data.pagemap.as_arc_borrow(),
            mm,
            range,
            self.timeslice_ms as usize,
        )
    }
}

impl Ioctl for drm_simgpu_evict {
    const COMMAND: u32 = IOW::<Self>(number(uapi::DRM_SIMGPU_EVICT));
    const NAME: &'static CStr = c"SIMGPU_EVICT";

    fn run(&mut self, &Call { data, mm, .. }: &Call<'_>) -> Result {
        must_be_zero(&[self.flags, self.pad])?;

        evict_range(
            &data.pagemap,
            mm,
            &range::checked(mm, self.start, self.size)?,
        )
    }
}

impl Ioctl for drm_simgpu_vram_op {
    const COMMAND: u32 = IOWR::<Self>(number(uapi::DRM_SIMGPU_VRAM_OP));
    const NAME: &'static CStr = c"SIMGPU_VRAM_OP";

    fn run(&mut self, &Call { data, mm, .. }: &Call<'_>) -> Result {
        must_be_zero(&[self.flags])?;
        let op = match (self.op, self.value) {
            (uapi::SIMGPU_OP_FILL, value) => VramOp::Fill(value),
            (uapi::SIMGPU_OP_XOR, value) => VramOp::Xor(value),
            (uapi::SIMGPU_OP_CHECKSUM, 0) => VramOp::Checksum,
            _ => return Err(EINVAL),
        };
        let range = range::checked(mm, self.start, self.size)?;
        let sum = vram_op::run(&data.pagemap, mm, range, op)?;

        if op == VramOp::Checksum {
            self.value = sum;
        }
        Ok(())
    }
}

impl Ioctl for drm_simgpu_residency {
    const COMMAND: u32 = IOWR::<Self>(number(uapi::DRM_SIMGPU_RESIDENCY));
    const NAME: &'static CStr = c"SIMGPU_RESIDENCY";

    fn run(&mut self, &Call { data, mm, .. }: &Call<'_>) -> Result {
        must_be_zero(&[self.flags, self.pad])?;
        let range = range::checked(mm, self.start, self.size)?;

        self.counts = residency(&data.pagemap, mm, range, self.map_ptr)?;
        Ok(())
    }
}

impl Ioctl for drm_simgpu_inject {
    const COMMAND: u32 = IOW::<Self>(number(uapi::DRM_SIMGPU_INJECT));
    const NAME: &'static CStr = c"SIMGPU_INJECT";
    /// For those with `CAP_SYS_ADMIN`; others get [`EACCES`].
    const FLAGS: u32 = RENDER_ALLOW | ROOT_ONLY;

    fn run(&mut self, &Call { data, .. }: &Call<'_>) -> Result {
        must_be_zero(&[self.flags])?;
        let kind = self.what & KIND_MASK;
        let engine = self.what & !KIND_MASK;
        match (kind, self.delay_us) {
            (uapi::SIMGPU_INJECT_FAIL | uapi::SIMGPU_INJECT_HANG, 0) => (),
            (uapi::SIMGPU_INJECT_DELAY, _) => (),
            _ => return Err(EINVAL),
        }

        // The device's kinds have the same numbers.
        let compute = &data.svm.compute;
        match engine {
            0 => data.pagemap.engine.inject(kind, self.count, self.delay_us),
            uapi::SIMGPU_INJECT_MMU => compute.mmu.inject(kind, self.count, self.delay_us),
            uapi::SIMGPU_INJECT_QUEUE0..=LAST_QUEUE => compute
                .queue(
                    1 + ((engine - uapi::SIMGPU_INJECT_QUEUE0) / uapi::SIMGPU_INJECT_MMU) as usize,
                )
                .ok_or(EINVAL)?
                .inject(kind, self.count, self.delay_us),
            uapi::SIMGPU_INJECT_IRQ if kind == uapi::SIMGPU_INJECT_DELAY => {
                let delay_us = if self.count > 0 { self.delay_us } else { 0 };

                data.pagemap.engine.delay_clearing(delay_us)
            }
            _ => Err(EINVAL),
        }
    }
}
