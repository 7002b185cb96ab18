// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a PMD maps goes to device memory: from RAM, from nowhere, or from another device.

use crate::{
    migrate::{
        home::retire_sources,
        Details,
        Outcome,
        Want, //
    },
    mm::{
        are_one_folio,
        survey,
        Arrays,
        Collected,
        DmaDirection,
        Folio,
        LockedFolio,
        LockedMm,
        Pfn,
        Select,
        Step,
        VmaRange, //
    },
    page_array::CopyArrays,
    peer_mapping::PeerMapping,
    places::Places,
    zdd::Zdd,
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

/// How to migrate a chunk of a range to an allocation.
pub(super) struct Chunk<'a> {
    pub(super) zdd: &'a ARef<Zdd>,
    pub(super) details: &'a Details,
    pub(super) want: Want,
}

impl Chunk<'_> {
    /// Migrates `range`, which one PMD maps, to the frames that the allocation has in `places` from
    /// page `index` on. Errors as those of [`to_devmem`](super::to_devmem::to_devmem); then nothing
    /// of it has moved, but for what went before a race was lost.
    pub(super) fn migrate(
        &self,
        mm: &LockedMm<'_>,
        range: &VmaRange<'_>,
        index: usize,
        places: &Places<'_>,
    ) -> Result<Outcome> {
        let nr_pages = range.nr_pages();
        let mut select = Select::SYSTEM
            .and(Select::DEVICE_PRIVATE)
            .and(Select::DEVICE_COHERENT);
        let mut resident = 0;

        if self.want == Want::Missing {
            let zone = self.zdd.dpagemap().zone_device();
            let survey = survey(mm, range, zone, |_| true)?;

            if survey.resident == nr_pages {
                return Ok(Outcome {
                    resident: nr_pages,
                    ..Outcome::default()
                });
            }
            if survey.elsewhere == 0 {
                // Nobody isolates, and puts back, what is where it shall be.
                select = select.without(Select::DEVICE_PRIVATE);
                resident = survey.resident;
            }
        }

        let migrated = places.with(index..index + nr_pages, |pfns| {
            if are_one_folio(pfns) {
                select = select.and(Select::COMPOUND);
            }
            let owner = self.zdd.dpagemap().zone_device().owner();
            let arrays = Arrays::new(nr_pages)?;
            let pages = Collected::from_vma(range, owner, select, None, arrays)?;
            let plan = Plan::new(&pages, self)?;

            if !plan.move_resident {
                resident += plan.resident;
            }
            self.move_by(pages, &plan, pfns)
        })?;

        Ok(Outcome {
            migrated,
            resident,
            left: nr_pages.saturating_sub(resident + migrated),
        })
    }

    /// Returns the number of pages that were migrated.
    fn move_by(&self, mut pages: Collected<'_>, plan: &Plan<'_>, pfns: &[Pfn]) -> Result<usize> {
        if plan.moving == 0 {
            // Dropping the pages puts them back.
            return Ok(0);
        }

        let mut arrays = CopyArrays::new(pages.nr_pages())?;
        let mut start = 0;

        while let Some(run) = plan.run(&pages, start) {
            start = run.pages.end;
            match run.from {
                From::Ram => self.copy_ram(&mut pages, plan, run.pages, pfns, &mut arrays)?,
                From::Device(from) => {
                    self.copy_peer(&mut pages, plan, run.pages, &from, pfns, &mut arrays)?
                }
            }
        }
        self.zdd.devmem().start_timeslice(self.details.timeslice);

        // What was lost to a race stays where it was; the rest is in device memory, and right there.
        let migrated = pages.migrate();
        let nr_migrated = if plan.has_device_sources {
            retire_sources(&migrated)
        } else {
            migrated.nr_migrated()
        };
        if self.want == Want::All && nr_migrated < plan.moving {
            return Err(EBUSY);
        }
        Ok(nr_migrated)
    }

    /// From RAM, or from nowhere.
    fn copy_ram(
        &self,
        pages: &mut Collected<'_>,
        plan: &Plan<'_>,
        run: Range<usize>,
        pfns: &[Pfn],
        arrays: &mut CopyArrays,
    ) -> Result {
        let devmem = self.zdd.devmem();
        let start = run.start;
        let (mut device_pages, addrs) = arrays.part(run.clone())?;
        let mut dma = devmem.dma_mapping(DmaDirection::ToDevice, addrs)?;

        pages.fill_part(run, |step| {
            if !plan.moves(step) {
                return Ok(None);
            }
            let folio = self.attach(step, pfns)?;

            if let Some(source) = step.folio() {
                dma.map(step.index - start, source)?;
            }
            device_pages.set(step.index - start, &folio, step.nr_pages(), dma.addrs());
            Ok(Some(folio))
        })?;
        dma.sync()?;
        devmem.copy_to_devmem(&mut device_pages, dma.addrs())
    }

    /// From the memory of another device, or another place of this one's.
    fn copy_peer(
        &self,
        pages: &mut Collected<'_>,
        plan: &Plan<'_>,
        run: Range<usize>,
        from: &Zdd,
        pfns: &[Pfn],
        arrays: &mut CopyArrays,
    ) -> Result {
        let start = run.start;
        let (mut device_pages, addrs) = arrays.part(run.clone())?;
        let mut mapping = PeerMapping::new(self.zdd.dpagemap(), from.dpagemap(), addrs);

        pages.fill_part(run, |step| {
            if !plan.moves(step) {
                return Ok(None);
            }
            let folio = self.attach(step, pfns)?;

            mapping.map(step.index - start, &folio, DmaDirection::FromDevice)?;
            if let Some(source) = step.folio() {
                device_pages.set(step.index - start, source, step.nr_pages(), mapping.addrs());
            }
            Ok(Some(folio))
        })?;
        from.devmem()
            .copy_to_ram(&mut device_pages, mapping.addrs(), Some(self.zdd.devmem()))
    }

    /// Takes the frames into use that are for a source.
    #[inline]
    fn attach(&self, step: &Step<'_>, pfns: &[Pfn]) -> Result<LockedFolio> {
        Zdd::attach(self.zdd, *pfns.get(step.index).ok_or(EINVAL)?, step.order())
    }
}

