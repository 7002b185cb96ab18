// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The device's page tables of an address space.

use crate::{
    link,
    mmu::{
        Command,
        Mmu, //
    }, //
};
use core::ops::Range;
use drm_pagemap::{
    SvmPages,
    SvmPiece,
    SvmPlace, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        Coherent,
        DmaAddress, //
    },
    io::{
        io_read,
        io_write, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sizes::SZ_2M,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// Entries of a table.
const ENTRIES: usize = 512;

/// Bits of an address that a level takes.
const LEVEL_BITS: u32 = 9;

/// The level of the root.
const ROOT_LEVEL: u32 = 3;

/// The level whose entries can be leaves of 2 MiB.
const HUGE_LEVEL: u32 = 1;

/// The order of such a leaf.
const HUGE_ORDER: u32 = 9;

/// Bits of an entry; see the device's `REGISTERS.md`.
const VALID: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const ATOMIC: u64 = 1 << 2;
const LEAF: u64 = 1 << 3;
const APERTURE_VRAM: u64 = 1 << 4;
const APERTURE_PEER: u64 = 2 << 4;
const PEER_SHIFT: u32 = 8;

/// How a job wants to use a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Write,
    Atomic,
}

/// Leaves that were written.
pub(crate) struct Leaves {
    /// Of 4 KiB.
    pub(crate) small: Atomic<u64>,
    /// Of 2 MiB.
    pub(crate) huge: Atomic<u64>,
    /// Pages of those that are in other GPUs' VRAM.
    pub(crate) remote: Atomic<u64>,
}

/// A table.
type Table = Coherent<[u64]>;

/// Which table: its level, and the part of the addresses that all its entries have in common.
type Key = (u32, usize);

fn key(level: u32, addr: usize) -> Key {
    (
        level,
        addr >> (PAGE_SHIFT as u32 + LEVEL_BITS * (level + 1)),
    )
}

/// The index of the entry for `addr` in a table of this level.
fn index(level: u32, addr: usize) -> usize {
    (addr >> (PAGE_SHIFT as u32 + LEVEL_BITS * level)) % ENTRIES
}

/// The page tables. Tables come when a range needs them, and stay.
///
/// This is what the lock of all [`SvmRange`](drm_pagemap::SvmRange)s of the address space guards,
/// and so nothing here allocates memory, but for [`reserve`](Self::reserve).
pub(crate) struct PageTable {
    mmu: Arc<Mmu>,
    asid: usize,
    tables: RBTree<Key, Table>,
    leaves: Arc<Leaves>,
    /// The device doesn't look at the tables any more, and has forgotten what it saw.
    dead: bool,
}

impl PageTable {
    /// No tables yet.
    pub(crate) fn new(mmu: Arc<Mmu>, asid: usize, leaves: Arc<Leaves>) -> Self {
        Self {
            mmu,
            asid,
            tables: RBTree::new(),
            leaves,
            dead: false,
        }
    }

    /// Sees to it that there are the tables for the 2 MiB that `addr` is in. The lock of `this`
    /// must not be held; may sleep. [`ENOMEM`]; [`ECANCELED`]: the address space is gone.
    pub(crate) fn reserve(this: &Mutex<Self>, dev: &Device<Bound>, addr: usize) -> Result {
        for level in (0..=ROOT_LEVEL).rev() {
            let key = key(level, addr);

            if this.lock().tables.get(&key).is_some() {
                continue;
            }
            let table = Coherent::zeroed_slice(dev, ENTRIES, GFP_KERNEL)?;
            let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
            // What isn't needed in the end is freed without the lock.
            let spare = this.lock().insert(level, addr, table, node);
            if spare.is_some_and(|(dead, _)| dead) {
                return Err(ECANCELED);
            }
        }
        Ok(())
    }

    /// Takes in a table for `addr`, and lets its parent point to it. Gives it back if there is one
    /// already, or if the address space is dead, and says which.
    fn insert(
        &mut self,
        level: u32,
        addr: usize,
        table: Table,
        node: RBTreeNodeReservation<Key, Table>,
    ) -> Option<(bool, Table)> {
        let key = key(level, addr);

        if self.dead || self.tables.get(&key).is_some() {
            return Some((self.dead, table));
        }
        let bus = table.dma_address();

        // Nothing is replaced.
        let _ = self.tables.insert(node.into_node(key, table));
        if level == ROOT_LEVEL {
            self.mmu.set_root(self.asid, Some(bus));
        } else {
            // It can't fail: parents come first.
            let _ = self.set(level + 1, addr, bus | VALID);
        }
        None
    }

    fn set(&self, level: u32, addr: usize, entry: u64) -> Result {
        let table = self.tables.get(&key(level, addr)).ok_or(EINVAL)?;

        io_write!(table, [try: index(level, addr)], entry);
        Ok(())
    }

