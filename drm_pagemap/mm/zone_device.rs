// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Zone devices: ranges of page frames that stand for device memory.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::{
    bindings,
    mm::{
        FolioRef,
        LockedFolio,
        Pfn, //
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

    /// A reference on the folio whose first frame is `pfn`; [`None`] if the frame is free, in the
    /// middle of a folio, or not one of this zone device.
    pub fn folio(&self, pfn: Pfn) -> Option<FolioRef> {
        if !self.contains(pfn, 1) {
            return None;
        }
        // SAFETY: A frame of a registered zone device has a `struct page`.
        unsafe { FolioRef::of_first_page(pfn.page()) }
    }

    /// Makes `1 << order` free frames from `pfn` on a folio, with `data` as its
    /// [zone device data](crate::mm::Folio::zone_device_data).
    ///
    /// [`EINVAL`]: the frames are not of this zone device, or not aligned to the order. [`EBUSY`]:
    /// they are in use. `data` is not touched then.
    ///
    /// # Safety
    ///
    /// `data` must be what the zone device's `folio_free` callback expects to find. No other task
    /// may be taking the same frames into use at the same time.
    pub unsafe fn init_folio(
        &self,
        pfn: Pfn,
        order: u32,
        data: impl FnOnce() -> *mut c_void,
    ) -> Result<LockedFolio> {
        let nr = 1usize << order;

        if !self.contains(pfn, nr) || pfn.as_usize() & (nr - 1) != 0 {
            return Err(EINVAL);
        }
        let folio = pfn.page().cast::<bindings::folio>();

        for i in 0..nr {
            let page = Pfn::new(pfn.as_usize() + i).page();
            // SAFETY: A frame of a registered zone device has a `struct page`.
            let refs = unsafe { addr_of!((*page)._refcount.counter).read_volatile() };

            if refs != 0 {
                return Err(EBUSY);
            }
        }

        // SAFETY: Free frames of this zone device, which nobody else takes now.
        unsafe { bindings::drm_pagemap_helper_zone_device_folio_init(folio, self.as_raw(), order) };
        // SAFETY: The folio was just made, with one reference and locked, both ours; it is not
        // null.
        let folio = unsafe { LockedFolio::from_raw(NonNull::new_unchecked(folio)) };

        // SAFETY: Device memory of ours that nobody else knows of yet.
        unsafe { folio.set_zone_device_data(data()) };
        Ok(folio)
    }
}

/// A range of physical addresses, taken for device memory and registered as device-private.
///
/// Dropping it unregisters the zone device, and for that waits until its last page is free.
///
/// # Invariants
///
/// `res` is a region that we requested; `pgmap` is registered on all of it.
pub struct ZoneDeviceRegion {
    pgmap: NonNull<bindings::dev_pagemap>,
    start: u64,
    size: u64,
}

// SAFETY: Registering and unregistering may be done by different threads.
unsafe impl Send for ZoneDeviceRegion {}
// SAFETY: `&self` gives access to constants only.
unsafe impl Sync for ZoneDeviceRegion {}

impl ZoneDeviceRegion {
    /// Finds a free range of `size` bytes of physical address space, and registers it as
    /// device-private memory.
    ///
    /// May sleep. [`EINVAL`]: `size` is 0 or no multiple of the page size. [`ENOMEM`], [`ERANGE`],
    /// [`EBUSY`] and others: what the core says if there is no such range.
    ///
    /// # Safety
    ///
    /// `pgmap` must be zeroed memory that stays where it is until the region is dropped. `ops` must
    /// be fit for device-private memory whose owner is `owner`.
    pub unsafe fn new(
        pgmap: NonNull<bindings::dev_pagemap>,
        size: usize,
        name: &'static CStr,
        ops: *const bindings::dev_pagemap_ops,
        owner: *mut c_void,
    ) -> Result<Self> {
        if size == 0 || size & !kernel::page::PAGE_MASK != 0 {
            return Err(EINVAL);
        }

        // SAFETY: The name is static; the rest are plain values.
        let res = kernel::error::from_err_ptr(unsafe {
            bindings::request_free_mem_region(
                &raw mut bindings::iomem_resource,
                size,
                name.as_char_ptr(),
            )
        })?;
        // SAFETY: A valid resource. It belongs to us until it is released by address.
        let (start, end) = unsafe { ((*res).start, (*res).end) };
        let region = Self {
            pgmap,
            start,
            size: end - start + 1,
        };
        let raw = pgmap.as_ptr();

        // SAFETY: The caller gives us the structure to fill in.
        unsafe {
            (*raw).type_ = bindings::memory_type_MEMORY_DEVICE_PRIVATE;
            (*raw).ops = ops;
            (*raw).owner = owner;
            (*raw).nr_range = 1;
            *core::ptr::addr_of_mut!((*raw).__bindgen_anon_1).cast() =
                bindings::range { start, end };
        }

        // SAFETY: Filled in completely. The node is the one that the core prefers.
        let ret = unsafe { bindings::memremap_pages(raw, bindings::NUMA_NO_NODE) };
        if let Err(err) = kernel::error::from_err_ptr(ret) {
            region.release();
            core::mem::forget(region);
            return Err(err);
        }
        // INVARIANT: Requested and registered just now.
        Ok(region)
    }

    /// The first frame.
    pub fn start_pfn(&self) -> Pfn {
        Pfn::new((self.start >> PAGE_SHIFT) as usize)
    }

    /// The zone device.
    pub fn zone_device(&self) -> &ZoneDevice {
        // SAFETY: By the type invariant it is registered as long as `self` exists.
        unsafe { ZoneDevice::from_raw(self.pgmap.as_ptr()) }
    }

    fn release(&self) {
        // SAFETY: We requested this region, and nothing else knows of it.
        unsafe {
            bindings::__release_region(&raw mut bindings::iomem_resource, self.start, self.size)
        };
    }
}

impl Drop for ZoneDeviceRegion {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is registered.
        unsafe { bindings::memunmap_pages(self.pgmap.as_ptr()) };
        self.release();
    }
}
