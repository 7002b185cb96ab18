// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A large device folio on its way, and a process that unmaps it just then.
//!
//! While a folio is migrated, a migration entry is in the place of each mapping, which has neither a
//! reference on the folio nor a part in its map count. But who discards a PMD that is such an entry
//! (`munmap`, `MADV_DONTNEED`, the end of a process) takes it for a mapping, in Linux 7.3, if the
//! folio is device-private: the map count is taken below zero, and the reference that is put is that
//! of the migration. The folio is freed under it, and once more later.
//!
//! So the migration holds one reference more, and gives back what was taken, which the map count
//! tells. The core wants the number of references to be exact at one moment, when it replaces the
//! folio. If it is freed in that moment, it is [brought back](undo_free) in the `free` callback.

use crate::{
    bindings,
    mm::{
        steps::LARGE_PAGES,
        Folio,
        FolioRef,
        MigratePfn,
        NR_PMD_PAGES, //
    },
};
use core::{
    iter,
    ptr::NonNull, //
};

/// How many folios that a PMD maps are migrated at a time, at most.
const MOST: usize = LARGE_PAGES / NR_PMD_PAGES;

/// Whether the sources of a migration are guarded: those that PMDs may have mapped, of a device.
///
/// Which these are, the entries say. All calls must be made with those, by who owns the references
/// and locks that they stand for.
pub(super) struct ZapGuard(bool);

/// Folios that were guarded up to now.
pub(super) struct Guarded([Option<FolioRef>; MOST]);

impl ZapGuard {
    /// Guards what was collected for a range, if it is to be.
    ///
    /// # Safety
    ///
    /// Entries that name pages must hold references.
    #[inline(always)]
    pub(super) unsafe fn new(src: &[MigratePfn]) -> Self {
        // SAFETY: Promised by the caller.
        let is_of_device = |entry: &MigratePfn| unsafe { entry.is_of_zone_device() };
        // What a PMD maps is all that is collected at once, or there are several of that.
        let may_be = src.len() > NR_PMD_PAGES
            || src.len() == NR_PMD_PAGES
                && src
                    .first()
                    .is_some_and(|entry| entry.is_compound() && is_of_device(entry));

        // SAFETY: Promised by the caller.
        Self(may_be && unsafe { hold(src) })
    }

    /// Whether there are any.
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        self.0
    }

    /// Lets go of them while the core replaces them, for which the number of references must be
    /// exact.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new); they must be guarded.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn lift(&self, src: &[MigratePfn]) {
        // SAFETY: Promised by the caller.
        drop(unsafe { Self::take(src) });
    }

    /// Guards them again, as far as they are still what a PMD maps.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new); they must not be guarded.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn lower(&mut self, src: &[MigratePfn]) {
        // SAFETY: Promised by the caller.
        self.0 = unsafe { hold(src) };
    }

    /// Gives back what was taken so far. The references that are the guard's own are given to the
    /// caller, who ends them when no migration entry is left.
    ///
    /// # Safety
    ///
    /// As [`lift`](Self::lift).
    #[inline(never)]
    pub(super) unsafe fn take(src: &[MigratePfn]) -> Guarded {
        let mut taken = Guarded([const { None }; MOST]);

        // SAFETY: Promised by the caller.
        for (folio, slot) in unsafe { folios(src) }.zip(&mut taken.0) {
            give_back(folio);
            // SAFETY: A reference that `hold` took, and that belongs to nobody else.
            *slot = Some(unsafe { FolioRef::from_raw(NonNull::from(folio).cast()) });
        }
        taken
    }
}

impl Guarded {
    /// No migration entry is left.
    #[inline(never)]
    pub(super) fn end(self) {
        for folio in self.0.into_iter().flatten() {
            give_back(&folio);
            // SAFETY: A live folio, of a zone device of ours or another's; the reference that goes
            // with the mark is ours.
            unsafe { bindings::drm_pagemap_helper_folio_end_revival(folio.as_raw()) };
        }
    }
}

/// Takes a reference on each folio that is to be guarded. Returns whether there is any.
///
/// # Safety
///
/// Entries that name pages must hold references.
#[inline(never)]
unsafe fn hold(src: &[MigratePfn]) -> bool {
    let mut any = false;

    // SAFETY: Promised by the caller.
    for folio in unsafe { folios(src) } {
        // Given up by `take`.
        core::mem::forget(folio.get());
        any = true;
    }
    any
}

/// The folios that are to be guarded. Those that can't be migrated any more are among them: they
/// still have a migration entry.
///
/// # Safety
///
/// Entries that name pages must hold references, for as long as the iterator is used.
unsafe fn folios<'a>(src: &'a [MigratePfn]) -> impl Iterator<Item = &'a Folio> {
    let mut index = 0;
    let all = iter::from_fn(move || loop {
        let entry = src.get(index)?;
        // SAFETY: Promised by the caller.
        let folio = unsafe { entry.folio() }
            .filter(|folio| folio.is_large() && entry.pfn() == Some(folio.pfn()));

        match folio {
            None => index += 1,
            Some(folio) => {
                index += folio.nr_pages();
                if folio.nr_pages() == NR_PMD_PAGES && folio.is_device_private() {
                    return Some(folio);
                }
            }
        }
    });

    all.take(MOST)
}

#[inline(never)]
fn give_back(folio: &Folio) {
    if folio.is_large() {
        // SAFETY: A live folio.
        unsafe { bindings::drm_pagemap_helper_folio_give_back(folio.as_raw()) };
    }
}

/// Makes a large folio that was freed while it is migrated be in use again. Returns whether it was,
/// and is: then all that is to be done for one that is free must not be.
///
/// What the core has done by then can't be undone: it is no anonymous page any more. So it must not
/// be put in the place of another one, which a further reference sees to, until
/// [the end](Guarded::end). Any context.
///
/// # Safety
///
/// `folio` must be a zone device's, and in its `folio_free` callback.
pub(crate) unsafe fn undo_free(folio: &Folio) -> bool {
    // SAFETY: Promised by the caller.
    folio.is_large() && unsafe { bindings::drm_pagemap_helper_folio_revive(folio.as_raw()) }
}
