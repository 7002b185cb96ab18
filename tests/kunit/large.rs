// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Large folios: whole where there is room for them, page by page where not.

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
    thread::Thread,
    user::{
        NoHugePages,
        UserMemory,
        HUGE, //
    },
    vram::Layout, //
};
use drm_pagemap::{
    migrate::Details,
    mm::{
        LockedMm,
        PMD_ORDER, //
    },
    queue, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::Relaxed, //
};

/// The pages of a huge page.
const PAGES: usize = HUGE / PAGE_SIZE;

/// Huge pages in RAM, filled with the pattern of `seed`.
fn huge(number: usize, seed: u64) -> Outcome<UserMemory> {
    let memory = UserMemory::map_aligned(number * PAGES)?;

    memory.want_huge()?;
    memory.fill(seed)?;
    for i in 0..number {
        if !memory.part(i * PAGES..(i + 1) * PAGES).is_huge()? {
            return Err(Failure::skip(fmt!("the kernel had no huge page to give")));
        }
    }
    Ok(memory)
}

/// Checks the order of the folio that a page is in.
fn check_order(test: &Test, gpu: &Gpu, memory: &UserMemory, page: usize, order: u32) -> Outcome {
    check_eq!(gpu.device_order(test.mm(), memory.addr(page))?, order);
    Ok(())
}

/// There as one folio, copied in one go, and home as one by a touch.
fn there_and_back(test: &mut Test, gpu: &Gpu) -> Outcome {
    for touched in [0, 100, PAGES - 1] {
        let memory = huge(1, 1)?;
        let calls = gpu.vram().copy_to_ram.calls();
        let devmem = gpu.migrate(test.mm(), memory.range())?;

        check_order(test, gpu, &memory, 0, PMD_ORDER)?;
        check_order(test, gpu, &memory, touched, PMD_ORDER)?;
        gpu.check_in_device(test.mm(), &memory)?;
        memory.touch(touched)?;
        check!(devmem.is_detached());
        check!(memory.is_huge()?);
        check_eq!(gpu.vram().copy_to_ram.calls(), calls + 1);
        memory.verify(1)?;
        memory.unmap()?;
    }
    Ok(())
}

/// Every page of it is found, wherever one starts to look.
fn places(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(2, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    let start = gpu.device_pfn(test.mm(), memory.addr(0))?.as_usize();
    for page in [1, 100, PAGES - 1, PAGES, PAGES + 7] {
        let pfn = gpu.device_pfn(test.mm(), memory.addr(page))?;
        check_eq!(pfn.as_usize(), start + page);
    }
    gpu.check_in_device(test.mm(), &memory.part(PAGES - 5..2 * PAGES - 3))?;
    memory.verify(1)
}

/// Evicted as one.
fn evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(2, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    check_order(test, gpu, &memory, PAGES, PMD_ORDER)?;
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 2 * PAGES);
    check!(memory.is_huge()?);
    check!(memory.part(PAGES..2 * PAGES).is_huge()?);
    memory.verify(1)
}

/// Addresses never touched become a large folio of zeroes, in one pass.
fn first_touch(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(PAGES)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    check_order(test, gpu, &memory, 0, PMD_ORDER)?;
    check_eq!(gpu.vram().counts.cleared.load(Relaxed), HUGE as u64);
    check_eq!(gpu.vram().copy_to_devmem.calls(), 1);
    check!(!devmem.is_detached());
    memory.verify_zero()
}

/// A hole that spans several page tables.
fn large_hole(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(3 * PAGES)?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.check_in_device(test.mm(), &memory)?;
    for i in 0..3 {
        check_order(test, gpu, &memory, i * PAGES, PMD_ORDER)?;
    }
    memory.verify_zero()
}

/// All kinds in one range: a huge page, single pages, single holes, a large hole that the range
/// cuts.
fn mixed(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(4 * PAGES)?;
    let range = memory.part(PAGES / 2..4 * PAGES - PAGES / 2);

    memory.part(PAGES..2 * PAGES).want_huge()?;
    memory.part(0..2 * PAGES).fill(1)?;
    for page in (2 * PAGES..3 * PAGES).step_by(3) {
        memory.part(page..page + 1).fill(1)?;
    }
    let devmem = gpu.migrate(test.mm(), range.range())?;

    gpu.check_in_device(test.mm(), &range)?;
    check_eq!(devmem.size(), 3 * HUGE);
    memory.part(0..2 * PAGES).verify(1)?;
    for page in 2 * PAGES..3 * PAGES {
        let page = memory.part(page..page + 1);

        if (page.addr(0) - memory.addr(2 * PAGES)) / PAGE_SIZE % 3 == 0 {
            page.verify(1)?;
        } else {
            page.verify_zero()?;
        }
    }
    memory.part(3 * PAGES..4 * PAGES).verify_zero()
}

