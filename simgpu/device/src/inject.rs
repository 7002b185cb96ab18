// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Test knobs: what an engine is to do wrong, and how often.

use std::time::Duration;

/// Values of INJECT_KIND.
pub const INJECT_FAIL: u32 = 1;
pub const INJECT_HANG: u32 = 2;
pub const INJECT_DELAY: u32 = 3;

/// What a test wants done to one piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    Nothing,
    Fail,
    Hang,
    Delay(Duration),
}

/// The three registers INJECT_KIND, INJECT_COUNT and INJECT_DELAY_US.
#[derive(Debug, Default)]
pub struct Injector {
    pub kind: u32,
    pub count: u32,
    pub delay_us: u32,
}

impl Injector {
    /// What to do to the next piece of work. Counts down.
    pub fn take(&mut self) -> Inject {
        if self.count == 0 {
            return Inject::Nothing;
        }
        let inject = match self.kind {
            INJECT_FAIL => Inject::Fail,
            INJECT_HANG => Inject::Hang,
            INJECT_DELAY => Inject::Delay(Duration::from_micros(self.delay_us.into())),
            _ => return Inject::Nothing,
        };
        self.count -= 1;
        inject
    }
}
