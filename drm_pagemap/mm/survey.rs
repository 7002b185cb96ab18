// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a range has in device memory, seen without touching a page.
//!
//! Collecting pages isolates and unmaps them, and putting them back costs as much again. This reads
//! the page table only.

use crate::{
    bindings,
    mm::{
        VmaRange,
        ZoneDevice, //
    },
};

/// What was seen of a range, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// In the device memory that was asked for.
    pub resident: usize,
    /// In other device memory.
    pub elsewhere: usize,
}

impl Survey {
    /// Looks at all of `range`. A snapshot: places can change at any time, as no page is locked.
    pub fn of(range: &VmaRange<'_>, zone: &ZoneDevice) -> Self {
        let addresses = range.addresses();

        // SAFETY: The range is of an area under the mmap lock, whose address space is alive; the
        // zone device is registered as long as it is borrowed.
        let peek = unsafe {
            bindings::drm_pagemap_peek(
                (*range.vma().as_ptr()).vm_mm,
                addresses.start,
                addresses.end,
                zone.as_raw(),
            )
        };

        Self {
            resident: peek.resident,
            elsewhere: peek.elsewhere,
        }
    }

    /// Whether all of `range` is in the device memory of `zone`; looks no further than it is.
    #[inline(always)]
    pub(crate) fn is_all_resident(range: &VmaRange<'_>, zone: &ZoneDevice) -> bool {
        let addresses = range.addresses();

        // SAFETY: As above.
        unsafe {
            bindings::drm_pagemap_is_resident(
                (*range.vma().as_ptr()).vm_mm,
                addresses.start,
                addresses.end,
                zone.as_raw(),
            )
        }
    }
}
