// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The engine: the three ways that pages move.
//!
//! - [`to_devmem`]: a range of an address space goes to device memory;
//! - [`fault`]: a CPU touched a device page, it comes home;
//! - [`evict`]: the driver wants its memory back.
//!
//! The last two share [`home`]. All of it is safe code over [`mm`](crate::mm) and the objects. Races
//! are retried, not locked: no lock of a driver is taken in the CPU fault path, and eviction looks
//! at physical pages only.

pub mod evict;
pub mod fault;
mod home;
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
    /// Whether the driver's copy operation can move pages within its own device memory.
    pub can_migrate_same_pagemap: bool,
}

impl Details {
    /// Details with a time slice in milliseconds.
    pub fn with_timeslice_ms(ms: usize) -> Self {
        Self {
            // Longer than a C `unsigned int` of milliseconds, 49 days, is as good as that.
            timeslice: kernel::time::msecs_to_jiffies(ms.try_into().unwrap_or(Msecs::MAX)),
            can_migrate_same_pagemap: false,
        }
    }
}

/// Has the driver of `dpagemap` populate `range` (in bytes) of `mm` with device memory, best effort.
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
