// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Pages of RAM for a device alone.

use crate::{
    ffi::Map,
    gpu::Gpu,
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    interval::{
        take,
        watch, //
    },
    thread::{
        wait_until_set,
        Thread, //
    },
    user::UserMemory, //
};
use drm_pagemap::mm::Event;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// The device has the page, until a CPU wants it: then it is told.
fn taken_back(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(4, 1)?;
    let interval = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;
    let mut bytes = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
    let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

    interval.exclusive(memory.addr(1), |_, page| {
        page.read(0, &mut bytes)?;
        page.write(0, &[!bytes[0]])
    })?;
    memory.pattern(1, 1, &mut expected);
    memory.compare(1, &bytes, &expected)?;
    take(&interval)?;

    // Of other pages it is not told.
    memory.part(2..4).read(0, &mut bytes)?;
    check_eq!(take(&interval)?.len(), 0);

    memory.read(1, &mut bytes)?;
    check!(take(&interval)?
        .iter()
        .any(|(_, range)| *range == memory.pages(1..2)));
    expected[0] = !expected[0];
    memory.compare(1, &bytes, &expected)
}

/// While the device is being given access, a CPU waits.
fn cpu_waits(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(4, 1)?;
    let interval = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;
    let started = Arc::new(Atomic::<usize>::new(0), GFP_KERNEL)?;
    let touched = Arc::new(Atomic::<usize>::new(0), GFP_KERNEL)?;
    let held = Arc::new(Atomic::<usize>::new(0), GFP_KERNEL)?;
    let (go, started_by, touched_by) = (held.clone(), started.clone(), touched.clone());
    // Before the lock is taken: under it, memory can't be allocated.
    let thread = Thread::start(move |_: &MmWithUser| {
        wait_until_set(&go);
        started_by.store(1, Relaxed);
        check_eq!(memory.touch(1)?, 0x77);
        touched_by.store(1, Relaxed);
        Ok(())
    })?;
    let early = interval.exclusive(memory.addr(1), |_, page| {
        held.store(1, Relaxed);
        wait_until_set(&started);
        fsleep(Delta::from_millis(50));
        let early = touched.load(Relaxed);

        page.write(0, &[0x77])?;
        Ok(early)
    });

    held.store(1, Relaxed);
    let early = early?;
    thread.join()?;
    check_eq!(early, 0);
    check_eq!(touched.load(Relaxed), 1);
    Ok(())
}

/// Wherever the page is, or is not yet: it comes to RAM.
fn from_anywhere(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map(4)?;
    let interval = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;
    let mut byte = [1];

    interval.exclusive(memory.addr(0), |_, page| page.read(0, &mut byte))?;
    check_eq!(byte[0], 0);

    memory.fill(1)?;
    gpu.migrate(test.mm(), memory.range())?;
    interval.exclusive(memory.addr(2), |_, page| page.read(0, &mut byte))?;
    let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
    memory.pattern(1, 2, &mut expected);
    check_eq!(byte[0], expected[0]);
    memory.verify(1)
}

/// Two intervals, as of two devices: one that gets a page takes it from the other.
fn one_at_a_time(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(4, 1)?;
    let one = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;
    let two = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;

    one.exclusive(memory.addr(1), |_, _| Ok(()))?;
    take(&one)?;
    two.exclusive(memory.addr(1), |_, _| Ok(()))?;
    check!(take(&one)?
        .iter()
        .any(|(event, _)| *event == Event::Exclusive));
    memory.verify(1)
}

/// What can't be had.
fn refused(test: &mut Test, gpu: &Gpu) -> Outcome {
    let owner = gpu.pagemap().owner();
    let memory = UserMemory::filled(4, 1)?;
    let shared = UserMemory::map_kind(4, Map::Shared)?;
    let read_only = UserMemory::map_kind(4, Map::PrivateReadOnly)?;
    let none = |_: &mut _, _: &_| Ok(());

    check_err!(
        watch(test.mm(), shared.range(), owner)?.exclusive(shared.addr(1), none),
        EOPNOTSUPP
    );
    check_err!(
        watch(test.mm(), read_only.range(), owner)?.exclusive(read_only.addr(1), none),
        EPERM
    );
    let interval = watch(test.mm(), memory.pages(0..2), owner)?;
    check_err!(interval.exclusive(memory.addr(2), none), EINVAL);
    // What the callback says is handed on.
    check_err!(
        interval.exclusive(memory.addr(0), |_, _| Err::<(), _>(EIO)),
        EIO
    );
    memory.verify(1)?;
    memory.part(1..2).unmap()?;
    check_err!(interval.exclusive(memory.addr(1), none), EFAULT);
    Ok(())
}

suite!(
    drm_pagemap_exclusive,
    crate::harness::with_gpu,
    [taken_back, cpu_waits, from_anywhere, one_at_a_time, refused,]
);
