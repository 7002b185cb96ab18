// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! From device memory home to RAM: what CPU faults and evictions share.

use crate::{
    dpagemap_devmem::{
        DrmPagemapDevmem,
        PageArray, //
    },
    mm::{
        Collected,
        DmaDirection,
        LockedFolio,
        RamPolicy, //
    },
    zdd::Zdd,
};
use kernel::prelude::*;

/// Moves to RAM those of `pages` that belong to `zdd`, and returns how many did.
///
/// `policy` says where in RAM the page at the given index shall go. All of them are copied or none:
/// on an error, which is [`ENOMEM`], [`EFAULT`] (a page can't be mapped for the device) or what the driver's copy
/// says, all stay where they are. May sleep.
pub(super) fn bring_home<'a>(
    mut pages: Collected<'_>,
    zdd: &Zdd,
    policy: impl Fn(usize) -> RamPolicy<'a>,
) -> Result<usize> {
    let devmem: &DrmPagemapDevmem = zdd.devmem();
    let mut device_pages = PageArray::new(pages.nr_pages())?;

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

        let folio = LockedFolio::new_ram(policy(step.index), step.order())?;
        device_pages.set(step.index, source)?;
        Ok(Some(folio))
    })?;
    if filled == 0 {
        return Ok(0);
    }

    let mut dma = devmem.dma_array(DmaDirection::FromDevice, pages.nr_pages())?;
    dma.map_destinations(&pages)?;
    devmem.copy_to_ram(&mut device_pages, dma.addrs())?;
    // Before anybody reads the pages: unmapping may copy, from a bounce buffer.
    drop(dma);

    let migrated = pages.migrate();
    let mut home = 0;
    for step in migrated.steps().filter(|step| step.is_migrating()) {
        if let Some(source) = step.folio() {
            Zdd::retire(source);
            home += step.nr_pages();
        }
    }
    Ok(home)
}
