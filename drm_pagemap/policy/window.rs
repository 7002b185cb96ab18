// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The fault window that adapts.
//!
//! What came home of an allocation, by CPU faults, says how much the next fault brings: where more
//! than half of a naturally aligned block has come home, the rest of it is wanted soon. So a reader
//! that goes through memory, in either direction, gets twice as much each time; so do several
//! readers, each in its own part, and one with small steps. A fault with nothing home beside it is
//! one of a sparse access, or the first one of a reader; each such fault halves what the next one
//! gets, and each of the other kind undoes that.
//!
//! Blocks are of virtual addresses, within regions of 512 pages. For a region there is a word: of
//! each of its 16 leaves, of 32 pages, whether all of it came home, and whether a part did. An
//! allocation has a few such words, which its regions share; a region that finds another's word
//! takes it, and starts anew. All of it are hints, without a lock or an order: what is lost to a
//! race, or wrong after an mremap(), makes a window too small or too large, no more.

use core::ops::Range;
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// A leaf has 32 pages.
const LEAF_SHIFT: usize = PAGE_SHIFT + 5;
/// A region has 16 leaves.
const LEAVES_ORDER: usize = 4;
const LEAVES: usize = 1 << LEAVES_ORDER;
const REGION_SHIFT: usize = LEAF_SHIFT + LEAVES_ORDER;
/// All leaves of a region.
const ALL: u16 = u16::MAX;

/// The order of the window of a first fault: 16 pages.
const FIRST_ORDER: u32 = 4;

/// Words for regions that an allocation has.
const WORDS: usize = 8;

/// What CPU faults have brought home of an allocation.
pub(crate) struct Touches {
    regions: [Atomic<u64>; WORDS],
    /// The order of the window of a fault with nothing home beside it.
    order: Atomic<u32>,
}

/// What has come home of a region.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Region {
    /// Which one it is, of those that share a word.
    tag: u32,
    /// Leaves of which a part has come home, a bit each.
    part: u16,
    /// Leaves of which all has.
    full: u16,
}

impl Region {
    fn from_word(word: u64) -> Self {
        Self {
            tag: (word >> 32) as u32,
            part: (word >> 16) as u16,
            full: word as u16,
        }
    }

    fn into_word(self) -> u64 {
        u64::from(self.tag) << 32 | u64::from(self.part) << 16 | u64::from(self.full)
    }

    /// The leaves of region `number` that are in `range` (in bytes), in part or fully.
    fn of_range(number: usize, range: &Range<usize>) -> Self {
        let within = |addr: usize| {
            addr.saturating_sub(number << REGION_SHIFT)
                .min(1 << REGION_SHIFT)
        };
        let up = |addr: usize| (addr + (1 << LEAF_SHIFT) - 1) >> LEAF_SHIFT;
        let (start, end) = (within(range.start), within(range.end));
        let full = leaves(up(start)..end >> LEAF_SHIFT);

        Self {
            tag: number as u32,
            part: leaves(start >> LEAF_SHIFT..up(end)) & !full,
            full,
        }
    }

    fn is_full(&self, leaf: usize) -> bool {
        self.full & 1 << leaf != 0
    }

    /// The largest aligned block with `leaf` of which more than half has come home, `leaf`
    /// included.
    fn block(&self, leaf: usize) -> Range<usize> {
        let home = self.full | 1 << leaf;

        (1..=LEAVES_ORDER)
            .rev()
            .map(|order| {
                let start = leaf >> order << order;
                let leaves = (ALL >> (LEAVES - (1 << order))) << start;

                (
                    start..start + (1 << order),
                    (home & leaves).count_ones() as usize,
                )
            })
            .find(|(block, home)| home * 2 > block.len())
            .map_or(leaf..leaf + 1, |(block, _)| block)
    }
}

/// A bit for each of the leaves.
fn leaves(range: Range<usize>) -> u16 {
    let below = |leaf: usize| (1u32 << leaf) - 1;

    (below(range.end) & !below(range.start)) as u16
}

impl Touches {
    pub(crate) const fn new() -> Self {
        Self {
            regions: [const { Atomic::new(0) }; WORDS],
            order: Atomic::new(FIRST_ORDER),
        }
    }

    fn word(&self, number: usize) -> &Atomic<u64> {
        &self.regions[number % WORDS]
    }

    fn region(&self, number: usize) -> Region {
        let region = Region::from_word(self.word(number).load(Relaxed));

        if region.tag == number as u32 {
            region
        } else {
            Region {
                tag: number as u32,
                part: 0,
                full: 0,
            }
        }
    }

    /// What a fault at `address` shall bring home, in bytes: whole pages within a region.
    pub(crate) fn window(&self, address: usize) -> Range<usize> {
        let number = address >> REGION_SHIFT;
        let leaf = (address >> LEAF_SHIFT) % LEAVES;
        let region = self.region(number);
        let below = || self.region(number.wrapping_sub(1)).full;
        let above = || self.region(number.wrapping_add(1)).full;
        let order = self.order.load(Relaxed);

        let beside = (region.part | region.full) & 1 << leaf != 0
            || match leaf {
                0 => below() & 1 << (LEAVES - 1) != 0,
                _ => region.is_full(leaf - 1),
            }
            || match leaf + 1 {
                LEAVES => above() & 1 != 0,
                next => region.is_full(next),
            };
        if !beside {
            let size = PAGE_SIZE << order;
            let start = address & !(size - 1);

            self.order.store(order.saturating_sub(1), Relaxed);
            return start..start + size;
        }
        if order < FIRST_ORDER {
            self.order.store(order + 1, Relaxed);
        }

        // Into the next region, from one that has come home whole.
        let block = if leaf == 0 && below() == ALL || leaf == LEAVES - 1 && above() == ALL {
            0..LEAVES
        } else {
            region.block(leaf)
        };
        // What is home already need not be looked at.
        let first = (block.start..leaf).find(|&leaf| !region.is_full(leaf));
        let last = (leaf + 1..block.end)
            .rev()
            .find(|&leaf| !region.is_full(leaf));
        let start = (number << REGION_SHIFT) + (first.unwrap_or(leaf) << LEAF_SHIFT);
        let end = (number << REGION_SHIFT) + ((last.unwrap_or(leaf) + 1) << LEAF_SHIFT);

        start..end
    }

    /// The addresses `range` (in bytes) have come home, as far as they could.
    pub(crate) fn came_home(&self, range: &Range<usize>) {
        /// After so many races, the hint is lost.
        const TRIES: usize = 3;

        if range.is_empty() {
            return;
        }
        for number in range.start >> REGION_SHIFT..=(range.end - 1) >> REGION_SHIFT {
            let now = Region::of_range(number, range);
            let word = self.word(number);

            for _ in 0..TRIES {
                let old = word.load(Relaxed);
                let region = Region::from_word(old);
                let new = if region.tag == now.tag {
                    Region {
                        tag: now.tag,
                        part: region.part | now.part,
                        full: region.full | now.full,
                    }
                } else {
                    now
                }
                .into_word();

                if new == old || word.cmpxchg(old, new, Relaxed).is_ok() {
                    break;
                }
            }
        }
    }
}
