// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The device as a whole: what the server thread and the engines' threads share.
//!
//! Lock order: an address space's gate (`mmu`), `dma`, registers, `peers`, TLB,
//! `irqs`. The register lock is only held for moments, never during a copy, so
//! register accesses do not wait. Who holds a gate takes no register lock, and
//! only jobs that are inside a step hold one.

use crate::compute::Fault;
use crate::compute_engine::ComputeEngine;
use crate::counters::Counter;
use crate::dma::Dma;
use crate::engine;
use crate::fault_buffer::{Next, Verdict};
use crate::irq::Irqs;
use crate::mmu_engine;
use crate::page_table::FaultKind;
use crate::peer::{Link, Peers};
use crate::registers::{Registers, Units, Wake, COPY, IRQ_FAULT, MMU, QUEUE0, RINGS};
use crate::ring_state::Work;
use crate::vram::Vram;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What all threads use.
#[derive(Debug)]
pub struct Shared {
    /// Guest memory.
    pub dma: Dma,
    /// Interrupts.
    pub irqs: Irqs,
    /// The device's memory.
    pub vram: Arc<Vram>,
    /// MMU, peers and counters.
    pub units: Arc<Units>,
    state: Mutex<State>,
    /// For each engine: signalled when there may be something to do for it.
    engines: [Condvar; RINGS],
    /// Signalled when an engine has changed `state`.
    settled: Condvar,
}

#[derive(Debug)]
struct State {
    registers: Registers,
    shutdown: bool,
}

