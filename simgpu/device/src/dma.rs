// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Guest memory as the device sees it: bus addresses, backed by the memory
//! files that DMA_MAP messages hand over.
//!
//! Whoever touches guest memory first takes an [`Access`], which holds the
//! table's read lock. DMA_UNMAP takes the write lock, so when it returns no
//! copy is using the range any more, as a client may rely on.

use crate::mapping::Mapping;
use crate::span::Span;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{fence, AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Mappings begin and end at multiples of this many bytes.
pub const PAGE: u64 = 4096;

/// A bus range is not guest memory that the device may use that way.
#[derive(Debug, PartialEq, Eq)]
pub struct BusError;

/// What the client allows the device to do with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    pub read: bool,
    pub write: bool,
}

/// What an access needs.
pub const READ: Rights = Rights {
    read: true,
    write: false,
};
pub const WRITE: Rights = Rights {
    read: false,
    write: true,
};
pub const READ_WRITE: Rights = Rights {
    read: true,
    write: true,
};

impl Rights {
    fn allow(self, need: Rights) -> bool {
        (self.read || !need.read) && (self.write || !need.write)
    }
}

/// One mapped range. The memory is PAGE aligned, like its bus address.
///
/// Invariant: if `rights.write`, then `map` is mapped writable.
#[derive(Debug)]
struct Region {
    map: Mapping,
    rights: Rights,
}

impl Region {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }
}

/// All ranges by first bus address. They do not overlap, nor pass 2^64.
type Regions = BTreeMap<u64, Region>;

/// The device's view of the bus.
#[derive(Debug, Default)]
pub struct Dma {
    regions: RwLock<Regions>,
    bus_master: AtomicBool,
}

impl Dma {
    /// Makes `size` bytes of `file` from `offset` reachable at `bus`. All three
    /// are multiples of [`PAGE`].
    pub fn map(
        &self,
        bus: u64,
        size: u64,
        file: &File,
        offset: u64,
        rights: Rights,
    ) -> io::Result<()> {
        let end = bus.checked_add(size).ok_or_else(invalid)?;
        let file_end = offset.checked_add(size).ok_or_else(invalid)?;
        let aligned = [bus, size, offset].iter().all(|n| n % PAGE == 0);
        // Past the end of the file a load would be a SIGBUS.
        if size == 0 || !aligned || file_end > file.metadata()?.len() {
            return Err(invalid());
        }
        let len = usize::try_from(size).map_err(|_| invalid())?;

        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        if overlapping(&regions, bus, end).next().is_some() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let map = Mapping::shared(file, offset, len, rights.write)?;
        regions.insert(bus, Region { map, rights });
        Ok(())
    }

    /// Forgets what lies in `bus .. bus + size`, after waiting for the copy at
    /// hand. A range that cuts a mapping in two is refused; one with nothing
    /// in it is fine, as memory that cannot be mapped was never taken.
    pub fn unmap(&self, bus: u64, size: u64) -> io::Result<()> {
        let end = bus.checked_add(size).ok_or_else(invalid)?;
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let hit: Vec<(u64, u64)> = overlapping(&regions, bus, end).collect();
        if hit.iter().any(|&(start, stop)| start < bus || stop > end) {
            return Err(invalid());
        }
        for (start, _) in hit {
            regions.remove(&start);
        }
        Ok(())
    }

    /// Forgets all memory.
    pub fn unmap_all(&self) {
        self.regions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Follows the bus master bit of the PCI command register: while it is
    /// off, no guest memory is reachable. Takes effect at the next descriptor.
    pub fn set_bus_master(&self, on: bool) {
        self.bus_master.store(on, Ordering::Relaxed);
    }

    /// Whether the device may write to the bus at all, interrupts included.
    pub fn bus_master(&self) -> bool {
        self.bus_master.load(Ordering::Relaxed)
    }

    /// Gets hold of guest memory: until the value is dropped, nothing is
    /// mapped or unmapped.
    pub fn access(&self) -> Access<'_> {
        Access {
            regions: self.regions.read().unwrap_or_else(PoisonError::into_inner),
            bus_master: self.bus_master(),
        }
    }
}

