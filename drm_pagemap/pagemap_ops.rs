// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a Rust driver implements for its pagemap, and the C table that is made of it.

use crate::{
    bindings,
    device_addr::DeviceAddr,
    devmem_ops::DevmemOps,
    dpagemap::DrmPagemap,
    mm::{
        DmaDirection,
        LockedMm,
        Pfn, //
    },
    pagemap::Pagemap,
    policy::Policy, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::{
    device,
    drm,
    error::VTABLE_DEFAULT_ERROR,
    mm::MmWithUser,
    prelude::*,
    sync::ArcBorrow, //
};

/// A driver's pagemap: its data, and its operations; `struct drm_pagemap_ops`.
#[vtable]
pub trait PagemapOps: Send + Sync + Sized + 'static {
    /// The DRM driver.
    type Driver: drm::Driver;

    /// The data and operations of an allocation of device memory.
    type Devmem: DevmemOps<Pagemap = Self>;

    /// Populates `range` (in bytes) of `mm` with device memory, best effort.
    ///
    /// The usual way: split the range, for each part allocate device memory, make a
    /// [`NewDevmem`](crate::NewDevmem) of it, and
    /// [migrate](crate::NewDevmem::migrate_to_devmem). For `timeslice_ms` milliseconds CPU faults
    /// shall not bring the pages back. Called with the mmap lock held for reading; may sleep. Not
    /// called any more once the [`Registration`](crate::Registration) is being dropped.
    fn populate_mm(
        pagemap: ArcBorrow<'_, Pagemap<Self>>,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        timeslice_ms: usize,
    ) -> Result;

    /// What CPU faults do; by default, they bring home the whole allocation. Asked once, when the
    /// pagemap is registered. May sleep.
    fn policy(&self) -> Policy {
        Policy::new()
    }

    /// Whether the device is gone for good, and with it what is in its memory.
    ///
    /// Asked while the [`Registration`](crate::Registration) is being dropped, each time before pages
    /// are brought home. If so, those that are left are lost: who touches one gets a SIGBUS, and the
    /// driver is not asked for them any more. May sleep. By default it is not known, and pages that
    /// can't be moved are waited for.
    fn is_lost(&self) -> bool {
        false
    }

    /// Gives `dev` an address for `1 << order` pages of the device memory, from byte `offset` of
    /// the pagemap on, so that `dev` can read or write them as `dir` says, until
    /// [`device_unmap`](Self::device_unmap).
    ///
    /// `dev` is a device whose driver copies from its own memory to this one's, or has this one's
    /// in its page tables: another one with the same pagemap owner, or, for copies, this one. May
    /// sleep; but with page tables the lock of an [`SvmRange`](crate::SvmRange) is held, so memory
    /// must not be allocated in ways that wait for it to be freed. An error, whatever it is, makes
    /// the migration, or [`SvmRange::populate`](crate::SvmRange::populate), fail with [`EFAULT`].
    /// Optional: without it pages move from one device to another through RAM.
    fn device_map(
        pagemap: &Pagemap<Self>,
        dev: &device::Device,
        offset: u64,
        order: u32,
        dir: DmaDirection,
    ) -> Result<DeviceAddr> {
        let _ = (pagemap, dev, offset, order, dir);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// `dev` does not use the address any more that [`device_map`](Self::device_map) gave it. The
    /// same as there goes for sleeping, and allocating memory.
    fn device_unmap(pagemap: &Pagemap<Self>, dev: &device::Device, addr: &DeviceAddr) {
        let _ = (pagemap, dev, addr);
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Makes the C table of a [`PagemapOps`].
pub(crate) struct OperationsVTable<T>(PhantomData<T>);

impl<T: PagemapOps> OperationsVTable<T> {
    const VTABLE: bindings::drm_pagemap_ops = bindings::drm_pagemap_ops {
        device_map: if T::HAS_DEVICE_MAP {
            Some(Self::device_map)
        } else {
            None
        },
        device_unmap: if T::HAS_DEVICE_UNMAP {
            Some(Self::device_unmap)
        } else {
            None
        },
        populate_mm: Some(Self::populate_mm),
        destroy: Some(Self::destroy),
    };

    /// The table.
    pub(crate) const fn build() -> &'static bindings::drm_pagemap_ops {
        &Self::VTABLE
    }

    /// # Safety
    ///
    /// `dpagemap` must be that of a referenced `Pagemap<T>`; `mm` have users, and its mmap lock be
    /// held.
    unsafe extern "C" fn populate_mm(
        dpagemap: *mut bindings::drm_pagemap,
        start: usize,
        end: usize,
        mm: *mut bindings::mm_struct,
        timeslice_ms: usize,
    ) -> c_int {
        // SAFETY: Promised by the caller.
        let (pagemap, mm) = unsafe {
            (
                Pagemap::<T>::borrow(DrmPagemap::from_raw(dpagemap)),
                LockedMm::borrowed(MmWithUser::from_raw(mm)),
            )
        };
        let result = pagemap
            .gate()
            .enter()
            .and_then(|_pass| T::populate_mm(pagemap, &mm, start..end, timeslice_ms));

        result.map_or_else(|err| err.to_errno(), |()| 0)
    }

    /// # Safety
    ///
    /// `dpagemap` must be that of a referenced `Pagemap<T>`; `dev` be a device; `page` be the first
    /// one of a folio of the pagemap's memory, and referenced.
    unsafe extern "C" fn device_map(
        dpagemap: *mut bindings::drm_pagemap,
        dev: *mut bindings::device,
        page: *mut bindings::page,
        order: c_uint,
        dir: bindings::dma_data_direction,
    ) -> bindings::drm_pagemap_addr {
        // SAFETY: Promised by the caller.
        let (pagemap, dev) = unsafe {
            (
                Pagemap::<T>::borrow(DrmPagemap::from_raw(dpagemap)),
                device::Device::from_raw(dev),
            )
        };
        let addr = DmaDirection::from_raw(dir).and_then(|dir| {
            let offset = pagemap.offset_of(Pfn::from_page(page));

            T::device_map(&pagemap, dev, offset, order, dir)
        });

        addr.unwrap_or(DeviceAddr::ERROR).into()
    }

    /// # Safety
    ///
    /// `dpagemap` must be that of a referenced `Pagemap<T>`; `dev` be a device; `addr` be what
    /// [`device_map`](Self::device_map) returned for it.
    unsafe extern "C" fn device_unmap(
        dpagemap: *mut bindings::drm_pagemap,
        dev: *mut bindings::device,
        addr: *const bindings::drm_pagemap_addr,
    ) {
        // SAFETY: Promised by the caller. `DeviceAddr` has the layout of the C type.
        let (pagemap, dev, addr) = unsafe {
            (
                Pagemap::<T>::borrow(DrmPagemap::from_raw(dpagemap)),
                device::Device::from_raw(dev),
                &*addr.cast::<DeviceAddr>(),
            )
        };

        T::device_unmap(&pagemap, dev, addr);
    }

    /// The last user is gone.
    ///
    /// # Safety
    ///
    /// `dpagemap` must be that of a `Pagemap<T>` whose count just dropped to 0.
    unsafe extern "C" fn destroy(dpagemap: *mut bindings::drm_pagemap, _atomic: bool) {
        // SAFETY: Promised by the caller.
        unsafe { Pagemap::<T>::deactivate(dpagemap) };
    }
}
