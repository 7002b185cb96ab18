// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The device's MMU: commands to it, and the roots of its address spaces.

use crate::{
    block_ring::BlockRing,
    engine::Engine,
    module_parameters,
    regs::{
        self,
        block,
        halves,
        ALL_ONES, //
    },
    wakeups::{
        Wakeups,
        CHECK_MS, //
    },
};
use core::ops::Range;
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::DmaAddress,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// 64-bit words a command.
const WORDS: usize = 8;

/// Commands in the ring. Each is waited for, so there are few.
const ENTRIES: usize = 64;

/// Where the device writes its verdict to.
const STATUS_WORD: usize = 7;

/// Fence and interrupt.
const FLAGS: u64 = 0b11 << 32;

/// The verdict: done.
const STATUS_OK: u32 = 1;

/// The verdict on a [`Command::Cancel`] that comes too late.
const STATUS_NOT_STALLED: u32 = 12;

/// A root that is there; see the device's `REGISTERS.md`.
const ROOT_VALID: u64 = 1;

/// What the MMU can be told.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// To forget what it knows of a range, or, if that is empty, of all of the address space, and
    /// see to it that no job uses it any more.
    Invalidate { asid: usize, range: Range<usize> },
    /// To let stalled jobs of the address space try again.
    Replay { asid: usize },
    /// To make the job fail that stalls a queue with this token.
    Cancel { queue: usize, token: u32 },
}

impl Command {
    fn encode(&self) -> [u64; WORDS] {
        let (op, address, token, len, target) = match self {
            Self::Invalidate { asid, range } => (1, range.start, 0, range.len(), *asid),
            Self::Replay { asid } => (2, 0, 0, 0, *asid),
            Self::Cancel { queue, token } => (3, 0, *token, 0, *queue),
        };

        [
            op | FLAGS,
            0,
            address as u64,
            token.into(),
            len as u64,
            target as u64,
            0,
            0,
        ]
    }
}

/// How waiting for a command ended.
enum Waited {
    Done,
    /// A reset came in between: no translation is cached, and no job runs.
    Reset,
    /// There was one that nobody knows of yet.
    Stopped,
    TooLong,
}

/// The MMU.
///
/// It is used by MMU notifiers: nothing that allocates memory may happen with a lock of this held.
/// One command is under way at a time. Lock order: `ring`, `wakeups`. Those of the engine come
/// before them.
#[pin_data]
pub(crate) struct Mmu {
    engine: Arc<Engine>,
    /// [`None`] when it has been stopped for good.
    #[pin]
    ring: Mutex<Option<BlockRing<WORDS>>>,
    #[pin]
    wakeups: Wakeups,
    /// What the roots' registers hold, for after a reset.
    roots: [Atomic<u64>; regs::ASIDS],
    invalidations: Atomic<u64>,
}

impl Mmu {
    /// Allocates what it takes. May sleep.
    pub(crate) fn new(dev: &Device<Bound>, engine: Arc<Engine>) -> impl PinInit<Self, Error> {
        let ring = BlockRing::new(dev, block::MMU, ENTRIES);

        try_pin_init!(Self {
            ring <- new_mutex!(Some(ring?), "simgpu::Mmu::ring"),
            wakeups <- Wakeups::new(),
            roots: [const { Atomic::new(0) }; regs::ASIDS],
            invalidations: Atomic::new(0),
            engine,
        }? Error)
    }

    /// Has it look at the tables of an address space from now on; [`None`]: it has none. What is
    /// cached is not forgotten by this.
    pub(crate) fn set_root(&self, asid: usize, root: Option<DmaAddress>) {
        let value = root.map_or(0, |root| root | ROOT_VALID);

        if let Some(root) = self.roots.get(asid) {
            // First, for a reset that comes in between.
            root.store(value, Relaxed);
            self.write_root(asid, value);
        }
    }

    fn write_root(&self, asid: usize, value: u64) {
        let (hi, lo) = halves(value);
        let register = regs::asid_root(asid);

        // An error is a device that is gone.
        let _ = self.engine.write(register + 4, hi);
        let _ = self.engine.write(register, lo);
    }

    /// Invalidations that were carried out.
    pub(crate) fn invalidations(&self) -> u64 {
        self.invalidations.load(Relaxed)
    }

