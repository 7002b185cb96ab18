// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Memory that bounces between the CPU and the device gets a while of peace.

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
        Failure,
        Outcome,
        Test, //
    },
    thread::Thread,
    user::{
        UserMemory,
        HUGE, //
    },
    vram::Layout,
};
use drm_pagemap::{
    migrate::{
        Details,
        Outcome as Migrated, //
    },
    mm::LockedMm,
    FaultWindow,
    Policy,
    Thrash, //
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
        msecs_to_jiffies,
        Delta, //
    }, //
};

/// What is watched is 2 MiB: of single pages, these.
const PAGES: usize = HUGE / PAGE_SIZE;

/// Pins that last longer than a test.
const LONG: Thrash = Thrash {
    bounces: 3,
    window_ms: 60_000,
    pin_ms: 20_000,
};

/// A GPU that watches for thrashing.
fn watching(thrash: Thrash) -> Result<Gpu> {
    Gpu::with_policy(VRAM_PAGES, Policy::new().with_thrash(thrash))
}

/// Single pages with the pattern of 1, the first one at a multiple of 2 MiB.
fn memory(pages: usize) -> Outcome<UserMemory> {
    let memory = UserMemory::map_aligned(pages)?;

    memory.fill(1)?;
    Ok(memory)
}

/// Sends memory to the device, and takes it home by a touch, so many times.
fn bounce(test: &Test, gpu: &Gpu, memory: &UserMemory, times: usize) -> Outcome {
    for _ in 0..times {
        gpu.migrate(test.mm(), memory.range())?;
        memory.touch(0)?;
    }
    Ok(())
}

/// Asks for what is missing of `memory` in device memory.
fn ask(test: &Test, gpu: &Gpu, memory: &UserMemory) -> Outcome<Migrated> {
    let (_, outcome) = gpu.alloc(memory.nr_pages())?.migrate_missing(
        &LockedMm::read(test.mm()),
        memory.range(),
        &Details::default(),
    )?;

    Ok(outcome)
}

fn all_moved(pages: usize) -> Migrated {
    Migrated {
        migrated: pages,
        resident: 0,
        left: 0,
    }
}

fn all_left(pages: usize) -> Migrated {
    Migrated {
        migrated: 0,
        resident: 0,
        left: pages,
    }
}

fn now() -> u64 {
    // SAFETY: No requirements.
    unsafe { ffi::drm_pagemap_kunit_jiffies() }
}

/// Ends a test: nothing is left in the device.
fn end(gpu: Gpu, memory: &UserMemory) -> Outcome {
    memory.verify(1)?;
    memory.unmap()?;
    gpu.finish()
}

/// After three bounces, memory that a driver can do without stays in RAM; not after two.
fn stays_in_ram(test: &mut Test) -> Outcome {
    let gpu = watching(LONG)?;
    let memory = memory(16)?;

    bounce(test, &gpu, &memory, 2)?;
    check_eq!(gpu.pagemap().counters().thrash, 0);
    check_eq!(ask(test, &gpu, &memory)?, all_moved(16));
    memory.touch(5)?;
    check_eq!(gpu.pagemap().counters().thrash, 1);
    check_eq!(ask(test, &gpu, &memory)?, all_left(16));
    gpu.check_in_ram(test.mm(), &memory)?;
    check_eq!(gpu.pagemap().counters().pinned_in_ram, 16);
    end(gpu, &memory)
}

/// Only that; what is beside it moves.
fn others_move(test: &mut Test) -> Outcome {
    let gpu = watching(LONG)?;
    let memory = memory(3 * PAGES)?;

    bounce(test, &gpu, &memory.part(PAGES..PAGES + 16), 3)?;
    check_eq!(
        ask(test, &gpu, &memory)?,
        Migrated {
            migrated: 2 * PAGES,
            resident: 0,
            left: PAGES,
        }
    );
    gpu.check_in_device(test.mm(), &memory.part(0..PAGES))?;
    gpu.check_in_ram(test.mm(), &memory.part(PAGES..2 * PAGES))?;
    gpu.check_in_device(test.mm(), &memory.part(2 * PAGES..3 * PAGES))?;
    // Nor does one that has been evicted ask for anything.
    check_eq!(gpu.pagemap().counters().thrash, 1);
    end(gpu, &memory)
}

/// A driver that wants all of it gets all of it, and a CPU waits for as long as the pin lasts.
fn waits_for_device(test: &mut Test) -> Outcome {
    let pin = msecs_to_jiffies(200) as u64;
    let gpu = watching(Thrash {
        pin_ms: 200,
        ..LONG
    })?;
    let memory = memory(16)?;

    bounce(test, &gpu, &memory, 3)?;
    check_eq!(gpu.pagemap().counters().slice_waits, 0);

    let before = now();
    gpu.migrate(test.mm(), memory.range())?;
    if gpu.pagemap().counters().pinned_in_device == 0 {
        return Err(Failure::skip(fmt!("too slow: the pin was over before")));
    }
    memory.touch(3)?;
    check!(now() >= before + pin);
    check!(gpu.pagemap().counters().slice_waits >= 1);
    check!(gpu.pagemap().counters().slice_wait_jiffies <= now() - before);
    end(gpu, &memory)
}

/// The longer one counts, of the time slice and the pin.
fn longer_slice(test: &mut Test) -> Outcome {
    let slice = msecs_to_jiffies(300) as u64;
    let gpu = watching(Thrash { pin_ms: 10, ..LONG })?;
    let memory = memory(16)?;

    bounce(test, &gpu, &memory, 3)?;
    let before = now();
    gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::Contiguous,
        &Details::with_timeslice_ms(300),
    )?;
    memory.touch(0)?;
    check!(now() >= before + slice);
    end(gpu, &memory)
}

