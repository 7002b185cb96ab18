// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! `struct drm_pagemap_devmem`, in place, and its operations.
//!
//! C header: [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    dpagemap::DrmPagemap,
    jiffies,
    mm::{
        Arrays,
        Collected,
        DmaDirection,
        DmaMapping,
        DmaPage,
        Folio,
        Frames,
        LockedMm,
        Pfn, //
    },
    page_array::Pages,
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    time::Jiffies,
    types::Opaque, //
};

/// An allocation of device memory; `struct drm_pagemap_devmem`.
///
/// It lives inside one of the driver's structures.
///
/// # Invariants
///
/// The structure was initialized by [`init`](Self::init), and stays in memory while the reference
/// lasts.
#[repr(transparent)]
pub struct DrmPagemapDevmem(Opaque<bindings::drm_pagemap_devmem>);

// SAFETY: The fields are constant after initialization, but for `timeslice_expiration` and `mm`,
// which are accessed as whole words, `pre_migrate_fence`, which belongs to who has the `DevmemRef`, and the
// completion, which has its own lock.
unsafe impl Send for DrmPagemapDevmem {}
// SAFETY: As above.
unsafe impl Sync for DrmPagemapDevmem {}

impl DrmPagemapDevmem {
    /// Initializes the structure.
    ///
    /// # Safety
    ///
    /// `this` must be memory for the structure; the pointers must be valid as long as it is used; a
    /// reference on `fence`, if not null, is given to it.
    pub unsafe fn init(
        this: *mut bindings::drm_pagemap_devmem,
        dev: *mut bindings::device,
        mm: *mut bindings::mm_struct,
        ops: *const bindings::drm_pagemap_devmem_ops,
        dpagemap: *mut bindings::drm_pagemap,
        size: usize,
        fence: *mut bindings::dma_fence,
    ) {
        // SAFETY: The caller gives us the structure to fill in.
        unsafe {
            bindings::drm_pagemap_helper_init_completion(&raw mut (*this).detached);
            (*this).dev = dev;
            (*this).mm = mm;
            (*this).ops = ops;
            (*this).dpagemap = dpagemap;
            (*this).size = size;
            (*this).timeslice_expiration = 0;
            (*this).pre_migrate_fence = fence;
        }
    }

