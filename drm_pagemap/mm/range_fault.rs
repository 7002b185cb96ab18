// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The pages of a range, as the CPU's page tables have them.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)

use crate::{
    bindings,
    mm::{
        Folio,
        Interval,
        IntervalOps,
        PagemapOwner,
        Pfn,
        NR_PMD_PAGES,
        PMD_ORDER, //
    },
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    page::{
        BorrowedPage,
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    time::msecs_to_jiffies, //
};

/// What shall be possible with the pages of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They are taken as they are: absent, for reading or for writing.
    AsIs,
    /// They are made readable, as by a CPU that reads them.
    Read,
    /// They are made writable, as by a CPU that writes to them.
    Write,
}

impl Access {
    fn flags(self) -> usize {
        match self {
            Self::AsIs => 0,
            Self::Read => bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT,
            Self::Write => {
                bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT
                    | bindings::hmm_pfn_flags_HMM_PFN_REQ_WRITE
            }
        }
    }
}

/// The pages of a range within an [`Interval`]; `struct hmm_range`.
///
/// No references are held on them: they are there to be used within [`commit`](Self::commit) only.
pub struct Pages<'a, T: IntervalOps> {
    interval: &'a Interval<T>,
    range: Range<usize>,
    access: Access,
    pfns: KVVec<usize>,
    /// When they were found.
    seq: Option<usize>,
}

impl<'a, T: IntervalOps> Pages<'a, T> {
    /// How long a range is tried that changes all the time, in milliseconds;
    /// `HMM_RANGE_DEFAULT_TIMEOUT`.
    const TIMEOUT_MS: u32 = 1000;

    /// Those of `range` (in bytes), of which nothing is known yet. Allocates a word a page.
    ///
    /// [`EINVAL`]: the range is empty, misaligned, or not in the interval. [`ENOMEM`].
    pub fn new(interval: &'a Interval<T>, range: Range<usize>, access: Access) -> Result<Self> {
        let within = interval.range();

        if range.is_empty()
            || (range.start | range.end) & !PAGE_MASK != 0
            || range.start < within.start
            || range.end > within.end
        {
            return Err(EINVAL);
        }
        Ok(Self {
            pfns: KVVec::from_elem(0, range.len() >> PAGE_SHIFT, GFP_KERNEL)?,
            interval,
            range,
            access,
            seq: None,
        })
    }

    /// Finds out what pages there are, after taking page faults for those that shall be there.
    ///
    /// Takes the mmap lock, which must not be held, for reading; may sleep. Tries for a second.
    ///
    /// # Errors
    ///
    /// - [`EFAULT`]: the address space is dead, nothing is mapped somewhere, or what is there can't
    ///   be accessed;
    /// - [`EPERM`]: it may not be written to;
    /// - [`EBUSY`]: the range changes all the time;
    /// - [`EINTR`]: the task is being killed;
    /// - [`EINVAL`], [`ENOMEM`], [`EHWPOISON`](kernel::error::code): what the page fault says.
    ///
    /// Pages in device memory of the interval's owner are taken as they are, also if the process may
    /// not write to them: see [`fault_read_only`](Self::fault_read_only).
    pub fn fault(&mut self) -> Result {
        let owner = self.interval.owner().as_raw();

        self.seq = None;
        self.seq = Some(self.walk(0..self.pfns.len(), owner)?);
        Ok(())
    }

    /// Takes page faults for those of the found pages that may not be written to: shared after a
    /// fork, say. If writing is wanted, they are in device memory, where the core leaves them alone.
    /// What is there comes to RAM, as if a CPU wrote to it, and becomes one the process may write to.
    ///
    /// After that [`fault`](Self::fault) has to be called again. Errors, and when this may be called,
    /// as there. [`EBUSY`], too, if the time slice of the device memory takes longer.
    pub fn fault_read_only(&mut self) -> Result {
        let is_read_only = |entry: &usize| {
            entry & bindings::hmm_pfn_flags_HMM_PFN_VALID != 0
                && entry & bindings::hmm_pfn_flags_HMM_PFN_WRITE == 0
        };
        let mut at = 0;

        self.seq = None;
        while let Some(first) = self.pfns[at..].iter().position(is_read_only) {
            let rest = &self.pfns[at + first..];
            let len = rest.iter().take_while(|entry| is_read_only(entry)).count();
            let start = at + first;

            at = start + len;
            // Nobody's memory: so these pages are not the caller's either.
            self.walk(start..at, core::ptr::null_mut())?;
        }
        Ok(())
    }

