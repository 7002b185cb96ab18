// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Where the pages of a range are, told to user space.

use crate::{
    pagemap::SimgpuPagemap,
    range::first_mapped,
    uapi, //
};
use core::ops::Range;
use drm_pagemap::{
    mm::Place,
    Pagemap, //
};
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceWriter, //
    }, //
};

/// Pages that are told of at a time.
const CHUNK: usize = 512;

/// Counts pages by place, and writes their places to a map of one byte a page, if there is one.
struct Report {
    counts: [u64; 4],
    map: Option<UserSliceWriter>,
    /// What is not written yet.
    pending: KVec<u8>,
}

impl Report {
    fn add(&mut self, place: u32, mut pages: usize) -> Result {
        let count = self.counts.get_mut(place as usize).ok_or(EINVAL)?;

        *count += pages as u64;
        if self.map.is_none() {
            return Ok(());
        }
        while pages > 0 {
            let now = pages.min(CHUNK - self.pending.len());

            self.pending.extend_with(now, place as u8, GFP_KERNEL)?;
            pages -= now;
            if self.pending.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result {
        if let Some(map) = &mut self.map {
            map.write_slice(&self.pending)?;
        }
        self.pending.clear();
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
        Ok(())
    }
}

/// The counts for each place of the pages of `range`, whose places are also written to the user's
/// memory at `map_ptr`, unless that is 0. [`EFAULT`]: that is not writable. [`EINTR`]; [`EBUSY`]:
/// the range changes all the time.
pub(crate) fn residency(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: Range<usize>,
    map_ptr: u64,
) -> Result<[u64; 4]> {
    let map = match map_ptr {
        0 => None,
        ptr => {
            let ptr = UserPtr::from_addr(usize::try_from(ptr).map_err(|_| EFAULT)?);

            Some(UserSlice::new(ptr, range.len() / PAGE_SIZE).writer())
        }
    };
    let mut report = Report {
        counts: [0; 4],
        map,
        pending: KVec::with_capacity(CHUNK, GFP_KERNEL)?,
    };
    let mut rest = range;

    while !rest.is_empty() {
        let part = first_mapped(mm, &rest).unwrap_or(rest.end..rest.end);

        report.add(
            uapi::SIMGPU_PLACE_NONE,
            (part.start - rest.start) / PAGE_SIZE,
        )?;
        rest.start = part.end;
        if part.is_empty() {
            break;
        }
        pagemap.places(mm, part, |_, place| {
            let place = match place {
                Place::None => uapi::SIMGPU_PLACE_NONE,
                Place::Ram => uapi::SIMGPU_PLACE_RAM,
                Place::Device(_) => uapi::SIMGPU_PLACE_VRAM,
                Place::Peer => uapi::SIMGPU_PLACE_OTHER,
            };

            report.add(place, 1)
        })?;
    }
    report.flush()?;
    Ok(report.counts)
}
