// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! How much a CPU fault brings home, where it is not the whole allocation.

use crate::{
    gpu::{
        Gpu,
        VRAM_PAGES, //
    },
    harness::{
        check,
        check_eq,
        suite,
        with_gpu_as,
        Outcome,
        Test, //
    },
    thread::Thread,
    user::{
        UserMemory,
        HUGE, //
    },
};
use drm_pagemap::{
    FaultWindow,
    Policy, //
};
use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::Relaxed, //
};

/// What grows and shrinks is within 2 MiB: of single pages, these.
const PAGES: usize = HUGE / PAGE_SIZE;

/// # Safety
///
/// `raw` must be the test that the current thread runs.
pub(crate) unsafe fn adaptive(raw: *mut bindings::kunit, body: fn(&mut Test, &Gpu) -> Outcome) {
    let policy = Policy::new().with_window(FaultWindow::Adaptive);

    // SAFETY: Promised by the caller.
    unsafe { with_gpu_as(raw, policy, body) };
}

/// `pages` single pages in device memory, with the pattern of 1, the first one at a multiple of
/// 2 MiB.
fn in_device(test: &Test, gpu: &Gpu, pages: usize) -> Outcome<UserMemory> {
    let memory = UserMemory::map_aligned(pages)?;

    memory.want_small()?;
    memory.fill(1)?;
    gpu.migrate(test.mm(), memory.range())?;
    check_eq!(gpu.device_order(test.mm(), memory.addr(0))?, 0);
    Ok(memory)
}

/// Touches pages, and returns how many faults it took to bring something home, and how many of all
/// of `memory` are home then.
fn touch(
    test: &Test,
    gpu: &Gpu,
    memory: &UserMemory,
    pages: impl Iterator<Item = usize>,
) -> Outcome<(usize, usize)> {
    let calls = gpu.vram().copy_to_ram.calls();

    for page in pages {
        memory.touch(page)?;
    }
    Ok((
        gpu.vram().copy_to_ram.calls() - calls,
        gpu.residency(test.mm(), memory.range())?.ram,
    ))
}

/// A single touch brings home the 16 pages around it.
fn one_byte(test: &mut Test, gpu: &Gpu) -> Outcome {
    for page in [0, 300, PAGES - 1] {
        let memory = in_device(test, gpu, PAGES)?;
        let before = gpu.pagemap().counters();

        check_eq!(touch(test, gpu, &memory, [page].into_iter())?, (1, 16));
        let start = page / 16 * 16;
        gpu.check_in_ram(test.mm(), &memory.part(start..start + 16))?;

        let after = gpu.pagemap().counters();
        check_eq!(after.faults - before.faults, 1);
        check_eq!(after.pages_home - before.pages_home, 16);
        check_eq!(after.windows[4] - before.windows[4], 1);
        memory.verify(1)?;
        memory.unmap()?;
    }
    Ok(())
}

/// A reader that goes upwards gets twice as much each time.
fn upwards(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = in_device(test, gpu, PAGES)?;
    let mut home = KVec::new();

    for page in [0, 16, 32, 64, 128, 256] {
        let (faults, pages) = touch(test, gpu, &memory, page..page + 16)?;

        check_eq!(faults, 1);
        home.push(pages, GFP_KERNEL)?;
    }
    check_eq!(home[..], [16, 32, 64, 128, 256, 512]);
    memory.verify(1)
}

/// So does one that goes downwards.
fn downwards(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = in_device(test, gpu, PAGES)?;

    check_eq!(touch(test, gpu, &memory, (0..PAGES).rev())?, (6, PAGES));
    memory.verify(1)
}

/// What one touch left of an allocation comes home in few faults, wherever the touch was.
fn touched_before(test: &mut Test, gpu: &Gpu) -> Outcome {
    for page in [0, 100, 256, PAGES - 1] {
        let memory = in_device(test, gpu, PAGES)?;

        memory.touch(page)?;
        let (faults, home) = touch(test, gpu, &memory, 0..PAGES)?;
        check!(faults <= 10);
        check_eq!(home, PAGES);
        memory.verify(1)?;
        memory.unmap()?;
    }
    Ok(())
}

