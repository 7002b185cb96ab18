// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A Rust driver's allocation of device memory.

use crate::{
    bindings,
    devmem_ops::{
        self,
        DevmemOps,
        OperationsVTable, //
    },
    dpagemap::DrmPagemap,
    dpagemap_devmem::{
        DevmemRef,
        DrmPagemapDevmem, //
    },
    migrate::{
        self,
        Details,
        Outcome,
        Want, //
    },
    mm::{
        LockedMm,
        Pfn, //
    },
    pagemap::Pagemap,
    queue, //
};
use core::{
    cell::UnsafeCell,
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ops::{
        Deref,
        Range, //
    },
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_MASK,
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        Arc,
        ArcBorrow,
        Refcount, //
    },
    types::Opaque, //
};

/// An allocation of device memory: `struct drm_pagemap_devmem` and the driver's data, to which it
/// dereferences.
///
/// It is counted. Pages that were migrated to it share one reference, until the last of them is
/// free and [`DevmemOps::release`] has run; the driver may have others, for finding what to
/// [evict](Self::evict_to_ram). The data is dropped with the last reference.
///
/// # Invariants
///
/// Instances live in a pinned `KBox` that belongs to the reference count.
#[pin_data]
#[repr(C)]
pub struct Devmem<T: DevmemOps> {
    #[pin]
    base: Opaque<bindings::drm_pagemap_devmem>,
    refs: Refcount,
    #[pin]
    release: Release,
    pagemap: Arc<Pagemap<T::Pagemap>>,
    #[pin]
    data: T,
}

// SAFETY: The C structure is, see `DrmPagemapDevmem`; the rest is.
unsafe impl<T: DevmemOps> Send for Devmem<T> {}
// SAFETY: As above. `release.active` is accessed once, by who releases.
unsafe impl<T: DevmemOps> Sync for Devmem<T> {}

// SAFETY: By the type invariant instances are counted, and freed when the count is 0.
unsafe impl<T: DevmemOps> AlwaysRefCounted for Devmem<T> {
    fn inc_ref(&self) {
        self.refs.inc();
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference, so the object is alive.
        if unsafe { obj.as_ref() }.refs.dec_and_test() {
            // SAFETY: By the type invariant it is in a box; that was the last reference.
            drop(unsafe { Pin::new_unchecked(KBox::from_raw(obj.as_ptr())) });
        }
    }
}

/// What it takes to run a driver's release callback from the queue.
#[pin_data]
#[repr(C)]
struct Release {
    #[pin]
    work: queue::Work,
    /// Runs the callback, and drops the reference that the pages had. Code of the driver's module.
    run: unsafe fn(NonNull<Release>),
    /// Keeps the pagemap in use, and with it the driver's module loaded, until `run` has returned.
    active: UnsafeCell<Option<ARef<DrmPagemap>>>,
}

/// Runs a release. This is code of this module, which the driver's module can't outlive; so the
/// driver's module may go as soon as `active` is dropped.
///
/// # Safety
///
/// `work` must be the first field of a [`Release`] of an allocation that was just given up by its
/// pages.
unsafe extern "C" fn run_release(work: *mut bindings::work_struct) {
    let release = work.cast::<Release>();

    // SAFETY: Promised by the caller; `run` gives up the reference that keeps the object alive, so
    // `release` is not used after it.
    unsafe {
        let active = (*(*release).active.get()).take();

        ((*release).run)(NonNull::new_unchecked(release));
        drop(active);
    }
}

impl Release {
    fn new(run: unsafe fn(NonNull<Release>), active: ARef<DrmPagemap>) -> impl PinInit<Self> {
        pin_init!(Self {
            work <- queue::Work::new(run_release),
            run,
            active: UnsafeCell::new(Some(active)),
        })
    }
}

impl<T: DevmemOps> Devmem<T> {
    /// The allocation whose C part is `devmem`.
    ///
    /// # Safety
    ///
    /// It must be part of a `Devmem<T>` that stays alive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(devmem: *mut bindings::drm_pagemap_devmem) -> &'a Self {
        // SAFETY: `base` is at offset 0; the rest is promised by the caller.
        unsafe { &*devmem.cast::<Self>() }
    }

    /// The pages have given up their reference: queues the release. Any context.
    ///
    /// # Safety
    ///
    /// `devmem` must be part of a `Devmem<T>`; this is called once for it.
    pub(crate) unsafe fn queue_release(devmem: *mut bindings::drm_pagemap_devmem) {
        // SAFETY: The pages' reference, which keeps it alive, is dropped by `run`.
        unsafe { Self::from_raw(devmem).release.work.enqueue() };
    }

    /// # Safety
    ///
    /// `release` must be part of a `Devmem<T>`, and the caller give up the reference that pages
    /// had.
    unsafe fn run(release: NonNull<Release>) {
        // SAFETY: Promised by the caller.
        let this = unsafe {
            let this = release.byte_sub(offset_of!(Self, release)).cast::<Self>();

            ARef::from_raw(this)
        };

        T::release(&this);
    }

    fn base(&self) -> &DrmPagemapDevmem {
        // SAFETY: Initialized by `NewDevmem::new`, and in memory as long as `self`.
        unsafe { DrmPagemapDevmem::from_raw(self.base.get()) }
    }

    /// The pagemap whose memory this is.
    pub fn pagemap(&self) -> ArcBorrow<'_, Pagemap<T::Pagemap>> {
        self.pagemap.as_arc_borrow()
    }

    /// The size in bytes.
    pub fn size(&self) -> usize {
        self.base().size()
    }

    /// Whether no page refers to the allocation (any more).
    pub fn is_detached(&self) -> bool {
        self.base().wait_detached(0)
    }

    /// Moves all pages to RAM, wherever they are mapped. Returns how many were moved, also if it
    /// failed in the end, and the outcome; see [`evict::to_ram`](migrate::evict::to_ram). May
    /// sleep.
    ///
    /// The device memory is free when [`DevmemOps::release`] has run;
    /// [`queue::flush`] waits for that.
    pub fn evict_to_ram(&self) -> (usize, Result) {
        let mut moved = 0;
        let ask = |first: usize, pfns: &mut [Pfn]| devmem_ops::ask(self, first, pfns);
        let result = migrate::evict::to_ram(self.base(), Some(&ask), &mut moved);

        (moved, result)
    }
}

