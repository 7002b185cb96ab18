// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The device as a whole: what the server thread and the engine thread share.
//!
//! Lock order: `dma`, then `registers`, then `irqs`. The register lock is only
//! held for moments, never during a copy, so register accesses do not wait.

use crate::dma::Dma;
use crate::engine;
use crate::irq::Irqs;
use crate::registers::{Registers, Work};
use crate::vram::Vram;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What both threads use.
#[derive(Debug, Default)]
pub struct Shared {
    /// Guest memory.
    pub dma: Dma,
    /// Interrupts.
    pub irqs: Irqs,
    state: Mutex<State>,
    /// Signalled whenever `state` changes.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    registers: Registers,
    shutdown: bool,
}

impl Shared {
    fn new(vram_size: u64) -> Self {
        Self {
            state: Mutex::new(State {
                registers: Registers::new(vram_size),
                shutdown: false,
            }),
            ..Default::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the registers by `f`, and sends the vectors it returns. When the
    /// change can be seen, the interrupt is on its way: who clears the bit
    /// afterwards gets no late one.
    pub fn update(&self, f: impl FnOnce(&mut Registers) -> u32) {
        let mut state = self.lock();
        let vectors = f(&mut state.registers);
        self.send(vectors);
        drop(state);
        self.changed.notify_all();
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

    /// Sleeps until the engine has something to do; `None` at shutdown.
    pub(crate) fn wait_for_work(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.shutdown {
                return None;
            }
            if let Some(work) = state.registers.next_work() {
                return Some(work);
            }
            state = self.wait(state);
        }
    }

    /// Sleeps for `delay`; returns false at once when a RESET or the shutdown
    /// comes.
    pub(crate) fn delay(&self, delay: Duration) -> bool {
        let end = Instant::now() + delay;
        let mut state = self.lock();
        loop {
            if state.shutdown || state.registers.reset_pending() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device with its engine running; stops it on drop.
#[derive(Debug)]
pub struct Device {
    shared: Arc<Shared>,
    engine: Option<JoinHandle<Vram>>,
}

impl Device {
    /// A device with `vram_size` bytes of VRAM.
    pub fn new(vram_size: u64) -> io::Result<Self> {
        let vram = Vram::new(vram_size)?;
        let shared = Arc::new(Shared::new(vram_size));
        let for_engine = Arc::clone(&shared);
        let engine = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || engine::run(&for_engine, vram))?;
        Ok(Self {
            shared,
            engine: Some(engine),
        })
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

    /// Writes the 32-bit register at `offset` in BAR 0.
    pub fn write(&self, offset: u64, value: u32) {
        self.shared
            .update(|registers| registers.write(offset, value));
    }

    /// Does what CONTROL.RESET does, and returns when it is done.
    pub fn reset(&self) {
        self.shared.update(|registers| {
            registers.request_reset();
            0
        });
        let mut state = self.shared.lock();
        while state.registers.reset_pending() {
            state = self.shared.wait(state);
        }
    }

    /// Stops the engine after the descriptor at hand. Returns the VRAM, unless
    /// the engine had died.
    pub fn stop(mut self) -> Option<Vram> {
        self.stop_engine()
    }

    fn stop_engine(&mut self) -> Option<Vram> {
        self.shared.lock().shutdown = true;
        self.shared.changed.notify_all();
        self.engine.take()?.join().ok()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop_engine();
    }
}
