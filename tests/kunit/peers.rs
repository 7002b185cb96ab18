// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! From device memory to device memory: of another device, and of the same.

use crate::{
    gpu::{
        Gpu,
        VRAM_PAGES, //
    },
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Failure,
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
    mm::{
        touch,
        Access,
        LockedMm,
        PMD_ORDER, //
    },
    Endpoint,
    OwnerList,
    Peer, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Those with the same number are connected.
struct Port(u32);

impl Endpoint for Port {
    fn has_interconnect(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

static PORTS: OwnerList<Port> = OwnerList::new();

/// A device at a port.
pub(crate) fn gpu_at(port: u32) -> Result<Gpu> {
    Gpu::in_group(VRAM_PAGES, Peer::join(&PORTS, Port(port))?)
}

/// Runs `body` with two devices that are connected, and checks that nothing is left in them.
pub(crate) fn with_two(
    test: &mut Test,
    body: impl FnOnce(&Test, &Gpu, &Gpu) -> Outcome,
) -> Outcome {
    let (a, b) = (gpu_at(1)?, gpu_at(1)?);
    let outcome = body(test, &a, &b);

    test.end_mm();
    let idle = a.finish().and(b.finish());
    outcome.and(idle)
}

/// Within one device's memory.
const WITHIN: Details = Details {
    timeslice: 0,
    can_migrate_same_pagemap: true,
    defragment: false,
    private_files: false,
};

/// The first device copies, straight into the second one's memory.
fn there(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(16, 1)?;
        let first = a.migrate(test.mm(), memory.range())?;
        let second = b.migrate(test.mm(), memory.range())?;

        b.check_in_device(test.mm(), &memory)?;
        check!(first.is_detached());
        check!(!second.is_detached());
        check_eq!(a.vram().copy_to_ram.calls(), 1);
        check_eq!(
            a.vram().counts.copied_out.load(Relaxed),
            16 * PAGE_SIZE as u64
        );
        check_eq!(b.vram().copy_to_devmem.calls(), 0);
        check_eq!(b.vram().device_map.calls(), 16);
        check_eq!(b.vram().mapped.load(Relaxed), 0);
        memory.verify(1)
    })
}

/// Around, with work done in each, and home by eviction.
fn around(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(8, 1)?;

        a.migrate(test.mm(), memory.range())?;
        for _ in 0..5 {
            b.migrate(test.mm(), memory.range())?;
            a.migrate(test.mm(), memory.range())?;
        }
        let last = b.migrate(test.mm(), memory.range())?;
        let (moved, result) = last.evict_to_ram();

        result?;
        check_eq!(moved, 8);
        memory.verify(1)
    })
}

/// A large folio stays one.
fn large(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::map_aligned(HUGE / PAGE_SIZE)?;

        memory.want_huge()?;
        memory.fill(1)?;
        if !memory.is_huge()? {
            return Err(Failure::skip(fmt!("the kernel had no huge page to give")));
        }
        a.migrate(test.mm(), memory.range())?;
        b.migrate(test.mm(), memory.range())?;
        check_eq!(b.device_order(test.mm(), memory.addr(5))?, PMD_ORDER);
        check_eq!(b.vram().device_map.calls(), 1);

        // To memory that is not contiguous: page by page.
        a.migrate_as(
            test.mm(),
            memory.range(),
            Layout::Scattered,
            &Details::default(),
        )?;
        check_eq!(a.device_order(test.mm(), memory.addr(5))?, 0);
        memory.verify(1)
    })
}

