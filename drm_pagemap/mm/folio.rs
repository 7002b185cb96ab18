// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Folios.
//!
//! C headers: [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h),
//! [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h)

use crate::{
    bindings,
    mm::{
        MigratePfn,
        Pfn, //
    },
};
use core::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr::{
        addr_of,
        NonNull, //
    },
};
use kernel::{
    mm::virt::VmaRef,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    types::Opaque, //
};

/// A folio: one page, or a run of `1 << order` pages that are handled as one.
///
/// # Invariants
///
/// A `&Folio` points at the `struct folio` of a live folio: somebody holds a reference on it while
/// the borrow lasts, so that it is neither freed nor, if also locked, split.
#[repr(transparent)]
pub struct Folio(Opaque<bindings::folio>);

impl Folio {
    /// The folio that `page` belongs to; `page_folio()`.
    ///
    /// # Safety
    ///
    /// `page` must be a `struct page` on whose folio a reference is held for `'a`.
    #[inline(always)]
    pub unsafe fn of_page<'a>(page: *mut bindings::page) -> &'a Self {
        // SAFETY: The caller promises a valid `struct page`. The word may be written by a
        // concurrent split of somebody else's folio, hence the volatile read.
        let info = unsafe {
            addr_of!((*page).__bindgen_anon_1.__bindgen_anon_4)
                .cast::<usize>()
                .read_volatile()
        };
        let head = compound_head(page, info);

        // SAFETY: The head page's `struct page` is the start of the `struct folio`; by the
        // caller's promise there is a reference on it.
        unsafe { &*head.cast() }
    }

    /// The folio at this pointer.
    ///
    /// # Safety
    ///
    /// `folio` must be a valid folio on which a reference is held for `'a`.
    #[inline(always)]
    pub unsafe fn from_raw<'a>(folio: *mut bindings::folio) -> &'a Self {
        // SAFETY: `Folio` is transparent; the rest is promised by the caller. That it is not null is
        // said for the compiler, which else looks, where the pointer was computed.
        unsafe {
            core::hint::assert_unchecked(!folio.is_null());
            &*folio.cast()
        }
    }

    /// The C pointer.
    #[inline(always)]
    pub fn as_raw(&self) -> *mut bindings::folio {
        self.0.get()
    }

    /// The folio's first page.
    #[inline(always)]
    pub fn page(&self) -> *mut bindings::page {
        self.0.get().cast()
    }

    /// The frame number of the folio's first page.
    #[inline(always)]
    pub fn pfn(&self) -> Pfn {
        Pfn::from_page(self.page())
    }

    /// The flags word, which others may change at any time.
    #[inline(always)]
    fn flags(&self) -> usize {
        // SAFETY: By the type invariant the folio is live. Other CPUs change flags atomically.
        unsafe { addr_of!((*self.page()).flags.f).read_volatile() }
    }

    /// Whether the folio has more than one page; `folio_test_large()`.
    #[inline(always)]
    pub fn is_large(&self) -> bool {
        self.flags() & (1 << bindings::pageflags_PG_head) != 0
    }

    /// The folio has `1 << order()` pages; `folio_order()`.
    #[inline(always)]
    pub fn order(&self) -> u32 {
        if !self.is_large() {
            return 0;
        }
        // SAFETY: A large folio has a second `struct page`, whose flags hold the order in the low
        // byte. The caller's reference keeps it from being freed.
        let flags_1 = unsafe {
            addr_of!((*self.as_raw()).__bindgen_anon_2.__bindgen_anon_1._flags_1).read_volatile()
        };

        (flags_1 & 0xff) as u32
    }

    /// The word that says where in its area an anonymous folio is.
    fn index(&self) -> *mut usize {
        // SAFETY: By the type invariant the folio is live.
        unsafe {
            &raw mut (*self.as_raw())
                .__bindgen_anon_1
                .__bindgen_anon_1
                .__bindgen_anon_2
                .index
        }
    }

