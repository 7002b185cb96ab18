// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The memory that driver and device share: descriptor ring, fence block, results.

use crate::descriptor::{
    status_name,
    Command,
    STATUS_OK,
    STATUS_WORD,
    WORDS, //
};
use core::iter::Peekable;
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
    prelude::*,
    sync::barrier::{
        dma_mb,
        Read, //
    }, //
};

/// Descriptors in the ring.
pub(crate) const ENTRIES: usize = 1024;

/// Words of the fence block; the first one is the sequence number.
const FENCE_WORDS: usize = 8;

/// The ring, from the driver's side. It is empty between batches.
///
/// All of it is arrays of words, so that reading what the device wrote needs no trust in it.
pub(crate) struct Ring {
    descriptors: Coherent<[u64]>,
    /// One word a descriptor, for sums.
    results: Coherent<[u64]>,
    fence: Coherent<[u64]>,
    /// Where the next descriptor goes.
    tail: usize,
    /// The sequence number of the last batch. Never goes back, so no old fence can be taken for a
    /// new one.
    seq: u64,
}

/// Descriptors that were made ready together, of which the last has a fence.
pub(crate) struct Batch {
    first: usize,
    len: usize,
    seq: u64,
}

impl Batch {
    /// The ring indices of its descriptors.
    fn indices(&self) -> impl Iterator<Item = usize> {
        let first = self.first;

        (0..self.len).map(move |i| (first + i) % ENTRIES)
    }
}

impl Ring {
    /// Allocates it for `dev`. May sleep.
    pub(crate) fn new(dev: &Device<Bound>) -> Result<Self> {
        Ok(Self {
            descriptors: Coherent::zeroed_slice(dev, ENTRIES * WORDS, GFP_KERNEL)?,
            results: Coherent::zeroed_slice(dev, ENTRIES, GFP_KERNEL)?,
            fence: Coherent::zeroed_slice(dev, FENCE_WORDS, GFP_KERNEL)?,
            tail: 0,
            seq: 0,
        })
    }

    /// The descriptors' bus address.
    pub(crate) fn base(&self) -> DmaAddress {
        self.descriptors.dma_address()
    }

    /// The fence block's bus address.
    pub(crate) fn fence_address(&self) -> DmaAddress {
        self.fence.dma_address()
    }

    /// The doorbell's value.
    pub(crate) fn tail(&self) -> u32 {
        self.tail as u32
    }

    /// The engine was reset: it starts over at the first descriptor.
    pub(crate) fn rewind(&mut self) {
        self.tail = 0;
    }

    /// Takes as many of `commands`, of which there must be one, as fit.
    pub(crate) fn fill(
        &mut self,
        commands: &mut Peekable<impl Iterator<Item = Command>>,
    ) -> Result<Batch> {
        let mut batch = Batch {
            first: self.tail,
            len: 0,
            seq: self.seq + 1,
        };

        self.seq = batch.seq;
        // One less than there are: a full ring would look like an empty one.
        while batch.len < ENTRIES - 1 {
            let Some(command) = commands.next() else {
                break;
            };
            batch.len += 1;
            let last = batch.len == ENTRIES - 1 || commands.peek().is_none();

            self.push(command, last.then_some(batch.seq))?;
        }
        Ok(batch)
    }

    fn push(&mut self, command: Command, fence: Option<u64>) -> Result {
        let result = self.results.dma_address() + (self.tail * size_of::<u64>()) as DmaAddress;

        io_write!(self.results, [try: self.tail], 0u64);
        for (i, word) in command.encode(fence, result).into_iter().enumerate() {
            io_write!(self.descriptors, [try: self.tail * WORDS + i], word);
        }
        self.tail = (self.tail + 1) % ENTRIES;
        Ok(())
    }

    /// Whether the fence of `batch` is signalled. After that, what the device has done is there to
    /// see.
    pub(crate) fn is_signalled(&self, batch: &Batch) -> Result<bool> {
        let seq: u64 = io_read!(self.fence, [try: 0]);

        dma_mb(Read);
        Ok(seq >= batch.seq)
    }

    /// The sum of the checksums of a batch that is done. [`EIO`]: the device failed some of it.
    pub(crate) fn outcome(&self, dev: &Device, batch: &Batch) -> Result<u64> {
        let mut sum = 0u64;
        let mut failed = 0;
        let mut first_status = STATUS_OK;

        for index in batch.indices() {
            let word: u64 = io_read!(self.descriptors, [try: index * WORDS + STATUS_WORD]);
            // The upper half is reserved.
            let status = word as u32;
            let result: u64 = io_read!(self.results, [try: index]);

            sum = sum.wrapping_add(result);
            if status != STATUS_OK {
                failed += 1;
                if first_status == STATUS_OK {
                    first_status = status;
                }
            }
        }

        if failed > 0 {
            dev_err!(
                dev,
                "{} of {} descriptors failed, the first one with status {} ({})\n",
                failed,
                batch.len,
                first_status,
                status_name(first_status)
            );
            return Err(EIO);
        }
        Ok(sum)
    }
}
