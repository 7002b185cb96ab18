// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! An address space under its mmap lock.
//!
//! C header: [`include/linux/mmap_lock.h`](srctree/include/linux/mmap_lock.h)

use crate::bindings;
use core::ops::Range;
use kernel::{
    mm::{
        virt::VmaRef,
        MmWithUser, //
    },
    prelude::*,
    types::NotThreadSafe, //
};

/// An address space whose mmap lock is held at least for reading.
///
/// Unlike [`MmapReadGuard`](kernel::mm::MmapReadGuard) it says which address space it is, and it
/// may stand for a lock that a C caller took.
///
/// # Invariants
///
/// The mmap lock of `mm` is held at least in read mode while the value exists. If `unlock` is set,
/// this value owns that lock.
pub struct LockedMm<'a> {
    mm: &'a MmWithUser,
    unlock: bool,
    _nts: NotThreadSafe,
}

impl<'a> LockedMm<'a> {
    /// Takes the mmap lock for reading. May sleep.
    pub fn read(mm: &'a MmWithUser) -> Self {
        // SAFETY: A reference to an `MmWithUser` is a valid `mm_struct`.
        unsafe { bindings::mmap_read_lock(mm.as_raw()) };

        // INVARIANT: Just locked.
        Self {
            mm,
            unlock: true,
            _nts: NotThreadSafe,
        }
    }

    /// Takes the mmap lock for reading, if it can be had at once.
    pub fn try_read(mm: &'a MmWithUser) -> Option<Self> {
        // SAFETY: A reference to an `MmWithUser` is a valid `mm_struct`.
        if !unsafe { bindings::drm_pagemap_helper_mmap_read_trylock(mm.as_raw()) } {
            return None;
        }

        // INVARIANT: Just locked.
        Some(Self {
            mm,
            unlock: true,
            _nts: NotThreadSafe,
        })
    }

    /// An address space that the caller has locked and will unlock.
    ///
    /// # Safety
    ///
    /// The current task must hold the mmap lock of `mm` at least in read mode, for as long as the
    /// returned value exists.
    pub unsafe fn borrowed(mm: &'a MmWithUser) -> Self {
        // SAFETY: A reference to an `MmWithUser` is a valid `mm_struct`.
        unsafe { bindings::drm_pagemap_helper_mmap_assert_locked(mm.as_raw()) };

        // INVARIANT: Promised by the caller.
        Self {
            mm,
            unlock: false,
            _nts: NotThreadSafe,
        }
    }

    /// The address space.
    #[inline]
    pub fn mm(&self) -> &'a MmWithUser {
        self.mm
    }

    /// The area that holds the address `addr` (in bytes).
    #[inline]
    pub fn vma_lookup(&self, addr: usize) -> Option<&VmaRef> {
        // SAFETY: By the type invariant the lock is held.
        let vma = unsafe { bindings::vma_lookup(self.mm.as_raw(), addr) };

        if vma.is_null() {
            None
        } else {
            // SAFETY: The area stays valid while the lock is held, which is as long as `self`.
            Some(unsafe { VmaRef::from_raw(vma) })
        }
    }

    /// The first area that ends after the address `addr` (in bytes), which it may hold or not.
    #[inline]
    pub fn vma_from(&self, addr: usize) -> Option<&VmaRef> {
        // SAFETY: By the type invariant the lock is held.
        let vma = unsafe { bindings::find_vma(self.mm.as_raw(), addr) };

        if vma.is_null() {
            None
        } else {
            // SAFETY: The area stays valid while the lock is held, which is as long as `self`.
            Some(unsafe { VmaRef::from_raw(vma) })
        }
    }

    /// The area that holds all of `range` (in bytes).
    ///
    /// [`ENOENT`]: nothing is mapped at its start. [`EINVAL`]: the range is empty, not a multiple
    /// of pages, or longer than the area.
    pub fn vma_covering(&self, range: &Range<usize>) -> Result<&VmaRef> {
        if range.is_empty() || (range.start | range.end) & !kernel::page::PAGE_MASK != 0 {
            return Err(EINVAL);
        }

        let vma = self.vma_lookup(range.start).ok_or(ENOENT)?;

        if range.end > vma.end() {
            return Err(EINVAL);
        }
        Ok(vma)
    }
}

impl Drop for LockedMm<'_> {
    fn drop(&mut self) {
        if self.unlock {
            // SAFETY: By the type invariant the lock is ours.
            unsafe { bindings::mmap_read_unlock(self.mm.as_raw()) };
        }
    }
}

/// The first address (in bytes) that is not the user's any more.
#[inline]
pub fn user_end(mm: &MmWithUser) -> usize {
    // SAFETY: A reference to an `MmWithUser` is a valid `mm_struct`; the field is constant once a
    // program runs in it.
    unsafe { (*mm.as_raw()).__bindgen_anon_1.task_size }
}

/// Whether the area holds private anonymous memory; `vma_is_anonymous()`.
#[inline]
pub(crate) fn vma_is_anonymous(vma: &VmaRef) -> bool {
    // SAFETY: A `VmaRef` is a valid area under its lock.
    unsafe { bindings::drm_pagemap_helper_vma_is_anonymous(vma.as_ptr()) }
}

/// Whether the area is a private mapping of a file, and its pages are of the page cache, or copies of
/// those.
#[inline]
pub(crate) fn vma_is_private_file(vma: &VmaRef) -> bool {
    // SAFETY: A `VmaRef` is a valid area under its lock.
    unsafe { bindings::drm_pagemap_helper_vma_is_private_file(vma.as_ptr()) }
}
