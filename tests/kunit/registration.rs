// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Registering a pagemap, and unregistering it while its memory is in use.

use crate::{
    ffi::Map,
    gpu::{
        Gpu,
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
    thread::Thread,
    user::UserMemory,
    vram::Layout, //
};
use drm_pagemap::{
    migrate::Details,
    mm::LockedMm,
    queue,
    Pagemap, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::delay::fsleep, //
};

/// Devices come and go, also several at a time.
fn come_and_go(test: &mut Test) -> Outcome {
    let first = Gpu::new()?;

    for _ in 0..3 {
        let second = Gpu::with_pages(64)?;
        let memory = UserMemory::filled(4, 1)?;

        second.migrate(test.mm(), memory.range())?;
        second.check_in_device(test.mm(), &memory)?;
        memory.verify(1)?;
        second.finish()?;
    }
    first.finish()
}

/// Sizes that device memory can't have.
fn bad_sizes(_test: &mut Test) -> Outcome {
    let gpu = Gpu::new()?;

    for size in [0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1] {
        check_err!(gpu.register_again(size), EINVAL);
    }
    // No machine has as many frames.
    let too_many = gpu.register_again(1 << 62);
    check!(too_many.is_err());
    gpu.finish()
}

/// Unregistering brings every page home, of all allocations, wherever they are mapped.
fn brings_pages_home(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let a = UserMemory::filled(100, 1)?;
    let b = UserMemory::filled(33, 2)?;
    let c = UserMemory::filled(1, 3)?;
    let d = UserMemory::map(20)?;

    gpu.migrate(test.mm(), a.range())?;
    gpu.migrate_as(test.mm(), b.range(), Layout::Scattered, &Details::default())?;
    gpu.migrate_as(
        test.mm(),
        c.range(),
        Layout::Backwards,
        &Details::with_timeslice_ms(100_000),
    )?;
    gpu.migrate(test.mm(), d.range())?;
    check_eq!(gpu.vram().live(), 4);

    gpu.unregister();
    check_eq!(gpu.vram().live(), 0);
    a.verify(1)?;
    b.verify(2)?;
    c.verify(3)?;
    d.verify_zero()?;
    check_eq!(
        gpu.vram().counts.copied_out.load(Relaxed),
        (100 + 33 + 1 + 20) * PAGE_SIZE as u64
    );
    gpu.finish()
}

/// Unregistering when nobody ever used the device, and when nobody does any more.
fn unused(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;

    gpu.unregister();
    check_eq!(gpu.vram().copy_to_ram.calls(), 0);

    let mut gpu = Gpu::new()?;
    let memory = UserMemory::filled(1, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    memory.verify(1)?;
    gpu.unregister();
    check_eq!(gpu.vram().copy_to_ram.calls(), 1);
    gpu.finish()
}

/// Afterwards whoever still has the pagemap gets ENODEV.
fn enodev_afterwards(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::filled(2, 1)?;

    gpu.unregister();
    check_err!(
        Pagemap::populate_mm(gpu.pagemap(), test.mm(), memory.range(), 0),
        ENODEV
    );
    check_err!(
        gpu.hold_pages(&LockedMm::read(test.mm()), memory.range()),
        ENODEV
    );
    check_err!(gpu.residency(test.mm(), memory.range()), ENODEV);
    check_err!(gpu.migrate(test.mm(), memory.range()), ENODEV);
    memory.verify(1)?;
    check_eq!(gpu.vram().copy_to_devmem.calls(), 0);
    gpu.finish()
}

/// Unregistering waits for an allocation that somebody is about to migrate to; who comes too late
/// gets ENODEV.
fn waits_for_allocation(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::filled(2, 1)?;
    let devmem = gpu.alloc(2)?;

    gpu.unregister_waits_for(|mm| {
        check_err!(
            devmem.migrate_to_devmem(&LockedMm::read(mm), memory.range(), &Details::default()),
            ENODEV
        );
        Ok(())
    })?;
    test.end_mm();
    gpu.finish()
}

/// Unregistering waits for a page that somebody refers to, and takes it home then.
fn waits_for_page(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::filled(5, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    let held = gpu.hold_page(test.mm(), memory.addr(2))?;

    gpu.unregister_waits_for(|_| {
        drop(held);
        Ok(())
    })?;
    memory.verify(1)?;
    gpu.finish()
}

/// The device fails to copy for a while: what is in it is not given up.
fn tries_again(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::filled(5, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.vram().copy_to_ram.fail(1, 4, EIO);
    gpu.unregister();
    check_eq!(gpu.vram().copy_to_ram.calls(), 5);
    memory.verify(1)?;
    gpu.finish()
}

/// What was unmapped from locked memory is in a batch of a processor's, which has references, and may
/// have them for ever: that is not waited for.
fn batched_pages(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::map_kind(5, Map::Locked)?;

    memory.fill(1)?;
    gpu.migrate(test.mm(), memory.range())?;
    memory.unmap_elsewhere()?;
    gpu.unregister();
    gpu.finish()
}

/// The device never copies again: it is waited for the process to let go of its pages.
fn waits_for_process(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let memory = UserMemory::filled(5, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.vram().copy_to_ram.fail_always(EIO);
    gpu.unregister_waits_for(|_| Ok(memory.unmap()?))?;
    check!(gpu.vram().copy_to_ram.calls() > 0);
    gpu.finish()
}

/// Processes populate and touch memory while the device goes away: no data is lost.
fn under_load(test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let a = UserMemory::filled(32, 1)?;
    let b = UserMemory::filled(32, 2)?;

    let worker = |handle: crate::gpu::Handle, memory: UserMemory, seed| {
        move |mm: &kernel::mm::MmWithUser| {
            while handle.try_migrate(mm, memory.range())? {
                memory.verify(seed)?;
            }
            memory.verify(seed)
        }
    };
    let threads = (
        Thread::start(worker(gpu.handle(), a, 1))?,
        Thread::start(worker(gpu.handle(), b, 2))?,
    );

    fsleep(A_WHILE);
    gpu.unregister();
    threads.0.join()?;
    threads.1.join()?;
    // Not before: one that is refused was an allocation for a moment.
    queue::flush();
    check_eq!(gpu.vram().live(), 0);
    a.verify(1)?;
    b.verify(2)?;
    test.end_mm();
    gpu.finish()
}

/// The pagemap's memory outlives its registration while somebody has a reference.
fn pagemap_outlives_registration(_test: &mut Test) -> Outcome {
    let mut gpu = Gpu::new()?;
    let pagemap: Arc<_> = gpu.pagemap().into();

    gpu.unregister();
    gpu.finish()?;
    check_eq!(pagemap.size(), crate::gpu::VRAM_PAGES * PAGE_SIZE);
    check!(!pagemap.is_active());
    Ok(())
}

suite!(
    drm_pagemap_registration,
    crate::harness::alone,
    [
        come_and_go,
        bad_sizes,
        brings_pages_home,
        unused,
        enodev_afterwards,
        waits_for_allocation,
        waits_for_page,
        batched_pages,
        tries_again,
        waits_for_process,
        under_load,
        pagemap_outlives_registration,
    ]
);
