// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Migration to device memory: what may go, what is refused, and what becomes of it.

use crate::{
    ffi::Map,
    gpu::{
        Gpu,
        Residency, //
    },
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    user::{
        UserMemory,
        HUGE, //
    },
};
use drm_pagemap::{
    migrate::Details,
    mm::LockedMm,
    queue,
    Pagemap, //
};
use kernel::{
    mm::Mm,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::Relaxed, //
    }, //
};

/// The pages of 2 MiB.
const HUGE_PAGES: usize = HUGE / PAGE_SIZE;

/// A part of a huge page; the rest stays what it is.
fn part_of_huge_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(HUGE_PAGES)?;
    let part = memory.part(17..210);

    memory.fill_huge(7)?;
    gpu.migrate(test.mm(), part.range())?;
    gpu.check_in_device(test.mm(), &part)?;
    gpu.check_in_ram(test.mm(), &memory.part(0..17))?;
    gpu.check_in_ram(test.mm(), &memory.part(210..HUGE_PAGES))?;
    memory.verify(7)
}

/// Memory that the process may only read.
fn read_only(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_kind(5, Map::PrivateReadOnly)?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.check_in_device(test.mm(), &memory)?;
    check_err!(memory.write(0, &[1]), EFAULT);
    memory.verify_zero()?;
    check_err!(memory.write(0, &[1]), EFAULT);
    memory.verify_zero()
}

/// A range that is shorter than the allocation.
fn shorter_range(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(16, 1)?;
    let part = memory.part(3..8);
    let devmem = gpu.alloc(16)?.migrate_to_devmem(
        &LockedMm::read(test.mm()),
        part.range(),
        &Details::default(),
    )?;

    gpu.check_in_device(test.mm(), &part)?;
    gpu.check_in_ram(test.mm(), &memory.part(0..3))?;
    gpu.check_in_ram(test.mm(), &memory.part(8..16))?;
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 5);
    memory.verify(1)
}

/// Several allocations side by side, evicted in another order.
fn side_by_side(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(60, 1)?;
    let mut all = KVec::new();

    for i in 0..6 {
        let devmem = gpu.migrate(test.mm(), memory.pages(10 * i..10 * i + 10))?;
        all.push(devmem, GFP_KERNEL)?;
    }
    gpu.check_in_device(test.mm(), &memory)?;
    for i in [4, 0, 5] {
        all[i].evict_to_ram().1?;
        gpu.check_in_ram(test.mm(), &memory.part(10 * i..10 * i + 10))?;
    }
    for i in [1, 2, 3] {
        check!(!all[i].is_detached());
    }
    gpu.check_in_device(test.mm(), &memory.part(10..40))?;
    memory.verify(1)
}

/// What is there already stays there; the new allocation goes.
fn already_resident(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let first = gpu.migrate(test.mm(), memory.range())?;
    let second = gpu.migrate(test.mm(), memory.range())?;

    check!(second.is_detached());
    check!(!first.is_detached());
    drop(second);
    queue::flush();
    check_eq!(gpu.vram().live(), 1);
    check_eq!(gpu.vram().copy_to_devmem.calls(), 1);
    gpu.check_in_device(test.mm(), &memory)?;
    memory.verify(1)
}

/// A range that is partly there is refused, and nothing changes.
fn partly_resident(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let first = gpu.migrate(test.mm(), memory.pages(2..5))?;

    check_err!(gpu.migrate(test.mm(), memory.range()), EBUSY);
    queue::flush();
    check_eq!(gpu.vram().live(), 1);
    check!(!first.is_detached());
    check_eq!(
        gpu.residency(test.mm(), memory.range())?,
        Residency {
            ram: 5,
            device: 3,
            ..Residency::default()
        }
    );
    gpu.check_in_device(test.mm(), &memory.part(2..5))?;
    memory.verify(1)
}

/// Pages in another device's memory are not taken.
fn on_another_device(test: &mut Test, gpu: &Gpu) -> Outcome {
    let other = Gpu::with_pages(64)?;
    let memory = UserMemory::filled(8, 1)?;

    other.migrate(test.mm(), memory.range())?;
    check_err!(gpu.migrate(test.mm(), memory.range()), EBUSY);
    other.check_in_device(test.mm(), &memory)?;
    memory.verify(1)?;
    gpu.migrate(test.mm(), memory.range())?;
    memory.verify(1)?;
    other.finish()
}

/// Ranges that can't be migrated: each kind has its error, and the allocation is released.
fn bad_ranges(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let all = memory.range();
    let gone = UserMemory::map(4)?;
    let half = PAGE_SIZE / 2;

    gone.unmap()?;
    for (range, err) in [
        (gone.range(), ENOENT),
        (0..PAGE_SIZE, ENOENT),
        // Only partly mapped.
        (all.start..all.end + PAGE_SIZE * 1000, EINVAL),
        // Misaligned.
        (all.start + half..all.end, EINVAL),
        (all.start..all.end - half, EINVAL),
        (all.start + 1..all.end + 1, EINVAL),
        // Empty, and the wrong way round.
        (all.start..all.start, EINVAL),
        (all.end..all.start, EINVAL),
        // Up to the end of the world.
        (all.start..usize::MAX & !(PAGE_SIZE - 1), EINVAL),
        (all.end..0, EINVAL),
    ] {
        let devmem = gpu.alloc(8)?;

        check_err!(
            devmem.migrate_to_devmem(&LockedMm::read(test.mm()), range, &Details::default()),
            err
        );
        queue::flush();
        check_eq!(gpu.vram().live(), 0);
    }
    check_eq!(gpu.vram().copy_to_devmem.calls(), 0);
    memory.verify(1)
}