    /// Wraps the C pointer.
    ///
    /// # Safety
    ///
    /// `devmem` must be initialized, and stay in memory for `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(devmem: *mut bindings::drm_pagemap_devmem) -> &'a Self {
        // SAFETY: `DrmPagemapDevmem` is transparent; the rest is promised by the caller.
        unsafe { &*devmem.cast() }
    }

    /// The C pointer.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::drm_pagemap_devmem {
        self.0.get()
    }

    fn ops(&self) -> &bindings::drm_pagemap_devmem_ops {
        // SAFETY: Valid and constant by the requirements of `init`.
        unsafe { &*(*self.as_raw()).ops }
    }

    /// The pagemap that the memory belongs to.
    #[inline]
    pub fn dpagemap(&self) -> &DrmPagemap {
        // SAFETY: Valid by the requirements of `init`.
        unsafe { DrmPagemap::from_raw((*self.as_raw()).dpagemap) }
    }

    /// Notes for which address space the allocation is. That is just told in traces.
    #[cfg(CONFIG_DRM = "y")]
    pub(crate) fn set_mm(&self, mm: &LockedMm<'_>) {
        // SAFETY: A word of an allocation that is in memory; others read it as a whole.
        unsafe { (&raw mut (*self.as_raw()).mm).write_volatile(mm.mm().as_raw()) };
    }

    /// The size in bytes.
    #[inline]
    pub fn size(&self) -> usize {
        // SAFETY: Constant after initialization.
        unsafe { (*self.as_raw()).size }
    }

    /// The size in pages.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        self.size() >> PAGE_SHIFT
    }

    /// Whether the operations that migration can't do without are all there.
    pub fn can_migrate(&self) -> bool {
        let ops = self.ops();

        ops.populate_devmem_pfn.is_some()
            && ops.copy_to_devmem.is_some()
            && ops.copy_to_ram.is_some()
    }

    /// The device that does DMA for the allocation, valid as long as that is used. [`EINVAL`]: the
    /// driver named none.
    #[inline(always)]
    fn dev(&self) -> Result<NonNull<bindings::device>> {
        // SAFETY: Constant after initialization.
        NonNull::new(unsafe { (*self.as_raw()).dev }).ok_or(EINVAL)
    }

    /// Begins to map pages of RAM for the allocation's device, with an entry in `addrs`, absent yet,
    /// for each page of a range. [`EINVAL`]: the driver named no device.
    #[inline(always)]
    pub fn dma_mapping<'a>(
        &'a self,
        dir: DmaDirection,
        addrs: &'a mut [DeviceAddr],
    ) -> Result<DmaMapping<'a>> {
        let dev = self.dev()?;

        debug_assert!(addrs.iter().all(|addr| !addr.is_present()));
        // SAFETY: The device is valid; the borrow keeps the allocation in use. The arrays that
        // addresses are taken from are empty between two uses: each mapping empties what it has
        // filled.
        Ok(unsafe { DmaMapping::new(dev, dir, addrs) })
    }

    /// Maps `folio`, a page of RAM, for the allocation's device. [`EINVAL`]: the driver named none,
    /// or it is a large folio; [`EFAULT`]: it can't be mapped.
    #[inline(always)]
    pub(crate) fn dma_page(&self, dir: DmaDirection, folio: &Folio) -> Result<DmaPage> {
        let dev = self.dev()?;

        // SAFETY: The device is valid; the migration that asks for the mapping ends it.
        unsafe { DmaPage::new(dev, dir, folio) }
    }

    /// Asks the driver for the frame numbers of the allocation's first pages, as many as there is
    /// room for in `pfns`. May sleep.
    pub fn populate_pfns(&self, pfns: &mut [Pfn]) -> Result {
        let op = self.ops().populate_devmem_pfn.ok_or(EOPNOTSUPP)?;

        // SAFETY: `Pfn` is a transparent `unsigned long`, and there are as many of them as is said.
        kernel::error::to_result(unsafe {
            op(self.as_raw(), pfns.len(), pfns.as_mut_ptr().cast()) //
        })
    }

    /// Collects the pages with these frames of the allocation's pagemap, wherever they are mapped.
    /// May sleep. [`EINVAL`]: they are not of the pagemap.
    #[inline(always)]
    pub(crate) fn collect<'a>(
        &'a self,
        frames: &Frames<'_>,
        arrays: Arrays<'a>,
    ) -> Result<Collected<'a>> {
        if !core::ptr::eq(frames.zone(), self.dpagemap().zone_device()) {
            return Err(EINVAL);
        }
        Collected::from_frames(frames, arrays)
    }

    /// Has the driver copy to device memory; waits for [the fence](Self::put_fence), if there is
    /// one. May sleep.
    pub(crate) fn copy_to_devmem(&self, pages: &mut Pages<'_>, addrs: &mut [DeviceAddr]) -> Result {
        self.op_copy_to_devmem(pages.as_raw(), addrs)
    }

    /// The same for one page: `folio`, from `addr`.
    #[inline(always)]
    pub(crate) fn copy_page_to_devmem(&self, folio: &Folio, addr: DeviceAddr) -> Result {
        self.op_copy_to_devmem(&mut [folio.page()], &mut [addr])
    }

    #[inline(always)]
    fn op_copy_to_devmem(
        &self,
        pages: &mut [*mut bindings::page],
        addrs: &mut [DeviceAddr],
    ) -> Result {
        let op = self.ops().copy_to_devmem.ok_or(EOPNOTSUPP)?;

        if pages.len() != addrs.len() {
            return Err(EINVAL);
        }
        // SAFETY: Both arrays have as many entries as is said; `DeviceAddr` has the layout of the C
        // type. The fence is the allocation's own.
        kernel::error::to_result(unsafe {
            op(
                pages.as_mut_ptr(),
                addrs.as_mut_ptr().cast(),
                addrs.len(),
                (*self.as_raw()).pre_migrate_fence,
            )
        })
    }

    /// Has the driver copy out of this device memory: to RAM, or to that of the allocation `peer`,
    /// whose [fence](Self::put_fence) is waited for. May sleep.
    pub(crate) fn copy_to_ram(
        &self,
        pages: &mut Pages<'_>,
        addrs: &mut [DeviceAddr],
        peer: Option<&DrmPagemapDevmem>,
    ) -> Result {
        self.op_copy_to_ram(pages.as_raw(), addrs, peer)
    }

    /// The same for one page: `folio`, to `addr` in RAM.
    #[inline(always)]
    pub(crate) fn copy_page_to_ram(&self, folio: &Folio, addr: DeviceAddr) -> Result {
        self.op_copy_to_ram(&mut [folio.page()], &mut [addr], None)
    }

    /// The same for one page: `folio`, to the address in `addrs`, which is in the memory of `peer`.
    #[inline(always)]
    pub(crate) fn copy_page_to_peer(
        &self,
        folio: &Folio,
        addrs: &mut [DeviceAddr],
        peer: &DrmPagemapDevmem,
    ) -> Result {
        self.op_copy_to_ram(&mut [folio.page()], addrs, Some(peer))
    }

    #[inline(always)]
    fn op_copy_to_ram(
        &self,
        pages: &mut [*mut bindings::page],
        addrs: &mut [DeviceAddr],
        peer: Option<&DrmPagemapDevmem>,
    ) -> Result {
        let op = self.ops().copy_to_ram.ok_or(EOPNOTSUPP)?;
        // SAFETY: The fence is that of an allocation which is being migrated to.
        let fence = peer.map_or(core::ptr::null_mut(), |peer| unsafe {
            (*peer.as_raw()).pre_migrate_fence
        });

        if pages.len() != addrs.len() {
            return Err(EINVAL);
        }
        // SAFETY: Both arrays have as many entries as is said; `DeviceAddr` has the layout of the C
        // type.
        kernel::error::to_result(unsafe {
            op(
                pages.as_mut_ptr(),
                addrs.as_mut_ptr().cast(),
                addrs.len(),
                fence,
            )
        })
    }

    /// Whether both have the same operations, so that one copy can serve both.
    pub fn has_ops_of(&self, other: &Self) -> bool {
        core::ptr::eq(self.ops(), other.ops())
    }

    /// Starts the time slice: for `slice` jiffies from now on, CPU faults leave the pages where they are.
    #[inline(always)]
    pub(crate) fn start_timeslice(&self, slice: Jiffies) {
        let end = match slice {
            0 => 0,
            _ => jiffies::now().saturating_add(slice as u64),
        };

        // SAFETY: A word that is read and written as a whole.
        unsafe { (&raw mut (*self.as_raw()).timeslice_expiration).write_volatile(end) };
    }

    /// Ends the time slice, if there is one: CPU faults bring pages home from now on.
    pub fn end_timeslice(&self) {
        // SAFETY: A word that is read and written as a whole.
        unsafe { (&raw mut (*self.as_raw()).timeslice_expiration).write_volatile(0) };
    }

    /// Whether the time slice is not over yet.
    #[inline(always)]
    pub(crate) fn in_timeslice(&self) -> bool {
        // SAFETY: A word that is read and written as a whole.
        let end = unsafe { (&raw const (*self.as_raw()).timeslice_expiration).read_volatile() };

        end != 0 && jiffies::now() < end
    }

    /// Waits until no page refers to the allocation any more, for `timeout` jiffies at most (0:
    /// just looks). Returns whether it is so. May sleep if `timeout` is not 0.
    pub fn wait_detached(&self, timeout: Jiffies) -> bool {
        // SAFETY: In bounds of the structure.
        let detached = unsafe { &raw mut (*self.as_raw()).detached };

        if timeout == 0 {
            // SAFETY: Initialized by `init`.
            unsafe { bindings::completion_done(detached) }
        } else {
            // SAFETY: As above.
            unsafe { bindings::wait_for_completion_timeout(detached, timeout) != 0 }
        }
    }
}

