// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A Rust driver's pagemap.

use crate::{
    bindings,
    dpagemap::DrmPagemap,
    gate::Gate,
    held_pages::HeldPages,
    migrate,
    mm::{
        LockedMm,
        PagemapOwner,
        Pfn,
        Place,
        Zone, //
    },
    pagemap_ops::{
        OperationsVTable,
        PagemapOps, //
    },
    policy::{
        Counters,
        PolicyState, //
    },
};
use core::{
    ops::{
        Deref,
        Range, //
    },
    ptr::NonNull, //
};
use kernel::{
    drm,
    mm::{
        Mm,
        MmWithUser, //
    },
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        ArcBorrow,
        Mutex, //
    },
    types::Opaque, //
};

/// A device's memory as a pagemap: `struct drm_pagemap`, its zone device, and the driver's data.
///
/// Made by [`Registration::new`](crate::Registration::new). It dereferences to the driver's data.
///
/// # Invariants
///
/// - Instances live in an [`Arc`].
/// - `base` is initialized whenever `active` is true; then one count of that [`Arc`] belongs to
///   `base`'s own reference count.
#[pin_data]
#[repr(C)]
pub struct Pagemap<T: PagemapOps> {
    #[pin]
    base: Opaque<bindings::drm_pagemap>,
    zone: Arc<Zone>,
    /// Whether `base` has references, or its last one is being dropped.
    active: Atomic<bool>,
    /// Held while `base` gets its first reference.
    #[pin]
    activation: Mutex<()>,
    #[pin]
    gate: Gate,
    nr_pages: usize,
    drm: ARef<drm::Device<T::Driver>>,
    #[pin]
    data: T,
    policy: Arc<PolicyState>,
}

// SAFETY: The C structures are guarded by `activation` and by their own counts; the rest is `Send`.
unsafe impl<T: PagemapOps> Send for Pagemap<T> where ARef<drm::Device<T::Driver>>: Send {}
// SAFETY: As above.
unsafe impl<T: PagemapOps> Sync for Pagemap<T> where ARef<drm::Device<T::Driver>>: Sync {}

/// What lockdep calls [`Pagemap::activation`]. A static, for the same address in every driver's
/// crate.
static ACTIVATION: &CStr = c"drm_pagemap::Pagemap::activation";

