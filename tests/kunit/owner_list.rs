// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Interconnect groups of Rust drivers; `c_owner.c` has those of C drivers, over the same code.

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
    user::UserMemory, //
};
use drm_pagemap::{
    mm::LockedMm,
    Endpoint,
    OwnerList,
    Peer, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// A slot of a board whose slots are connected to those of the same color; color 0 to none.
struct Slot(u32);

impl Endpoint for Slot {
    fn has_interconnect(&self, other: &Self) -> bool {
        self.0 != 0 && self.0 == other.0
    }
}

/// How many have left their groups.
static LEFT: Atomic<usize> = Atomic::new(0);

impl Drop for Slot {
    fn drop(&mut self) {
        LEFT.fetch_add(1, Relaxed);
    }
}

static BOARD: OwnerList<Slot> = OwnerList::new();

fn join(color: u32) -> Result<Peer<Slot>> {
    Peer::join(&BOARD, Slot(color))
}

/// Who is connected has the same owner, and nobody else.
fn groups(_test: &mut Test) -> Outcome {
    let red = join(1)?;
    let blue = join(2)?;
    let also_red = join(1)?;
    let (none, nor_this) = (join(0)?, join(0)?);

    check!(red.owner() == also_red.owner());
    check!(red.owner() != blue.owner());
    check!(none.owner() != nor_this.owner());
    check!(none.owner() != blue.owner());
    check_eq!(blue.endpoint().0, 2);
    Ok(())
}

/// A group lasts as long as anybody is in it.
fn leave(_test: &mut Test) -> Outcome {
    let first = join(1)?;
    let second = join(1)?;
    let owner = first.owner();

    drop(first);
    check!(second.owner() == owner);
    let third = join(1)?;
    drop(second);
    check!(third.owner() == owner);
    check!(join(1)?.owner() == owner);
    Ok(())
}

/// A device of a group works as any other; what is in its memory is not in the others'.
fn devices(test: &mut Test) -> Outcome {
    let a = Gpu::in_group(64, join(1)?)?;
    let mut b = Gpu::in_group(64, join(1)?)?;
    let memory = UserMemory::filled(8, 1)?;

    for _ in 0..2 {
        a.migrate(test.mm(), memory.range())?;
        a.check_in_device(test.mm(), &memory)?;
        let residency = b.residency(test.mm(), memory.range())?;
        check_eq!(residency.peer, 8);
        check_eq!(residency.device, 0);
        check_err!(
            b.hold_pages(&LockedMm::read(test.mm()), memory.range()),
            EFAULT
        );
        drop(a.hold_pages(&LockedMm::read(test.mm()), memory.range())?);

        // The other one goes; this one's pages stay, and its group.
        b.unregister();
        a.check_in_device(test.mm(), &memory)?;
        memory.verify(1)?;
        b.finish()?;
        b = Gpu::in_group(64, join(1)?)?;
    }
    b.finish()?;
    a.finish()
}

/// A device that can't be registered leaves its group.
fn not_registered(_test: &mut Test) -> Outcome {
    let before = LEFT.load(Relaxed);

    check!(Gpu::in_group(0, join(1)?).is_err());
    check_eq!(LEFT.load(Relaxed), before + 1);
    Ok(())
}

suite!(
    drm_pagemap_owner_list,
    crate::harness::alone,
    [groups, leave, devices, not_registered]
);
