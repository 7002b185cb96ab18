// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Where the pages of an allocation are, piece by piece.

use crate::{
    dpagemap_devmem::DrmPagemapDevmem,
    mm::{
        Frames,
        Pfn,
        ZoneDevice,
        NR_PMD_PAGES, //
    },
    pool::{
        Buffer,
        Lent,
        Pool, //
    },
};
use core::ops::Range;
use kernel::prelude::*;

/// Room for frame numbers.
pub(crate) struct Pfns(KVVec<Pfn>);

impl Buffer for Pfns {
    fn new(npages: usize) -> Result<Self> {
        Ok(Self(KVVec::from_elem(Pfn::default(), npages, GFP_KERNEL)?))
    }

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Pfns> = Pool::new();

        &POOL
    }
}

/// Frees what is kept for the next time.
pub(crate) fn clear_pool() {
    Pfns::pool().clear();
}

/// Asks a driver for the frames of some of an allocation's pages: those from the given index on, as
/// many as there is room for.
pub(crate) type Ask<'a> = &'a (dyn Fn(usize, &mut [Pfn]) -> Result + Sync);

/// Where the first pages of an allocation are.
///
/// # Invariants
///
/// `Told` holds what the driver of a C allocation said of it, which is that its own frames of its
/// pagemap are there: C drivers are taken at their word, as by C's layer.
pub(crate) enum Places<'a> {
    /// A C driver can say it only of all of them at once: 8 bytes a page.
    Told(Lent<Pfns>, usize),
    /// A Rust driver is asked as it goes.
    Asked(Ask<'a>),
}

impl<'a> Places<'a> {
    /// Those of the first `npages` pages. Calls the driver, and may sleep.
    pub(crate) fn new(
        devmem: &DrmPagemapDevmem,
        npages: usize,
        ask: Option<Ask<'a>>,
    ) -> Result<Self> {
        if let Some(ask) = ask {
            return Ok(Self::Asked(ask));
        }

        let mut pfns = Lent::<Pfns>::new(npages)?;
        devmem.populate_pfns(pfns.0.get_mut(..npages).ok_or(EINVAL)?)?;
        // INVARIANT: Told just now.
        Ok(Self::Told(pfns, npages))
    }

    /// Calls `f` with the frames of `pages`, [`NR_PMD_PAGES`] at most, which are to be those of
    /// `zone`.
    pub(crate) fn with<R>(
        &self,
        pages: Range<usize>,
        zone: &ZoneDevice,
        f: impl FnOnce(Frames<'_>) -> Result<R>,
    ) -> Result<R> {
        match self {
            Self::Told(pfns, npages) if pages.end <= *npages => {
                let pfns = pfns.0.get(pages).ok_or(EINVAL)?;

                // SAFETY: What `Told` is made of.
                f(unsafe { Frames::known(pfns, zone) })
            }
            Self::Told(..) => Err(EINVAL),
            Self::Asked(ask) => {
                let mut pfns = Lent::<Pfns>::new(NR_PMD_PAGES)?;
                let pfns = pfns.0.get_mut(..pages.len()).ok_or(EINVAL)?;

                ask(pages.start, pfns)?;
                f(Frames::new(pfns, zone))
            }
        }
    }
}
