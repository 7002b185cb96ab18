// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Zone device data: who refers to an allocation, and what happens when nobody does any more.

use crate::{
    ffi,
    gpu::Gpu,
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    user::UserMemory, //
};
use core::ptr::NonNull;
use drm_pagemap::{
    dpagemap::DrmPagemap,
    dpagemap_devmem::DevmemRef,
    mm::{
        Folio,
        Frames,
        LockedFolio,
        Pfn,
        RamPolicy, //
    },
    queue,
    zdd::Zdd,
    Pagemap, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::Relaxed, //
    },
};

/// A C driver's allocation of 16 pages, which counts its releases.
struct CDevmem {
    raw: *mut ffi::CDevmem,
    dpagemap: Option<ARef<DrmPagemap>>,
}

impl CDevmem {
    fn new(gpu: &Gpu) -> Result<Self> {
        let dpagemap = Pagemap::acquire(gpu.pagemap())?;
        // SAFETY: The device and the pagemap outlive the allocation.
        let raw = unsafe {
            ffi::drm_pagemap_kunit_devmem_new(gpu.dev(), dpagemap.as_raw().cast(), 16 << PAGE_SHIFT)
        };

        if raw.is_null() {
            return Err(ENOMEM);
        }
        Ok(Self {
            raw,
            dpagemap: Some(dpagemap),
        })
    }

    /// The one reference that there is at first.
    fn reference(&self) -> DevmemRef {
        // SAFETY: Initialized; the tests take the reference once.
        unsafe {
            DevmemRef::from_raw(
                NonNull::new_unchecked(ffi::drm_pagemap_kunit_devmem_base(self.raw)).cast(),
            )
        }
    }

    /// How often it was released; -1: before it was detached.
    fn released(&self) -> i32 {
        // SAFETY: In memory.
        unsafe { ffi::drm_pagemap_kunit_devmem_released(self.raw) }
    }

    fn is_detached(&self) -> bool {
        // SAFETY: In memory.
        unsafe { ffi::drm_pagemap_kunit_devmem_detached(self.raw) }
    }
}

impl Drop for CDevmem {
    fn drop(&mut self) {
        // Whoever failed the test may have left references: then it is leaked.
        if self.released() != 0 {
            // SAFETY: Nobody refers to it.
            unsafe { ffi::drm_pagemap_kunit_devmem_free(self.raw) };
        }
    }
}

/// Takes the `1 << order` frames from `pfn` on into use as a folio.
fn attach(zdd: &ARef<Zdd>, pfn: Pfn, order: u32) -> Result<LockedFolio> {
    let mut pfns = KVec::new();

    for i in 0..1 << order {
        pfns.push(frame(pfn, i), GFP_KERNEL)?;
    }
    let frames = Frames::new(&pfns, zdd.dpagemap().zone_device());

    let mut attach = Zdd::attach(zdd, frames, 1)?;

    attach.folio(0, order)
}

