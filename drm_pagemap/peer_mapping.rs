// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Device memory, made accessible for another device.
//!
//! C header: [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    dpagemap::DrmPagemap,
    mm::{
        DmaDirection,
        Folio, //
    },
};
use core::ptr::NonNull;
use kernel::prelude::*;

/// Folios of a pagemap's device memory that another device can get at, by the driver's
/// `device_map`; dropping it unmaps them, and empties the addresses.
///
/// # Invariants
///
/// `dev` is a valid device. The entries of `addrs` that are present came from
/// [`DrmPagemap::op_device_map`] for it, have not been unmapped, and are below `end`.
pub(crate) struct PeerMapping<'a> {
    dpagemap: &'a DrmPagemap,
    dev: NonNull<bindings::device>,
    addrs: &'a mut [DeviceAddr],
    end: usize,
}

impl<'a> PeerMapping<'a> {
    /// Nothing mapped yet, of a range of `dpagemap`'s memory with an entry in `addrs` for each of
    /// its pages, none of them present, for the device that `user`'s memory is of.
    pub(crate) fn new(
        dpagemap: &'a DrmPagemap,
        user: &'a DrmPagemap,
        addrs: &'a mut [DeviceAddr],
    ) -> Self {
        // INVARIANT: The device is valid as long as its pagemap is borrowed; nothing is mapped.
        Self {
            dpagemap,
            dev: user.parent(),
            addrs,
            end: 0,
        }
    }

    /// Maps `folio`, the device reading or writing it as `dir` says, as the pages from `index` on.
    /// Returns the order of its pieces. May sleep.
    ///
    /// [`EINVAL`]: it reaches out of the range. [`EFAULT`]: it can't be mapped.
    #[inline(always)]
    pub(crate) fn map(&mut self, index: usize, folio: &Folio, dir: DmaDirection) -> Result<u32> {
        let end = index.checked_add(folio.nr_pages()).ok_or(EINVAL)?;

        if end > self.addrs.len() {
            return Err(EINVAL);
        }
        // INVARIANT: Mapped just below, if at all.
        self.end = self.end.max(end);
        // SAFETY: By the type invariant the device is valid.
        let addr = unsafe { self.dpagemap.op_device_map(self.dev, folio, dir) }?;

        // What a driver must not return: its own copy would not find it.
        if !addr.is_present() || addr.order() > folio.order() {
            // SAFETY: Mapped just now.
            unsafe { self.dpagemap.op_device_unmap(self.dev, &addr) };
            return Err(EFAULT);
        }
        self.addrs[index] = addr;
        Ok(addr.order())
    }

    /// The addresses, one entry a page.
    pub(crate) fn addrs(&mut self) -> &mut [DeviceAddr] {
        self.addrs
    }
}

impl Drop for PeerMapping<'_> {
    fn drop(&mut self) {
        for index in 0..self.end {
            if !self.addrs[index].is_present() {
                continue;
            }
            // SAFETY: By the type invariant this undoes one mapping, once.
            unsafe { self.dpagemap.op_device_unmap(self.dev, &self.addrs[index]) };
            self.addrs[index] = DeviceAddr::ABSENT;
        }
    }
}
