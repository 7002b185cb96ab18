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

/// How many folios that a PMD maps are migrated at a time, at most.
const MOST: usize = LARGE_PAGES / NR_PMD_PAGES;

/// Guards the sources of a migration that PMDs may have mapped, if there are some.
///
/// All calls must be made by who owns references on, and the locks of, the folios, but for the last
/// one, [`end`](Self::end), when these are given up.
pub(super) enum ZapGuard {
    /// There are none.
    Nobody,
    /// There are these.
    Folios([Option<FolioRef>; MOST]),
}

impl ZapGuard {
    /// Guards what was collected for a range, all of which must be valid entries.
    ///
    /// # Safety
    ///
    /// Entries that name pages must hold references.
    #[inline(always)]
    pub(super) unsafe fn new(src: &[MigratePfn]) -> Self {
        match src.first() {
            // What a PMD maps is all that is collected at once, or there are several of that.
            Some(entry)
                if src.len() > NR_PMD_PAGES || src.len() == NR_PMD_PAGES && entry.is_compound() =>
            {
                // SAFETY: Promised by the caller.
                unsafe { Self::hold(src) }
            }
            _ => Self::Nobody,
        }
    }

    /// Guards what there is to guard.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new).
    #[inline(never)]
    unsafe fn hold(src: &[MigratePfn]) -> Self {
        let mut folios = [const { None }; MOST];
        let mut free = folios.iter_mut();

        for entry in src.iter().filter(|entry| entry.is_compound()) {
            // SAFETY: Promised by the caller.
            let folio = unsafe { entry.folio() }.filter(|folio| folio.is_device_private());

            if let Some((folio, slot)) = folio.and_then(|folio| Some((folio, free.next()?))) {
                *slot = Some(folio.get());
            }
        }
        match folios {
            [None, ..] => Self::Nobody,
            folios => Self::Folios(folios),
        }
    }

    /// Calls `f`, for which the number of references must be exact.
    #[inline(always)]
    pub(super) fn lifted(&mut self, f: impl FnOnce()) {
        let Self::Folios(folios) = self else {
            return f();
        };
        let let_go = |folio: FolioRef| {
            give_back(&folio);
            folio.as_raw()
        };
        let raw = folios.each_mut().map(|folio| folio.take().map(let_go));

        f();
        for (folio, raw) in folios.iter_mut().zip(raw) {
            // SAFETY: The caller has a reference.
            *folio = raw.map(|raw| unsafe { Folio::from_raw(raw) }.get());
        }
    }

    /// Gives back what was taken so far.
    #[inline(always)]
    pub(super) fn settle(&self) {
        if let Self::Folios(folios) = self {
            folios.iter().flatten().for_each(|folio| give_back(folio));
        }
    }

    /// No migration entry is left.
    #[inline(always)]
    pub(super) fn end(&mut self) {
        if let Self::Folios(folios) = self {
            for folio in folios.iter_mut().filter_map(Option::take) {
                give_back(&folio);
                // SAFETY: A live folio, of a zone device of ours or another's; the reference that goes
                // with the mark is ours.
                unsafe { bindings::drm_pagemap_helper_folio_end_revival(folio.as_raw()) };
            }
        }
    }
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
/// [the end](ZapGuard::end). Any context.
///
/// # Safety
///
/// `folio` must be a zone device's, and in its `folio_free` callback.
pub(crate) unsafe fn undo_free(folio: &Folio) -> bool {
    // SAFETY: Promised by the caller.
    folio.is_large() && unsafe { bindings::drm_pagemap_helper_folio_revive(folio.as_raw()) }
}
