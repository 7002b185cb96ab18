// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The life of a pagemap and of allocations, without a page in sight.

use crate::{
    ffi,
    gpu::{
        Gpu,
        VRAM_PAGES, //
    },
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    vram::{
        Layout,
        Pages, //
    }, //
};
use drm_pagemap::{
    queue,
    NewDevmem,
    Pagemap, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::Relaxed, //
};

fn module_refs() -> i32 {
    // SAFETY: No requirements.
    unsafe { ffi::drm_pagemap_kunit_module_refs() }
}

/// How many references on the module somebody who holds it has. Built in, it is no module.
const HELD: i32 = cfg!(MODULE) as i32;

/// Nobody, somebody, nobody, and again.
fn acquire_and_let_go(_test: &mut Test, gpu: &Gpu) -> Outcome {
    for _ in 0..10 {
        check!(!gpu.pagemap().is_active());
        let a = Pagemap::acquire(gpu.pagemap())?;
        check!(gpu.pagemap().is_active());
        let b = Pagemap::acquire(gpu.pagemap())?;
        drop(a);
        check!(gpu.pagemap().is_active());
        let c = b.clone();
        drop(b);
        check!(gpu.pagemap().is_active());
        drop(c);
    }
    check!(!gpu.pagemap().is_active());
    Ok(())
}

/// A pagemap in use holds the DRM device and the driver's module, once.
fn holds_device_and_module(_test: &mut Test, gpu: &Gpu) -> Outcome {
    queue::flush();
    let (drm, module) = (gpu.drm_refs(), module_refs());

    for _ in 0..3 {
        let a = Pagemap::acquire(gpu.pagemap())?;
        check_eq!(gpu.drm_refs(), drm + 1);
        check_eq!(module_refs(), module + HELD);
        let b = Pagemap::acquire(gpu.pagemap())?;
        check_eq!(gpu.drm_refs(), drm + 1);
        check_eq!(module_refs(), module + HELD);
        drop((a, b));
        queue::flush();
        check_eq!(gpu.drm_refs(), drm);
        check_eq!(module_refs(), module);
    }
    Ok(())
}

/// `get_unless_zero()` finds a pagemap in use, and only that.
fn get_unless_zero(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let a = Pagemap::acquire(gpu.pagemap())?;
    let b = a.get_unless_zero();

    check!(b.is_some());
    drop(a);
    check!(gpu.pagemap().is_active());
    drop(b);
    check!(!gpu.pagemap().is_active());
    Ok(())
}

/// The device memory is as large as the driver says.
fn size(_test: &mut Test, gpu: &Gpu) -> Outcome {
    check_eq!(gpu.pagemap().size(), VRAM_PAGES * PAGE_SIZE);
    check_eq!(gpu.vram().size(), VRAM_PAGES * PAGE_SIZE);
    Ok(())
}

/// An allocation that nothing was migrated to is released when it is dropped.
fn unused_allocation(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let devmem = gpu.alloc(4)?;

    check!(gpu.pagemap().is_active());
    check!(!devmem.is_detached());
    check_eq!(devmem.size(), 4 * PAGE_SIZE);
    check_eq!(gpu.vram().live(), 1);
    check_eq!(gpu.vram().nr_used(), 4);
    check!(core::ptr::eq(&*devmem.pagemap(), &*gpu.pagemap()));
    drop(devmem);
    queue::flush();
    check_eq!(gpu.vram().counts.released.load(Relaxed), 1);
    check_eq!(gpu.vram().live(), 0);
    check_eq!(gpu.vram().nr_used(), 0);
    check!(!gpu.pagemap().is_active());
    Ok(())
}

/// Evicting an allocation that is empty.
fn evict_unused(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let devmem = gpu.alloc(4)?;
    let (moved, result) = devmem.evict_to_ram();

    // Its own reference is still there.
    check_eq!(moved, 0);
    check_err!(result, EBUSY);
    Ok(())
}

/// Sizes that an allocation can't have.
fn bad_sizes(_test: &mut Test, gpu: &Gpu) -> Outcome {
    for size in [0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1, usize::MAX] {
        let pages = Pages::new_uncounted(gpu.vram_arc(), 1, Layout::Contiguous)?;
        let devmem = NewDevmem::<Pages>::new(gpu.pagemap(), size, Ok::<_, Error>(pages));

        check_err!(devmem, EINVAL);
        check_eq!(gpu.vram().nr_used(), 0);
        check!(!gpu.pagemap().is_active());
    }
    Ok(())
}

/// The driver can't make the allocation's data.
fn bad_data(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let devmem = NewDevmem::<Pages>::new(gpu.pagemap(), PAGE_SIZE, Err::<Pages, _>(ENOSPC));

    check_err!(devmem, ENOSPC);
    check!(!gpu.pagemap().is_active());
    queue::flush();
    check_eq!(gpu.vram().counts.released.load(Relaxed), 0);
    Ok(())
}

/// Many allocations, released in another order.
fn many_allocations(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let mut even = KVec::new();
    let mut odd = KVec::new();

    for i in 0..100 {
        let devmem = gpu.alloc(1 + i % 7)?;

        if i % 2 == 0 { &mut even } else { &mut odd }.push(devmem, GFP_KERNEL)?;
    }
    check_eq!(gpu.vram().live(), 100);
    drop(even);
    queue::flush();
    check_eq!(gpu.vram().live(), 50);
    check!(gpu.pagemap().is_active());
    drop(odd);
    queue::flush();
    check_eq!(gpu.vram().live(), 0);
    check!(!gpu.pagemap().is_active());
    Ok(())
}

suite!(
    drm_pagemap_pagemap,
    crate::harness::with_gpu,
    [
        acquire_and_let_go,
        holds_device_and_module,
        get_unless_zero,
        size,
        unused_allocation,
        evict_unused,
        bad_sizes,
        bad_data,
        many_allocations,
    ]
);
