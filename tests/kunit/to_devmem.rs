// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Migration to device memory: what arrives there, what comes back, and what is refused.

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
    vram::Layout, //
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

/// How pages come home.
#[derive(Clone, Copy)]
enum Home {
    Fault,
    Evict,
}

/// There and back, with a look at what is there.
fn round_trip(test: &Test, gpu: &Gpu, memory: UserMemory, layout: Layout, home: Home) -> Outcome {
    let nr = memory.nr_pages();
    let (mut expected, mut actual) = (
        KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?,
        KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?,
    );

    memory.fill(7)?;
    let devmem = gpu.migrate_as(test.mm(), memory.range(), layout, &Details::default())?;
    gpu.check_in_device(test.mm(), &memory)?;
    check!(!devmem.is_detached());

    // What the device has is what the process wrote.
    for (i, &page) in devmem.pages().iter().enumerate() {
        memory.pattern(7, i, &mut expected);
        gpu.vram().read_page(page, &mut actual);
        memory.compare(i, &actual, &expected)?;
    }

    match home {
        Home::Fault => memory.verify(7)?,
        Home::Evict => {
            let (moved, result) = devmem.evict_to_ram();
            result?;
            check_eq!(moved, nr);
        }
    }
    gpu.check_in_ram(test.mm(), &memory)?;
    check!(devmem.is_detached());
    memory.verify(7)?;
    check_eq!(
        gpu.vram().counts.copied_in.load(Relaxed),
        (nr * PAGE_SIZE) as u64
    );
    check_eq!(
        gpu.vram().counts.copied_out.load(Relaxed),
        (nr * PAGE_SIZE) as u64
    );
    // It is the process's memory again.
    memory.fill(8)?;
    memory.verify(8)?;
    queue::flush();
    check_eq!(gpu.vram().counts.released.load(Relaxed), 1);
    Ok(())
}

fn one_page_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    round_trip(
        test,
        gpu,
        UserMemory::map(1)?,
        Layout::Contiguous,
        Home::Fault,
    )
}

fn one_page_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    round_trip(
        test,
        gpu,
        UserMemory::map(1)?,
        Layout::Contiguous,
        Home::Evict,
    )
}

fn several_pages_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    round_trip(
        test,
        gpu,
        UserMemory::map(37)?,
        Layout::Contiguous,
        Home::Fault,
    )
}

fn several_pages_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    round_trip(
        test,
        gpu,
        UserMemory::map(37)?,
        Layout::Contiguous,
        Home::Evict,
    )
}

fn scattered_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    round_trip(
        test,
        gpu,
        UserMemory::map(37)?,
        Layout::Scattered,
        Home::Fault,
    )
}

fn scattered_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    round_trip(
        test,
        gpu,
        UserMemory::map(37)?,
        Layout::Scattered,
        Home::Evict,
    )
}

fn backwards_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    round_trip(
        test,
        gpu,
        UserMemory::map(37)?,
        Layout::Backwards,
        Home::Fault,
    )
}

fn backwards_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    round_trip(
        test,
        gpu,
        UserMemory::map(37)?,
        Layout::Backwards,
        Home::Evict,
    )
}

/// More than one page table, from the middle of one to the middle of another.
fn over_2m_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(3 * HUGE_PAGES)?;
    let part = memory.part(100..100 + 2 * HUGE_PAGES + 7);

    round_trip(test, gpu, part, Layout::Contiguous, Home::Fault)
}

fn over_2m_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(3 * HUGE_PAGES)?;
    let part = memory.part(100..100 + 2 * HUGE_PAGES + 7);

    round_trip(test, gpu, part, Layout::Contiguous, Home::Evict)
}

/// Memory in huge pages.
fn huge_page_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(HUGE_PAGES)?;

    memory.want_huge()?;
    round_trip(test, gpu, memory, Layout::Contiguous, Home::Fault)
}

fn huge_page_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(HUGE_PAGES)?;

    memory.want_huge()?;
    round_trip(test, gpu, memory, Layout::Contiguous, Home::Evict)
}

/// A part of a huge page; the rest stays what it is.
fn part_of_huge_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(HUGE_PAGES)?;
    let part = memory.part(17..210);

    memory.want_huge()?;
    memory.fill(7)?;
    gpu.migrate(test.mm(), part.range())?;
    gpu.check_in_device(test.mm(), &part)?;
    gpu.check_in_ram(test.mm(), &memory.part(0..17))?;
    gpu.check_in_ram(test.mm(), &memory.part(210..HUGE_PAGES))?;
    memory.verify(7)
}

