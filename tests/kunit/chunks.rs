// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Ranges that take more than one PMD: they are migrated in chunks, by all processors.

use crate::{
    gpu::Gpu,
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Failure,
        Outcome,
        Test, //
    },
    user::UserMemory,
    vram::Layout, //
};
use core::ops::Range;
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
    page::PAGE_SIZE,
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

/// So many PMDs are more than what is copied at a time, and the second chunk is a smaller one.
const PMDS: usize = 11;

/// What `body` needs a larger device for: memory of [`PMDS`], all but `single` mapped whole, and room
/// for twice as much.
fn with_huge(
    test: &mut Test,
    single: Range<usize>,
    body: impl FnOnce(&mut Test, &Gpu, &UserMemory) -> Outcome,
) -> Outcome {
    let pages = PMDS * NR_PMD_PAGES;
    let gpu = Gpu::with_pages(2 * pages)?;
    let outcome = (|| {
        let memory = UserMemory::map_aligned(pages)?;

        memory.want_small()?;
        for i in single.clone() {
            memory.part(pmd(i)).fill(0)?;
        }
        memory.want_huge()?;
        memory.fill(7)?;
        // Lest the core make a huge page of single ones, too. Those that are there stay.
        memory.want_small()?;
        for i in (0..PMDS).filter(|i| !single.contains(i)) {
            if !memory.part(pmd(i)).is_huge()? {
                return Err(Failure::skip(fmt!("the kernel had no huge page to give")));
            }
        }
        for i in single {
            if memory.part(pmd(i)).is_huge()? {
                return Err(Failure::skip(fmt!(
                    "the kernel was quick to make a huge page"
                )));
            }
        }
        body(test, &gpu, &memory)?;
        memory.verify(7)?;
        memory.unmap()?;
        Ok(())
    })();

    outcome?;
    gpu.finish()
}

/// The pages that PMD `i` maps.
fn pmd(i: usize) -> Range<usize> {
    i * NR_PMD_PAGES..(i + 1) * NR_PMD_PAGES
}

/// Checks the order of the folio that is in device memory where each PMD begins: single pages in those
/// of `single`.
fn check_orders(test: &Test, gpu: &Gpu, memory: &UserMemory, single: Range<usize>) -> Outcome {
    for i in 0..PMDS {
        let order = if single.contains(&i) { 0 } else { PMD_ORDER };

        check_eq!(
            gpu.device_order(test.mm(), memory.addr(pmd(i).start))?,
            order
        );
    }
    Ok(())
}

/// Where folios are large, several of them are copied at a time, there and back.
fn large_chunks(test: &mut Test, _gpu: &Gpu) -> Outcome {
    with_huge(test, 0..0, |test, gpu, memory| {
        let (to_devmem, to_ram) = (&gpu.vram().copy_to_devmem, &gpu.vram().copy_to_ram);
        let devmem = gpu.migrate(test.mm(), memory.range())?;

        check_eq!(to_devmem.calls(), 2);
        gpu.check_in_device(test.mm(), memory)?;
        check_orders(test, gpu, memory, 0..0)?;
        let (moved, result) = devmem.evict_to_ram();
        result?;
        check_eq!(moved, PMDS * NR_PMD_PAGES);
        check_eq!(to_ram.calls(), 2);
        gpu.check_in_ram(test.mm(), memory)?;
        for i in 0..PMDS {
            check!(memory.part(pmd(i)).is_huge()?);
        }
        gpu.check_no_dma()?;
        memory.verify(7)
    })
}

/// A fault brings home what a PMD maps around what it wants, and, in large chunks, the rest of what is
/// aligned as the allocation is large.
fn large_fault(test: &mut Test, _gpu: &Gpu) -> Outcome {
    with_huge(test, 0..0, |test, gpu, memory| {
        let to_ram = &gpu.vram().copy_to_ram;

        for touched in [0, 3 * NR_PMD_PAGES + 5, PMDS * NR_PMD_PAGES - 1] {
            gpu.migrate(test.mm(), memory.range())?;
            let before = to_ram.calls();
            memory.touch(touched)?;

            let size = memory.range().len().next_power_of_two();
            let window = memory.addr(touched) & !(size - 1);
            let page = |addr: usize| addr.saturating_sub(memory.addr(0)) / PAGE_SIZE;
            let home = page(window)..memory.nr_pages().min(page(window + size));

            gpu.check_in_ram(test.mm(), &memory.part(home.clone()))?;
            // Before what is wanted there can be one, and behind it two.
            check!(to_ram.calls() - before <= 4);
            for i in home.start / NR_PMD_PAGES..home.end / NR_PMD_PAGES {
                check!(memory.part(pmd(i)).is_huge()?);
            }
            memory.verify(7)?;
            gpu.check_in_ram(test.mm(), memory)?;
        }
        gpu.check_no_dma()
    })
}

