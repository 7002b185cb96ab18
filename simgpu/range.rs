// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Ranges of the caller's address space.

use core::ops::Range;
use drm_pagemap::mm::{
    user_end,
    LockedMm, //
};
use kernel::{
    mm::MmWithUser,
    page::PAGE_MASK,
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