    /// Has a command carried out, and waits for that. May sleep, in an uninterruptible way, for
    /// as long as the device and the module's time-out make it.
    ///
    /// [`ENODEV`]: the device is gone; so nothing uses any translation. [`EIO`]: it could not do
    /// it, or not any more.
    pub(crate) fn run(&self, command: &Command) -> Result {
        let engine = &*self.engine;

        for _ in 0..2 {
            let mut guard = self.ring.lock();
            let ring = (*guard).as_mut().ok_or(ENODEV)?;

            if engine.is_gone() {
                return Err(ENODEV);
            }
            if ring.is_stale(engine) {
                ring.start(engine)?;
            }
            let seq = ring.push(engine, command.encode())?;

            match self.wait(ring, seq)? {
                Waited::Done => {
                    let status = ring.word(seq, STATUS_WORD)? as u32;

                    if status == STATUS_OK {
                        if matches!(command, Command::Invalidate { .. }) {
                            self.invalidations.add(1, Relaxed);
                        }
                        return Ok(());
                    }
                    if status == STATUS_NOT_STALLED {
                        return Ok(());
                    }
                    dev_err!(engine.dev(), "{:?} failed, status {}\n", command, status);
                }
                Waited::Reset => return Ok(()),
                Waited::Stopped => {
                    // Who starts it again takes the lock.
                    drop(guard);
                    return engine.check_alive();
                }
                Waited::TooLong => {
                    dev_err!(engine.dev(), "{:?} does not end\n", command);
                    if ring.reset(engine).is_err() {
                        break;
                    }
                    ring.start(engine)?;
                }
            }
        }
        // Memory that a device might still use can't be given away.
        match command {
            Command::Invalidate { .. } => Err(engine.give_up("the MMU can't be made to forget")),
            _ => Err(EIO),
        }
    }

    /// Waits for command number `seq`. [`ENODEV`].
    fn wait(&self, ring: &BlockRing<WORDS>, seq: u64) -> Result<Waited> {
        let timeout = i64::from(module_parameters::timeout_ms.value());
        let begun: Instant<Monotonic> = Instant::now();
        let mut checked = begun;

        self.wakeups.wait(|| {
            if ring.done()? >= seq {
                return Ok(Some(Waited::Done));
            }
            if ring.is_stale(&self.engine) {
                return Ok(Some(Waited::Reset));
            }
            if checked.elapsed().as_millis() >= i64::from(CHECK_MS) {
                checked = Instant::now();
                if !self.engine.status()?.running() {
                    return Ok(Some(Waited::Stopped));
                }
                if begun.elapsed().as_millis() >= timeout || ring.is_stuck(&self.engine)? {
                    return Ok(Some(Waited::TooLong));
                }
            }
            Ok(None)
        })
    }

    /// A command's fence was signalled, or so says the device.
    pub(crate) fn interrupt(&self) {
        self.wakeups.wake();
    }

    /// Starts it, after a reset of the device.
    pub(crate) fn start(&self) -> Result {
        // Who waits holds the lock, and must notice.
        self.interrupt();
        if let Some(ring) = &mut *self.ring.lock() {
            if ring.is_stale(&self.engine) {
                ring.start(&self.engine)?;
            }
        }
        for (asid, root) in self.roots.iter().enumerate() {
            let root = root.load(Relaxed);

            if root != 0 {
                self.write_root(asid, root);
            }
        }
        Ok(())
    }

    /// Stops it for good.
    pub(crate) fn stop(&self) {
        let ring = self.ring.lock().take();

        if let Some(ring) = ring {
            ring.stop(&self.engine);
        }
    }

    /// Makes it misbehave, for tests.
    pub(crate) fn inject(&self, kind: u32, count: u32, delay_us: u32) -> Result {
        let ring = self.ring.lock();

        ring.as_ref()
            .ok_or(ENODEV)?
            .inject(&self.engine, kind, count, delay_us)
    }

    /// One of the device's own counters, by its number.
    pub(crate) fn counter(&self, index: usize) -> Result<u64> {
        loop {
            let hi = self.engine.read(regs::counter(index) + 4)?;
            let lo = self.engine.read(regs::counter(index))?;

            if hi == ALL_ONES && lo == ALL_ONES {
                self.engine.check_alive()?;
            }
            if self.engine.read(regs::counter(index) + 4)? == hi {
                return Ok(u64::from(hi) << 32 | u64::from(lo));
            }
        }
    }
}
