// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Single pages, which take a way of their own to device memory, and home.

use crate::{
    gpu::{
        Gpu,
        Residency, //
    },
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Failure,
        Outcome,
        Test, //
    },
    peers::with_two,
    user::{
        UserMemory,
        HUGE, //
    },
};
use drm_pagemap::mm::PMD_ORDER;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::Relaxed, //
};

/// From RAM, home by a CPU fault, and once more, home by eviction: one mapping for DMA each time.
fn from_ram(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(3, 1)?;
    let page = memory.part(1..2);
    let maps = gpu.dma_maps()?;

    gpu.migrate(test.mm(), page.range())?;
    gpu.check_in_device(test.mm(), &page)?;
    gpu.check_in_ram(test.mm(), &memory.part(0..1))?;
    gpu.check_in_ram(test.mm(), &memory.part(2..3))?;
    page.verify(1)?;
    gpu.check_in_ram(test.mm(), &page)?;
    gpu.check_idle()?;

    let devmem = gpu.migrate(test.mm(), page.range())?;
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 1);
    gpu.check_in_ram(test.mm(), &page)?;
    check_eq!(gpu.dma_maps()? - maps, 4);
    memory.verify(1)
}

/// An address never touched: the device clears its memory, and nothing is mapped for DMA.
fn from_nowhere(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map(1)?;
    let maps = gpu.dma_maps()?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.check_in_device(test.mm(), &memory)?;
    check_eq!(gpu.vram().counts.cleared.load(Relaxed), PAGE_SIZE as u64);
    check_eq!(gpu.dma_maps()? - maps, 0);
    memory.verify_zero()
}

/// From another device: that one copies, and its page is retired.
fn from_peer(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(1, 1)?;

        a.migrate(test.mm(), memory.range())?;
        let held = a.hold_stale_page(test.mm(), memory.addr(0), || {
            b.migrate(test.mm(), memory.range())?;
            Ok(())
        })?;

        check!(held.is_retired());
        b.check_in_device(test.mm(), &memory)?;
        check_eq!(a.vram().counts.copied_out.load(Relaxed), PAGE_SIZE as u64);
        check_eq!(b.vram().copy_to_devmem.calls(), 0);
        check_eq!(b.vram().device_map.calls(), 1);
        check_eq!(b.vram().mapped.load(Relaxed), 0);
        drop(held);
        memory.verify(1)
    })
}

/// What does not go by itself: one page of a large folio in another device's memory, which has to be
/// split.
fn part_of_large(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::map_aligned(HUGE / PAGE_SIZE)?;
        let page = memory.part(7..8);

        memory.want_huge()?;
        memory.fill(1)?;
        if !memory.is_huge()? {
            return Err(Failure::skip(fmt!("the kernel had no huge page to give")));
        }
        a.migrate(test.mm(), memory.range())?;
        check_eq!(a.device_order(test.mm(), memory.addr(7))?, PMD_ORDER);
        b.migrate(test.mm(), page.range())?;
        b.check_in_device(test.mm(), &page)?;
        a.check_in_device(test.mm(), &memory.part(0..7))?;
        a.check_in_device(test.mm(), &memory.part(8..HUGE / PAGE_SIZE))?;
        memory.verify(1)
    })
}

/// A page that somebody holds stays, and what would have been its place is free again.
fn pinned(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(1, 1)?;
    let pin = memory.pin(0)?;

    check_err!(gpu.migrate(test.mm(), memory.range()), EBUSY);
    check_eq!(gpu.vram().copy_to_devmem.calls(), 0);
    gpu.check_in_ram(test.mm(), &memory)?;
    gpu.check_idle()?;
    drop(pin);
    gpu.migrate(test.mm(), memory.range())?;
    gpu.check_in_device(test.mm(), &memory)?;
    memory.verify(1)
}

/// Each step to device memory fails once: the error is passed on, and the page, or the hole, is as it
/// was.
fn there_fails(test: &mut Test, gpu: &Gpu) -> Outcome {
    let fails = |memory: &UserMemory, before: Residency, err: Error| {
        let result = test.without_warnings(|| gpu.migrate(test.mm(), memory.range()));

        check_err!(result, err);
        gpu.check_idle()?;
        // First without a touch: a page that was not put back would be waited for without end.
        check_eq!(gpu.residency(test.mm(), memory.range())?, before);
        Ok::<_, Failure>(())
    };
    let (page, hole) = (UserMemory::filled(1, 1)?, UserMemory::map(1)?);
    let in_ram = Residency {
        ram: 1,
        ..Residency::default()
    };
    let nowhere = Residency {
        none: 1,
        ..Residency::default()
    };

    for (memory, before) in [(&page, in_ram), (&hole, nowhere)] {
        gpu.vram().populate.fail(1, 1, EIO);
        fails(memory, before, EIO)?;
        gpu.vram().copy_to_devmem.fail(1, 1, EREMOTEIO);
        fails(memory, before, EREMOTEIO)?;
    }
    gpu.fail_dma(1, 1)?;
    fails(&page, in_ram, EFAULT)?;
    page.verify(1)?;
    hole.verify_zero()
}

/// The way home fails: the page stays in device memory.
fn home_fails(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(1, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.vram().copy_to_ram.fail(1, usize::MAX >> 1, EIO);
    check_err!(devmem.evict_to_ram().1, EIO);
    gpu.check_in_device(test.mm(), &memory)?;
    check_err!(memory.touch(0), EFAULT);
    gpu.check_in_device(test.mm(), &memory)?;
    gpu.vram().copy_to_ram.heal();

    gpu.fail_dma(1, usize::MAX >> 1)?;
    check_err!(test.without_warnings(|| devmem.evict_to_ram().1), EFAULT);
    gpu.fail_dma(0, 0)?;
    gpu.check_in_device(test.mm(), &memory)?;
    memory.verify(1)?;
    gpu.check_in_ram(test.mm(), &memory)
}

/// From another device: its mapping or its copy fails, and the page stays there.
fn from_peer_fails(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(1, 1)?;

        a.migrate(test.mm(), memory.range())?;
        b.vram().device_map.fail(1, 1, EIO);
        check_err!(b.migrate(test.mm(), memory.range()), EFAULT);
        a.check_in_device(test.mm(), &memory)?;
        a.vram().copy_to_ram.fail(1, 1, ENOLINK);
        check_err!(b.migrate(test.mm(), memory.range()), ENOLINK);
        a.check_in_device(test.mm(), &memory)?;
        check_eq!(b.vram().mapped.load(Relaxed), 0);
        memory.verify(1)
    })
}

/// On each way the page is unmapped for DMA before the process can see it again.
fn dma_ends_first(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(1, 1)?;

    for _ in 0..2 {
        let live = gpu.dma_live_on_remap(memory.addr(0), || {
            gpu.migrate(test.mm(), memory.range())?;
            Ok(())
        })?;

        check_eq!(live, 0);
        let live = gpu.dma_live_on_remap(memory.addr(0), || {
            memory.touch(0)?;
            Ok(())
        })?;

        check_eq!(live, 0);
    }
    memory.verify(1)
}

suite!(
    drm_pagemap_one_page,
    crate::harness::with_gpu,
    [
        from_ram,
        from_nowhere,
        from_peer,
        part_of_large,
        pinned,
        there_fails,
        home_fails,
        from_peer_fails,
        dma_ends_first,
    ]
);
