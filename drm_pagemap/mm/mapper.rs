// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What mappings for DMA have in common.
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
    dma::DmaAddress,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Maps RAM for a device, up to a number of pages: all linked into one range of I/O virtual
/// addresses, with an IOMMU that the DMA layer drives by itself; else one by one.
///
/// Dropping it undoes what was linked. What was mapped is for its user to [unmap](Self::unmap).
///
/// # Invariants
///
/// - `dev` is a valid device, able to do DMA.
/// - If `iova` has a range, it is one for `nr_pages` pages, of which the links fill the first
///   `linked` bytes.
pub(super) struct Mapper {
    dev: NonNull<bindings::device>,
    dir: DmaDirection,
    nr_pages: usize,
    iova: bindings::dma_iova_state,
    linked: usize,
}

// SAFETY: A mapping may be undone by any thread.
unsafe impl Send for Mapper {}

impl Mapper {
    /// Nothing mapped yet, of `nr_pages` pages at most.
    ///
    /// # Safety
    ///
    /// `dev` must be a valid device, able to do DMA, for as long as the value exists.
    #[inline(always)]
    pub(super) unsafe fn new(
        dev: NonNull<bindings::device>,
        dir: DmaDirection,
        nr_pages: usize,
    ) -> Self {
        // INVARIANT: Promised by the caller; nothing is linked.
        Self {
            dev,
            dir,
            nr_pages,
            iova: bindings::dma_iova_state::default(),
            linked: 0,
        }
    }

    /// Who reads and who writes.
    #[inline]
    pub(super) fn dir(&self) -> DmaDirection {
        self.dir
    }

    /// How many pages there can be.
    #[inline]
    pub(super) fn nr_pages(&self) -> usize {
        self.nr_pages
    }

    /// Asks for a range of I/O virtual addresses. To be called once, before all else. Returns the
    /// order of the largest piece that can be [mapped](Self::map), for who gets none.
    #[cold]
    pub(super) fn begin(&mut self) -> u32 {
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
        (max >> PAGE_SHIFT).checked_ilog2().unwrap_or(0)
    }

    /// Whether there is a range, so that pages are to be [linked](Self::link) into it.
    #[inline]
    pub(super) fn has_iova(&self) -> bool {
        // As dma_use_iova().
        self.iova.__size != 0
    }

    /// Links the `1 << order` frames from `pfn` on into the range, behind what is there. [`EINVAL`]:
    /// there is no room.
    ///
    /// # Safety
    ///
    /// They must be RAM that is in use as long as the device uses the address.
    pub(super) unsafe fn link(&mut self, pfn: Pfn, order: u32) -> Result<DeviceAddr> {
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

    /// Makes what was linked usable for the device. To be called once, after the last
    /// [`link`](Self::link). May sleep.
    #[inline(always)]
    pub(super) fn sync(&mut self) -> Result {
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

    /// Maps `size` bytes of RAM from `phys` on by themselves. [`EFAULT`]: they can't be mapped.
    ///
    /// # Safety
    ///
    /// They must be in use as long as the device uses the address.
    #[inline(always)]
    pub(super) unsafe fn map(&self, phys: u64, size: usize) -> Result<DmaAddress> {
        // By its physical address: device-coherent memory can be mapped like RAM, but is not taken
        // for that where a page is asked for.
        // SAFETY: The device is valid by the type invariant; the rest is promised by the caller.
        let addr =
            unsafe { bindings::dma_map_phys(self.dev.as_ptr(), phys, size, self.dir.as_raw(), 0) };

        // SAFETY: The device is valid; the address is what mapping returned.
        if unsafe { bindings::drm_pagemap_helper_dma_mapping_error(self.dev.as_ptr(), addr) } {
            return Err(EFAULT);
        }
        Ok(addr)
    }

    /// Ends a mapping of `size` bytes.
    ///
    /// # Safety
    ///
    /// [`map`](Self::map) must have returned `addr` for as many; this is called once for it.
    #[inline(always)]
    pub(super) unsafe fn unmap(&self, addr: DmaAddress, size: usize) {
        // SAFETY: The device is valid by the type invariant; the rest is promised by the caller.
        unsafe { bindings::dma_unmap_phys(self.dev.as_ptr(), addr, size, self.dir.as_raw(), 0) };
    }
}

impl Mapper {
    /// Undoes what was linked.
    // Not inlined: other crates can't reach the helper.
    #[cold]
    #[inline(never)]
    fn destroy(&mut self) {
        // SAFETY: By the type invariant `linked` bytes of the range are in use.
        unsafe {
            bindings::drm_pagemap_helper_dma_iova_destroy(
                self.dev.as_ptr(),
                &mut self.iova,
                self.linked,
                self.dir.as_raw(),
            )
        };
    }
}

impl Drop for Mapper {
    #[inline(always)]
    fn drop(&mut self) {
        if self.has_iova() {
            self.destroy();
        }
    }
}
