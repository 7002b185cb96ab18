// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Zone devices: ranges of page frames that stand for device memory.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::{
    bindings,
    mm::{
        are_one_folio,
        FolioRef,
        LockedFolio,
        Pfn,
        NR_PMD_PAGES, //
    },
};
use core::ptr::{
    addr_of,
    NonNull, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    types::Opaque, //
};

/// Who manages a group of zone devices: an opaque cookie that is only ever compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PagemapOwner(*mut c_void);

// SAFETY: A number: the pointer is not followed.
unsafe impl Send for PagemapOwner {}
// SAFETY: As above.
unsafe impl Sync for PagemapOwner {}

impl PagemapOwner {
    pub(crate) fn from_raw(owner: *mut c_void) -> Self {
        Self(owner)
    }

    pub(crate) fn as_raw(self) -> *mut c_void {
        self.0
    }
}

/// A registered zone device; `struct dev_pagemap`.
///
/// # Invariants
///
/// The zone device is registered, and stays so while the reference lasts.
#[repr(transparent)]
pub struct ZoneDevice(Opaque<bindings::dev_pagemap>);

impl ZoneDevice {
    /// Wraps the C pointer.
    ///
    /// # Safety
    ///
    /// `pgmap` must be a zone device that is registered for all of `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(pgmap: *mut bindings::dev_pagemap) -> &'a Self {
        // SAFETY: `ZoneDevice` is transparent; the rest is promised by the caller.
        unsafe { &*pgmap.cast() }
    }

    /// The C pointer.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::dev_pagemap {
        self.0.get()
    }

    /// Who manages it.
    #[inline]
    pub fn owner(&self) -> PagemapOwner {
        // SAFETY: Set before registration, constant since.
        PagemapOwner::from_raw(unsafe { (*self.as_raw()).owner })
    }

    /// Whether the frames `pfn` to `pfn + nr - 1` are all in one of its ranges.
    #[inline]
    pub fn contains(&self, pfn: Pfn, nr: usize) -> bool {
        let Some(last) = pfn.as_usize().checked_add(nr - 1) else {
            return false;
        };
        // SAFETY: Set before registration, constant since.
        let nr_range = unsafe { (*self.as_raw()).nr_range } as usize;
        // SAFETY: In bounds of the structure. The union holds `nr_range` ranges from here on.
        let ranges = unsafe { addr_of!((*self.as_raw()).__bindgen_anon_1) };
        let ranges = ranges.cast::<bindings::range>();

        (0..nr_range).any(|i| {
            // SAFETY: There are `nr_range` ranges, constant since registration.
            let range = unsafe { &*ranges.add(i) };

            pfn.as_usize() >= (range.start >> PAGE_SHIFT) as usize
                && last <= (range.end >> PAGE_SHIFT) as usize
        })
    }

    /// Whether the frame is the first one of a large folio. A quick look, without a reference: it may
    /// be over when this returns.
    pub fn has_large_at(&self, pfn: Pfn) -> bool {
        // SAFETY: A frame of a registered zone device has a `struct page`.
        self.contains(pfn, 1) && unsafe { is_head(pfn.page()) }
    }

    /// A reference on the folio whose first frame is `pfn`; [`None`] if the frame is free, in the
    /// middle of a folio, or not one of this zone device.
    pub fn folio(&self, pfn: Pfn) -> Option<FolioRef> {
        if !self.contains(pfn, 1) {
            return None;
        }
        // SAFETY: A frame of a registered zone device has a `struct page`.
        unsafe { FolioRef::of_first_page(pfn.page()) }
    }
}

/// Frames that are to be those of a zone device: one for each page of a part of an allocation.
///
/// # Invariants
///
/// If `known`, each of `pfns` is a frame of `zone`, and they are all an allocation's own.
///
/// If `whole`, all of `pfns` are one folio's frames, or each [`NR_PMD_PAGES`] of them, and the rest.
#[derive(Clone, Copy)]
pub struct Frames<'a> {
    pfns: &'a [Pfn],
    zone: &'a ZoneDevice,
    known: bool,
    whole: bool,
}

impl<'a> Frames<'a> {
    /// Frames that a driver says are those of `zone`.
    #[inline]
    pub fn new(pfns: &'a [Pfn], zone: &'a ZoneDevice) -> Self {
        // INVARIANT: Not known.
        Self {
            pfns,
            zone,
            known: false,
            whole: false,
        }
    }

    /// Frames that are known to be those of `zone`, and an allocation's own.
    ///
    /// # Safety
    ///
    /// They must be.
    #[inline]
    pub unsafe fn known(pfns: &'a [Pfn], zone: &'a ZoneDevice) -> Self {
        // INVARIANT: Promised by the caller.
        Self {
            pfns,
            zone,
            known: true,
            whole: false,
        }
    }

    /// Whether each of them is a frame of the zone device.
    #[inline(always)]
    pub(crate) fn are_its_own(&self) -> bool {
        self.known || self.pfns.iter().all(|&pfn| self.zone.contains(pfn, 1))
    }

