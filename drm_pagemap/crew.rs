// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Several tasks at one migration, on several processors or on one.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::{
    bindings,
    queue::{
        self,
        Slot,
        Work,
        WorkQueue, //
    },
};
use core::{
    cell::OnceCell,
    pin::Pin,
    ptr, //
};
use kernel::{
    cpu::CpuId,
    prelude::*,
    sync::atomic::{
        Atomic,
        Full, //
    },
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
    types::Opaque, //
};

/// For how long nothing need be done until whoever waits does it, in milliseconds.
const PATIENCE_MS: u32 = 50;

/// How many PMDs a range must have to be worth sharing.
const WORTH_IT: usize = 4;

/// How many hands a processor has: while the device copies for one of them, the other one works.
const HANDS: usize = 2;

/// How many tasks take turns on one processor: the device copies for one of them, has the copy of
/// another one to go on with, and the third one works.
pub(crate) const TURNS: usize = 3;

/// Who works, and whether all of them are done.
#[pin_data]
struct Crew<'a> {
    help: &'a (dyn Fn() + Sync),
    /// Hands that have not returned yet.
    busy: Atomic<usize>,
    #[pin]
    done: Opaque<bindings::completion>,
}

impl<'a> Crew<'a> {
    fn new(hands: usize, help: &'a (dyn Fn() + Sync)) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                help,
                busy: Atomic::new(hands),
                done <- Opaque::ffi_init(|done| {
                    // SAFETY: Memory for a completion.
                    unsafe { bindings::drm_pagemap_helper_init_completion(done) }
                }),
            }),
            GFP_KERNEL,
        )
    }

    fn work(&self) {
        (self.help)();
        if self.busy.fetch_sub(1, Full) == 1 {
            // SAFETY: Initialized; it exists until all hands are dropped, which is after this.
            unsafe { bindings::complete_all(self.done.get()) };
        }
    }

    /// Waits until all have returned, `timeout` jiffies at most. Returns whether they have.
    fn wait(&self, timeout: Jiffies) -> bool {
        // SAFETY: Initialized.
        unsafe { bindings::wait_for_completion_timeout(self.done.get(), timeout) != 0 }
    }
}

/// A work item that works once, if its turn comes in time.
///
/// # Invariants
///
/// `crew` exists until the item is dropped, which waits for the end of its work.
#[pin_data(PinnedDrop)]
#[repr(C)]
struct Hand<'a> {
    #[pin]
    work: Work,
    crew: &'a Crew<'a>,
}

impl<'a> Hand<'a> {
    fn new(crew: &'a Crew<'a>, cpu: c_int) -> Result<Pin<KBox<Self>>> {
        let hand = KBox::pin_init(
            pin_init!(Self {
                work <- Work::new(run),
                crew,
            }),
            GFP_KERNEL,
        )?;

        // SAFETY: The queue exists as long as code of this module can be called. Dropping the item,
        // before which it stays where it is, ends its use.
        unsafe { hand.work.enqueue_on(cpu, QUEUE.raw()) };
        Ok(hand)
    }
}

#[pinned_drop]
impl PinnedDrop for Hand<'_> {
    fn drop(self: Pin<&mut Self>) {
        self.work.cancel();
    }
}

