// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Page migration as a typestate: [`Collected`] → [`Migrated`] → done.
//!
//! C header: [`include/linux/migrate.h`](srctree/include/linux/migrate.h)
//!
//! The core's protocol is setup, fill in destinations, copy, migrate, finalize; whoever leaves out
//! the last step leaves a process waiting for ever on migration entries. Here it runs in `Drop`,
//! so that no error path can forget it, and what was not migrated is restored.

use crate::{
    bindings,
    mm::{
        Folio,
        LockedFolio,
        MigratePfn,
        PagemapOwner,
        Pfn,
        NR_PMD_PAGES, //
    },
};
use core::{
    marker::PhantomData,
    mem,
    ops::Range, //
};
use kernel::{
    mm::virt::VmaRef,
    prelude::*, //
};

/// The two page arrays of a migration: sources and destinations, one entry a page.
pub struct Arrays {
    src: KVVec<MigratePfn>,
    dst: KVVec<MigratePfn>,
}

impl Arrays {
    /// Arrays of `npages` empty entries each: 16 bytes a page. May sleep.
    pub fn new(npages: usize) -> Result<Self> {
        Ok(Self {
            src: KVVec::from_elem(MigratePfn::NONE, npages, GFP_KERNEL)?,
            dst: KVVec::from_elem(MigratePfn::NONE, npages, GFP_KERNEL)?,
        })
    }

    /// How many pages the arrays are for.
    pub fn nr_pages(&self) -> usize {
        self.src.len()
    }
}

/// Which pages a migration by virtual address collects.
#[derive(Clone, Copy)]
pub struct Select(bindings::migrate_vma_direction);

impl Select {
    /// Pages in RAM, and addresses never touched.
    pub const SYSTEM: Self = Self(bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM);
    /// Device-private pages of the given owner.
    pub const DEVICE_PRIVATE: Self =
        Self(bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE);
    /// Device-coherent pages of the given owner.
    pub const DEVICE_COHERENT: Self =
        Self(bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_COHERENT);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A page-aligned range within one area.
pub struct VmaRange<'a> {
    vma: &'a VmaRef,
    range: Range<usize>,
}

impl<'a> VmaRange<'a> {
    /// The part `range` (in bytes) of `vma`. [`EINVAL`] if it is empty, misaligned, or reaches out of it.
    pub fn new(vma: &'a VmaRef, range: Range<usize>) -> Result<Self> {
        if range.is_empty()
            || (range.start | range.end) & !kernel::page::PAGE_MASK != 0
            || range.start < vma.start()
            || range.end > vma.end()
        {
            return Err(EINVAL);
        }
        Ok(Self { vma, range })
    }

    /// Its length in pages.
    pub fn nr_pages(&self) -> usize {
        self.range.len() >> kernel::page::PAGE_SHIFT
    }

    /// Its first address, in bytes.
    pub fn start(&self) -> usize {
        self.range.start
    }

    /// The area.
    pub fn vma(&self) -> &'a VmaRef {
        self.vma
    }
}

/// A CPU fault on a device-private page, as the core hands it to the page's owner.
///
/// # Invariants
///
/// `vmf` is a fault that is being handled: its area is under the mmap or vma lock, its page is
/// device-private, referenced and locked.
pub struct Fault<'a> {
    vmf: *mut bindings::vm_fault,
    _p: PhantomData<&'a mut bindings::vm_fault>,
}

impl<'a> Fault<'a> {
    /// Wraps the argument of `dev_pagemap_ops::migrate_to_ram`.
    ///
    /// # Safety
    ///
    /// `vmf` must be what the core passed to that callback, which must not return before `'a` ends.
    pub unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        // INVARIANT: That is how do_swap_page() calls it.
        Self {
            vmf,
            _p: PhantomData,
        }
    }

    /// The area that the fault is in.
    pub fn vma(&self) -> &'a VmaRef {
        // SAFETY: By the type invariant the area is valid and locked.
        unsafe { VmaRef::from_raw((*self.vmf).__bindgen_anon_1.vma) }
    }

    /// The address of the page that is wanted, in bytes, a multiple of the page size.
    pub fn address(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { (*self.vmf).__bindgen_anon_1.address & kernel::page::PAGE_MASK }
    }

    /// The folio of the page that is wanted.
    pub fn folio(&self) -> &'a Folio {
        // SAFETY: By the type invariant the page is referenced for `'a`.
        unsafe { Folio::of_page(self.page()) }
    }

    fn page(&self) -> *mut bindings::page {
        // SAFETY: By the type invariant.
        unsafe { (*self.vmf).page }
    }
}

