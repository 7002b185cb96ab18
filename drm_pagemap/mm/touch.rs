// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Page faults that are taken as by a CPU.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)

use crate::mm::{
    place::{
        new_lock,
        Watch, //
    },
    pmd_part,
    Access,
    Interval,
    PagemapOwner,
    Pages, //
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    page::PAGE_MASK,
    prelude::*, //
};

/// Has page faults taken for `range` (in bytes, page-aligned), as by a CPU that reads it, or writes
/// to it, as `access` says. What is in device memory comes to RAM by that; unless its owner is
/// `spared`, whose pages count as present.
///
/// This is how a device gets at pages in the memory of another one that it can't reach: for itself
/// they are not there, and migration leaves them alone. And, for writing, how it gets a page that
/// is shared copy-on-write, and in device memory, where nobody takes such a fault.
///
/// When this returns, the pages can have gone again. Takes the mmap lock, which must not be held;
/// may sleep, as long as a time slice of a page, too. [`EINVAL`] for a range that is empty or
/// misaligned; else the errors are those of [`Pages::fault`].
pub fn touch(
    mm: &MmWithUser,
    range: Range<usize>,
    access: Access,
    spared: Option<PagemapOwner>,
) -> Result {
    if range.is_empty() || (range.start | range.end) & !PAGE_MASK != 0 {
        return Err(EINVAL);
    }

    // Device memory has an owner, which is not null.
    let spared = spared.unwrap_or(PagemapOwner::from_raw(core::ptr::null_mut()));
    let lock = new_lock()?;
    let mut start = range.start;

    while start < range.end {
        let end = pmd_part(&range, start).end;
        let watch = KBox::pin_init(
            Interval::<Watch>::new(mm, start..end, spared, lock.clone(), Ok::<_, Error>(Watch)),
            GFP_KERNEL,
        )?;

        Pages::new(&watch, start..end, access)?.fault()?;
        start = end;
    }
    Ok(())
}
