// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Numbers that look random, and are the same in every run.

/// A sequence of numbers: xorshift.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence that starts from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number, below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }
}
