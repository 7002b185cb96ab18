// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The copy engine of a device that is none: the CPU. All of this module's `unsafe` that has to do
//! with memory.

use drm_pagemap::CopyRun;
use kernel::{
    device,
    dma::DmaAddress,
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef, //
};

extern "C" {
    fn hmm_dmirror_helper_dma_init(dev: *mut c_void) -> c_int;
    fn hmm_dmirror_helper_dma_to_virt(dev: *mut c_void, addr: DmaAddress) -> *mut u8;
    fn hmm_dmirror_helper_copy_page(to: *mut u8, from: *const u8);
}

/// Copies a page, in the way that the processor is best at, which a copy of so many bytes need not
/// be: where it is emulated it is several times slower.
///
/// # Safety
///
/// Both must be a page, the one good for writes and the other for reads, and not the same.
unsafe fn copy_page_raw(to: *mut u8, from: *const u8) {
    // SAFETY: As promised by the caller.
    unsafe { hmm_dmirror_helper_copy_page(to, from) }
}

/// Copies the bytes of a page. [`EINVAL`]: these are not as many, or not where a page begins.
pub(crate) fn copy_page(to: &mut [u8], from: &[u8]) -> Result {
    let is_page =
        |bytes: &[u8]| bytes.len() == PAGE_SIZE && bytes.as_ptr().align_offset(PAGE_SIZE) == 0;

    if !is_page(to) || !is_page(from) {
        return Err(EINVAL);
    }
    // SAFETY: Just checked; references of which one is exclusive are not to the same memory.
    unsafe { copy_page_raw(to.as_mut_ptr(), from.as_ptr()) };
    Ok(())
}

/// A device for which RAM is mapped.
pub(crate) struct DmaDevice(ARef<device::Device>);

impl DmaDevice {
    /// Lets `dev`, which is bound to this module, reach all of RAM.
    pub(crate) fn new(dev: &device::Device<device::Bound>) -> Result<Self> {
        let dev: &device::Device = dev;
        let this = Self(dev.into());

        // SAFETY: A valid device.
        to_result(unsafe { hmm_dmirror_helper_dma_init(this.raw()) })?;
        Ok(this)
    }

    fn raw(&self) -> *mut c_void {
        // `Device::as_raw` is private to the kernel crate; the type is transparent.
        core::ptr::from_ref::<device::Device>(&self.0)
            .cast_mut()
            .cast()
    }

    fn ram(&self, run: &CopyRun, skip: u64) -> *mut u8 {
        // SAFETY: A valid device. Arithmetic: the address is not followed.
        unsafe { hmm_dmirror_helper_dma_to_virt(self.raw(), run.addr.unwrap_or(0) + skip) }
    }

    /// Fills `vram`, a page, with the bytes of `run` from `skip` on; zeroes if it has no source.
    /// `run` is what the pagemap has asked for just now.
    pub(crate) fn copy_in(&self, run: &CopyRun, skip: u64, vram: &mut [u8; PAGE_SIZE]) {
        if run.addr.is_none() {
            return vram.fill(0);
        }
        // SAFETY: The pagemap has mapped the run for the device to read, until its copy is done.
        // Both are pages, as the caller sees to.
        unsafe { copy_page_raw(vram.as_mut_ptr(), self.ram(run, skip)) };
    }

    /// Writes `vram` to the bytes of `run` from `skip` on; see [`copy_in`](Self::copy_in).
    pub(crate) fn copy_out(&self, run: &CopyRun, skip: u64, vram: &[u8; PAGE_SIZE]) {
        // SAFETY: As above, mapped for the device to write.
        unsafe { copy_page_raw(self.ram(run, skip), vram.as_ptr()) };
    }
}
