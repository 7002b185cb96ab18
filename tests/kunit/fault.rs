// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! CPU faults on pages in device memory.

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
use drm_pagemap::migrate::Details;
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

/// 16 pages with the pattern of `seed`, the first one at a multiple of their size.
fn aligned(seed: u64) -> Outcome<UserMemory> {
    let memory = UserMemory::map_aligned(16)?;

    memory.fill(seed)?;
    Ok(memory)
}

/// A touch of one page brings the whole allocation home, at once.
fn whole_allocation(test: &mut Test, gpu: &Gpu) -> Outcome {
    for page in [0, 7, 15] {
        let memory = aligned(1)?;
        let calls = gpu.vram().copy_to_ram.calls();
        let devmem = gpu.migrate(test.mm(), memory.range())?;

        memory.touch(page)?;
        gpu.check_in_ram(test.mm(), &memory)?;
        check_eq!(gpu.vram().copy_to_ram.calls(), calls + 1);
        check!(devmem.is_detached());
        memory.verify(1)?;
    }
    Ok(())
}

/// A store, too; what it does not overwrite is what the device had.
fn store(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
    let mut actual = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

    gpu.migrate(test.mm(), memory.range())?;
    memory.write(5, &[0x42])?;
    gpu.check_in_ram(test.mm(), &memory)?;

    memory.pattern(1, 5, &mut expected);
    expected[0] = 0x42;
    memory.read(5, &mut actual)?;
    memory.compare(5, &actual, &expected)?;
    memory.part(0..5).verify(1)?;
    memory.part(6..16).verify(1)
}

/// A system call that reads across all pages.
fn one_read_of_all(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(9, 1)?;
    let mut all = KVVec::from_elem(0u8, 9 * PAGE_SIZE, GFP_KERNEL)?;
    let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

    gpu.migrate_as(
        test.mm(),
        memory.range(),
        Layout::Backwards,
        &Details::default(),
    )?;
    memory.read(0, &mut all)?;
    for (i, actual) in all.chunks_exact(PAGE_SIZE).enumerate() {
        memory.pattern(1, i, &mut expected);
        memory.compare(i, actual, &expected)?;
    }
    Ok(())
}

/// Neighbours that belong to other allocations stay.
fn neighbours_stay(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(48)?;

    memory.fill(1)?;
    for i in 0..3 {
        gpu.migrate(test.mm(), memory.pages(16 * i..16 * i + 16))?;
    }
    memory.touch(20)?;
    gpu.check_in_device(test.mm(), &memory.part(0..16))?;
    gpu.check_in_ram(test.mm(), &memory.part(16..32))?;
    gpu.check_in_device(test.mm(), &memory.part(32..48))?;
    memory.verify(1)
}

/// Where the allocation's pages are not aligned to its size, neighbours are within reach, but are
/// not taken.
fn unaligned_neighbours_stay(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(32)?;

    memory.fill(1)?;
    let a = gpu.migrate(test.mm(), memory.pages(3..11))?;
    let b = gpu.migrate(test.mm(), memory.pages(11..19))?;

    memory.touch(9)?;
    // Pages 8 to 15 are looked at.
    gpu.check_in_ram(test.mm(), &memory.part(8..11))?;
    gpu.check_in_device(test.mm(), &memory.part(3..8))?;
    gpu.check_in_device(test.mm(), &memory.part(11..19))?;
    check!(!a.is_detached());
    check!(!b.is_detached());
    memory.touch(3)?;
    check!(a.is_detached());
    memory.verify(1)
}

/// After a part was unmapped, what is left comes home, whichever page is touched.
fn after_unmap(test: &mut Test, gpu: &Gpu) -> Outcome {
    for (unmapped, touched) in [(0..8, 8), (8..16, 0), (0..15, 15), (1..16, 0)] {
        let memory = aligned(1)?;
        let devmem = gpu.migrate(test.mm(), memory.range())?;

        memory.part(unmapped.clone()).unmap()?;
        memory.touch(touched)?;
        check!(devmem.is_detached());
        check_err!(memory.touch(unmapped.start), EFAULT);
        for page in (0..16).filter(|page| !unmapped.contains(page)) {
            memory.part(page..page + 1).verify(1)?;
        }
    }
    Ok(())
}

/// After a hole was made in the middle, each side comes home by itself.
fn after_split(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    memory.part(6..9).unmap()?;
    memory.touch(0)?;
    gpu.check_in_ram(test.mm(), &memory.part(0..6))?;
    gpu.check_in_device(test.mm(), &memory.part(9..16))?;
    check!(!devmem.is_detached());
    memory.touch(15)?;
    check!(devmem.is_detached());
    memory.part(0..6).verify(1)?;
    memory.part(9..16).verify(1)
}