/// Several readers, each in its own part, don't disturb each other.
fn several_readers(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = in_device(test, gpu, 4 * PAGES)?;
    let turns = (0..PAGES).flat_map(|page| (0..4).map(move |part| part * PAGES + page));

    let (faults, home) = touch(test, gpu, &memory, turns)?;
    // Alone, each would take 6. The first touches of the others are far away, so look sparse.
    check!(faults <= 4 * 10);
    check_eq!(home, 4 * PAGES);
    memory.verify(1)
}

/// Touches that are far from each other bring less and less, down to a page.
fn sparse(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = in_device(test, gpu, 4 * PAGES)?;
    let mut home = KVec::new();

    for page in (0..4 * PAGES).step_by(256) {
        home.push(touch(test, gpu, &memory, [page].into_iter())?.1, GFP_KERNEL)?;
    }
    check_eq!(home[..], [16, 24, 28, 30, 31, 32, 33, 34]);
    memory.verify(1)
}

/// After that, a reader that goes through all of it is noticed again.
fn sequential_after_sparse(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = in_device(test, gpu, 4 * PAGES)?;

    touch(test, gpu, &memory, (0..4 * PAGES).step_by(128))?;
    let (faults, home) = touch(test, gpu, &memory, 0..4 * PAGES)?;
    check!(faults <= 40);
    check_eq!(home, 4 * PAGES);
    memory.verify(1)
}

/// A reader with small steps gets what is between them, too.
fn small_steps(test: &mut Test, gpu: &Gpu) -> Outcome {
    for step in [2, 3, 7, 16] {
        let memory = in_device(test, gpu, PAGES)?;

        let (faults, home) = touch(test, gpu, &memory, (0..PAGES).step_by(step))?;
        check!(faults <= 10);
        check_eq!(home, PAGES);
        memory.verify(1)?;
        memory.unmap()?;
    }
    Ok(())
}

/// After 2 MiB that were read from end to end, the next ones come home at once.
fn next_region(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = in_device(test, gpu, 3 * PAGES)?;

    check_eq!(touch(test, gpu, &memory, 0..PAGES)?, (6, PAGES));
    check_eq!(
        touch(test, gpu, &memory, [PAGES].into_iter())?,
        (1, 2 * PAGES)
    );
    check_eq!(touch(test, gpu, &memory, PAGES..3 * PAGES)?, (1, 3 * PAGES));
    check_eq!(gpu.pagemap().counters().windows[9], 2);
    memory.verify(1)
}

/// Regions that share a word push each other out, and nothing worse.
fn many_regions(test: &mut Test, _gpu: &Gpu) -> Outcome {
    let gpu = Gpu::with_policy(10 * PAGES, Policy::new().with_window(FaultWindow::Adaptive))?;
    let memory = in_device(test, &gpu, 10 * PAGES)?;
    let turns = (0..PAGES).flat_map(|page| (0..10).map(move |part| part * PAGES + page));

    let (_, home) = touch(test, &gpu, &memory, turns)?;
    check_eq!(home, 10 * PAGES);
    memory.verify(1)?;
    memory.unmap()?;
    gpu.finish()
}

/// The window ends where the memory does, and takes nothing from other allocations.
fn neighbours(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(PAGES)?;

    memory.fill(1)?;
    let a = gpu.migrate(test.mm(), memory.pages(3..37))?;
    let b = gpu.migrate(test.mm(), memory.pages(37..99))?;

    memory.touch(36)?;
    gpu.check_in_ram(test.mm(), &memory.part(32..37))?;
    gpu.check_in_device(test.mm(), &memory.part(3..32))?;
    gpu.check_in_device(test.mm(), &memory.part(37..99))?;
    touch(test, gpu, &memory, (3..37).rev())?;
    check!(a.is_detached());
    check!(!b.is_detached());
    gpu.check_in_device(test.mm(), &memory.part(37..99))?;

    // Within a window that reaches beyond what is mapped on both sides.
    memory.part(0..40).unmap()?;
    memory.part(50..PAGES).unmap()?;
    memory.touch(45)?;
    gpu.check_in_ram(test.mm(), &memory.part(40..48))?;
    for page in 40..50 {
        memory.part(page..page + 1).verify(1)?;
    }
    check!(b.is_detached());
    Ok(())
}