/// The ranges (first, one past last) that overlap `bus .. end`.
fn overlapping(regions: &Regions, bus: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    regions
        .range(..end)
        .map(|(&start, region)| (start, start + region.len()))
        .filter(move |&(_, stop)| stop > bus)
}

/// Guest memory, with the promise that the mappings stay as they are.
///
/// The guest's CPUs may read and write the same bytes at any time. They are in
/// another process and reach the memory through another mapping: to this
/// program it is like memory behind a device. So it is only ever copied, as
/// bytes, or read and written with atomics; no reference to it exists.
pub struct Access<'a> {
    regions: RwLockReadGuard<'a, Regions>,
    bus_master: bool,
}

impl Access<'_> {
    /// Whether all of `bus .. bus + len` can be read.
    pub fn check_read(&self, bus: u64, len: u64) -> Result<(), BusError> {
        self.check(bus, len, READ)
    }

    /// Whether all of `bus .. bus + len` can be read and written.
    pub fn check_read_write(&self, bus: u64, len: u64) -> Result<(), BusError> {
        self.check(bus, len, READ_WRITE)
    }

    fn check(&self, bus: u64, len: u64, need: Rights) -> Result<(), BusError> {
        self.for_each(bus, len, need, |_, _| ())
    }

    /// The first bytes of `bus .. bus + len`: as many as lie in one piece. They
    /// can be used in the ways of `need`.
    pub fn span(&self, bus: u64, len: u64, need: Rights) -> Result<Span<'_>, BusError> {
        let (ptr, count) = self.piece(bus, len, need)?;
        // SAFETY: `piece` gives bytes of a shared mapping that can be used in
        // the ways of `need`, and stay mapped while `self` is borrowed. What may
        // only be written is mapped readable all the same.
        Ok(unsafe { Span::new(ptr, count) })
    }

    /// Reads the 8-byte word at `bus`, a multiple of 8, in one load.
    pub fn load_u64(&self, bus: u64) -> Result<u64, BusError> {
        if bus % 8 != 0 {
            return Err(BusError);
        }
        // An aligned word never crosses a page.
        Ok(self.span(bus, 8, READ)?.load_u64(0))
    }

    /// Copies `to.len()` bytes from `bus` into `to`: all of them, or on error
    /// none.
    pub fn read_span(&self, bus: u64, to: Span<'_>) -> Result<(), BusError> {
        self.check(bus, to.len() as u64, READ)?;
        let mut at = 0;
        while at < to.len() {
            let rest = to.from(at);
            let piece = self.span(bus + at as u64, rest.len() as u64, READ)?;
            rest.copy_from(&piece);
            at += piece.len();
        }
        Ok(())
    }

    /// Copies all of `from` to `bus`, or on error nothing.
    pub fn write_span(&self, bus: u64, from: Span<'_>) -> Result<(), BusError> {
        self.check(bus, from.len() as u64, WRITE)?;
        let mut at = 0;
        while at < from.len() {
            let rest = from.from(at);
            let piece = self.span(bus + at as u64, rest.len() as u64, WRITE)?;
            piece.copy_from(&rest);
            at += piece.len();
        }
        Ok(())
    }

    /// Copies guest memory from `bus` into `to`: all of it, or on error
    /// nothing.
    pub fn read(&self, bus: u64, to: &mut [u8]) -> Result<(), BusError> {
        let len = to.len() as u64;
        self.check(bus, len, READ)?;
        let mut to = to;
        self.for_each(bus, len, READ, |ptr, n| {
            let (now, rest) = std::mem::take(&mut to).split_at_mut(n);
            // SAFETY: `for_each` gives `n` mapped, readable bytes; `now` has
            // `n` bytes, and is ordinary memory, so the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(ptr, now.as_mut_ptr(), n) };
            to = rest;
        })
    }

    /// Copies `from` to guest memory at `bus`: all of it, or on error nothing.
    pub fn write(&self, bus: u64, from: &[u8]) -> Result<(), BusError> {
        let len = from.len() as u64;
        self.check(bus, len, WRITE)?;
        let mut from = from;
        self.for_each(bus, len, WRITE, |ptr, n| {
            let (now, rest) = from.split_at(n);
            // SAFETY: `for_each` gives `n` mapped, writable bytes; `now` has
            // `n` bytes, and is ordinary memory, so the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), ptr, n) };
            from = rest;
        })
    }

    /// The 64-byte block at `bus`, to be read and written word by word.
    pub fn block(&self, bus: u64) -> Result<Block<'_>, BusError> {
        if bus % Block::SIZE != 0 {
            return Err(BusError);
        }
        let mut found = Err(BusError);
        self.for_each(bus, Block::SIZE, READ_WRITE, |ptr, n| {
            // An aligned block never crosses a page, so this is all of it.
            if n as u64 == Block::SIZE {
                found = Ok(Block {
                    ptr,
                    _access: std::marker::PhantomData,
                });
            }
        })?;
        found
    }

    /// Calls `f` with a pointer and a byte count for each piece of the range,
    /// in order. Pieces before an unreachable byte are visited before the
    /// error is returned, so whoever changes something checks first.
    ///
    /// `f` may use `count` bytes from the pointer in the ways of `need`.
    fn for_each(
        &self,
        bus: u64,
        len: u64,
        need: Rights,
        mut f: impl FnMut(*mut u8, usize),
    ) -> Result<(), BusError> {
        let end = bus.checked_add(len).ok_or(BusError)?;
        if !self.bus_master {
            return Err(BusError);
        }
        let mut at = bus;
        while at < end {
            let (ptr, count) = self.piece(at, end - at, need)?;
            f(ptr, count);
            at += count as u64;
        }
        Ok(())
    }

    /// A pointer to `at`, and how many of the `len` bytes (not 0) from there are in
    /// one piece with it. They may be used in the ways of `need`.
    fn piece(&self, at: u64, len: u64, need: Rights) -> Result<(*mut u8, usize), BusError> {
        if !self.bus_master {
            return Err(BusError);
        }
        let (start, region) = self.regions.range(..=at).next_back().ok_or(BusError)?;
        let skip = at - start;
        if skip >= region.len() || !region.rights.allow(need) {
            return Err(BusError);
        }
        let count = (region.len() - skip).min(len);
        // SAFETY: skip < len, so the result is inside the mapping, as are
        // the `count` bytes that follow. The lock keeps it mapped.
        let ptr = unsafe { region.map.as_ptr().add(skip as usize) };
        Ok((ptr, count as usize))
    }
}

