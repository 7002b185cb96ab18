// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! From RAM, from nowhere, or from another device, to device memory.

use crate::{
    device_addr::DeviceAddr,
    dpagemap_devmem::DevmemRef,
    migrate::{
        home::retire_sources,
        Details,
        Outcome,
        Want, //
    },
    mm::{
        are_one_folio,
        Arrays,
        Collected,
        DmaDirection,
        Folio,
        LockedMm,
        Select,
        Step,
        VmaRange, //
    },
    page_array::PageArray,
    peer_mapping::PeerMapping,
    zdd::Zdd,
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

/// Migrates `range` (in bytes) of `mm` to the device memory `devmem`: all of it or nothing, or what
/// is missing there, as `want` says.
///
/// The reference is consumed whatever the outcome: when this returns an error, the allocation has
/// been released, or will be as soon as passing references on its pages are gone. On success it is
/// released when the last page that was migrated to it is free. Addresses never touched are
/// populated too; the driver is told of them by a missing source, and clears them. Folios that a
/// PMD maps stay whole where the allocation's frames allow it. Pages in the memory of another
/// device with the same pagemap owner are copied from there, by that device. May sleep.
///
/// # Errors
///
/// - [`EOPNOTSUPP`]: the driver lacks an operation that this needs, or the area is not private
///   anonymous memory;
/// - [`ENOENT`]: nothing is mapped at the range's start;
/// - [`EINVAL`]: the range is empty, not made of whole pages, reaches out of the area, or is larger
///   than the allocation;
/// - [`EBUSY`], where all of it is wanted: pages are pinned, locked or changing just now; part of
///   the range is in device memory from where it can't be copied; or a race was lost. What was
///   where it was stays usable. Try again;
/// - [`EFAULT`]: a page can't be mapped for the device;
/// - [`ENOMEM`], and what the drivers' operations say.
pub fn to_devmem(
    devmem: DevmemRef,
    mm: &LockedMm<'_>,
    range: Range<usize>,
    details: &Details,
    want: Want,
) -> Result<Outcome> {
    if !devmem.can_migrate() {
        return Err(EOPNOTSUPP);
    }

    let vma = mm.vma_covering(&range)?;
    if !crate::mm::vma_is_anonymous(vma) {
        return Err(EOPNOTSUPP);
    }
    if range.len() > devmem.size() {
        return Err(EINVAL);
    }

    let range = VmaRange::new(vma, range)?;
    let arrays = Arrays::new(range.nr_pages())?;
    let zdd = Zdd::new(devmem)?;
    let pfns = zdd.devmem().populate_pfns(range.nr_pages())?;
    let mut pages = Collected::from_vma_as(
        &range,
        zdd.dpagemap().zone_device().owner(),
        |pages| {
            let select = Select::SYSTEM
                .and(Select::DEVICE_PRIVATE)
                .and(Select::DEVICE_COHERENT);

            match pfns.get(pages) {
                Some(pfns) if are_one_folio(pfns) => select.and(Select::COMPOUND),
                _ => select,
            }
        },
        None,
        arrays,
    )?;

    let plan = Plan::new(&pages, &zdd, details, want)?;
    let filled = pages.fill(|step| {
        if !plan.moves(step) {
            return Ok(None);
        }
        let pfn = *pfns.get(step.index).ok_or(EINVAL)?;

        Zdd::attach(&zdd, pfn, step.order()).map(Some)
    })?;
    if filled == 0 {
        // Nothing to do. Dropping the pages puts them back.
        return Ok(plan.outcome(0));
    }

    Copier::new(&pages, &zdd)?.copy()?;
    zdd.devmem().put_fence();
    zdd.devmem().start_timeslice(details.timeslice);

    // What was lost to a race stays where it was; the rest is in device memory, and right there.
    let migrated = retire_sources(&pages.migrate());
    if want == Want::All && migrated < filled {
        return Err(EBUSY);
    }
    Ok(plan.outcome(migrated))
}

/// What becomes of the pages of a range, seen from the pagemap that they shall go to.
struct Plan<'a> {
    zdd: &'a Zdd,
    nr_pages: usize,
    /// Pages that are in the device memory already.
    resident: usize,
    /// Whether those are moved too.
    move_resident: bool,
}

impl<'a> Plan<'a> {
    /// [`EBUSY`] if all is wanted and can't be had.
    fn new(pages: &Collected<'_>, zdd: &'a Zdd, details: &Details, want: Want) -> Result<Self> {
        let mut this = Self {
            zdd,
            nr_pages: pages.nr_pages(),
            resident: 0,
            move_resident: false,
        };

        this.resident = pages
            .steps()
            .filter(|step| step.folio().is_some_and(|folio| this.is_resident(folio)))
            .map(|step| step.nr_pages())
            .sum();
        if want == Want::Missing {
            return Ok(this);
        }

        let all_resident = this.resident == this.nr_pages;
        this.move_resident = details.can_migrate_same_pagemap
            && (!all_resident || details.defragment)
            && zdd.dpagemap().has_device_map();
        if all_resident && !this.move_resident {
            return Ok(this);
        }

        let moving: usize = pages
            .steps()
            .filter(|step| this.moves(step))
            .map(|step| step.nr_pages())
            .sum();
        if moving < this.nr_pages {
            return Err(EBUSY);
        }
        Ok(this)
    }