/// An eviction is not held up, and ends the CPU's wait.
fn eviction_ends_it(test: &mut Test) -> Outcome {
    let gpu = watching(LONG)?;
    let memory = memory(16)?;

    bounce(test, &gpu, &memory, 3)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    check_eq!(gpu.pagemap().counters().pinned_in_device, 1);

    let returned = Atomic::new(false);
    let thread = Thread::start(|_| {
        memory.touch(1)?;
        returned.store(true, Relaxed);
        Ok(())
    })?;
    fsleep(Delta::from_millis(30));
    let early = returned.load(Relaxed);
    let (_, evicted) = devmem.evict_to_ram();
    if evicted.is_err() {
        // Else nothing might, and the test would hang instead of failing.
        memory.unmap()?;
    }
    thread.join()?;
    evicted?;
    check!(!early);
    drop(devmem);
    end(gpu, &memory)
}

/// When the pin is over, memory moves again.
fn pins_end(test: &mut Test) -> Outcome {
    let gpu = watching(Thrash { pin_ms: 50, ..LONG })?;
    let memory = memory(16)?;

    bounce(test, &gpu, &memory, 3)?;
    check_eq!(gpu.pagemap().counters().thrash, 1);
    fsleep(Delta::from_millis(200));
    check_eq!(ask(test, &gpu, &memory)?, all_moved(16));
    end(gpu, &memory)
}

/// Bounces that are far apart don't count.
fn slow_bounces(test: &mut Test) -> Outcome {
    let gpu = watching(Thrash {
        window_ms: 20,
        ..LONG
    })?;
    let memory = memory(16)?;

    for _ in 0..5 {
        bounce(test, &gpu, &memory, 1)?;
        fsleep(Delta::from_millis(100));
    }
    check_eq!(gpu.pagemap().counters().thrash, 0);
    check_eq!(ask(test, &gpu, &memory)?, all_moved(16));
    end(gpu, &memory)
}

/// A CPU that takes an allocation home page by page is no thrashing.
fn small_windows(test: &mut Test) -> Outcome {
    let policy = Policy::new()
        .with_window(FaultWindow::Page)
        .with_thrash(LONG);
    let gpu = Gpu::with_policy(VRAM_PAGES, policy)?;
    let memory = memory(64)?;

    gpu.migrate(test.mm(), memory.range())?;
    for page in 0..64 {
        memory.touch(page)?;
    }
    check_eq!(gpu.pagemap().counters().faults, 64);
    check_eq!(gpu.pagemap().counters().thrash, 0);
    check_eq!(ask(test, &gpu, &memory)?, all_moved(64));
    end(gpu, &memory)
}

/// Nor is one that takes home many allocations one by one.
fn small_allocations(test: &mut Test) -> Outcome {
    let gpu = watching(LONG)?;
    let memory = memory(64)?;

    for page in 0..64 {
        gpu.migrate(test.mm(), memory.pages(page..page + 1))?;
    }
    memory.verify(1)?;
    check_eq!(gpu.pagemap().counters().faults, 64);
    check_eq!(gpu.pagemap().counters().thrash, 0);
    check_eq!(ask(test, &gpu, &memory)?, all_moved(64));
    end(gpu, &memory)
}

/// More blocks than are watched at a time: some are not seen, none is taken for another.
fn many_blocks(test: &mut Test) -> Outcome {
    const BLOCKS: usize = 100;
    let gpu = watching(LONG)?;
    let memory = UserMemory::map_aligned(BLOCKS * PAGES)?;
    let block = |i: usize| memory.part(i * PAGES..i * PAGES + 1);

    for i in 0..BLOCKS {
        block(i).fill(1)?;
        bounce(test, &gpu, &block(i), 2)?;
    }
    check_eq!(gpu.pagemap().counters().thrash, 0);
    for i in 0..BLOCKS {
        bounce(test, &gpu, &block(i), 1)?;
    }
    // Each entry has one block, whose third bounce that was.
    let pinned = gpu.pagemap().counters().thrash as usize;
    check!(pinned > 0 && pinned <= 64);
    let mut left = 0;
    for i in 0..BLOCKS {
        left += ask(test, &gpu, &block(i))?.left;
    }
    check_eq!(left, pinned);
    for i in 0..BLOCKS {
        block(i).verify(1)?;
    }
    memory.unmap()?;
    gpu.finish()
}

/// Without a policy nothing is watched.
fn off(test: &mut Test) -> Outcome {
    check_eq!(Policy::new().thrash, Thrash::OFF);
    check!(!Thrash::OFF.is_on() && Thrash::ON.is_on());

    let gpu = Gpu::new()?;
    let memory = memory(16)?;

    bounce(test, &gpu, &memory, 10)?;
    check_eq!(gpu.pagemap().counters().thrash, 0);
    check_eq!(ask(test, &gpu, &memory)?, all_moved(16));
    memory.touch(0)?;
    check_eq!(gpu.pagemap().counters().slice_waits, 0);
    end(gpu, &memory)
}

suite!(
    drm_pagemap_thrash,
    crate::harness::alone,
    [
        stays_in_ram,
        others_move,
        waits_for_device,
        longer_slice,
        eviction_ends_it,
        pins_end,
        slow_bounces,
        small_windows,
        small_allocations,
        many_blocks,
        off,
    ]
);
