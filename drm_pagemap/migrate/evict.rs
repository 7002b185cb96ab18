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
        Collected,
        Pfn,
        RamPolicy, //
    },
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
pub fn to_ram(devmem: &DrmPagemapDevmem, moved: &mut usize) -> Result {
    let mut result = Ok(());

    devmem.end_timeslice();
    for _ in 0..TRIES {
        if devmem.wait_detached(0) {
            return Ok(());
        }
        let again = once(devmem, moved);
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

/// One try. Returns whether there are folios that were split, to be moved by the next one.
fn once(devmem: &DrmPagemapDevmem, moved: &mut usize) -> Result<bool> {
    let pages = devmem.collect()?;

    // Pages of another allocation may be there only if the driver has reused its memory already.
    let Some(zdd) = zdd_of(&pages, |zdd| {
        core::ptr::eq::<DrmPagemapDevmem>(&**zdd.devmem(), devmem)
    }) else {
        return Ok(false);
    };
    let home = bring_home(pages, &zdd, |_| RamPolicy::Any)?;

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
    /// Pages at a time, which bounds the memory it takes.
    const CHUNK: usize = 512;

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
            let home = bring_home(pages, &zdd, |_| RamPolicy::Any)?;
            if home.moved == 0 && !split_large(&zdd, &home) {
                all = false;
                break;
            }
        }
        done += nr;
    }
    Ok(all)
}
