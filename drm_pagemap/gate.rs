// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A gate that users pass until it is closed for ever.

use kernel::{
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    }, //
};

/// Lets users in while it is open; who closes it waits until the last one is out.
#[pin_data]
pub struct Gate {
    #[pin]
    state: Mutex<State>,
    #[pin]
    left: CondVar,
}

struct State {
    closed: bool,
    inside: usize,
}

/// What lockdep calls it. A static, as lockdep wants one address for each lock class, and a literal
/// has another one in every crate that the initializer is compiled into.
static NAME: &CStr = c"drm_pagemap::Gate";

impl Gate {
    /// An open gate.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- Mutex::new(
                State {
                    closed: false,
                    inside: 0,
                },
                NAME,
                kernel::static_lock_class!(),
            ),
            left <- CondVar::new(NAME, kernel::static_lock_class!()),
        })
    }

    /// Goes in, until the pass is dropped. [`ENODEV`]: the gate is closed. May sleep, shortly.
    pub fn enter(&self) -> Result<Pass<'_>> {
        let mut state = self.state.lock();

        if state.closed {
            return Err(ENODEV);
        }
        state.inside += 1;
        Ok(Pass(self))
    }

    /// Closes the gate, and waits until nobody is inside. May sleep.
    pub fn close(&self) {
        let mut state = self.state.lock();

        state.closed = true;
        while state.inside > 0 {
            self.left.wait(&mut state);
        }
    }
}

/// Proof of being inside a [`Gate`].
pub struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();

        state.inside -= 1;
        if state.inside == 0 {
            self.0.left.notify_all();
        }
    }
}
