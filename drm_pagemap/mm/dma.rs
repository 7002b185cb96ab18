// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA mapping of a migration's pages.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        Folio,
        Pfn,
        NR_PMD_PAGES,
        PMD_ORDER, //
    },
};
use core::{
    mem,
    ptr::NonNull, //
};
use kernel::{
    dma::DmaAddress,
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
/// virtual addresses. Otherwise large folios are mapped in pieces no larger than the DMA layer takes
/// at once (a bounce buffer's slot, say), and single pages that are contiguous in RAM together, up to
/// that size; each has an address of its own for all that.
///
/// # Invariants
///
/// - `dev` is a valid device, able to do DMA.
/// - If `iova` has a range, each entry of `addrs` that is present is linked into it, and the links
///   fill its first `linked` bytes. Otherwise each of them is mapped for `dev` in direction `dir`:
///   those of order 0 by the run, from one bit of `bounds` to the next, others by themselves, with
///   the size that their order says.
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
    run: Run,
    /// How many pages a run may have.
    limit: usize,
    /// A bit for each entry at which a run, or what is behind one, begins.
    bounds: [u64; NR_PMD_PAGES / 64],
}

/// Pages of a range that are contiguous in RAM, too, in ascending or descending order, and not mapped
/// yet.
#[derive(Clone, Copy, Default)]
struct Run {
    start: usize,
    end: usize,
    /// The frame that would be the next one, going up. Of a run that goes down, none.
    up: usize,
    /// The same, going down.
    down: usize,
}

impl Run {
    /// No frame.
    const NONE: usize = usize::MAX;

    /// A run of one page.
    fn new(index: usize, pfn: Pfn) -> Self {
        Self {
            start: index,
            end: index + 1,
            up: pfn.as_usize() + 1,
            down: pfn.as_usize().wrapping_sub(1),
        }
    }

    /// Takes in the next page, if it is.
    #[inline(always)]
    fn extend(&mut self, pfn: Pfn) -> bool {
        let pfn = pfn.as_usize();

        if pfn == self.up {
            self.up += 1;
            self.down = Self::NONE;
        } else if pfn == self.down {
            self.down = self.down.wrapping_sub(1);
            self.up = Self::NONE;
        } else {
            return false;
        }
        self.end += 1;
        true
    }

    /// The number of pages.
    #[inline(always)]
    fn nr_pages(&self) -> usize {
        self.end - self.start
    }

    /// The lowest frame.
    fn first(&self) -> Pfn {
        match self.up {
            Self::NONE => Pfn::new(self.down.wrapping_add(1)),
            up => Pfn::new(up - self.nr_pages()),
        }
    }
}