/// The same, where single pages are between: a PMD at a time.
fn large_and_small(test: &mut Test, _gpu: &Gpu) -> Outcome {
    with_huge(test, 2..3, |test, gpu, memory| {
        let devmem = gpu.migrate(test.mm(), memory.range())?;

        check_eq!(gpu.vram().copy_to_devmem.calls(), PMDS);
        gpu.check_in_device(test.mm(), memory)?;
        check_orders(test, gpu, memory, 2..3)?;
        let (moved, result) = devmem.evict_to_ram();
        result?;
        check_eq!(moved, PMDS * NR_PMD_PAGES);
        gpu.check_in_ram(test.mm(), memory)?;
        gpu.check_no_dma()
    })
}

/// Device memory that begins elsewhere than a large folio can, seen from the range: page by page.
fn large_within(test: &mut Test, _gpu: &Gpu) -> Outcome {
    with_huge(test, 0..0, |test, gpu, memory| {
        let part = memory.part(9..memory.nr_pages() - 9);
        let devmem = gpu.alloc(part.nr_pages())?;

        devmem.migrate_to_devmem(
            &LockedMm::read(test.mm()),
            part.range(),
            &Details::default(),
        )?;
        check_eq!(gpu.vram().copy_to_devmem.calls(), PMDS);
        gpu.check_in_device(test.mm(), &part)?;
        memory.verify(7)
    })
}

/// Device memory in which no large folio fits: page by page, a PMD at a time.
fn large_to_scattered(test: &mut Test, _gpu: &Gpu) -> Outcome {
    with_huge(test, 0..0, |test, gpu, memory| {
        gpu.migrate_as(
            test.mm(),
            memory.range(),
            Layout::Scattered,
            &Details::default(),
        )?;
        check_eq!(gpu.vram().copy_to_devmem.calls(), PMDS);
        gpu.check_in_device(test.mm(), memory)?;
        memory.verify(7)
    })
}

/// Device memory that only looks as if large folios would fit: page by page.
fn large_to_shuffled(test: &mut Test, _gpu: &Gpu) -> Outcome {
    with_huge(test, 0..0, |test, gpu, memory| {
        let devmem = gpu.migrate_as(
            test.mm(),
            memory.range(),
            Layout::Shuffled,
            &Details::default(),
        )?;

        gpu.check_in_device(test.mm(), memory)?;
        check_orders(test, gpu, memory, 0..PMDS)?;
        let (moved, result) = devmem.evict_to_ram();
        result?;
        check_eq!(moved, PMDS * NR_PMD_PAGES);
        gpu.check_in_ram(test.mm(), memory)
    })
}

/// A copy fails, while another may be in flight: all comes home, whole. Then the way back fails, and
/// nothing is lost.
fn large_undone(test: &mut Test, _gpu: &Gpu) -> Outcome {
    with_huge(test, 0..0, |test, gpu, memory| {
        for nth in 1..=2 {
            gpu.vram().copy_to_devmem.fail(nth, 1, EIO);
            check_err!(gpu.migrate(test.mm(), memory.range()), EIO);
            gpu.vram().copy_to_devmem.heal();
            gpu.check_in_ram(test.mm(), memory)?;
            check!(memory.part(pmd(4)).is_huge()?);
            memory.verify(7)?;
            queue::flush();
            check_eq!(gpu.vram().live(), 0);
        }

        let devmem = gpu.migrate(test.mm(), memory.range())?;

        gpu.vram().copy_to_ram.fail_always(EIO);
        check_err!(devmem.evict_to_ram().1, EIO);
        gpu.vram().copy_to_ram.heal();
        gpu.check_in_device(test.mm(), memory)?;
        devmem.evict_to_ram().1?;
        gpu.check_in_ram(test.mm(), memory)?;
        gpu.check_no_dma()
    })
}

/// Nothing is where some PMDs could map large folios: zeroes come there, as large.
fn large_holes(test: &mut Test, _gpu: &Gpu) -> Outcome {
    with_huge(test, 0..0, |test, gpu, memory| {
        let hole = memory.part(pmd(1).start..pmd(3).end);

        {
            let locked = LockedMm::read(test.mm());
            let vma = locked.vma_lookup(hole.addr(0)).ok_or(ENOENT)?;

            vma.zap_vma_range(hole.addr(0), hole.range().len());
        }
        gpu.migrate(test.mm(), memory.range())?;
        check_eq!(gpu.vram().copy_to_devmem.calls(), 2);
        check_orders(test, gpu, memory, 0..0)?;
        check_eq!(
            gpu.vram().counts.cleared.load(Relaxed),
            hole.range().len() as u64
        );
        hole.verify_zero()?;
        hole.fill(7)
    })
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
        large_chunks,
        large_fault,
        large_and_small,
        large_within,
        large_to_scattered,
        large_to_shuffled,
        large_undone,
        large_holes,
    ]
);
