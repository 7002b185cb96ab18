// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Memory that the CPU and the device fight for.
//!
//! A bounce is: memory was migrated to the device, and a CPU fault took it home. Many of them, in
//! quick succession, are work that serves nobody. So once that is seen, whoever has the memory next
//! may keep it for a while; the engine knows two ways:
//!
//! - where a driver wants all of a range in device memory, it gets that, and the time slice of the
//!   new allocation is as long as the pin: the CPU waits. To refuse would be worse: C drivers take
//!   [`EBUSY`](kernel::error::code::EBUSY) for a race that is won by evicting something and trying
//!   again, and a device that can't do without the memory (for its atomics) would starve;
//! - where it wants what is missing, as far as it can be had, the memory stays in RAM, as what
//!   can't move does. The device can read it there.
//!
//! An eviction is held up by neither.
//!
//! Bounces are counted in blocks of 512 pages of an address space, in a table of fixed size: of
//! blocks that fall on the same entry, one is watched until it has been quiet. To tell a bounce from
//! a CPU that takes an allocation home in small windows, or several allocations one by one, each
//! allocation has a number: a homecoming counts if the allocation was made after the last one that
//! was counted. A process that migrates the memory of another, by a fork, is not recognized.

use crate::jiffies;
use kernel::{
    mm::MmWithUser,
    new_spinlock,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        SpinLock, //
    },
    time::msecs_to_jiffies, //
};

/// When memory counts as fought for, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thrash {
    /// How many bounces make it so; 0 is as good as 1.
    pub bounces: u32,
    /// The longest time between one bounce and the next, in milliseconds.
    pub window_ms: u32,
    /// For how long the memory then stays, from the last bounce on in RAM, or from the migration on
    /// in device memory, in milliseconds. 0: nothing is watched. If this is longer than
    /// `window_ms`, each pin is followed by as many bounces as it takes for the next one.
    pub pin_ms: u32,
}

impl Thrash {
    /// Nothing is watched.
    pub const OFF: Self = Self {
        pin_ms: 0,
        ..Self::ON
    };
    /// Three bounces, none more than 100 ms after the one before, are answered by 20 ms of peace:
    /// long enough for a device to copy 2 MiB and work on it, short enough for nobody to notice.
    pub const ON: Self = Self {
        bounces: 3,
        window_ms: 100,
        pin_ms: 20,
    };

    /// Whether anything is watched.
    pub const fn is_on(&self) -> bool {
        self.pin_ms > 0
    }
}

impl Default for Thrash {
    fn default() -> Self {
        Self::OFF
    }
}

/// The number of allocations that pages were migrated to, or were about to.
static ALLOCATIONS: Atomic<u64> = Atomic::new(0);

/// The number of a new allocation.
pub(crate) fn next_allocation() -> u64 {
    ALLOCATIONS.fetch_add(1, Relaxed)
}

/// A block is 512 pages.
const BLOCK_SHIFT: usize = PAGE_SHIFT + 9;

/// Blocks that are watched at a time: 3 KiB.
const ENTRIES_ORDER: u32 = 6;

/// Part of an address space.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Block {
    /// Its address space, only ever compared.
    mm: usize,
    number: usize,
}

impl Block {
    fn of(mm: &MmWithUser, address: usize) -> Self {
        Self {
            mm: mm.as_raw().addr(),
            number: address >> BLOCK_SHIFT,
        }
    }

    fn entry(self) -> usize {
        /// 2^64 divided by the golden ratio: neighbours are spread.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

        let key = (self.mm as u64 >> 6).wrapping_add(self.number as u64);
        (key.wrapping_mul(SPREAD) >> (u64::BITS - ENTRIES_ORDER)) as usize
    }
}

/// What is known of a block.
#[derive(Clone, Copy)]
struct Entry {
    block: Block,
    /// Allocations from this one on were made after the last bounce.
    since: u64,
    /// When the last bounce was, in jiffies.
    last: u64,
    bounces: u32,
    /// Until when it is pinned, in jiffies.
    pinned_until: u64,
}

impl Entry {
    const NONE: Self = Self {
        block: Block { mm: 0, number: 0 },
        since: 0,
        last: 0,
        bounces: 0,
        pinned_until: 0,
    };

    /// Whether it may be forgotten.
    fn is_quiet(&self, now: u64, window: u64) -> bool {
        self.bounces == 0 || now > self.last + window && now >= self.pinned_until
    }
}

/// The blocks of one pagemap's memory that have bounced lately.
#[pin_data]
pub(crate) struct Table {
    /// Empty, if nothing is ever to be watched.
    #[pin]
    entries: SpinLock<KVec<Entry>>,
    /// When the last pin ends, in jiffies; 0: there was none.
    pinned_until: Atomic<u64>,
}

impl Table {
    /// A table, or room for nothing. May sleep.
    pub(super) fn new(watch: bool) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            entries <- {
                let entries = if watch { 1 << ENTRIES_ORDER } else { 0 };

                new_spinlock!(
                    KVec::from_elem(Entry::NONE, entries, GFP_KERNEL)?,
                    "drm_pagemap::policy::thrash::Table::entries"
                )
            },
            pinned_until: Atomic::new(0),
        }? Error)
    }

    /// A CPU fault at `address` has taken memory of the allocation `number` home. Returns whether
    /// it is pinned now.
    pub(super) fn came_home(
        &self,
        thrash: &Thrash,
        mm: &MmWithUser,
        address: usize,
        number: u64,
    ) -> bool {
        let block = Block::of(mm, address);
        let now = jiffies::now();
        let window = msecs_to_jiffies(thrash.window_ms) as u64;
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(block.entry()) else {
            return false;
        };

        if entry.block != block {
            if !entry.is_quiet(now, window) {
                return false;
            }
            *entry = Entry {
                block,
                ..Entry::NONE
            };
        }
        if number < entry.since {
            return false;
        }
        entry.since = ALLOCATIONS.load(Relaxed);
        if now > entry.last + window {
            entry.bounces = 0;
        }
        entry.bounces = entry.bounces.saturating_add(1);
        entry.last = now;
        if entry.bounces < thrash.bounces {
            return false;
        }

        let until = now + msecs_to_jiffies(thrash.pin_ms) as u64;

        entry.pinned_until = until;
        if until > self.pinned_until.load(Relaxed) {
            // Written under the lock only.
            self.pinned_until.store(until, Relaxed);
        }
        true
    }

    /// Whether the page at `address` is pinned.
    fn is_pinned(&self, mm: &MmWithUser, address: usize) -> bool {
        let now = jiffies::now();

        if now >= self.pinned_until.load(Relaxed) {
            return false;
        }

        let block = Block::of(mm, address);
        let entries = self.entries.lock();

        entries
            .get(block.entry())
            .is_some_and(|entry| entry.block == block && now < entry.pinned_until)
    }

    /// Whether any page of `range` (in bytes) is pinned.
    #[inline(always)]
    pub(super) fn any_pinned(&self, mm: &MmWithUser, range: core::ops::Range<usize>) -> bool {
        self.pinned_until.load(Relaxed) != 0 && self.any_pinned_of(mm, range)
    }

    #[cold]
    fn any_pinned_of(&self, mm: &MmWithUser, range: core::ops::Range<usize>) -> bool {
        if range.is_empty() || jiffies::now() >= self.pinned_until.load(Relaxed) {
            return false;
        }
        (range.start >> BLOCK_SHIFT..=(range.end - 1) >> BLOCK_SHIFT)
            .any(|number| self.is_pinned(mm, number << BLOCK_SHIFT))
    }
}
