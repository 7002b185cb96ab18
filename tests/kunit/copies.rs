// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a driver is told to copy: runs as long as possible, that cover every page once.

use crate::{
    gpu::Gpu,
    harness::{
        check,
        check_eq,
        suite,
        Outcome,
        Test, //
    },
    user::{
        UserMemory,
        HUGE, //
    },
    vram::Layout, //
};
use drm_pagemap::{
    migrate::Details,
    CopyRun, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

const PAGE: u64 = PAGE_SIZE as u64;

/// Checks that `runs` are the device pages `pages`, in this order, and could not be longer.
fn check_runs(runs: &[CopyRun], pages: &[usize]) -> Outcome {
    let mut left = pages.iter().map(|&page| page as u64 * PAGE);

    for run in runs {
        check!(run.len > 0);
        check_eq!(run.len % PAGE, 0);
        for offset in (run.offset..run.offset + run.len).step_by(PAGE_SIZE) {
            check_eq!(Some(offset), left.next());
        }
    }
    check_eq!(left.next(), None);

    for pair in runs.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let follows = match (a.addr, b.addr) {
            (Some(from), Some(to)) => from + a.len == to,
            (None, None) => true,
            _ => false,
        };

        check!(!(follows && a.offset + a.len == b.offset));
    }
    Ok(())
}

/// Memory that was never touched, in device memory that is contiguous: one run.
fn clears_are_merged(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map(20)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let runs = gpu.vram().take_last_copy();

    check_eq!(runs.len(), 1);
    check_eq!(runs[0].addr, None);
    check_eq!(runs[0].len, 20 * PAGE);
    check_runs(&runs, devmem.pages())
}

/// The same in device memory that is not: as many runs as pages.
fn scattered_clears(test: &mut Test, gpu: &Gpu) -> Outcome {
    for layout in [Layout::Scattered, Layout::Backwards] {
        let memory = UserMemory::map(20)?;
        let devmem = gpu.migrate_as(test.mm(), memory.range(), layout, &Details::default())?;
        let runs = gpu.vram().take_last_copy();

        check_eq!(runs.len(), 20);
        check!(runs.iter().all(|run| run.addr.is_none() && run.len == PAGE));
        check_runs(&runs, devmem.pages())?;
    }
    Ok(())
}

/// Clears and copies are never one run.
fn clears_and_copies(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map(20)?;

    for i in (0..20).step_by(2) {
        memory.part(i..i + 1).fill(1)?;
    }
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let runs = gpu.vram().take_last_copy();

    check_eq!(runs.len(), 20);
    for (i, run) in runs.iter().enumerate() {
        check_eq!(run.addr.is_some(), i % 2 == 0);
    }
    check_runs(&runs, devmem.pages())
}

/// Data that happens to be anywhere: every page once.
fn copies(test: &mut Test, gpu: &Gpu) -> Outcome {
    for layout in [Layout::Contiguous, Layout::Scattered, Layout::Backwards] {
        let memory = UserMemory::map_aligned(32)?;

        memory.fill(1)?;
        let devmem = gpu.migrate_as(test.mm(), memory.range(), layout, &Details::default())?;
        let runs = gpu.vram().take_last_copy();

        check!(runs.iter().all(|run| run.addr.is_some()));
        check_runs(&runs, devmem.pages())?;

        devmem.evict_to_ram().1?;
        let runs = gpu.vram().take_last_copy();

        check!(runs.iter().all(|run| run.addr.is_some()));
        check_runs(&runs, devmem.pages())?;
    }
    Ok(())
}

/// A huge page that was split is contiguous still: one run.
fn huge_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(HUGE / PAGE_SIZE)?;

    memory.fill_huge(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let runs = gpu.vram().take_last_copy();

    check_eq!(runs.len(), 1);
    check_runs(&runs, devmem.pages())?;
    memory.verify(1)
}

/// Pages that are not there (any more) are left out.
fn gaps(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(10, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    memory.part(3..5).unmap()?;
    memory.part(8..9).unmap()?;
    devmem.evict_to_ram().1?;

    let runs = gpu.vram().take_last_copy();
    let pages = devmem.pages();
    let mut left = KVec::new();

    for i in [0, 1, 2, 5, 6, 7, 9] {
        left.push(pages[i], GFP_KERNEL)?;
    }
    check_runs(&runs, &left)
}

suite!(
    drm_pagemap_copies,
    crate::harness::with_gpu,
    [
        clears_are_merged,
        scattered_clears,
        clears_and_copies,
        copies,
        huge_page,
        gaps,
    ]
);