    /// Looks for the pages with the indices `part`, which is not empty, taking the page faults that it
    /// takes; device memory of `owner` is found, other is brought to RAM. Returns when that was.
    fn walk(&mut self, part: Range<usize>, owner: *mut c_void) -> Result<usize> {
        let pfns = &mut self.pfns[part.clone()];
        let mut args = bindings::hmm_range {
            notifier: self.interval.notifier(),
            notifier_seq: 0,
            start: self.range.start + (part.start << PAGE_SHIFT),
            end: self.range.start + (part.end << PAGE_SHIFT),
            hmm_pfns: pfns.as_mut_ptr(),
            default_flags: self.access.flags(),
            pfn_flags_mask: 0,
            dev_private_owner: owner,
        };
        // Its users must not go while page faults are taken.
        let _mm = self.interval.mm().mmget_not_zero().ok_or(EFAULT)?;

        pfns.fill(0);
        // SAFETY: The notifier is inserted for a range that has this one, which is not empty; the
        // array has a word for each of its pages.
        kernel::error::to_result(unsafe {
            bindings::hmm_range_fault_unlocked_timeout(
                &mut args,
                msecs_to_jiffies(Self::TIMEOUT_MS),
            )
        })?;
        Ok(args.notifier_seq)
    }

    /// Takes the interval's lock, and calls `f` with what was found, if nothing has changed since.
    /// [`None`]: something has, or nothing was found yet; call [`fault`](Self::fault) again.
    ///
    /// What goes for [`Seq::commit`](crate::mm::Seq::commit) goes for `f`.
    pub fn commit<R>(&self, f: impl FnOnce(&mut T::State, Found<'_>) -> R) -> Option<R> {
        let seq = self.interval.seq(self.seq?);

        // INVARIANT: (Of `Found`.) All that changes this range, and so all that frees a page of it,
        // changes the sequence number first, with the lock held.
        seq.commit(|state| {
            f(
                state,
                Found {
                    start: self.range.start,
                    pfns: &self.pfns,
                    owner: self.interval.owner(),
                },
            )
        })
    }

    /// [`fault`](Self::fault) and [`commit`](Self::commit), until nothing comes in between.
    ///
    /// Errors as those of [`fault`](Self::fault) and of `f`. [`EBUSY`]: that took too many tries.
    pub fn fault_and_commit<R>(
        &mut self,
        f: impl FnOnce(&mut T::State, Found<'_>) -> Result<R>,
    ) -> Result<R> {
        const TRIES: usize = 100;

        let mut f = Some(f);
        for _ in 0..TRIES {
            self.fault()?;
            let committed = self.commit(|state, found| f.take().map(|f| f(state, found)));

            if let Some(result) = committed.flatten() {
                return result;
            }
        }
        Err(EBUSY)
    }
}

/// The pages that were found, for as long as nothing can change.
///
/// # Invariants
///
/// `pfns` are the entries of a range that starts at `start`, just as the page tables have them; the
/// pages in them stay while the value exists.
pub struct Found<'a> {
    start: usize,
    pfns: &'a [usize],
    owner: PagemapOwner,
}

impl<'a> Found<'a> {
    /// The number of pages of the range.
    pub fn nr_pages(&self) -> usize {
        self.pfns.len()
    }

    /// The page at an index; [`None`] if it is absent.
    pub fn page(&self, index: usize) -> Option<FoundPage<'a>> {
        let entry = *self.pfns.get(index)?;

        // INVARIANT: As that of `self`.
        (entry & bindings::hmm_pfn_flags_HMM_PFN_VALID != 0).then(|| FoundPage {
            entry,
            addr: self.start + (index << PAGE_SHIFT),
            owner: self.owner,
            _found: self.pfns,
        })
    }

    /// Whether there is something at an index that can't be accessed at all: no area, poisoned
    /// memory, or the like.
    pub fn is_error(&self, index: usize) -> bool {
        self.pfns
            .get(index)
            .is_some_and(|entry| entry & bindings::hmm_pfn_flags_HMM_PFN_ERROR != 0)
    }

    /// The present pages, in ascending order, each with as many of those behind it as a single
    /// entry of a page table could map: the number of pages is a power of two, of which both
    /// address and frame are multiples, and the CPU has them mapped as one.
    pub fn pieces(&self) -> impl Iterator<Item = (FoundPage<'a>, u32)> + '_ {
        let mut index = 0;

        core::iter::from_fn(move || {
            while index < self.pfns.len() {
                let Some(page) = self.page(index) else {
                    index += 1;
                    continue;
                };
                let order = page.piece_order(self.pfns.len() - index);

                index += 1 << order;
                return Some((page, order));
            }
            None
        })
    }
}

/// A page that was found.
///
/// # Invariants
///
/// `entry` names a frame that has a `struct page`, which stays the page at `addr` while the value
/// exists.
#[derive(Clone, Copy)]
pub struct FoundPage<'a> {
    entry: usize,
    addr: usize,
    owner: PagemapOwner,
    _found: &'a [usize],
}

