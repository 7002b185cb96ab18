// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Splitting of large device folios that have to go home in single pages.
//!
//! The core splits no folio on behalf of a module, unless a migration by virtual address wants only
//! a part of it. So that is what is begun here, and given up.

use crate::mm::{
    rmap,
    Arrays,
    Collected,
    FolioRef,
    LockedMm,
    PagemapOwner,
    Pfn,
    Select,
    VmaRange,
    ZoneDevice,
    NR_PMD_PAGES, //
};
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Splits the large folio of `zone` whose first frame is `pfn`, in all address spaces that map it.
///
/// Best effort: returns whether there is no such large folio any more. It can't be split while
/// anybody else has a reference on it, or has it locked. Takes the mmap lock of an address space
/// that maps it, but does not wait for it, so that drivers may call this with locks of theirs held
/// that nest in it. May sleep.
pub fn split(zone: &ZoneDevice, pfn: Pfn) -> bool {
    for nth in 0.. {
        let Some(folio) = zone.folio(pfn) else {
            return true;
        };
        if folio.order() == 0 {
            return true;
        }
        let Some(folio) = FolioRef::try_lock(folio) else {
            return false;
        };
        let Some((mm, addr)) = rmap::maybe_mapped_at(&folio, nth) else {
            return false;
        };

        // The core wants no references but its own.
        drop(folio);
        // What went wrong there shows in the folio's order.
        let _ = split_at(&mm, addr, zone.owner());
    }
    false
}

fn split_at(mm: &MmWithUser, addr: usize, owner: PagemapOwner) -> Result {
    let mm = LockedMm::try_read(mm).ok_or(EBUSY)?;
    let vma = mm.vma_lookup(addr).ok_or(ENOENT)?;
    // What is mapped there is a part of a PMD's range, from its first page on at most.
    let end = vma.end().min(addr.saturating_add(NR_PMD_PAGES * PAGE_SIZE));
    let range = VmaRange::new(vma, addr..end)?;
    let arrays = Arrays::new(range.nr_pages())?;

    // Not as a compound, so in single pages. Dropping them puts them back.
    Collected::from_vma(&range, owner, Select::DEVICE_PRIVATE, None, arrays)?;
    Ok(())
}
