// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a Rust driver implements for its allocations, and the C table that is made of it.

use crate::{
    bindings,
    copies::Copies,
    device_addr::DeviceAddr,
    devmem::Devmem,
    dpagemap::DrmPagemap,
    mm::{
        Folio,
        Pfn, //
    },
    pagemap::Pagemap,
    pagemap_ops::PagemapOps,
    zdd::Zdd, //
};
use core::{
    marker::PhantomData,
    slice, //
};
use kernel::{
    page::{
        PAGE_MASK,
        PAGE_SHIFT, //
    },
    prelude::*, //
};

/// A driver's allocation of device memory: its data, and its operations;
/// `struct drm_pagemap_devmem_ops`.
///
/// Dropping the data frees the device memory.
pub trait DevmemOps: Send + Sync + Sized + 'static {
    /// The pagemap whose memory this is.
    type Pagemap: PagemapOps<Devmem = Self>;

    /// Says where the pages of the allocation are, by calling [`DevmemPfns::push`] until that has
    /// all of them, in ascending order of virtual addresses.
    ///
    /// May sleep. Called several times for a migration to or an eviction from a large allocation,
    /// also by several tasks at the same time, and says the same each time: what is not asked for
    /// is [left out](DevmemPfns::push).
    fn populate_devmem_pfn(devmem: &Devmem<Self>, pfns: &mut DevmemPfns<'_>) -> Result;

    /// Copies RAM to device memory, clears where there is [no source](crate::CopyRun::addr), and
    /// returns when that is done.
    ///
    /// May sleep. On an error nothing is migrated, and the data stays in RAM.
    fn copy_to_devmem(pagemap: &Pagemap<Self::Pagemap>, copies: Copies<'_>) -> Result;

    /// Copies device memory to RAM, and returns when that is done.
    ///
    /// May sleep. On an error nothing is migrated, and the data stays in device memory; a CPU that
    /// wanted it gets a SIGBUS. Called also while the device goes away, to save what can be saved.
    fn copy_to_ram(pagemap: &Pagemap<Self::Pagemap>, copies: Copies<'_>) -> Result;

    /// No page refers to the allocation any more: the driver drops the references to it that it
    /// has in its own lists, so that it is freed.
    ///
    /// Runs in process context, whatever context the last page was freed in. May sleep.
    fn release(devmem: &Devmem<Self>) {
        let _ = devmem;
    }
}

/// Receives the places of an allocation's pages.
pub struct DevmemPfns<'a> {
    pfns: &'a mut [Pfn],
    filled: usize,
    /// Pages that come before those that are asked for.
    before: usize,
    start: Pfn,
    size: u64,
}

impl DevmemPfns<'_> {
    /// The next pages are the `len` bytes from byte `offset` of the pagemap on.
    ///
    /// What is not asked for just now, or is more than the allocation has pages, is left out. [`EINVAL`]: the run is not made of
    /// whole pages, or not in the pagemap.
    pub fn push(&mut self, offset: u64, len: u64) -> Result {
        let end = offset.checked_add(len).ok_or(EINVAL)?;

        if (offset | len) & !(PAGE_MASK as u64) != 0 || end > self.size {
            return Err(EINVAL);
        }
        let npages = (len >> PAGE_SHIFT) as usize;
        let skip = self.before.min(npages);
        let first = self.start.as_usize() + (offset >> PAGE_SHIFT) as usize + skip;
        let room = self.pfns.iter_mut().skip(self.filled);

        self.before -= skip;
        for (i, pfn) in room.take(npages - skip).enumerate() {
            *pfn = Pfn::new(first + i);
            self.filled += 1;
        }
        Ok(())
    }

    /// Whether all pages have a place.
    pub fn is_full(&self) -> bool {
        self.filled == self.pfns.len()
    }
}

/// Has the driver say where the pages of `devmem` from `first` on are, for all of `pfns`.
pub(crate) fn ask<T: DevmemOps>(devmem: &Devmem<T>, first: usize, pfns: &mut [Pfn]) -> Result {
    let mut pfns = DevmemPfns {
        pfns,
        filled: 0,
        before: first,
        start: devmem.pagemap().start_pfn(),
        size: devmem.pagemap().size() as u64,
    };

    T::populate_devmem_pfn(devmem, &mut pfns)?;
    if !pfns.is_full() {
        return Err(EINVAL);
    }
    Ok(())
}

