// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A driver wants its device memory back.

use crate::{
    crew,
    dpagemap::DrmPagemap,
    dpagemap_devmem::DrmPagemapDevmem,
    migrate::home::{
        bring_home,
        Home, //
    },
    mm::{
        self,
        Arrays,
        AsRoom,
        Collected,
        Entries,
        Pfn,
        RamPolicy,
        LARGE_PAGES,
        NR_PMD_PAGES, //
    },
    page_array::CopyEntries,
    places::{
        Ask,
        Places, //
    },
    pool::Lent,
    scratch::{
        LargeScratch,
        Scratch, //
    },
    trace::Span,
    zdd::Zdd,
};
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        }, //
    },
    time::msecs_to_jiffies, //
};

/// How often an eviction is tried.
const TRIES: usize = 3;

/// How long an eviction waits for passing references on pages that it has emptied, in milliseconds
/// a try. Before the last one, the core gives up those that it has.
const PASSING_MS: u32 = 10;

/// Moves all pages of `devmem` to RAM, and sees to it that the allocation is released.
///
/// Ends the allocation's time slice: a CPU that waits for it keeps taking the page's lock, which
/// would be in the way here; now it takes the page home itself. Looks at physical pages only, so it
/// works wherever they are mapped, in any number of processes, also when the address space that
/// they were migrated from is gone. Large folios for which there is no RAM are split, for which the
/// mmap lock of a process that has them is taken, but not waited for. May sleep. The caller must
/// keep `devmem` in memory. `moved` is raised by the number of pages that were moved, also if it
/// fails in the end.
///
/// # Errors
///
/// [`EBUSY`]: some pages are pinned or locked for longer. [`ENOMEM`], [`EFAULT`] (a page can't be
/// mapped for the device), and what the driver's operations say. What could not be moved stays in
/// device memory, intact.
///
/// `ask` says where the pages are; without it, the driver's operation does, of all at once.
pub(crate) fn to_ram(devmem: &DrmPagemapDevmem, ask: Option<Ask<'_>>, moved: &mut usize) -> Result {
    let span = Span::evict(devmem);
    let before = *moved;
    let result = all_to_ram(devmem, ask, moved);

    span.end(&result, *moved - before);
    result
}

fn all_to_ram(devmem: &DrmPagemapDevmem, ask: Option<Ask<'_>>, moved: &mut usize) -> Result {
    let mut result = Ok(());

    devmem.end_timeslice();
    for tries in 0..TRIES {
        if devmem.wait_detached(0) {
            return Ok(());
        }
        if tries + 1 == TRIES {
            crew::on_each_processor(&mm::drain_batches);
        }
        let again = once_of(devmem, ask, moved);
        // The completion is there at once, unless somebody else has a passing reference on a page.
        let wait = match again {
            Ok(true) => 0,
            _ => msecs_to_jiffies(PASSING_MS),
        };
        if devmem.wait_detached(wait) {
            return Ok(());
        }
        result = again.map(|_| ());
    }
    result.and(Err(EBUSY))
}

/// One try, of all pages of an allocation. Returns as [`once`] does.
#[inline(always)]
fn once_of(devmem: &DrmPagemapDevmem, ask: Option<Ask<'_>>, moved: &mut usize) -> Result<bool> {
    let nr_pages = devmem.nr_pages();
    let places = if nr_pages <= NR_PMD_PAGES {
        Places::at_once(devmem, ask)
    } else {
        Places::new(devmem, nr_pages, ask)?
    };

    once(devmem, &places, nr_pages, moved)
}

/// Brings home what was migrated to the first `nr_pages` pages of an allocation just now, as far as
/// that can be done at once. Returns the number of pages that came home.
pub(super) fn undo(zdd: &Zdd, places: &Places<'_>, nr_pages: usize) -> usize {
    let mut moved = 0;

    zdd.devmem().end_timeslice();
    while let Ok(true) = once(zdd.devmem(), places, nr_pages, &mut moved) {}
    moved
}