impl<T: PagemapOps> Pagemap<T> {
    /// A pagemap with the first `nr_pages` frames of a zone device that is registered.
    pub(crate) fn new<E>(
        drm: &drm::Device<T::Driver>,
        zone: Arc<Zone>,
        nr_pages: usize,
        data: impl PinInit<T, E>,
    ) -> Result<Arc<Self>>
    where
        Error: From<E>,
    {
        Arc::pin_init::<Error>(
            try_pin_init!(Self {
                base <- Opaque::zeroed(),
                zone,
                active: Atomic::new(false),
                activation <- Mutex::new((), ACTIVATION, kernel::static_lock_class!()),
                gate <- Gate::new(),
                nr_pages,
                drm: drm.into(),
                data <- data,
                policy: PolicyState::of_driver(data.policy())?,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The gate that users of the device memory go through, until it goes away.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The pagemap that `dpagemap` is part of.
    ///
    /// # Safety
    ///
    /// It must be part of a `Pagemap<T>`, and referenced for `'a`.
    pub(crate) unsafe fn borrow<'a>(dpagemap: &'a DrmPagemap) -> ArcBorrow<'a, Self> {
        // SAFETY: `base` is at offset 0; by the type invariant the object is in an `Arc`, one count
        // of which the reference stands for.
        unsafe { ArcBorrow::from_raw(dpagemap.as_raw().cast::<Self>()) }
    }

    /// A reference on the pagemap as one in use, which holds the DRM device and the driver's
    /// module. May sleep.
    ///
    /// This is what C drivers look a pagemap up in a [cache](crate::cache) for: one in use is
    /// found, one whose last reference is just being dropped is waited for, one that nobody uses is
    /// brought back to life. A Rust pagemap is the [`Registration`](crate::Registration)'s and is
    /// not freed when nobody uses it, so there is nothing that a shrinker could free behind the
    /// driver's back. A driver that wants back the RAM that describes its memory's pages drops the
    /// registration, and makes one again when it is asked for device memory.
    ///
    /// [`ENOMEM`]; [`ENODEV`]: the module is being unloaded.
    pub fn acquire(this: ArcBorrow<'_, Self>) -> Result<ARef<DrmPagemap>> {
        let base = this.base.get();
        let _activation = this.activation.lock();

        loop {
            // SAFETY: Initialized (or zeroed, so with a count of 0), and in memory.
            if let Some(dpagemap) = unsafe { DrmPagemap::from_raw(base) }.get_unless_zero() {
                return Ok(dpagemap);
            }
            if !this.active.load(Acquire) {
                break;
            }
            // Somebody is dropping the last reference just now.
            kernel::time::delay::fsleep(kernel::time::Delta::from_micros(10));
        }

        this.active.store(true, Relaxed);
        // SAFETY: Nobody else has a reference, or makes one: we hold the lock. The object holds the
        // memory of the zone device, and the DRM device.
        let result = unsafe {
            DrmPagemap::init(
                base,
                this.zone.as_raw(),
                drm_device_ptr(&this.drm),
                OperationsVTable::<T>::build(),
                this.policy.clone(),
            )
        };
        if let Err(err) = result {
            this.active.store(false, Relaxed);
            return Err(err);
        }

        // INVARIANT: The count for `base`; see `deactivate`.
        let _ = Arc::into_raw(Arc::from(this));
        // SAFETY: The reference that `init` made.
        Ok(unsafe { ARef::from_raw(NonNull::new_unchecked(base.cast())) })
    }

    /// Ends what [`acquire`](Self::acquire) began when there was no reference.
    ///
    /// # Safety
    ///
    /// `base` must be part of a `Pagemap<T>`, and its count just have dropped to 0.
    pub(crate) unsafe fn deactivate(base: *mut bindings::drm_pagemap) {
        // SAFETY: By the type invariant this count of the `Arc` was `base`'s, which is at offset 0.
        let this = unsafe { Arc::from_raw(base.cast::<Self>()) };

        this.active.store(false, Release);
    }

    /// Whether anybody uses the pagemap.
    pub fn is_active(&self) -> bool {
        self.active.load(Acquire)
    }

    /// The pagemap as the layers below know it, whether it is in use or not.
    pub(crate) fn as_dpagemap(&self) -> &DrmPagemap {
        // SAFETY: In memory as long as `self`.
        unsafe { DrmPagemap::from_raw(self.base.get()) }
    }

    /// The DRM device.
    pub fn drm(&self) -> &drm::Device<T::Driver> {
        &self.drm
    }

    /// The C device that does DMA: the DRM device's parent.
    pub(crate) fn parent_ptr(&self) -> *mut bindings::device {
        // SAFETY: A DRM device has a parent, and holds it.
        unsafe { drm_parent_ptr(drm_device_ptr(&self.drm)) }
    }

    /// The frame of the device memory's first page.
    pub(crate) fn start_pfn(&self) -> Pfn {
        self.zone.start_pfn()
    }

    /// The frames of the device memory.
    pub(crate) fn frames(&self) -> Range<usize> {
        let start = self.start_pfn().as_usize();

        start..start + self.nr_pages
    }

    /// Where a page of this device memory is, in bytes from its start; for what
    /// [`places`](Self::places) has [found](Place::Device).
    pub fn offset_of(&self, pfn: Pfn) -> u64 {
        (pfn.as_usize().wrapping_sub(self.start_pfn().as_usize()) as u64) << PAGE_SHIFT
    }

    /// What the zone device is called.
    pub(crate) fn name(&self) -> &CStr {
        self.zone.name()
    }

    /// The size of the device memory, in bytes.
    pub fn size(&self) -> usize {
        self.nr_pages << PAGE_SHIFT
    }

    /// What CPU faults have done under the pagemap's [policy](PagemapOps::policy), since it was
    /// registered.
    pub fn counters(&self) -> Counters {
        self.policy.counters()
    }

    /// The owner of the zone device. Devices of one interconnect group have the same.
    pub fn owner(&self) -> PagemapOwner {
        self.zone.owner()
    }

    /// Populates `range` (in bytes) of `mm` with device memory, through
    /// [`PagemapOps::populate_mm`].
    ///
    /// For `timeslice_ms` milliseconds CPU faults leave the pages in device memory. Takes the mmap
    /// lock for reading; may sleep. [`ENODEV`]: the device is gone. [`EFAULT`]: the address space
    /// is dead. Else what the driver says.
    pub fn populate_mm(
        this: ArcBorrow<'_, Self>,
        mm: &Mm,
        range: Range<usize>,
        timeslice_ms: usize,
    ) -> Result {
        let _pass = this.gate.enter()?;
        let dpagemap = Self::acquire(this)?;

        migrate::populate_mm(&dpagemap, mm, range, timeslice_ms)
    }

    /// Holds all pages of `range` (in bytes) in device memory, for the device to work on.
    ///
    /// While the result exists no CPU gets at them: who tries waits. [`EFAULT`]: not all of the
    /// range is in this device's memory. [`ENODEV`]: the device is gone. May sleep.
    pub fn hold_pages<'a>(
        &'a self,
        mm: &'a LockedMm<'_>,
        range: Range<usize>,
    ) -> Result<HeldPages<'a>> {
        HeldPages::new(self.gate.enter()?, mm, range, self.owner(), self.frames())
    }

    /// Calls `found` with the address (in bytes) and the place of each page of `range`; see
    /// [`places`](crate::mm::places). What is in the memory of another device of the same group is
    /// at a [peer](Place::Peer).
    pub fn places(
        &self,
        mm: &MmWithUser,
        range: Range<usize>,
        mut found: impl FnMut(usize, Place) -> Result,
    ) -> Result {
        let _pass = self.gate.enter()?;
        let frames = self.frames();

        crate::mm::places(mm, range, self.owner(), |addr, place| match place {
            Place::Device(pfn) if !frames.contains(&pfn.as_usize()) => found(addr, Place::Peer),
            place => found(addr, place),
        })
    }
}

impl<T: PagemapOps> Deref for Pagemap<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

/// The C structure of a DRM device.
///
/// `drm::Device::as_raw` is private to the kernel crate. Its only C field comes first, and the type
/// is `repr(C)`, so both have the same address.
fn drm_device_ptr<D: drm::Driver>(drm: &drm::Device<D>) -> *mut bindings::drm_device {
    core::ptr::from_ref(drm).cast_mut().cast()
}

/// The parent of a DRM device. Not inlined: drivers' crates can't call the helper.
///
/// # Safety
///
/// `drm` must be a DRM device.
#[inline(never)]
unsafe fn drm_parent_ptr(drm: *mut bindings::drm_device) -> *mut bindings::device {
    // SAFETY: Promised by the caller.
    unsafe { bindings::drm_pagemap_helper_drm_parent(drm) }
}
