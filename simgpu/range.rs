// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Ranges of the caller's address space.

use crate::pagemap::SimgpuPagemap;
use core::ops::Range;
use drm_pagemap::{
    mm::{
        user_end,
        LockedMm,
        Place, //
    },
    Pagemap, //
};
use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// The range that a caller named, checked. [`EINVAL`]: it is empty, not made of whole pages, wraps,
/// or is not all in the user's part of `mm`.
pub(crate) fn checked(mm: &MmWithUser, start: u64, size: u64) -> Result<Range<usize>> {
    let start = usize::try_from(start)?;
    let size = usize::try_from(size)?;
    let end = start.checked_add(size).ok_or(EINVAL)?;

    if size == 0 || (start | size) & !PAGE_MASK != 0 || end > user_end(mm) {
        return Err(EINVAL);
    }
    Ok(start..end)
}

/// The first part of `range` that is mapped, as far as one area goes. Takes the mmap lock, for a
/// moment.
pub(crate) fn first_mapped(mm: &MmWithUser, range: &Range<usize>) -> Option<Range<usize>> {
    let mm = LockedMm::read(mm);
    let area = mm.vma_from(range.start)?;
    let start = range.start.max(area.start());
    let end = range.end.min(area.end());

    (start < end).then_some(start..end)
}

/// The smallest part of `range`, which is part of an area, that has all pages whose places are
/// `wanted`; an empty one, if there are none. A snapshot. May sleep. Errors as those of
/// [`Pagemap::places`].
pub(crate) fn part_where(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: Range<usize>,
    mut wanted: impl FnMut(Place) -> bool,
) -> Result<Range<usize>> {
    let mut part = range.end..range.start;

    pagemap.places(mm, range, |addr, place| {
        if wanted(place) {
            part.start = part.start.min(addr);
            part.end = addr + PAGE_SIZE;
        }
        Ok(())
    })?;
    Ok(part)
}
