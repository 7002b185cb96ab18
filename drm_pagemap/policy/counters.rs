// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What came of a pagemap's policy, in numbers.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// How many sizes of windows are told apart.
const ORDERS: usize = 20;

/// What has happened to a pagemap's pages by CPU faults since it was registered (for a C driver's
/// pagemap: since it was last taken into use). Read one by one, while others go on counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// CPU faults on pages in the device memory.
    pub faults: u64,
    /// Pages that they brought home.
    pub pages_home: u64,
    /// How often a window of `1 << n` pages, or more than half as many, came home, all of it or a
    /// part; the last one: that or larger.
    pub windows: [u64; ORDERS],
}

/// The same, being counted.
pub(crate) struct Counts {
    faults: Atomic<u64>,
    pages_home: Atomic<u64>,
    windows: [Atomic<u64>; ORDERS],
}

impl Counts {
    pub(super) const fn new() -> Self {
        Self {
            faults: Atomic::new(0),
            pages_home: Atomic::new(0),
            windows: [const { Atomic::new(0) }; ORDERS],
        }
    }

    /// A CPU fault.
    pub(crate) fn fault(&self) {
        self.faults.add(1u64, Relaxed);
    }

    /// Of a window of `window` pages, `moved` came home.
    pub(crate) fn came_home(&self, window: usize, moved: usize) {
        if moved == 0 {
            return;
        }
        let order = window.next_power_of_two().trailing_zeros() as usize;

        self.windows[order.min(ORDERS - 1)].add(1u64, Relaxed);
        self.pages_home.add(moved as u64, Relaxed);
    }

    pub(super) fn read(&self) -> Counters {
        let mut windows = [0; ORDERS];

        for (to, from) in windows.iter_mut().zip(&self.windows) {
            *to = from.load(Relaxed);
        }
        Counters {
            faults: self.faults.load(Relaxed),
            pages_home: self.pages_home.load(Relaxed),
            windows,
        }
    }
}