    /// The address, in bytes, at which an anonymous folio was first mapped, unless its area had been
    /// moved by then; `folio->index`. For who just wants to know: it may be elsewhere by now.
    /// [`None`]: it was never mapped, since [`forget_address`](Self::forget_address).
    pub fn first_address(&self) -> Option<usize> {
        // SAFETY: A word of a live folio, which others may write to.
        match unsafe { self.index().read_volatile() } {
            Self::NO_INDEX => None,
            index => Some(index << PAGE_SHIFT),
        }
    }

    /// No place in an area: addresses have fewer bits.
    const NO_INDEX: usize = usize::MAX;

    /// The number of pages; `folio_nr_pages()`.
    #[inline(always)]
    pub fn nr_pages(&self) -> usize {
        1 << self.order()
    }

    /// The number of bytes; `folio_size()`.
    #[inline(always)]
    pub fn size(&self) -> usize {
        PAGE_SIZE << self.order()
    }

    /// Whether the folio belongs to a zone device; `folio_is_zone_device()`.
    #[inline(always)]
    pub fn is_zone_device(&self) -> bool {
        is_in_zone_device(self.flags())
    }

    /// Whether `page` does.
    ///
    /// # Safety
    ///
    /// `page` must be a `struct page` on whose folio a reference is held.
    #[inline(always)]
    pub(super) unsafe fn is_page_of_zone_device(page: *const bindings::page) -> bool {
        // SAFETY: Promised by the caller. Other CPUs change flags atomically; these bits don't
        // change, and are the same in all pages of a folio.
        is_in_zone_device(unsafe { addr_of!((*page).flags.f).read_volatile() })
    }

    /// The zone device that the folio belongs to, if any.
    #[inline(always)]
    pub fn pgmap(&self) -> Option<NonNull<bindings::dev_pagemap>> {
        if !self.is_zone_device() {
            return None;
        }
        // SAFETY: In a zone device folio, which this is, the first word of the union is `pgmap`;
        // it doesn't change while a reference is held.
        let pgmap = unsafe {
            (*self.as_raw())
                .__bindgen_anon_1
                .__bindgen_anon_1
                .__bindgen_anon_1
                .pgmap
        };

        NonNull::new(pgmap)
    }

    /// Whether the folio is device memory that the CPU can't reach; `folio_is_device_private()`.
    #[inline(always)]
    pub fn is_device_private(&self) -> bool {
        self.pgmap().is_some_and(|pgmap| {
            // SAFETY: A zone device outlives its folios that have references.
            let memory_type = unsafe { (*pgmap.as_ptr()).type_ };

            memory_type == bindings::memory_type_MEMORY_DEVICE_PRIVATE
        })
    }

    /// The word that the owner of a zone device may store in each of its folios;
    /// `folio_zone_device_data()`. Only meaningful for zone device folios.
    #[inline(always)]
    pub fn zone_device_data(&self) -> *mut c_void {
        // SAFETY: The folio is live; in folios of other zones the word is an opaque value.
        unsafe {
            addr_of!(
                (*self.page())
                    .__bindgen_anon_1
                    .__bindgen_anon_4
                    .zone_device_data
            )
            .read_volatile()
        }
    }

    /// Stores a word in the folio; `folio_set_zone_device_data()`.
    ///
    /// # Safety
    ///
    /// The folio must be a device-private one, and the caller must be its owner's agent: either
    /// nobody else can look at the word now, or what readers make of it stays valid.
    #[inline(always)]
    pub unsafe fn set_zone_device_data(&self, data: *mut c_void) {
        // SAFETY: A live, device-private folio, as the caller promises.
        unsafe {
            core::ptr::addr_of_mut!(
                (*self.page())
                    .__bindgen_anon_1
                    .__bindgen_anon_4
                    .zone_device_data
            )
            .write_volatile(data)
        }
    }

    /// Whether any address space maps a part of it; `folio_mapped()`.
    pub fn is_mapped(&self) -> bool {
        // SAFETY: By the type invariant the folio is live.
        unsafe { bindings::drm_pagemap_helper_folio_mapped(self.as_raw()) }
    }

    /// Notes that the contents are changed by somebody whom the page tables don't know;
    /// `folio_mark_dirty()`. It is mapped, and stays so during the call.
    pub fn mark_dirty(&self) {
        // SAFETY: By the type invariant the folio is live.
        unsafe { bindings::folio_mark_dirty(self.as_raw()) };
    }

