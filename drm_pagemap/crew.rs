// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Several processors at one migration.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::{
    bindings,
    queue::Work, //
};
use core::{
    pin::Pin,
    ptr, //
};
use kernel::prelude::*;

/// A work item that helps once, if its turn comes in time.
///
/// # Invariants
///
/// `help` can be called until the item is dropped, which waits for its end.
#[pin_data(PinnedDrop)]
#[repr(C)]
struct Hand<'a> {
    #[pin]
    work: Work,
    help: &'a (dyn Fn() + Sync),
}

impl<'a> Hand<'a> {
    fn new(help: &'a (dyn Fn() + Sync)) -> Result<Pin<KBox<Self>>> {
        let hand = KBox::pin_init(
            pin_init!(Self {
                work <- Work::new(run),
                help,
            }),
            GFP_KERNEL,
        )?;

        // SAFETY: Dropping the item, before which it stays where it is, ends its use.
        unsafe { hand.work.enqueue_on(bindings::system_dfl_wq) };
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
    let help = unsafe { *ptr::addr_of!((*work.cast::<Hand<'_>>()).help) };

    help();
}

/// Calls `own` here, and `help` in up to `hands` other tasks at the same time; returns when all of
/// them have returned.
///
/// Best effort: those for which there is no memory, and that have not begun when `own` returns, are
/// not called. So `own` must do whatever is left to do, and nothing of it may wait for `help` to
/// begin. May sleep.
pub(crate) fn work_together(hands: usize, help: &(dyn Fn() + Sync), own: impl FnOnce()) {
    let mut crew = KVec::new();

    for _ in 0..hands {
        let Ok(hand) = Hand::new(help) else {
            break;
        };
        if crew.push(hand, GFP_KERNEL).is_err() {
            break;
        }
    }
    own();
}

/// How many other processors there are to help.
pub(crate) fn other_processors() -> usize {
    // SAFETY: Reads a number.
    (unsafe { bindings::drm_pagemap_helper_num_online_cpus() } as usize).saturating_sub(1)
}