impl FoundPage<'_> {
    /// Its virtual address, in bytes.
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// Its frame.
    pub fn pfn(&self) -> Pfn {
        let pfn = self.entry & !bindings::hmm_pfn_flags_HMM_PFN_FLAGS;

        // Of a device folio that a PMD maps the core reports the first frames, wherever in it the
        // range starts. A PMD's frames are as aligned as its addresses.
        if self.map_order() == PMD_ORDER {
            let within = NR_PMD_PAGES - 1;

            Pfn::new((pfn & !within) | ((self.addr >> PAGE_SHIFT) & within))
        } else {
            Pfn::new(pfn)
        }
    }

    /// The CPU has it mapped as one of `1 << map_order()` pages, whose first address is a multiple
    /// of their size.
    pub fn map_order(&self) -> u32 {
        (self.entry >> bindings::hmm_pfn_flags_HMM_PFN_ORDER_SHIFT) as u32 & 0x1f
    }

    /// Whether the process may write to it just now. If not, it can be one that it shares with
    /// others.
    pub fn is_writable(&self) -> bool {
        self.entry & bindings::hmm_pfn_flags_HMM_PFN_WRITE != 0
    }

    /// Whether it is the page of zeroes that is mapped where nothing was written yet.
    pub fn is_zero_page(&self) -> bool {
        is_zero_pfn(self.pfn())
    }

    fn folio(&self) -> &Folio {
        // SAFETY: By the type invariant it is a page that is mapped, and so referenced.
        unsafe { Folio::of_page(self.pfn().page()) }
    }

    /// Whether it is in device memory that belongs to the interval's owner: no other is found.
    pub fn is_device(&self) -> bool {
        self.folio().pgmap().is_some_and(|pgmap| {
            // SAFETY: A zone device outlives its pages that are mapped.
            unsafe { (*pgmap.as_ptr()).owner == self.owner.as_raw() }
        })
    }

    /// Whether it is RAM, or what a device can get at in the same way.
    pub fn is_ram(&self) -> bool {
        !self.folio().is_zone_device()
    }

    /// The largest order of a piece that starts here, with `rest` pages left.
    fn piece_order(&self, rest: usize) -> u32 {
        let aligned = (self.pfn().as_usize() | (self.addr >> PAGE_SHIFT)).trailing_zeros();

        // Checked, though `rest` is not 0: objtool does not know that the panic does not return.
        let fits = rest.checked_ilog2().unwrap_or(0);

        self.map_order().min(aligned).min(fits)
    }

    /// Reads it, if it is RAM, from byte `offset` on. Who else writes to it meanwhile is seen or
    /// not. [`EINVAL`]: that is out of the page, or it is not RAM.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result {
        let page = self.ram(offset, out.len())?;

        // SAFETY: In bounds of `out`. Other writers are processes and devices.
        unsafe { page.read_raw(out.as_mut_ptr(), offset, out.len()) }
    }

    /// Writes to it, if it is writable RAM, from byte `offset` on, as a device does. [`EINVAL`]:
    /// that is out of the page, or it is not RAM; [`EPERM`]: it is not writable.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result {
        if !self.is_writable() {
            return Err(EPERM);
        }
        let page = self.ram(offset, bytes.len())?;

        // SAFETY: In bounds of `bytes`. Others that access it are processes and devices.
        unsafe { page.write_raw(bytes.as_ptr(), offset, bytes.len()) }
    }

    fn ram(&self, offset: usize, len: usize) -> Result<BorrowedPage<'_>> {
        if !self.is_ram() || offset.checked_add(len).is_none_or(|end| end > PAGE_SIZE) {
            return Err(EINVAL);
        }
        let page = NonNull::new(self.pfn().page()).ok_or(EINVAL)?;

        // SAFETY: By the type invariant it stays as long as `self`.
        Ok(unsafe { BorrowedPage::from_raw(page) })
    }
}

/// `is_zero_pfn()`. Not inlined: drivers' crates can't call the helper.
#[inline(never)]
fn is_zero_pfn(pfn: Pfn) -> bool {
    // SAFETY: Any number will do.
    unsafe { bindings::drm_pagemap_helper_is_zero_pfn(pfn.as_usize()) }
}
