// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA mappings: made for each page, and undone as they were made, in time.
//!
//! That none is left when a test is over is checked after every test, see
//! [`Gpu::check_idle`](crate::gpu::Gpu::check_idle).

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
use kernel::prelude::*;

/// Eight pages with the pattern of `seed`, the first one at a multiple of their size, no two of which
/// are mapped for DMA as one.
fn aligned(seed: u64) -> Outcome<UserMemory> {
    let memory = UserMemory::map_aligned(8)?;

    memory.fill_apart(seed, |_| true)?;
    Ok(memory)
}

/// A migration's mappings are gone when it is over, whichever way and outcome it has.
fn undone_with_migration(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;

    gpu.vram().copy_to_devmem.fail(1, 1, EIO);
    check_err!(gpu.migrate(test.mm(), memory.range()), EIO);
    check_eq!(gpu.dma_maps()?, 8);
    gpu.check_no_dma()?;

    let devmem = gpu.migrate(test.mm(), memory.range())?;
    check_eq!(gpu.dma_maps()?, 16);
    gpu.check_no_dma()?;

    gpu.vram().copy_to_ram.fail_always(EIO);
    check_err!(devmem.evict_to_ram().1, EIO);
    gpu.check_no_dma()?;
    check_err!(memory.touch(3), EFAULT);
    gpu.check_no_dma()?;

    gpu.vram().copy_to_ram.heal();
    let maps = gpu.dma_maps()?;
    memory.touch(3)?;
    // As many as there are runs in the RAM that the core had to give.
    check!((maps + 1..=maps + 8).contains(&gpu.dma_maps()?));
    gpu.check_no_dma()?;
    memory.verify(1)
}

/// Some of the pages can't be mapped: those that could are unmapped.
fn undone_if_not_all_map(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;

    for nth in [1, 2, 8] {
        gpu.fail_dma(nth, 1)?;
        // Of which the DMA layer complains in the log.
        let result = test.without_warnings(|| gpu.migrate(test.mm(), memory.range()));

        check_err!(result, EFAULT);
        gpu.check_no_dma()?;
    }
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.verify(1)
}

/// Unmapping may be what copies the data, from a bounce buffer: so it comes before a CPU can read
/// the page.
fn undone_before_fault_ends(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;

    gpu.migrate(test.mm(), memory.range())?;
    let live = gpu.dma_live_on_remap(memory.addr(2), || {
        memory.touch(5)?;
        Ok(())
    })?;

    check_eq!(live, 0);
    memory.verify(1)
}

/// The same in an eviction.
fn undone_before_eviction_ends(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let live = gpu.dma_live_on_remap(memory.addr(2), || Ok(devmem.evict_to_ram().1?))?;

    check_eq!(live, 0);
    memory.verify(1)
}

suite!(
    drm_pagemap_dma,
    crate::harness::with_gpu,
    [
        undone_with_migration,
        undone_if_not_all_map,
        undone_before_fault_ends,
        undone_before_eviction_ends,
    ]
);
