// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! From RAM, or from nowhere, to device memory.

use crate::{
    dpagemap_devmem::{
        DevmemRef,
        PageArray, //
    },
    migrate::Details,
    mm::{
        Arrays,
        Collected,
        DmaDirection,
        LockedMm,
        Select,
        VmaRange, //
    },
    zdd::Zdd,
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

/// Migrates `range` (in bytes) of `mm` to the device memory `devmem`, all of it or nothing.
///
/// The reference is consumed whatever the outcome: when this returns an error, the allocation has
/// been released, or will be as soon as passing references on its pages are gone. On success it is
/// released when the last page that was migrated to it is free. Addresses never touched are
/// populated too; the driver is told of them by a missing source, and clears them. May sleep.
///
/// # Errors
///
/// - [`EOPNOTSUPP`]: the driver lacks an operation that this needs, or the area is not private
///   anonymous memory;
/// - [`ENOENT`]: nothing is mapped at the range's start;
/// - [`EINVAL`]: the range is empty, not made of whole pages, reaches out of the area, or is larger than the allocation;
/// - [`EBUSY`]: pages are pinned, locked or changing just now; part of the range is already in
///   device memory; or a race was lost. What was where it was stays usable. Try again;
/// - [`EFAULT`]: a page can't be mapped for the device;
/// - [`ENOMEM`], and what the driver's operations say.
pub fn to_devmem(
    devmem: DevmemRef,
    mm: &LockedMm<'_>,
    range: Range<usize>,
    details: &Details,
) -> Result {
    if !devmem.can_migrate() {
        return Err(EOPNOTSUPP);
    }

    let vma = mm.vma_covering(&range)?;
    if !crate::mm::vma_is_anonymous(vma) {
        return Err(EOPNOTSUPP);
    }
    if range.len() > devmem.size() {
        return Err(EINVAL);
    }

    let range = VmaRange::new(vma, range)?;
    let npages = range.nr_pages();
    let arrays = Arrays::new(npages)?;
    let zdd = Zdd::new(devmem)?;
    let pages = Collected::from_vma(
        &range,
        zdd.dpagemap().zone_device().owner(),
        Select::SYSTEM
            .and(Select::DEVICE_PRIVATE)
            .and(Select::DEVICE_COHERENT),
        None,
        arrays,
    )?;

    match residency(&pages, &zdd)? {
        Residency::Elsewhere => copy_and_migrate(pages, &zdd, details),
        // Nothing to do. Dropping the pages puts them back.
        Residency::Here => Ok(()),
    }
}

/// Where the pages of a range are, seen from the pagemap that they shall go to.
enum Residency {
    /// None of them in it.
    Elsewhere,
    /// All of them in it.
    Here,
}

/// [`EBUSY`] if not all pages were collected, or some, but not all, are in device memory.
fn residency(pages: &Collected<'_>, zdd: &Zdd) -> Result<Residency> {
    if pages.nr_collected() != pages.nr_pages() {
        return Err(EBUSY);
    }

    let mut here = 0;
    for step in pages.steps() {
        if let Some(folio) = step.folio().filter(|folio| folio.is_device_private()) {
            if !zdd.dpagemap().owns(folio.pgmap()) {
                return Err(EBUSY);
            }
            here += step.nr_pages();
        }
    }

    match here {
        0 => Ok(Residency::Elsewhere),
        n if n == pages.nr_pages() => Ok(Residency::Here),
        _ => Err(EBUSY),
    }
}

fn copy_and_migrate(mut pages: Collected<'_>, zdd: &ARef<Zdd>, details: &Details) -> Result {
    let npages = pages.nr_pages();
    let devmem = zdd.devmem();
    let mut device_pages = PageArray::new(npages)?;
    let mut dma = devmem.dma_array(DmaDirection::ToDevice, npages)?;
    let pfns = devmem.populate_pfns(npages)?;

    pages.fill(|step| {
        let pfn = *pfns.get(step.index).ok_or(EINVAL)?;
        let folio = Zdd::attach(zdd, pfn, step.order())?;

        device_pages.set(step.index, &folio)?;
        Ok(Some(folio))
    })?;

    dma.map_sources(&pages)?;
    devmem.copy_to_devmem(&mut device_pages, dma.addrs())?;
    drop(dma);

    devmem.put_fence();
    devmem.start_timeslice(details.timeslice);

    // What was lost to a race stays in RAM; the rest is in device memory, and right there.
    if pages.migrate().nr_migrated() < npages {
        return Err(EBUSY);
    }
    Ok(())
}
