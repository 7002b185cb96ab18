// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The module's work queue, for what may have to be done where sleeping is not allowed.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)
//!
//! The last reference on a device page can be dropped in any context; what follows from it
//! (a driver's release callback, putting the DRM device and its module) may sleep. Such work is
//! queued here. The queue is destroyed, and so waited for, when this module is unloaded, and each
//! work item is run by code of this module, which drops what keeps the driver's module loaded
//! only after the driver's part has returned.

use crate::bindings;
use core::{
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque,
    workqueue::Queue, //
};

/// One of the module's queues, for who has no reference to it.
///
/// # Invariants
///
/// 0, or the address of a work queue whose [`Owner`] has not been dropped completely.
pub(crate) struct Slot(Atomic<usize>);

impl Slot {
    /// No queue yet.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// The queue; it exists as long as code of this module can be called from without.
    pub(crate) fn raw(&self) -> *mut bindings::workqueue_struct {
        ptr::with_exposed_provenance_mut(self.0.load(Relaxed))
    }
}

/// The queue for releases.
static QUEUE: Slot = Slot::new();

/// What keeps a queue of the module. Nobody can queue any more when it is dropped, all users of the
/// module's symbols being gone, but what is still queued then.
pub(crate) struct Owner {
    // In this order: to the end, work may queue work.
    _queue: WorkQueue,
    _published: Published,
}

/// That a slot has a queue, until it is dropped.
struct Published(&'static Slot);

impl Drop for Published {
    fn drop(&mut self) {
        self.0 .0.store(0, Relaxed);
    }
}

impl Owner {
    /// Makes the queue for releases. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self::publish(WorkQueue::new(c"drm_pagemap")?, &QUEUE))
    }

    /// Lets `slot` find the queue.
    pub(crate) fn publish(queue: WorkQueue, slot: &'static Slot) -> Self {
        // INVARIANT: The owner is made just below.
        slot.0.store(queue.0.as_ptr() as usize, Relaxed);
        Self {
            _queue: queue,
            _published: Published(slot),
        }
    }
}

/// Waits until all that is queued now has been done. Must not be called from the queue itself. May
/// sleep.
pub fn flush() {
    // SAFETY: The queue exists as long as code of this module can be called.
    unsafe { bindings::__flush_workqueue(QUEUE.raw()) };
}

/// A work item, embedded in the object that it is for.
#[repr(transparent)]
pub struct Work(Opaque<bindings::work_struct>);

impl Work {
    /// A work item that calls `func`.
    ///
    /// `func` gets the address of this very item.
    pub(crate) fn new(
        func: unsafe extern "C" fn(*mut bindings::work_struct),
    ) -> impl PinInit<Self> {
        let init = move |slot: *mut Self| {
            // SAFETY: `slot` is memory for a work item, which is pinned.
            unsafe { init_work(slot, func) };
            Ok::<(), core::convert::Infallible>(())
        };

        // SAFETY: The closure initializes the item.
        unsafe { pin_init::pin_init_from_closure(init) }
    }

    /// Queues the item. Any context.
    ///
    /// # Safety
    ///
    /// The object that the item is embedded in must live until `func` has been called, and `func`
    /// be sound to call once from the queue.
    // Not inlined: drivers' crates instantiate callers of this, and can't reach the helper.
    #[inline(never)]
    pub(crate) unsafe fn enqueue(&self) {
        // SAFETY: The queue exists as long as code of this module can be called; the rest is
        // promised by the caller.
        unsafe {
            self.enqueue_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32,
                QUEUE.raw(),
            )
        };
    }

    /// As [`enqueue`](Self::enqueue), on another queue, for the processor `cpu`.
    ///
    /// # Safety
    ///
    /// As there; `queue` must exist until `func` has been called.
    pub(crate) unsafe fn enqueue_on(&self, cpu: c_int, queue: *mut bindings::workqueue_struct) {
        // SAFETY: The item is initialized, and lives as long as needed by the caller's promise.
        let queued = unsafe {
            bindings::queue_work_on(cpu, queue, self.0.get()) //
        };
        debug_assert!(queued);
    }

    /// Takes the item off its queue, or waits until it has been done. May sleep.
    pub(crate) fn cancel(&self) {
        // SAFETY: The item is initialized.
        unsafe { bindings::cancel_work_sync(self.0.get()) };
    }
}

/// `INIT_WORK()`. Not inlined: see [`Work::enqueue`].
///
/// # Safety
///
/// `work` must be memory for a work item.
#[inline(never)]
unsafe fn init_work(work: *mut Work, func: unsafe extern "C" fn(*mut bindings::work_struct)) {
    // SAFETY: Promised by the caller.
    unsafe { bindings::drm_pagemap_helper_init_work(work.cast(), Some(func)) };
}

/// A work queue of a driver's own, whose items run concurrently, on any processor.
///
/// Unlike those of the system it can be waited for: dropping it runs what is queued, and returns
/// when the last item's code has. So a driver whose items use the device drops it before that is
/// unbound. May sleep, and not be dropped by an item of its own.
///
/// # Invariants
///
/// The pointer is that of a work queue which exists as long as the value.
pub struct WorkQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A work queue may be used and destroyed by any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Makes one; `name` is what its workers are called. May sleep. [`ENOMEM`].
    // Not inlined: drivers' crates can't call the helper.
    #[inline(never)]
    pub fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is a static string.
        unsafe {
            Self::from_raw(bindings::drm_pagemap_helper_alloc_workqueue(
                name.as_char_ptr(),
            ))
        }
    }

    /// Takes over a work queue that was just made. [`ENOMEM`]: it is null.
    ///
    /// # Safety
    ///
    /// It must be the caller's, or null.
    pub(crate) unsafe fn from_raw(queue: *mut bindings::workqueue_struct) -> Result<Self> {
        // INVARIANT: Promised by the caller.
        Ok(Self(NonNull::new(queue).ok_or(ENOMEM)?))
    }
}

impl Deref for WorkQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariant it exists as long as `self`.
        unsafe { Queue::from_raw(self.0.as_ptr().cast()) }
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it exists. Who could queue something has no reference.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}
