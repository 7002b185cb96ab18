// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The MMU: address spaces, each with page tables and a TLB.
//!
//! Whoever uses an address space enters it ([`Mmu::enter`]), translates, does
//! the access, and leaves. An invalidation waits for those who are inside, and
//! keeps others out meanwhile: when it is done, nobody uses an old translation
//! any more.

use crate::counters::{Counter, Counters};
use crate::descriptor::Status;
use crate::dma;
use crate::page_table::{self, FaultKind, Intent, Leaf};
use crate::tlb::Tlb;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// How many address spaces there are.
pub const ASIDS: usize = 64;

/// Why a translation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The driver can help, and then it can be tried again.
    Fault(FaultKind),
    /// It is an error.
    Error(Status),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        Self::Error(status)
    }
}

/// One address space.
#[derive(Debug, Default)]
struct Space {
    /// ASID_ROOT, both halves, as they are in effect.
    root: AtomicU64,
    /// ASID_ROOT_HI, as it was written.
    root_hi: AtomicU32,
    /// Held for reading while translations are in use.
    gate: RwLock<()>,
    tlb: Mutex<Tlb>,
}

impl Space {
    fn tlb(&self) -> MutexGuard<'_, Tlb> {
        self.tlb.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All address spaces.
#[derive(Debug)]
pub struct Mmu {
    spaces: Vec<Space>,
}

impl Default for Mmu {
    fn default() -> Self {
        Self {
            spaces: (0..ASIDS).map(|_| Space::default()).collect(),
        }
    }
}

impl Mmu {
    /// The register `offset` bytes into the block of roots.
    pub fn read(&self, offset: u64) -> u32 {
        match self.spaces.get(offset as usize / 8) {
            Some(space) if offset & 4 == 0 => space.root.load(Ordering::Relaxed) as u32,
            Some(space) => space.root_hi.load(Ordering::Relaxed),
            None => 0,
        }
    }

    /// Writes that register. A low half puts both into effect.
    pub fn write(&self, offset: u64, value: u32) {
        match self.spaces.get(offset as usize / 8) {
            Some(space) if offset & 4 == 0 => {
                let high = u64::from(space.root_hi.load(Ordering::Relaxed)) << 32;
                space.root.store(high | u64::from(value), Ordering::Release);
            }
            Some(space) => space.root_hi.store(value, Ordering::Relaxed),
            None => {}
        }
    }

    /// Makes all as it was at power-on. Nobody may be inside a space.
    pub fn reset(&self) {
        for space in &self.spaces {
            space.root.store(0, Ordering::Relaxed);
            space.root_hi.store(0, Ordering::Relaxed);
            space.tlb().clear();
        }
    }

    /// Enters address space `asid`. Translations stay good until the result is
    /// dropped, which must be soon.
    pub fn enter(&self, asid: u32) -> Result<Inside<'_>, Status> {
        let space = self.spaces.get(asid as usize).ok_or(Status::BadAsid)?;
        Ok(Inside {
            space,
            _gate: space.gate.read().unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// Forgets what is cached of `first ..= last` in `asid`, or in all spaces,
    /// and waits until nobody uses it.
    pub fn invalidate(&self, asid: Option<u32>, first: u64, last: u64, counters: &Counters) {
        let chosen = self.spaces.iter().enumerate();
        for (_, space) in chosen.filter(|(n, _)| asid.is_none_or(|asid| asid as usize == *n)) {
            let _gate = space.gate.write().unwrap_or_else(PoisonError::into_inner);
            let dropped = space.tlb().invalidate(first, last);
            counters.add(Counter::Dropped, dropped);
        }
    }
}

/// An address space in use.
#[derive(Debug)]
pub struct Inside<'a> {
    space: &'a Space,
    _gate: RwLockReadGuard<'a, ()>,
}

impl Inside<'_> {
    /// The page of `va`, which may be accessed in the way of `intent`.
    pub fn translate(
        &self,
        guest: &dma::Access<'_>,
        va: u64,
        intent: Intent,
        counters: &Counters,
    ) -> Result<Leaf, Trouble> {
        let root = self.space.root.load(Ordering::Acquire);
        if !page_table::is_valid_root(root) {
            return Err(Trouble::Error(Status::BadAsid));
        }
        let cached = self.space.tlb().look_up(va);
        if let Some(leaf) = cached.filter(|leaf| leaf.allows(intent).is_ok()) {
            counters.add(Counter::TlbHits, 1);
            return Ok(leaf);
        }
        counters.add(Counter::TlbMisses, 1);
        let leaf =
            page_table::walk(guest, root, va)?.ok_or(Trouble::Fault(FaultKind::NotPresent))?;
        self.space.tlb().insert(va, leaf);
        match leaf.allows(intent) {
            Ok(()) => Ok(leaf),
            Err(kind) => Err(Trouble::Fault(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn an_invalidation_waits_for_who_is_inside_that_space() {
        let (mmu, counters) = (Mmu::default(), Counters::default());
        let inside = mmu.enter(3).unwrap();
        std::thread::scope(|scope| {
            let (done, is_done) = mpsc::channel();
            let (mmu, counters) = (&mmu, &counters);
            scope.spawn(move || {
                mmu.invalidate(Some(4), 0, 99, counters);
                done.send(4).unwrap();
                mmu.invalidate(Some(3), 0, 99, counters);
                done.send(3).unwrap();
            });
            assert_eq!(is_done.recv(), Ok(4), "another space");
            let early = is_done.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "somebody is still inside");
            drop(inside);
            assert_eq!(is_done.recv(), Ok(3));
        });
    }

    #[test]
    fn roots_take_effect_with_their_low_half() {
        let mmu = Mmu::default();
        mmu.write(8 * 63 + 4, 0x12);
        assert_eq!((mmu.read(8 * 63), mmu.read(8 * 63 + 4)), (0, 0x12));
        assert_eq!(mmu.spaces[63].root.load(Ordering::Relaxed), 0);
        mmu.write(8 * 63, 0x3001);
        assert_eq!(mmu.spaces[63].root.load(Ordering::Relaxed), 0x12_0000_3001);
        mmu.write(8 * 64, 1);
        assert_eq!(mmu.read(8 * 64), 0);
        assert_eq!(mmu.enter(64).err(), Some(Status::BadAsid));
        mmu.reset();
        assert_eq!((mmu.read(8 * 63), mmu.read(8 * 63 + 4)), (0, 0));
    }
}
