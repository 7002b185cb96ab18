// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! From device memory home to RAM: what CPU faults and evictions share.

use crate::{
    device_addr::DeviceAddr,
    mm::{
        Collected,
        DmaDirection,
        Folio,
        LockedFolio,
        Migrated,
        Pfn,
        RamPolicy, //
    },
    page_array::PageArray,
    zdd::Zdd,
};
use kernel::prelude::*;

/// What came home.
pub(super) struct Home {
    /// The number of pages that did.
    pub(super) moved: usize,
    /// The first frames of large folios that did not, for want of RAM that is contiguous. There may
    /// be enough for their pages, one by one.
    pub(super) large: KVec<Pfn>,
}

/// Moves to RAM those of `pages` that belong to `zdd`.
///
/// `policy` says where in RAM the page at the given index shall go. All of them are copied or none:
/// on an error, which is [`ENOMEM`], [`EFAULT`] (a page can't be mapped for the device) or what the
/// driver's copy says, all stay where they are. May sleep.
pub(super) fn bring_home<'a>(
    mut pages: Collected<'_>,
    zdd: &Zdd,
    policy: impl Fn(usize) -> RamPolicy<'a>,
) -> Result<Home> {
    let mut large = KVec::new();

    let filled = pages.fill(|step| {
        let Some(source) = step.folio() else {
            return Ok(None);
        };
        // A page that lost its contents to an earlier migration, and is kept by a passing reference
        // only, has nothing to bring home.
        let ours = Zdd::of_folio(source).is_some_and(|of| of.is(zdd));
        if !ours || Zdd::is_retired(source) {
            return Ok(None);
        }

        match LockedFolio::new_ram(policy(step.index), step.order()) {
            Err(_) if step.order() > 0 => {
                large.push(source.pfn(), GFP_KERNEL)?;
                Ok(None)
            }
            result => result.map(Some),
        }
    })?;
    let mut moved = 0;

    if filled > 0 {
        let pairs = pages
            .filled(0..pages.nr_pages())
            .filter_map(|(step, destination)| Some((step.index, step.folio()?, destination)));

        copy(zdd, pages.nr_pages(), pairs)?;
        moved = retire_sources(&pages.migrate());
    }
    Ok(Home { moved, large })
}

/// Has the driver of `zdd` copy folios of its device memory to RAM: those of `pairs`, each of a place
/// in a range of `nr_pages` pages, a source and a destination. 24 bytes a page. May sleep.
pub(super) fn copy<'a>(
    zdd: &Zdd,
    nr_pages: usize,
    pairs: impl Iterator<Item = (usize, &'a Folio, &'a Folio)>,
) -> Result {
    let mut device_pages = PageArray::new(nr_pages)?;
    let mut device_pages = device_pages.part(0..nr_pages)?;
    let mut addrs = KVVec::from_elem(DeviceAddr::ABSENT, nr_pages, GFP_KERNEL)?;
    let mut dma = zdd
        .devmem()
        .dma_mapping(DmaDirection::FromDevice, &mut addrs)?;

    for (index, source, destination) in pairs {
        dma.map(index, destination)?;
        device_pages.set(index, source, dma.addrs());
    }
    dma.sync()?;
    // The mapping ends with this, before anybody reads the pages: unmapping may copy, from a bounce
    // buffer.
    zdd.devmem()
        .copy_to_ram(&mut device_pages, dma.addrs(), None)
}

/// Notes in the device folios that were migrated that what they hold is stale. Returns the number
/// of pages that were migrated.
pub(super) fn retire_sources(migrated: &Migrated<'_>) -> usize {
    let mut pages = 0;

    for step in migrated.steps().filter(|step| step.is_migrating()) {
        if let Some(source) = step.folio() {
            Zdd::retire(source);
        }
        pages += step.nr_pages();
    }
    pages
}