/// Makes the C table of a [`DevmemOps`].
pub(crate) struct OperationsVTable<T>(PhantomData<T>);

impl<T: DevmemOps> OperationsVTable<T> {
    const VTABLE: bindings::drm_pagemap_devmem_ops = bindings::drm_pagemap_devmem_ops {
        devmem_release: Some(Self::devmem_release),
        populate_devmem_pfn: Some(Self::populate_devmem_pfn),
        copy_to_devmem: Some(Self::copy_to_devmem),
        copy_to_ram: Some(Self::copy_to_ram),
    };

    /// The table.
    pub(crate) const fn build() -> &'static bindings::drm_pagemap_devmem_ops {
        &Self::VTABLE
    }

    /// # Safety
    ///
    /// `devmem` must be that of a `Devmem<T>`, which is released once. Any context.
    unsafe extern "C" fn devmem_release(devmem: *mut bindings::drm_pagemap_devmem) {
        // SAFETY: Promised by the caller.
        unsafe { Devmem::<T>::queue_release(devmem) };
    }

    /// # Safety
    ///
    /// `devmem` must be that of a `Devmem<T>`; `pfn` must have room for `npages` entries.
    unsafe extern "C" fn populate_devmem_pfn(
        devmem: *mut bindings::drm_pagemap_devmem,
        npages: usize,
        pfn: *mut usize,
    ) -> c_int {
        // SAFETY: Promised by the caller.
        let (devmem, pfns) = unsafe {
            (
                Devmem::<T>::from_raw(devmem),
                slice::from_raw_parts_mut(pfn.cast::<Pfn>(), npages),
            )
        };

        ask(devmem, 0, pfns).map_or_else(|err| err.to_errno(), |()| 0)
    }

    /// # Safety
    ///
    /// As [`copy`](Self::copy).
    unsafe extern "C" fn copy_to_devmem(
        pages: *mut *mut bindings::page,
        addrs: *mut bindings::drm_pagemap_addr,
        npages: usize,
        _fence: *mut bindings::dma_fence,
    ) -> c_int {
        // SAFETY: Promised by the caller.
        unsafe { Self::copy(pages, addrs, npages, T::copy_to_devmem) }
    }

    /// # Safety
    ///
    /// As [`copy`](Self::copy).
    unsafe extern "C" fn copy_to_ram(
        pages: *mut *mut bindings::page,
        addrs: *mut bindings::drm_pagemap_addr,
        npages: usize,
        _fence: *mut bindings::dma_fence,
    ) -> c_int {
        // SAFETY: Promised by the caller.
        unsafe { Self::copy(pages, addrs, npages, T::copy_to_ram) }
    }

    /// # Safety
    ///
    /// Both arrays must have `npages` entries; the pages must be null, or referenced pages that
    /// were migrated to allocations of type `T` of one pagemap.
    unsafe fn copy(
        pages: *mut *mut bindings::page,
        addrs: *mut bindings::drm_pagemap_addr,
        npages: usize,
        op: impl FnOnce(&Pagemap<T::Pagemap>, Copies<'_>) -> Result,
    ) -> c_int {
        // SAFETY: Promised by the caller. `DeviceAddr` has the layout of the C type.
        let (pages, addrs) = unsafe {
            (
                slice::from_raw_parts(pages, npages),
                slice::from_raw_parts(addrs.cast::<DeviceAddr>(), npages),
            )
        };
        let Some(&page) = pages.iter().find(|page| !page.is_null()) else {
            return 0;
        };
        // SAFETY: Promised by the caller.
        let Some(zdd) = Zdd::of_folio(unsafe { Folio::of_page(page) }) else {
            return EINVAL.to_errno();
        };
        let dpagemap: &DrmPagemap = zdd.dpagemap();
        // SAFETY: Allocations of type `T` have pagemaps of this type.
        let pagemap = unsafe { Pagemap::<T::Pagemap>::borrow(dpagemap) };
        // SAFETY: Promised by the caller.
        let copies = unsafe { Copies::new(pages, addrs, pagemap.start_pfn()) };

        op(&pagemap, copies).map_or_else(|err| err.to_errno(), |()| 0)
    }
}
