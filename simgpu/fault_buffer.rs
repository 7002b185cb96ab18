// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The buffer that the device tells its page faults in.

use crate::{
    engine::Engine,
    page_table::Use,
    regs::{
        fault,
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
        io_write, //
    },
    new_mutex,
    prelude::*,
    sync::{
        barrier::{
            dma_mb,
            Read, //
        },
        Arc,
        Mutex, //
    }, //
};

/// Entries: more than there are queues, each of which has one fault at a time.
const ENTRIES: usize = 64;

/// 64-bit words an entry.
const WORDS: usize = 8;

/// The word whose upper half is the token, which is written last.
const TOKEN_WORD: usize = 7;

/// A page fault of a job, which waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) addr: u64,
    pub(crate) asid: usize,
    /// 1 to 4.
    pub(crate) queue: usize,
    pub(crate) how: Use,
    /// Names the fault.
    pub(crate) token: u32,
}

/// The buffer.
#[pin_data]
pub(crate) struct FaultBuffer {
    engine: Arc<Engine>,
    /// [`None`] when it has been stopped for good.
    #[pin]
    entries: Mutex<Option<Entries>>,
}

struct Entries {
    words: Coherent<[u64]>,
    /// The entry that is read next.
    get: usize,
}

impl Entries {
    fn start(&mut self, engine: &Engine) -> Result {
        let (hi, lo) = halves(self.words.dma_address());

        for index in 0..ENTRIES {
            io_write!(self.words, [try: index * WORDS + TOKEN_WORD], 0u64);
        }
        self.get = 0;
        engine.write(fault::ENABLE, 0)?;
        engine.write(fault::BASE_LO, lo)?;
        engine.write(fault::BASE_HI, hi)?;
        engine.write(fault::ENTRIES, ENTRIES as u32)?;
        engine.write(fault::ENABLE, 1)
    }

    fn take(&mut self, engine: &Engine) -> Result<Option<Fault>> {
        let first = self.get * WORDS;
        let last: u64 = io_read!(self.words, [try: first + TOKEN_WORD]);
        let token = (last >> 32) as u32;

        if token == 0 {
            return Ok(None);
        }
        dma_mb(Read);

        let addr: u64 = io_read!(self.words, [try: first]);
        let who: u64 = io_read!(self.words, [try: first + 2]);
        let what: u64 = io_read!(self.words, [try: first + 3]);

        io_write!(self.words, [try: first + TOKEN_WORD], 0u64);
        self.get = (self.get + 1) % ENTRIES;
        engine.write(fault::GET, self.get as u32)?;
        Ok(Some(Fault {
            addr,
            asid: who as u32 as usize,
            queue: (who >> 32) as usize,
            how: match what as u32 {
                0 => Use::Read,
                1 => Use::Write,
                _ => Use::Atomic,
            },
            token,
        }))
    }
}

impl FaultBuffer {
    /// Allocates it. May sleep.
    pub(crate) fn new(dev: &Device<Bound>, engine: Arc<Engine>) -> impl PinInit<Self, Error> {
        let words = Coherent::zeroed_slice(dev, ENTRIES * WORDS, GFP_KERNEL);

        try_pin_init!(Self {
            engine,
            entries <- new_mutex!(
                Some(Entries { words: words?, get: 0 }),
                "simgpu::FaultBuffer::entries"
            ),
        }? Error)
    }

    /// Starts it, empty, after a reset of the device.
    pub(crate) fn start(&self) -> Result {
        match &mut *self.entries.lock() {
            Some(entries) => entries.start(&self.engine),
            None => Ok(()),
        }
    }

    /// The next fault, if there is one.
    pub(crate) fn take(&self) -> Option<Fault> {
        let mut entries = self.entries.lock();

        match &mut *entries {
            Some(entries) => entries.take(&self.engine).ok().flatten(),
            None => None,
        }
    }

    /// Notes that the buffer was found full: faults that had no room are written when there is.
    pub(crate) fn acknowledge(&self) {
        let _ = self.engine.write(fault::STATUS, u32::MAX);
    }

    /// Stops it for good. The queues, which write to it, must have been stopped.
    pub(crate) fn stop(&self) {
        let _ = self.engine.write(fault::ENABLE, 0);
        let entries = self.entries.lock().take();

        drop(entries);
    }
}