/// What all states of a migration have.
///
/// # Invariants
///
/// - `src` and `dst` have the same length. `src` is as the core left it.
/// - Each source entry that names a page stands for one reference on, and the lock of, its folio.
///   (For the page of the fault itself, the lock is the fault's.)
/// - Each destination entry that names a page stands for one reference on, and the lock of, its
///   folio, and is at the place where a source folio of the same order, or a hole, is.
struct Inner<'a> {
    arrays: Arrays,
    vma: Option<bindings::migrate_vma>,
    _p: PhantomData<&'a VmaRef>,
}

impl Inner<'_> {
    /// The C argument, pointing at our arrays. Made anew for each call, so that no pointer outlives
    /// a borrow.
    fn args(&mut self) -> Option<&mut bindings::migrate_vma> {
        let src = self.arrays.src.as_mut_ptr().cast();
        let dst = self.arrays.dst.as_mut_ptr().cast();

        let vma = self.vma.as_mut()?;
        vma.src = src;
        vma.dst = dst;
        Some(vma)
    }

    fn migrate(&mut self) {
        if let Some(args) = self.args() {
            // SAFETY: `args` was set up by migrate_vma_setup(), with these arrays, and is migrated
            // once: states are consumed.
            unsafe { bindings::migrate_vma_pages(args) };
        } else {
            let (src, dst, n) = self.raw_arrays();
            // SAFETY: As above, for migrate_device_pfns() or migrate_device_range().
            unsafe { bindings::migrate_device_pages(src, dst, n) };
        }
    }

    fn finalize(&mut self) {
        if let Some(args) = self.args() {
            // SAFETY: `args` was set up by migrate_vma_setup(), with these arrays; the destinations
            // are as the type invariant says. Called once, from the last state's drop.
            unsafe { bindings::migrate_vma_finalize(args) };
        } else {
            let (src, dst, n) = self.raw_arrays();
            // SAFETY: As above, for migrate_device_pfns() or migrate_device_range().
            unsafe { bindings::migrate_device_finalize(src, dst, n) };
        }
    }

    fn raw_arrays(&mut self) -> (*mut usize, *mut usize, usize) {
        (
            self.arrays.src.as_mut_ptr().cast(),
            self.arrays.dst.as_mut_ptr().cast(),
            self.arrays.nr_pages(),
        )
    }

    fn steps(&self) -> Steps<'_> {
        Steps {
            arrays: &self.arrays,
            next: 0,
        }
    }

    fn step_at(&self, index: usize) -> Option<Step<'_>> {
        Steps {
            arrays: &self.arrays,
            next: index,
        }
        .next()
    }
}

/// Pages that are isolated and unmapped, and folios to put in their place.
///
/// The sources are locked and no CPU can reach them, so their contents are stable. Dropping the
/// value puts the sources back as they were and frees the destinations.
pub struct Collected<'a>(Inner<'a>);