/// Runs of RAM, of nothing, and of the other device's memory: each is copied by who can.
fn mixed(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::map(24)?;

        // 4 of RAM, 4 of the device, 4 holes, 4 of the device in two allocations, 8 of RAM.
        for part in [0..8, 12..24] {
            memory.part(part).fill(1)?;
        }
        a.migrate(test.mm(), memory.pages(4..8))?;
        a.migrate(test.mm(), memory.pages(12..14))?;
        a.migrate(test.mm(), memory.pages(14..16))?;
        let out = a.vram().copy_to_ram.calls();

        b.migrate(test.mm(), memory.range())?;
        b.check_in_device(test.mm(), &memory)?;
        check_eq!(a.vram().copy_to_ram.calls() - out, 2);
        check_eq!(b.vram().copy_to_devmem.calls(), 3);
        check_eq!(b.vram().counts.cleared.load(Relaxed), 4 * PAGE_SIZE as u64);
        check_eq!(b.vram().device_map.calls(), 8);
        memory.part(0..8).verify(1)?;
        memory.part(8..12).verify_zero()?;
        memory.part(12..24).verify(1)
    })
}

/// Each mapping fails once: what was mapped before is unmapped, and all stays where it was.
fn mapping_fails(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(8, 1)?;
        let first = a.migrate(test.mm(), memory.range())?;

        for nth in 1..=8 {
            b.vram().device_map.fail(nth, 1, EIO);
            check_err!(b.migrate(test.mm(), memory.range()), EFAULT);
            check_eq!(b.vram().mapped.load(Relaxed), 0);
            a.check_in_device(test.mm(), &memory)?;
        }
        check_eq!(a.vram().copy_to_ram.calls(), 0);
        check!(!first.is_detached());
        b.vram().device_map.heal();
        b.migrate(test.mm(), memory.range())?;
        memory.verify(1)
    })
}

/// The copy fails: it is the other device's error, and all stays where it was.
fn copy_fails(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(8, 1)?;

        a.migrate(test.mm(), memory.range())?;
        a.vram().copy_to_ram.fail(1, 1, ENOLINK);
        check_err!(b.migrate(test.mm(), memory.range()), ENOLINK);
        check_eq!(b.vram().mapped.load(Relaxed), 0);
        a.check_in_device(test.mm(), &memory)?;
        memory.verify(1)
    })
}

/// A page that is left behind by a passing reference is stale: an eviction does not copy it again.
fn sources_are_retired(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(4, 1)?;
        let first = a.migrate(test.mm(), memory.range())?;
        let held = a.hold_stale_page(test.mm(), memory.addr(2), || {
            b.migrate(test.mm(), memory.range())?;
            Ok(())
        })?;
        let copies = a.vram().copy_to_ram.calls();

        check!(held.is_retired());
        check_err!(first.evict_to_ram().1, EBUSY);
        check_eq!(a.vram().copy_to_ram.calls(), copies);
        drop(held);
        check!(first.is_detached());
        b.check_in_device(test.mm(), &memory)?;
        memory.verify(1)
    })
}

/// Those that are not connected don't see each other's pages: they come home first.
fn not_connected(test: &mut Test, _: &Gpu) -> Outcome {
    let (a, b) = (gpu_at(1)?, gpu_at(2)?);
    let memory = UserMemory::filled(8, 1)?;

    a.migrate(test.mm(), memory.pages(0..4))?;
    check_err!(b.migrate(test.mm(), memory.range()), EBUSY);
    let (second, outcome) = b.alloc(8)?.migrate_missing(
        &LockedMm::read(test.mm()),
        memory.range(),
        &Details::default(),
    )?;
    check_eq!(outcome.migrated, 4);
    check_eq!(outcome.left, 4);
    a.check_in_device(test.mm(), &memory.part(0..4))?;
    b.check_in_device(test.mm(), &memory.part(4..8))?;
    memory.verify(1)?;
    drop(second);
    a.finish().and(b.finish())
}

/// Each device tells its own memory from that of the other one.
fn told_apart(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(8, 1)?;

        a.migrate(test.mm(), memory.pages(0..3))?;
        b.migrate(test.mm(), memory.pages(3..5))?;
        let (of_a, of_b) = (
            a.residency(test.mm(), memory.range())?,
            b.residency(test.mm(), memory.range())?,
        );

        check_eq!((of_a.device, of_a.peer, of_a.ram), (3, 2, 3));
        check_eq!((of_b.device, of_b.peer, of_b.ram), (2, 3, 3));
        check_eq!((of_a.none, of_b.none), (0, 0));
        memory.verify(1)
    })
}

