// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a Rust driver implements for its pagemap, and the C table that is made of it.

use crate::{
    bindings,
    devmem_ops::DevmemOps,
    dpagemap::DrmPagemap,
    mm::LockedMm,
    pagemap::Pagemap, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::{
    drm,
    mm::MmWithUser,
    prelude::*,
    sync::ArcBorrow, //
};

/// A driver's pagemap: its data, and its operations; `struct drm_pagemap_ops`.
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
    /// shall not bring the pages back. Called with the mmap lock held for reading; may sleep. Not called any more
    /// once the [`Registration`](crate::Registration) is being dropped.
    fn populate_mm(
        pagemap: ArcBorrow<'_, Pagemap<Self>>,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        timeslice_ms: usize,
    ) -> Result;
}

/// Makes the C table of a [`PagemapOps`].
pub(crate) struct OperationsVTable<T>(PhantomData<T>);

impl<T: PagemapOps> OperationsVTable<T> {
    const VTABLE: bindings::drm_pagemap_ops = bindings::drm_pagemap_ops {
        device_map: None,
        device_unmap: None,
        populate_mm: Some(Self::populate_mm),
        destroy: Some(Self::destroy),
    };

    /// The table.
    pub(crate) const fn build() -> &'static bindings::drm_pagemap_ops {
        &Self::VTABLE
    }

    /// # Safety
    ///
    /// `dpagemap` must be that of a referenced `Pagemap<T>`; `mm` have users, and its mmap lock be held.
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