impl<'a> Collected<'a> {
    /// Collects what `select` asks for of a range of virtual addresses; `migrate_vma_setup()`.
    ///
    /// `owner` says whose device pages; `fault` is the fault that this is about, if it is. The
    /// range's area must be under the mmap lock, or under the vma lock in a fault. May sleep. `arrays` must
    /// be for as many pages as the range has, else [`EINVAL`], as for areas that can't migrate.
    pub fn from_vma(
        range: &VmaRange<'a>,
        owner: PagemapOwner,
        select: Select,
        fault: Option<&Fault<'a>>,
        arrays: Arrays,
    ) -> Result<Self> {
        if arrays.nr_pages() != range.nr_pages() {
            return Err(EINVAL);
        }

        let mut inner = Inner {
            arrays,
            vma: Some(bindings::migrate_vma {
                vma: range.vma.as_ptr(),
                dst: core::ptr::null_mut(),
                src: core::ptr::null_mut(),
                cpages: 0,
                npages: 0,
                start: range.range.start,
                end: range.range.end,
                pgmap_owner: owner.as_raw(),
                flags: select.0 as usize,
                fault_page: fault.map_or(core::ptr::null_mut(), Fault::page),
            }),
            _p: PhantomData,
        };
        let Some(args) = inner.args() else {
            return Err(EINVAL);
        };
        // SAFETY: The area is valid and locked, `VmaRange` has checked the range against it, and
        // the arrays have an entry for each of its pages. A fault page is locked by the fault.
        let ret = unsafe { bindings::migrate_vma_setup(args) };

        // If it failed, nothing was collected, and dropping `inner` (not a state) is right.
        kernel::error::to_result(ret)?;
        // INVARIANT: As migrate_vma_setup() leaves the arrays.
        Ok(Self(inner))
    }

    /// Collects the device pages with these frame numbers, wherever they are mapped;
    /// `migrate_device_pfns()`. No lock is needed. May sleep.
    ///
    /// # Safety
    ///
    /// Each of `pfns` must be a frame of a zone device that stays registered for `'a`.
    pub unsafe fn from_device_pfns(pfns: &[Pfn], mut arrays: Arrays) -> Result<Self> {
        if arrays.nr_pages() != pfns.len() {
            return Err(EINVAL);
        }
        for (entry, pfn) in arrays.src.iter_mut().zip(pfns) {
            // The callee wants plain frame numbers here and replaces them by entries.
            // SAFETY: Not an entry yet; overwritten below before anybody takes it for one.
            *entry = unsafe { MigratePfn::from_bits(pfn.as_usize()) };
        }

        let mut inner = Inner {
            arrays,
            vma: None,
            _p: PhantomData,
        };
        let (src, _, n) = inner.raw_arrays();
        // SAFETY: The array has `n` frame numbers of device pages, as the caller promises.
        let ret = unsafe { bindings::migrate_device_pfns(src, n) };

        kernel::error::to_result(ret)?;
        // INVARIANT: As migrate_device_pfns() leaves the arrays.
        Ok(Self(inner))
    }

    /// How many pages were collected, and can be migrated.
    pub fn nr_collected(&self) -> usize {
        self.steps()
            .filter(Step::is_migrating)
            .map(|step| step.nr_pages())
            .sum()
    }

    /// The number of pages in the range.
    pub fn nr_pages(&self) -> usize {
        self.0.arrays.nr_pages()
    }

    /// The sources, folio by folio.
    pub fn steps(&self) -> Steps<'_> {
        self.0.steps()
    }

    /// Puts folios in the places of sources: calls `choose` for each one that can be migrated, and
    /// takes the folio that it returns, if any. Whoever copies fills it with the source's bytes before
    /// [`migrate`](Self::migrate). Returns the number of pages that got a destination.
    ///
    /// An error of `choose` is passed on. [`EINVAL`]: the folio is of another order than the source.
    pub fn fill(
        &mut self,
        mut choose: impl FnMut(&Step<'_>) -> Result<Option<LockedFolio>>,
    ) -> Result<usize> {
        let mut filled = 0;
        let mut index = 0;

        while let Some(step) = self.0.step_at(index) {
            let nr_pages = step.nr_pages();

            if step.is_migrating() {
                if let Some(folio) = choose(&step)? {
                    if folio.nr_pages() != nr_pages {
                        return Err(EINVAL);
                    }
                    let old = self.0.arrays.dst.get_mut(index).ok_or(EINVAL)?;

                    // INVARIANT: The entry takes over the reference and the lock, at the place of a
                    // source of the same order.
                    let old = mem::replace(old, folio.into_migrate_pfn());
                    // SAFETY: An entry of ours that was just taken out of the array.
                    drop(unsafe { LockedFolio::from_migrate_pfn(old) });
                    filled += nr_pages;
                }
            }
            index += nr_pages;
        }
        Ok(filled)
    }

    /// The destination at page `index`, if one was put there.
    pub fn destination(&self, index: usize) -> Option<&Folio> {
        let entry = self.0.arrays.dst.get(index)?;

        // SAFETY: By the type invariant, entries that name pages hold references.
        unsafe { entry.folio() }
    }

    /// The destination entries, for mapping them for a device.
    pub(super) fn destinations(&self) -> &[MigratePfn] {
        &self.0.arrays.dst
    }

    /// The source entries, for mapping them for a device.
    pub(super) fn sources(&self) -> &[MigratePfn] {
        &self.0.arrays.src
    }

    /// Replaces the sources that have a destination by it; `migrate_vma_pages()` or
    /// `migrate_device_pages()`. May sleep.
    pub fn migrate(mut self) -> Migrated<'a> {
        self.0.migrate();

        let this = mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not used or dropped any more, so the value has one owner.
        Migrated(unsafe { core::ptr::read(&this.0) })
    }
}

