// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! All that the migration of what a PMD maps takes of arrays, in one buffer.

use crate::{
    mm::{
        Entries,
        Pfn,
        NR_PMD_PAGES, //
    },
    page_array::CopyEntries,
    pool::{
        Buffer,
        Pool, //
    },
};
use kernel::prelude::*;

/// Room for up to [`NR_PMD_PAGES`] pages: 48 bytes for each.
#[derive(Zeroable)]
pub(crate) struct Scratch {
    /// For [`Arrays`](crate::mm::Arrays), whatever is left in it.
    pub(crate) entries: Entries,
    /// For what a driver's copy operation is given; empty between two uses.
    pub(crate) copies: CopyEntries,
    /// For the places of device memory, whatever is left in it.
    pub(crate) pfns: [Pfn; NR_PMD_PAGES],
}

impl Buffer for Scratch {
    #[inline(always)]
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Scratch> = Pool::new();

        &POOL
    }
}

/// Frees what is kept for the next time.
pub(crate) fn clear_pool() {
    Scratch::pool().clear();
}