/// A range that is larger than the allocation.
fn too_large(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;

    check_err!(
        gpu.alloc(7)?.migrate_to_devmem(
            &LockedMm::read(test.mm()),
            memory.range(),
            &Details::default()
        ),
        EINVAL
    );
    memory.verify(1)
}

/// A hole in the middle of the range: two areas.
fn two_areas(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;

    memory.part(4..5).unmap()?;
    check_err!(gpu.migrate(test.mm(), memory.range()), EINVAL);
    memory.part(0..4).verify(1)?;
    memory.part(5..8).verify(1)
}

/// Memory that is not private and anonymous.
fn not_anonymous(test: &mut Test, gpu: &Gpu) -> Outcome {
    for kind in [Map::Shared, Map::FilePrivate, Map::FileShared] {
        let memory = UserMemory::map_kind(4, kind)?;

        memory.fill(1)?;
        check_err!(gpu.migrate(test.mm(), memory.range()), EOPNOTSUPP);
        queue::flush();
        check_eq!(gpu.vram().live(), 0);
        memory.verify(1)?;
    }
    Ok(())
}

/// A page is pinned for DMA by somebody else.
fn pinned(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let pin = memory.pin(3)?;

    check_err!(gpu.migrate(test.mm(), memory.range()), EBUSY);
    check_eq!(gpu.vram().copy_to_devmem.calls(), 0);
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.verify(1)?;

    // Its neighbours can go.
    gpu.migrate(test.mm(), memory.pages(4..8))?;
    gpu.check_in_device(test.mm(), &memory.part(4..8))?;
    memory.verify(1)?;

    drop(pin);
    gpu.migrate(test.mm(), memory.range())?;
    gpu.check_in_device(test.mm(), &memory)?;
    memory.verify(1)
}

/// The driver names fewer pages than the allocation has.
fn too_few_pfns(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;

    gpu.vram().too_few_pfns.store(1, Relaxed);
    check_err!(gpu.migrate(test.mm(), memory.range()), EINVAL);
    gpu.vram().too_few_pfns.store(0, Relaxed);
    check_eq!(gpu.vram().copy_to_devmem.calls(), 0);
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.verify(1)
}

/// Unmapping frees device memory.
fn unmap(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    memory.unmap()?;
    check!(devmem.is_detached());
    queue::flush();
    check_eq!(gpu.vram().counts.released.load(Relaxed), 1);
    drop(devmem);
    check_eq!(gpu.vram().nr_used(), 0);
    check_eq!(gpu.vram().copy_to_ram.calls(), 0);
    check_err!(memory.touch(0), EFAULT);
    Ok(())
}

/// As `madvise(MADV_DONTNEED)`: the pages go, the area stays.
fn zap(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    {
        let locked = LockedMm::read(test.mm());
        let vma = locked.vma_lookup(memory.addr(2)).ok_or(ENOENT)?;
        vma.zap_vma_range(memory.addr(2), 3 * PAGE_SIZE);
    }
    check!(!devmem.is_detached());
    memory.part(2..5).verify_zero()?;
    memory.part(2..5).fill(2)?;
    memory.part(0..2).verify(1)?;
    memory.part(2..5).verify(2)?;
    memory.part(5..8).verify(1)?;
    // The range is whole again.
    gpu.migrate(test.mm(), memory.range())?;
    memory.part(2..5).verify(2)
}

/// The process ends while its pages are in device memory.
fn process_ends(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(40, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.migrate(test.mm(), UserMemory::map(10)?.range())?;
    test.end_mm();
    check!(devmem.is_detached());
    drop(devmem);
    gpu.check_idle()?;
    check_eq!(gpu.vram().copy_to_ram.calls(), 0);
    Ok(())
}

/// Through the driver's `populate_mm` operation, as others ask for it.
fn populate_mm(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(12, 1)?;

    Pagemap::populate_mm(gpu.pagemap(), test.mm(), memory.range(), 0)?;
    gpu.check_in_device(test.mm(), &memory)?;
    memory.verify(1)?;

    let hole = UserMemory::map(1)?;
    hole.unmap()?;
    check_err!(
        Pagemap::populate_mm(gpu.pagemap(), test.mm(), hole.range(), 0),
        ENOENT
    );
    Ok(())
}

/// Another process's memory, and that of one that is dead.
fn populate_other_mm(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(12, 1)?;
    let other = test.step_out();

    test.enter_mm()?;
    Pagemap::populate_mm(gpu.pagemap(), other.mm(), memory.range(), 0)?;
    check_eq!(gpu.vram().nr_used(), 12);

    let dead: ARef<Mm> = other.mm().into();
    drop(other);
    queue::flush();
    check_eq!(gpu.vram().nr_used(), 0);
    check_err!(
        Pagemap::populate_mm(gpu.pagemap(), &dead, memory.range(), 0),
        EFAULT
    );
    Ok(())
}

suite!(
    drm_pagemap_to_devmem,
    crate::harness::with_gpu,
    [
        part_of_huge_page,
        read_only,
        shorter_range,
        side_by_side,
        already_resident,
        partly_resident,
        on_another_device,
        bad_ranges,
        too_large,
        two_areas,
        not_anonymous,
        pinned,
        too_few_pfns,
        unmap,
        zap,
        process_ends,
        populate_mm,
        populate_other_mm,
    ]
);