/// New memory in the place of the old one is not confused with it.
fn after_remap(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;

    gpu.migrate(test.mm(), memory.range())?;
    memory.part(4..8).unmap()?;
    memory.part(4..8).map_again()?;
    memory.touch(0)?;
    memory.part(4..8).verify_zero()?;
    memory.part(0..4).verify(1)?;
    memory.part(8..16).verify(1)
}

/// If not all pages can be copied home, the one that is wanted is.
fn falls_back_to_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.vram().most_to_ram.store(1, Relaxed);
    memory.touch(5)?;
    gpu.check_in_ram(test.mm(), &memory.part(5..6))?;
    gpu.check_in_device(test.mm(), &memory.part(0..5))?;
    gpu.check_in_device(test.mm(), &memory.part(6..16))?;
    check!(!devmem.is_detached());
    memory.part(0..8).verify(1)?;
    gpu.check_in_device(test.mm(), &memory.part(8..16))?;

    gpu.vram().most_to_ram.store(usize::MAX, Relaxed);
    memory.touch(8)?;
    check!(devmem.is_detached());
    memory.verify(1)
}

/// If nothing can be copied the access fails, and the data stays where it is, for later.
fn copy_fails(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;

    gpu.vram().copy_to_ram.fail_always(EIO);
    for page in [0, 9, 15, 9] {
        check_err!(memory.touch(page), EFAULT);
        check_err!(memory.write(page, &[0]), EFAULT);
    }
    gpu.check_in_device(test.mm(), &memory)?;
    check!(!devmem.is_detached());

    gpu.vram().copy_to_ram.heal();
    memory.verify(1)?;
    check!(devmem.is_detached());
    Ok(())
}

/// One failed copy is made up for by that of the page that is wanted.
fn copy_fails_once(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;

    gpu.migrate(test.mm(), memory.range())?;
    gpu.vram().copy_to_ram.fail(1, 1, EIO);
    memory.touch(5)?;
    gpu.check_in_ram(test.mm(), &memory.part(5..6))?;
    check_eq!(gpu.vram().copy_to_ram.calls(), 2);
    memory.verify(1)
}

/// Somebody has a reference on a page: the others come home without it.
fn held_neighbour(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let devmem = gpu.migrate(test.mm(), memory.range())?;
    let held = gpu.hold_page(test.mm(), memory.addr(3))?;

    memory.touch(5)?;
    gpu.check_in_ram(test.mm(), &memory.part(0..3))?;
    gpu.check_in_device(test.mm(), &memory.part(3..4))?;
    gpu.check_in_ram(test.mm(), &memory.part(4..16))?;
    check!(!devmem.is_detached());

    drop(held);
    memory.verify(1)?;
    check!(devmem.is_detached());
    Ok(())
}

/// Somebody has a reference on the page that is wanted, for a while: the access waits, and then
/// succeeds.
fn held_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let dropped = Atomic::new(false);

    gpu.migrate(test.mm(), memory.range())?;
    let held = gpu.hold_page(test.mm(), memory.addr(3))?;
    let thread = Thread::start(|_| {
        fsleep(Delta::from_millis(50));
        dropped.store(true, Relaxed);
        drop(held);
        Ok(())
    })?;

    memory.touch(3)?;
    check!(dropped.load(Relaxed));
    thread.join()?;
    memory.verify(1)
}

/// The same, with the page locked.
fn locked_page(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = aligned(1)?;
    let unlocked = Atomic::new(false);

    gpu.migrate(test.mm(), memory.range())?;
    let locked = gpu.hold_page(test.mm(), memory.addr(3))?.lock();
    let thread = Thread::start(|_| {
        fsleep(Delta::from_millis(50));
        unlocked.store(true, Relaxed);
        drop(locked);
        Ok(())
    })?;

    memory.touch(3)?;
    check!(unlocked.load(Relaxed));
    thread.join()?;
    memory.verify(1)
}

/// Several threads touch the same pages at once.
fn many_threads(test: &mut Test, gpu: &Gpu) -> Outcome {
    for round in 0..20 {
        let memory = aligned(round)?;

        gpu.migrate(test.mm(), memory.range())?;
        let a = Thread::start(|_| memory.verify(round))?;
        let b = Thread::start(|_| memory.verify(round))?;
        let here = memory.verify(round);
        a.join()?;
        b.join()?;
        here?;
        memory.unmap()?;
    }
    Ok(())
}

suite!(
    drm_pagemap_fault,
    crate::harness::with_gpu,
    [
        whole_allocation,
        store,
        one_read_of_all,
        neighbours_stay,
        unaligned_neighbours_stay,
        after_unmap,
        after_split,
        after_remap,
        falls_back_to_page,
        copy_fails,
        copy_fails_once,
        held_neighbour,
        held_page,
        locked_page,
        many_threads,
    ]
);