impl Drop for Collected<'_> {
    fn drop(&mut self) {
        for entry in self.0.arrays.dst.iter_mut() {
            let entry = mem::take(entry);
            // SAFETY: By the type invariant of `Inner` the entry's reference and lock are ours; it
            // was just taken out of the array.
            drop(unsafe { LockedFolio::from_migrate_pfn(entry) });
        }
        // Without destinations, this restores every source.
        self.0.finalize();
    }
}

/// Pages of which some were replaced; each knows whether it was.
///
/// Dropping the value makes the new pages visible to the process and restores those that were not
/// replaced.
pub struct Migrated<'a>(Inner<'a>);

impl Migrated<'_> {
    /// The sources, folio by folio: [`Step::is_migrating`] now says whether it was replaced.
    pub fn steps(&self) -> Steps<'_> {
        self.0.steps()
    }

    /// The number of pages that were replaced.
    pub fn nr_migrated(&self) -> usize {
        self.steps()
            .filter(Step::is_migrating)
            .map(|step| step.nr_pages())
            .sum()
    }
}

impl Drop for Migrated<'_> {
    fn drop(&mut self) {
        self.0.finalize();
    }
}

/// One source of a migration: a folio, or an address without a page.
pub struct Step<'a> {
    /// The place of its first page in the range, in pages.
    pub index: usize,
    entry: MigratePfn,
    nr_pages: usize,
    _p: PhantomData<&'a Arrays>,
}

impl<'a> Step<'a> {
    /// The folio, locked and referenced; [`None`] for a hole.
    #[inline]
    pub fn folio(&self) -> Option<&'a Folio> {
        // SAFETY: By the invariant of `Inner`, entries that name pages hold references, for as long
        // as the arrays are borrowed.
        unsafe { self.entry.folio() }
    }

    /// Whether it can be, or was, migrated.
    #[inline]
    pub fn is_migrating(&self) -> bool {
        self.entry.is_migrating()
    }

    /// Whether the process could write to it without a fault: it is not shared copy-on-write.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.entry.is_writable()
    }

    /// The number of pages it stands for.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        self.nr_pages
    }

    /// The order it has to be replaced in.
    #[inline]
    pub fn order(&self) -> u32 {
        self.nr_pages.trailing_zeros()
    }
}

/// Iterator over the sources of a migration, in steps of folios.
pub struct Steps<'a> {
    arrays: &'a Arrays,
    next: usize,
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    #[inline]
    fn next(&mut self) -> Option<Step<'a>> {
        let index = self.next;
        let entry = *self.arrays.src.get(index)?;
        let nr_pages = if !entry.is_compound() {
            1
        } else {
            // SAFETY: By the invariant of `Inner`, entries that name pages hold references.
            unsafe { entry.folio() }.map_or(NR_PMD_PAGES, Folio::nr_pages)
        };

        self.next = index + nr_pages;
        Some(Step {
            index,
            entry,
            nr_pages,
            _p: PhantomData,
        })
    }
}
