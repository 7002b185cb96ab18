// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA mapping of RAM for a device's page tables: for longer than a migration takes, by parts of
//! folios, and with addresses that belong to the mapping.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        DmaDirection,
        Pfn, //
    },
};
use core::ptr::NonNull;
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Frames of RAM that a device can get at; dropping it unmaps them.
///
/// # Invariants
///
/// - `dev` is a valid device, able to do DMA.
/// - If `iova` has a range, it is one for `nr_pages` pages, of which the links fill the first
///   `linked` bytes. Otherwise each entry of `addrs` is a mapping for `dev` in direction `dir`, with
///   the size that its order says.
pub(crate) struct RamMapping {
    dev: NonNull<bindings::device>,
    dir: DmaDirection,
    nr_pages: usize,
    iova: bindings::dma_iova_state,
    linked: usize,
    /// The order of the largest piece; [`None`] before the first frame is mapped.
    piece: Option<u32>,
    /// With room for `nr_pages`.
    addrs: KVVec<DeviceAddr>,
}

// SAFETY: A mapping may be undone by any thread.
unsafe impl Send for RamMapping {}

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
        // INVARIANT: Nothing is mapped or linked.
        Ok(Self {
            dev,
            dir,
            nr_pages,
            iova: bindings::dma_iova_state::default(),
            linked: 0,
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
        let piece = self.prepare();

        if self.has_iova() {
            return mapped(0, self.link(pfn, order)?);
        }
        let piece = piece.min(order);
        for first in (0..1usize << order).step_by(1 << piece) {
            mapped(
                first,
                self.map_piece(Pfn::new(pfn.as_usize() + first), piece)?,
            )?;
        }
        Ok(())
    }

    /// Makes what was mapped usable for the device. To be called once, after the last
    /// [`map`](Self::map).
    pub(crate) fn sync(&mut self) -> Result {
        if self.linked == 0 {
            return Ok(());
        }
        // SAFETY: By the type invariant this part of the range is linked.
        kernel::error::to_result(unsafe {
            bindings::drm_pagemap_helper_dma_iova_sync(
                self.dev.as_ptr(),
                &mut self.iova,
                self.linked,
            )
        })
    }

    /// Asks for a range of I/O virtual addresses, once, and for the size of pieces without one.
    fn prepare(&mut self) -> u32 {
        if let Some(piece) = self.piece {
            return piece;
        }

        // SAFETY: The device is valid by the type invariant. If there is no range to be had, the
        // state stays empty.
        let max = unsafe {
            bindings::drm_pagemap_helper_dma_iova_try_alloc(
                self.dev.as_ptr(),
                &mut self.iova,
                self.nr_pages << PAGE_SHIFT,
            );
            bindings::dma_max_mapping_size(self.dev.as_ptr())
        };
        // Less than a page is refused by the mapping itself.
        let piece = (max >> PAGE_SHIFT).checked_ilog2().unwrap_or(0);

        self.piece = Some(piece);
        piece
    }

    fn has_iova(&self) -> bool {
        // As dma_use_iova().
        self.iova.__size != 0
    }

    fn link(&mut self, pfn: Pfn, order: u32) -> Result<DeviceAddr> {
        let size = PAGE_SIZE << order;

        if self.linked + size > self.nr_pages << PAGE_SHIFT {
            return Err(EINVAL);
        }
        // SAFETY: There is room for it, as was just checked.
        kernel::error::to_result(unsafe {
            bindings::drm_pagemap_helper_dma_iova_link(
                self.dev.as_ptr(),
                &mut self.iova,
                pfn.phys(),
                self.linked,
                size,
                self.dir.as_raw(),
            )
        })?;
        let addr = DeviceAddr::system(self.iova.addr + self.linked as u64, order, self.dir);

        // INVARIANT: Linked just now, behind what was there.
        self.linked += size;
        Ok(addr)
    }

    fn map_piece(&mut self, pfn: Pfn, order: u32) -> Result<DeviceAddr> {
        let dev = self.dev.as_ptr();

        if self.addrs.len() >= self.nr_pages {
            return Err(EINVAL);
        }
        // SAFETY: The device is valid by the type invariant; the frames are RAM, as the caller of
        // `map` has promised.
        let addr = unsafe {
            bindings::dma_map_phys(dev, pfn.phys(), PAGE_SIZE << order, self.dir.as_raw(), 0)
        };

        // SAFETY: The device is valid; the address is what mapping returned.
        if unsafe { bindings::drm_pagemap_helper_dma_mapping_error(dev, addr) } {
            return Err(EFAULT);
        }
        let addr = DeviceAddr::system(addr, order, self.dir);

        // INVARIANT: Mapped with the size that its order says. There is room, as was checked.
        self.addrs.push_within_capacity(addr).map_err(|_| EINVAL)?;
        Ok(addr)
    }
}

impl Drop for RamMapping {
    fn drop(&mut self) {
        let dev = self.dev.as_ptr();

        if self.has_iova() {
            // SAFETY: By the type invariant `linked` bytes of the range are in use.
            unsafe {
                bindings::drm_pagemap_helper_dma_iova_destroy(
                    dev,
                    &mut self.iova,
                    self.linked,
                    self.dir.as_raw(),
                )
            };
        }
        for addr in &self.addrs {
            // SAFETY: By the type invariant this undoes one mapping, once. With a range there are
            // none.
            unsafe {
                bindings::dma_unmap_phys(
                    dev,
                    addr.addr(),
                    PAGE_SIZE << addr.order(),
                    self.dir.as_raw(),
                    0,
                )
            };
        }
    }
}
