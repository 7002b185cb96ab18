// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Device memory, made accessible for another device.
//!
//! C header: [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    dpagemap::{
        DrmPagemap,
        PeerOps, //
    },
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
/// [`PeerOps::map`] for it, and have not been unmapped.
pub(crate) struct PeerMapping<'a> {
    ops: PeerOps<'a>,
    dev: NonNull<bindings::device>,
    addrs: &'a mut [DeviceAddr],
}

impl<'a> PeerMapping<'a> {
    /// Nothing mapped yet, of a range of `dpagemap`'s memory with an entry in `addrs` for each of
    /// its pages, none of them present, for the device that `user`'s memory is of. [`EOPNOTSUPP`]: the
    /// driver can't map it.
    #[inline(always)]
    pub(crate) fn new(
        dpagemap: &'a DrmPagemap,
        user: &'a DrmPagemap,
        addrs: &'a mut [DeviceAddr],
    ) -> Result<Self> {
        // INVARIANT: The device is valid as long as its pagemap is borrowed; nothing is mapped.
        Ok(Self {
            ops: dpagemap.peer_ops()?,
            dev: user.parent(),
            addrs,
        })
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
        self.map_pages(index, folio, folio.order(), dir)
    }

    /// As [`map`](Self::map), of a folio of one page; of a larger one, its first page.
    #[inline(always)]
    pub(crate) fn map_single(&mut self, index: usize, folio: &Folio, dir: DmaDirection) -> Result {
        self.map_pages(index, folio, 0, dir).map(|_| ())
    }

    /// Maps the first `1 << order` pages of `folio`, which has as many.
    #[inline(always)]
    fn map_pages(
        &mut self,
        index: usize,
        folio: &Folio,
        order: u32,
        dir: DmaDirection,
    ) -> Result<u32> {
        let entry = self.addrs.get_mut(index).ok_or(EINVAL)?;
        // SAFETY: By the type invariant the device is valid; the pages are the folio's, which is
        // live.
        let addr = unsafe { self.ops.map(self.dev, folio.page(), order, dir) }?;

        // What a driver must not return: its own copy would not find it.
        if !addr.is_present() || addr.order() > order {
            return Err(self.refuse(addr));
        }
        // INVARIANT: Mapped just now.
        *entry = addr;
        Ok(addr.order())
    }

    /// Unmaps what was mapped just now.
    #[cold]
    #[inline(never)]
    fn refuse(&self, addr: DeviceAddr) -> Error {
        // SAFETY: It was, for the device.
        unsafe { self.ops.unmap(self.dev, &addr) };
        EFAULT
    }

    /// The addresses, one entry a page.
    pub(crate) fn addrs(&mut self) -> &mut [DeviceAddr] {
        self.addrs
    }
}

impl Drop for PeerMapping<'_> {
    fn drop(&mut self) {
        let mut index = 0;

        while let Some(addr) = self.addrs.get_mut(index) {
            index += 1;
            if !addr.is_present() {
                continue;
            }
            if addr.order() > 0 {
                // No other one begins within what this one is for.
                index += 1_usize.wrapping_shl(addr.order()) - 1;
            }
            // SAFETY: By the type invariant this undoes one mapping, once.
            unsafe { self.ops.unmap(self.dev, addr) };
            *addr = DeviceAddr::ABSENT;
        }
    }
}
