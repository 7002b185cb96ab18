// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What the device counts.

use crate::registers::QUEUES;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many counters there are.
pub const COUNTERS: usize = Counter::JobsFailed as usize + 1;

/// A counter; the discriminant is its place in the register map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    TlbHits,
    TlbMisses,
    Invalidations,
    /// Cached pages that invalidations dropped.
    Dropped,
    FaultsNotPresent,
    FaultsNoWrite,
    FaultsNoAtomic,
    /// Faults that found the buffer full or off.
    Overflows,
    Replays,
    Cancels,
    /// Bytes, by the copy engine.
    CopyBytes,
    /// Bytes, by the first compute queue; those of the others follow.
    QueueBytes,
    PeerBytes = Counter::QueueBytes as usize + QUEUES,
    JobsOk,
    JobsFailed,
}

/// All counters.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; COUNTERS]);

impl Counters {
    /// Adds `n` to a counter.
    pub fn add(&self, counter: Counter, n: u64) {
        self.0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Adds `n` to the bytes of compute queue `queue` (1 .. QUEUES).
    pub fn add_queue_bytes(&self, queue: usize, n: u64) {
        self.0[Counter::QueueBytes as usize + queue - 1].fetch_add(n, Ordering::Relaxed);
    }

    /// The value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// The register `offset` bytes into the block of counters.
    pub fn read(&self, offset: u64) -> u32 {
        let value = |i: usize| self.0.get(i).map_or(0, |n| n.load(Ordering::Relaxed));
        (value(offset as usize / 8) >> ((offset & 4) * 8)) as u32
    }

    /// Sets all to 0.
    pub fn clear(&self) {
        for counter in &self.0 {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_register_map() {
        let places = [
            (Counter::TlbHits, 0x00),
            (Counter::FaultsNotPresent, 0x20),
            (Counter::Cancels, 0x48),
            (Counter::CopyBytes, 0x50),
            (Counter::QueueBytes, 0x58),
            (Counter::PeerBytes, 0x78),
            (Counter::JobsFailed, 0x88),
        ];
        let counters = Counters::default();
        for (counter, offset) in places {
            counters.add(counter, 0x0001_0000_0002);
            assert_eq!((counters.read(offset), counters.read(offset + 4)), (2, 1));
        }
        counters.add_queue_bytes(QUEUES, 9);
        assert_eq!(counters.read(0x70), 9);
        assert_eq!(counters.read(0x90), 0);
        counters.clear();
        assert!((0..0x90)
            .step_by(4)
            .all(|offset| counters.read(offset) == 0));
    }
}
