// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Waiting for what the device does, whoever has a signal.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    }, //
};

/// How often the device is looked at while it is waited for, in milliseconds.
pub(crate) const CHECK_MS: u32 = 100;

/// Those who wait for an engine, and its interrupt, which wakes them.
#[pin_data]
pub(crate) struct Wakeups {
    /// Held by who looks before going to sleep, and by who wakes.
    #[pin]
    lock: Mutex<()>,
    #[pin]
    woken: CondVar,
}

impl Wakeups {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- new_mutex!((), "simgpu::Wakeups::lock"),
            woken <- new_condvar!("simgpu::Wakeups::woken"),
        })
    }

    /// Wakes all.
    pub(crate) fn wake(&self) {
        let _lock = self.lock.lock();

        self.woken.notify_all();
    }

    /// Calls `look`, when woken and every [`CHECK_MS`] at least, until it returns something. May
    /// sleep, in an uninterruptible way.
    pub(crate) fn wait<R>(&self, mut look: impl FnMut() -> Result<Option<R>>) -> Result<R> {
        let mut lock = self.lock.lock();

        loop {
            if let Some(result) = look()? {
                return Ok(result);
            }

            let slice = msecs_to_jiffies(CHECK_MS);
            match self.woken.wait_interruptible_timeout(&mut lock, slice) {
                CondVarTimeoutResult::Woken { .. } | CondVarTimeoutResult::Timeout => (),
                // There is no uninterruptible wait with a time-out. What has begun must end before
                // the memory in question is let go, so a task with a signal looks by itself.
                CondVarTimeoutResult::Signal { .. } => {
                    drop(lock);
                    fsleep(Delta::from_micros(200));
                    lock = self.lock.lock();
                }
            }
        }
    }
}
