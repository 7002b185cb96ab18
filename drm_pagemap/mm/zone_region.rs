// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Registration of zone devices.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::{
    bindings,
    lost::Lost,
    mm::{
        PagemapOwner,
        Pfn, //
    },
};
use core::ptr::NonNull;
use kernel::{
    page::{
        PAGE_MASK,
        PAGE_SHIFT, //
    },
    prelude::*,
    str::CString,
    sync::{
        Arc,
        UniqueArc, //
    },
    types::Opaque, //
};

/// The memory of a `struct dev_pagemap`, and what belongs to it. It may outlive the zone device, and
/// who has made it: nothing here is a driver's.
///
/// # Invariants
///
/// Instances live in an [`Arc`].
#[pin_data]
#[repr(C)]
pub(crate) struct Zone {
    #[pin]
    pgmap: Opaque<bindings::dev_pagemap>,
    /// In bytes.
    start: u64,
    size: u64,
    /// [`None`]: itself.
    owner: Option<PagemapOwner>,
    /// The region is called by this.
    name: CString,
    #[pin]
    pub(crate) lost: Lost,
}

// SAFETY: What changes in the C structure is the core's, which guards it.
unsafe impl Send for Zone {}
// SAFETY: As above.
unsafe impl Sync for Zone {}

impl Zone {
    /// The zone device's structure, which is at the same address.
    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::dev_pagemap {
        self.pgmap.get()
    }

    /// The first frame.
    #[inline]
    pub(crate) fn start_pfn(&self) -> Pfn {
        Pfn::new((self.start >> PAGE_SHIFT) as usize)
    }

    /// Who manages it, as long as it is not lost.
    pub(crate) fn owner(&self) -> PagemapOwner {
        self.owner.unwrap_or(self.own_cookie())
    }

    /// An owner that no other zone device has.
    pub(crate) fn own_cookie(&self) -> PagemapOwner {
        PagemapOwner::from_raw(self.as_raw().cast())
    }

    fn release(&self) {
        // SAFETY: We requested this region, and nothing else knows of it.
        unsafe {
            bindings::__release_region(&raw mut bindings::iomem_resource, self.start, self.size)
        };
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }
}

/// A range of physical addresses, taken for device memory and registered as device-private.
///
/// Dropping it unregisters the zone device, and for that waits until its last page is free.
///
/// # Invariants
///
/// The zone's addresses are a region that we requested; its zone device is registered on all of it.
pub(crate) struct ZoneDeviceRegion(Arc<Zone>);

impl ZoneDeviceRegion {
    /// Finds a free range of `size` bytes of physical address space, and registers it as
    /// device-private memory. By default it is its own owner.
    ///
    /// May sleep. [`EINVAL`]: `size` is 0 or no multiple of the page size. [`ENOMEM`], [`ERANGE`],
    /// [`EBUSY`] and others: what the core says if there is no such range.
    ///
    /// # Safety
    ///
    /// `ops` must be fit for device-private memory whose owner is `owner`.
    pub(crate) unsafe fn new(
        size: usize,
        name: &CStr,
        ops: &'static bindings::dev_pagemap_ops,
        owner: Option<PagemapOwner>,
    ) -> Result<Self> {
        if size == 0 || size & !PAGE_MASK != 0 {
            return Err(EINVAL);
        }

        let name = CString::try_from(name)?;
        let room = UniqueArc::<Zone>::new_uninit(GFP_KERNEL)?;
        // SAFETY: The string stays where it is as long as the region; the rest are plain values.
        let res = kernel::error::from_err_ptr(unsafe {
            bindings::request_free_mem_region(
                &raw mut bindings::iomem_resource,
                size,
                name.as_char_ptr(),
            )
        })?;
        // SAFETY: A valid resource. It belongs to us until it is released by address.
        let (start, end) = unsafe { ((*res).start, (*res).end) };
        let bytes = end - start + 1;
        // INVARIANT: It is turned into an `Arc`.
        let Ok(zone) = room.pin_init_with(pin_init!(Zone {
            pgmap <- Opaque::zeroed(),
            start,
            size: bytes,
            owner,
            name,
            lost <- Lost::new(),
        }));
        let zone: Arc<Zone> = zone.into();
        let raw = zone.as_raw();

        // SAFETY: Zeroed memory that is ours alone.
        unsafe {
            (*raw).type_ = bindings::memory_type_MEMORY_DEVICE_PRIVATE;
            (*raw).ops = ops;
            (*raw).owner = zone.owner().as_raw();
            (*raw).nr_range = 1;
            *core::ptr::addr_of_mut!((*raw).__bindgen_anon_1).cast() =
                bindings::range { start, end };
        }

        // SAFETY: Filled in completely. The node is the one that the core prefers.
        let ret = unsafe { bindings::memremap_pages(raw, bindings::NUMA_NO_NODE) };
        if let Err(err) = kernel::error::from_err_ptr(ret) {
            zone.release();
            return Err(err);
        }
        // INVARIANT: Requested and registered just now.
        Ok(Self(zone))
    }

    /// The zone.
    pub(crate) fn zone(&self) -> &Arc<Zone> {
        &self.0
    }

    /// Gives it up, without unregistering anything, until [`from_raw`](Self::from_raw).
    pub(crate) fn into_raw(self) -> NonNull<Zone> {
        // The region's reference stays.
        NonNull::from(&*core::mem::ManuallyDrop::new(self).0)
    }

    /// Takes it back.
    ///
    /// # Safety
    ///
    /// [`into_raw`](Self::into_raw) must have given up the region of `zone`, which is not used by who
    /// got it any more.
    pub(crate) unsafe fn from_raw(zone: NonNull<Zone>) -> Self {
        // SAFETY: Promised by the caller.
        Self(unsafe { Arc::from_raw(zone.as_ptr()) })
    }
}

impl Drop for ZoneDeviceRegion {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is registered.
        unsafe { bindings::memunmap_pages(self.0.as_raw()) };
        self.0.release();
    }
}