/// The device's first frames, free.
fn free_frames(test: &Test, gpu: &Gpu) -> Outcome<Pfn> {
    let memory = UserMemory::map(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let pfn = gpu.device_pfn(test.mm(), memory.addr(0))?;

    devmem.evict_to_ram().1?;
    Ok(Pfn::new(pfn.as_usize() - devmem.pages()[0]))
}

fn frame(start: Pfn, i: usize) -> Pfn {
    Pfn::new(start.as_usize() + i)
}

fn refs(folio: &Folio) -> i32 {
    // SAFETY: A live folio.
    unsafe { ffi::drm_pagemap_kunit_folio_ref_count(folio.as_raw()) }
}

fn is_locked(folio: &Folio) -> bool {
    // SAFETY: A live folio.
    unsafe { ffi::drm_pagemap_kunit_folio_test_locked(folio.as_raw()) }
}

/// The last put, and only that, completes `detached` and then releases, once.
fn last_put_releases(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let devmem = CDevmem::new(gpu)?;
    let zdd = Zdd::new(devmem.reference())?;
    let mut more = KVec::new();

    for _ in 0..100 {
        more.push(zdd.clone(), GFP_KERNEL)?;
    }
    drop(zdd);
    while let Some(zdd) = more.pop() {
        check_eq!(devmem.released(), 0);
        check!(!devmem.is_detached());
        check!(core::ptr::eq(
            zdd.devmem().as_raw().cast_const().cast::<ffi::CDevmem>(),
            devmem.raw
        ));
    }
    check_eq!(devmem.released(), 1);
    check!(devmem.is_detached());
    Ok(())
}

/// The data keeps the pagemap in use until it has released the allocation.
fn keeps_pagemap(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let mut devmem = CDevmem::new(gpu)?;
    let zdd = Zdd::new(devmem.reference())?;

    devmem.dpagemap = None;
    check!(gpu.pagemap().is_active());
    check_eq!(zdd.devmem().size(), 16 << PAGE_SHIFT);
    check_eq!(zdd.devmem().nr_pages(), 16);
    drop(zdd);
    check!(!gpu.pagemap().is_active());
    check_eq!(devmem.released(), 1);
    Ok(())
}

/// An allocation that no data was made for is released all the same.
fn unused_reference(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let devmem = CDevmem::new(gpu)?;

    drop(devmem.reference());
    check_eq!(devmem.released(), 1);
    check!(devmem.is_detached());
    Ok(())
}

/// Dropping a locked folio gives up its lock and one reference, as others see that have references.
fn unlock_and_put(test: &mut Test, gpu: &Gpu) -> Outcome {
    let start = free_frames(test, gpu)?;
    let devmem = CDevmem::new(gpu)?;
    let zdd = Zdd::new(devmem.reference())?;
    let device = attach(&zdd, start, 0)?;

    drop(zdd);
    for folio in [device, LockedFolio::new_ram(RamPolicy::Any, 0)?] {
        let raw = folio.as_raw();

        check!(is_locked(&folio));
        check_eq!(refs(&folio), 1);
        // SAFETY: The page is in use; the reference is put below.
        let other = unsafe {
            ffi::drm_pagemap_kunit_get_page(raw.cast());
            Folio::from_raw(raw)
        };

        check_eq!(refs(other), 2);
        drop(folio);
        let (locked, left) = (is_locked(other), refs(other));
        // SAFETY: The reference is ours; `other` is not used any more.
        unsafe { ffi::drm_pagemap_kunit_put_page(raw.cast()) };
        check!(!locked);
        check_eq!(left, 1);
    }
    check_eq!(devmem.released(), 1);
    Ok(())
}

/// Each page that is taken into use has one reference, which it gives up when it is free.
fn pages_share_it(test: &mut Test, gpu: &Gpu) -> Outcome {
    let start = free_frames(test, gpu)?;
    let devmem = CDevmem::new(gpu)?;
    let zdd = Zdd::new(devmem.reference())?;
    let mut folios: KVec<LockedFolio> = KVec::new();

    for i in 0..16 {
        let folio = attach(&zdd, frame(start, i), 0)?;

        check!(is_locked(&folio));
        check_eq!(refs(&folio), 1);
        check_eq!(folio.pfn(), frame(start, i));
        check!(folio.is_device_private());
        check!(Zdd::of_folio(&folio).is_some_and(|of| of.is(&zdd)));
        check!(!Zdd::is_retired(&folio));
        folios.push(folio, GFP_KERNEL)?;
    }
    drop(zdd);
    while let Some(folio) = folios.pop() {
        check_eq!(devmem.released(), 0);
        check!(Zdd::of_folio(&folio).is_some());
    }
    check_eq!(devmem.released(), 1);
    Ok(())
}

/// When a device folio is split, its new part gets a reference of its own, and the mark of the old
/// one.
fn split_shares_it(test: &mut Test, gpu: &Gpu) -> Outcome {
    let start = free_frames(test, gpu)?;

    for retired in [false, true] {
        let (from, with) = (CDevmem::new(gpu)?, CDevmem::new(gpu)?);
        let zdd = Zdd::new(from.reference())?;
        let old = attach(&zdd, start, 0)?;
        // Stands for the new part, so it must look new: nothing of `with` may be left in it.
        let other = Zdd::new(with.reference())?;
        let new = attach(&other, frame(start, 1), 0)?;

        if retired {
            Zdd::retire(&old);
        }
        // SAFETY: Locked device folios, of which `old` has data.
        unsafe { ffi::drm_pagemap_kunit_device_folio_split(old.as_raw(), new.as_raw()) };
        check!(Zdd::of_folio(&new).is_some_and(|of| of.is(&zdd)));
        check!(Zdd::of_folio(&old).is_some_and(|of| of.is(&zdd)));
        check_eq!(Zdd::is_retired(&new), retired);
        check_eq!(new.pgmap(), old.pgmap());
        // SAFETY: The reference that `new` had before, which nobody else will put.
        drop(unsafe { ARef::from_raw(NonNull::from(&*other)) });
        drop(other);
        check_eq!(with.released(), 1);

        drop(zdd);
        drop(old);
        let early = from.released();

        if early != 0 {
            // The data is gone, so the page must not put its reference.
            // SAFETY: A device folio of this layer, which nobody else knows of.
            unsafe { new.set_zone_device_data(core::ptr::null_mut()) };
        }
        drop(new);
        check_eq!(early, 0);
        check_eq!(from.released(), 1);
    }
    Ok(())
}

/// Frames that are free again can be taken again, by another allocation.
fn frames_are_reused(test: &mut Test, gpu: &Gpu) -> Outcome {
    let start = free_frames(test, gpu)?;

    for _ in 0..3 {
        let devmem = CDevmem::new(gpu)?;
        let zdd = Zdd::new(devmem.reference())?;
        let folio = attach(&zdd, start, 0)?;

        Zdd::retire(&folio);
        drop(folio);
        check_eq!(devmem.released(), 0);
        drop(zdd);
        check_eq!(devmem.released(), 1);
    }
    Ok(())
}

/// Frames that can't be taken are refused, and no reference is left behind.
fn attach_errors(test: &mut Test, gpu: &Gpu) -> Outcome {
    let start = free_frames(test, gpu)?;
    let devmem = CDevmem::new(gpu)?;
    let zdd = Zdd::new(devmem.reference())?;
    let folio = attach(&zdd, frame(start, 3), 0)?;

    // In use.
    check_err!(attach(&zdd, frame(start, 3), 0), EBUSY);
    check_eq!(refs(&folio), 1);
    check!(Zdd::of_folio(&folio).is_some_and(|of| of.is(&zdd)));
    // A part of it in use.
    check_err!(attach(&zdd, start, 2), EBUSY);
    // Not aligned to its size.
    check_err!(attach(&zdd, frame(start, 1), 1), EINVAL);
    // Not of this device.
    check_err!(attach(&zdd, Pfn::new(start.as_usize() - 1), 0), EINVAL);
    check_err!(attach(&zdd, Pfn::new(0), 0), EINVAL);
    check_err!(attach(&zdd, Pfn::new(usize::MAX), 0), EINVAL);

    drop(folio);
    check_eq!(devmem.released(), 0);
    drop(zdd);
    check_eq!(devmem.released(), 1);
    Ok(())
}

/// The mark on pages whose contents are gone: on that page alone, and it does not hide the data.
fn retired_mark(test: &mut Test, gpu: &Gpu) -> Outcome {
    let start = free_frames(test, gpu)?;
    let devmem = CDevmem::new(gpu)?;
    let zdd = Zdd::new(devmem.reference())?;
    let (a, b) = (attach(&zdd, start, 0)?, attach(&zdd, frame(start, 1), 0)?);

    Zdd::retire(&a);
    check!(Zdd::is_retired(&a));
    check!(!Zdd::is_retired(&b));
    check!(Zdd::of_folio(&a).is_some_and(|of| of.is(&zdd)));
    // Twice is once.
    Zdd::retire(&a);
    check!(Zdd::is_retired(&a));
    check!(Zdd::of_folio(&a).is_some_and(|of| of.is(&zdd)));

    drop((a, b));
    drop(zdd);
    check_eq!(devmem.released(), 1);

    // Whoever has the frame next is not marked.
    let devmem = CDevmem::new(gpu)?;
    let zdd = Zdd::new(devmem.reference())?;
    let a = attach(&zdd, start, 0)?;

    check!(!Zdd::is_retired(&a));
    Ok(())
}

/// A migration home marks the page that it leaves, which a passing reference may keep.
fn migration_retires(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(2, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    for page in 0..2 {
        check!(!gpu.hold_page(test.mm(), memory.addr(page))?.is_retired());
    }
    let stale = gpu.hold_stale_page(test.mm(), memory.addr(0), || {
        // The reference keeps the allocation.
        check_err!(devmem.evict_to_ram().1, EBUSY);
        Ok(())
    })?;

    check!(stale.is_retired());
    drop(stale);
    check!(devmem.is_detached());
    memory.verify(1)
}

/// RAM is not this layer's.
fn ram_is_left_alone(_test: &mut Test) -> Outcome {
    // SAFETY: No requirements.
    let page = unsafe { ffi::drm_pagemap_kunit_alloc_pages(0) };

    check!(!page.is_null());
    // SAFETY: A page that is ours.
    let folio = unsafe { Folio::of_page(page) };
    let before = folio.zone_device_data();
    let found = Zdd::of_folio(folio).is_some();

    Zdd::retire(folio);
    let (retired, after) = (Zdd::is_retired(folio), folio.zone_device_data());
    // SAFETY: Ours.
    unsafe { ffi::drm_pagemap_kunit_free_pages(page, 0) };

    check!(!found);
    check!(!retired);
    check_eq!(before, after);
    Ok(())
}

/// `ram_is_left_alone`, with a device around.
fn ram_is_not_ours(test: &mut Test, _gpu: &Gpu) -> Outcome {
    ram_is_left_alone(test)
}

/// Puts the last reference of an allocation by `put`, and checks the release.
fn last_put_by(
    test: &Test,
    gpu: &Gpu,
    put: unsafe extern "C" fn(*mut kernel::bindings::page),
) -> Outcome {
    let memory = UserMemory::filled(1, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let held = gpu.hold_page(test.mm(), memory.addr(0))?;

    memory.unmap()?;
    queue::flush();
    check_eq!(gpu.vram().counts.released.load(Relaxed), 0);
    check!(!devmem.is_detached());

    held.put_by(put);
    check!(devmem.is_detached());
    queue::flush();
    check_eq!(gpu.vram().counts.released.load(Relaxed), 1);
    check_eq!(gpu.vram().counts.released_atomically.load(Relaxed), 0);
    // The data is there until the last handle is gone.
    check_eq!(gpu.vram().live(), 1);
    drop(devmem);
    check_eq!(gpu.vram().live(), 0);
    Ok(())
}

/// The last put is in process context.
fn last_put_in_task(test: &mut Test, gpu: &Gpu) -> Outcome {
    last_put_by(test, gpu, ffi::drm_pagemap_kunit_put_page)
}

/// The last put is where interrupts are off: the driver's release may sleep all the same.
fn last_put_with_irqs_off(test: &mut Test, gpu: &Gpu) -> Outcome {
    last_put_by(test, gpu, ffi::drm_pagemap_kunit_put_page_irqs_off)
}

/// The last put is in an interrupt.
fn last_put_in_timer(test: &mut Test, gpu: &Gpu) -> Outcome {
    last_put_by(test, gpu, ffi::drm_pagemap_kunit_put_page_in_timer)
}

/// Unmapping pages one by one releases the allocation with the last one.
fn unmapping_piecemeal(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    for page in [3, 0, 7, 1, 6, 2, 5] {
        memory.part(page..page + 1).unmap()?;
        check!(!devmem.is_detached());
    }
    memory.part(4..5).verify(1)?;
    check!(devmem.is_detached());
    check_eq!(gpu.vram().counts.copied_out.load(Relaxed), PAGE_SIZE as u64);
    Ok(())
}

suite!(
    drm_pagemap_zdd,
    crate::harness::with_gpu,
    [
        last_put_releases,
        keeps_pagemap,
        unused_reference,
        unlock_and_put,
        pages_share_it,
        split_shares_it,
        frames_are_reused,
        attach_errors,
        retired_mark,
        migration_retires,
        ram_is_not_ours,
        last_put_in_task,
        last_put_with_irqs_off,
        last_put_in_timer,
        unmapping_piecemeal,
    ]
);
