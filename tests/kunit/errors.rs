// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Each step of each path fails: the error is the documented one, no data is lost, nothing is left
//! behind.

use crate::{
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
    user::UserMemory,
    vram::Layout, //
};
use drm_pagemap::migrate::Details;
use kernel::prelude::*;

/// The number of pages; a power of two.
const PAGES: usize = 16;

/// Pages of which every fourth was never touched, the first one at a multiple of the whole; no two of
/// them are mapped for DMA as one.
fn mixture(seed: u64) -> Outcome<UserMemory> {
    let memory = UserMemory::map_aligned(PAGES)?;

    memory.fill_apart(seed, |i| i % 4 != 3)?;
    Ok(memory)
}

fn verify_mixture(memory: &UserMemory, seed: u64) -> Outcome {
    for i in 0..PAGES {
        let page = memory.part(i..i + 1);

        if i % 4 != 3 {
            page.verify(seed)?;
        } else {
            page.verify_zero()?;
        }
    }
    Ok(())
}

/// A migration to device memory, prepared to fail by `arm`, fails with `err`, and leaves no trace;
/// the next one works.
fn to_devmem_fails(
    test: &Test,
    gpu: &Gpu,
    err: Error,
    arm: impl Fn(&Gpu) -> Outcome,
    disarm: impl Fn(&Gpu) -> Outcome,
) -> Outcome {
    for layout in [Layout::Contiguous, Layout::Scattered] {
        let memory = mixture(3)?;

        arm(gpu)?;
        let result = test.without_warnings(|| {
            gpu.migrate_as(test.mm(), memory.range(), layout, &Details::default())
        });
        disarm(gpu)?;

        check_err!(result, err);
        gpu.check_idle()?;
        // First without a touch: a page that was not put back would be waited for without end.
        check_eq!(
            gpu.residency(test.mm(), memory.range())?,
            Residency {
                none: PAGES / 4,
                ram: PAGES - PAGES / 4,
                ..Residency::default()
            }
        );
        verify_mixture(&memory, 3)?;

        gpu.migrate_as(test.mm(), memory.range(), layout, &Details::default())?;
        gpu.check_in_device(test.mm(), &memory)?;
        verify_mixture(&memory, 3)?;
        memory.unmap()?;
    }
    Ok(())
}

fn nothing(_gpu: &Gpu) -> Outcome {
    Ok(())
}

fn to_devmem_populate(test: &mut Test, gpu: &Gpu) -> Outcome {
    for err in [EIO, ENOMEM, EAGAIN] {
        let arm = |gpu: &Gpu| {
            gpu.vram().populate.fail(1, 1, err);
            Ok(())
        };

        to_devmem_fails(test, gpu, err, arm, nothing)?;
    }
    Ok(())
}

fn to_devmem_copy(test: &mut Test, gpu: &Gpu) -> Outcome {
    for err in [EIO, ENODEV, ERESTARTSYS] {
        let arm = |gpu: &Gpu| {
            gpu.vram().copy_to_devmem.fail(1, 1, err);
            Ok(())
        };

        to_devmem_fails(test, gpu, err, arm, nothing)?;
    }
    Ok(())
}

fn to_devmem_dma(test: &mut Test, gpu: &Gpu) -> Outcome {
    // Twelve pages are mapped; so the thirteenth mapping does not come.
    for nth in [1, 2, 6, 12] {
        to_devmem_fails(
            test,
            gpu,
            EFAULT,
            |gpu| gpu.fail_dma(nth, usize::MAX >> 1),
            |gpu| gpu.fail_dma(0, 0),
        )?;
    }
    let (memory, maps) = (mixture(3)?, gpu.dma_maps()?);

    gpu.fail_dma(13, 1)?;
    gpu.migrate(test.mm(), memory.range())?;
    check_eq!(gpu.dma_maps()?, maps + 12);
    gpu.fail_dma(0, 0)?;
    verify_mixture(&memory, 3)
}

/// An eviction, of which the first `bad` of three tries fail.
fn evict_fails(
    test: &Test,
    gpu: &Gpu,
    err: Error,
    bad: usize,
    arm: impl Fn(&Gpu, usize) -> Outcome,
    disarm: impl Fn(&Gpu) -> Outcome,
) -> Outcome {
    let memory = mixture(4)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    arm(gpu, bad)?;
    let (moved, result) = test.without_warnings(|| devmem.evict_to_ram());
    disarm(gpu)?;

    if bad < 3 {
        result?;
        check_eq!(moved, PAGES);
        gpu.check_in_ram(test.mm(), &memory)?;
    } else {
        check_err!(result, err);
        check_eq!(moved, 0);
        check!(!devmem.is_detached());
        gpu.check_in_device(test.mm(), &memory)?;
        // It is usable still, by CPUs and by the driver.
        devmem.evict_to_ram().1?;
    }
    verify_mixture(&memory, 4)?;
    check!(devmem.is_detached());
    drop(devmem);
    gpu.check_idle()?;
    memory.unmap()?;
    Ok(())
}

