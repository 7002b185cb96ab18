// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What came of a pagemap's policy, in numbers.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// How many sizes of windows are told apart.
const ORDERS: usize = 20;

/// What CPU faults did to a pagemap's pages since it was registered (for a C driver's pagemap: since
/// it was last taken into use). Read one by one, while others go on counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// CPU faults on pages in the device memory; one that comes again is counted again.
    pub faults: u64,
    /// Pages that they brought home.
    pub pages_home: u64,
    /// How often a window of `1 << n` pages, or more than half as many, came home, all of it or a
    /// part; the last one: that or larger.
    pub windows: [u64; ORDERS],
    /// How often a CPU slept for a time slice; for one of more than 20 ms, several times.
    pub slice_waits: u64,
    /// For how long, in jiffies, all of them together.
    pub slice_wait_jiffies: u64,
    /// Bounces that were found to be thrashing.
    pub thrash: u64,
    /// Migrations whose time slice is a pin.
    pub pinned_in_device: u64,
    /// Pages that were left in RAM as pinned.
    pub pinned_in_ram: u64,
}

/// The same, being counted.
pub(crate) struct Counts {
    faults: Atomic<u64>,
    pages_home: Atomic<u64>,
    windows: [Atomic<u64>; ORDERS],
    slice_waits: Atomic<u64>,
    slice_wait_jiffies: Atomic<u64>,
    thrash: Atomic<u64>,
    pinned_in_device: Atomic<u64>,
    pinned_in_ram: Atomic<u64>,
}

impl Counts {
    pub(super) const fn new() -> Self {
        Self {
            faults: Atomic::new(0),
            pages_home: Atomic::new(0),
            windows: [const { Atomic::new(0) }; ORDERS],
            slice_waits: Atomic::new(0),
            slice_wait_jiffies: Atomic::new(0),
            thrash: Atomic::new(0),
            pinned_in_device: Atomic::new(0),
            pinned_in_ram: Atomic::new(0),
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

    /// A CPU slept in a time slice, for so many jiffies.
    pub(crate) fn slice_wait(&self, jiffies: u64) {
        self.slice_waits.add(1u64, Relaxed);
        self.slice_wait_jiffies.add(jiffies, Relaxed);
    }

    /// A bounce was found to be thrashing.
    pub(super) fn thrash(&self) {
        self.thrash.add(1u64, Relaxed);
    }

    /// A migration got a pin for its time slice.
    pub(super) fn pinned_in_device(&self) {
        self.pinned_in_device.add(1u64, Relaxed);
    }

    /// So many pages were left in RAM.
    pub(crate) fn pinned_in_ram(&self, pages: usize) {
        self.pinned_in_ram.add(pages as u64, Relaxed);
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
            slice_waits: self.slice_waits.load(Relaxed),
            slice_wait_jiffies: self.slice_wait_jiffies.load(Relaxed),
            thrash: self.thrash.load(Relaxed),
            pinned_in_device: self.pinned_in_device.load(Relaxed),
            pinned_in_ram: self.pinned_in_ram.load(Relaxed),
        }
    }
}
