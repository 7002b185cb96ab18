// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A CPU touched a page in device memory.

use crate::{
    migrate::home::bring_home,
    mm::{
        Arrays,
        Collected,
        Fault,
        PagemapOwner,
        RamPolicy,
        Select,
        VmaRange, //
    },
    zdd::Zdd,
};
use core::ops::Range;
use kernel::{
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Why a CPU fault can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmFault {
    /// No RAM for the page: the core may free some, and tries again.
    OutOfMemory,
    /// The page can't be had: its task gets a SIGBUS.
    Sigbus,
}

/// Brings home the page that a CPU wants, and with it its allocation as far as it is mapped here.
///
/// Within the allocation's time slice nothing moves, and the CPU faults again. If the allocation can't be brought home whole, the page that
/// is wanted still is, so that no process is killed for the sake of a neighbour. Called under the mmap or
/// vma lock, with the page locked. May sleep.
pub(crate) fn to_ram(fault: &Fault<'_>) -> Result<(), VmFault> {
    let zdd = Zdd::of_folio(fault.folio()).ok_or(VmFault::Sigbus)?;

    if zdd.devmem().in_timeslice() {
        // No waiting here: the page is locked, and whoever wants to evict it must get at it.
        return Ok(());
    }

    let owner = zdd.dpagemap().zone_device().owner();
    let all = window(fault, zdd.devmem().size());
    let page = window(fault, fault.folio().size());

    let mut result = migrate(fault, zdd, owner, all.clone());
    if result.is_err() && page != all {
        result = migrate(fault, zdd, owner, page);
    }

    result.map_err(|err| match err {
        err if err == ENOMEM => VmFault::OutOfMemory,
        _ => VmFault::Sigbus,
    })
}

/// The naturally aligned addresses around the fault, `size` bytes rounded up to a power of two, as far as the area goes.
fn window(fault: &Fault<'_>, size: usize) -> Range<usize> {
    let size = size.max(PAGE_SIZE).checked_next_power_of_two();
    let start = size.map_or(0, |size| fault.address() & !(size - 1));
    let end = size.map_or(usize::MAX & PAGE_MASK, |size| {
        start.saturating_add(size) & PAGE_MASK
    });

    start.max(fault.vma().start())..end.min(fault.vma().end())
}

/// Brings home what belongs to `zdd` in `range`.
///
/// If nothing could be collected, somebody else is at the page: the CPU faults again if it must.
fn migrate(fault: &Fault<'_>, zdd: &Zdd, owner: PagemapOwner, range: Range<usize>) -> Result {
    let range = VmaRange::new(fault.vma(), range)?;
    let arrays = Arrays::new(range.nr_pages())?;
    let pages = Collected::from_vma(
        &range,
        owner,
        Select::DEVICE_PRIVATE.and(Select::DEVICE_COHERENT),
        Some(fault),
        arrays,
    )?;

    bring_home(pages, zdd, |index| {
        RamPolicy::Vma(range.vma(), range.start() + index * PAGE_SIZE)
    })?;
    Ok(())
}
