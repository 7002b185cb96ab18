// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Memory that several GPUs want at the same time.
//!
//! Each would have it in its VRAM, or in RAM, if that was advised. One that has just got it may
//! lose it before its job has done much, and then takes it away from the other one in the same
//! way: all is spent on moving. So who brings the same memory again and again, in no time, uses it
//! where it is for once: over the link, or in RAM.

use kernel::{
    sizes::SZ_2M,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Windows that are looked after. More of them take each other's place.
const WINDOWS: usize = 32;

/// As many times in a row are too many.
const BOUNCES: u32 = 4;

/// For how many milliseconds after a window was brought its next time is one in a row; and for so
/// many times as long as bringing it took, on a machine that is slow.
const RECENT_MS: i64 = 100;
const RECENT_TIMES: i64 = 4;

/// A window that was brought.
#[derive(Clone, Copy)]
struct Brought {
    /// Its number.
    window: usize,
    at: Instant<Monotonic>,
    /// For how many milliseconds after that a fault is a recent one.
    recent_ms: i64,
    /// How often in a row.
    times: u32,
}

/// The windows of an address space that were brought lately.
pub(crate) struct Contention {
    brought: [Option<Brought>; WINDOWS],
}

impl Contention {
    pub(crate) fn new() -> Self {
        Self {
            brought: [None; WINDOWS],
        }
    }

    /// What is known of the window that `addr` is in, if it was brought recently.
    fn recent(&self, addr: usize) -> Option<&Brought> {
        let window = addr / SZ_2M;

        self.brought[window % WINDOWS].as_ref().filter(|brought| {
            brought.window == window && brought.at.elapsed().as_millis() < brought.recent_ms
        })
    }

    /// Whether the window of `addr` was brought so often that somebody else must have it, too.
    pub(crate) fn is_contested(&self, addr: usize) -> bool {
        self.recent(addr)
            .is_some_and(|brought| brought.times >= BOUNCES)
    }

    /// The window of `addr` was brought, which has begun at this time.
    pub(crate) fn brought(&mut self, addr: usize, begun: Instant<Monotonic>) {
        let window = addr / SZ_2M;
        let now = Instant::now();
        let times = 1 + self.recent(addr).map_or(0, |before| before.times);

        self.brought[window % WINDOWS] = Some(Brought {
            window,
            at: now,
            recent_ms: RECENT_MS + RECENT_TIMES * (now - begun).as_millis(),
            times,
        });
    }
}