impl Shared {
    fn new(vram: Vram, link: Option<Link>) -> io::Result<Self> {
        let units = Arc::new(Units {
            peers: Peers::new(link, &vram)?,
            ..Units::default()
        });
        let registers = Registers::with_units(vram.size(), Arc::clone(&units));
        Ok(Self {
            dma: Dma::default(),
            irqs: Irqs::default(),
            vram: Arc::new(vram),
            units,
            state: Mutex::new(State {
                registers,
                shutdown: false,
            }),
            engines: Default::default(),
            settled: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the registers by `f`, and sends the vectors it returns. When the
    /// change can be seen, the interrupt is on its way: who clears the bit
    /// afterwards gets no late one. The engines of `wake` look what there is to do.
    pub fn update(&self, wake: Wake, f: impl FnOnce(&mut Registers) -> u32) {
        self.update_and_wake(|registers| (f(registers), wake));
    }

    fn update_and_wake(&self, f: impl FnOnce(&mut Registers) -> (u32, Wake)) {
        let mut state = self.lock();
        let (vectors, wake) = f(&mut state.registers);
        self.send(vectors);
        drop(state);
        self.settled.notify_all();
        self.wake(wake);
        if vectors != 0 {
            // QEMU is woken by an interrupt, often on the processor that this thread is on. There it
            // would wait for an engine that has more to do: for milliseconds.
            std::thread::yield_now();
        }
    }

    fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Ring(ring) => self.engines[ring].notify_all(),
            Wake::All => self.engines.iter().for_each(Condvar::notify_all),
        }
    }

    /// Reads the registers by `f`.
    pub fn inspect<T>(&self, f: impl FnOnce(&Registers) -> T) -> T {
        f(&self.lock().registers)
    }

    /// Sends MSI-X vectors by bit. Like any write to the bus they need the bus
    /// master bit.
    fn send(&self, vectors: u32) {
        if vectors != 0 && self.dma.bus_master() {
            self.irqs.send(vectors);
        }
    }

    /// Sleeps until the engine of `ring` has something to do; `None` at shutdown.
    pub(crate) fn wait_for_work(&self, ring: usize) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.shutdown {
                return None;
            }
            if let Some(work) = state.registers.next_work(ring) {
                return Some(work);
            }
            state = self.sleep(ring, state, None);
        }
    }

    /// Sleeps for `delay`; returns false at once when a RESET of `ring` or the
    /// shutdown comes.
    pub(crate) fn delay(&self, ring: usize, delay: Duration) -> bool {
        let end = Instant::now() + delay;
        let mut state = self.lock();
        loop {
            if state.shutdown || state.registers.is_abandoned(ring) {
                return false;
            }
            if Instant::now() >= end {
                return true;
            }
            state = self.sleep(ring, state, Some(end));
        }
    }

    /// Whether the work of `ring` is to be dropped.
    pub(crate) fn is_abandoned(&self, ring: usize) -> bool {
        let state = self.lock();
        state.shutdown || state.registers.is_abandoned(ring)
    }

    /// Stalls compute queue `queue`: reports `fault`, and sleeps until the driver has
    /// decided. `None`: a RESET or the shutdown came.
    pub(crate) fn stall(&self, queue: usize, fault: Fault) -> Option<Verdict> {
        let ring = QUEUE0 + queue;
        self.units.counters.add(
            match fault.kind {
                FaultKind::NotPresent => Counter::FaultsNotPresent,
                FaultKind::NoWrite => Counter::FaultsNoWrite,
                FaultKind::NoAtomic => Counter::FaultsNoAtomic,
            },
            1,
        );
        let mut state = self.lock();
        state.registers.faults.stall(queue, fault);
        loop {
            if state.shutdown || state.registers.is_abandoned(ring) {
                state.registers.faults.forget(queue);
                return None;
            }
            match state.registers.faults.next(queue, Instant::now()) {
                Next::Go(verdict) => return Some(verdict),
                Next::Sleep(until) => state = self.sleep(ring, state, until),
                Next::Overflow => {
                    self.units.counters.add(Counter::Overflows, 1);
                    let vectors = state.registers.raise(IRQ_FAULT);
                    self.send(vectors);
                }
                Next::Write { bus, entry } => {
                    // Guest memory comes before registers.
                    drop(state);
                    let written = self.write_fault(bus, &entry);
                    state = self.lock();
                    if !written {
                        state.registers.faults.write_failed(queue);
                    }
                    let vectors = state.registers.raise(IRQ_FAULT);
                    self.send(vectors);
                }
            }
        }
    }

    /// Writes an entry of the fault buffer, its token last.
    fn write_fault(&self, bus: u64, entry: &[u64; 8]) -> bool {
        let guest = self.dma.access();
        let Ok(block) = guest.block(bus) else {
            return false;
        };
        for (i, &word) in entry[..7].iter().enumerate() {
            block.store_u64(i, word);
        }
        block.store_u32(14, entry[7] as u32);
        block.store_u32(15, (entry[7] >> 32) as u32);
        true
    }

    /// Sleeps until the engine of `ring` is woken, or until `end`.
    fn sleep<'a>(
        &self,
        ring: usize,
        state: MutexGuard<'a, State>,
        end: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        let condvar = &self.engines[ring];
        match end.map(|end| end.saturating_duration_since(Instant::now())) {
            None => condvar.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                let woken = condvar.wait_timeout(state, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

/// A device with its engines running; stops them on drop.
#[derive(Debug)]
pub struct Device {
    shared: Arc<Shared>,
    engines: Vec<JoinHandle<()>>,
}

impl Device {
    /// A device with `vram_size` bytes of VRAM, and no link to others.
    pub fn new(vram_size: u64) -> io::Result<Self> {
        Self::with_link(vram_size, None)
    }

    /// A device with `vram_size` bytes of VRAM, on a link.
    pub fn with_link(vram_size: u64, link: Option<Link>) -> io::Result<Self> {
        let mut device = Self {
            shared: Arc::new(Shared::new(Vram::new(vram_size)?, link)?),
            engines: Vec::new(),
        };
        for ring in 0..RINGS {
            let shared = Arc::clone(&device.shared);
            let name = match ring {
                COPY => "copy".into(),
                MMU => "mmu".into(),
                _ => format!("queue{}", ring - QUEUE0),
            };
            let thread = std::thread::Builder::new().name(name);
            // On an error, those that run are stopped by the drop.
            let engine = thread.spawn(move || run_engine(&shared, ring))?;
            device.engines.push(engine);
        }
        Ok(device)
    }

    /// Guest memory.
    pub fn dma(&self) -> &Dma {
        &self.shared.dma
    }

    /// Interrupts.
    pub fn irqs(&self) -> &Irqs {
        &self.shared.irqs
    }

    /// Reads the 32-bit register at `offset` in BAR 0.
    pub fn read(&self, offset: u64) -> u32 {
        self.shared.inspect(|registers| registers.read(offset))
    }

    /// Writes the 32-bit register at `offset` in BAR 0. A write that is to be late keeps
    /// the caller, and so those that come after it, but not the engines.
    pub fn write(&self, offset: u64, value: u32) {
        let delay = self
            .shared
            .inspect(|registers| registers.write_delay(offset));
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        self.shared
            .update_and_wake(|registers| registers.write(offset, value));
    }

    /// Does what CONTROL.RESET does, and returns when it is done.
    pub fn reset(&self) {
        self.shared.update(Wake::All, |registers| {
            registers.request_reset();
            0
        });
        let mut state = self.shared.lock();
        while state.registers.reset_pending() {
            let changed = self.shared.settled.wait(state);
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops the engines: after the descriptor at hand, or in the middle of a job.
    /// Returns the VRAM, unless an engine had died.
    pub fn stop(mut self) -> Option<Arc<Vram>> {
        self.stop_engines().then(|| Arc::clone(&self.shared.vram))
    }

    fn stop_engines(&mut self) -> bool {
        self.shared.lock().shutdown = true;
        self.shared.wake(Wake::All);
        let results = self.engines.drain(..).map(JoinHandle::join);
        results.filter(Result::is_err).count() == 0
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop_engines();
    }
}

/// The thread of the engine of `ring`.
fn run_engine(shared: &Shared, ring: usize) {
    match ring {
        COPY => engine::run(shared, ring, |ring, index, fail| {
            engine::copy(shared, ring, index, fail)
        }),
        MMU => engine::run(shared, ring, |ring, index, fail| {
            mmu_engine::run_one(shared, ring, index, fail)
        }),
        _ => {
            let mut compute = ComputeEngine::new(shared, ring - QUEUE0);
            engine::run(shared, ring, |ring, index, fail| {
                compute.run_one(ring, index, fail)
            });
        }
    }
}
