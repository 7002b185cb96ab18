// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Migration of what is missing: the rest stays where it is.

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
    user::UserMemory,
    vram::Pages, //
};
use core::ops::Range;
use drm_pagemap::{
    migrate::{
        Details,
        Outcome as Moved, //
    },
    mm::LockedMm,
    queue,
    Devmem, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::Relaxed, //
    }, //
};

/// Migrates what is missing of `range` to a new allocation.
fn migrate_missing(
    test: &Test,
    gpu: &Gpu,
    range: Range<usize>,
) -> Result<(ARef<Devmem<Pages>>, Moved)> {
    migrate_with(test, gpu, range, &Details::default())
}

/// The same, in a certain way.
fn migrate_with(
    test: &Test,
    gpu: &Gpu,
    range: Range<usize>,
    details: &Details,
) -> Result<(ARef<Devmem<Pages>>, Moved)> {
    gpu.alloc(range.len() >> PAGE_SHIFT)?.migrate_missing(
        &LockedMm::read(test.mm()),
        range,
        details,
    )
}

fn moved(migrated: usize, resident: usize, left: usize) -> Moved {
    Moved {
        migrated,
        resident,
        left,
    }
}

/// A part is there already: it is not touched, the rest follows.
fn half_resident(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(16, 1)?;
    let first = gpu.migrate(test.mm(), memory.pages(4..12))?;
    let place = gpu.device_pfn(test.mm(), memory.addr(5))?;
    let out = gpu.vram().counts.copied_out.load(Relaxed);

    check_err!(gpu.migrate(test.mm(), memory.range()), EBUSY);
    let (second, outcome) = migrate_missing(test, gpu, memory.range())?;
    check_eq!(outcome, moved(8, 8, 0));
    gpu.check_in_device(test.mm(), &memory)?;
    check!(!first.is_detached());
    check!(!second.is_detached());
    check_eq!(gpu.device_pfn(test.mm(), memory.addr(5))?, place);
    check_eq!(gpu.vram().counts.copied_out.load(Relaxed), out);
    memory.verify(1)
}

/// All of it is there: the new allocation goes at once.
fn all_resident(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(16, 1)?;
    let first = gpu.migrate(test.mm(), memory.range())?;
    let (second, outcome) = migrate_missing(test, gpu, memory.range())?;

    check_eq!(outcome, moved(0, 16, 0));
    check!(second.is_detached());
    drop(second);
    queue::flush();
    check_eq!(gpu.vram().live(), 1);
    check!(!first.is_detached());
    memory.verify(1)
}

/// A pinned page stays, its neighbours move.
fn pinned(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(16, 1)?;
    let pin = memory.pin(6)?;

    check_err!(gpu.migrate(test.mm(), memory.range()), EBUSY);
    gpu.check_in_ram(test.mm(), &memory)?;
    let (devmem, outcome) = migrate_missing(test, gpu, memory.range())?;
    check_eq!(outcome, moved(15, 0, 1));
    gpu.check_in_ram(test.mm(), &memory.part(6..7))?;
    gpu.check_in_device(test.mm(), &memory.part(0..6))?;
    gpu.check_in_device(test.mm(), &memory.part(7..16))?;
    drop(pin);
    let (home, result) = devmem.evict_to_ram();
    result?;
    check_eq!(home, 15);
    memory.verify(1)
}

/// Nothing can move: nothing is an error either.
fn all_pinned(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(2, 1)?;
    let _pins = (memory.pin(0)?, memory.pin(1)?);
    let (devmem, outcome) = migrate_missing(test, gpu, memory.range())?;

    check_eq!(outcome, moved(0, 0, 2));
    check!(devmem.is_detached());
    memory.verify(1)
}

/// Addresses never touched are missing, too.
fn holes(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map(12)?;

    memory.part(0..4).fill(1)?;
    let _first = gpu.migrate(test.mm(), memory.pages(0..2))?;
    let (_second, outcome) = migrate_missing(test, gpu, memory.range())?;

    check_eq!(outcome, moved(10, 2, 0));
    gpu.check_in_device(test.mm(), &memory)?;
    memory.part(0..4).verify(1)?;
    memory.part(4..12).verify_zero()
}

