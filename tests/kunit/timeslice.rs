// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! For a time after a migration, CPU faults leave the pages in device memory.

use crate::{
    ffi,
    gpu::{
        Gpu,
        VRAM_PAGES, //
    },
    harness::{
        check,
        check_eq,
        suite,
        Outcome,
        Test, //
    },
    thread::Thread,
    user::UserMemory,
    vram::Layout, //
};
use drm_pagemap::{
    migrate::Details,
    Pagemap,
    Policy,
    SliceWait, //
};
use kernel::{
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Jiffies, //
    },
};

/// Four pages with the pattern of `seed`, the first one at a multiple of their size, so that one
/// fault brings all of them home.
fn aligned(seed: u64) -> Outcome<UserMemory> {
    let memory = UserMemory::map_aligned(4)?;

    memory.fill(seed)?;
    Ok(memory)
}

fn now() -> u64 {
    // SAFETY: No requirements.
    unsafe { ffi::drm_pagemap_kunit_jiffies() }
}

/// A CPU that touches a page waits for the end of the slice, and not for much longer.
fn cpu_waits(test: &mut Test, gpu: &Gpu) -> Outcome {
    for ms in [1, 20, 100] {
        let memory = aligned(1)?;
        let details = Details::with_timeslice_ms(ms);
        let slice = msecs_to_jiffies(ms as u32);
        let before = now();

        check_eq!(details.timeslice, slice);
        gpu.migrate_as(test.mm(), memory.range(), Layout::Contiguous, &details)?;
        memory.touch(1)?;
        check!(now() >= before + slice as u64);
        // The machine may be slow, but not that slow.
        check!(now() < before + slice as u64 + msecs_to_jiffies(10_000) as u64);
        gpu.check_in_ram(test.mm(), &memory)?;
        memory.verify(1)?;
    }
    Ok(())
}

/// Until then the pages stay, although a CPU wants them.
fn pages_stay(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let started = Atomic::new(false);
    let done = Atomic::new(false);
    let before = now();

    gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::Contiguous,
        &Details::with_timeslice_ms(300),
    )?;
    let thread = Thread::start(|_| {
        started.store(true, Relaxed);
        memory.touch(1)?;
        done.store(true, Relaxed);
        Ok(())
    })?;
    for _ in 0..5 {
        fsleep(Delta::from_millis(10));
        let place = gpu.check_in_device(test.mm(), &memory);

        // A slow machine may get here too late to tell.
        if now() >= before + msecs_to_jiffies(290) as u64 {
            break;
        }
        if started.load(Relaxed) {
            check!(!done.load(Relaxed));
            place?;
        }
    }
    thread.join()?;
    check!(now() >= before + msecs_to_jiffies(300) as u64);
    check_eq!(gpu.vram().copy_to_ram.calls(), 1);
    memory.verify(1)
}

/// Without a slice nothing waits.
fn no_slice(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;

    for details in [Details::default(), Details::with_timeslice_ms(0)] {
        check_eq!(details.timeslice, 0);
        gpu.migrate_as(test.mm(), memory.range(), Layout::Contiguous, &details)?;
        // One fault, which copies.
        memory.touch(0)?;
        memory.verify(1)?;
    }
    check_eq!(gpu.vram().copy_to_ram.calls(), 2);
    Ok(())
}

/// Slices that are longer than anybody lives don't wrap around.
fn endless(test: &mut Test, gpu: &Gpu) -> Outcome {
    let long = |ms| Details::with_timeslice_ms(ms);
    let over = usize::MAX;

    // 2^32 ms, and a little more, are not a little.
    check!(long(1 << 32).timeslice >= msecs_to_jiffies(u32::MAX));
    check!(long((1 << 32) + 1).timeslice >= msecs_to_jiffies(u32::MAX));
    check!(long(over).timeslice >= msecs_to_jiffies(u32::MAX));

    for details in [
        long(1 << 32),
        long((1 << 32) + 5),
        long(over),
        Details {
            timeslice: Jiffies::MAX,
            ..Details::default()
        },
        Details {
            timeslice: Jiffies::MAX / 2 + 1,
            ..Details::default()
        },
    ] {
        let memory = aligned(1)?;
        let devmem = gpu.migrate_as(test.mm(), memory.range(), Layout::Contiguous, &details)?;
        let returned = Atomic::new(false);
        let thread = Thread::start(|_| {
            memory.touch(1)?;
            returned.store(true, Relaxed);
            Ok(())
        })?;

        fsleep(Delta::from_millis(20));
        let place = gpu.check_in_device(test.mm(), &memory);
        let early = returned.load(Relaxed);
        // That ends the wait, too.
        let (_, evicted) = devmem.evict_to_ram();

        if evicted.is_err() {
            // Else nothing might, and the test would hang instead of failing.
            memory.unmap()?;
        }
        let joined = thread.join();

        evicted?;
        joined?;
        place?;
        check!(!early);
        memory.verify(1)?;
    }
    Ok(())
}

/// Each migration has its own slice: an old one does not hold up those to other allocations.
fn slices_are_separate(test: &mut Test, gpu: &Gpu) -> Outcome {
    let a = aligned(1)?;
    let b = aligned(2)?;
    let devmem = gpu.migrate_as(
        test.mm(),
        a.range(),
        Layout::Contiguous,
        &Details::with_timeslice_ms(1_000_000),
    )?;

    gpu.migrate(test.mm(), b.range())?;
    b.verify(2)?;
    gpu.check_in_device(test.mm(), &a)?;
    devmem.evict_to_ram().1?;
    a.verify(1)
}

/// The slice reaches the engine through `populate_mm`, too.
fn populate_mm(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let before = now();

    Pagemap::populate_mm(gpu.pagemap(), test.mm(), memory.range(), 50)?;
    memory.touch(0)?;
    check!(now() >= before + msecs_to_jiffies(50) as u64);
    memory.verify(1)
}

/// What the waits took is counted.
fn counted(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let slice = msecs_to_jiffies(100) as u64;
    let before = now();

    check_eq!(gpu.pagemap().counters().slice_waits, 0);
    gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::Contiguous,
        &Details::with_timeslice_ms(100),
    )?;
    let migrated = now();
    memory.touch(1)?;
    let counters = gpu.pagemap().counters();

    check!(counters.slice_wait_jiffies <= now() - before);
    // Unless the machine was so slow that little of the slice was left when the CPU came.
    if migrated < before + slice / 2 {
        check!(counters.slice_waits >= 2);
        check!(counters.slice_wait_jiffies >= slice / 4);
        check!(counters.faults > counters.slice_waits);
    }
    memory.verify(1)
}

/// Where the policy says so, the CPU faults again and again, and comes home as well.
fn refault(test: &mut Test, _gpu: &Gpu) -> Outcome {
    let policy = Policy::new().with_slice_wait(SliceWait::Refault);
    let gpu = Gpu::with_policy(VRAM_PAGES, policy)?;
    let memory = aligned(1)?;
    let before = now();

    gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::Contiguous,
        &Details::with_timeslice_ms(50),
    )?;
    memory.touch(1)?;
    check!(now() >= before + msecs_to_jiffies(50) as u64);
    check_eq!(gpu.pagemap().counters().slice_waits, 0);
    memory.verify(1)?;
    memory.unmap()?;
    gpu.finish()
}

suite!(
    drm_pagemap_timeslice,
    crate::harness::with_gpu,
    [
        cpu_waits,
        pages_stay,
        no_slice,
        endless,
        slices_are_separate,
        populate_mm,
        counted,
        refault,
    ]
);