/// A large folio comes home as one.
fn large_folio(test: &mut Test, gpu: &Gpu) -> Outcome {
    for page in [0, 100, PAGES - 1] {
        let memory = UserMemory::map_aligned(PAGES)?;

        memory.fill_huge(1)?;
        gpu.migrate(test.mm(), memory.range())?;
        check!(gpu.device_order(test.mm(), memory.addr(0))? > 0);
        check_eq!(touch(test, gpu, &memory, [page].into_iter())?, (1, PAGES));
        check!(memory.is_huge()?);
        memory.verify(1)?;
        memory.unmap()?;
    }
    Ok(())
}

/// If the window can't be copied home, the page that is wanted is.
fn falls_back_to_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = in_device(test, gpu, PAGES)?;

    gpu.vram().most_to_ram.store(1, Relaxed);
    check_eq!(touch(test, gpu, &memory, [5].into_iter())?, (2, 1));
    gpu.check_in_ram(test.mm(), &memory.part(5..6))?;
    gpu.vram().most_to_ram.store(usize::MAX, Relaxed);
    memory.verify(1)
}

/// Threads that read the same allocation from both ends.
fn threads(test: &mut Test, gpu: &Gpu) -> Outcome {
    for _ in 0..5 {
        let memory = in_device(test, gpu, PAGES)?;
        let upper = memory.part(PAGES / 2..PAGES);
        let thread = Thread::start(|_| {
            for page in (0..PAGES / 2).rev() {
                upper.touch(page)?;
            }
            Ok(())
        })?;
        let here = memory.part(0..PAGES / 2).verify(1);

        thread.join()?;
        here?;
        memory.verify(1)?;
        memory.unmap()?;
    }
    Ok(())
}

/// The other windows, on a GPU that has them.
fn page_by_page(test: &mut Test, _gpu: &Gpu) -> Outcome {
    let gpu = Gpu::with_policy(VRAM_PAGES, Policy::new().with_window(FaultWindow::Page))?;
    let memory = in_device(test, &gpu, 64)?;

    check_eq!(touch(test, &gpu, &memory, [5].into_iter())?, (1, 1));
    check_eq!(touch(test, &gpu, &memory, [5, 6, 40].into_iter())?, (2, 3));
    check_eq!(touch(test, &gpu, &memory, 0..64)?, (61, 64));

    let counters = gpu.pagemap().counters();
    check_eq!(counters.faults, 64);
    check_eq!(counters.pages_home, 64);
    check_eq!(counters.windows[0], 64);
    memory.verify(1)?;
    memory.unmap()?;
    large_folio(test, &gpu)?;
    gpu.finish()
}

/// By default, all of it comes home.
fn default_is_all(test: &mut Test, _gpu: &Gpu) -> Outcome {
    check_eq!(Policy::new(), Policy::default());
    check_eq!(Policy::new().window, FaultWindow::Allocation);

    let gpu = Gpu::new()?;
    let memory = in_device(test, &gpu, PAGES)?;

    check_eq!(touch(test, &gpu, &memory, [300].into_iter())?, (1, PAGES));
    check_eq!(gpu.pagemap().counters().windows[9], 1);
    check_eq!(gpu.pagemap().counters().pages_home, PAGES as u64);
    memory.verify(1)?;
    memory.unmap()?;
    gpu.finish()
}

suite!(
    drm_pagemap_window,
    crate::window::adaptive,
    [
        one_byte,
        upwards,
        downwards,
        touched_before,
        several_readers,
        sparse,
        sequential_after_sparse,
        small_steps,
        next_region,
        many_regions,
        neighbours,
        large_folio,
        falls_back_to_page,
        threads,
        page_by_page,
        default_is_all,
    ]
);