    fn is_resident(&self, folio: &Folio) -> bool {
        self.zdd.dpagemap().owns(folio.pgmap())
    }

    /// Whether the source is to be migrated.
    fn moves(&self, step: &Step<'_>) -> bool {
        if !step.is_migrating() {
            return false;
        }
        match step.folio() {
            Some(folio) if self.is_resident(folio) => self.move_resident,
            Some(folio) if folio.is_device_private() => {
                // In the memory of another device, whose driver must be one of this layer's to
                // copy.
                self.zdd.dpagemap().has_device_map() && Zdd::of_folio(folio).is_some()
            }
            _ => true,
        }
    }

    fn outcome(&self, migrated: usize) -> Outcome {
        let resident = if self.move_resident { 0 } else { self.resident };

        Outcome {
            migrated,
            resident,
            left: self.nr_pages - resident - migrated,
        }
    }
}

/// What it takes to have the sources copied to their destinations.
struct Copier<'a> {
    pages: &'a Collected<'a>,
    zdd: &'a Zdd,
    device_pages: PageArray,
    addrs: KVVec<DeviceAddr>,
}

/// Pages that one driver copies in one go.
struct Run<'a> {
    pages: Range<usize>,
    /// Where they come from: an allocation of device memory, or RAM and nowhere.
    from: Option<&'a Zdd>,
}

impl<'a> Run<'a> {
    fn of(step: &Step<'a>) -> Self {
        Self {
            pages: step.pages(),
            from: step
                .folio()
                .filter(|folio| folio.is_device_private())
                .and_then(Zdd::of_folio),
        }
    }

    /// Takes in `next` if the same driver can copy it in the same way.
    fn extend(&mut self, next: &Self) -> bool {
        let same = match (self.from, next.from) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                core::ptr::eq(a.dpagemap(), b.dpagemap()) && a.devmem().has_ops_of(b.devmem())
            }
            _ => false,
        };

        if same {
            self.pages.end = next.pages.end;
        }
        same
    }
}

impl<'a> Copier<'a> {
    /// 24 bytes a page. May sleep.
    fn new(pages: &'a Collected<'a>, zdd: &'a ARef<Zdd>) -> Result<Self> {
        Ok(Self {
            pages,
            zdd,
            device_pages: PageArray::new(pages.nr_pages())?,
            addrs: KVVec::from_elem(DeviceAddr::ABSENT, pages.nr_pages(), GFP_KERNEL)?,
        })
    }

    /// Copies all of them, run by run.
    fn copy(mut self) -> Result {
        let pages = self.pages;
        let mut runs = pages
            .filled(0..pages.nr_pages())
            .map(|(step, _)| Run::of(&step))
            .peekable();

        while let Some(mut run) = runs.next() {
            while runs.next_if(|next| run.extend(next)).is_some() {}
            match run.from {
                None => self.copy_ram(run.pages)?,
                Some(from) => self.copy_peer(run.pages, from)?,
            }
        }
        Ok(())
    }

    /// From RAM, or from nowhere.
    fn copy_ram(&mut self, run: Range<usize>) -> Result {
        let devmem = self.zdd.devmem();
        let mut device_pages = self.device_pages.part(run.clone())?;
        let addrs = self.addrs.get_mut(run.clone()).ok_or(EINVAL)?;
        let mut dma = devmem.dma_mapping(DmaDirection::ToDevice, addrs)?;

        for (step, destination) in self.pages.filled(run.clone()) {
            let index = step.index - run.start;

            if let Some(source) = step.folio() {
                dma.map(index, source)?;
            }
            device_pages.set(index, destination, dma.addrs());
        }
        dma.sync()?;
        devmem.copy_to_devmem(&mut device_pages, dma.addrs())
    }

    /// From the memory of another device, or another place of this one's.
    fn copy_peer(&mut self, run: Range<usize>, from: &Zdd) -> Result {
        let mut device_pages = self.device_pages.part(run.clone())?;
        let addrs = self.addrs.get_mut(run.clone()).ok_or(EINVAL)?;
        let mut mapping = PeerMapping::new(self.zdd.dpagemap(), from.dpagemap(), addrs);

        for (step, destination) in self.pages.filled(run.clone()) {
            let index = step.index - run.start;

            mapping.map(index, destination, DmaDirection::FromDevice)?;
            if let Some(source) = step.folio() {
                device_pages.set(index, source, mapping.addrs());
            }
        }
        from.devmem()
            .copy_to_ram(&mut device_pages, mapping.addrs(), Some(self.zdd.devmem()))
    }
}
