// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! `struct drm_pagemap`, in place.
//!
//! C header: [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h)

use crate::{
    bindings,
    cache::Cache,
    device_addr::DeviceAddr,
    hold::{
        DevHold,
        OwnedHold, //
    },
    mm::{
        Arrays,
        Collected,
        DmaDirection,
        Frames,
        Pfn,
        ZoneDevice, //
    },
    policy::PolicyState,
    shrinker, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        Arc,
        Refcount, //
    },
    types::Opaque, //
};

/// A GPU driver's additions to a zone device; `struct drm_pagemap`.
///
/// It lives inside one of the driver's structures, and is counted by its own `ref`: while that is
/// above 0 the pagemap is in use, and holds its DRM device and the driver's module. At 0 the
/// driver's `destroy` operation runs, or the pagemap waits in its [cache](crate::cache) for the
/// next user; the driver may keep the memory and [initialize it again](Self::reinit).
///
/// # Invariants
///
/// The structure is initialized. References to it exist only while its count is above 0, or while
/// its owner keeps it in memory.
#[repr(transparent)]
pub struct DrmPagemap(Opaque<bindings::drm_pagemap>);

// SAFETY: The fields are constant while there are references, or atomic.
unsafe impl Send for DrmPagemap {}
// SAFETY: As above.
unsafe impl Sync for DrmPagemap {}

// SAFETY: The count is that of the C structure; `dec_ref` lets go of the object at 0.
unsafe impl AlwaysRefCounted for DrmPagemap {
    fn inc_ref(&self) {
        self.refcount().inc();
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference.
        #[cfg(CONFIG_PROVE_LOCKING)]
        unsafe {
            shrinker::might_lock(obj);
        }

        // SAFETY: The caller owns a reference, so the object is alive.
        if unsafe { obj.as_ref() }.refcount().dec_and_test() {
            // SAFETY: That was the last reference.
            unsafe { Self::release(obj) };
        }
    }
}

