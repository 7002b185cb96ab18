// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA mapping of a migration's pages.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        mapper::Mapper,
        Folio,
        Pfn,
        SingleFolios,
        NR_PMD_PAGES,
        PMD_ORDER, //
    },
};
use core::{
    mem,
    ptr::NonNull, //
};
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
/// virtual addresses, unless there is just one page. Otherwise large folios are mapped in pieces no
/// larger than the DMA layer takes at once (a bounce buffer's slot, say), and single pages that are
/// contiguous in RAM together, up to that size; each has an address of its own for all that.
///
/// # Invariants
///
/// If `mapper` has a range of I/O virtual addresses, each entry of `addrs` that is present is linked
/// into it. Otherwise each of them is mapped: those of order 0 by the run, up to the next bit of
/// `bounds`, others by themselves, with the size that their order says.
pub struct DmaMapping<'a> {
    mapper: Mapper,
    addrs: &'a mut [DeviceAddr],
    /// The order of the largest piece; [`None`] before the first page is mapped.
    piece: Option<u32>,
    /// Entries that are present are below this.
    end: usize,
    run: Run,
    /// How many pages a run may have.
    limit: usize,
    /// A bit for each entry that is the first one behind a run.
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

    /// Takes in as many of `folios` from `index` on as go on where it ends, `most` at most. Returns
    /// their number.
    #[inline(always)]
    fn extend_by(&mut self, folios: SingleFolios<'_>, index: usize, most: usize) -> usize {
        let up = folios.nr_contiguous(index, most, Pfn::new(self.up), 1);
        let down = match up {
            0 => folios.nr_contiguous(index, most, Pfn::new(self.down), -1),
            _ => 0,
        };

        if up > 0 {
            self.up += up;
            self.down = Self::NONE;
        } else if down > 0 {
            self.down = self.down.wrapping_sub(down);
            self.up = Self::NONE;
        }
        self.end += up + down;
        up + down
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
        // INVARIANT: No entry is present, as promised.
        Self {
            // SAFETY: Promised by the caller.
            mapper: unsafe { Mapper::new(dev, dir, addrs.len()) },
            addrs,
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
    /// [`EINVAL`]: it reaches out of the range. [`EFAULT`]: it, or one before it, can't be mapped. Then
    /// nothing of it is, and it may be freed: unmapping may write to what was mapped, from a bounce buffer.
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
        if self.addrs.len() == 1 {
            return self.map_only(index, folio);
        }
        self.next_run(index, folio)
    }

    /// Maps the run at hand, and begins another one with a folio of one page.
    #[inline(never)]
    fn next_run(&mut self, index: usize, folio: &Folio) -> Result {
        // What was not asked yet, or is not by runs.
        if self.limit <= 1 || folio.is_large() {
            return self.map_other(index, folio).map(|_| ());
        }
        if index >= self.addrs.len() || index < self.end.max(self.run.end) {
            return Err(EINVAL);
        }
        self.map_run()?;
        self.run = Run::new(index, folio.pfn());
        Ok(())
    }

    /// Maps all of `folios`, each as the page at its index. Else as [`map`](Self::map).
    #[inline(always)]
    pub fn map_singles(&mut self, folios: SingleFolios<'_>) -> Result {
        let mut index = 0;

        while index < folios.nr_pages() {
            let folio = folios.at(index);

            index += 1;
            if let Some(folio) = folio {
                self.map_single(index - 1, folio)?;
                index += self.extend_run(folios, index);
            }
        }
        Ok(())
    }

    /// Takes into the run at hand what goes on there of `folios` from `index` on, one behind the page
    /// that was mapped just now. Returns the number of pages.
    #[inline(always)]
    fn extend_run(&mut self, folios: SingleFolios<'_>, index: usize) -> usize {
        if self.run.end != index {
            return 0;
        }
        let most = self.limit.saturating_sub(self.run.nr_pages());

        self.run.extend_by(folios, index, most)
    }

    /// Maps what does not go on the run at hand.
    fn map_other(&mut self, index: usize, folio: &Folio) -> Result<u32> {
        let order = folio.order();
        let end = index.checked_add(1 << order).ok_or(EINVAL)?;

        if end > self.addrs.len() || index < self.end.max(self.run.end) {
            return Err(EINVAL);
        }

        let piece = self.prepare().min(order);
        if self.mapper.has_iova() {
            // INVARIANT: Linked.
            // SAFETY: A live folio of RAM.
            self.addrs[index] = unsafe { self.mapper.link(folio.pfn(), order) }?;
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
            // SAFETY: A part of a live folio of RAM.
            let addr = unsafe { self.mapper.map(phys, PAGE_SIZE << piece) }
                .inspect_err(|_| self.unmap_pieces(index, first, piece))?;

            if piece == 0 {
                self.set_bound(index + first + 1);
            }
            // INVARIANT: Mapped with the size that its order says.
            self.addrs[index + first] = DeviceAddr::system(addr, piece, self.mapper.dir());
            self.end = index + first + (1 << piece);
        }
        Ok(piece)
    }

    /// Unmaps the pieces of a folio of which the one behind the first `nr_pages` pages can't be mapped.
    #[cold]
    fn unmap_pieces(&mut self, index: usize, nr_pages: usize, piece: u32) {
        for first in (0..nr_pages).step_by(1 << piece) {
            let Some(addr) = self.addrs.get_mut(index + first) else {
                break;
            };

            // SAFETY: By the type invariant this undoes one mapping, once.
            unsafe { self.mapper.unmap(addr.addr(), PAGE_SIZE << piece) };
            *addr = DeviceAddr::ABSENT;
        }
        // INVARIANT: No entry from there on is present.
        self.end = index;
    }

    /// Maps a folio of one page that is the whole range.
    #[inline(always)]
    fn map_only(&mut self, index: usize, folio: &Folio) -> Result {
        if index > 0 || folio.is_large() {
            return Err(EINVAL);
        }
        // SAFETY: A live folio of RAM.
        let addr = unsafe { self.mapper.map(folio.pfn().phys(), PAGE_SIZE) }?;

        // INVARIANT: Mapped, with a size of order 0, as a run.
        self.addrs[0] = DeviceAddr::system(addr, 0, self.mapper.dir());
        self.end = 1;
        Ok(())
    }

    /// Notes that a run ends before the page at `end`.
    #[inline(always)]
    fn set_bound(&mut self, end: usize) {
        if let Some(word) = self.bounds.get_mut(end / 64) {
            *word |= 1 << (end % 64);
        }
    }

    /// Whether one does.
    #[inline(always)]
    fn is_bound(&self, end: usize) -> bool {
        self.bounds
            .get(end / 64)
            .is_some_and(|word| word >> (end % 64) & 1 != 0)
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
    #[inline(always)]
    fn map_run(&mut self) -> Result {
        match self.run.nr_pages() {
            0 => Ok(()),
            1 => self.map_run_of_one(),
            _ => self.map_run_of_some(),
        }
    }

    /// The same where the run is just a page: in scattered RAM, most are.
    #[inline(always)]
    fn map_run_of_one(&mut self) -> Result {
        let (start, pfn) = (self.run.start, self.run.first());

        self.run = Run::default();
        // SAFETY: A live folio of RAM.
        unsafe { self.map_page(start, pfn.phys()) }
    }

    /// Maps the page at the physical address `phys` as the one at `index`, a run of its own.
    ///
    /// # Safety
    ///
    /// It must be a live folio of RAM, or a part of one.
    #[inline(always)]
    unsafe fn map_page(&mut self, index: usize, phys: u64) -> Result {
        let entry = self.addrs.get_mut(index).ok_or(EINVAL)?;
        // SAFETY: Promised by the caller.
        let addr = unsafe { self.mapper.map(phys, PAGE_SIZE) }?;

        // INVARIANT: Mapped as a run.
        *entry = DeviceAddr::system(addr, 0, self.mapper.dir());
        self.end = index + 1;
        self.set_bound(index + 1);
        Ok(())
    }

    #[inline(never)]
    fn map_run_of_some(&mut self) -> Result {
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

        // SAFETY: Live folios of RAM.
        if let Ok(addr) = unsafe { self.mapper.map(phys, nr << PAGE_SHIFT) } {
            let mut addr = DeviceAddr::system(addr.wrapping_add(first), 0, self.mapper.dir());

            self.set_bound(run.end);
            // INVARIANT: Mapped as a run.
            for entry in &mut self.addrs[run.start..run.end] {
                *entry = addr;
                addr = addr.at(addr.addr().wrapping_add(step));
            }
            self.end = run.end;
            return Ok(());
        }

        let mut phys = phys.wrapping_add(first);
        for page in run.start..run.end {
            // SAFETY: One of those folios.
            unsafe { self.map_page(page, phys) }?;
            phys = phys.wrapping_add(step);
        }
        Ok(())
    }

    /// Makes what was mapped usable for the device. To be called once, after the last
    /// [`map`](Self::map). May sleep.
    ///
    /// [`EFAULT`]: a page can't be mapped.
    #[inline(always)]
    pub fn sync(&mut self) -> Result {
        self.map_run()?;
        self.mapper.sync()
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
        let piece = self.mapper.begin().min(PMD_ORDER);

        self.piece = Some(piece);
        // There are bounds for as many entries only.
        self.limit = if self.mapper.has_iova() || self.addrs.len() > NR_PMD_PAGES {
            1
        } else {
            1 << piece
        };
        piece
    }
}

impl Drop for DmaMapping<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // As mapped by `map_only`.
        if let [addr] = &mut *self.addrs {
            if addr.is_present() {
                // SAFETY: By the type invariant this undoes one mapping, once.
                unsafe { self.mapper.unmap(addr.addr(), PAGE_SIZE) };
                *addr = DeviceAddr::ABSENT;
            }
            return;
        }
        self.unmap();
    }
}

impl DmaMapping<'_> {
    /// Unmaps all there is.
    fn unmap(&mut self) {
        let has_iova = self.mapper.has_iova();
        let mut index = 0;

        while index < self.end {
            let addr = self.addrs[index];
            let order = addr.order();

            if !addr.is_present() {
                index += 1;
                continue;
            }
            if order == 0 && !has_iova && self.is_bound(index + 1) {
                // SAFETY: By the type invariant this undoes one mapping, once.
                unsafe { self.mapper.unmap(addr.addr(), PAGE_SIZE) };
                self.addrs[index] = DeviceAddr::ABSENT;
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
                unsafe { self.mapper.unmap(addr, (end - index) << PAGE_SHIFT) };
            }
            index = end;
        }
    }
}