/// One try. Returns whether there are folios that were split, to be moved by the next one.
#[inline(always)]
fn once(
    devmem: &DrmPagemapDevmem,
    places: &Places<'_>,
    nr_pages: usize,
    moved: &mut usize,
) -> Result<bool> {
    if nr_pages > NR_PMD_PAGES {
        return Job::new(devmem, places, nr_pages).run(moved);
    }

    let mut scratch = Lent::<Scratch>::new()?;
    let Scratch {
        entries,
        copies,
        pfns,
    } = &mut *scratch;
    let frames = places.frames(0..nr_pages, devmem.dpagemap().zone_device(), pfns)?;
    let pages = devmem.collect(&frames, Arrays::within(entries, nr_pages)?)?;

    chunk(devmem, pages, copies, moved, &|| ())
}

/// One try, on which several tasks may work.
struct Job<'a> {
    devmem: &'a DrmPagemapDevmem,
    places: &'a Places<'a>,
    nr_pages: usize,
    /// Whether there are large folios, but for the end.
    is_large: bool,
    /// The first page that nobody has begun with yet.
    next: Atomic<usize>,
    /// Pages so far.
    moved: Atomic<usize>,
    /// Whether folios were split.
    again: Atomic<bool>,
    /// The first error, an errno, or 0.
    error: Atomic<i32>,
}

impl<'a> Job<'a> {
    fn new(devmem: &'a DrmPagemapDevmem, places: &'a Places<'a>, nr_pages: usize) -> Self {
        let mut this = Self {
            devmem,
            places,
            nr_pages,
            is_large: false,
            next: Atomic::new(0),
            moved: Atomic::new(0),
            again: Atomic::new(false),
            error: Atomic::new(0),
        };

        this.is_large = nr_pages - this.nr_in_large(0, nr_pages) < NR_PMD_PAGES;
        this
    }

    /// Returns as [`once`] does.
    fn run(&self, moved: &mut usize) -> Result<bool> {
        let nr_pmds = crew::for_ram(self.nr_pages / NR_PMD_PAGES);
        let work = || self.work(&|| ());

        if self.is_large {
            crew::work_by_turns(nr_pmds, &work, |busy| self.work(busy));
        } else {
            crew::work_together(nr_pmds, &work, || self.next.load(Relaxed), work);
        }
        *moved += self.moved.load(Relaxed);
        match self.error.load(Relaxed) {
            0 => Ok(self.again.load(Relaxed)),
            errno => Err(Error::from_errno(errno)),
        }
    }

    /// Moves chunks until there are no more, or one has failed. Calls `busy` before each copy.
    fn work(&self, busy: &dyn Fn()) {
        let mut large = LargeScratch::new(self.is_large);
        let result = match large.room(LARGE_PAGES) {
            Some(room) => self.chunks(room, busy),
            None => Lent::<Scratch>::new().and_then(|mut room| self.chunks(&mut room, busy)),
        };

        if let Err(err) = result {
            let _ = self.error.cmpxchg(0, err.to_errno(), Relaxed);
        }
    }

    /// The same, in the room that is given.
    fn chunks<const N: usize>(&self, scratch: &mut Scratch<N>, busy: &dyn Fn()) -> Result
    where
        Entries<N>: AsRoom,
    {
        let zone = self.devmem.dpagemap().zone_device();
        let Scratch {
            entries,
            copies,
            pfns,
        } = scratch;
        let mut start = self.next.load(Relaxed);

        while start < self.nr_pages && self.error.load(Relaxed) == 0 {
            let end = self.end(start, N);
            let mut frames = self.places.frames(start..end, zone, pfns)?;
            if end < self.nr_pages {
                frames = frames.first(whole_folios(frames.pfns()));
            }
            let nr = frames.pfns().len();

            if let Err(now) = self.next.cmpxchg(start, start + nr, Relaxed) {
                start = now;
                continue;
            }
            let mut moved = 0;
            let pages = self.devmem.collect(&frames, Arrays::within(entries, nr)?)?;
            let again = chunk(self.devmem, pages, copies, &mut moved, &busy)?;

            self.moved.add(moved, Relaxed);
            if again {
                self.again.store(true, Relaxed);
            }
            start = self.next.load(Relaxed);
        }
        Ok(())
    }

    /// Where the chunk ends that starts with page `start`: what a PMD maps; or, as far as folios are
    /// as large as that, `most` pages.
    fn end(&self, start: usize, most: usize) -> usize {
        let most = self.nr_pages.min(start + most);
        let nr = match most - start {
            ..=NR_PMD_PAGES => NR_PMD_PAGES,
            _ => self.nr_in_large(start, most).max(NR_PMD_PAGES),
        };

        most.min(start + nr)
    }