/// What the range itself is wrong with stays an error.
fn bad_ranges(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(4, 1)?;
    let range = memory.range();

    check_err!(
        migrate_missing(test, gpu, range.start + 1..range.end),
        EINVAL
    );
    memory.part(3..4).unmap()?;
    check_err!(migrate_missing(test, gpu, range), EINVAL);
    memory.part(0..3).verify(1)
}

/// A copy that fails is one: nothing has moved.
fn failed_copy(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let first = gpu.migrate(test.mm(), memory.pages(0..4))?;

    gpu.vram().copy_to_devmem.fail_always(EIO);
    check_err!(migrate_missing(test, gpu, memory.range()), EIO);
    gpu.vram().copy_to_devmem.heal();
    gpu.check_in_device(test.mm(), &memory.part(0..4))?;
    gpu.check_in_ram(test.mm(), &memory.part(4..8))?;
    check!(!first.is_detached());
    memory.verify(1)
}

/// With this, what was written to of a private mapping of a file moves.
const FILES: Details = Details {
    timeslice: 0,
    can_migrate_same_pagemap: false,
    defragment: false,
    private_files: true,
};

/// What was written to of a private mapping of a file goes, and comes home; what is the file's stays.
fn private_file(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_kind(16, Map::FilePrivate)?;
    let written = [memory.part(2..3), memory.part(5..9)];

    // The file's, in part mapped.
    memory.part(0..10).verify_zero()?;
    check_err!(migrate_missing(test, gpu, memory.range()), EOPNOTSUPP);
    let (_none, outcome) = migrate_with(test, gpu, memory.range(), &FILES)?;
    check_eq!(outcome, moved(0, 0, 16));
    check_eq!(gpu.vram().copy_to_devmem.calls(), 0);

    for part in &written {
        part.fill(1)?;
    }
    check_err!(migrate_missing(test, gpu, memory.range()), EOPNOTSUPP);
    let (devmem, outcome) = migrate_with(test, gpu, memory.range(), &FILES)?;
    check_eq!(outcome, moved(5, 0, 11));
    // A page of the file would have been collected, copied, and left in the end.
    check_eq!(
        gpu.vram().counts.copied_in.load(Relaxed),
        5 * PAGE_SIZE as u64
    );
    for part in &written {
        gpu.check_in_device(test.mm(), part)?;
    }

    // A page follows.
    memory.part(15..16).fill(1)?;
    let (_second, outcome) = migrate_with(test, gpu, memory.range(), &FILES)?;
    check_eq!(outcome, moved(1, 5, 10));

    let (home, result) = devmem.evict_to_ram();
    result?;
    check_eq!(home, 5);
    for part in &written {
        part.verify(1)?;
    }
    // By a fault.
    memory.part(15..16).verify(1)?;
    memory.part(0..2).verify_zero()?;
    memory.part(3..5).verify_zero()?;
    memory.part(9..15).verify_zero()
}

/// The same of a mapping that many PMDs map, written to here and there.
fn large_private_file(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_kind(4 * 512, Map::FilePrivate)?;
    let written = [
        memory.part(1..2),
        memory.part(500..1600),
        memory.part(2047..2048),
    ];

    for part in &written {
        part.fill(1)?;
    }
    let (_devmem, outcome) = migrate_with(test, gpu, memory.range(), &FILES)?;
    check_eq!(outcome, moved(1102, 0, 2048 - 1102));
    for part in &written {
        gpu.check_in_device(test.mm(), part)?;
    }
    for part in &written {
        part.verify(1)?;
    }
    memory.part(2..500).verify_zero()
}

/// Whose pages are not the process's own stays an error.
fn shared_file(test: &mut Test, gpu: &Gpu) -> Outcome {
    for kind in [Map::Shared, Map::FileShared] {
        let memory = UserMemory::map_kind(4, kind)?;

        memory.fill(1)?;
        check_err!(migrate_with(test, gpu, memory.range(), &FILES), EOPNOTSUPP);
        memory.verify(1)?;
    }
    Ok(())
}

suite!(
    drm_pagemap_missing,
    crate::harness::with_gpu,
    [
        half_resident,
        all_resident,
        pinned,
        all_pinned,
        holes,
        bad_ranges,
        failed_copy,
        private_file,
        large_private_file,
        shared_file,
    ]
);
