// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! To device memory and back: the bytes.

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
    queue, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::Relaxed, //
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

    memory.fill_huge(7)?;
    round_trip(test, gpu, memory, Layout::Contiguous, Home::Fault)
}

fn huge_page_evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(HUGE_PAGES)?;

    memory.fill_huge(7)?;
    round_trip(test, gpu, memory, Layout::Contiguous, Home::Evict)
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

/// Every third page was written, every third one only read (the zero page is there), the rest not
/// touched.
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

suite!(
    drm_pagemap_round_trip,
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
        device_writes_fault,
        device_writes_evict,
        holes_fault,
        holes_evict,
        holes_over_2m,
        mixture_fault,
        mixture_evict,
        many_rounds,
    ]
);