    /// One more reference.
    pub fn get(&self) -> FolioRef {
        // SAFETY: By the type invariant the folio is live, so there is a reference.
        unsafe { bindings::drm_pagemap_helper_folio_get(self.as_raw()) };
        // INVARIANT: Taken just now.
        FolioRef(NonNull::from(self).cast())
    }

    /// Makes a folio that is being freed one of a single page; else, as long as nobody takes its
    /// frames into use again, each of them would still be seen as a part of a large folio. The core
    /// looks at frames so before it knows whether they are free, as when it is to migrate some by
    /// their numbers, and then passes over as many as the folio had.
    ///
    /// # Safety
    ///
    /// The folio must be a zone device's, and in its `folio_free` callback, where nobody has a
    /// reference. Its order is not to be asked for after this.
    #[inline(always)]
    pub(crate) unsafe fn forget_order(&self) {
        if self.is_large() {
            // SAFETY: Promised by the caller; the pages are still there.
            unsafe { bindings::drm_pagemap_helper_clear_head(self.page()) };
        }
    }

    /// Whether both are the same folio.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

/// Whether a page with these flags is in `ZONE_DEVICE`.
#[inline(always)]
fn is_in_zone_device(flags: usize) -> bool {
    let zone = (flags >> bindings::PAGE_ZONE_SHIFT) & bindings::PAGE_ZONE_MASK;

    zone == bindings::zone_type_ZONE_DEVICE as usize
}

/// `compound_head()`, given the page's `compound_info` word.
#[inline(always)]
fn compound_head(page: *mut bindings::page, info: usize) -> *mut bindings::page {
    // With the HugeTLB vmemmap optimisation, and a `struct page` whose size is a power of two, the
    // word of a tail page holds a mask rather than a pointer.
    let has_mask = cfg!(CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP)
        && core::mem::size_of::<bindings::page>().is_power_of_two();

    if info & 1 == 0 {
        page
    } else if has_mask {
        (page as usize & info) as *mut bindings::page
    } else {
        (info - 1) as *mut bindings::page
    }
}

/// A reference on a folio.
///
/// # Invariants
///
/// `self.0` points at a live folio; this value owns one reference.
pub struct FolioRef(NonNull<bindings::folio>);

impl FolioRef {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// The caller must own one on the folio, and give it up.
    #[inline]
    pub(crate) unsafe fn from_raw(folio: NonNull<bindings::folio>) -> Self {
        // INVARIANT: Promised by the caller.
        Self(folio)
    }

    /// A reference on the folio whose first page is `page`; [`None`] if it is free, or no first
    /// page; `folio_get_nontail_page()`.
    ///
    /// # Safety
    ///
    /// `page` must be a `struct page`.
    pub(crate) unsafe fn of_first_page(page: *mut bindings::page) -> Option<Self> {
        // SAFETY: Promised by the caller.
        let folio = unsafe { bindings::drm_pagemap_helper_folio_get_nontail_page(page) };

        // INVARIANT: The reference that was just taken.
        NonNull::new(folio).map(Self)
    }

    /// Takes the folio's lock, too, if it is free.
    pub fn try_lock(self) -> Option<LockedFolio> {
        // SAFETY: By the type invariant the folio is live.
        if !unsafe { bindings::drm_pagemap_helper_folio_trylock(self.0.as_ptr()) } {
            return None;
        }
        let this = ManuallyDrop::new(self);

        // INVARIANT: Our reference, and the lock that was just taken.
        Some(LockedFolio(this.0))
    }
}

impl Deref for FolioRef {
    type Target = Folio;

