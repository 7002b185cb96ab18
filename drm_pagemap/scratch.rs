// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! All that the migration of a chunk takes of arrays, in one buffer.

use crate::{
    crew::TURNS,
    mm::{
        Entries,
        Pfn,
        LARGE_PAGES,
        NR_PMD_PAGES, //
    },
    page_array::CopyEntries,
    pool::{
        Buffer,
        Pool, //
    },
};
use kernel::prelude::*;

/// Room for up to `N` pages: 48 bytes for each.
#[derive(Zeroable)]
pub(crate) struct Scratch<const N: usize = NR_PMD_PAGES> {
    /// For [`Arrays`](crate::mm::Arrays), whatever is left in it.
    pub(crate) entries: Entries<N>,
    /// For what a driver's copy operation is given; empty between two uses.
    pub(crate) copies: CopyEntries<N>,
    /// For the places of device memory, whatever is left in it.
    pub(crate) pfns: [Pfn; N],
}

impl Buffer for Scratch {
    #[inline(always)]
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Scratch> = Pool::new();

        &POOL
    }
}

/// Room for [`LARGE_PAGES`], 192 KiB. That of those who take turns is kept, whatever the processor.
pub(crate) struct LargeScratch(Option<KVBox<Scratch<LARGE_PAGES>>>);

static LARGE: Pool<Scratch<LARGE_PAGES>, TURNS> = Pool::new();

impl LargeScratch {
    /// Takes the memory, if it is `wanted` and there. May sleep.
    pub(crate) fn new(wanted: bool) -> Self {
        if !wanted {
            return Self(None);
        }
        Self(LARGE.take().or_else(|| KVBox::zeroed(GFP_KERNEL).ok()))
    }

    /// The most pages that a chunk has: without the memory, what a PMD maps.
    pub(crate) fn most_pages(&self) -> usize {
        self.0.as_ref().map_or(NR_PMD_PAGES, |_| LARGE_PAGES)
    }

    /// The room; [`None`] for chunks of up to [`NR_PMD_PAGES`], for which there is smaller one.
    pub(crate) fn room(&mut self, nr_pages: usize) -> Option<&mut Scratch<LARGE_PAGES>> {
        self.0.as_deref_mut().filter(|_| nr_pages > NR_PMD_PAGES)
    }
}

impl Drop for LargeScratch {
    fn drop(&mut self) {
        if let Some(room) = self.0.take() {
            LARGE.put(room);
        }
    }
}

/// Frees what is kept for the next time.
pub(crate) fn clear_pool() {
    Scratch::pool().clear();
    LARGE.clear();
}
