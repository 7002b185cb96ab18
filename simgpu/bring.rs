// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Bringing to VRAM what the GPU is about to use, as far as that is possible.

use crate::{
    pagemap::SimgpuPagemap,
    populate::{
        make_room,
        ROOM_TRIES, //
    },
    range::part_where,
    vram::{
        Allocation,
        Origin, //
    }, //
};
use core::ops::Range;
use drm_pagemap::{
    migrate::{
        Details,
        Outcome, //
    },
    mm::{
        touch,
        Access,
        LockedMm,
        Place, //
    },
    Devmem,
    NewDevmem,
    Pagemap, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::{
        aref::ARef,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Brings to VRAM what of `range`, a part of an area, is not there; what can't be moved stays.
///
/// What is there already is [used](crate::vram::Vram) by this. Pages in the VRAM of other GPUs are
/// sent by those, over the link; where there is none they come by RAM. If there is no room, the
/// allocations that were used the longest time ago are evicted, of whatever process. If others are
/// quicker to take what was freed, again and again, all stays where it is. May sleep; the mmap lock
/// must not be held.
///
/// Returns how many pages were brought. [`EOPNOTSUPP`]: it is not private anonymous memory.
/// [`ENODEV`], and what else migration says.
pub(crate) fn bring(
    pagemap: ArcBorrow<'_, Pagemap<SimgpuPagemap>>,
    mm: &MmWithUser,
    range: &Range<usize>,
    timeslice_ms: u32,
) -> Result<usize> {
    let spared = Origin::new(mm, range.clone());
    let mut fetched = false;
    let mut brought = 0;

    for tries in 0..ROOM_TRIES as i64 {
        let missing = missing(&pagemap, mm, range)?;
        if missing.is_empty() {
            return Ok(brought);
        }
        match bring_once(pagemap, mm, missing.clone(), timeslice_ms) {
            Ok(outcome) => {
                brought += outcome.migrated;
                if outcome.left == 0 || fetched {
                    return Ok(brought);
                }
                fetched = true;
                if !fetch(&pagemap, mm, missing).unwrap_or(false) {
                    return Ok(brought);
                }
            }
            // Lost with another GPU, which is told when it is used.
            Err(err) if err == ENODEV && !pagemap.engine.is_gone() => return Ok(brought),
            Err(err) if err == ENOSPC => {
                if !make_room(&pagemap, missing.len() as u64, &spared)? {
                    // All there is, is on its way to or fro: there will be some soon.
                    fsleep(Delta::from_millis(1 + tries));
                }
            }
            Err(err) => return Err(err),
        }
    }
    Ok(brought)
}

/// Brings to RAM what of `range` is out of reach: in the VRAM of a GPU without a link to this one,
/// or swapped out. Returns whether there was something.
pub(crate) fn fetch(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: Range<usize>,
) -> Result<bool> {
    let absent = part_where(pagemap, mm, range, |place| place == Place::None)?;

    if absent.is_empty() {
        return Ok(false);
    }
    touch(mm, absent, Access::Read, Some(pagemap.owner()))?;
    Ok(true)
}

/// The smallest part of `range` that has all pages which are not in VRAM. The others are used.
fn missing(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: &Range<usize>,
) -> Result<Range<usize>> {
    // Most pages are in the block of the one before.
    let mut block = 0..0;

    part_where(pagemap, mm, range.clone(), |place| {
        let Place::Device(pfn) = place else {
            return true;
        };
        let offset = pagemap.offset_of(pfn);

        if !block.contains(&offset) {
            block = pagemap.vram.touch(offset).unwrap_or(0..0);
        }
        false
    })
}

fn bring_once(
    pagemap: ArcBorrow<'_, Pagemap<SimgpuPagemap>>,
    mm: &MmWithUser,
    range: Range<usize>,
    timeslice_ms: u32,
) -> Result<Outcome> {
    let origin = Origin::new(mm, range.clone());
    let data = pagemap.vram.allocate(range.len(), origin);
    let devmem = NewDevmem::new(pagemap, range.len(), data)?;

    // First, so that pages that get there can be found whatever comes next.
    pagemap.vram.insert(&devmem)?;

    let handle: ARef<Devmem<Allocation>> = ARef::from(&*devmem);
    let details = Details::with_timeslice_ms(timeslice_ms as usize);
    let locked = LockedMm::read(mm);
    let result = devmem.migrate_missing(&locked, range, &details);

    drop(locked);
    handle.settle();
    let (_, outcome) = result?;
    pagemap.add_populated(outcome.migrated);
    Ok(outcome)
}
