// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Page frame numbers, plain and as migration entries.
//!
//! C headers: [`include/linux/pfn.h`](srctree/include/linux/pfn.h),
//! [`include/linux/migrate.h`](srctree/include/linux/migrate.h)

use crate::{
    bindings,
    mm::Folio, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// The order of a folio that a PMD maps whole (9, 2 MiB, where pages are 4 KiB).
pub const PMD_ORDER: u32 = (bindings::PMD_SHIFT as usize - PAGE_SHIFT) as u32;

/// The number of pages in a folio of [`PMD_ORDER`].
pub const NR_PMD_PAGES: usize = 1 << PMD_ORDER;

/// The number of a page frame: a physical address in units of pages.
///
/// Just a number: that it has a `struct page` is a matter of who made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Zeroable)]
#[repr(transparent)]
pub struct Pfn(usize);

impl Pfn {
    /// The frame with this number.
    #[inline]
    pub const fn new(pfn: usize) -> Self {
        Self(pfn)
    }

    /// The number.
    #[inline]
    pub const fn as_usize(self) -> usize {
        self.0
    }

    /// Physical address of the frame's first byte.
    #[inline]
    pub const fn phys(self) -> u64 {
        (self.0 as u64) << PAGE_SHIFT
    }

    /// The `struct page` of this frame; `pfn_to_page()` of
    /// [`include/asm-generic/memory_model.h`](srctree/include/asm-generic/memory_model.h).
    ///
    /// Arithmetic only. The pointer may be followed only if the frame has a `struct page`.
    #[inline(always)]
    pub fn page(self) -> *mut bindings::page {
        #[cfg(all(CONFIG_X86_64, CONFIG_SPARSEMEM_VMEMMAP))]
        {
            vmemmap().wrapping_add(self.0)
        }
        #[cfg(not(all(CONFIG_X86_64, CONFIG_SPARSEMEM_VMEMMAP)))]
        {
            // SAFETY: Arithmetic on the number, valid for every one.
            unsafe { bindings::drm_pagemap_helper_pfn_to_page(self.0) }
        }
    }

    /// The frame of a `struct page`; `page_to_pfn()` of
    /// [`include/asm-generic/memory_model.h`](srctree/include/asm-generic/memory_model.h).
    #[inline(always)]
    pub fn from_page(page: *const bindings::page) -> Self {
        #[cfg(all(CONFIG_X86_64, CONFIG_SPARSEMEM_VMEMMAP))]
        {
            let bytes = (page as usize).wrapping_sub(vmemmap() as usize);

            Self(bytes / core::mem::size_of::<bindings::page>())
        }
        #[cfg(not(all(CONFIG_X86_64, CONFIG_SPARSEMEM_VMEMMAP)))]
        {
            // SAFETY: Arithmetic on the address, valid for every one.
            Self(unsafe { bindings::drm_pagemap_helper_page_to_pfn(page) })
        }
    }
}

/// Whether `pfns` are frames that one folio could be made of: as many as a power of two,
/// contiguous, and aligned to their number.
pub fn are_one_folio(pfns: &[Pfn]) -> bool {
    let Some(first) = pfns.first() else {
        return false;
    };

    if !pfns.len().is_power_of_two() || first.0 & (pfns.len() - 1) != 0 {
        return false;
    }
    let mut expected = first.0;
    // Of eight, the compiler makes one test without a loop.
    let mut eights = pfns.chunks_exact(8);

    for eight in &mut eights {
        let Ok(eight) = <&[Pfn; 8]>::try_from(eight) else {
            return false;
        };
        if differ(eight, expected) {
            return false;
        }
        expected = expected.wrapping_add(eight.len());
    }
    !differ(eights.remainder(), expected)
}

/// Whether `pfns` are not those from `first` on.
#[inline(always)]
fn differ(pfns: &[Pfn], first: usize) -> bool {
    pfns.iter().enumerate().fold(0, |wrong, (i, pfn)| {
        wrong | (pfn.0 ^ first.wrapping_add(i)) //
    }) != 0
}

/// Start of the array of all `struct page`s.
#[cfg(all(CONFIG_X86_64, CONFIG_SPARSEMEM_VMEMMAP))]
#[inline(always)]
fn vmemmap() -> *mut bindings::page {
    // SAFETY: The variable is set early during boot and constant from then on.
    unsafe { bindings::vmemmap_base as *mut bindings::page }
}

/// One entry of a migration's page array: no page, or a page with flags.
///
/// # Invariants
///
/// If [`VALID`](Self::VALID) is set, the number in the upper bits is that of a frame that has a
/// `struct page`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
#[repr(transparent)]
pub struct MigratePfn(usize);

/// Which entries that name a page are looked at.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// Those of sources that can be migrated.
    Migrating,
    /// All.
    Any,
}

