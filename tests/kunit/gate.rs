// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The gate that users of a pagemap pass.

use crate::{
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    thread::Thread, //
};
use drm_pagemap::gate::Gate;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

fn new() -> Result<core::pin::Pin<KBox<Gate>>> {
    KBox::pin_init(Gate::new(), GFP_KERNEL)
}

/// In and out, several at a time.
fn open(_test: &mut Test) -> Outcome {
    let gate = new()?;

    for _ in 0..3 {
        let a = gate.enter()?;
        let b = gate.enter()?;
        drop(a);
        let c = gate.enter()?;
        drop((b, c));
    }
    gate.close();
    Ok(())
}

/// Once closed, closed for ever.
fn closed(_test: &mut Test) -> Outcome {
    let gate = new()?;

    gate.close();
    check_err!(gate.enter(), ENODEV);
    gate.close();
    check_err!(gate.enter(), ENODEV);
    Ok(())
}

/// Who closes it waits for all that are inside; nobody else gets in.
fn close_waits(_test: &mut Test) -> Outcome {
    let gate = new()?;
    let gate = &*gate;
    let left = Atomic::new(0);
    let (a, b) = (gate.enter()?, gate.enter()?);
    let first = Thread::start(|_| {
        fsleep(Delta::from_millis(20));
        left.fetch_add(1, Full);
        drop(a);
        Ok(())
    })?;
    let second = Thread::start(|_| {
        fsleep(Delta::from_millis(50));
        check_err!(gate.enter(), ENODEV);
        left.fetch_add(1, Full);
        drop(b);
        Ok(())
    })?;

    gate.close();
    check_eq!(left.load(Relaxed), 2);
    first.join()?;
    second.join()
}

/// Threads go in and out until it closes; then nobody is inside.
fn under_load(_test: &mut Test) -> Outcome {
    let gate = new()?;
    let gate = &*gate;
    let inside = Atomic::new(0);
    let body = |_: &kernel::mm::MmWithUser| {
        while let Ok(pass) = gate.enter() {
            inside.fetch_add(1, Full);
            // Long enough to be met by who closes it.
            fsleep(Delta::from_micros(500));
            inside.fetch_sub(1, Full);
            drop(pass);
            fsleep(Delta::from_micros(10));
        }
        Ok(())
    };
    let (a, b) = (Thread::start(body)?, Thread::start(body)?);

    fsleep(Delta::from_millis(20));
    gate.close();
    let nobody = inside.load(Relaxed) == 0;
    a.join()?;
    b.join()?;
    check!(nobody);
    Ok(())
}

suite!(
    drm_pagemap_gate,
    crate::harness::alone,
    [open, closed, close_waits, under_load]
);