/// Device memory that is not contiguous takes them page by page; so does a huge page's part.
fn scattered(test: &mut Test, gpu: &Gpu) -> Outcome {
    for layout in [Layout::Scattered, Layout::Backwards, Layout::Shuffled] {
        let memory = huge(1, 1)?;

        gpu.migrate_as(test.mm(), memory.range(), layout, &Details::default())?;
        check_order(test, gpu, &memory, 7, 0)?;
        gpu.check_in_device(test.mm(), &memory)?;
        memory.verify(1)?;
        memory.unmap()?;
    }

    // A hole, too.
    let memory = UserMemory::map_aligned(PAGES)?;
    gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::Scattered,
        &Details::default(),
    )?;
    check_order(test, gpu, &memory, 7, 0)?;
    memory.verify_zero()
}

/// Contiguous device memory that is not aligned takes no large folios either.
fn misaligned(test: &mut Test, gpu: &Gpu) -> Outcome {
    let small = UserMemory::filled(3, 2)?;
    let memory = huge(1, 1)?;

    gpu.migrate(test.mm(), small.range())?;
    gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::FirstFit,
        &Details::default(),
    )?;
    check_order(test, gpu, &memory, 7, 0)?;
    memory.verify(1)?;
    small.verify(2)
}

/// With no huge page to be had in RAM, a touch still brings it home, and does not copy it all
/// twice.
fn touch_without_huge_pages(test: &mut Test, gpu: &Gpu) -> Outcome {
    for touched in [0, 77, PAGES - 1] {
        let memory = huge(1, 1)?;
        let devmem = gpu.migrate(test.mm(), memory.range())?;
        let copied = gpu.vram().counts.copied_out.load(Relaxed);
        let none = NoHugePages::new()?;

        check_order(test, gpu, &memory, touched, PMD_ORDER)?;
        memory.touch(touched)?;
        check!(!memory.is_huge()?);
        gpu.check_in_ram(test.mm(), &memory)?;
        check!(devmem.is_detached());
        drop(none);
        let copied = gpu.vram().counts.copied_out.load(Relaxed) - copied;
        check!(copied <= (HUGE + PAGE_SIZE) as u64);
        memory.verify(1)?;
        memory.unmap()?;
    }
    Ok(())
}