    /// How many pages, from `start` to `end`, are in folios that a PMD maps.
    fn nr_in_large(&self, start: usize, end: usize) -> usize {
        let zone = self.devmem.dpagemap().zone_device();

        self.places
            .nr_in_large(start..end, |first| zone.has_large_at(first))
    }
}

/// How many of `pfns` there are before a folio that may go on behind them; not 0.
fn whole_folios(pfns: &[Pfn]) -> usize {
    let Some(last) = pfns.last() else {
        return 0;
    };
    // Where it would begin, its frames being contiguous.
    let behind = last.as_usize() % NR_PMD_PAGES;
    let first = Pfn::new(last.as_usize() - behind);

    match pfns.len().checked_sub(behind + 1) {
        Some(at) if at > 0 && behind + 1 < NR_PMD_PAGES && pfns.get(at) == Some(&first) => at,
        _ => pfns.len(),
    }
}

/// Moves to RAM what is in use of the allocation, of these pages. Returns as [`once`] does.
#[inline(always)]
fn chunk<const N: usize>(
    devmem: &DrmPagemapDevmem,
    pages: Collected<'_>,
    copies: &mut CopyEntries<N>,
    moved: &mut usize,
    busy: &impl Fn(),
) -> Result<bool> {
    // Pages of another allocation may be there only if the driver has reused its memory already.
    let Some(zdd) = zdd_of(&pages, |zdd| {
        core::ptr::eq::<DrmPagemapDevmem>(&**zdd.devmem(), devmem)
    }) else {
        return Ok(false);
    };
    let home = bring_home(pages, &zdd, copies, |_| RamPolicy::Any, busy)?;

    *moved += home.moved;
    Ok(split_large(&zdd, &home))
}

/// The first zone device data that is `wanted`, among those of pages that have something to bring
/// home.
fn zdd_of(pages: &Collected<'_>, wanted: impl Fn(&Zdd) -> bool) -> Option<ARef<Zdd>> {
    pages
        .steps()
        .filter_map(|step| step.folio())
        .filter(|folio| !Zdd::is_retired(folio))
        .filter_map(Zdd::of_folio)
        .find(|zdd| wanted(zdd))
        .map(ARef::from)
}

/// Splits the large folios that could not come home whole. Returns whether there are now smaller
/// ones.
fn split_large(zdd: &Zdd, home: &Home) -> bool {
    let zone = zdd.dpagemap().zone_device();

    home.large
        .iter()
        .fold(false, |any, &pfn| mm::split(zone, pfn) || any)
}

/// Moves to RAM whatever is in use of `npages` frames of `dpagemap` from `start` on, of all
/// allocations.
///
/// Best effort, for a device that goes away: returns whether all that was found has moved. May
/// sleep.
pub fn frames_to_ram(dpagemap: &DrmPagemap, start: Pfn, npages: usize) -> Result<bool> {
    let span = Span::evict_frames(dpagemap, npages);
    let mut moved = 0;
    let result = all_frames_to_ram(dpagemap, start, npages, &mut moved);

    span.end(&result, moved);
    result
}

fn all_frames_to_ram(
    dpagemap: &DrmPagemap,
    start: Pfn,
    npages: usize,
    moved: &mut usize,
) -> Result<bool> {
    /// Pages at a time, which bounds the memory it takes.
    const CHUNK: usize = NR_PMD_PAGES;

    let mut scratch = Lent::<Scratch>::new()?;
    let mut all = true;
    let mut done = 0;

    while done < npages {
        let nr = CHUNK.min(npages - done);
        let start = Pfn::new(start.as_usize() + done);

        // One allocation a pass.
        loop {
            let pages = dpagemap.collect(start, nr)?;
            let Some(zdd) = zdd_of(&pages, |_| true) else {
                break;
            };

            zdd.devmem().end_timeslice();
            let home = bring_home(pages, &zdd, &mut scratch.copies, |_| RamPolicy::Any, &|| ())?;

            *moved += home.moved;
            if home.moved == 0 && !split_large(&zdd, &home) {
                all = false;
                break;
            }
        }
        done += nr;
    }
    Ok(all)
}