impl Wanted {
    #[inline(always)]
    const fn bits(self) -> usize {
        match self {
            Self::Migrating => MigratePfn::VALID | MigratePfn::MIGRATE,
            Self::Any => MigratePfn::VALID,
        }
    }
}

impl MigratePfn {
    const VALID: usize = bindings::MIGRATE_VALID;
    const MIGRATE: usize = bindings::MIGRATE_MIGRATE;
    const WRITE: usize = bindings::MIGRATE_WRITE;
    pub(super) const COMPOUND: usize = bindings::MIGRATE_COMPOUND;
    /// `MIGRATE_PFN_SHIFT`.
    const SHIFT: u32 = 6;

    /// The entry that names no page and asks for nothing.
    pub const NONE: Self = Self(0);

    /// Entry for the folio whose first frame is `pfn`.
    ///
    /// # Safety
    ///
    /// The frame must have a `struct page`.
    #[inline]
    pub unsafe fn new(pfn: Pfn, order: u32) -> Self {
        let compound = if order > 0 { Self::COMPOUND } else { 0 };

        // INVARIANT: The caller promises that there is a `struct page`.
        Self((pfn.0 << Self::SHIFT) | Self::VALID | compound)
    }

    /// An entry with these bits, for comparing with what C makes of them.
    ///
    /// # Safety
    ///
    /// If the bit `MIGRATE_PFN_VALID` is set, the frame must have a `struct page`.
    #[inline]
    pub unsafe fn from_bits(bits: usize) -> Self {
        // INVARIANT: Promised by the caller.
        Self(bits)
    }

    /// The bits as C sees them.
    #[inline]
    pub const fn bits(self) -> usize {
        self.0
    }

    /// The frame, if the entry names one.
    #[inline(always)]
    pub const fn pfn(self) -> Option<Pfn> {
        if self.0 & Self::VALID != 0 {
            Some(Pfn(self.0 >> Self::SHIFT))
        } else {
            None
        }
    }

    /// The `struct page`, or null; `migrate_pfn_to_page()`.
    #[inline(always)]
    pub fn page(self) -> *mut bindings::page {
        self.pfn().map_or(core::ptr::null_mut(), Pfn::page)
    }

    /// Whether the entry can be (as a source, before), or was (after) migrated.
    #[inline(always)]
    pub const fn is_migrating(self) -> bool {
        self.0 & Self::MIGRATE != 0
    }

    /// Whether it [can be, or was, migrated](Self::is_migrating), and names a page.
    #[inline(always)]
    pub const fn is_migrating_page(self) -> bool {
        let both = Self::VALID | Self::MIGRATE;

        self.0 & both == both
    }

    /// Whether the entry names a page, is not [compound](Self::is_compound), and, if that is `wanted`,
    /// [can be migrated](Self::is_migrating).
    #[inline(always)]
    pub(super) const fn is_single(self, wanted: Wanted) -> bool {
        self.0 & (wanted.bits() | Self::COMPOUND) == wanted.bits()
    }

    /// Whether it is so, and the page has this frame.
    #[inline(always)]
    pub(super) const fn is_single_of(self, wanted: Wanted, pfn: Pfn) -> bool {
        let flags = (1 << Self::SHIFT) - 1;
        let told = wanted.bits() | Self::COMPOUND | !flags;

        self.0 & told == pfn.0 << Self::SHIFT | wanted.bits()
    }

    /// Whether the page was mapped writable.
    #[inline(always)]
    pub const fn is_writable(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// Whether the entry stands for a whole large folio, the entries after it being empty.
    #[inline(always)]
    pub const fn is_compound(self) -> bool {
        self.0 & Self::COMPOUND != 0
    }

    /// The folio of the entry's page.
    ///
    /// # Safety
    ///
    /// If the entry names a page, the caller must hold a reference on its folio for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn folio<'a>(self) -> Option<&'a Folio> {
        let page = self.page();

        if page.is_null() {
            None
        } else {
            // SAFETY: By the type invariant this is a `struct page`, and the caller holds a
            // reference on its folio.
            Some(unsafe { Folio::of_page(page) })
        }
    }

    /// Whether the entry names a page of a zone device.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn is_of_zone_device(self) -> bool {
        let page = self.page();

        // SAFETY: Promised by the caller.
        !page.is_null() && unsafe { Folio::is_page_of_zone_device(page) }
    }

    /// As [`folio`](Self::folio), of an entry that is not [compound](Self::is_compound), as the core
    /// made it.
    ///
    /// # Safety
    ///
    /// As there; the page must be a folio.
    #[inline(always)]
    pub(crate) unsafe fn single_folio<'a>(self) -> Option<&'a Folio> {
        self.pfn().map(|pfn| {
            // SAFETY: By the type invariant this is a `struct page`, and the caller's folio.
            unsafe { Folio::from_raw(pfn.page().cast()) }
        })
    }
}