impl DrmPagemap {
    /// Wraps the C pointer.
    ///
    /// # Safety
    ///
    /// `dpagemap` must be initialized, and be referenced or kept in memory for `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(dpagemap: *mut bindings::drm_pagemap) -> &'a Self {
        // SAFETY: `DrmPagemap` is transparent; the rest is promised by the caller.
        unsafe { &*dpagemap.cast() }
    }

    /// The C pointer.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::drm_pagemap {
        self.0.get()
    }

    /// Initializes `dpagemap`, with one reference. May sleep.
    ///
    /// [`ENOMEM`]; [`ENODEV`]: the driver's module is being unloaded. The reference is not there
    /// then.
    ///
    /// # Safety
    ///
    /// `dpagemap` must be memory for the structure. `pagemap`, `drm` and `ops` must be valid until
    /// its last reference is gone.
    pub unsafe fn init(
        dpagemap: *mut bindings::drm_pagemap,
        pagemap: *mut bindings::dev_pagemap,
        drm: *mut bindings::drm_device,
        ops: *const bindings::drm_pagemap_ops,
        policy: Arc<PolicyState>,
    ) -> Result {
        // SAFETY: The caller gives us the structure to fill in.
        unsafe {
            (*dpagemap).ops = ops;
            (*dpagemap).pagemap = pagemap;
            (*dpagemap).drm = drm;
            (*dpagemap).cache = core::ptr::null_mut();
            let link = &raw mut (*dpagemap).shrink_link;
            (*link).next = link;
            (*link).prev = link;
            Self::take_into_use(dpagemap, policy)
        }
    }

    /// Gives an initialized structure of a C driver, whose count is 0, its first reference. May
    /// sleep. Errors as [`init`](Self::init).
    ///
    /// # Safety
    ///
    /// `dpagemap` must have been initialized once, have a count of 0 or garbage, and be nobody
    /// else's now.
    pub unsafe fn reinit(dpagemap: *mut bindings::drm_pagemap) -> Result {
        let policy = PolicyState::of_module()?;

        // SAFETY: Promised by the caller.
        unsafe { Self::take_into_use(dpagemap, policy) }
    }

    /// As [`reinit`](Self::reinit), with a policy.
    ///
    /// # Safety
    ///
    /// As [`reinit`](Self::reinit) says.
    unsafe fn take_into_use(
        dpagemap: *mut bindings::drm_pagemap,
        policy: Arc<PolicyState>,
    ) -> Result {
        // SAFETY: The device is valid by the requirements of `init`.
        let hold = unsafe {
            let drm = NonNull::new((*dpagemap).drm).ok_or(EINVAL)?;
            DevHold::take(drm, policy)?
        };

        // SAFETY: The caller has the structure to itself. A `kref` is just a `refcount_t`.
        unsafe {
            (*dpagemap).dev_hold = hold.into_raw();
            let refs: &Refcount = &*(&raw mut (*dpagemap).ref_).cast();
            refs.set(1);
        }
        Ok(())
    }

    /// The pagemap's policy.
    ///
    /// # Safety
    ///
    /// The count must be above 0.
    pub(crate) unsafe fn policy(&self) -> &Arc<PolicyState> {
        // SAFETY: A pagemap in use has its hold, which `take_into_use` made.
        unsafe { (*(*self.as_raw()).dev_hold.cast::<DevHold>()).policy() }
    }

    fn refcount(&self) -> &Refcount {
        // SAFETY: The structure is initialized. A `kref` is just a `refcount_t`, which `Refcount`
        // wraps transparently.
        unsafe { &*(&raw mut (*self.as_raw()).ref_).cast() }
    }

    /// A new reference, unless the count is 0.
    pub fn get_unless_zero(&self) -> Option<ARef<Self>> {
        use kernel::sync::atomic::Relaxed;

        let refs = self.refcount().as_atomic();
        let mut old = refs.load(Relaxed);

        loop {
            if old <= 0 {
                return None;
            }
            match refs.cmpxchg(old, old + 1, Relaxed) {
                // SAFETY: That was the increment.
                Ok(_) => return Some(unsafe { ARef::from_raw(NonNull::from(self)) }),
                Err(now) => old = now,
            }
        }
    }

    /// The last reference is gone: lets go of the device, and lets [the shrinker](shrinker::add)
    /// see to the rest. Any context.
    ///
    /// # Safety
    ///
    /// The count must have just dropped to 0.
    unsafe fn release(this: NonNull<Self>) {
        let raw = this.as_ptr().cast::<bindings::drm_pagemap>();
        // SAFETY: Nobody else has a reference. The hold keeps the device and the module, so also
        // the driver's `destroy`, until it is dropped, after which `raw` is not touched.
        unsafe {
            let hold = OwnedHold::from_raw((*raw).dev_hold);

            (*raw).dev_hold = core::ptr::null_mut();
            shrinker::add(this);
            drop(hold);
        }
    }

    /// Has the driver destroy it, or frees it if the driver has no operation for that.
    ///
    /// `atomic_or_reclaim` tells the driver that it may be so called; else it may sleep.
    ///
    /// # Safety
    ///
    /// The count must be 0, and the pagemap be in no cache, and nobody else's. It may be gone
    /// afterwards.
    // Not inlined, for drivers' crates: a cache that goes with its last pagemap takes a helper.
    #[inline(never)]
    pub(crate) unsafe fn destroy(this: NonNull<Self>, atomic_or_reclaim: bool) {
        let raw = this.as_ptr().cast::<bindings::drm_pagemap>();

        // SAFETY: By the caller's promise it is ours; `raw` is not touched after the driver's
        // operation.
        unsafe {
            Cache::unset(this);
            match (*(*raw).ops).destroy {
                Some(destroy) => destroy(raw, atomic_or_reclaim),
                None => bindings::kfree(raw.cast()),
            }
        }
    }

    /// The zone device whose frames are the device's memory.
    #[inline]
    pub fn zone_device(&self) -> &ZoneDevice {
        // SAFETY: The provider keeps the zone device registered while the pagemap is used.
        unsafe { ZoneDevice::from_raw((*self.as_raw()).pagemap) }
    }

    /// Whether `pgmap` is this one's zone device.
    #[inline]
    pub fn owns(&self, pgmap: Option<NonNull<bindings::dev_pagemap>>) -> bool {
        pgmap.is_some_and(|pgmap| core::ptr::eq(pgmap.as_ptr(), self.zone_device().as_raw()))
    }

    /// Collects what is in use of `npages` frames from `start` on, wherever it is mapped. May
    /// sleep.
    ///
    /// [`EINVAL`]: the frames are not all of the pagemap's zone device.
    pub fn collect(&self, start: Pfn, npages: usize) -> Result<Collected<'_>> {
        if npages == 0 || !self.zone_device().contains(start, npages) {
            return Err(EINVAL);
        }

        let mut pfns = KVVec::with_capacity(npages, GFP_KERNEL)?;
        for i in 0..npages {
            pfns.push(Pfn::new(start.as_usize() + i), GFP_KERNEL)?;
        }
        Collected::from_frames(
            &Frames::new(&pfns, self.zone_device()),
            Arrays::new(npages)?,
        )
    }

    /// The device that does DMA for the device memory: the DRM device's parent. Not inlined:
    /// drivers' crates can't call the helper.
    #[inline(never)]
    pub fn parent(&self) -> NonNull<bindings::device> {
        // SAFETY: The DRM device is valid as long as the pagemap, and has a parent.
        unsafe {
            NonNull::new_unchecked(bindings::drm_pagemap_helper_drm_parent(
                (*self.as_raw()).drm,
            ))
        }
    }

    /// Whether other devices can get at the device memory, by the driver's `device_map` operation.
    pub fn has_device_map(&self) -> bool {
        self.ops().device_map.is_some()
    }

    /// How other devices get at the device memory; `device_map` and, if the driver has it,
    /// `device_unmap`. [`EOPNOTSUPP`]: they don't.
    #[inline(always)]
    pub(crate) fn peer_ops(&self) -> Result<PeerOps<'_>> {
        let ops = self.ops();

        Ok(PeerOps {
            dpagemap: self,
            map: ops.device_map.ok_or(EOPNOTSUPP)?,
            unmap: ops.device_unmap,
        })
    }

    fn ops(&self) -> &bindings::drm_pagemap_ops {
        // SAFETY: Valid as long as the pagemap, and constant.
        unsafe { &*(*self.as_raw()).ops }
    }

    /// Calls the driver's `populate_mm` operation.
    ///
    /// The range (in bytes) and the time slice are passed on as they are.
    pub(crate) fn op_populate_mm(
        &self,
        mm: &crate::mm::LockedMm<'_>,
        range: core::ops::Range<usize>,
        timeslice_ms: usize,
    ) -> Result {
        let populate_mm = self.ops().populate_mm.ok_or(EOPNOTSUPP)?;

        // SAFETY: The address space has users and is locked, as the operation wants.
        kernel::error::to_result(unsafe {
            populate_mm(
                self.as_raw(),
                range.start,
                range.end,
                mm.mm().as_raw(),
                timeslice_ms,
            )
        })
    }
}

