// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Intervals: being told of changes, and using what was seen only if there was none.

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
    thread::{
        wait_until_set,
        Thread, //
    },
    user::UserMemory, //
};
use core::{
    ops::Range,
    pin::Pin, //
};
use drm_pagemap::mm::{
    Change,
    Event,
    Interval,
    IntervalOps,
    PagemapOwner, //
};
use kernel::{
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// What an interval was told of.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) changes: KVec<(Event, Range<usize>)>,
    /// Of these, the migrations by `owner`.
    pub(crate) own_migrations: usize,
}

/// Notes what it is told of, as far as there is room for.
pub(crate) struct Notes {
    owner: PagemapOwner,
    /// Those that are not in the notes, because they came where sleeping is not allowed, too.
    pub(crate) told: Atomic<usize>,
}

impl Notes {
    fn note(&self, state: &mut Told, change: &Change) {
        self.told.fetch_add(1, Relaxed);
        if change.is_migration_by(self.owner) {
            state.own_migrations += 1;
        }
        // No room: the test misses it.
        let _ = state
            .changes
            .push_within_capacity((change.event(), change.range()));
    }
}

impl IntervalOps for Notes {
    type State = Told;

    fn invalidate(&self, state: &mut Told, change: &Change) {
        self.note(state, change);
    }

    fn try_invalidate(&self, state: &mut Told, change: &Change) -> bool {
        self.note(state, change);
        true
    }
}

/// A lock with room for what is told.
pub(crate) fn told() -> Result<Arc<Mutex<Told>>> {
    let told = Told {
        changes: KVec::with_capacity(1024, GFP_KERNEL)?,
        own_migrations: 0,
    };

    Arc::pin_init(
        new_mutex!(told, "drm_pagemap_kunit::interval::Told"),
        GFP_KERNEL,
    )
}

/// An interval with a lock of its own.
pub(crate) fn watch(
    mm: &MmWithUser,
    range: Range<usize>,
    owner: PagemapOwner,
) -> Result<Pin<KBox<Interval<Notes>>>> {
    let notes = Notes {
        owner,
        told: Atomic::new(0),
    };

    KBox::pin_init(
        Interval::<Notes>::new(mm, range, owner, told()?, Ok::<_, Error>(notes)),
        GFP_KERNEL,
    )
}

/// What the interval was told of since the last time.
pub(crate) fn take(interval: &Interval<Notes>) -> Result<KVec<(Event, Range<usize>)>> {
    let fresh = KVec::with_capacity(1024, GFP_KERNEL)?;

    Ok(core::mem::replace(
        &mut interval.lock().lock().changes,
        fresh,
    ))
}

/// It is told of what happens in its range, and only of that.
fn told_of_its_range(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let interval = watch(test.mm(), memory.pages(2..6), gpu.pagemap().owner())?;

    memory.part(0..2).unmap()?;
    memory.part(6..8).unmap()?;
    memory.part(2..6).verify(2).err();
    check_eq!(take(&interval)?.len(), 0);

    memory.part(3..4).unmap()?;
    let told = take(&interval)?;
    check!(told.contains(&(Event::Unmap, memory.pages(3..4))));
    Ok(())
}

/// It is told of migrations, and whose they are.
fn told_of_migrations(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let other = Gpu::new()?;
    let own = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;
    let foreign = watch(test.mm(), memory.range(), other.pagemap().owner())?;

    gpu.migrate(test.mm(), memory.range())?;
    for interval in [&own, &foreign] {
        check!(take(interval)?
            .iter()
            .any(|(event, range)| *event == Event::Migrate && *range == memory.range()));
    }
    check!(own.lock().lock().own_migrations > 0);
    check_eq!(foreign.lock().lock().own_migrations, 0);

    memory.verify(1)?;
    drop((own, foreign));
    other.finish()
}

/// The end of the address space is told of, and the interval outlives it.
fn told_of_the_end(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let interval = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;

    test.end_mm();
    check!(take(&interval)?
        .iter()
        .any(|(event, _)| *event == Event::Release));
    check!(interval.mm().mmget_not_zero().is_none());
    Ok(())
}

