// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a range has in device memory, seen without touching a page.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)
//!
//! Collecting pages isolates and unmaps them, and putting them back costs as much again. This reads
//! the page table only.

use crate::{
    bindings,
    mm::{
        Folio,
        LockedMm,
        Pfn,
        VmaRange,
        ZoneDevice,
        NR_PMD_PAGES,
        PMD_ORDER, //
    },
    pool::{
        Buffer,
        Lent,
        Pool, //
    },
};
use core::ops::Range;
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Room for HMM's entries.
struct Entries(KVVec<usize>);

impl Buffer for Entries {
    fn new(npages: usize) -> Result<Self> {
        Ok(Self(KVVec::from_elem(0, npages, GFP_KERNEL)?))
    }

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Entries> = Pool::new();

        &POOL
    }
}

/// Frees what is kept for the next time.
pub(super) fn clear_pool() {
    Entries::pool().clear();
}

/// What was seen of a range, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Looked at.
    pub seen: usize,
    /// Of those, in the device memory that was asked for.
    pub resident: usize,
    /// Of those, in that of another device with the same owner.
    pub elsewhere: usize,
}

/// Looks at `range` of `mm` from its start on, for as long as `go_on` says so, at least at the first
/// page: which pages are in the device memory of `zone`?
///
/// A snapshot: places can change at any time, as no page is locked. Asks `go_on` rarely, so that it
/// may have seen more. May sleep. Errors as those of `hmm_range_fault()`, but for the ones that come
/// from faulting pages in, which this doesn't.
pub fn survey(
    mm: &LockedMm<'_>,
    range: &VmaRange<'_>,
    zone: &ZoneDevice,
    go_on: impl Fn(&Survey) -> bool,
) -> Result<Survey> {
    const BLOCK: usize = PAGE_SIZE << PMD_ORDER;

    let end = range.start() + (range.nr_pages() << PAGE_SHIFT);
    let mut walk = Walk::new(mm, zone);
    let mut result = Survey::default();
    let mut at = range.start();

    while at < end {
        let mut first = [0];
        let block_end = end.min((at & !(BLOCK - 1)).saturating_add(BLOCK));

        walk.read(at..at + PAGE_SIZE, &mut first)?;
        if order(first[0]) == PMD_ORDER {
            result.count(zone, first[0], (block_end - at) >> PAGE_SHIFT);
            at = block_end;
        } else {
            result.count(zone, first[0], 1);
            at += PAGE_SIZE;
            if at < block_end && go_on(&result) {
                let mut entries = Lent::<Entries>::new(NR_PMD_PAGES)?;
                let npages = (block_end - at) >> PAGE_SHIFT;
                let entries = entries.0.get_mut(..npages).ok_or(EINVAL)?;

                entries.fill(0);
                walk.read(at..block_end, entries)?;
                for &entry in entries.iter() {
                    result.count(zone, entry, 1);
                }
                at = block_end;
            }
        }
        if !go_on(&result) {
            break;
        }
    }
    Ok(result)
}

impl Survey {
    #[inline]
    fn count(&mut self, zone: &ZoneDevice, entry: usize, npages: usize) {
        self.seen += npages;
        if entry & bindings::hmm_pfn_flags_HMM_PFN_VALID == 0 {
            return;
        }

        let pfn = Pfn::new(entry & !bindings::hmm_pfn_flags_HMM_PFN_FLAGS);
        if zone.contains(pfn, 1) {
            self.resident += npages;
            return;
        }
        // SAFETY: HMM reports only frames with a `struct page` as valid. No reference is held, so
        // that what is read may be stale; which zone a frame is in does not change.
        if unsafe { Folio::of_page(pfn.page()) }.is_zone_device() {
            self.elsewhere += npages;
        }
    }
}

/// The order that HMM says an entry's page is mapped in.
#[inline]
fn order(entry: usize) -> u32 {
    if entry & bindings::hmm_pfn_flags_HMM_PFN_VALID == 0 {
        return 0;
    }
    (entry >> bindings::hmm_pfn_flags_HMM_PFN_ORDER_SHIFT) as u32 & 0x1f
}

/// Reads page tables through HMM.
///
/// # Invariants
///
/// The address space of `notifier` is locked for `'a`.
struct Walk<'a> {
    /// HMM wants one, for the address space, and for whether to begin again. This one was never
    /// inserted, so that nobody invalidates it: begin again is what a snapshot need not do.
    notifier: bindings::mmu_interval_notifier,
    zone: &'a ZoneDevice,
}

impl<'a> Walk<'a> {
    fn new(mm: &'a LockedMm<'_>, zone: &'a ZoneDevice) -> Self {
        // INVARIANT: Borrowed, so locked.
        Self {
            notifier: bindings::mmu_interval_notifier {
                mm: mm.mm().as_raw(),
                ..Default::default()
            },
            zone,
        }
    }

    /// Fills `entries`, which must be 0, with what HMM says of the pages of `range`, in bytes.
    fn read(&mut self, range: Range<usize>, entries: &mut [usize]) -> Result {
        if entries.len() != range.len() >> PAGE_SHIFT {
            return Err(EINVAL);
        }

        let mut args = bindings::hmm_range {
            notifier: &mut self.notifier,
            notifier_seq: 0,
            start: range.start,
            end: range.end,
            hmm_pfns: entries.as_mut_ptr(),
            default_flags: 0,
            pfn_flags_mask: 0,
            dev_private_owner: self.zone.owner().as_raw(),
        };

        // SAFETY: By the type invariant the mmap lock is held. The array is long enough. Of the
        // notifier, HMM reads the address space and `invalidate_seq`, which is `notifier_seq`.
        kernel::error::to_result(unsafe { bindings::hmm_range_fault(&mut args) })
    }
}