    fn get(&self, level: u32, addr: usize) -> Result<u64> {
        let table = self.tables.get(&key(level, addr)).ok_or(EINVAL)?;

        Ok(io_read!(table, [try: index(level, addr)]))
    }

    /// Whether a leaf of 2 MiB is where the table of level 0 could be.
    fn is_huge(&self, addr: usize) -> bool {
        self.get(HUGE_LEVEL, addr)
            .is_ok_and(|entry| entry & (VALID | LEAF) == VALID | LEAF)
    }

    /// Whether the device can use the page at `addr` in this way.
    pub(crate) fn allows(&self, addr: usize, how: Use) -> bool {
        let level = if self.is_huge(addr) { HUGE_LEVEL } else { 0 };
        let wanted = match how {
            Use::Read => VALID,
            Use::Write => VALID | WRITE,
            Use::Atomic => VALID | WRITE | ATOMIC,
        };

        !self.dead
            && self
                .get(level, addr)
                .is_ok_and(|entry| entry & wanted == wanted)
    }

    /// Whether there are tables for all of `range`.
    fn has_tables(&self, range: &Range<usize>) -> bool {
        range
            .clone()
            .step_by(PAGE_SIZE)
            .all(|addr| self.tables.get(&key(0, addr)).is_some())
    }

    /// Writes the entries for `pages`, which were not there. Their tables must be.
    pub(crate) fn map(&mut self, pages: &SvmPages) -> Result {
        if self.dead || !self.has_tables(&pages.range()) {
            return Err(ECANCELED);
        }
        for piece in pages.pieces() {
            let (first, rights) = leaf(piece)?;

            if matches!(piece.place, SvmPlace::Peer(_)) {
                self.leaves.remote.add(1 << piece.order, Relaxed);
            }
            if piece.order == HUGE_ORDER && first % SZ_2M as u64 == 0 {
                self.set(HUGE_LEVEL, piece.addr, first | rights)?;
                self.leaves.huge.add(1, Relaxed);
                continue;
            }
            for page in 0..1usize << piece.order {
                let offset = page << PAGE_SHIFT;

                self.set(0, piece.addr + offset, (first + offset as u64) | rights)?;
            }
            self.leaves.small.add(1 << piece.order, Relaxed);
        }
        Ok(())
    }

    /// Clears the entries of `range`, and returns when the device doesn't use them any more.
    pub(crate) fn unmap(&mut self, range: Range<usize>) {
        for addr in range.clone().step_by(PAGE_SIZE) {
            if self.is_huge(addr) {
                let table = self.tables.get(&key(0, addr));
                let below = table.map_or(0, |table| table.dma_address() | VALID);
                let _ = self.set(HUGE_LEVEL, addr, below);
            }
            // It can't fail: where there was an entry there is a table.
            let _ = self.set(0, addr, 0);
        }
        if !self.dead {
            // An error is a device that is gone, or was reset for that.
            let _ = self.mmu.run(&Command::Invalidate {
                asid: self.asid,
                range,
            });
        }
    }

    /// Takes the address space from the device: its jobs end, and what it knew is forgotten.
    /// Nothing can be mapped any more.
    pub(crate) fn kill(&mut self) {
        let all = Command::Invalidate {
            asid: self.asid,
            range: 0..0,
        };

        self.dead = true;
        self.mmu.set_root(self.asid, None);
        let _ = self.mmu.run(&all);
        let _ = self.mmu.run(&Command::Replay { asid: self.asid });
    }

    /// Takes the tables out, once the address space is dead, for them to be freed.
    pub(crate) fn take_tables(&mut self) -> RBTree<Key, Table> {
        core::mem::replace(&mut self.tables, RBTree::new())
    }
}

/// The address and the other bits of a piece's first leaf.
fn leaf(piece: &SvmPiece) -> Result<(DmaAddress, u64)> {
    let write = if piece.writable { WRITE } else { 0 };
    // Pages of RAM may be changed by a CPU at the same time, unless no CPU can get at them.
    let atomic = if piece.writable && (piece.exclusive || !matches!(piece.place, SvmPlace::Ram(_)))
    {
        ATOMIC
    } else {
        0
    };
    let (addr, aperture) = match piece.place {
        SvmPlace::Ram(addr) => (addr, 0),
        SvmPlace::Own(offset) => (offset, APERTURE_VRAM),
        SvmPlace::Peer(addr) => {
            let peer = link::number(addr.protocol()).ok_or(EOPNOTSUPP)?;

            (addr.addr(), APERTURE_PEER | peer << PEER_SHIFT)
        }
    };

    Ok((addr, VALID | LEAF | write | atomic | aperture))
}
