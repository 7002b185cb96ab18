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
};
use core::ops::Range;
use kernel::prelude::*;

/// Asks a driver for the frames of some of an allocation's pages: those from the given index on, as
/// many as there is room for.
pub(crate) type Ask<'a> = &'a (dyn Fn(usize, &mut [Pfn]) -> Result + Sync);

/// Frames by the eight, which is quicker to make than one by one.
type Eight = [Pfn; 8];

/// Where the first pages of an allocation are.
///
/// # Invariants
///
/// `Told` holds what the driver of a C allocation said of it, which is that its own frames of its
/// pagemap are there: C drivers are taken at their word, as by C's layer.
pub(crate) enum Places<'a> {
    /// A C driver can say it only of all of them at once: 8 bytes a page.
    Told(KVVec<Eight>, usize),
    /// It is asked when they are wanted, which is once.
    Untold(&'a DrmPagemapDevmem),
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

        let none = Eight::default();
        let mut pfns = KVVec::from_elem(none, npages.div_ceil(none.len()), GFP_KERNEL)?;

        devmem.populate_pfns(pfns.as_flattened_mut().get_mut(..npages).ok_or(EINVAL)?)?;
        // INVARIANT: Told just now.
        Ok(Self::Told(pfns, npages))
    }

    /// Those of pages that are all [looked at](Self::frames) at once.
    #[inline(always)]
    pub(crate) fn at_once(devmem: &'a DrmPagemapDevmem, ask: Option<Ask<'a>>) -> Self {
        match ask {
            Some(ask) => Self::Asked(ask),
            None => Self::Untold(devmem),
        }
    }

    /// How many of `pages` can be, from the first one on, in folios that a PMD maps whole, and whose
    /// first frames are `wanted`: a multiple of what those have. A quick look at the frames. May call
    /// the driver, and sleep.
    pub(crate) fn nr_in_large(
        &self,
        mut pages: Range<usize>,
        wanted: impl Fn(Pfn) -> bool,
    ) -> usize {
        let start = pages.start;

        while pages.len() >= NR_PMD_PAGES {
            let Some(first) = self.frame(pages.start) else {
                break;
            };
            let last = Pfn::new(first.as_usize() + NR_PMD_PAGES - 1);

            if first.as_usize() % NR_PMD_PAGES != 0
                || !wanted(first)
                || self.frame(pages.start + NR_PMD_PAGES - 1) != Some(last)
            {
                break;
            }
            pages.start += NR_PMD_PAGES;
        }
        pages.start - start
    }

    /// What a C driver said of all of them.
    #[inline(always)]
    fn told(&self) -> Option<&[Pfn]> {
        match self {
            Self::Told(pfns, npages) => pfns.as_flattened().get(..*npages),
            _ => None,
        }
    }

    /// The frame of one page.
    fn frame(&self, page: usize) -> Option<Pfn> {
        match self {
            Self::Told(..) => self.told()?.get(page).copied(),
            Self::Untold(_) => None,
            Self::Asked(ask) => {
                let mut pfn = [Pfn::default()];

                ask(page, &mut pfn).ok().map(|()| pfn[0])
            }
        }
    }

    /// The frames of `pages`, which are to be those of `zone`; in `room`, if they are not there yet.
    /// May call the driver, and sleep. [`EINVAL`]: there are not as many, or no room.
    #[inline(always)]
    pub(crate) fn frames<'b>(
        &'b self,
        pages: Range<usize>,
        zone: &'b ZoneDevice,
        room: &'b mut [Pfn],
    ) -> Result<Frames<'b>> {
        let pfns = match self {
            Self::Told(..) => self.told().and_then(|pfns| pfns.get(pages)).ok_or(EINVAL)?,
            Self::Untold(devmem) => {
                if pages.start != 0 {
                    return Err(EINVAL);
                }
                let pfns = room.get_mut(pages).ok_or(EINVAL)?;

                devmem.populate_pfns(pfns)?;
                pfns
            }
            Self::Asked(ask) => {
                let pfns = room.get_mut(..pages.len()).ok_or(EINVAL)?;

                ask(pages.start, pfns)?;
                return Ok(Frames::new(pfns, zone));
            }
        };

        // SAFETY: What the driver of a C allocation said of it, just now or before.
        Ok(unsafe { Frames::known(pfns, zone) })
    }
}
