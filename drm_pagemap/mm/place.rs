// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Where the pages of a range are.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)

use crate::{
    bindings,
    mm::{
        Folio,
        LockedMm,
        PagemapOwner,
        Pfn,
        NR_PMD_PAGES, //
    },
};
use core::{
    ops::Range,
    pin::Pin, //
};
use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*,
    types::Opaque, //
};

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not present: never touched, not mapped, swapped out, on the move, or in the memory of a
    /// device that has another owner.
    None,
    /// In RAM.
    Ram,
    /// In device-private memory of the given owner.
    Device(Pfn),
}

/// An MMU notifier that is in place while a snapshot is taken, as hmm_range_fault() wants one.
///
/// # Invariants
///
/// `notifier` is inserted, from the end of `new` until `drop`.
#[pin_data(PinnedDrop)]
struct Watch {
    #[pin]
    notifier: Opaque<bindings::mmu_interval_notifier>,
}

impl Watch {
    fn new(mm: &MmWithUser, range: Range<usize>) -> impl PinInit<Self, Error> + '_ {
        try_pin_init!(Self {
            notifier <- Opaque::try_ffi_init(move |slot: *mut bindings::mmu_interval_notifier| {
                // SAFETY: `mm` has users, and `slot` is pinned memory that is removed before it is
                // freed. The mmap lock is not held: no `LockedMm` was made yet.
                kernel::error::to_result(unsafe {
                    bindings::mmu_interval_notifier_insert(
                        slot,
                        mm.as_raw(),
                        range.start,
                        range.len(),
                        &WATCH_OPS,
                    )
                })
            }),
        }? Error)
    }
}

#[pinned_drop]
impl PinnedDrop for Watch {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant it is inserted.
        unsafe { bindings::mmu_interval_notifier_remove(self.notifier.get()) };
    }
}

static WATCH_OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
    invalidate: Some(invalidate),
    invalidate_start: None,
    invalidate_finish: None,
};

/// Notes that the address space changed; the snapshot is then taken again.
///
/// # Safety
///
/// Called by the core with an inserted notifier, under the lock that guards the sequence.
unsafe extern "C" fn invalidate(
    notifier: *mut bindings::mmu_interval_notifier,
    _range: *const bindings::mmu_notifier_range,
    seq: usize,
) -> bool {
    // SAFETY: As mmu_interval_set_seq() does it.
    unsafe { core::ptr::addr_of_mut!((*notifier).invalidate_seq).write_volatile(seq) };
    true
}

/// Calls `found` with the address and place of each page of `range` (in bytes, page-aligned).
///
/// Device pages count only if they are of `owner`. A snapshot: places can change at any time. May
/// sleep, and takes the mmap lock, which must not be held. [`EINVAL`] for a range that is empty or
/// misaligned; [`EBUSY`] if the range changes all the time.
pub fn places(
    mm: &MmWithUser,
    range: Range<usize>,
    owner: PagemapOwner,
    mut found: impl FnMut(usize, Place) -> Result,
) -> Result {
    /// Bytes a snapshot, which bounds the memory it takes. Each starts where a PMD's range does: of
    /// a device folio that a PMD maps, the core reports the first frames, wherever it starts to look.
    const CHUNK: usize = NR_PMD_PAGES * PAGE_SIZE;

    if range.is_empty() || (range.start | range.end) & !PAGE_MASK != 0 {
        return Err(EINVAL);
    }

    let mut pfns = KVec::from_elem(0usize, NR_PMD_PAGES, GFP_KERNEL)?;
    let mut start = range.start;

    while start < range.end {
        let first = start & !(CHUNK - 1);
        let end = range.end.min(first.saturating_add(CHUNK));

        snapshot(mm, first..end, owner, &mut pfns)?;
        for at in (start..end).step_by(PAGE_SIZE) {
            let pfn = *pfns.get((at - first) / PAGE_SIZE).ok_or(EINVAL)?;

            found(at, place(pfn, owner))?;
        }
        start = end;
    }
    Ok(())
}

/// Fills `pfns` with HMM entries for `range`.
fn snapshot(
    mm: &MmWithUser,
    range: Range<usize>,
    owner: PagemapOwner,
    pfns: &mut [usize],
) -> Result {
    const TRIES: usize = 100;

    let watch = KBox::pin_init(Watch::new(mm, range.clone()), GFP_KERNEL)?;

    for _ in 0..TRIES {
        pfns.fill(0);
        // SAFETY: The notifier is inserted.
        let seq = unsafe { bindings::mmu_interval_read_begin(watch.notifier.get()) };
        let mut args = bindings::hmm_range {
            notifier: watch.notifier.get(),
            notifier_seq: seq,
            start: range.start,
            end: range.end,
            hmm_pfns: pfns.as_mut_ptr(),
            default_flags: 0,
            pfn_flags_mask: 0,
            dev_private_owner: owner.as_raw(),
        };
        let locked = LockedMm::read(mm);
        // SAFETY: The range is not empty, the array is long enough for it (`places` made them so),
        // and the mmap lock is held. No page is asked to be faulted in.
        let ret = unsafe { bindings::hmm_range_fault(&mut args) };

        drop(locked);
        match kernel::error::to_result(ret) {
            Err(err) if err == EBUSY => continue,
            other => return other,
        }
    }
    Err(EBUSY)
}

/// Reads an HMM entry.
fn place(entry: usize, owner: PagemapOwner) -> Place {
    if entry & bindings::hmm_pfn_flags_HMM_PFN_VALID == 0 {
        return Place::None;
    }

    let pfn = Pfn::new(entry & !bindings::hmm_pfn_flags_HMM_PFN_FLAGS);
    // SAFETY: HMM reports only frames with a `struct page` as valid. No reference is held, so all
    // that is read may be stale, as snapshots are; zone device pages stay where they are while
    // their owner, who asks, is registered.
    let folio = unsafe { Folio::of_page(pfn.page()) };

    match folio.pgmap() {
        // SAFETY: A zone device page whose zone device is alive: the owner is registered.
        Some(pgmap) if unsafe { (*pgmap.as_ptr()).owner } == owner.as_raw() => Place::Device(pfn),
        _ => Place::Ram,
    }
}