/// The device changes its memory, and the process sees that.
fn device_writes(test: &mut Test, gpu: &Gpu, home: Home) -> Outcome {
    let memory = UserMemory::filled(9, 7)?;
    let devmem = gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::Scattered,
        &Details::default(),
    )?;
    let (mut expected, mut actual) = (
        KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?,
        KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?,
    );

    for &page in devmem.pages() {
        gpu.vram().flip_page(page);
    }
    if matches!(home, Home::Evict) {
        devmem.evict_to_ram().1?;
    }
    for i in 0..memory.nr_pages() {
        memory.pattern(7, i, &mut expected);
        expected.iter_mut().for_each(|byte| *byte = !*byte);
        memory.read(i, &mut actual)?;
        memory.compare(i, &actual, &expected)?;
    }
    Ok(())
}

fn device_writes_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    device_writes(test, gpu, Home::Fault)
}

fn device_writes_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    device_writes(test, gpu, Home::Evict)
}

/// Memory that was never touched: cleared in the device, and zero at home.
fn holes(test: &mut Test, gpu: &Gpu, pages: usize, home: Home) -> Outcome {
    let memory = UserMemory::map(pages)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let zero = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
    let mut actual = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

    gpu.check_in_device(test.mm(), &memory)?;
    check_eq!(
        gpu.vram().counts.cleared.load(Relaxed),
        (pages * PAGE_SIZE) as u64
    );
    check_eq!(gpu.vram().counts.copied_in.load(Relaxed), 0);
    for (i, &page) in devmem.pages().iter().enumerate() {
        gpu.vram().read_page(page, &mut actual);
        memory.compare(i, &actual, &zero)?;
    }
    if matches!(home, Home::Evict) {
        devmem.evict_to_ram().1?;
    }
    memory.verify_zero()?;
    memory.fill(1)?;
    memory.verify(1)
}

fn holes_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    holes(test, gpu, 21, Home::Fault)
}

fn holes_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    holes(test, gpu, 21, Home::Evict)
}

fn holes_over_2m(test: &mut Test, gpu: &Gpu) -> Outcome {
    holes(test, gpu, 2 * HUGE_PAGES + 5, Home::Fault)
}

/// Every third page was written, every third one only read (the zero page is there), the rest not touched.
fn mixture(test: &mut Test, gpu: &Gpu, home: Home) -> Outcome {
    let memory = UserMemory::map(30)?;

    for i in (0..30).step_by(3) {
        memory.part(i..i + 1).fill(5)?;
        check_eq!(memory.touch(i + 1)?, 0);
    }
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.check_in_device(test.mm(), &memory)?;
    check_eq!(
        gpu.vram().counts.copied_in.load(Relaxed),
        10 * PAGE_SIZE as u64
    );
    check_eq!(
        gpu.vram().counts.cleared.load(Relaxed),
        20 * PAGE_SIZE as u64
    );
    if matches!(home, Home::Evict) {
        devmem.evict_to_ram().1?;
    }
    for i in (0..30).step_by(3) {
        memory.part(i..i + 1).verify(5)?;
        memory.part(i + 1..i + 3).verify_zero()?;
    }
    Ok(())
}

fn mixture_fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    mixture(test, gpu, Home::Fault)
}

fn mixture_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    mixture(test, gpu, Home::Evict)
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

/// Again and again, with other data each time.
fn many_rounds(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map(16)?;

    for round in 0..20 {
        memory.fill(round)?;
        let devmem = gpu.migrate(test.mm(), memory.range())?;
        gpu.check_in_device(test.mm(), &memory)?;
        if round % 2 == 0 {
            devmem.evict_to_ram().1?;
        }
        memory.verify(round)?;
    }
    queue::flush();
    check_eq!(gpu.vram().counts.released.load(Relaxed), 20);
    Ok(())
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
            none: 0,
            ram: 5,
            device: 3,
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
        one_page_fault,
        one_page_evict,
        several_pages_fault,
        several_pages_evict,
        scattered_fault,
        scattered_evict,
        backwards_fault,
        backwards_evict,
        over_2m_fault,
        over_2m_evict,
        huge_page_fault,
        huge_page_evict,
        part_of_huge_page,
        device_writes_fault,
        device_writes_evict,
        holes_fault,
        holes_evict,
        holes_over_2m,
        mixture_fault,
        mixture_evict,
        read_only,
        many_rounds,
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