fn evict_populate(test: &mut Test, gpu: &Gpu) -> Outcome {
    let arm = |gpu: &Gpu, times| {
        gpu.vram().populate.fail(1, times, EIO);
        Ok(())
    };

    for bad in 1..=3 {
        evict_fails(test, gpu, EIO, bad, arm, nothing)?;
    }
    Ok(())
}

fn evict_copy(test: &mut Test, gpu: &Gpu) -> Outcome {
    let arm = |gpu: &Gpu, times| {
        gpu.vram().copy_to_ram.fail(1, times, ENODEV);
        Ok(())
    };

    for bad in 1..=3 {
        evict_fails(test, gpu, ENODEV, bad, arm, nothing)?;
    }
    Ok(())
}

fn evict_dma(test: &mut Test, gpu: &Gpu) -> Outcome {
    for bad in [1, 3] {
        // The pages are mapped as one, then page by page, of which the first one that fails ends a
        // try.
        let times = if bad == 3 { usize::MAX >> 1 } else { 2 };

        evict_fails(
            test,
            gpu,
            EFAULT,
            bad,
            |gpu, _| gpu.fail_dma(1, times),
            |gpu| gpu.fail_dma(0, 0),
        )?;
    }
    Ok(())
}

/// A CPU fault: if the whole allocation can't come home, the page that is wanted does; if that
/// can't either the access fails.
fn fault_copy(test: &mut Test, gpu: &Gpu) -> Outcome {
    for touched in [0, 3, PAGES - 1] {
        let memory = mixture(5)?;

        gpu.migrate(test.mm(), memory.range())?;
        gpu.vram().copy_to_ram.fail(1, 2, EIO);
        check_err!(memory.touch(touched), EFAULT);
        gpu.check_in_device(test.mm(), &memory)?;

        gpu.vram().copy_to_ram.fail(1, 1, EIO);
        memory.touch(touched)?;
        gpu.check_in_ram(test.mm(), &memory.part(touched..touched + 1))?;
        check_eq!(gpu.residency(test.mm(), memory.range())?.device, PAGES - 1);
        verify_mixture(&memory, 5)?;
        gpu.check_idle()?;
        memory.unmap()?;
    }
    Ok(())
}

fn fault_dma(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = mixture(5)?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.fail_dma(1, usize::MAX >> 1)?;
    let result = test.without_warnings(|| memory.touch(5));
    gpu.fail_dma(0, 0)?;
    check_err!(result, EFAULT);
    gpu.check_in_device(test.mm(), &memory)?;
    memory.touch(5)?;
    memory.unmap()?;

    // How many failures it takes until the page that is wanted comes home alone depends on how the
    // RAM for all of them is to be had: mapped as one, and then page by page, or not.
    let mut alone = false;
    for failures in [1, 2, 1, 2, 1, 2] {
        let memory = mixture(5)?;

        gpu.migrate(test.mm(), memory.range())?;
        gpu.fail_dma(1, failures)?;
        let result = test.without_warnings(|| memory.touch(5));
        gpu.fail_dma(0, 0)?;

        let device = gpu.residency(test.mm(), memory.range())?.device;
        match result {
            // Too few.
            Ok(_) if device == 0 => (),
            // Too many.
            Err(_) => gpu.check_in_device(test.mm(), &memory)?,
            Ok(_) => {
                check_eq!(device, PAGES - 1);
                gpu.check_in_ram(test.mm(), &memory.part(5..6))?;
                alone = true;
            }
        }
        verify_mixture(&memory, 5)?;
        gpu.check_idle()?;
        memory.unmap()?;
    }
    check!(alone);
    Ok(())
}

/// CPU faults don't ask the driver where pages are.
fn fault_needs_no_populate(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = mixture(5)?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.vram().populate.fail_always(EIO);
    verify_mixture(&memory, 5)?;
    gpu.vram().populate.heal();
    check_eq!(gpu.vram().populate.calls(), 1);
    Ok(())
}

suite!(
    drm_pagemap_errors,
    crate::harness::with_gpu,
    [
        to_devmem_populate,
        to_devmem_copy,
        to_devmem_dma,
        evict_populate,
        evict_copy,
        evict_dma,
        fault_copy,
        fault_dma,
        fault_needs_no_populate,
    ]
);
