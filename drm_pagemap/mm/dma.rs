// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA mapping of a migration's pages.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        Collected,
        Folio,
        MigratePfn, //
    },
};
use core::ptr::NonNull;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Who reads and who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaDirection {
    /// The device reads RAM.
    ToDevice,
    /// The device writes RAM.
    FromDevice,
}

impl DmaDirection {
    /// The value for C.
    #[inline]
    pub(crate) const fn as_raw(self) -> bindings::dma_data_direction {
        match self {
            Self::ToDevice => bindings::dma_data_direction::DMA_TO_DEVICE,
            Self::FromDevice => bindings::dma_data_direction::DMA_FROM_DEVICE,
        }
    }
}

/// Device addresses for the pages of a range, mapped; dropping it unmaps them.
///
/// # Invariants
///
/// Each entry of `addrs` that is present was mapped for `dev` in direction `dir`, with the size
/// that its order says, and not unmapped since.
pub struct DmaArray {
    dev: NonNull<bindings::device>,
    dir: DmaDirection,
    addrs: KVVec<DeviceAddr>,
}

impl DmaArray {
    /// Room for the addresses of `npages` pages, none mapped yet: 16 bytes a page. May sleep.
    ///
    /// # Safety
    ///
    /// `dev` must be a valid device, able to do DMA, for as long as the value exists.
    pub unsafe fn new(
        dev: NonNull<bindings::device>,
        dir: DmaDirection,
        npages: usize,
    ) -> Result<Self> {
        Ok(Self {
            dev,
            dir,
            addrs: KVVec::from_elem(DeviceAddr::ABSENT, npages, GFP_KERNEL)?,
        })
    }

    /// Maps the RAM folios among the sources of `pages`, those that are to be migrated.
    pub fn map_sources(&mut self, pages: &Collected<'_>) -> Result {
        self.map(pages.sources(), |entry| entry.is_migrating())
    }

    /// Maps the RAM folios among the destinations of `pages`.
    pub fn map_destinations(&mut self, pages: &Collected<'_>) -> Result {
        self.map(pages.destinations(), |_| true)
    }

    /// Maps each folio that `wanted` names. [`EFAULT`] if one can't be mapped; those mapped before it
    /// are unmapped when the value is dropped.
    fn map(&mut self, entries: &[MigratePfn], wanted: impl Fn(MigratePfn) -> bool) -> Result {
        if entries.len() != self.addrs.len() {
            return Err(EINVAL);
        }

        let mut index = 0;
        while let Some(&entry) = entries.get(index) {
            // SAFETY: Entries of a `Collected` that name pages hold references.
            let Some(folio) = (unsafe { entry.folio() }) else {
                index += 1;
                continue;
            };

            if wanted(entry) && !folio.is_device_private() {
                self.addrs[index] = self.map_folio(folio)?;
            }
            index += folio.nr_pages();
        }
        Ok(())
    }

    fn map_folio(&self, folio: &Folio) -> Result<DeviceAddr> {
        // SAFETY: The device is valid by the requirement of `new`, and the folio is live RAM.
        let addr = unsafe {
            bindings::dma_map_page_attrs(
                self.dev.as_ptr(),
                folio.page(),
                0,
                folio.size(),
                self.dir.as_raw(),
                0,
            )
        };

        // SAFETY: The device is valid; the address is what mapping returned.
        if unsafe { bindings::drm_pagemap_helper_dma_mapping_error(self.dev.as_ptr(), addr) } {
            return Err(EFAULT);
        }
        Ok(DeviceAddr::system(addr, folio.order(), self.dir))
    }

    /// The addresses, one entry a page.
    pub fn addrs(&mut self) -> &mut [DeviceAddr] {
        &mut self.addrs
    }
}

impl Drop for DmaArray {
    fn drop(&mut self) {
        for addr in self.addrs.iter().filter(|addr| addr.is_present()) {
            // SAFETY: By the type invariant this undoes one mapping, once.
            unsafe {
                bindings::dma_unmap_page_attrs(
                    self.dev.as_ptr(),
                    addr.addr(),
                    PAGE_SIZE << addr.order(),
                    self.dir.as_raw(),
                    0,
                )
            };
        }
    }
}
