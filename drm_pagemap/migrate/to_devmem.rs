// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! From RAM, from nowhere, or from another device, to device memory.

use crate::{
    crew,
    dpagemap_devmem::DevmemRef,
    migrate::{
        chunk::Chunk,
        evict,
        one_page,
        Details,
        Outcome,
        Want, //
    },
    mm::{
        pmd_part,
        LockedMm,
        Survey,
        VmaRange,
        NR_PMD_PAGES, //
    },
    places::{
        Ask,
        Places, //
    },
    trace::Span,
    zdd::Zdd,
};
use core::ops::Range;
use kernel::{
    mm::{
        virt::VmaRef,
        MmWithUser, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        }, //
    }, //
};

/// What a PMD maps, in bytes: pages are collected, copied and migrated by the chunk.
const CHUNK: usize = NR_PMD_PAGES * PAGE_SIZE;

/// Ranges of as many chunks are shared among processors.
const SHARED_CHUNKS: usize = 4;

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
/// A range is migrated in chunks of what a PMD maps, a large one by several processors at a time,
/// each of which takes the mmap lock for reading, too, unless somebody waits for it. So the memory
/// that it takes does not grow with the range, but for 8 bytes a page if `ask` is [`None`]: then the
/// driver is asked for all frames at once, by its operation. If all is wanted, and a chunk fails,
/// those before it are brought home.
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
pub(crate) fn to_devmem(
    devmem: DevmemRef,
    mm: &LockedMm<'_>,
    range: Range<usize>,
    details: &Details,
    want: Want,
    ask: Option<Ask<'_>>,
) -> Result<Outcome> {
    let span = Span::migrate(&devmem, mm, &range);
    let mut moved = 0;
    let result = migrate(devmem, mm, range, details, want, ask, &mut moved);

    span.end(&result, moved);
    result
}

/// `moved` becomes the number of pages that have moved, and stay where they are now.
fn migrate(
    devmem: DevmemRef,
    mm: &LockedMm<'_>,
    range: Range<usize>,
    details: &Details,
    want: Want,
    ask: Option<Ask<'_>>,
    moved: &mut usize,
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

    let pages = VmaRange::new(vma, range.clone())?;
    let defragment = details.defragment
        && details.can_migrate_same_pagemap
        && devmem.dpagemap().has_device_map();
    let zone = devmem.dpagemap().zone_device();
    if want == Want::All && !defragment && Survey::is_all_resident(&pages, zone) {
        return Ok(Outcome {
            resident: pages.nr_pages(),
            ..Outcome::default()
        });
    }

    let zdd = Zdd::new(devmem)?;
    let details = &Details {
        timeslice: match want {
            Want::All => zdd
                .policy()
                .timeslice(mm.mm(), range.clone(), details.timeslice),
            // What is pinned is left out.
            Want::Missing => details.timeslice,
        },
        ..*details
    };

    if pages.is_in_one_pmd() {
        let places = Places::at_once(zdd.devmem(), ask);
        let outcome = in_one_pmd(&zdd, &pages, details, want, &places);

        zdd.devmem().put_fence();
        *moved = outcome.as_ref().map_or(0, |outcome| outcome.migrated);
        return outcome;
    }

    let places = Places::new(zdd.devmem(), pages.nr_pages(), ask)?;
    let job = Job {
        zdd,
        mm: mm.mm(),
        range,
        details,
        want,
        places,
        next: Atomic::new(0),
        error: Atomic::new(0),
        migrated: Atomic::new(0),
        resident: Atomic::new(0),
    };

    job.run(vma, moved)
}

/// The migration of a range that one PMD maps.
#[inline(always)]
fn in_one_pmd(
    zdd: &ARef<Zdd>,
    pages: &VmaRange<'_>,
    details: &Details,
    want: Want,
    places: &Places<'_>,
) -> Result<Outcome> {
    if pages.nr_pages() == 1 && want == Want::All && one_page::migrate(zdd, pages, details, places)?
    {
        return Ok(Outcome {
            migrated: 1,
            ..Outcome::default()
        });
    }
    Chunk { zdd, details, want }.migrate(pages, 0, places)
}

/// The migration of a range, on which several processors may work.
struct Job<'a> {
    zdd: ARef<Zdd>,
    mm: &'a MmWithUser,
    range: Range<usize>,
    details: &'a Details,
    want: Want,
    places: Places<'a>,
    /// The chunk that nobody has begun yet.
    next: Atomic<usize>,
    /// The first error, an errno, or 0.
    error: Atomic<i32>,
    /// Pages so far.
    migrated: Atomic<usize>,
    resident: Atomic<usize>,
}

impl Job<'_> {
    fn nr_chunks(&self) -> usize {
        (self.range.end - 1) / CHUNK - self.range.start / CHUNK + 1
    }

    fn run(&self, vma: &VmaRef, moved: &mut usize) -> Result<Outcome> {
        let nr_chunks = self.nr_chunks();
        if nr_chunks < SHARED_CHUNKS {
            self.work(vma, nr_chunks);
        } else {
            // The lock is taken once more, as each task that looks at areas must have it. This does
            // not wait: somebody may be queued for writing, and be waiting for the caller.
            let help = || {
                let mm = LockedMm::try_read(self.mm);

                if let Some(vma) = mm.as_ref().and_then(|mm| mm.vma_lookup(self.range.start)) {
                    self.work(vma, nr_chunks);
                }
            };

            let progress = || self.next.load(Relaxed);

            crew::work_together(nr_chunks, &help, progress, || self.work(vma, nr_chunks));
        }
        self.zdd.devmem().put_fence();
        self.outcome(moved)
    }

    /// Migrates chunks until there are no more, or one has failed.
    fn work(&self, vma: &VmaRef, nr_chunks: usize) {
        while self.error.load(Relaxed) == 0 {
            let nth = self.next.fetch_add(1, Relaxed);

            if nth >= nr_chunks {
                break;
            }
            match self.chunk(vma, nth) {
                Ok(outcome) => {
                    self.migrated.add(outcome.migrated, Relaxed);
                    self.resident.add(outcome.resident, Relaxed);
                }
                Err(err) => {
                    let _ = self.error.cmpxchg(0, err.to_errno(), Relaxed);
                }
            }
        }
    }

    fn chunk(&self, vma: &VmaRef, nth: usize) -> Result<Outcome> {
        let part = pmd_part(&self.range, self.range.start + nth * CHUNK);
        let index = (part.start - self.range.start) >> PAGE_SHIFT;

        Chunk {
            zdd: &self.zdd,
            details: self.details,
            want: self.want,
        }
        .migrate(&VmaRange::new(vma, part)?, index, &self.places)
    }

    fn outcome(&self, moved: &mut usize) -> Result<Outcome> {
        let nr_pages = self.range.len() >> PAGE_SHIFT;
        let migrated = self.migrated.load(Relaxed);
        let resident = self.resident.load(Relaxed).min(nr_pages - migrated);

        *moved = migrated;
        match self.error.load(Relaxed) {
            0 => Ok(Outcome {
                migrated,
                resident,
                left: nr_pages - migrated - resident,
            }),
            errno => {
                if self.want == Want::All && migrated > 0 {
                    let undone = evict::undo(&self.zdd, &self.places, nr_pages);

                    *moved = moved.saturating_sub(undone);
                }
                Err(Error::from_errno(errno))
            }
        }
    }
}