/// The same with an allocation of several, of which each comes home when it is touched.
fn touch_of_several_without_huge_pages(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(3, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let none = NoHugePages::new()?;

    memory.touch(PAGES + 5)?;
    check!(!memory.part(PAGES..2 * PAGES).is_huge()?);
    memory.verify(1)?;
    check!(devmem.is_detached());
    drop(none);
    Ok(())
}

/// Evicted with no huge page to be had: split without a copy, and copied once.
fn evict_without_huge_pages(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(2, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let none = NoHugePages::new()?;
    let (moved, result) = devmem.evict_to_ram();

    result?;
    check_eq!(moved, 2 * PAGES);
    check!(!memory.is_huge()?);
    drop(none);
    check_eq!(gpu.vram().counts.copied_out.load(Relaxed), 2 * HUGE as u64);
    memory.verify(1)
}

/// The same from outside of the address space, whose mmap lock is somebody's.
fn evict_needs_the_mmap_lock(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(1, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let none = NoHugePages::new()?;
    let lock = test.lock_mmap_for_writing();

    // Not to be had, and not waited for.
    let (moved, result) = devmem.evict_to_ram();
    check_err!(result, EBUSY);
    check_eq!(moved, 0);
    drop(lock);
    devmem.evict_to_ram().1?;
    drop(none);
    memory.verify(1)
}

/// The device goes away when there is no huge page to be had.
fn unregister_without_huge_pages(test: &mut Test, _: &Gpu) -> Outcome {
    let mut gpu = Gpu::new()?;
    let memory = huge(1, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    let none = NoHugePages::new()?;
    gpu.unregister();
    drop(none);
    memory.verify(1)?;
    gpu.finish()
}

/// Of a large folio that a process has unmapped a part of, the rest comes home.
fn partly_unmapped(test: &mut Test, gpu: &Gpu) -> Outcome {
    for (unmapped, left) in [
        (0..PAGES / 2, PAGES / 2..PAGES),
        (PAGES / 2..PAGES, 0..PAGES / 2),
        (1..PAGES, 0..1),
    ] {
        for evict in [false, true] {
            let memory = huge(1, 1)?;
            let left = memory.part(left.clone());
            let devmem = gpu.migrate(test.mm(), memory.range())?;

            memory.part(unmapped.clone()).unmap()?;
            if evict {
                devmem.evict_to_ram().1?;
            } else {
                left.touch(0)?;
            }
            check!(devmem.is_detached());
            gpu.check_in_ram(test.mm(), &left)?;
            left.verify(1)?;
            left.unmap()?;
        }
    }
    Ok(())
}

/// The same without huge pages.
fn partly_unmapped_without_huge_pages(test: &mut Test, gpu: &Gpu) -> Outcome {
    for evict in [false, true] {
        let memory = huge(1, 1)?;
        let left = memory.part(PAGES - 9..PAGES);
        let devmem = gpu.migrate(test.mm(), memory.range())?;
        let none = NoHugePages::new()?;

        memory.part(0..PAGES - 9).unmap()?;
        if evict {
            devmem.evict_to_ram().1?;
        } else {
            left.touch(3)?;
        }
        check!(devmem.is_detached());
        drop(none);
        left.verify(1)?;
        left.unmap()?;
    }
    Ok(())
}

/// A reference on it: it stays, whole, and comes home when that is gone.
fn held(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(1, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let page = gpu.hold_page(test.mm(), memory.addr(3))?;

    check_err!(devmem.evict_to_ram().1, EBUSY);
    check_order(test, gpu, &memory, 3, PMD_ORDER)?;
    drop(page);
    devmem.evict_to_ram().1?;
    memory.verify(1)
}

/// A copy that fails: all of it stays in device memory, whole.
fn failed_copies(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(1, 1)?;

    gpu.vram().copy_to_devmem.fail(1, 1, EIO);
    check_err!(gpu.migrate(test.mm(), memory.range()), EIO);
    check!(memory.is_huge()?);
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.vram().copy_to_ram.fail_always(EIO);
    check_err!(memory.touch(1), EFAULT);
    check_err!(devmem.evict_to_ram().1, EIO);
    gpu.vram().copy_to_ram.heal();
    check_order(test, gpu, &memory, 0, PMD_ORDER)?;
    memory.verify(1)
}

/// A copy that fails while a huge page is brought home page by page.
fn failed_copies_without_huge_pages(test: &mut Test, gpu: &Gpu) -> Outcome {
    for (nth, touched) in [(1, 0), (1, 1), (2, 0), (2, 1), (2, PAGES - 1)] {
        let memory = huge(1, 1)?;
        let devmem = gpu.migrate(test.mm(), memory.range())?;
        let none = NoHugePages::new()?;

        gpu.vram().copy_to_ram.fail(nth, 100, EIO);
        check_err!(memory.touch(touched), EFAULT);
        gpu.vram().copy_to_ram.heal();
        memory.verify(1)?;
        check!(devmem.is_detached());
        drop(none);
        memory.unmap()?;
    }
    Ok(())
}

/// How many DMA mappings a huge page takes.
fn pieces(gpu: &Gpu) -> usize {
    match gpu.dma_max_pages() {
        0 => PAGES,
        most => PAGES.div_ceil(most.min(PAGES)),
    }
}

/// Each DMA mapping that a huge page takes fails once: those that were made before it are undone.
fn failed_mappings(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(1, 1)?;
    let pieces = pieces(gpu);

    for nth in 1..=pieces {
        gpu.fail_dma(nth, 1)?;
        let result = test.without_warnings(|| gpu.migrate(test.mm(), memory.range()));
        check_err!(result, EFAULT);
        check!(memory.is_huge()?);
    }
    for nth in 1..=pieces {
        let devmem = gpu.migrate(test.mm(), memory.range())?;

        // The eviction tries again by itself.
        gpu.fail_dma(nth, 1)?;
        test.without_warnings(|| devmem.evict_to_ram().1)?;
    }
    memory.verify(1)
}

/// As many mappings as the DMA layer needs for a huge page.
fn mappings(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(1, 1)?;
    let pieces = pieces(gpu);
    let maps = gpu.dma_maps()?;

    pr_info!(
        "a DMA mapping is of {} pages at most\n",
        gpu.dma_max_pages()
    );
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    check_eq!(gpu.dma_maps()? - maps, pieces);
    devmem.evict_to_ram().1?;
    check_eq!(gpu.dma_maps()? - maps, 2 * pieces);
    memory.verify(1)
}

/// The device works on a large folio that is held; it stays whole.
fn held_for_work(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(1, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    {
        let mm = drm_pagemap::mm::LockedMm::read(test.mm());
        let pages = gpu.hold_pages(&mm, memory.range())?;
        let runs: usize = pages.runs().map(|run| (run.end - run.start) as usize).sum();

        check_eq!(runs, HUGE);
        check_eq!(pages.runs().count(), 1);
    }
    check_order(test, gpu, &memory, 0, PMD_ORDER)?;
    check!(!devmem.is_detached());
    memory.verify(1)
}

/// Frames of a large folio that is no more, of which later allocations use some only: the others, free
/// as they are, don't hide those behind them from an eviction.
fn used_again(test: &mut Test, gpu: &Gpu) -> Outcome {
    let large = huge(1, 1)?;
    let devmem = gpu.migrate(test.mm(), large.range())?;
    check_order(test, gpu, &large, 0, PMD_ORDER)?;
    let start = gpu.device_pfn(test.mm(), large.addr(0))?.as_usize();
    devmem.evict_to_ram().1?;
    drop(devmem);
    queue::flush();

    // Its first frame is left free by one, one in its middle by the other.
    let halves = [0, PAGES / 2].map(|at| -> Outcome<_> {
        let memory = UserMemory::filled(PAGES / 2, 2)?;
        let _pin = memory.pin(0)?;
        let mm = LockedMm::read(test.mm());
        let new = gpu.alloc(PAGES / 2)?;
        let (devmem, _) = new.migrate_missing(&mm, memory.range(), &Details::default())?;

        drop(mm);
        let second = gpu.device_pfn(test.mm(), memory.addr(1))?;
        check_eq!(second.as_usize(), start + at + 1);
        Ok((memory, devmem))
    });
    for half in halves {
        let (memory, devmem) = half?;
        let (moved, result) = devmem.evict_to_ram();

        result?;
        check_eq!(moved, PAGES / 2 - 1);
        gpu.check_in_ram(test.mm(), &memory)?;
        memory.verify(2)?;
    }
    large.verify(1)
}

/// Unmapped while it is on its way home: gone once, not twice, and its frames can be used again.
fn unmapped_on_its_way(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = huge(1, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let evict = || match devmem.evict_to_ram().1 {
        Err(err) if err == EBUSY => Ok(()),
        result => result.map_err(Failure::from),
    };

    check_order(test, gpu, &memory, 0, PMD_ORDER)?;
    let start = gpu.device_pfn(test.mm(), memory.addr(0))?.as_usize();
    gpu.vram()
        .copy_to_ram
        .while_stopped(
            || Thread::start(|_| evict()),
            || memory.unmap().map_err(Failure::from),
        )?
        .join()?;
    check!(devmem.is_detached());
    drop(devmem);
    queue::flush();
    check_eq!(gpu.vram().live(), 0);

    let memory = huge(1, 2)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let second = gpu.device_pfn(test.mm(), memory.addr(0))?.as_usize();
    check_eq!(second, start);
    check_order(test, gpu, &memory, 0, PMD_ORDER)?;
    devmem.evict_to_ram().1?;
    memory.verify(2)
}

suite!(
    drm_pagemap_large,
    crate::harness::with_gpu,
    [
        there_and_back,
        places,
        evict,
        used_again,
        unmapped_on_its_way,
        first_touch,
        large_hole,
        mixed,
        scattered,
        misaligned,
        touch_without_huge_pages,
        touch_of_several_without_huge_pages,
        evict_without_huge_pages,
        evict_needs_the_mmap_lock,
        unregister_without_huge_pages,
        partly_unmapped,
        partly_unmapped_without_huge_pages,
        held,
        failed_copies,
        failed_copies_without_huge_pages,
        mappings,
        failed_mappings,
        held_for_work,
    ]
);
