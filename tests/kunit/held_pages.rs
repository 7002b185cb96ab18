// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Pages that the device works on.

use crate::{
    gpu::Gpu,
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    thread::Thread,
    user::UserMemory,
    vram::Layout, //
};
use core::ops::Range;
use drm_pagemap::{
    migrate::Details,
    mm::LockedMm, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// Holds `range` and hands out the runs.
fn runs(test: &Test, gpu: &Gpu, range: Range<usize>) -> Result<KVec<Range<u64>>> {
    let locked = LockedMm::read(test.mm());
    let held = gpu.hold_pages(&locked, range)?;
    let mut runs = KVec::new();

    for run in held.runs() {
        runs.push(run, GFP_KERNEL)?;
    }
    Ok(runs)
}

/// Where the pages are: one run, or as many as pages.
fn places(test: &mut Test, gpu: &Gpu) -> Outcome {
    for (layout, nr) in [
        (Layout::Contiguous, 1),
        (Layout::Scattered, 11),
        (Layout::Backwards, 11),
    ] {
        let memory = UserMemory::filled(11, 1)?;
        let devmem = gpu.migrate_as(test.mm(), memory.range(), layout, &Details::default())?;
        let runs = runs(test, gpu, memory.range())?;
        let mut pages = devmem.pages().iter();

        check_eq!(runs.len(), nr);
        for offset in runs.iter().flat_map(|run| run.clone().step_by(PAGE_SIZE)) {
            check_eq!(Some(offset as usize / PAGE_SIZE), pages.next().copied());
        }
        check_eq!(pages.next(), None);
        memory.verify(1)?;
    }
    Ok(())
}

/// A part of an allocation, and parts of two.
fn parts(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(20, 1)?;
    let a = gpu.migrate(test.mm(), memory.pages(0..10))?;
    let b = gpu.migrate(test.mm(), memory.pages(10..20))?;
    let page = |page: usize| (page * PAGE_SIZE) as u64;
    let one = runs(test, gpu, memory.pages(3..5))?;
    let two = runs(test, gpu, memory.pages(8..12))?;

    check_eq!(one.len(), 1);
    check_eq!(one[0], page(a.pages()[3])..page(a.pages()[4] + 1));
    // The second allocation follows the first one in device memory.
    check_eq!(two.len(), 1);
    check_eq!(two[0], page(a.pages()[8])..page(b.pages()[1] + 1));
    memory.verify(1)
}

/// Not all of the range is there, or the range is none.
fn refused(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let all = memory.range();

    check_err!(runs(test, gpu, all.clone()), EFAULT);
    gpu.migrate(test.mm(), memory.pages(2..6))?;
    check_err!(runs(test, gpu, all.clone()), EFAULT);
    check_err!(runs(test, gpu, memory.pages(5..7)), EFAULT);
    check_err!(runs(test, gpu, 0..PAGE_SIZE), EFAULT);
    check_err!(runs(test, gpu, all.start..all.start), EINVAL);
    check_err!(runs(test, gpu, all.end..all.start), EINVAL);
    check_err!(runs(test, gpu, all.start + 1..all.end), EINVAL);
    check_err!(runs(test, gpu, all.start..all.end - 1), EINVAL);
    check_eq!(runs(test, gpu, memory.pages(2..6))?.len(), 1);
    gpu.check_in_device(test.mm(), &memory.part(2..6))?;

    // With an unmapped page in the middle.
    memory.part(4..5).unmap()?;
    check_err!(runs(test, gpu, memory.pages(2..6)), EFAULT);
    memory.part(0..4).verify(1)?;
    memory.part(5..8).verify(1)
}

/// A CPU that wants them waits; what the device did meanwhile is what it finds.
fn cpu_waits(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let touched = Atomic::new(false);
    let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
    let mut actual = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
    let thread;
    let early;

    {
        let locked = LockedMm::read(test.mm());
        let _held = gpu.hold_pages(&locked, memory.range())?;

        thread = Thread::start(|_| {
            memory.touch(2)?;
            touched.store(true, Relaxed);
            Ok(())
        })?;
        fsleep(Delta::from_millis(30));
        early = touched.load(Relaxed);
        for &page in devmem.pages() {
            gpu.vram().flip_page(page);
        }
    }
    thread.join()?;
    check!(!early);
    for i in 0..6 {
        memory.pattern(1, i, &mut expected);
        expected.iter_mut().for_each(|byte| *byte = !*byte);
        memory.read(i, &mut actual)?;
        memory.compare(i, &actual, &expected)?;
    }
    Ok(())
}

/// An eviction meanwhile finds them busy, and nothing gets lost.
fn evict_meanwhile(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    {
        let locked = LockedMm::read(test.mm());
        let _held = gpu.hold_pages(&locked, memory.range())?;
        let (moved, result) = devmem.evict_to_ram();

        check_eq!(moved, 0);
        check_err!(result, EBUSY);
    }
    let (moved, result) = devmem.evict_to_ram();
    result?;
    check_eq!(moved, 6);
    memory.verify(1)
}

/// Whether the process may write to them.
fn writable(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(6, 1)?;
    let read_only = UserMemory::map_kind(6, crate::ffi::Map::PrivateReadOnly)?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.migrate(test.mm(), read_only.range())?;
    let locked = LockedMm::read(test.mm());
    let is_writable = |memory: &UserMemory| -> Result<bool> {
        Ok(gpu.hold_pages(&locked, memory.range())?.are_writable())
    };

    check!(is_writable(&memory)?);
    check!(!is_writable(&read_only)?);
    Ok(())
}

suite!(
    drm_pagemap_held_pages,
    crate::harness::with_gpu,
    [places, parts, refused, cpu_waits, evict_meanwhile, writable,]
);
