// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Where the pages of a range are.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)

use crate::mm::{
    pmd_part,
    Access,
    Change,
    Interval,
    IntervalOps,
    PagemapOwner,
    Pages,
    Pfn,
    NR_PMD_PAGES, //
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    new_mutex,
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not present: never touched, not mapped, swapped out, on the move, or in the memory of a
    /// device that has another owner.
    None,
    /// In RAM.
    Ram,
    /// In device-private memory of the given owner.
    Device(Pfn),
    /// In the memory of another device of the same group, where it is asked for those of one
    /// device.
    Peer,
}

/// What is there in case the address space changes while a snapshot is taken: nothing is remembered
/// of it, so nothing has to be forgotten.
pub(super) struct Watch;

impl IntervalOps for Watch {
    type State = ();

    fn invalidate(&self, _state: &mut (), _change: &Change) {}

    fn try_invalidate(&self, _state: &mut (), _change: &Change) -> bool {
        true
    }
}

/// The lock for a snapshot.
// Not in the generic function: each crate that has an instance of that would have another name for
// the one class of the lock, of which lockdep complains.
#[inline(never)]
pub(super) fn new_lock() -> Result<Arc<Mutex<()>>> {
    Arc::pin_init(new_mutex!((), "drm_pagemap::places"), GFP_KERNEL)
}

/// Calls `found` with the address and place of each page of `range` (in bytes, page-aligned).
///
/// Device pages count only if they are of `owner`. A snapshot: places can change at any time. May
/// sleep, and takes the mmap lock, which must not be held. [`EINVAL`] for a range that is empty or
/// misaligned; [`EBUSY`] if the range changes all the time.
pub fn places(
    mm: &MmWithUser,
    range: Range<usize>,
    owner: PagemapOwner,
    mut found: impl FnMut(usize, Place) -> Result,
) -> Result {
    if range.is_empty() || (range.start | range.end) & !PAGE_MASK != 0 {
        return Err(EINVAL);
    }

    let lock = new_lock()?;
    let mut places = KVec::with_capacity(NR_PMD_PAGES, GFP_KERNEL)?;
    let mut start = range.start;

    while start < range.end {
        // A snapshot of what a PMD maps, which bounds the memory it takes.
        let end = pmd_part(&range, start).end;
        let watch = KBox::pin_init(
            Interval::<Watch>::new(mm, start..end, owner, lock.clone(), Ok::<_, Error>(Watch)),
            GFP_KERNEL,
        )?;

        places.clear();
        Pages::new(&watch, start..end, Access::AsIs)?.fault_and_commit(|(), pages| {
            for index in 0..pages.nr_pages() {
                let place = match pages.page(index) {
                    None => Place::None,
                    Some(page) if page.is_device() => Place::Device(page.pfn()),
                    Some(_) => Place::Ram,
                };

                // There is room for as many.
                places.push_within_capacity(place).map_err(|_| EINVAL)?;
            }
            Ok(())
        })?;
        for (at, &place) in (start..end).step_by(PAGE_SIZE).zip(&places) {
            found(at, place)?;
        }
        start = end;
    }
    Ok(())
}