impl<T: DevmemOps> Deref for Devmem<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

/// An allocation that no page refers to yet.
///
/// Migrating to it consumes it. So does dropping it, which releases it.
pub struct NewDevmem<T: DevmemOps>(ARef<Devmem<T>>);

impl<T: DevmemOps> NewDevmem<T> {
    /// Makes an allocation of `size` bytes of the driver's `data`. May sleep.
    ///
    /// [`EINVAL`]: the size is 0, or no multiple of the page size. [`ENOMEM`]; [`ENODEV`]: the
    /// driver's module is being unloaded; and what `data` says.
    pub fn new<E>(
        pagemap: ArcBorrow<'_, Pagemap<T::Pagemap>>,
        size: usize,
        data: impl PinInit<T, E>,
    ) -> Result<Self>
    where
        Error: From<E>,
    {
        if size == 0 || size & !PAGE_MASK != 0 {
            return Err(EINVAL);
        }

        let active = Pagemap::acquire(pagemap)?;
        let dpagemap = active.as_raw();
        let dev = pagemap.parent_ptr();
        let devmem = KBox::pin_init::<Error>(
            try_pin_init!(Devmem {
                base <- Opaque::ffi_init(|base| {
                    // SAFETY: Memory for the structure. The operations are static; the pagemap, and
                    // with it the device, is held until released. `mm` is never followed; it is
                    // told when the allocation is migrated to.
                    unsafe {
                        DrmPagemapDevmem::init(
                            base,
                            dev,
                            core::ptr::null_mut(),
                            OperationsVTable::<T>::build(),
                            dpagemap,
                            size,
                            core::ptr::null_mut(),
                        )
                    }
                }),
                refs: Refcount::new(1),
                release <- Release::new(Devmem::<T>::run, active),
                pagemap: pagemap.into(),
                data <- data,
            }? Error),
            GFP_KERNEL,
        )?;

        // SAFETY: Not moved: it goes on living behind the pointer, which is given up for the one
        // reference that the count starts with; boxes are not null.
        Ok(Self(unsafe {
            ARef::from_raw(NonNull::new_unchecked(KBox::into_raw(
                Pin::into_inner_unchecked(devmem),
            )))
        }))
    }

    /// Migrates `range` (in bytes) of `mm` to this allocation, all of it or nothing.
    ///
    /// On success, returns a reference for evicting it. On an error the allocation is released. May
    /// sleep; [`ENODEV`]: the device is gone; else see
    /// [`to_devmem`](migrate::to_devmem::to_devmem).
    pub fn migrate_to_devmem(
        self,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        details: &Details,
    ) -> Result<ARef<Devmem<T>>> {
        let (handle, _) = self.migrate(mm, range, details, Want::All)?;

        Ok(handle)
    }

    /// Migrates what is missing of `range` (in bytes) of `mm` in the device memory, as far as it
    /// can be moved, to the places that it has in this allocation, and says how far that was.
    ///
    /// Returns and errors as [`migrate_to_devmem`](Self::migrate_to_devmem), but that pages which
    /// stay where they are make no [`EBUSY`]. The allocation is released at once if nothing has
    /// moved.
    pub fn migrate_missing(
        self,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        details: &Details,
    ) -> Result<(ARef<Devmem<T>>, Outcome)> {
        self.migrate(mm, range, details, Want::Missing)
    }

    fn migrate(
        self,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        details: &Details,
        want: Want,
    ) -> Result<(ARef<Devmem<T>>, Outcome)> {
        let handle = self.0.clone();
        let pass = handle.pagemap.gate().enter()?;

        self.base().set_mm(mm);
        let ask = |first: usize, pfns: &mut [Pfn]| devmem_ops::ask(&*handle, first, pfns);
        let outcome =
            migrate::to_devmem::to_devmem(self.into_ref(), mm, range, details, want, Some(&ask))?;

        drop(pass);
        Ok((handle, outcome))
    }

    /// The reference that pages will share.
    fn into_ref(self) -> DevmemRef {
        let this = ManuallyDrop::new(self);

        // SAFETY: Our reference, which is given up: `this` is not used any more.
        unsafe { DevmemRef::from_raw(NonNull::new_unchecked(this.0.base.get())) }
    }
}

impl<T: DevmemOps> Deref for NewDevmem<T> {
    type Target = Devmem<T>;

    fn deref(&self) -> &Devmem<T> {
        &self.0
    }
}

impl<T: DevmemOps> Drop for NewDevmem<T> {
    fn drop(&mut self) {
        // SAFETY: A reference of its own, which the release gives up.
        drop(unsafe {
            DevmemRef::from_raw(NonNull::new_unchecked(
                ARef::into_raw(self.0.clone()).as_ptr().cast(),
            ))
        });
    }
}
