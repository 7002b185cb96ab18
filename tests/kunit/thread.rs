// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Threads that run in the test's address space, as those of a process do.

use crate::{
    ffi,
    harness::{
        Failure,
        Outcome, //
    },
};
use core::{
    ffi::c_void,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    mm::MmWithUser,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Completion, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    types::Opaque, //
};

/// What a thread shares with who started it.
#[pin_data]
struct Shared<F> {
    #[pin]
    done: Completion,
    body: Opaque<Option<F>>,
    outcome: Opaque<Option<Outcome>>,
    mm: *mut bindings::mm_struct,
}

/// A running thread.
pub(crate) struct Thread<F: FnOnce(&MmWithUser) -> Outcome + Send> {
    task: NonNull<bindings::task_struct>,
    shared: Arc<Shared<F>>,
}

// SAFETY: The thread touches `body` before, and its creator `outcome` after, `done` is completed.
unsafe impl<F: Send> Send for Shared<F> {}
// SAFETY: As above.
unsafe impl<F: Send> Sync for Shared<F> {}

impl<F: FnOnce(&MmWithUser) -> Outcome + Send> Thread<F> {
    /// Starts `body` in a thread of the address space that the test is in.
    ///
    /// What `body` borrows must outlive the thread, which is [joined](Self::join) or dropped before
    /// that.
    pub(crate) fn start(body: F) -> Outcome<Self> {
        let shared = Arc::pin_init(
            pin_init!(Shared {
                done <- Completion::new(),
                body: Opaque::new(Some(body)),
                outcome: Opaque::new(None),
                // SAFETY: The test has an address space attached.
                mm: unsafe { ffi::drm_pagemap_kunit_mm_get() },
            }),
            GFP_KERNEL,
        )?;
        let data = Arc::into_raw(shared.clone());
        // SAFETY: `main` takes over the reference.
        let task =
            unsafe { ffi::drm_pagemap_kunit_thread(Self::main, data.cast_mut().cast::<c_void>()) };
        let Some(task) = NonNull::new(task) else {
            // SAFETY: The thread doesn't run; both references are still ours.
            unsafe {
                ffi::drm_pagemap_kunit_mm_put(shared.mm);
                drop(Arc::from_raw(data));
            }
            return Err(Failure::new(fmt!("no thread")));
        };

        Ok(Self { task, shared })
    }

    /// # Safety
    ///
    /// `data` must be a reference on a `Shared<F>` that is given up.
    unsafe extern "C" fn main(data: *mut c_void) -> i32 {
        // SAFETY: Promised by the caller.
        let shared = unsafe { Arc::from_raw(data.cast::<Shared<F>>()) };

        // SAFETY: The reference on `mm` is this thread's. Nobody else accesses `body` or, before
        // `done` is completed, `outcome`.
        unsafe {
            ffi::drm_pagemap_kunit_mm_use(shared.mm);
            if let Some(body) = (*shared.body.get()).take() {
                *shared.outcome.get() = Some(body(MmWithUser::from_raw(shared.mm)));
            }
            ffi::drm_pagemap_kunit_mm_unuse(shared.mm);
            ffi::drm_pagemap_kunit_mm_put(shared.mm);
        }
        shared.done.complete_all();
        0
    }

    fn wait(&mut self) {
        self.shared.done.wait_for_completion();
    }

    /// Waits for the thread's end.
    pub(crate) fn join(mut self) -> Outcome {
        self.wait();
        // SAFETY: The thread is done with it.
        unsafe { (*self.shared.outcome.get()).take() }
            .unwrap_or_else(|| Err(Failure::new(fmt!("the thread has no outcome"))))
    }
}

impl<F: FnOnce(&MmWithUser) -> Outcome + Send> Drop for Thread<F> {
    fn drop(&mut self) {
        self.wait();
        // SAFETY: The thread's function runs, or did.
        unsafe { ffi::drm_pagemap_kunit_thread_join(self.task.as_ptr()) };
    }
}

/// Waits until another thread has stored something in `flag`. Sleeps.
pub(crate) fn wait_until_set(flag: &Atomic<usize>) {
    while flag.load(Relaxed) == 0 {
        fsleep(Delta::from_millis(1));
    }
}
