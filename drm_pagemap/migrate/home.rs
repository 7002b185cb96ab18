// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! From device memory home to RAM: what CPU faults and evictions share.

use crate::{
    mm::{
        Collected,
        DmaDirection,
        Folio,
        LockedFolio,
        Migrated,
        Pfn,
        RamPolicy, //
    },
    page_array::CopyEntries,
    pool::Lent,
    scratch::Scratch,
    trace,
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
/// `copies` is for the copy; `policy` says where in RAM the page at the given index shall go; `busy` is
/// called before the copy. All of them are copied or none: on an error, which is [`ENOMEM`],
/// [`EFAULT`] (a page can't be mapped for the device) or what the driver's copy says, all stay where
/// they are. May sleep.
#[inline(always)]
pub(super) fn bring_home<'a, const N: usize>(
    mut pages: Collected<'_>,
    zdd: &Zdd,
    copies: &mut CopyEntries<N>,
    policy: impl Fn(usize) -> RamPolicy<'a>,
    busy: &impl Fn(),
) -> Result<Home> {
    let mut large = KVec::new();

    if !copy_home(&mut pages, zdd, copies, &mut large, policy, busy)? {
        return Ok(Home { moved: 0, large });
    }

    let migrated = pages.migrate();
    let moved = retire_own_sources(&migrated, zdd);

    trace::moved(&migrated);
    Ok(Home { moved, large })
}

/// Copies to RAM those of `pages` that belong to `zdd`, but for folios which that has no room for:
/// those are put into `large`. Returns whether there are any.
#[inline(always)]
fn copy_home<'a, const N: usize>(
    pages: &mut Collected<'_>,
    zdd: &Zdd,
    copies: &mut CopyEntries<N>,
    large: &mut KVec<Pfn>,
    policy: impl Fn(usize) -> RamPolicy<'a>,
    busy: &impl Fn(),
) -> Result<bool> {
    let nr_pages = pages.nr_pages();
    if nr_pages == 1 && !pages.has_large() {
        return copy_page_home(pages, zdd, policy);
    }

    let (mut device_pages, addrs) = copies.part(0..nr_pages)?;
    let mut dma = zdd.devmem().dma_mapping(DmaDirection::FromDevice, addrs)?;

    // A page that lost its contents to an earlier migration, and is kept by a passing reference only,
    // has nothing to bring home.
    if pages.has_large() {
        pages.fill(0..nr_pages, |step| {
            let Some(source) = step.folio().filter(|source| zdd.has_contents(source)) else {
                return Ok(None);
            };
            let folio = match LockedFolio::new_ram(policy(step.index), step.order()) {
                Err(_) if step.order() > 0 => {
                    large.push(source.pfn(), GFP_KERNEL)?;
                    return Ok(None);
                }
                result => result?,
            };
            let piece = dma.map(step.index, &folio)?;

            device_pages.set(step.index, source, step.nr_pages(), piece);
            Ok(Some(folio))
        })?;
    } else {
        let mut places = pages.singles();

        for index in 0..places.nr_pages() {
            let Some(place) = places.at(index) else {
                continue;
            };
            let Some(source) = place.folio().filter(|source| zdd.has_contents(source)) else {
                continue;
            };

            device_pages.set_single(index, source);
            place.fill(LockedFolio::new_ram(policy(index), 0)?)?;
        }

        // In a turn of its own: each has little to keep in mind.
        dma.map_singles(pages.single_destinations())?;
    }
    if device_pages.is_empty() {
        return Ok(false);
    }
    dma.sync()?;
    busy();
    // The mapping ends with this, before anybody reads the pages: unmapping may copy, from a bounce
    // buffer.
    zdd.devmem()
        .copy_to_ram(&mut device_pages, dma.addrs(), None)?;
    Ok(true)
}

/// As [`copy_home`], of one page.
#[inline(always)]
fn copy_page_home<'a>(
    pages: &mut Collected<'_>,
    zdd: &Zdd,
    policy: impl Fn(usize) -> RamPolicy<'a>,
) -> Result<bool> {
    let devmem = zdd.devmem();
    let Some(place) = pages.only_single() else {
        return Ok(false);
    };
    let Some(source) = place.folio().filter(|source| zdd.has_contents(source)) else {
        return Ok(false);
    };
    let folio = LockedFolio::new_ram(policy(0), 0)?;
    let dma = devmem.dma_page(DmaDirection::FromDevice, &folio)?;

    devmem.copy_page_to_ram(source, dma.addr())?;
    // The mapping ends before anybody reads the page: that may copy, from a bounce buffer.
    drop(dma);
    place.fill(folio)?;
    Ok(true)
}

/// Has the driver of `zdd` copy folios of its device memory to RAM: those of `pairs`, each of a place
/// in a range of `nr_pages` pages, a source and a destination. 24 bytes a page. May sleep.
pub(super) fn copy<'a>(
    zdd: &Zdd,
    nr_pages: usize,
    pairs: impl Iterator<Item = (usize, &'a Folio, &'a Folio)>,
) -> Result {
    let mut scratch = Lent::<Scratch>::new()?;
    let (mut device_pages, addrs) = scratch.copies.part(0..nr_pages)?;
    let mut dma = zdd.devmem().dma_mapping(DmaDirection::FromDevice, addrs)?;

    for (index, source, destination) in pairs {
        let piece = dma.map(index, destination)?;
        device_pages.set(index, source, source.nr_pages(), piece);
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

/// As [`retire_sources`], where all that were migrated are pages of `zdd`.
#[inline(always)]
pub(super) fn retire_own_sources(migrated: &Migrated<'_>, zdd: &Zdd) -> usize {
    let mut pages = 0_usize;

    migrated.for_each_source(|source, nr_pages| {
        zdd.retire_own(source);
        // No more than the range has.
        pages = pages.wrapping_add(nr_pages);
    });
    pages
}
