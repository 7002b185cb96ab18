// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! CPU faults on device-private pages.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    bindings,
    mm::Folio, //
};
use core::marker::PhantomData;
use kernel::{
    mm::virt::VmaRef,
    page::PAGE_MASK,
    time::Jiffies, //
};

/// A CPU fault on a device-private page, as the core hands it to the page's owner.
///
/// # Invariants
///
/// `vmf` is a fault that is being handled: its area is under the mmap or vma lock, its page is
/// device-private, referenced and locked.
pub struct Fault<'a> {
    vmf: *mut bindings::vm_fault,
    _p: PhantomData<&'a mut bindings::vm_fault>,
}

/// What a fault that was waited for ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The mmap lock has been let go: the core takes it again, and looks again.
    LockDropped,
    /// No waiting was possible here.
    NotAtAll,
}

impl Fault<'_> {
    /// Wraps the argument of `dev_pagemap_ops::migrate_to_ram`.
    ///
    /// # Safety
    ///
    /// `vmf` must be what the core passed to that callback, which must not return before the result
    /// is dropped.
    pub unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        // INVARIANT: That is how do_swap_page() and do_huge_pmd_device_private() call it.
        Self {
            vmf,
            _p: PhantomData,
        }
    }

    /// The area that the fault is in.
    pub fn vma(&self) -> &VmaRef {
        // SAFETY: By the type invariant the area is valid and locked.
        unsafe { VmaRef::from_raw((*self.vmf).__bindgen_anon_1.vma) }
    }

    /// The address of the page that is wanted, in bytes, a multiple of the page size.
    pub fn address(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { (*self.vmf).__bindgen_anon_1.address & PAGE_MASK }
    }

    /// The folio of the page that is wanted.
    pub fn folio(&self) -> &Folio {
        // SAFETY: By the type invariant the page is referenced.
        unsafe { Folio::of_page(self.page()) }
    }

    /// Whether the page that is wanted is the first one of its folio.
    pub fn is_first_page(&self) -> bool {
        core::ptr::eq(self.page(), self.folio().page())
    }

    pub(super) fn page(&self) -> *mut bindings::page {
        // SAFETY: By the type invariant.
        unsafe { (*self.vmf).page }
    }

    /// Whether the core comes back with it, after it was [waited for](Self::wait_while).
    pub fn was_tried(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { (*self.vmf).flags & bindings::fault_flag_FAULT_FLAG_TRIED != 0 }
    }

    /// Waits as long as `busy` says so, but no longer than `jiffies`, nor once the task is to be
    /// killed. It is asked every jiffy.
    ///
    /// Meanwhile the mmap lock and the page's lock are free for others; only where the fault is
    /// such that the mmap lock can't be let go, this does not wait.
    pub fn wait_while(self, jiffies: Jiffies, busy: impl Fn() -> bool) -> Waited {
        // SAFETY: By the type invariant.
        let flags = unsafe { (*self.vmf).flags };

        if flags & bindings::fault_flag_FAULT_FLAG_ALLOW_RETRY == 0
            || flags & bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT != 0
            // The core doesn't call us like that; letting go would be another function.
            || flags & bindings::fault_flag_FAULT_FLAG_VMA_LOCK != 0
        {
            return Waited::NotAtAll;
        }

        let folio = self.folio().as_raw();
        // SAFETY: By the type invariant both locks are held on behalf of the fault. The core
        // expects the mmap lock to be free after this, and takes nothing from the area any more.
        // The reference on the folio stays, and keeps it from being split or freed, until it is
        // locked again.
        unsafe {
            let mm = (*(*self.vmf).__bindgen_anon_1.vma).vm_mm;

            bindings::folio_unlock(folio);
            bindings::mmap_read_unlock(mm);
            for _ in 0..jiffies {
                if !busy() || bindings::drm_pagemap_helper_fatal_signal_pending() {
                    break;
                }
                bindings::schedule_timeout_killable(1);
            }
            bindings::drm_pagemap_helper_folio_lock(folio);
        }
        Waited::LockDropped
    }
}