/// The reference on an allocation that a migration consumes, and pages then share.
///
/// Dropping it says that no page refers to the allocation: it completes `detached` and calls the
/// driver's release operation, after which the allocation may be gone. Any context but that of a
/// hard interrupt, in which `complete_all()` is not allowed.
///
/// # Invariants
///
/// The pointer is an initialized allocation, kept in memory at least until its release operation is
/// called.
pub struct DevmemRef(NonNull<bindings::drm_pagemap_devmem>);

// SAFETY: See `DrmPagemapDevmem`; release may be called from any task.
unsafe impl Send for DevmemRef {}
// SAFETY: As above.
unsafe impl Sync for DevmemRef {}

impl DevmemRef {
    /// Takes over the caller's reference.
    ///
    /// # Safety
    ///
    /// The caller must own such a reference, on an initialized allocation.
    pub unsafe fn from_raw(devmem: NonNull<bindings::drm_pagemap_devmem>) -> Self {
        // INVARIANT: Promised by the caller.
        Self(devmem)
    }

    /// Puts the fence that migration had to wait for, once it has.
    pub fn put_fence(&self) {
        // SAFETY: By the type invariant the structure is valid. Only the migration that consumes
        // the reference gets here, once.
        unsafe {
            let fence = (*self.0.as_ptr()).pre_migrate_fence;

            if !fence.is_null() {
                (*self.0.as_ptr()).pre_migrate_fence = core::ptr::null_mut();
                bindings::drm_pagemap_helper_dma_fence_put(fence);
            }
        }
    }
}

impl Deref for DevmemRef {
    type Target = DrmPagemapDevmem;

    fn deref(&self) -> &DrmPagemapDevmem {
        // SAFETY: By the type invariant.
        unsafe { DrmPagemapDevmem::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for DevmemRef {
    fn drop(&mut self) {
        let raw = self.0.as_ptr();
        let release = self.ops().devmem_release;

        // SAFETY: By the type invariant the structure is valid until released, which is last.
        unsafe {
            bindings::complete_all(&raw mut (*raw).detached);
            if let Some(release) = release {
                release(raw);
            }
        }
    }
}
