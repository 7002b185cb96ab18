// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Bringing a range to VRAM: part by part, and making room for it.

use crate::{
    bring::fetch,
    evict::{
        evict,
        evict_once, //
    },
    pagemap::SimgpuPagemap,
    range::part_where,
    vram::Origin, //
};
use core::ops::Range;
use drm_pagemap::{
    mm::Place,
    queue,
    Pagemap, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sizes::SZ_2M,
    sync::ArcBorrow,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How often pages that are in use are tried again.
const BUSY_TRIES: i64 = 12;

/// How often room is made anew because somebody else was quicker to take it.
pub(crate) const ROOM_TRIES: usize = 16;

/// Brings `range` to VRAM, in naturally aligned parts. On an error, some of them are there.
pub(crate) fn populate(
    pagemap: ArcBorrow<'_, Pagemap<SimgpuPagemap>>,
    mm: &MmWithUser,
    range: Range<usize>,
    timeslice_ms: usize,
) -> Result {
    let mut start = range.start;

    while start < range.end {
        let boundary = (start | (SZ_2M - 1)).checked_add(1);
        let end = boundary.map_or(range.end, |boundary| boundary.min(range.end));
        let done = Origin::new(mm, range.start..start);

        populate_part(pagemap, mm, start..end, timeslice_ms, &done)?;
        start = end;
    }
    Ok(())
}

/// Brings `part` to VRAM. `done` is what was brought there just before: it is not evicted for this.
fn populate_part(
    pagemap: ArcBorrow<'_, Pagemap<SimgpuPagemap>>,
    mm: &MmWithUser,
    part: Range<usize>,
    timeslice_ms: usize,
    done: &Origin,
) -> Result {
    let mut busy = 0;
    let mut full = 0;

    loop {
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
        match Pagemap::populate_mm(pagemap, mm, part.clone(), timeslice_ms) {
            Err(err) if err == EBUSY && busy < BUSY_TRIES => {
                // Either a piece of it is in VRAM, so all of it has to come home first; or it is in
                // that of a GPU without a link to this one; or somebody is at it.
                evict_once(&pagemap, mm, &part)?;
                let _ = fetch(&pagemap, mm, part.clone());
                fsleep(Delta::from_millis(busy));
                busy += 1;
            }
            Err(err) if err == ENOSPC && full < ROOM_TRIES => {
                let is_missing = |place| !matches!(place, Place::Device(_));

                if part_where(&pagemap, mm, part.clone(), is_missing)?.is_empty() {
                    return Ok(());
                }
                if !make_room(&pagemap, part.len() as u64, done)? {
                    return Err(ENOSPC);
                }
                full += 1;
            }
            // Lost with another GPU.
            Err(err) if err == ENODEV && !pagemap.engine.is_gone() => return Err(EFAULT),
            result => return result,
        }
    }
}

/// Sees to it that `size` bytes of VRAM are free, if only for a moment, by evicting what was used
/// least recently, of whatever process, but not `spared`, and nothing that is used meanwhile.
/// Returns whether that worked.
pub(crate) fn make_room(
    pagemap: &Pagemap<SimgpuPagemap>,
    size: u64,
    spared: &Origin,
) -> Result<bool> {
    // So that it comes to an end.
    let mut when = 0..pagemap.vram.now();

    loop {
        // What was freed recently may be enough.
        queue::flush();
        let missing = size.saturating_sub(pagemap.vram.free());
        if missing == 0 {
            return Ok(true);
        }

        let (last, found) = pagemap.vram.least_used(missing, when.clone(), spared)?;
        if found.is_empty() {
            return Ok(false);
        }
        when.start = last + 1;
        for handle in found {
            match evict(pagemap, &handle) {
                // Pinned, perhaps: try another one.
                Err(err) if err == EBUSY => (),
                result => result?,
            }
        }
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
    }
}
