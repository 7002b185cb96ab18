// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A ring of the engines that there are several of: the MMU's and the compute queues'.

use crate::{
    engine::Engine,
    regs::{
        block,
        halves, //
    }, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::Coherent,
    io::{
        io_read,
        io_write,
        poll::read_poll_timeout, //
    },
    prelude::*,
    sync::barrier::{
        dma_mb,
        Read, //
    },
    time::Delta, //
};

/// Words of the fence block; the first one is the sequence number.
const FENCE_WORDS: usize = 8;

/// How long a reset may take, in milliseconds.
const RESET_MS: i64 = 1000;

/// A ring with entries of `WORDS` 64-bit words, from the driver's side.
///
/// Each entry has a fence with a sequence number of its own: 1, 2, 3 and so on, for ever.
pub(crate) struct BlockRing<const WORDS: usize> {
    /// Offset of its registers.
    base: usize,
    /// A power of two.
    entries: usize,
    words: Coherent<[u64]>,
    fence: Coherent<[u64]>,
    /// Where the next entry goes.
    tail: usize,
    /// The sequence number of the last entry.
    seq: u64,
    /// The sequence number of the entry before the first since the ring was started.
    started: u64,
    /// After how many resets of the device the ring was started.
    resets: u32,
}

impl<const WORDS: usize> BlockRing<WORDS> {
    /// Allocates it, for the registers at `base`. `entries` is a power of two. May sleep.
    pub(crate) fn new(dev: &Device<Bound>, base: usize, entries: usize) -> Result<Self> {
        Ok(Self {
            base,
            entries,
            words: Coherent::zeroed_slice(dev, entries * WORDS, GFP_KERNEL)?,
            fence: Coherent::zeroed_slice(dev, FENCE_WORDS, GFP_KERNEL)?,
            tail: 0,
            seq: 0,
            started: 0,
            resets: 0,
        })
    }

    /// How many entries there can be at once: in a full ring tail and head would be the same.
    pub(crate) fn capacity(&self) -> usize {
        self.entries - 1
    }

    /// The sequence number of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.seq
    }

    /// Starts the ring, which was reset, empty.
    pub(crate) fn start(&mut self, engine: &Engine) -> Result {
        let (base_hi, base_lo) = halves(self.words.dma_address());
        let (fence_hi, fence_lo) = halves(self.fence.dma_address());
        let write = |offset, value| engine.write(self.base + offset, value);

        self.resets = engine.resets();
        write(block::RING_BASE_LO, base_lo)?;
        write(block::RING_BASE_HI, base_hi)?;
        write(block::RING_ENTRIES, self.entries as u32)?;
        write(block::FENCE_ADDR_LO, fence_lo)?;
        write(block::FENCE_ADDR_HI, fence_hi)?;
        write(block::RING_ENABLE, 1)?;
        self.tail = 0;
        self.started = self.seq;
        Ok(())
    }

    /// Whether the device was reset since the ring was started.
    pub(crate) fn is_stale(&self, engine: &Engine) -> bool {
        self.resets != engine.resets()
    }

    /// Resets this ring alone. [`ETIMEDOUT`]: it does not end.
    pub(crate) fn reset(&self, engine: &Engine) -> Result {
        engine.write(self.base + block::CONTROL, block::CONTROL_RESET)?;
        read_poll_timeout(
            || engine.read(self.base + block::CONTROL),
            |control| control & block::CONTROL_RESET == 0,
            Delta::from_millis(1),
            Delta::from_millis(RESET_MS),
        )?;
        Ok(())
    }

    /// Hands an entry over. There must be room. Returns its sequence number, which is in word 1.
    pub(crate) fn push(&mut self, engine: &Engine, mut entry: [u64; WORDS]) -> Result<u64> {
        entry[1] = self.seq + 1;
        for (i, word) in entry.into_iter().enumerate() {
            io_write!(self.words, [try: self.tail * WORDS + i], word);
        }
        self.seq += 1;
        self.tail = self.slot(self.tail + 1);
        engine.write(self.base + block::RING_TAIL, self.tail as u32)?;
        Ok(self.seq)
    }

    /// The sequence number of the last entry that is done. After that, what the device has done is
    /// there to see.
    pub(crate) fn done(&self) -> Result<u64> {
        let seq: u64 = io_read!(self.fence, [try: 0]);

        dma_mb(Read);
        Ok(seq)
    }

    /// A word of entry number `seq`, one of those in the ring.
    pub(crate) fn word(&self, seq: u64, word: usize) -> Result<u64> {
        let since = seq.checked_sub(self.started + 1).ok_or(EINVAL)?;
        let index = self.slot(since as usize);

        Ok(io_read!(self.words, [try: index * WORDS + word]))
    }

    /// The index of entry `nth` since the start.
    // No remainder: a path for a division by zero would be one that objtool does not know to end.
    fn slot(&self, nth: usize) -> usize {
        nth & (self.entries - 1)
    }

    /// Whether the engine does not get on any more, and needs a reset.
    pub(crate) fn is_stuck(&self, engine: &Engine) -> Result<bool> {
        let status = engine.read(self.base + block::STATUS)?;

        Ok(status & (block::STATUS_HUNG | block::STATUS_HALTED) != 0)
    }

    /// Makes it misbehave, for tests.
    pub(crate) fn inject(&self, engine: &Engine, kind: u32, count: u32, delay_us: u32) -> Result {
        let write = |offset, value| engine.write(self.base + offset, value);

        write(block::INJECT_COUNT, 0)?;
        write(block::INJECT_DELAY_US, delay_us)?;
        write(block::INJECT_KIND, if count > 0 { kind } else { 0 })?;
        write(block::INJECT_COUNT, count)
    }

    /// Stops it for good. Memory that the engine may still write to is lost.
    pub(crate) fn stop(self, engine: &Engine) {
        let _ = engine.write(self.base + block::RING_ENABLE, 0);

        if self.reset(engine) == Err(ETIMEDOUT) {
            core::mem::forget(self);
        }
    }
}
