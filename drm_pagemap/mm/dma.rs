// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA mapping of a migration's pages.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        Folio,
        PMD_ORDER, //
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

/// Who reads and who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaDirection {
    /// The device reads RAM.
    ToDevice,
    /// The device writes RAM.
    FromDevice,
    /// Both: not for a migration, but for who maps memory for a device's page tables.
    Both,
}

impl DmaDirection {
    /// The value for C.
    #[inline]
    pub(crate) const fn as_raw(self) -> bindings::dma_data_direction {
        match self {
            Self::ToDevice => bindings::dma_data_direction::DMA_TO_DEVICE,
            Self::FromDevice => bindings::dma_data_direction::DMA_FROM_DEVICE,
            Self::Both => bindings::dma_data_direction::DMA_BIDIRECTIONAL,
        }
    }

    /// The direction that C means by `dir`. [`EINVAL`]: none.
    #[cfg(CONFIG_DRM = "y")]
    pub(crate) fn from_raw(dir: bindings::dma_data_direction) -> Result<Self> {
        [Self::ToDevice, Self::FromDevice, Self::Both]
            .into_iter()
            .find(|this| this.as_raw().0 == dir.0)
            .ok_or(EINVAL)
    }
}

/// Pages of RAM, mapped for a device; dropping it unmaps them, and empties the addresses.
///
/// With an IOMMU that the DMA layer drives by itself, all of them are linked into one range of I/O
/// virtual addresses. Otherwise each is mapped by itself, large folios in pieces no larger than the
/// DMA layer takes at once (a bounce buffer's slot, say).
///
/// # Invariants
///
/// - `dev` is a valid device, able to do DMA.
/// - If `iova` has a range, each entry of `addrs` that is present is linked into it, and the links
///   fill its first `linked` bytes. Otherwise each of them is a mapping for `dev` in direction
///   `dir`, with the size that its order says.
pub struct DmaMapping<'a> {
    dev: NonNull<bindings::device>,
    dir: DmaDirection,
    addrs: &'a mut [DeviceAddr],
    iova: bindings::dma_iova_state,
    linked: usize,
    /// The order of the largest piece; [`None`] before the first page is mapped.
    piece: Option<u32>,
    /// Entries that are present are below this.
    end: usize,
}

impl<'a> DmaMapping<'a> {
    /// Nothing mapped yet, of a range with an entry in `addrs` for each of its pages.
    ///
    /// # Safety
    ///
    /// `dev` must be a valid device, able to do DMA, for as long as the value exists. No entry of
    /// `addrs` may be present.
    pub unsafe fn new(
        dev: NonNull<bindings::device>,
        dir: DmaDirection,
        addrs: &'a mut [DeviceAddr],
    ) -> Self {
        // INVARIANT: No entry is present, as promised; nothing is linked.
        Self {
            dev,
            dir,
            addrs,
            iova: bindings::dma_iova_state::default(),
            linked: 0,
            piece: None,
            end: 0,
        }
    }

    /// Maps `folio`, a folio of RAM, as the pages from `index` on. May sleep.
    ///
    /// [`EINVAL`]: it reaches out of the range. [`EFAULT`]: it can't be mapped.
    #[inline]
    pub fn map(&mut self, index: usize, folio: &Folio) -> Result {
        let order = folio.order();
        let end = index.checked_add(1 << order).ok_or(EINVAL)?;

        if end > self.addrs.len() {
            return Err(EINVAL);
        }

        let piece = self.prepare().min(order);
        self.end = self.end.max(end);
        if self.has_iova() {
            return self.link(index, folio);
        }
        for first in (0..1 << order).step_by(1 << piece) {
            // INVARIANT: Mapped with the size that its order says.
            self.addrs[index + first] = self.map_piece(folio, first, piece)?;
        }
        Ok(())
    }

    /// Makes what was mapped usable for the device. To be called once, after the last
    /// [`map`](Self::map). May sleep.
    pub fn sync(&mut self) -> Result {
        if !self.has_iova() || self.linked == 0 {
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

    /// The addresses, one entry a page.
    pub fn addrs(&mut self) -> &mut [DeviceAddr] {
        self.addrs
    }

    /// The order of the largest piece.
    #[inline]
    fn prepare(&mut self) -> u32 {
        match self.piece {
            Some(piece) => piece,
            None => self.begin(),
        }
    }

    /// Asks for a range of I/O virtual addresses, and for the size of pieces without one.
    #[cold]
    fn begin(&mut self) -> u32 {
        // SAFETY: The device is valid by the type invariant. If there is no range to be had, the
        // state stays empty.
        unsafe {
            bindings::drm_pagemap_helper_dma_iova_try_alloc(
                self.dev.as_ptr(),
                &mut self.iova,
                self.addrs.len() << PAGE_SHIFT,
            )
        };
        // SAFETY: As above.
        let piece = piece_order(unsafe { bindings::dma_max_mapping_size(self.dev.as_ptr()) });
        self.piece = Some(piece);
        piece
    }

    fn has_iova(&self) -> bool {
        // As dma_use_iova().
        self.iova.__size != 0
    }

    fn link(&mut self, index: usize, folio: &Folio) -> Result {
        // SAFETY: The range has room for all pages of `addrs`, of which no two calls map the same.
        kernel::error::to_result(unsafe {
            bindings::drm_pagemap_helper_dma_iova_link(
                self.dev.as_ptr(),
                &mut self.iova,
                folio.pfn().phys(),
                self.linked,
                folio.size(),
                self.dir.as_raw(),
            )
        })?;
        // INVARIANT: Linked just now, behind what was there.
        self.addrs[index] = DeviceAddr::system(
            self.iova.addr + self.linked as u64,
            folio.order(),
            self.dir, //
        );
        self.linked += folio.size();
        Ok(())
    }

    fn map_piece(&self, folio: &Folio, first: usize, order: u32) -> Result<DeviceAddr> {
        // By its physical address: device-coherent memory can be mapped like RAM, but is not taken
        // for that where a page is asked for.
        // SAFETY: The device is valid by the type invariant. The piece is in a live folio of RAM.
        let addr = unsafe {
            bindings::dma_map_phys(
                self.dev.as_ptr(),
                folio.pfn().phys() + (first << PAGE_SHIFT) as u64,
                PAGE_SIZE << order,
                self.dir.as_raw(),
                0,
            )
        };

        // SAFETY: The device is valid; the address is what mapping returned.
        if unsafe { bindings::drm_pagemap_helper_dma_mapping_error(self.dev.as_ptr(), addr) } {
            return Err(EFAULT);
        }
        Ok(DeviceAddr::system(addr, order, self.dir))
    }
}

impl Drop for DmaMapping<'_> {
    fn drop(&mut self) {
        let dev = self.dev.as_ptr();
        let has_iova = self.has_iova();
        let mut index = 0;

        if has_iova {
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
        while let Some(addr) = self.addrs.get_mut(index).filter(|_| index < self.end) {
            if !addr.is_present() {
                index += 1;
                continue;
            }
            let addr = core::mem::replace(addr, DeviceAddr::ABSENT);

            index += 1 << addr.order();
            if !has_iova {
                // SAFETY: By the type invariant this undoes one mapping, once.
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
}

/// The largest order that a device which takes `max` bytes a mapping can have mapped at once.
fn piece_order(max: usize) -> u32 {
    // Less than a page is refused by the mapping itself.
    (max >> PAGE_SHIFT)
        .checked_ilog2()
        .map_or(0, |order| order.min(PMD_ORDER))
}
