// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The driver wants its memory back.

use crate::{
    ffi::Map,
    gpu::Gpu,
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    thread::Thread,
    user::UserMemory, //
};
use drm_pagemap::{
    migrate::Details,
    queue, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// How often an eviction is tried.
const TRIES: usize = 3;

/// A second eviction has nothing to do.
fn twice(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    for moved in [6, 0, 0] {
        let (pages, result) = devmem.evict_to_ram();

        result?;
        check_eq!(pages, moved);
        check!(devmem.is_detached());
    }
    check_eq!(gpu.vram().copy_to_ram.calls(), 1);
    memory.verify(1)
}

/// The pages went home on a fault before.
fn already_home(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    memory.verify(1)?;
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 0);
    memory.verify(1)
}

/// Some of them did, and some were unmapped.
fn partly_home(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(16)?;

    memory.fill(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.vram().most_to_ram.store(1, Relaxed);
    memory.touch(4)?;
    memory.touch(9)?;
    gpu.vram().most_to_ram.store(usize::MAX, Relaxed);
    memory.part(12..16).unmap()?;

    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 10);
    memory.part(0..12).verify(1)
}

/// From another task, which is not in that address space.
fn from_elsewhere(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let other = test.step_out();
    let (moved, result) = devmem.evict_to_ram();

    result?;
    check_eq!(moved, 6);
    test.step_in(other);
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.verify(1)
}

/// The address space is gone.
fn after_process_end(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    test.end_mm();
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 0);
    check_eq!(gpu.vram().copy_to_ram.calls(), 0);
    Ok(())
}

/// The copy fails twice: the third try is the good one.
fn copy_fails_twice(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.vram().copy_to_ram.fail(1, TRIES - 1, EIO);
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 6);
    check_eq!(gpu.vram().copy_to_ram.calls(), TRIES);
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.verify(1)
}

/// The copy fails for good: the error is the driver's, the data stays in device memory.
fn copy_fails(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.vram().copy_to_ram.fail_always(ENOTSUPP);
    let (moved, result) = devmem.evict_to_ram();
    check_err!(result, ENOTSUPP);
    check_eq!(moved, 0);
    check_eq!(gpu.vram().copy_to_ram.calls(), TRIES);
    check!(!devmem.is_detached());
    gpu.check_in_device(test.mm(), &memory)?;

    gpu.vram().copy_to_ram.heal();
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 6);
    memory.verify(1)
}

/// The driver can't say where the pages are: twice, or for good.
fn populate_fails(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.vram().populate.fail_always(ENODEV);
    let (moved, result) = devmem.evict_to_ram();
    check_err!(result, ENODEV);
    check_eq!(moved, 0);
    gpu.check_in_device(test.mm(), &memory)?;

    gpu.vram().populate.fail(1, TRIES - 1, EIO);
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 6);
    memory.verify(1)
}

/// Somebody refers to a page for long: the others go, and that one when it can.
fn held_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let held = gpu.hold_page(test.mm(), memory.addr(2))?;
    let (moved, result) = devmem.evict_to_ram();

    check_err!(result, EBUSY);
    check_eq!(moved, 5);
    check!(!devmem.is_detached());
    gpu.check_in_device(test.mm(), &memory.part(2..3))?;
    gpu.check_in_ram(test.mm(), &memory.part(0..2))?;
    gpu.check_in_ram(test.mm(), &memory.part(3..6))?;

    drop(held);
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 1);
    memory.verify(1)
}

/// Somebody refers to a page just now: that is waited for.
fn passing_reference(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let held = gpu.hold_page(test.mm(), memory.addr(2))?;
    let thread = Thread::start(move |_| {
        fsleep(Delta::from_millis(5));
        drop(held);
        Ok(())
    })?;
    let (moved, result) = devmem.evict_to_ram();

    thread.join()?;
    result?;
    check_eq!(moved, 6);
    memory.verify(1)
}

/// What was unmapped from locked memory is in a batch of the processor's, which has references.
fn batched_pages(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_kind(6, Map::Locked)?;

    memory.fill(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    memory.unmap_elsewhere()?;

    // Those that lose the reference when they are collected already go to RAM, for nobody.
    devmem.evict_to_ram().1?;
    check!(devmem.is_detached());
    Ok(())
}

/// Somebody refers to a page that has lost its contents: it is busy, but never copied again.
fn stale_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let stale = gpu.hold_stale_page(test.mm(), memory.addr(2), || {
        let (moved, result) = devmem.evict_to_ram();

        check_err!(result, EBUSY);
        check_eq!(moved, 6);
        Ok(())
    })?;

    check!(stale.is_retired());
    check!(!devmem.is_detached());
    check_eq!(gpu.vram().copy_to_ram.calls(), 1);
    memory.verify(1)?;
    memory.fill(2)?;

    let (moved, result) = devmem.evict_to_ram();
    check_err!(result, EBUSY);
    check_eq!(moved, 0);
    check_eq!(gpu.vram().copy_to_ram.calls(), 1);
    memory.verify(2)?;

    drop(stale);
    check!(devmem.is_detached());
    devmem.evict_to_ram().1?;
    memory.verify(2)
}

