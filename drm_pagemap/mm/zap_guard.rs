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
        Folio,
        FolioRef,
        MigratePfn,
        NR_PMD_PAGES, //
    },
};

/// Guards the source of a migration that a PMD may have mapped, if there is one.
///
/// All calls must be made by who owns a reference on, and the lock of, the folio, but for the last
/// one, [`end`](Self::end), when these are given up.
pub(super) struct ZapGuard(Option<FolioRef>);

impl ZapGuard {
    /// Guards what was collected for a range, all of which must be valid entries.
    ///
    /// # Safety
    ///
    /// Entries that name pages must hold references.
    #[inline(always)]
    pub(super) unsafe fn new(src: &[MigratePfn]) -> Self {
        match src.first() {
            // What a PMD maps is all that is collected at once.
            Some(entry) if src.len() >= NR_PMD_PAGES && entry.is_compound() => {
                // SAFETY: Promised by the caller.
                Self(unsafe { entry.folio() }.and_then(Self::hold))
            }
            _ => Self(None),
        }
    }

    #[inline(never)]
    fn hold(folio: &Folio) -> Option<FolioRef> {
        folio.is_device_private().then(|| folio.get())
    }

    /// Calls `f`, for which the number of references must be exact.
    #[inline(always)]
    pub(super) fn lifted(&mut self, f: impl FnOnce()) {
        match self.0.take() {
            None => f(),
            Some(folio) => {
                give_back(&folio);

                let raw = folio.as_raw();
                drop(folio);
                f();
                // SAFETY: The caller has a reference.
                self.0 = Some(unsafe { Folio::from_raw(raw) }.get());
            }
        }
    }

    /// Gives back what was taken so far.
    #[inline(always)]
    pub(super) fn settle(&self) {
        if let Some(folio) = &self.0 {
            give_back(folio);
        }
    }

    /// No migration entry is left.
    #[inline(always)]
    pub(super) fn end(&mut self) {
        if let Some(folio) = self.0.take() {
            give_back(&folio);
            // SAFETY: A live folio, of a zone device of ours or another's; the reference that goes
            // with the mark is ours.
            unsafe { bindings::drm_pagemap_helper_folio_end_revival(folio.as_raw()) };
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
