// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What the sources of a migration amount to.

use crate::mm::{
    MigratePfn,
    Steps, //
};

/// The sum of the sources of a migration, from one short look at each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages that can be, or were, migrated.
    pub migrating: usize,
    /// Whether there are pages of a zone device.
    pub has_device: bool,
    /// Whether there are large folios, or holes to be filled with one.
    pub has_large: bool,
}

impl Tally {
    /// That of an array which the core has filled in.
    ///
    /// # Safety
    ///
    /// Entries that name pages must hold references on their folios.
    #[inline]
    pub(super) unsafe fn of(src: &[MigratePfn]) -> Self {
        match src {
            [entry, ..] if entry.is_compound() => {
                // SAFETY: Promised by the caller.
                return Self::of_folios(unsafe { Steps::of(src, 0) });
            }
            [entry] => {
                return Self {
                    migrating: usize::from(entry.is_migrating()),
                    // SAFETY: Promised by the caller.
                    has_device: unsafe { entry.is_of_zone_device() },
                    has_large: false,
                };
            }
            _ => (),
        }
        // Mostly, all are single pages that migrate.
        let (all, any) = src.iter().fold((usize::MAX, 0), |(all, any), entry| {
            (all & entry.bits(), any | entry.bits()) //
        });
        // SAFETY: No entry yet; asked for its flags only.
        let (all, any) = unsafe { (MigratePfn::from_bits(all), MigratePfn::from_bits(any)) };

        if any.is_compound() || !all.is_migrating() {
            // SAFETY: Promised by the caller.
            return Self::of_folios(unsafe { Steps::of(src, 0) });
        }
        Self {
            migrating: src.len(),
            has_device: src.iter().any(|entry| {
                // SAFETY: Promised by the caller.
                unsafe { entry.is_of_zone_device() }
            }),
            has_large: false,
        }
    }

    fn of_folios(steps: Steps<'_>) -> Self {
        let mut tally = Self::default();

        for step in steps {
            if step.is_migrating() {
                tally.migrating += step.nr_pages();
            }
            tally.has_device |= step.page_is_of_device();
            tally.has_large |= step.nr_pages() > 1;
        }
        tally
    }

    /// The number of pages that were migrated.
    ///
    /// # Safety
    ///
    /// As [`of`](Self::of).
    #[inline(always)]
    pub(super) unsafe fn nr_migrated(src: &[MigratePfn]) -> usize {
        let mut single = 0;

        for entry in src {
            if entry.is_compound() {
                // SAFETY: Promised by the caller.
                return Self::of_folios(unsafe { Steps::of(src, 0) }).migrating;
            }
            single += usize::from(entry.is_migrating());
        }
        single
    }
}
