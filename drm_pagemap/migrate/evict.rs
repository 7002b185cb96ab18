// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A driver wants its device memory back.

use crate::{
    dpagemap::DrmPagemap,
    dpagemap_devmem::DrmPagemapDevmem,
    migrate::home::{
        bring_home,
        Home, //
    },
    mm::{
        self,
        Arrays,
        Collected,
        Pfn,
        RamPolicy,
        NR_PMD_PAGES, //
    },
    page_array::CopyEntries,
    places::{
        Ask,
        Places, //
    },
    pool::Lent,
    scratch::Scratch,
    trace::Span,
    zdd::Zdd,
};
use kernel::{
    prelude::*,
    sync::aref::ARef,
    time::msecs_to_jiffies, //
};

/// How often an eviction is tried.
const TRIES: usize = 3;

/// How long an eviction waits for passing references on pages that it has emptied, in milliseconds
/// a try.
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
    for _ in 0..TRIES {
        if devmem.wait_detached(0) {
            return Ok(());
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
    let mut scratch = Lent::<Scratch>::new()?;
    let Scratch {
        entries,
        copies,
        pfns,
    } = &mut *scratch;
    let zone = devmem.dpagemap().zone_device();
    let mut again = false;
    let mut start = 0;

    while start < nr_pages {
        let end = nr_pages.min(start + NR_PMD_PAGES);

        let mut frames = places.frames(start..end, zone, pfns)?;
        if end < nr_pages {
            frames = frames.first(whole_folios(frames.pfns()));
        }

        let nr = frames.pfns().len();
        let pages = devmem.collect(&frames, Arrays::within(entries, nr)?)?;

        again |= chunk(devmem, pages, copies, moved)?;
        start += nr;
    }
    Ok(again)
}

/// How many of `pfns` there are before the last one with which a folio may begin that goes on behind
/// them; not 0.
fn whole_folios(pfns: &[Pfn]) -> usize {
    let first = |pfn: &Pfn| pfn.as_usize() % NR_PMD_PAGES == 0;

    match pfns.iter().rposition(first) {
        Some(at) if at > 0 && pfns.len() - at < NR_PMD_PAGES => at,
        _ => pfns.len(),
    }
}

/// Moves to RAM what is in use of the allocation, of these pages. Returns as [`once`] does.
#[inline(always)]
fn chunk(
    devmem: &DrmPagemapDevmem,
    pages: Collected<'_>,
    copies: &mut CopyEntries,
    moved: &mut usize,
) -> Result<bool> {
    // Pages of another allocation may be there only if the driver has reused its memory already.
    let Some(zdd) = zdd_of(&pages, |zdd| {
        core::ptr::eq::<DrmPagemapDevmem>(&**zdd.devmem(), devmem)
    }) else {
        return Ok(false);
    };
    let home = bring_home(pages, &zdd, copies, |_| RamPolicy::Any)?;

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
            let home = bring_home(pages, &zdd, &mut scratch.copies, |_| RamPolicy::Any)?;

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
