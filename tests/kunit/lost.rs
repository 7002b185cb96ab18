// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A device that is gone for good, with pages in its memory that processes have.

use crate::{
    ffi,
    gpu::{
        Gpu,
        Handle,
        A_WHILE, //
    },
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    peers::gpu_at,
    thread::Thread,
    user::{
        UserMemory,
        HUGE, //
    },
    vram::Layout, //
};
use drm_pagemap::{
    migrate::Details,
    mm::{
        Arrays,
        Collected,
        LockedMm,
        Select,
        VmaRange,
        ZoneDevice, //
    },
    queue, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::Relaxed,
    time::delay::fsleep, //
};

/// The device doesn't do anything any more.
fn die(gpu: &Gpu) {
    gpu.vram().copy_to_ram.fail_always(ENODEV);
    gpu.vram().copy_to_devmem.fail_always(ENODEV);
    gpu.vram().is_lost.store(true, Relaxed);
}

/// Touching any page of `memory` fails, as with a SIGBUS.
fn check_lost(memory: &UserMemory) -> Outcome {
    for page in 0..memory.nr_pages() {
        check_err!(memory.touch(page), EFAULT);
    }
    check_err!(memory.write(0, &[1]), EFAULT);
    Ok(())
}

/// Checks that all zone devices but `left` are gone, now that nothing is in them.
fn check_regions(left: usize) -> Outcome {
    check_eq!(nr_regions(), left);
    Ok(())
}

/// How many zone devices are registered, and not about to be unregistered.
fn nr_regions() -> usize {
    queue::flush();
    Gpu::nr_regions()
}

/// The driver can go at once, with all of its allocations; the zone device stays until the process has
/// let go of the last page. Meanwhile there can be a new device.
fn driver_goes(test: &mut Test) -> Outcome {
    let before = nr_regions();
    let mut gpu = Gpu::new()?;
    let a = UserMemory::filled(5, 1)?;
    let b = UserMemory::filled(700, 2)?;
    let in_ram = UserMemory::filled(4, 3)?;

    gpu.migrate_as(
        test.mm(),
        a.range(),
        Layout::Scattered,
        &Details::with_timeslice_ms(100_000),
    )?;
    gpu.migrate(test.mm(), b.range())?;
    die(&gpu);
    gpu.unregister();
    check_eq!(gpu.vram().live(), 0);
    check_eq!(gpu.vram().counts.released.load(Relaxed), 2);
    gpu.finish()?;
    check_eq!(Gpu::nr_regions(), before + 1);
    check_lost(&a)?;
    check_lost(&b)?;
    in_ram.verify(3)?;

    let new = Gpu::new()?;
    check_eq!(Gpu::nr_regions(), before + 2);
    new.migrate(test.mm(), in_ram.range())?;
    new.check_in_device(test.mm(), &in_ram)?;
    // It can't have what is lost.
    check_err!(new.migrate(test.mm(), a.range()), EBUSY);
    let (devmem, outcome) = new.alloc(a.nr_pages())?.migrate_missing(
        &LockedMm::read(test.mm()),
        a.range(),
        &Details::default(),
    )?;
    check_eq!(outcome.left, a.nr_pages());
    drop(devmem);
    in_ram.verify(3)?;
    new.finish()?;

    a.unmap()?;
    b.part(0..699).unmap()?;
    check_regions(before + 1)?;
    b.part(699..700).unmap()?;
    check_regions(before)?;
    a.map_again()?;
    a.verify_zero()
}

/// A large folio, unmapped in parts.
fn large_folio(test: &mut Test) -> Outcome {
    let before = nr_regions();
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::map_aligned(HUGE / PAGE_SIZE)?;

    memory.fill_huge(1)?;
    gpu.migrate(test.mm(), memory.range())?;
    check!(gpu.device_order(test.mm(), memory.addr(0))? > 0);
    die(&gpu);
    gpu.unregister();
    gpu.finish()?;
    check_lost(&memory)?;
    memory.part(0..100).unmap()?;
    check_lost(&memory.part(100..512))?;
    check_regions(before + 1)?;
    memory.part(100..512).unmap()?;
    check_regions(before)
}

