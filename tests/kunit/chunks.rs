// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Ranges that take more than one PMD: they are migrated in chunks, by all processors.

use crate::{
    gpu::Gpu,
    harness::{
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    user::UserMemory, //
};
use drm_pagemap::{
    migrate::{
        Details,
        Outcome as Moved, //
    },
    mm::{
        LockedMm,
        NR_PMD_PAGES,
        PMD_ORDER, //
    },
    queue, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Where the range begins and ends: in the middle of what a PMD maps, with two whole ones between.
const FIRST: usize = 100;
const LAST: usize = 3 * NR_PMD_PAGES + 364;
const PAGES: usize = LAST - FIRST;

/// Four chunks, the first and last one smaller than the others.
fn four_chunks() -> Result<UserMemory> {
    Ok(UserMemory::map_aligned(LAST)?.part(FIRST..LAST))
}

fn filled(seed: u64) -> Outcome<UserMemory> {
    let memory = four_chunks()?;

    memory.fill(seed)?;
    Ok(memory)
}

/// To the device in one call, with one copy a chunk, and back.
fn there_and_back(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = filled(1)?;
    let calls = gpu.vram().copy_to_devmem.calls();
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    check_eq!(gpu.vram().copy_to_devmem.calls(), calls + 4);
    gpu.check_in_device(test.mm(), &memory)?;
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, PAGES);
    gpu.check_in_ram(test.mm(), &memory)?;
    gpu.check_no_dma()?;
    memory.verify(1)
}

/// Again and again: each page has a place of its own, whoever moves it.
fn many_times(test: &mut Test, gpu: &Gpu) -> Outcome {
    for seed in 0..8 {
        let memory = filled(seed)?;

        gpu.migrate(test.mm(), memory.range())?;
        gpu.check_in_device(test.mm(), &memory)?;
        memory.verify(seed)?;
        memory.unmap()?;
    }
    Ok(())
}

/// A CPU fault brings all of them home.
fn fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = filled(2)?;

    gpu.migrate(test.mm(), memory.range())?;
    memory.touch(700)?;
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.verify(2)
}

/// Large folios in the middle, which do not begin where an eviction's chunks do.
fn large_between(test: &mut Test, gpu: &Gpu) -> Outcome {
    let whole = UserMemory::map_aligned(LAST)?;

    whole.want_huge()?;
    whole.part(FIRST..LAST).fill(3)?;
    // The same distance from a multiple in device memory.
    let other = UserMemory::filled(FIRST, 1)?;
    let _before = gpu.migrate(test.mm(), other.range())?;
    let memory = whole.part(FIRST..LAST);
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.check_in_device(test.mm(), &memory)?;
    for at in [NR_PMD_PAGES, 2 * NR_PMD_PAGES] {
        let at = memory.addr(at - FIRST);

        check_eq!(gpu.device_order(test.mm(), at)?, PMD_ORDER);
    }

    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, PAGES);
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.verify(3)
}

/// The last chunk can't move: what went before it comes home.
fn undone(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = filled(4)?;
    let pin = memory.pin(PAGES - 5)?;

    check_err!(gpu.migrate(test.mm(), memory.range()), EBUSY);
    gpu.check_in_ram(test.mm(), &memory)?;
    queue::flush();
    check_eq!(gpu.vram().live(), 0);
    drop(pin);
    gpu.migrate(test.mm(), memory.range())?;
    gpu.check_in_device(test.mm(), &memory)?;
    memory.verify(4)
}

/// The same when a copy fails, whichever.
fn undone_after_copy(test: &mut Test, gpu: &Gpu) -> Outcome {
    for nth in 1..=4 {
        let memory = filled(5)?;

        gpu.vram().copy_to_devmem.fail(nth, 1, EIO);
        check_err!(gpu.migrate(test.mm(), memory.range()), EIO);
        gpu.vram().copy_to_devmem.heal();
        gpu.check_in_ram(test.mm(), &memory)?;
        memory.verify(5)?;
        memory.unmap()?;
        gpu.check_idle()?;
    }
    Ok(())
}

/// What is missing, where a part that is there reaches over chunks.
fn missing(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = filled(6)?;
    // There is not room for all of it twice.
    let range = memory.pages(0..1000);
    let _first = gpu.migrate(test.mm(), memory.pages(300..700))?;
    let out = gpu.vram().counts.copied_out.load(Relaxed);
    let (_second, outcome) =
        gpu.alloc(1000)?
            .migrate_missing(&LockedMm::read(test.mm()), range, &Details::default())?;

    check_eq!(
        outcome,
        Moved {
            migrated: 600,
            resident: 400,
            left: 0,
        }
    );
    gpu.check_in_device(test.mm(), &memory.part(0..1000))?;
    check_eq!(gpu.vram().counts.copied_out.load(Relaxed), out);
    memory.verify(6)
}

/// Never touched, all of it.
fn holes(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = four_chunks()?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.check_in_device(test.mm(), &memory)?;
    memory.verify_zero()
}

suite!(
    drm_pagemap_chunks,
    crate::harness::with_gpu,
    [
        there_and_back,
        many_times,
        fault,
        large_between,
        undone,
        undone_after_copy,
        missing,
        holes,
    ]
);
