// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The descriptor ring and the fence block, in guest memory.

use crate::dma::{Access, Block, BusError};

/// Fewest and most descriptors in a ring.
pub const MIN_ENTRIES: u32 = 2;
pub const MAX_ENTRIES: u32 = 65536;

/// Where the ring and its fence block are. A snapshot of the registers, taken
/// when the ring is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ring {
    /// Bus address of the first descriptor.
    pub base: u64,
    /// Number of descriptors.
    pub entries: u32,
    /// Bus address of the fence block.
    pub fence: u64,
    /// Bytes in a descriptor: one block or more.
    pub entry: u64,
}

impl Ring {
    /// Whether the numbers make sense, guest memory aside.
    pub fn is_sane(&self) -> bool {
        self.entries.is_power_of_two()
            && (MIN_ENTRIES..=MAX_ENTRIES).contains(&self.entries)
            && self.base % Block::SIZE == 0
            && self.fence % Block::SIZE == 0
    }

    /// Whether the ring and the fence block are guest memory that can be read
    /// and written.
    pub fn check(&self, guest: &Access<'_>) -> Result<(), BusError> {
        guest.check_read_write(self.base, u64::from(self.entries) * self.entry)?;
        guest.check_read_write(self.fence, Block::SIZE)
    }

    /// The index after `index`.
    pub fn next(&self, index: u32) -> u32 {
        // `entries` is a power of two while the ring runs; 0 must not panic.
        (index + 1) & self.entries.wrapping_sub(1)
    }

    /// Descriptor `index`, or its first block.
    pub fn slot<'a>(&self, guest: &'a Access<'_>, index: u32) -> Result<Block<'a>, BusError> {
        self.block(guest, u64::from(index) * self.entry)
    }

    /// The second block of descriptor `index`, which has two.
    pub fn second_block<'a>(
        &self,
        guest: &'a Access<'_>,
        index: u32,
    ) -> Result<Block<'a>, BusError> {
        self.block(guest, u64::from(index) * self.entry + Block::SIZE)
    }

    fn block<'a>(&self, guest: &'a Access<'_>, offset: u64) -> Result<Block<'a>, BusError> {
        guest.block(self.base.checked_add(offset).ok_or(BusError)?)
    }

    /// The fence block.
    pub fn fence_block<'a>(&self, guest: &'a Access<'_>) -> Result<FenceBlock<'a>, BusError> {
        Ok(FenceBlock(guest.block(self.fence)?))
    }
}

/// The fence block: what a driver polls.
#[derive(Debug)]
pub struct FenceBlock<'a>(Block<'a>);

impl FenceBlock<'_> {
    /// Tells the sequence number of a finished descriptor; who sees it sees
    /// all that was written before.
    pub fn signal(&self, seq: u64) {
        self.0.store_u64(0, seq);
    }

    /// Tells the number of failed descriptors since RESET.
    pub fn set_errors(&self, count: u64) {
        self.0.store_u64(1, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Ring = Ring {
        base: 0x1000,
        entries: 8,
        fence: 0x40,
        entry: 64,
    };

    #[test]
    fn sane_rings() {
        assert!(GOOD.is_sane());
        for entries in [2, 4, 65536] {
            assert!(Ring { entries, ..GOOD }.is_sane());
        }
        for entries in [0, 1, 3, 6, 65535, 65537, 131072, u32::MAX, 1 << 31] {
            assert!(!Ring { entries, ..GOOD }.is_sane(), "{entries}");
        }
        for off in [1, 8, 32, 63] {
            assert!(!Ring { base: off, ..GOOD }.is_sane());
            assert!(!Ring { fence: off, ..GOOD }.is_sane());
        }
    }

    #[test]
    fn the_index_wraps() {
        assert_eq!(GOOD.next(0), 1);
        assert_eq!(GOOD.next(7), 0);
    }
}