/// A large folio that the core splits when it is lost: its parts count, each.
fn split_folio(test: &mut Test) -> Outcome {
    let before = nr_regions();
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::map_aligned(HUGE / PAGE_SIZE)?;

    memory.fill_huge(1)?;
    gpu.migrate(test.mm(), memory.range())?;
    let folio = gpu.device_pfn(test.mm(), memory.addr(0))?.page().cast();

    die(&gpu);
    gpu.unregister();
    gpu.finish()?;
    // As who has the zone device would, which nobody has any more.
    {
        // SAFETY: The folio is in use, as the process has it; so its zone device is registered.
        let zone = unsafe { ZoneDevice::from_raw(ffi::drm_pagemap_kunit_page_pgmap(folio).cast()) };
        let mm = LockedMm::read(test.mm());
        let vma = mm.vma_lookup(memory.addr(0)).ok_or(ENOENT)?;
        let range = VmaRange::new(vma, memory.range())?;
        let pages = Collected::from_vma(
            &range,
            zone.owner(),
            Select::DEVICE_PRIVATE,
            None,
            Arrays::new(memory.nr_pages())?,
        )?;

        check_eq!(pages.steps().count(), memory.nr_pages());
        check_eq!(pages.nr_collected(), memory.nr_pages());
    }
    check_lost(&memory)?;
    memory.part(1..512).unmap()?;
    check_regions(before + 1)?;
    memory.part(0..1).unmap()?;
    check_regions(before)
}

/// Somebody has a reference on a page, which keeps it, and no more than that.
fn referenced(test: &mut Test) -> Outcome {
    let before = nr_regions();
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::filled(5, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    let held = gpu.hold_page(test.mm(), memory.addr(2))?;

    die(&gpu);
    gpu.unregister();
    gpu.finish()?;
    check_lost(&memory)?;
    memory.unmap()?;
    check_regions(before + 1)?;
    drop(held);
    check_regions(before)
}

/// Who has a page's lock may be making use of its allocation, and is waited for.
fn waits_for_lock(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::filled(5, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    let locked = gpu.hold_page(test.mm(), memory.addr(2))?.lock();

    die(&gpu);
    gpu.unregister_waits_for(|_| {
        drop(locked);
        Ok(())
    })?;
    check_lost(&memory)?;
    gpu.finish()
}

/// Processes touch their memory all the time, and migrate it, until it is lost.
fn under_load(test: &mut Test) -> Outcome {
    let before = nr_regions();
    let mut gpu = Gpu::new()?;
    let worker = |handle: Handle, memory: UserMemory, seed| {
        move |mm: &kernel::mm::MmWithUser| {
            while handle.try_migrate(mm, memory.range())? {
                if memory.touch(0).is_err() {
                    break;
                }
                memory.fill(seed).or_else(|_| {
                    // Lost in the middle of it.
                    check_lost(&memory.part(31..32))
                })?;
            }
            Ok(())
        }
    };
    let (a, b) = (UserMemory::filled(32, 1)?, UserMemory::filled(32, 2)?);
    let threads = (
        Thread::start(worker(gpu.handle(), a, 1))?,
        Thread::start(worker(gpu.handle(), b, 2))?,
    );

    fsleep(A_WHILE);
    die(&gpu);
    gpu.unregister();
    threads.0.join()?;
    threads.1.join()?;
    // Not before: one that is refused was an allocation for a moment.
    queue::flush();
    check_eq!(gpu.vram().live(), 0);
    gpu.finish()?;
    test.end_mm();
    check_regions(before)
}

/// Another device, which could copy from there, can't any more, and works as before, also with a new
/// device at the same port.
fn peer_stays(test: &mut Test) -> Outcome {
    let (mut a, b) = (gpu_at(1)?, gpu_at(1)?);
    let (lost, moved) = (UserMemory::filled(8, 1)?, UserMemory::filled(8, 2)?);

    a.migrate(test.mm(), lost.range())?;
    a.migrate(test.mm(), moved.range())?;
    b.migrate(test.mm(), moved.range())?;
    die(&a);
    a.unregister();
    a.finish()?;
    check_err!(b.migrate(test.mm(), lost.range()), EBUSY);
    check_lost(&lost)?;
    b.check_in_device(test.mm(), &moved)?;

    let new = gpu_at(1)?;
    new.migrate(test.mm(), moved.range())?;
    new.check_in_device(test.mm(), &moved)?;
    moved.verify(2)?;
    test.end_mm();
    new.finish()?;
    b.finish()
}

suite!(
    drm_pagemap_lost,
    crate::harness::alone,
    [
        driver_goes,
        large_folio,
        split_folio,
        referenced,
        waits_for_lock,
        under_load,
        peer_stays,
    ]
);
