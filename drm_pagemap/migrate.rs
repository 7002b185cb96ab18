// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The engine: the three ways that pages move.
//!
//! - [`to_devmem`]: a range of an address space goes to device memory;
//! - [`fault`]: a CPU touched a device page, it comes home;
//! - [`evict`]: the driver wants its memory back.
//!
//! To device memory, a single page takes a way of its own, [`one_page`]; all else goes [by the
//! chunk](chunk). The last two share [`home`]. All of it is safe code over [`mm`](crate::mm) and the
//! objects. Races are retried, not locked: no lock of a driver is taken in the CPU fault path, and
//! eviction looks at physical pages only.

mod chunk;
pub mod evict;
pub mod fault;
mod home;
mod one_page;
pub mod to_devmem;

use crate::{
    dpagemap::DrmPagemap,
    mm::LockedMm, //
};
use core::ops::Range;
use kernel::{
    mm::Mm,
    prelude::*,
    time::{
        Jiffies,
        Msecs, //
    },
};

/// How to migrate to device memory; `struct drm_pagemap_migrate_details`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details {
    /// For how long, in jiffies from now, CPU faults leave the pages in device memory.
    pub timeslice: Jiffies,
    /// Whether the driver can copy within its own device memory: with its `device_map`, to itself.
    pub can_migrate_same_pagemap: bool,
    /// Whether pages of a range that is in the device memory already, all of it, are moved to the
    /// new allocation, so that they are contiguous. Otherwise they stay, as C drivers rely on.
    /// Needs [`can_migrate_same_pagemap`](Self::can_migrate_same_pagemap).
    pub defragment: bool,
    /// Whether those pages of private mappings of files that the process has written to are
    /// migrated, too: they are anonymous memory, though their areas are not, and hold as many pages of
    /// the page cache, which stay. Only where what is [missing](Want::Missing) is asked for.
    pub private_files: bool,
}

/// What shall be migrated of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// All of it, or nothing.
    All,
    /// What is not in the device memory yet, as far as it can be moved. The rest stays where it is.
    Missing,
}

/// What became of a range, in pages; the sum is its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Migrated to the allocation.
    pub migrated: usize,
    /// In the device memory already.
    pub resident: usize,
    /// Left where it was, or where there was nothing: pinned, swapped out, in use by somebody else,
    /// or in the memory of a device whose driver does not let others at it.
    pub left: usize,
}

impl Details {
    /// Details with a time slice in milliseconds.
    pub fn with_timeslice_ms(ms: usize) -> Self {
        Self {
            timeslice: match ms {
                0 => 0,
                // Longer than a C `unsigned int` of milliseconds, 49 days, is as good as that.
                _ => kernel::time::msecs_to_jiffies(ms.try_into().unwrap_or(Msecs::MAX)),
            },
            ..Self::default()
        }
    }
}

/// Has the driver of `dpagemap` populate `range` (in bytes) of `mm` with device memory, best
/// effort.
///
/// Takes the mmap lock for reading. May sleep. [`EFAULT`]: the address space is dead. Else what the
/// driver says.
pub fn populate_mm(
    dpagemap: &DrmPagemap,
    mm: &Mm,
    range: Range<usize>,
    timeslice_ms: usize,
) -> Result {
    let mm = mm.mmget_not_zero().ok_or(EFAULT)?;
    let locked = LockedMm::read(&mm);

    dpagemap.op_populate_mm(&locked, range, timeslice_ms)
}