impl<'a> DmaMapping<'a> {
    /// Nothing mapped yet, of a range with an entry in `addrs` for each of its pages.
    ///
    /// # Safety
    ///
    /// `dev` must be a valid device, able to do DMA, for as long as the value exists. No entry of
    /// `addrs` may be present.
    #[inline(always)]
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
            run: Run::default(),
            limit: 0,
            bounds: [0; NR_PMD_PAGES / 64],
        }
    }

    /// Maps `folio`, a folio of RAM, as the pages from `index` on, which must be behind those that
    /// are mapped. Returns the order of its pieces. What was mapped has an address after
    /// [`sync`](Self::sync). May sleep.
    ///
    /// [`EINVAL`]: it reaches out of the range. [`EFAULT`]: it, or one before it, can't be mapped.
    #[inline]
    pub fn map(&mut self, index: usize, folio: &Folio) -> Result<u32> {
        if !folio.is_large() {
            self.map_single(index, folio)?;
            return Ok(0);
        }
        self.map_other(index, folio)
    }

    /// As [`map`](Self::map), for a folio of one page.
    #[inline(always)]
    pub fn map_single(&mut self, index: usize, folio: &Folio) -> Result {
        if index == self.run.end && self.run.nr_pages() < self.limit && self.run.extend(folio.pfn())
        {
            return Ok(());
        }
        self.map_other(index, folio).map(|_| ())
    }

    /// Maps what does not go on the run at hand.
    fn map_other(&mut self, index: usize, folio: &Folio) -> Result<u32> {
        let order = folio.order();
        let end = index.checked_add(1 << order).ok_or(EINVAL)?;

        if end > self.addrs.len() || index < self.end.max(self.run.end) {
            return Err(EINVAL);
        }

        let piece = self.prepare().min(order);
        if self.has_iova() {
            self.link(index, folio)?;
            self.end = end;
            return Ok(order);
        }
        self.map_run()?;
        if order == 0 {
            self.run = Run::new(index, folio.pfn());
            return Ok(0);
        }
        for first in (0..1 << order).step_by(1 << piece) {
            let phys = folio.pfn().phys() + (first << PAGE_SHIFT) as u64;
            let addr = self.map_phys(phys, PAGE_SIZE << piece)?;

            if piece == 0 {
                self.set_bounds(index + first, 1);
            }
            // INVARIANT: Mapped with the size that its order says.
            self.addrs[index + first] = DeviceAddr::system(addr, piece, self.dir);
            self.end = index + first + (1 << piece);
        }
        Ok(piece)
    }

    /// Notes that a run of `nr` pages begins at `start`.
    fn set_bounds(&mut self, start: usize, nr: usize) {
        for at in [start, start + nr] {
            if let Some(word) = self.bounds.get_mut(at / 64) {
                *word |= 1 << (at % 64);
            }
        }
    }

    /// The first bound behind `start`, or where mapped entries end.
    fn next_bound(&self, start: usize) -> usize {
        if self.addrs.len() > NR_PMD_PAGES || start + 1 == self.end {
            return start + 1;
        }

        let mut word = (start + 1) / 64;
        let mut mask = u64::MAX << ((start + 1) % 64);
        while let Some(bits) = self.bounds.get(word) {
            if bits & mask != 0 {
                return self
                    .end
                    .min(word * 64 + (bits & mask).trailing_zeros() as usize);
            }
            word += 1;
            mask = u64::MAX;
        }
        self.end
    }

    /// Maps the run at hand, if there is one; page by page, if it can't be had as one.
    fn map_run(&mut self) -> Result {
        let run = mem::take(&mut self.run);
        let nr = run.nr_pages();

        if run.end > self.addrs.len() {
            return Err(EINVAL);
        }
        let phys = run.first().phys();
        let size = PAGE_SIZE as u64;
        // From one page to the next.
        let (first, step) = match run.up {
            Run::NONE => ((nr as u64).wrapping_sub(1) * size, size.wrapping_neg()),
            _ => (0, size),
        };

        if nr == 0 {
            return Ok(());
        }
        if let Ok(addr) = self.map_phys(phys, nr << PAGE_SHIFT) {
            let mut addr = DeviceAddr::system(addr.wrapping_add(first), 0, self.dir);

            self.set_bounds(run.start, nr);
            // INVARIANT: Mapped as a run.
            for entry in &mut self.addrs[run.start..run.end] {
                *entry = addr;
                addr = addr.at(addr.addr().wrapping_add(step));
            }
            self.end = run.end;
            return Ok(());
        }
        if nr == 1 {
            return Err(EFAULT);
        }

        let mut phys = phys.wrapping_add(first);
        for page in run.start..run.end {
            let addr = self.map_phys(phys, PAGE_SIZE)?;

            phys = phys.wrapping_add(step);
            // INVARIANT: Mapped as a run of its own.
            self.set_bounds(page, 1);
            self.addrs[page] = DeviceAddr::system(addr, 0, self.dir);
            self.end = page + 1;
        }
        Ok(())
    }

    /// Makes what was mapped usable for the device. To be called once, after the last
    /// [`map`](Self::map). May sleep.
    ///
    /// [`EFAULT`]: a page can't be mapped.
    pub fn sync(&mut self) -> Result {
        if !self.has_iova() || self.linked == 0 {
            return self.map_run();
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
        // There are bounds for as many entries only.
        self.limit = if self.has_iova() || self.addrs.len() > NR_PMD_PAGES {
            1
        } else {
            1 << piece
        };
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

    fn map_phys(&self, phys: u64, size: usize) -> Result<DmaAddress> {
        // By its physical address: device-coherent memory can be mapped like RAM, but is not taken
        // for that where a page is asked for.
        // SAFETY: The device is valid by the type invariant. The bytes are those of live folios of
        // RAM.
        let addr =
            unsafe { bindings::dma_map_phys(self.dev.as_ptr(), phys, size, self.dir.as_raw(), 0) };

        // SAFETY: The device is valid; the address is what mapping returned.
        if unsafe { bindings::drm_pagemap_helper_dma_mapping_error(self.dev.as_ptr(), addr) } {
            return Err(EFAULT);
        }
        Ok(addr)
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
        while index < self.end {
            let addr = self.addrs[index];
            let order = addr.order();

            if !addr.is_present() {
                index += 1;
                continue;
            }
            let end = match order {
                0 if !has_iova => self.next_bound(index),
                _ => index + (1 << order),
            };

            let mut addr = addr.addr();
            if order == 0 {
                // The last one, if they are in descending order.
                addr = addr.min(self.addrs[end - 1].addr());
                self.addrs[index..end].fill(DeviceAddr::ABSENT);
            } else {
                self.addrs[index] = DeviceAddr::ABSENT;
            }
            if !has_iova {
                // SAFETY: By the type invariant this undoes one mapping, once.
                unsafe {
                    bindings::dma_unmap_phys(
                        dev,
                        addr,
                        (end - index) << PAGE_SHIFT,
                        self.dir.as_raw(),
                        0,
                    )
                };
            }
            index = end;
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