/// The operations of a pagemap that are for other devices.
#[derive(Clone, Copy)]
pub(crate) struct PeerOps<'a> {
    dpagemap: &'a DrmPagemap,
    map: unsafe extern "C" fn(
        *mut bindings::drm_pagemap,
        *mut bindings::device,
        *mut bindings::page,
        c_uint,
        bindings::dma_data_direction,
    ) -> bindings::drm_pagemap_addr,
    unmap: Option<
        unsafe extern "C" fn(
            *mut bindings::drm_pagemap,
            *mut bindings::device,
            *const bindings::drm_pagemap_addr,
        ),
    >,
}

impl PeerOps<'_> {
    /// Makes the `1 << order` pages from `page` on, a folio of the device memory or a part of one,
    /// accessible for `dev`. May sleep. [`EFAULT`]: that could not be had.
    ///
    /// # Safety
    ///
    /// `dev` must be a valid device, and the pages in use by one folio of the pagemap's device
    /// memory.
    #[inline(always)]
    pub(crate) unsafe fn map(
        &self,
        dev: NonNull<bindings::device>,
        page: *mut bindings::page,
        order: u32,
        dir: DmaDirection,
    ) -> Result<DeviceAddr> {
        // SAFETY: Promised by the caller.
        let addr = unsafe {
            (self.map)(
                self.dpagemap.as_raw(),
                dev.as_ptr(),
                page,
                order,
                dir.as_raw(),
            )
        };

        // `DMA_MAPPING_ERROR`; what the driver maps is not the DMA layer's to know of.
        if addr.addr == u64::MAX {
            return Err(EFAULT);
        }
        Ok(addr.into())
    }

    /// Ends what [`map`](Self::map) began.
    ///
    /// # Safety
    ///
    /// `addr` must come from there, with the same `dev`, and not have been unmapped.
    #[inline(always)]
    pub(crate) unsafe fn unmap(&self, dev: NonNull<bindings::device>, addr: &DeviceAddr) {
        if let Some(unmap) = self.unmap {
            // SAFETY: Promised by the caller. `DeviceAddr` has the layout of the C type.
            unsafe {
                unmap(
                    self.dpagemap.as_raw(),
                    dev.as_ptr(),
                    core::ptr::from_ref(addr).cast(),
                )
            };
        }
    }
}
