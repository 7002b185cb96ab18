// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a PMD maps, or several, goes to device memory: from RAM, from nowhere, or from another
//! device.

use crate::{
    migrate::{
        home::{
            retire_own_sources,
            retire_sources, //
        },
        Details,
        Outcome,
        Want, //
    },
    mm::{
        Arrays,
        AsRoom,
        Collected,
        DmaDirection,
        Entries,
        Folio,
        Frames,
        Select,
        Step,
        Survey,
        Tally,
        VmaRange, //
    },
    page_array::CopyEntries,
    peer_mapping::PeerMapping,
    places::Places,
    pool::Lent,
    scratch::Scratch,
    trace,
    zdd::{
        Attach,
        Zdd, //
    },
};
use core::ops::{
    DerefMut,
    Range, //
};
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

/// How to migrate a chunk of a range to an allocation.
pub(super) struct Chunk<'a, B> {
    pub(super) zdd: &'a ARef<Zdd>,
    pub(super) details: &'a Details,
    pub(super) want: Want,
    /// Called before each copy.
    pub(super) busy: B,
}

impl<B: Fn()> Chunk<'_, B> {
    /// Migrates `range`, a [part](VmaRange::first_part) that one PMD maps, to the frames that the
    /// allocation has in `places` from page `index` on. Errors as those of
    /// [`to_devmem`](super::to_devmem::to_devmem); then nothing of it has moved, but for what went
    /// before a race was lost.
    #[inline(always)]
    pub(super) fn migrate(
        &self,
        range: &VmaRange<'_>,
        index: usize,
        places: &Places<'_>,
    ) -> Result<Outcome> {
        self.migrate_with(range, index, places, Lent::<Scratch>::new)
    }

    /// As [`migrate`](Self::migrate), also of a part that several PMDs map, in the room that `scratch`
    /// gives, if it is needed.
    pub(super) fn migrate_with<const N: usize, S: DerefMut<Target = Scratch<N>>>(
        &self,
        range: &VmaRange<'_>,
        index: usize,
        places: &Places<'_>,
        scratch: impl FnOnce() -> Result<S>,
    ) -> Result<Outcome>
    where
        Entries<N>: AsRoom,
    {
        let nr_pages = range.nr_pages();
        let mut select = Select::SYSTEM
            .and(Select::DEVICE_PRIVATE)
            .and(Select::DEVICE_COHERENT);
        let zone = self.zdd.dpagemap().zone_device();
        let mut resident = 0;

        if self.want == Want::Missing {
            let survey = Survey::of(range, zone);

            if survey.resident == nr_pages {
                return Ok(Outcome {
                    resident: nr_pages,
                    ..Outcome::default()
                });
            }
            let policy = self.zdd.policy();

            if policy.stays(range.vma().mm(), range.addresses()) {
                policy.counts().pinned_in_ram(nr_pages - survey.resident);
                return Ok(Outcome {
                    resident: survey.resident,
                    left: nr_pages - survey.resident,
                    ..Outcome::default()
                });
            }
            if survey.elsewhere == 0 {
                // Nobody isolates, and puts back, what is where it shall be.
                select = select.without(Select::DEVICE_PRIVATE);
                resident = survey.resident;
            }
        }

        let mut scratch = scratch()?;
        let Scratch {
            entries,
            copies,
            pfns,
        } = &mut *scratch;

        // Where no large folio fits, the core splits those that it collects.
        let mut frames = places.frames(index..index + nr_pages, zone, pfns)?;
        if frames.find_whole() {
            select = select.and(Select::COMPOUND);
        }

        let arrays = Arrays::within(entries, nr_pages)?;
        let pages = Collected::from_vma(range, zone.owner(), select, None, arrays)?;
        let plan = Plan::new(&pages, self);
        if self.want == Want::All && !plan.is_of_all(nr_pages) {
            return Err(EBUSY);
        }
        if !plan.move_resident {
            resident += plan.resident;
        }
        let migrated = self.move_by(pages, &plan, frames, copies)?;

        Ok(Outcome {
            migrated,
            resident,
            left: nr_pages.saturating_sub(resident + migrated),
        })
    }

    /// Returns the number of pages that were migrated.
    #[inline(always)]
    fn move_by<const N: usize>(
        &self,
        mut pages: Collected<'_>,
        plan: &Plan<'_>,
        frames: Frames<'_>,
        copies: &mut CopyEntries<N>,
    ) -> Result<usize> {
        if plan.moving == 0 {
            // Dropping the pages puts them back.
            return Ok(0);
        }

        let all = 0..pages.nr_pages();
        let mut attach = Zdd::attach(self.zdd, frames, plan.moving)?;

        if !plan.has_device_sources {
            self.copy_ram(&mut pages, plan, all, &mut attach, copies)?;
        } else if let Some(from) = &plan.uniform {
            self.copy_peer_singles(&mut pages, from, &mut attach, copies)?;
        } else {
            self.copy_runs(&mut pages, plan, &mut attach, copies)?;
        }
        drop(attach);
        self.zdd.devmem().start_timeslice(self.details.timeslice);

        // What was lost to a race stays where it was; the rest is in device memory, and right there.
        let migrated = pages.migrate();
        let nr_migrated = if let Some(from) = &plan.uniform {
            retire_own_sources(&migrated, from)
        } else if plan.has_device_sources {
            retire_sources(&migrated)
        } else {
            migrated.nr_migrated()
        };

        trace::moved(&migrated);
        if self.want == Want::All && nr_migrated < plan.moving {
            return Err(EBUSY);
        }
        Ok(nr_migrated)
    }

    /// From more than one place, or in folios of more than one page from a device.
    #[inline(never)]
    fn copy_runs<const N: usize>(
        &self,
        pages: &mut Collected<'_>,
        plan: &Plan<'_>,
        attach: &mut Attach<'_>,
        copies: &mut CopyEntries<N>,
    ) -> Result {
        let mut start = 0;

        while let Some(run) = plan.run(pages, start) {
            start = run.pages.end;
            match run.from {
                From::Ram => self.copy_ram(pages, plan, run.pages, attach, copies)?,
                From::Device(from) => {
                    self.copy_peer(pages, plan, run.pages, &from, attach, copies)?
                }
            }
        }
        Ok(())
    }

    /// From RAM, or from nowhere.
    // By itself: the loop needs all registers.
    #[inline(never)]
    fn copy_ram<const N: usize>(
        &self,
        pages: &mut Collected<'_>,
        plan: &Plan<'_>,
        run: Range<usize>,
        attach: &mut Attach<'_>,
        copies: &mut CopyEntries<N>,
    ) -> Result {
        let devmem = self.zdd.devmem();
        let start = run.start;
        let (mut device_pages, addrs) = copies.part(run.clone())?;
        let mut dma = devmem.dma_mapping(DmaDirection::ToDevice, addrs)?;

        if plan.is_simple {
            // In two turns: each has little to keep in mind.
            attach.fill(pages.singles(), |index, folio| {
                device_pages.set_single(index, folio);
            })?;
            dma.map_singles(pages.single_sources())?;
        } else {
            pages.fill(run, |step| {
                if !plan.moves(step) {
                    return Ok(None);
                }
                let folio = attach.take(step.index, step.order())?;
                let piece = match step.folio() {
                    Some(source) => dma.map(step.index - start, source)?,
                    None => 0,
                };

                device_pages.set(step.index - start, &folio, step.nr_pages(), piece);
                Ok(Some(folio))
            })?;
        }
        dma.sync()?;
        (self.busy)();
        devmem.copy_to_devmem(&mut device_pages, dma.addrs())
    }

    /// From the memory of another device, or another place of this one's.
    #[inline(never)]
    fn copy_peer<const N: usize>(
        &self,
        pages: &mut Collected<'_>,
        plan: &Plan<'_>,
        run: Range<usize>,
        from: &Zdd,
        attach: &mut Attach<'_>,
        copies: &mut CopyEntries<N>,
    ) -> Result {
        let start = run.start;
        let (mut device_pages, addrs) = copies.part(run.clone())?;
        let mut mapping = PeerMapping::new(self.zdd.dpagemap(), from.dpagemap(), addrs)?;

        pages.fill(run, |step| {
            if !plan.moves(step) {
                return Ok(None);
            }
            let folio = attach.take(step.index, step.order())?;
            let piece = mapping.map(step.index - start, &folio, DmaDirection::FromDevice)?;

            if let Some(source) = step.folio() {
                device_pages.set(step.index - start, source, step.nr_pages(), piece);
            }
            Ok(Some(folio))
        })?;
        (self.busy)();
        from.devmem()
            .copy_to_ram(&mut device_pages, mapping.addrs(), Some(self.zdd.devmem()))
    }

    /// The same for single pages, which all of the range are.
    #[inline(never)]
    fn copy_peer_singles<const N: usize>(
        &self,
        pages: &mut Collected<'_>,
        from: &Zdd,
        attach: &mut Attach<'_>,
        copies: &mut CopyEntries<N>,
    ) -> Result {
        let (mut device_pages, addrs) = copies.part(0..pages.nr_pages())?;
        let mut mapping = PeerMapping::new(self.zdd.dpagemap(), from.dpagemap(), addrs)?;

        // In three turns: each has little to keep in mind.
        let sources = pages.single_sources();

        for index in 0..sources.nr_pages() {
            if let Some(source) = sources.at(index) {
                device_pages.set_single(index, source);
            }
        }
        attach.fill(pages.singles(), |_, _| ())?;

        let folios = pages.single_destinations();

        for index in 0..folios.nr_pages() {
            if let Some(folio) = folios.at(index) {
                mapping.map_single(index, folio, DmaDirection::FromDevice)?;
            }
        }
        (self.busy)();
        from.devmem()
            .copy_to_ram(&mut device_pages, mapping.addrs(), Some(self.zdd.devmem()))
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
    /// Whether all sources are single pages of RAM, or nowhere.
    is_simple: bool,
    /// If all sources are single pages of one allocation on another device: that one.
    uniform: Option<ARef<Zdd>>,
}