/// Page faults bring to RAM what is in device memory, but not that of the owner that is spared.
fn touched(test: &mut Test, _: &Gpu) -> Outcome {
    let (a, b) = (gpu_at(1)?, gpu_at(2)?);
    let memory = UserMemory::filled(12, 1)?;
    let owner = |gpu: &Gpu| Some(gpu.pagemap().owner());

    a.migrate(test.mm(), memory.pages(0..4))?;
    b.migrate(test.mm(), memory.pages(4..8))?;
    touch(test.mm(), memory.range(), Access::Read, owner(&a))?;
    a.check_in_device(test.mm(), &memory.part(0..4))?;
    b.check_in_ram(test.mm(), &memory.part(4..12))?;

    // What was out of reach can be had.
    a.migrate(test.mm(), memory.pages(4..8))?;
    a.check_in_device(test.mm(), &memory.part(0..8))?;
    touch(test.mm(), memory.pages(0..8), Access::Write, None)?;
    a.check_in_ram(test.mm(), &memory)?;

    let empty = memory.range().start..memory.range().start;
    check_err!(touch(test.mm(), empty, Access::Read, None), EINVAL);
    memory.verify(1)?;
    a.finish().and(b.finish())
}

/// What is missing comes from the other device, too.
fn missing(test: &mut Test, _: &Gpu) -> Outcome {
    with_two(test, |test, a, b| {
        let memory = UserMemory::filled(12, 1)?;

        a.migrate(test.mm(), memory.pages(0..4))?;
        b.migrate(test.mm(), memory.pages(4..8))?;
        let (_, outcome) = b.alloc(12)?.migrate_missing(
            &LockedMm::read(test.mm()),
            memory.range(),
            &Details::default(),
        )?;
        check_eq!(outcome.migrated, 8);
        check_eq!(outcome.resident, 4);
        check_eq!(outcome.left, 0);
        b.check_in_device(test.mm(), &memory)?;
        memory.verify(1)
    })
}

/// A range that is there in part, moved by a driver that can copy within its memory.
fn within(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(12, 1)?;
    let first = gpu.migrate(test.mm(), memory.pages(0..4))?;

    check_err!(gpu.migrate(test.mm(), memory.range()), EBUSY);
    gpu.migrate_as(test.mm(), memory.range(), Layout::Contiguous, &WITHIN)?;
    check!(first.is_detached());
    check_eq!(gpu.vram().device_map.calls(), 4);
    gpu.check_in_device(test.mm(), &memory)?;
    memory.verify(1)
}

/// A range that is all there stays, unless it shall be made contiguous.
fn defragment(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(12, 1)?;
    let first = gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::Scattered,
        &Details::default(),
    )?;

    gpu.migrate_as(test.mm(), memory.range(), Layout::Contiguous, &WITHIN)?;
    check!(!first.is_detached());
    let details = Details {
        defragment: true,
        ..WITHIN
    };
    gpu.migrate_as(test.mm(), memory.range(), Layout::Contiguous, &details)?;
    check!(first.is_detached());

    let start = gpu.device_pfn(test.mm(), memory.addr(0))?.as_usize();
    for page in 0..12 {
        let pfn = gpu.device_pfn(test.mm(), memory.addr(page))?;
        check_eq!(pfn.as_usize(), start + page);
    }
    memory.verify(1)
}

suite!(
    drm_pagemap_peers,
    crate::harness::with_gpu,
    [
        there,
        around,
        large,
        mixed,
        mapping_fails,
        copy_fails,
        sources_are_retired,
        not_connected,
        told_apart,
        touched,
        missing,
        within,
        defragment,
    ]
);
