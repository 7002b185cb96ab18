// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Bringing pages home because the driver wants it.
//!
//! No lock is held here: whatever changes meanwhile is found by looking again.

use crate::{
    pagemap::SimgpuPagemap,
    range::{
        first_mapped,
        part_where, //
    },
    vram::{
        Handle,
        Origin, //
    }, //
};
use core::ops::Range;
use drm_pagemap::{
    mm::{
        touch,
        Access,
        Place, //
    },
    queue,
    Pagemap, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    rbtree::RBTree,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How often a range is looked at again that doesn't come home.
const TRIES: usize = 4;

/// How long to wait before that, in milliseconds.
const PAUSE_MS: i64 = 10;

/// What has pages in a range.
struct Found {
    handles: KVec<Handle>,
    ages: RBTree<u64, ()>,
    /// The block that a page was found in last; the next page is often there too.
    block: Range<u64>,
    /// Whether there are pages whose allocation can't be evicted just now.
    unsettled: bool,
}

impl Found {
    fn add(&mut self, handle: Handle) -> Result {
        if self.ages.get(&handle.age()).is_none() {
            self.ages
                .try_create_and_insert(handle.age(), (), GFP_KERNEL)?;
            self.handles.push(handle, GFP_KERNEL)?;
        }
        Ok(())
    }

    fn add_page(&mut self, pagemap: &Pagemap<SimgpuPagemap>, offset: u64) -> Result {
        if self.block.contains(&offset) {
            return Ok(());
        }
        match pagemap.vram.at(offset) {
            Some((block, handle)) => {
                self.block = block;
                self.add(handle)
            }
            None => {
                self.unsettled = true;
                Ok(())
            }
        }
    }
}

/// Finds the allocations that have pages in `range`, wherever they were made for; and those that
/// were made for it, as pages that the process may not even read are not seen otherwise.
fn find(pagemap: &Pagemap<SimgpuPagemap>, mm: &MmWithUser, range: &Range<usize>) -> Result<Found> {
    let mut found = Found {
        handles: KVec::new(),
        ages: RBTree::new(),
        block: 0..0,
        unsettled: false,
    };
    let mut rest = range.clone();

    while let Some(part) = first_mapped(mm, &rest) {
        rest.start = part.end;
        pagemap.places(mm, part, |_, place| match place {
            Place::Device(pfn) => found.add_page(pagemap, pagemap.offset_of(pfn)),
            Place::None | Place::Ram | Place::Peer => Ok(()),
        })?;
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
    }
    for handle in pagemap.vram.made_for(&Origin::new(mm, range.clone()))? {
        found.add(handle)?;
    }
    Ok(found)
}

/// Brings one allocation home. [`EBUSY`]: not all of it.
pub(crate) fn evict(pagemap: &Pagemap<SimgpuPagemap>, handle: &Handle) -> Result {
    let (moved, result) = handle.evict_to_ram();

    pagemap.add_evicted(moved);
    result
}

/// Brings home, once, whatever has pages in `range`. Returns whether there was nothing (left) to
/// do.
pub(crate) fn evict_once(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: &Range<usize>,
) -> Result<bool> {
    let found = find(pagemap, mm, range)?;
    let mut done = !found.unsettled;

    for handle in found.handles {
        match evict(pagemap, &handle) {
            Err(err) if err == EBUSY => done = false,
            result => result?,
        }
    }
    queue::flush();
    Ok(done)
}

/// Brings home whatever has pages in `range`. [`EBUSY`]: not all of it, even after a while.
pub(crate) fn evict_range(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: &Range<usize>,
) -> Result {
    for _ in 0..TRIES {
        if evict_once(pagemap, mm, range)? {
            return Ok(());
        }
        fsleep(Delta::from_millis(PAUSE_MS));
    }
    Err(EBUSY)
}

/// Brings to RAM what of `range` is in VRAM, this GPU's or that of others on the link; once, so
/// that some may stay. Returns whether others had something. Errors as those of migration, and of
/// [`touch`].
pub(crate) fn send_home(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: &Range<usize>,
) -> Result<bool> {
    evict_once(pagemap, mm, range)?;
    send_home_from_peers(pagemap, mm, range)
}

/// Brings to RAM what of `range` is in the VRAM of other GPUs on the link, by page faults: what is
/// there is not this GPU's to evict. Returns whether there was something.
pub(crate) fn send_home_from_peers(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: &Range<usize>,
) -> Result<bool> {
    let mut rest = range.clone();
    let mut found = false;

    while let Some(part) = first_mapped(mm, &rest) {
        rest.start = part.end;

        let there = part_where(pagemap, mm, part, |place| place == Place::Peer)?;
        if !there.is_empty() {
            found = true;
            touch(mm, there, Access::Read, None)?;
        }
    }
    Ok(found)
}