/// The same after a CPU fault.
fn stale_page_after_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(8)?;

    memory.fill(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let stale = gpu.hold_stale_page(test.mm(), memory.addr(2), || {
        memory.touch(5)?;
        Ok(())
    })?;

    check!(stale.is_retired());
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.fill(2)?;
    let (moved, result) = devmem.evict_to_ram();
    check_err!(result, EBUSY);
    check_eq!(moved, 0);
    check_eq!(gpu.vram().copy_to_ram.calls(), 1);

    drop(stale);
    check!(devmem.is_detached());
    memory.verify(2)
}

/// Somebody has a page locked for long.
fn locked_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let locked = gpu.hold_page(test.mm(), memory.addr(0))?.lock();
    let (moved, result) = devmem.evict_to_ram();

    check_err!(result, EBUSY);
    check_eq!(moved, 5);
    drop(locked);
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 1);
    memory.verify(1)
}

/// A time slice is for CPUs, not for the driver.
fn in_timeslice(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate_as(
        test.mm(),
        memory.range(),
        crate::vram::Layout::Contiguous,
        &Details::with_timeslice_ms(1_000_000),
    )?;
    let (moved, result) = devmem.evict_to_ram();

    result?;
    check_eq!(moved, 6);
    memory.verify(1)
}

/// The memory of an allocation that was evicted can be used for the next one at once.
fn memory_is_reused(test: &mut Test, gpu: &Gpu) -> Outcome {
    // More than half of the memory, so that two don't fit.
    let pages = crate::gpu::VRAM_PAGES / 2 + 1;
    let a = UserMemory::filled(pages, 1)?;
    let b = UserMemory::filled(pages, 2)?;

    for _ in 0..2 {
        for (memory, other) in [(&a, &b), (&b, &a)] {
            let devmem = gpu.migrate(test.mm(), memory.range())?;

            check_err!(gpu.migrate(test.mm(), other.range()), ENOSPC);
            devmem.evict_to_ram().1?;
            drop(devmem);
            queue::flush();
            check_eq!(gpu.vram().nr_used(), 0);
        }
    }
    check_eq!(
        gpu.vram().counts.copied_out.load(Relaxed),
        (4 * pages * PAGE_SIZE) as u64
    );
    a.verify(1)?;
    b.verify(2)
}

/// Two tasks evict the same allocation. One may find pages locked by the other, but the pages get
/// home.
fn at_the_same_time(test: &mut Test, gpu: &Gpu) -> Outcome {
    let or_busy = |result: Result| match result {
        Err(err) if err == EBUSY => Ok(()),
        other => other,
    };

    for round in 0..20 {
        let memory = UserMemory::filled(16, round)?;
        let devmem = gpu.migrate(test.mm(), memory.range())?;
        let thread = Thread::start(|_| {
            or_busy(devmem.evict_to_ram().1)?;
            Ok(())
        })?;
        let (_, result) = devmem.evict_to_ram();

        thread.join()?;
        or_busy(result)?;
        // Now nobody else is at them.
        devmem.evict_to_ram().1?;
        check!(devmem.is_detached());
        memory.verify(round)?;
        memory.unmap()?;
    }
    Ok(())
}

/// A CPU that waits for the end of a time slice does not keep the driver from its memory.
fn cpu_waits_for_slice(test: &mut Test, gpu: &Gpu) -> Outcome {
    for round in 0..20 {
        let memory = UserMemory::map_aligned(16)?;

        memory.fill(round)?;
        let devmem = gpu.migrate_as(
            test.mm(),
            memory.range(),
            crate::vram::Layout::Contiguous,
            &Details::with_timeslice_ms(1_000_000),
        )?;
        let thread = Thread::start(|_| {
            memory.touch(7)?;
            Ok(())
        })?;

        fsleep(Delta::from_millis(2));
        let (_, result) = devmem.evict_to_ram();

        if result.is_err() {
            // Else the wait might have no end, and this would hang instead of failing.
            memory.unmap()?;
        }
        let joined = thread.join();

        result?;
        joined?;
        check!(devmem.is_detached());
        memory.verify(round)?;
        memory.unmap()?;
    }
    Ok(())
}

/// An eviction ends the slice, even if the pages stay: then CPUs bring them home.
fn ends_slice(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let touched = Atomic::new(false);
    let devmem = gpu.migrate_as(
        test.mm(),
        memory.range(),
        crate::vram::Layout::Contiguous,
        &Details::with_timeslice_ms(1_000_000),
    )?;

    gpu.vram().copy_to_ram.fail(1, TRIES, EIO);
    check_err!(devmem.evict_to_ram().1, EIO);

    let thread = Thread::start(|_| {
        memory.touch(3)?;
        touched.store(true, Relaxed);
        Ok(())
    })?;
    for _ in 0..500 {
        if touched.load(Relaxed) {
            break;
        }
        fsleep(Delta::from_millis(10));
    }
    let in_time = touched.load(Relaxed);

    if !in_time {
        // Else it would wait for the slice's end.
        memory.unmap()?;
    }
    let joined = thread.join();

    check!(in_time);
    joined?;
    memory.verify(1)
}

suite!(
    drm_pagemap_evict,
    crate::harness::with_gpu,
    [
        twice,
        already_home,
        partly_home,
        from_elsewhere,
        after_process_end,
        copy_fails_twice,
        copy_fails,
        populate_fails,
        held_page,
        passing_reference,
        batched_pages,
        stale_page,
        stale_page_after_fault,
        locked_page,
        in_timeslice,
        memory_is_reused,
        at_the_same_time,
        cpu_waits_for_slice,
        ends_slice,
    ]
);