impl<'a> Plan<'a> {
    #[inline(always)]
    fn new<B>(pages: &Collected<'_>, chunk: &Chunk<'a, B>) -> Self {
        let mut this = Self {
            zdd: chunk.zdd,
            resident: 0,
            move_resident: chunk.want == Want::All
                && chunk.details.can_migrate_same_pagemap
                && chunk.zdd.dpagemap().has_device_map(),
            moving: 0,
            has_device_sources: false,
            is_simple: false,
            uniform: None,
        };

        let tally = pages.tally();

        this.has_device_sources = tally.has_device;
        this.is_simple = !tally.has_device && !tally.has_large;
        this.moving = tally.migrating;
        if tally.has_device {
            this.uniform = this.one_source(pages, &tally);
            if this.uniform.is_none() {
                this.look_closer(pages);
            }
        }
        this
    }

    /// Whether all of `nr_pages` pages are where they shall be, or will be.
    fn is_of_all(&self, nr_pages: usize) -> bool {
        self.moving == nr_pages || self.resident == nr_pages
    }

    /// The allocation on another device of which all sources are single pages that move.
    #[inline(always)]
    fn one_source(&self, pages: &Collected<'_>, tally: &Tally) -> Option<ARef<Zdd>> {
        if tally.has_large || tally.migrating < pages.nr_pages() {
            return None;
        }
        let first = pages.steps().next()?.folio()?;
        let zdd = Zdd::of_folio(first)?;

        if self.is_resident(first) || !self.can_move(first) {
            return None;
        }
        let sources = pages.single_sources();

        for index in 0..sources.nr_pages() {
            if !sources.at(index).is_some_and(|source| zdd.is_of(source)) {
                return None;
            }
        }
        Some(zdd.into())
    }

    /// Counts what moves, where not all of it comes from RAM.
    #[inline(never)]
    fn look_closer(&mut self, pages: &Collected<'_>) {
        self.moving = 0;
        for step in pages.steps() {
            let folio = step.folio().filter(|folio| folio.is_zone_device());

            if folio.is_some_and(|folio| self.is_resident(folio)) {
                self.resident += step.nr_pages();
            }
            if step.is_migrating() && folio.is_none_or(|folio| self.can_move(folio)) {
                self.moving += step.nr_pages();
            }
        }
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
