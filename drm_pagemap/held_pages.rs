// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Device pages that stay where they are while the device works on them.

use crate::{
    gate::Pass,
    mm::{
        pmd_part,
        Arrays,
        Collected,
        LockedMm,
        PagemapOwner,
        Select,
        VmaRange, //
    },
};
use core::ops::Range;
use kernel::{
    page::{
        PAGE_MASK,
        PAGE_SHIFT, //
    },
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// All pages of a range, in device memory, isolated: no CPU can reach them, nobody else can migrate
/// them. Dropping this lets them go.
///
/// It is a migration that is begun and never carried out.
pub struct HeldPages<'a> {
    parts: KVec<Collected<'a>>,
    start: usize,
    _pass: Pass<'a>,
}

impl<'a> HeldPages<'a> {
    /// How often pages that somebody else has locked are waited for, a millisecond each time.
    const TRIES: usize = 20;

    pub(crate) fn new(
        pass: Pass<'a>,
        mm: &'a LockedMm<'_>,
        range: Range<usize>,
        owner: PagemapOwner,
        frames: Range<usize>,
    ) -> Result<Self> {
        if range.is_empty() || (range.start | range.end) & !PAGE_MASK != 0 {
            return Err(EINVAL);
        }

        for _ in 0..Self::TRIES {
            if let Some(parts) = collect(mm, range.clone(), owner)? {
                let held = Self {
                    parts,
                    start: frames.start,
                    _pass: pass,
                };

                return if held.are_within(&frames) {
                    Ok(held)
                } else {
                    Err(EFAULT)
                };
            }
            fsleep(Delta::from_millis(1));
        }
        Err(EFAULT)
    }

    /// Whether the process itself could write to all of them just now. Those that it shares
    /// copy-on-write with another one are not the device's to write to.
    pub fn are_writable(&self) -> bool {
        self.parts
            .iter()
            .flat_map(|part| part.steps())
            .all(|step| step.is_writable())
    }

    /// Whether all are the device's own: its group may have other devices, with the same owner.
    fn are_within(&self, frames: &Range<usize>) -> bool {
        self.parts
            .iter()
            .flat_map(|part| part.steps())
            .filter_map(|step| step.folio())
            .all(|folio| frames.contains(&folio.pfn().as_usize()))
    }

    /// The pages, as runs of bytes that are contiguous in device memory: offsets from the start of
    /// the pagemap. In ascending order of virtual addresses.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut pages = self
            .parts
            .iter()
            .flat_map(|part| part.steps())
            .filter_map(|step| {
                let page = step.folio()?.pfn().as_usize() - self.start;
                let offset = (page as u64) << PAGE_SHIFT;

                Some(offset..offset + ((step.nr_pages() as u64) << PAGE_SHIFT))
            })
            .peekable();

        core::iter::from_fn(move || {
            let mut run = pages.next()?;

            while let Some(next) = pages.next_if(|next| next.start == run.end) {
                run.end = next.end;
            }
            Some(run)
        })
    }
}

/// Collects the device pages of `range`, area by area; [`None`] if that was not all of them.
fn collect<'a>(
    mm: &'a LockedMm<'_>,
    range: Range<usize>,
    owner: PagemapOwner,
) -> Result<Option<KVec<Collected<'a>>>> {
    let mut parts = KVec::new();
    let mut start = range.start;

    while start < range.end {
        let vma = mm.vma_lookup(start).ok_or(EFAULT)?;
        let part = pmd_part(&(start..range.end.min(vma.end())), start);
        let end = part.end;
        let part = VmaRange::new(vma, part)?;
        let arrays = Arrays::new(part.nr_pages())?;
        let select = Select::DEVICE_PRIVATE.and(Select::COMPOUND);
        let pages = Collected::from_vma(&part, owner, select, None, arrays).map_err(|err| {
            if err == EINVAL {
                EFAULT
            } else {
                err
            }
        })?;

        if pages.nr_collected() != pages.nr_pages() {
            return Ok(None);
        }
        parts.push(pages, GFP_KERNEL)?;
        start = end;
    }
    Ok(Some(parts))
}
