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
/// `dev` is a valid device. The entries of `addrs` at the indices in `mapped` came from
/// [`DrmPagemap::op_device_map`] for it, and have not been unmapped.
pub(crate) struct PeerMapping<'a> {
    dpagemap: &'a DrmPagemap,
    dev: NonNull<bindings::device>,
    addrs: &'a mut [DeviceAddr],
    mapped: KVVec<u32>,
}

impl<'a> PeerMapping<'a> {
    /// Nothing mapped yet, of a range of `dpagemap`'s memory with an entry in `addrs` for each of
    /// its pages, for the device that `user`'s memory is of.
    pub(crate) fn new(
        dpagemap: &'a DrmPagemap,
        user: &'a DrmPagemap,
        addrs: &'a mut [DeviceAddr],
    ) -> Self {
        addrs.fill(DeviceAddr::ABSENT);
        // INVARIANT: The device is valid as long as its pagemap is borrowed; nothing is mapped.
        Self {
            dpagemap,
            dev: user.parent(),
            addrs,
            mapped: KVVec::new(),
        }
    }

    /// Maps `folio`, the device reading or writing it as `dir` says, as the pages from `index` on.
    /// May sleep.
    ///
    /// [`EINVAL`]: it reaches out of the range. [`ENOMEM`]; [`EFAULT`]: it can't be mapped.
    pub(crate) fn map(&mut self, index: usize, folio: &Folio, dir: DmaDirection) -> Result {
        let nr_pages = folio.nr_pages();

        if index.checked_add(nr_pages).ok_or(EINVAL)? > self.addrs.len() {
            return Err(EINVAL);
        }
        self.mapped.reserve(1, GFP_KERNEL)?;
        // SAFETY: By the type invariant the device is valid.
        self.addrs[index] = unsafe { self.dpagemap.op_device_map(self.dev, folio, dir) }?;
        // INVARIANT: Mapped just now.
        self.mapped.push(index.try_into()?, GFP_KERNEL)?;
        Ok(())
    }

    /// The addresses, one entry a page.
    pub(crate) fn addrs(&mut self) -> &mut [DeviceAddr] {
        self.addrs
    }
}

impl Drop for PeerMapping<'_> {
    fn drop(&mut self) {
        for &index in &self.mapped {
            // SAFETY: By the type invariant this undoes one mapping, once.
            unsafe {
                self.dpagemap
                    .op_device_unmap(self.dev, &self.addrs[index as usize])
            };
        }
        self.addrs.fill(DeviceAddr::ABSENT);
    }
}