/// Where the pages of a run come from.
enum From {
    /// RAM, or nowhere.
    Ram,
    /// Allocations of a device, this being one of them.
    Device(ARef<Zdd>),
}

/// Pages that one driver copies in one go.
struct Run {
    pages: Range<usize>,
    from: From,
}

/// What becomes of the pages of a chunk, seen from the pagemap that they shall go to.
struct Plan<'a> {
    zdd: &'a Zdd,
    /// Pages that are in the device memory already.
    resident: usize,
    /// Whether those are moved too.
    move_resident: bool,
    /// Pages that are moved.
    moving: usize,
    /// Whether there are any in device memory, this one or another.
    has_device_sources: bool,
}

impl<'a> Plan<'a> {
    /// [`EBUSY`] if all is wanted and can't be had.
    fn new(pages: &Collected<'_>, chunk: &Chunk<'a>) -> Result<Self> {
        let mut this = Self {
            zdd: chunk.zdd,
            resident: 0,
            move_resident: chunk.want == Want::All
                && chunk.details.can_migrate_same_pagemap
                && chunk.zdd.dpagemap().has_device_map(),
            moving: 0,
            has_device_sources: false,
        };

        for step in pages.steps() {
            let folio = step.folio().filter(|folio| folio.is_zone_device());

            if let Some(folio) = folio {
                this.has_device_sources = true;
                if this.is_resident(folio) {
                    this.resident += step.nr_pages();
                }
            }
            if step.is_migrating() && folio.is_none_or(|folio| this.can_move(folio)) {
                this.moving += step.nr_pages();
            }
        }
        // All of it is where it shall be, or will be.
        let all = this.moving == pages.nr_pages() || this.resident == pages.nr_pages();
        if chunk.want == Want::All && !all {
            return Err(EBUSY);
        }
        Ok(this)
    }

    fn is_resident(&self, folio: &Folio) -> bool {
        self.zdd.dpagemap().owns(folio.pgmap())
    }

    /// Whether a folio of a zone device can be moved.
    fn can_move(&self, folio: &Folio) -> bool {
        if self.is_resident(folio) {
            self.move_resident
        } else if folio.is_device_private() {
            // In the memory of another device, whose driver must be one of this layer's to copy.
            self.zdd.dpagemap().has_device_map() && Zdd::of_folio(folio).is_some()
        } else {
            true
        }
    }

    /// Whether a source, which can be migrated, is.
    #[inline]
    fn moves(&self, step: &Step<'_>) -> bool {
        !self.has_device_sources
            || step
                .folio()
                .filter(|folio| folio.is_zone_device())
                .is_none_or(|folio| self.can_move(folio))
    }

    /// The pages from `start` on that one driver can copy in one go.
    fn run(&self, pages: &Collected<'_>, start: usize) -> Option<Run> {
        if !self.has_device_sources {
            return (start == 0).then(|| Run {
                pages: 0..pages.nr_pages(),
                from: From::Ram,
            });
        }

        let mut moving = pages
            .steps_from(start)
            .filter(|step| step.is_migrating() && self.moves(step));
        let first = moving.next()?;
        let from = source(&first);
        let last = moving
            .take_while(|step| is_same(from, source(step)))
            .last()
            .unwrap_or(first);

        Some(Run {
            pages: start..last.pages().end,
            from: from.map_or(From::Ram, |zdd| From::Device(zdd.into())),
        })
    }
}

/// The allocation of device memory that a source is in.
fn source<'a>(step: &Step<'a>) -> Option<&'a Zdd> {
    step.folio()
        .filter(|folio| folio.is_device_private())
        .and_then(Zdd::of_folio)
}

/// Whether the same driver can copy both in the same way.
fn is_same(a: Option<&Zdd>, b: Option<&Zdd>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            core::ptr::eq(a.dpagemap(), b.dpagemap()) && a.devmem().has_ops_of(b.devmem())
        }
        _ => false,
    }
}
