// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA mapping of RAM for a device's page tables: for longer than a migration takes, by parts of
//! folios, and with addresses that belong to the mapping.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        mapper::Mapper,
        DmaDirection,
        Pfn, //
    },
};
use core::ptr::NonNull;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Frames of RAM that a device can get at; dropping it unmaps them.
///
/// # Invariants
///
/// Each entry of `addrs` is a mapping of `mapper`'s, with the size that its order says. There are none
/// if that has a range of I/O virtual addresses.
pub(crate) struct RamMapping {
    mapper: Mapper,
    /// The order of the largest piece; [`None`] before the first frame is mapped.
    piece: Option<u32>,
    /// With room for all pages.
    addrs: KVVec<DeviceAddr>,
}

impl RamMapping {
    /// Nothing mapped yet, with room for `nr_pages` pages. May sleep. [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `dev` must be a valid device, able to do DMA, for as long as the value exists.
    pub(crate) unsafe fn new(
        dev: NonNull<bindings::device>,
        dir: DmaDirection,
        nr_pages: usize,
    ) -> Result<Self> {
        // INVARIANT: Nothing is mapped.
        Ok(Self {
            // SAFETY: Promised by the caller.
            mapper: unsafe { Mapper::new(dev, dir, nr_pages) },
            piece: None,
            addrs: KVVec::with_capacity(nr_pages, GFP_KERNEL)?,
        })
    }

    /// Maps the `1 << order` frames from `pfn` on, in pieces no larger than the DMA layer takes at
    /// once. Calls `mapped` for each piece with its first page, counted from `pfn`, and its address.
    /// Waits for no memory.
    ///
    /// [`EINVAL`]: there is no room. [`EFAULT`]: they can't be mapped. Else what `mapped` says.
    ///
    /// # Safety
    ///
    /// They must be RAM that is in use while this is called, and as long as the device uses the
    /// addresses.
    pub(crate) unsafe fn map(
        &mut self,
        pfn: Pfn,
        order: u32,
        mut mapped: impl FnMut(usize, DeviceAddr) -> Result,
    ) -> Result {
        let piece = match self.piece {
            Some(piece) => piece,
            None => *self.piece.insert(self.mapper.begin()),
        };

        if self.mapper.has_iova() {
            // SAFETY: Promised by the caller.
            return mapped(0, unsafe { self.mapper.link(pfn, order) }?);
        }
        let piece = piece.min(order);
        for first in (0..1usize << order).step_by(1 << piece) {
            let pfn = Pfn::new(pfn.as_usize() + first);

            // SAFETY: Promised by the caller.
            mapped(first, unsafe { self.map_piece(pfn, piece) }?)?;
        }
        Ok(())
    }

    /// Makes what was mapped usable for the device. To be called once, after the last
    /// [`map`](Self::map).
    pub(crate) fn sync(&mut self) -> Result {
        self.mapper.sync()
    }

    /// # Safety
    ///
    /// As [`map`](Self::map).
    unsafe fn map_piece(&mut self, pfn: Pfn, order: u32) -> Result<DeviceAddr> {
        if self.addrs.len() >= self.mapper.nr_pages() {
            return Err(EINVAL);
        }
        // SAFETY: Promised by the caller.
        let addr = unsafe { self.mapper.map(pfn.phys(), PAGE_SIZE << order) }?;
        let addr = DeviceAddr::system(addr, order, self.mapper.dir());

        // INVARIANT: Mapped with the size that its order says. There is room, as was checked.
        self.addrs.push_within_capacity(addr).map_err(|_| EINVAL)?;
        Ok(addr)
    }
}

impl Drop for RamMapping {
    fn drop(&mut self) {
        for addr in &self.addrs {
            // SAFETY: By the type invariant this undoes one mapping, once.
            unsafe { self.mapper.unmap(addr.addr(), PAGE_SIZE << addr.order()) };
        }
    }
}