/// A 64-byte aligned block of 64 bytes of guest memory: a descriptor or the
/// fence block.
///
/// Invariant: `ptr` is 64-byte aligned, and valid to read and write for 64
/// bytes while the `Access` lives.
#[derive(Debug)]
pub struct Block<'a> {
    ptr: *mut u8,
    _access: std::marker::PhantomData<&'a ()>,
}

impl Block<'_> {
    /// Bytes in a block.
    pub const SIZE: u64 = 64;

    /// Reads all of it, each word once. What the guest wrote before its last
    /// doorbell is seen.
    pub fn load(&self) -> [u64; 8] {
        let words = std::array::from_fn(|i| {
            // SAFETY: word i < 8 is inside the block and 8-byte aligned by the
            // invariant. All our word accesses are atomic.
            let word = unsafe { AtomicU64::from_ptr(self.ptr.cast::<u64>().add(i)) };
            u64::from_le(word.load(Ordering::Relaxed))
        });
        fence(Ordering::Acquire);
        words
    }

    /// Stores the 64-bit word `index` (0 .. 7), after all that was written
    /// before.
    pub fn store_u64(&self, index: usize, value: u64) {
        assert!(index < 8);
        // SAFETY: the word is inside the block and aligned by the invariant.
        let word = unsafe { AtomicU64::from_ptr(self.ptr.cast::<u64>().add(index)) };
        word.store(value.to_le(), Ordering::Release);
    }

    /// Stores the 32-bit word `index` (0 .. 15), after all that was written
    /// before.
    pub fn store_u32(&self, index: usize, value: u32) {
        assert!(index < 16);
        // SAFETY: the word is inside the block and aligned by the invariant.
        let word = unsafe { AtomicU32::from_ptr(self.ptr.cast::<u32>().add(index)) };
        word.store(value.to_le(), Ordering::Release);
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}
