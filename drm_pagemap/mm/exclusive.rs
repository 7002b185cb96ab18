// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A page of RAM for a device alone, for its atomic operations.
//!
//! C header: [`include/linux/rmap.h`](srctree/include/linux/rmap.h)

use crate::{
    bindings,
    mm::{
        Access,
        Interval,
        IntervalOps,
        LockedFolio,
        LockedMm,
        Pages,
        Pfn, //
    },
};
use core::ptr::NonNull;
use kernel::{
    mm::MmWithUser,
    page::{
        BorrowedPage,
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// A page that no CPU can reach through the process's page tables. Who tries waits until this is
/// dropped, and takes the page back then, of which the interval is told first.
///
/// # Invariants
///
/// `pfn` is a page of `folio`.
pub struct ExclusivePage {
    // Locked: whoever wants the page back needs the lock.
    folio: LockedFolio,
    pfn: Pfn,
}

impl ExclusivePage {
    /// Its frame.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// The folio that it is of.
    pub fn folio(&self) -> &LockedFolio {
        &self.folio
    }

    /// Reads it from byte `offset` on. [`EINVAL`]: that is out of the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result {
        // SAFETY: In bounds of `out`. Other writers are processes and devices.
        unsafe { self.ram()?.read_raw(out.as_mut_ptr(), offset, out.len()) }
    }

    /// Writes to it from byte `offset` on, as a device does. [`EINVAL`]: that is out of the page.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result {
        // SAFETY: In bounds of `bytes`. Others that access it are processes and devices.
        unsafe { self.ram()?.write_raw(bytes.as_ptr(), offset, bytes.len()) }
    }

    fn ram(&self) -> Result<BorrowedPage<'_>> {
        let page = NonNull::new(self.pfn.page()).ok_or(EINVAL)?;

        // SAFETY: By the type invariant there is a reference on its folio.
        Ok(unsafe { BorrowedPage::from_raw(page) })
    }
}

impl<T: IntervalOps> Interval<T> {
    /// Takes the page at `addr` (in bytes) from the CPU, and calls `f` with it and the lock held,
    /// for the device to be given access.
    ///
    /// The page comes to RAM, if it is not there, and becomes one that the process may write to.
    /// The device may use it until the interval is [told](IntervalOps::invalidate) otherwise, which
    /// happens as soon as a CPU wants it. Takes the mmap lock, which must not be held, for reading;
    /// may sleep.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`]: the address is not in the interval;
    /// - [`EOPNOTSUPP`]: it is no anonymous memory, or a page of hugetlbfs;
    /// - [`EFAULT`]: the address space is dead, or nothing is mapped there;
    /// - [`EPERM`]: the process may not write there;
    /// - [`EBUSY`]: it changes all the time;
    /// - [`EINTR`]: the task is being killed;
    /// - what the page fault and `f` say.
    pub fn exclusive<R>(
        &self,
        addr: usize,
        f: impl FnOnce(&mut T::State, &ExclusivePage) -> Result<R>,
    ) -> Result<R> {
        const TRIES: usize = 100;

        let addr = addr & PAGE_MASK;
        let range = self.range();
        if addr < range.start || addr + PAGE_SIZE > range.end {
            return Err(EINVAL);
        }
        let mm = self.mm().mmget_not_zero().ok_or(EFAULT)?;
        let mut pages = Pages::new(self, addr..addr + PAGE_SIZE, Access::Write)?;
        let mut f = Some(f);

        for _ in 0..TRIES {
            // To take a page from the CPU that some device has for itself already, be it this one
            // that came too late the last time, is a change. So that is undone first.
            pages.fault()?;
            let page = make_exclusive(&mm, addr, self.exclusive_owner())?;
            let committed = pages.commit(|state, _| f.take().map(|f| f(state, &page)));

            if let Some(result) = committed.flatten() {
                return result;
            }
        }
        Err(EBUSY)
    }
}

/// `make_device_exclusive()`. Not inlined: it is the same for all drivers.
#[inline(never)]
fn make_exclusive(mm: &MmWithUser, addr: usize, owner: *mut c_void) -> Result<ExclusivePage> {
    let mut folio = core::ptr::null_mut();
    let locked = LockedMm::read(mm);
    // SAFETY: The mmap lock is held. The owner is only ever compared.
    let page = kernel::error::from_err_ptr(unsafe {
        bindings::make_device_exclusive(mm.as_raw(), addr, owner, &mut folio)
    })?;

    drop(locked);
    // INVARIANT: The page that was found, of this folio.
    Ok(ExclusivePage {
        // SAFETY: The core has locked it and taken a reference, for us to give up; it is not null.
        folio: unsafe { LockedFolio::from_raw(NonNull::new_unchecked(folio)) },
        pfn: Pfn::from_page(page),
    })
}