/// # Safety
///
/// `work` must be the first field of a [`Hand`].
unsafe extern "C" fn run(work: *mut bindings::work_struct) {
    // SAFETY: Promised by the caller; by the type invariant of `Hand` it exists until this returns.
    let crew = unsafe { *ptr::addr_of!((*work.cast::<Hand<'_>>()).crew) };

    crew.work();
}

/// Has `help` called in other tasks at the same time, two on each processor that this one may use, `most`
/// of them, one for each PMD of a range, and waits for them for as long as `progress` says another
/// number from time to time; then calls `own`, here. Returns when all have returned.
///
/// Where there is little to do, or in memory reclaim, `own` does all of it.
///
/// Best effort: tasks for which there is no memory, or that have not begun when `own` returns, are
/// not called. So `own` must do whatever is left to do, and nothing of it may wait for `help` to
/// begin. May sleep.
///
/// Who works in a task of the kernel's own has no user memory mapped, and this one gives its
/// processor away: so page tables of the process can be changed without telling any processor of
/// each page, which is much of what a migration costs.
pub(crate) fn work_together(
    most: usize,
    help: &(dyn Fn() + Sync),
    progress: impl Fn() -> usize,
    own: impl FnOnce(),
) {
    if !may_share(most) {
        return own();
    }
    let hands = places_to_work().take(most).count();

    if let Ok(crew) = Crew::new(hands, help) {
        let all = begin(&crew, hands, places_to_work());
        let patience = msecs_to_jiffies(PATIENCE_MS);
        let mut seen = progress();

        // With too few of them the last one doesn't tell.
        while all.len() == hands && !crew.wait(patience) {
            let now = progress();

            if now == seen {
                break;
            }
            seen = now;
        }
        own();
        // Before `crew`.
        drop(all);
    } else {
        own();
    }
}

/// Calls `own`, here, and has `help` called in other tasks, by [turns](TURNS) on the same processor: while
/// the device copies for one of them, another one has the processor. So a copy is in flight all the
/// time, although drivers' operations return only when it is done. `own` calls what it is given when
/// its first copy is about to begin; before that, `help` would only hold it up.
///
/// For what takes the device longer than the processor: more of them would be in the way of others.
/// For the rest as [`work_together`].
pub(crate) fn work_by_turns(most: usize, help: &(dyn Fn() + Sync), own: impl FnOnce(&dyn Fn())) {
    if !may_share(most) {
        return own(&|| ());
    }
    let hands = TURNS - 1;
    let Ok(crew) = Crew::new(hands, help) else {
        return own(&|| ());
    };
    let all = OnceCell::new();

    own(&|| {
        all.get_or_init(|| begin(&crew, hands, this_processor()));
    });
    // Before `crew`.
    drop(all);
}

/// Has `help` called once on each processor that is there, in tasks of the kernel's own, and waits for
/// that, 50 ms at most. Best effort: where there is no memory, or the task's turn does not
/// come in time, it is not called; in memory reclaim, nowhere. May sleep.
pub(crate) fn on_each_processor(help: &(dyn Fn() + Sync)) {
    // SAFETY: No requirements.
    if unsafe { bindings::drm_pagemap_helper_is_in_reclaim() } {
        return;
    }
    let hands = all_processors().count();
    let Ok(crew) = Crew::new(hands, help) else {
        return;
    };
    let all = begin(&crew, hands, all_processors());

    // With too few of them the last one doesn't tell.
    if all.len() == hands {
        crew.wait(msecs_to_jiffies(PATIENCE_MS));
    }
    // Before `crew`.
    drop(all);
}

/// Whether `most` PMDs are worth it, and others may be waited for.
fn may_share(most: usize) -> bool {
    // SAFETY: No requirements.
    most >= WORTH_IT && !unsafe { bindings::drm_pagemap_helper_is_in_reclaim() }
}

/// `most`, or 0 where hands must not take RAM in this task's stead, as it has a memory policy, or a
/// cpuset, which says of which nodes that is to be.
pub(crate) fn for_ram(most: usize) -> usize {
    // SAFETY: No requirements.
    if most < WORTH_IT || unsafe { bindings::drm_pagemap_helper_has_mempolicy() } {
        0
    } else {
        most
    }
}

/// Sets to work this many, on the first of `cpus`, or as many as there is memory for.
fn begin<'a>(
    crew: &'a Crew<'a>,
    hands: usize,
    cpus: impl Iterator<Item = c_int>,
) -> KVec<Pin<KBox<Hand<'a>>>> {
    let mut all = KVec::new();

    if all.reserve(hands, GFP_KERNEL).is_err() {
        return all;
    }
    for cpu in cpus.take(hands) {
        match Hand::new(crew, cpu) {
            // There is room.
            Ok(hand) => drop(all.push_within_capacity(hand)),
            Err(_) => break,
        }
    }
    all
}

/// This one, as often as wanted; any would do.
fn this_processor() -> impl Iterator<Item = c_int> {
    core::iter::repeat(CpuId::current().as_u32() as c_int)
}

/// The processors for which there shall be a hand: each of them [`HANDS`] times.
fn places_to_work() -> impl Iterator<Item = c_int> {
    (0..HANDS).flat_map(|_| processors())
}

/// The processors that are there, and this task may use.
fn processors() -> impl Iterator<Item = c_int> {
    // SAFETY: No requirements.
    each(|last| unsafe { bindings::drm_pagemap_helper_next_cpu(last) })
}

/// All processors that are there.
fn all_processors() -> impl Iterator<Item = c_int> {
    // SAFETY: No requirements.
    each(|last| unsafe { bindings::drm_pagemap_helper_next_online_cpu(last) })
}

/// Those that `next` names, each after the last one, of which -1 is before the first one, and the end.
fn each(next: impl Fn(c_int) -> c_int) -> impl Iterator<Item = c_int> {
    let mut last = -1;

    core::iter::from_fn(move || {
        last = next(last);
        (last >= 0).then_some(last)
    })
}

/// The queue on which hands work.
static QUEUE: Slot = Slot::new();

/// Makes the queue. May sleep.
pub(crate) fn start() -> Result<queue::Owner> {
    // SAFETY: The name is a static string; the queue was just made.
    let queue = unsafe {
        WorkQueue::from_raw(bindings::drm_pagemap_helper_alloc_crew_queue(
            c"drm_pagemap_crew".as_char_ptr(),
        ))
    }?;

    Ok(queue::Owner::publish(queue, &QUEUE))
}