    fn deref(&self) -> &Folio {
        // SAFETY: By the type invariant it is live, and stays so while we exist.
        unsafe { Folio::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for FolioRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours to give up.
        unsafe { bindings::drm_pagemap_helper_folio_put(self.0.as_ptr()) };
    }
}

/// Which RAM a page that comes home shall get.
#[derive(Clone, Copy)]
pub enum RamPolicy<'a> {
    /// By the memory policy of the area at this address (in bytes) within it.
    Vma(&'a VmaRef, usize),
    /// By the policy of the current task: the virtual address is not known.
    Any,
}

/// A folio with one reference and the folio lock, both owned by this value.
///
/// Dropping it unlocks the folio and puts the reference.
///
/// # Invariants
///
/// `self.0` points at a live folio; this value owns one reference and the lock.
pub struct LockedFolio(NonNull<bindings::folio>);

impl LockedFolio {
    /// Has a new folio say that it was never mapped. Otherwise it says what the one before it said,
    /// until it is mapped.
    pub fn forget_address(&mut self) {
        // SAFETY: A word of a live folio that nobody maps, nor looks at without the lock, which is
        // ours.
        unsafe { self.index().write_volatile(Folio::NO_INDEX) };
    }

    /// Allocates one folio of RAM for user memory, locked, dirty, contents undefined.
    ///
    /// May sleep. [`ENOMEM`] if there is none; for orders above 0 without reclaiming memory for it,
    /// whatever the policy for huge pages is (modules can't read that), and without a warning in
    /// the log, as there are smaller ones.
    pub fn new_ram(policy: RamPolicy<'_>, order: u32) -> Result<Self> {
        let gfp = if order > 0 {
            bindings::GFP_RAM_FOLIO_LARGE
        } else {
            bindings::GFP_RAM_FOLIO
        };
        let (vma, addr) = match policy {
            RamPolicy::Vma(vma, addr) => (vma.as_ptr(), addr),
            RamPolicy::Any => (core::ptr::null_mut(), 0),
        };
        // SAFETY: The area, if any, is valid and stays so: a `VmaRef` is under the mmap or vma lock.
        // Sleeping is allowed.
        let folio = unsafe { bindings::drm_pagemap_helper_locked_ram_folio(gfp, order, vma, addr) };
        let folio = NonNull::new(folio).ok_or(ENOMEM)?;

        // INVARIANT: Allocation gave us the reference and the lock.
        Ok(Self(folio))
    }

    /// Takes over a reference and the lock.
    ///
    /// # Safety
    ///
    /// The caller must own one reference on the folio, and its lock, and give up both.
    #[inline]
    pub(crate) unsafe fn from_raw(folio: NonNull<bindings::folio>) -> Self {
        // INVARIANT: Promised by the caller.
        Self(folio)
    }

    /// Gives up the reference and the lock to the migration entry that is returned.
    #[inline]
    pub(crate) fn into_migrate_pfn(self) -> MigratePfn {
        let this = ManuallyDrop::new(self);

        // SAFETY: A live folio has a `struct page`.
        unsafe { MigratePfn::new(this.pfn(), this.order()) }
    }

    /// As [`into_migrate_pfn`](Self::into_migrate_pfn), for a folio of one page.
    #[inline]
    pub(crate) fn into_single_migrate_pfn(self) -> MigratePfn {
        let this = ManuallyDrop::new(self);

        // SAFETY: A live folio has a `struct page`.
        unsafe { MigratePfn::new(this.pfn(), 0) }
    }

    /// Takes back what [`into_migrate_pfn`](Self::into_migrate_pfn) gave up.
    ///
    /// # Safety
    ///
    /// The entry must come from there, and its reference and lock still be the caller's to take.
    #[inline]
    pub(crate) unsafe fn from_migrate_pfn(entry: MigratePfn) -> Option<Self> {
        // SAFETY: By the caller's promise there is a reference.
        let folio = unsafe { entry.folio() }?;

        // SAFETY: As promised by the caller.
        Some(unsafe { Self::from_raw(NonNull::new_unchecked(folio.as_raw())) })
    }
}

impl Deref for LockedFolio {
    type Target = Folio;

    #[inline]
    fn deref(&self) -> &Folio {
        // SAFETY: By the type invariant it is live, and stays so while we exist.
        unsafe { Folio::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock and one reference are ours to give up.
        unsafe {
            bindings::folio_unlock(self.0.as_ptr());
            bindings::drm_pagemap_helper_folio_put(self.0.as_ptr());
        }
    }
}
