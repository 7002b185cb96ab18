// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! From an anonymous folio to the address spaces that map it.
//!
//! C header: [`include/linux/rmap.h`](srctree/include/linux/rmap.h)
//!
//! The core has walks of its own for this, which modules can't call. This one asks for less: a
//! place where the folio may be mapped, to be checked under the mmap lock.

use crate::{
    bindings,
    mm::LockedFolio, //
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    mm::{
        Mm,
        MmWithUser,
        MmWithUserAsync, //
    },
    page::PAGE_SHIFT,
    sync::{
        aref::ARef,
        rcu, //
    },
};

/// An anonymous folio's `struct anon_vma`, locked for reading.
///
/// # Invariants
///
/// The lock of `root`, which guards `this`, is held. If the folio was mapped after it was taken,
/// `this` is valid for as long as the lock is held.
struct AnonVma {
    this: NonNull<bindings::anon_vma>,
    root: NonNull<bindings::anon_vma>,
}

impl AnonVma {
    /// [`None`] if the folio is not mapped, not plain anonymous memory, or the lock is not free.
    fn try_lock(folio: &LockedFolio) -> Option<Self> {
        // SAFETY: A live folio; its lock keeps the word as it is.
        let mapping = unsafe { fields(folio).mapping } as usize;
        if mapping & bindings::FOLIO_FLAGS_MASK != bindings::FOLIO_ANON_FLAG {
            return None;
        }
        let this = NonNull::new(core::ptr::with_exposed_provenance_mut(
            mapping - bindings::FOLIO_ANON_FLAG,
        ))?;

        // The memory of a structure that goes away is not used for anything else before this ends.
        let _rcu = rcu::read_lock();
        if !folio.is_mapped() {
            return None;
        }
        // SAFETY: It belonged to a mapped folio under RCU.
        let root = unsafe { bindings::drm_pagemap_helper_anon_vma_trylock_read(this.as_ptr()) };
        // INVARIANT: Just locked.
        let this = Self {
            this,
            root: NonNull::new(root)?,
        };

        folio.is_mapped().then_some(this)
    }

    /// The areas that are chained to the structure.
    fn areas(&self) -> impl Iterator<Item = &bindings::vm_area_struct> {
        // SAFETY: By the type invariant it is valid, and the tree locked: `try_lock` returned it.
        let mut node = unsafe { (*self.this.as_ptr()).rb_root.rb_leftmost };

        core::iter::from_fn(move || {
            let at = NonNull::new(node)?;
            // SAFETY: A node of the tree, which does not change; each is part of a chain.
            unsafe {
                node = bindings::rb_next(at.as_ptr());
                let chain = at
                    .byte_sub(offset_of!(bindings::anon_vma_chain, rb))
                    .cast::<bindings::anon_vma_chain>();

                // An area stays in memory as long as it is chained to the structure.
                Some(&*(*chain.as_ptr()).vma)
            }
        })
    }
}

impl Drop for AnonVma {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is ours.
        unsafe { bindings::drm_pagemap_helper_anon_vma_unlock_read(self.root.as_ptr()) };
    }
}

/// The fields of a folio that is not a zone device's alone: its place in an anonymous area.
///
/// # Safety
///
/// The folio must not be freed for as long as the result is used.
unsafe fn fields(folio: &LockedFolio) -> &FolioFields {
    // SAFETY: A live folio.
    unsafe { &(*folio.as_raw()).__bindgen_anon_1.__bindgen_anon_1 }
}

type FolioFields = bindings::folio__bindgen_ty_1__bindgen_ty_1;

/// The `nth` place where a part of `folio` may be mapped: an address space with users, and the
/// address (in bytes) there of the first page of that part.
///
/// A hint: the address space may have another page there by now, or never have mapped this one.
/// [`None`]: there are no more, or the core is changing them just now. Does not sleep.
pub(super) fn maybe_mapped_at(
    folio: &LockedFolio,
    nth: usize,
) -> Option<(ARef<MmWithUserAsync>, usize)> {
    // SAFETY: A live folio; its lock keeps the word as it is.
    let index = unsafe { fields(folio).__bindgen_anon_2.index };
    let anon_vma = AnonVma::try_lock(folio)?;
    let mut places = anon_vma.areas().filter_map(|area| {
        // SAFETY: An area's bounds change only under the lock that is held for reading here.
        let (start, end) = unsafe {
            let bounds = &area.__bindgen_anon_1.__bindgen_anon_1;
            (bounds.vm_start, bounds.vm_end)
        };
        let first = index.max(area.vm_pgoff);
        let at = start + ((first - area.vm_pgoff) << PAGE_SHIFT);

        if first >= index + folio.nr_pages() || at >= end {
            return None;
        }
        // SAFETY: An address space is in memory as long as it has areas.
        let mm = unsafe { Mm::from_raw(area.vm_mm) }.mmget_not_zero()?;
        Some((MmWithUser::into_mmput_async(mm), at))
    });

    places.nth(nth)
}