    /// The frames' numbers.
    #[inline]
    pub fn pfns(&self) -> &'a [Pfn] {
        self.pfns
    }

    /// The zone device.
    #[inline]
    pub fn zone(&self) -> &'a ZoneDevice {
        self.zone
    }

    /// The first `nr` of them.
    pub fn first(&self, nr: usize) -> Self {
        // INVARIANT: A part of them, of which it is not known whether it is whole.
        Self {
            pfns: self.pfns.get(..nr).unwrap_or(self.pfns),
            whole: false,
            ..*self
        }
    }

    /// Finds out whether one folio can be made of all of them if they are free; or, if they are more
    /// than a PMD maps, of each part of them that one does. Returns that.
    pub fn find_whole(&mut self) -> bool {
        // INVARIANT: Looked at just now.
        self.whole = self.pfns.len() > 1 && self.pfns.chunks(NR_PMD_PAGES).all(are_one_folio);
        self.whole
    }

    /// Whether it is known that a folio can be made of `1 << order` frames from the one at `index` on.
    fn is_whole(&self, index: usize, order: u32) -> bool {
        let nr = 1 << order;

        self.whole && index % nr == 0 && nr == self.pfns.len().min(NR_PMD_PAGES)
    }

    /// Whether a folio can be made of the frames from the one at `index` on, all of which are those
    /// of the zone device, if its first one is free. Errors as those of
    /// [`init_folio`](Self::init_folio).
    #[inline(never)]
    fn check_rest(&self, index: usize, order: u32) -> Result {
        let pfns = self
            .pfns
            .get(index..)
            .and_then(|pfns| pfns.get(..1 << order))
            .filter(|pfns| self.is_whole(index, order) || are_one_folio(pfns))
            .ok_or(EINVAL)?;
        // SAFETY: Frames of the zone device.
        let is_free = |pfn: &Pfn| unsafe { is_free(pfn.page()) };

        if !self.known && !pfns.iter().skip(1).all(is_free) {
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Makes `1 << order` free frames from the one at `index` on a folio, with `data` as its
    /// [zone device data](crate::mm::Folio::zone_device_data).
    ///
    /// [`EINVAL`]: there are not as many, they are not of the zone device, or not contiguous and
    /// aligned to the order. [`EBUSY`]: they are in use; of [known](Self::known) ones, only the
    /// first is looked at.
    ///
    /// # Safety
    ///
    /// `data` must be what the zone device's `folio_free` callback expects to find. No other task
    /// may be taking the same frames into use at the same time.
    #[inline(always)]
    pub unsafe fn init_folio(
        &self,
        index: usize,
        order: u32,
        data: *mut c_void,
    ) -> Result<LockedFolio> {
        let pfn = *self.pfns.get(index).ok_or(EINVAL)?;

        if !self.known && !self.zone.contains(pfn, 1 << order) {
            return Err(EINVAL);
        }
        if order > 0 {
            self.check_rest(index, order)?;
        }
        // SAFETY: Known to be frames of the zone device, or checked above.
        unsafe { self.init_checked(pfn, order, data) }
    }

    /// As [`init_folio`](Self::init_folio), from the frame `pfn` on.
    ///
    /// # Safety
    ///
    /// As there; a folio of that order can be made of frames of the zone device from there on, if the
    /// first one is free.
    #[inline(always)]
    pub(crate) unsafe fn init_checked(
        &self,
        pfn: Pfn,
        order: u32,
        data: *mut c_void,
    ) -> Result<LockedFolio> {
        let page = pfn.page();

        // SAFETY: A frame of the zone device.
        if !unsafe { is_free(page) } {
            return Err(EBUSY);
        }

        // SAFETY: Free frames of this zone device, which nobody else takes now.
        unsafe {
            if order == 0 {
                bindings::zone_device_page_init(page, self.zone.as_raw(), 0);
            } else {
                bindings::drm_pagemap_helper_zone_device_folio_init(
                    page.cast(),
                    self.zone.as_raw(),
                    order,
                );
            }
        }
        // SAFETY: The folio was just made, with one reference and locked, both ours; it is not
        // null.
        let folio = unsafe { LockedFolio::from_raw(NonNull::new_unchecked(page.cast())) };

        // SAFETY: Device memory of ours that nobody else knows of yet.
        unsafe { folio.set_zone_device_data(data) };
        Ok(folio)
    }
}

/// Whether a frame is free.
///
/// # Safety
///
/// `page` must be the `struct page` of a frame of a registered zone device.
#[inline]
unsafe fn is_free(page: *const bindings::page) -> bool {
    // SAFETY: Promised by the caller. Others may get references, and so write it.
    unsafe { addr_of!((*page)._refcount.counter).read_volatile() == 0 }
}

/// Whether a frame is the first one of a large folio.
///
/// # Safety
///
/// As [`is_free`].
#[inline]
unsafe fn is_head(page: *const bindings::page) -> bool {
    // SAFETY: Promised by the caller. The folio may be taken apart, and so its flags be written.
    let flags = unsafe { addr_of!((*page).flags.f).read_volatile() };

    flags & (1 << bindings::pageflags_PG_head) != 0
}
