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
        LockedMm,
        Survey,
        VmaRange,
        NR_PMD_PAGES, //
    },
    places::{
        Ask,
        Places, //
    },
    scratch::LargeScratch,
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

/// What a PMD maps, in bytes.
const PMD_SIZE: usize = NR_PMD_PAGES * PAGE_SIZE;

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
/// A range is migrated in chunks of what a PMD maps, a large one by several processors at a time; or,
/// where all folios are as large as that, in chunks of up to [`LARGE_PAGES`](crate::mm), by three
/// tasks in turns. Each of them takes the mmap lock for reading, too, unless somebody waits for it. So
/// the memory that it takes does not grow with the range, but for 8 bytes a page if `ask` is [`None`]:
/// then the driver is asked for all frames at once, by its operation. If all is wanted, and a chunk
/// fails, those before it are brought home.
///
/// # Errors
///
/// - [`EOPNOTSUPP`]: the driver lacks an operation that this needs, or the area is not private
///   anonymous memory, nor a [private mapping of a file](Details::private_files) of which that is asked;
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
    let is_file = !crate::mm::vma_is_anonymous(vma);
    if is_file
        && !(details.private_files && want == Want::Missing && crate::mm::vma_is_private_file(vma))
    {
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

    if pages.is_in_one_pmd() && !is_file {
        let places = Places::at_once(zdd.devmem(), ask);
        let outcome = in_one_pmd(&zdd, &pages, details, want, &places);

        zdd.devmem().put_fence();
        *moved = outcome.as_ref().map_or(0, |outcome| outcome.migrated);
        return outcome;
    }

    let places = Places::new(zdd.devmem(), pages.nr_pages(), ask)?;
    let job = Job {
        zdd,
        is_file,
        is_large: !is_file && pages.is_large(),
        mm: mm.mm(),
        next: Atomic::new(range.start),
        range,
        details,
        want,
        places,
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
    Chunk {
        zdd,
        details,
        want,
        busy: || (),
    }
    .migrate(pages, 0, places)
}

/// The migration of a range, on which several processors may work.
struct Job<'a> {
    zdd: ARef<Zdd>,
    /// Whether the area is a private mapping of a file: what is written to is migrated, the rest left.
    is_file: bool,
    /// Whether there are large folios, but for the ends.
    is_large: bool,
    mm: &'a MmWithUser,
    range: Range<usize>,
    details: &'a Details,
    want: Want,
    places: Places<'a>,
    /// The first address that nobody has begun with yet.
    next: Atomic<usize>,
    /// The first error, an errno, or 0.
    error: Atomic<i32>,
    /// Pages so far.
    migrated: Atomic<usize>,
    resident: Atomic<usize>,
}

impl Job<'_> {
    /// How many PMDs map the range.
    fn nr_pmds(&self) -> usize {
        (self.range.end - 1) / PMD_SIZE - self.range.start / PMD_SIZE + 1
    }

    fn run(&self, vma: &VmaRef, moved: &mut usize) -> Result<Outcome> {
        // The lock is taken once more, as each task that looks at areas must have it. This does not
        // wait: somebody may be queued for writing, and be waiting for the caller.
        let help = || {
            let mm = LockedMm::try_read(self.mm);

            if let Some(vma) = mm.as_ref().and_then(|mm| mm.vma_lookup(self.range.start)) {
                self.work(vma, &|| ());
            }
        };
        let progress = || self.next.load(Relaxed);

        if self.is_large {
            crew::work_by_turns(self.nr_pmds(), &help, |busy| self.work(vma, busy));
        } else {
            crew::work_together(self.nr_pmds(), &help, progress, || self.work(vma, &|| ()));
        }
        self.zdd.devmem().put_fence();
        self.outcome(moved)
    }

    /// Migrates chunks until there are no more, or one has failed. Calls `busy` before each copy of a
    /// large one.
    fn work(&self, vma: &VmaRef, busy: &dyn Fn()) {
        let mut scratch = LargeScratch::new(self.is_large);

        while self.error.load(Relaxed) == 0 {
            match self.chunk(vma, &mut scratch, busy) {
                Ok(Some(outcome)) => {
                    self.migrated.add(outcome.migrated, Relaxed);
                    self.resident.add(outcome.resident, Relaxed);
                }
                Ok(None) => break,
                Err(err) => {
                    let _ = self.error.cmpxchg(0, err.to_errno(), Relaxed);
                }
            }
        }
    }

    /// Migrates the next chunk; [`None`] if there is none.
    fn chunk(
        &self,
        vma: &VmaRef,
        scratch: &mut LargeScratch,
        busy: &dyn Fn(),
    ) -> Result<Option<Outcome>> {
        let mut at = self.next.load(Relaxed);

        while at < self.range.end {
            let part = self.part(vma, at, scratch.most_pages())?;
            let end = part
                .as_ref()
                .map_or(self.range.end, |part| part.addresses().end);

            if let Err(now) = self.next.cmpxchg(at, end, Relaxed) {
                at = now;
                continue;
            }
            let Some(part) = part else {
                break;
            };

            let (index, places) = (self.index(part.start()), &self.places);
            let chunk = Chunk {
                zdd: &self.zdd,
                details: self.details,
                want: self.want,
                busy,
            };

            return match scratch.room(part.nr_pages()) {
                Some(room) => chunk.migrate_with(&part, index, places, || Ok(room)),
                None => chunk.migrate(&part, index, places),
            }
            .map(Some);
        }
        Ok(None)
    }

    /// The chunk that begins at the address `at`, of up to `most` pages; of a file's mapping the first
    /// one behind it, if there are any.
    fn part<'v>(&self, vma: &'v VmaRef, at: usize, most: usize) -> Result<Option<VmaRange<'v>>> {
        let rest = VmaRange::new(vma, at..self.range.end)?;
        if self.is_file {
            return Ok(rest.first_written());
        }
        let part = rest.first_part(most);
        if part.nr_pages() <= NR_PMD_PAGES {
            return Ok(Some(part));
        }

        // What is pinned in RAM keeps no more there than what the same PMD maps.
        if self.want == Want::Missing && self.zdd.policy().stays(self.mm, part.addresses()) {
            return Ok(Some(rest.first_part(NR_PMD_PAGES)));
        }
        let index = self.index(at);
        let large = self
            .places
            .nr_in_large(index..index + part.nr_pages(), |_| true);

        Ok(Some(rest.first_part(large)))
    }

    /// The page of the allocation for the address `at`.
    fn index(&self, at: usize) -> usize {
        (at - self.range.start) >> PAGE_SHIFT
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