/// What was seen may be used if nothing has changed since, and not if something has.
fn commit_or_not(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let interval = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;

    let seq = interval.read_begin();
    check!(!seq.is_stale());
    check_eq!(seq.commit(|_| 7), Some(7));
    // As often as one likes.
    check_eq!(seq.commit(|_| 8), Some(8));

    memory.part(3..4).unmap()?;
    check!(seq.is_stale());
    check_eq!(seq.commit(|_| 9), None);

    // Also its own migrations are changes.
    let seq = interval.read_begin();
    gpu.migrate(test.mm(), memory.pages(4..8))?;
    check_eq!(seq.commit(|_| 10), None);
    check_eq!(interval.read_begin().commit(|_| 11), Some(11));
    memory.part(4..8).verify(1).err();
    Ok(())
}

/// While something is committed, nothing changes.
fn no_change_while_committing(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let interval = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;
    let started = Arc::new(Atomic::<usize>::new(0), GFP_KERNEL)?;
    let unmapped = Arc::new(Atomic::<usize>::new(0), GFP_KERNEL)?;
    let committing = Arc::new(Atomic::<usize>::new(0), GFP_KERNEL)?;
    let (go, started_by, unmapped_by) = (committing.clone(), started.clone(), unmapped.clone());
    // Before the lock is taken: under it, memory can't be allocated.
    let thread = Thread::start(move |_: &MmWithUser| {
        wait_until_set(&go);
        started_by.store(1, Relaxed);
        memory.part(3..4).unmap()?;
        unmapped_by.store(1, Relaxed);
        Ok(())
    })?;
    let quiet = interval.read_begin().commit(|_| {
        committing.store(1, Relaxed);
        wait_until_set(&started);
        fsleep(Delta::from_millis(50));
        interval.ops().told.load(Relaxed) == 0 && unmapped.load(Relaxed) == 0
    });

    committing.store(1, Relaxed);
    thread.join()?;
    check_eq!(quiet, Some(true));
    check_eq!(unmapped.load(Relaxed), 1);
    check!(interval.ops().told.load(Relaxed) > 0);
    Ok(())
}

/// Several intervals share a lock, and each is told of its own range.
fn one_lock_for_many(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let lock = told()?;
    let mut intervals = KVec::new();

    for page in 0..8 {
        let notes = Notes {
            owner: gpu.pagemap().owner(),
            told: Atomic::new(0),
        };
        let interval = Interval::<Notes>::new(
            test.mm(),
            memory.pages(page..page + 1),
            gpu.pagemap().owner(),
            lock.clone(),
            Ok::<_, Error>(notes),
        );

        intervals.push(KBox::pin_init(interval, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    let before = intervals[2].read_begin();
    memory.part(4..6).unmap()?;
    for (page, interval) in intervals.iter().enumerate() {
        check_eq!(
            interval.ops().told.load(Relaxed) > 0,
            (4..6).contains(&page)
        );
    }
    check_eq!(before.commit(|told| told.changes.len() > 1), Some(true));
    Ok(())
}

/// Ranges that are none.
fn bad_ranges(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let owner = gpu.pagemap().owner();
    let (start, end) = (memory.range().start, memory.range().end);

    check_err!(watch(test.mm(), start..start, owner), EINVAL);
    check_err!(watch(test.mm(), start + 1..end, owner), EINVAL);
    check_err!(watch(test.mm(), start..end - 1, owner), EINVAL);
    #[expect(clippy::reversed_empty_ranges)]
    {
        check_err!(watch(test.mm(), 0x2000..0x1000, owner), EINVAL);
    }
    Ok(())
}

suite!(
    drm_pagemap_interval,
    crate::harness::with_gpu,
    [
        told_of_its_range,
        told_of_migrations,
        told_of_the_end,
        commit_or_not,
        no_change_while_committing,
        one_lock_for_many,
        bad_ranges,
    ]
);
