// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The registers, and the state that lies behind them.
//!
//! No threads and no guest memory here: register accesses come in by
//! [`Registers::read`] and [`Registers::write`], an engine asks for work by
//! [`Registers::next_work`] and reports by the methods after it. Whoever
//! changes IRQ_STATUS or IRQ_ENABLE gets back the vectors to send.

use crate::counters::{Counters, COUNTERS};
use crate::descriptor::{self, Status};
use crate::fault_buffer::FaultBuffer;
pub use crate::inject::{Inject, INJECT_DELAY, INJECT_FAIL, INJECT_HANG};
use crate::job;
use crate::mmu::{Mmu, ASIDS};
use crate::peer::Peers;
use crate::ring_state::{self, RingState};
pub use crate::ring_state::{Work, STATUS_HALTED, STATUS_HUNG, STATUS_RUNNING, STATUS_STALLED};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of BAR 0.
pub const BAR_SIZE: u64 = 0x1_0000;

/// Offsets in BAR 0.
pub mod reg {
    pub const ID: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const VRAM_SIZE_LO: u64 = 0x008;
    pub const VRAM_SIZE_HI: u64 = 0x00c;
    pub const CONTROL: u64 = 0x010;
    pub const STATUS: u64 = 0x014;
    pub const QUEUES: u64 = 0x018;
    pub const ASIDS: u64 = 0x01c;
    pub const PEER_SELF: u64 = 0x020;
    pub const PEERS: u64 = 0x024;
    pub const RING_BASE_LO: u64 = 0x100;
    pub const RING_BASE_HI: u64 = 0x104;
    pub const RING_ENTRIES: u64 = 0x108;
    pub const RING_HEAD: u64 = 0x10c;
    pub const RING_TAIL: u64 = 0x110;
    pub const RING_ENABLE: u64 = 0x114;
    pub const FENCE_ADDR_LO: u64 = 0x118;
    pub const FENCE_ADDR_HI: u64 = 0x11c;
    pub const FENCE_SEQ_LO: u64 = 0x120;
    pub const FENCE_SEQ_HI: u64 = 0x124;
    pub const ERROR_CODE: u64 = 0x128;
    pub const ERROR_INDEX: u64 = 0x12c;
    pub const ERROR_COUNT: u64 = 0x130;
    pub const IRQ_STATUS: u64 = 0x200;
    pub const IRQ_ENABLE: u64 = 0x204;
    pub const INJECT_IRQ_DELAY_US: u64 = 0x208;
    pub const INJECT_KIND: u64 = 0x300;
    pub const INJECT_COUNT: u64 = 0x304;
    pub const INJECT_DELAY_US: u64 = 0x308;
    /// The blocks of the MMU ring and of the compute queues.
    pub const RINGS: u64 = 0x1000;
    pub const RING_BLOCK: u64 = 0x100;
    pub const FAULTS: u64 = 0x2000;
    pub const FAULTS_END: u64 = 0x2030;
    pub const COUNTERS: u64 = 0x3000;
    pub const ASID_ROOTS: u64 = 0x4000;
}

/// How many compute queues there are. They are numbered from 1.
pub const QUEUES: usize = 4;
/// Rings, by number; compute queue q is QUEUE0 + q.
pub const COPY: usize = 0;
pub const MMU: usize = 1;
pub const QUEUE0: usize = 1;
/// How many rings there are.
pub const RINGS: usize = 2 + QUEUES;

pub const ID: u32 = 0x5349_4d47;
pub const VERSION: u32 = 0x0001_0001;
pub const CONTROL_RESET: u32 = 1 << 0;
/// Bits of the IRQ registers; bit n is vector n.
pub const IRQ_FENCE: u32 = 1 << 0;
pub const IRQ_ERROR: u32 = 1 << 1;
pub const IRQ_FAULT: u32 = 1 << 2;
const IRQ_ALL: u32 = (1 << crate::irq::VECTORS) - 1;

/// The bit that a descriptor of ring `ring` sets.
pub const fn irq_of(ring: usize) -> u32 {
    match ring {
        COPY => IRQ_FENCE,
        _ => IRQ_FAULT << ring,
    }
}

/// What else lies behind registers, with locks of its own.
#[derive(Debug, Default)]
pub struct Units {
    pub mmu: Mmu,
    pub peers: Peers,
    pub counters: Counters,
}

/// Who may have something to do after a register was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    Nobody,
    Ring(usize),
    All,
}

/// The register file.
#[derive(Debug, Default)]
pub struct Registers {
    vram_size: u64,
    units: Arc<Units>,
    /// RESET was asked for while an engine was busy.
    reset_pending: bool,
    rings: [RingState; RINGS],
    pub faults: FaultBuffer,
    irq_status: u32,
    irq_enable: u32,
    /// How late writes to IRQ_STATUS are, in microseconds.
    irq_delay_us: u32,
}

/// What a register belongs to, and its offset there.
enum Owner {
    Ring(usize, u64),
    Faults(u64),
    Counters(u64),
    Roots(u64),
    Device,
}

fn owner(offset: u64) -> Owner {
    let rings_end = reg::RINGS + (RINGS as u64 - 1) * reg::RING_BLOCK;
    match offset {
        _ if offset % 4 != 0 => Owner::Device,
        reg::STATUS => Owner::Ring(COPY, ring_state::reg::STATUS),
        reg::INJECT_KIND => Owner::Ring(COPY, ring_state::reg::INJECT_KIND),
        reg::INJECT_COUNT => Owner::Ring(COPY, ring_state::reg::INJECT_COUNT),
        reg::INJECT_DELAY_US => Owner::Ring(COPY, ring_state::reg::INJECT_DELAY_US),
        reg::RING_BASE_LO..=reg::ERROR_COUNT => Owner::Ring(COPY, offset - reg::RING_BASE_LO),
        _ if (reg::RINGS..rings_end).contains(&offset) => {
            let at = offset - reg::RINGS;
            let ring = MMU + (at / reg::RING_BLOCK) as usize;
            Owner::Ring(ring, at % reg::RING_BLOCK)
        }
        reg::FAULTS..reg::FAULTS_END => Owner::Faults(offset - reg::FAULTS),
        _ if (reg::COUNTERS..reg::COUNTERS + 8 * COUNTERS as u64).contains(&offset) => {
            Owner::Counters(offset - reg::COUNTERS)
        }
        _ if (reg::ASID_ROOTS..reg::ASID_ROOTS + 8 * ASIDS as u64).contains(&offset) => {
            Owner::Roots(offset - reg::ASID_ROOTS)
        }
        _ => Owner::Device,
    }
}

impl Registers {
    /// The state at power-on; `vram_size` is in bytes.
    pub fn new(vram_size: u64) -> Self {
        Self::with_units(vram_size, Arc::default())
    }

    /// The same, with these units.
    pub fn with_units(vram_size: u64, units: Arc<Units>) -> Self {
        let entry = |ring| {
            if ring > MMU {
                job::SIZE
            } else {
                descriptor::SIZE
            }
        };
        Self {
            vram_size,
            units,
            rings: std::array::from_fn(|ring| RingState::new(entry(ring))),
            ..Default::default()
        }
    }

    /// The 32-bit register at `offset`; 0 if there is none.
    pub fn read(&self, offset: u64) -> u32 {
        match owner(offset) {
            Owner::Ring(ring, at) => self.read_ring(ring, at),
            Owner::Faults(at) => self.faults.read(at),
            Owner::Counters(at) => self.units.counters.read(at),
            Owner::Roots(at) => self.units.mmu.read(at),
            Owner::Device => match offset {
                reg::ID => ID,
                reg::VERSION => VERSION,
                reg::VRAM_SIZE_LO => self.vram_size as u32,
                reg::VRAM_SIZE_HI => (self.vram_size >> 32) as u32,
                reg::CONTROL => bit(self.reset_pending, CONTROL_RESET),
                reg::QUEUES => QUEUES as u32,
                reg::ASIDS => ASIDS as u32,
                reg::PEER_SELF => self.units.peers.own_number(),
                reg::PEERS => self.units.peers.present(),
                reg::IRQ_STATUS => self.irq_status,
                reg::IRQ_ENABLE => self.irq_enable,
                reg::INJECT_IRQ_DELAY_US => self.irq_delay_us,
                _ => 0,
            },
        }
    }

    fn read_ring(&self, ring: usize, at: u64) -> u32 {
        let value = self.rings[ring].read(at);
        let stalled =
            at == ring_state::reg::STATUS && ring > QUEUE0 && self.faults.is_stalled(ring - QUEUE0);
        value | bit(stalled, STATUS_STALLED)
    }

    /// Writes the 32-bit register at `offset`. Returns the vectors to send, and who
    /// is to be woken.
    #[must_use]
    pub fn write(&mut self, offset: u64, value: u32) -> (u32, Wake) {
        if self.reset_pending {
            return (0, Wake::Nobody);
        }
        let level = self.irq_level();
        let mut wake = Wake::Nobody;
        match owner(offset) {
            Owner::Ring(ring, at) => {
                wake = Wake::Ring(ring);
                if self.rings[ring].write(at, value) {
                    self.irq_status |= IRQ_ERROR;
                }
            }
            Owner::Faults(at) => {
                wake = Wake::All;
                self.faults.write(at, value);
            }
            Owner::Counters(_) => {}
            Owner::Roots(at) => self.units.mmu.write(at, value),
            Owner::Device => match offset {
                reg::CONTROL if value & CONTROL_RESET != 0 => {
                    wake = Wake::All;
                    self.request_reset();
                }
                reg::PEERS => self.units.peers.connect(value),
                reg::IRQ_STATUS => {
                    self.irq_status &= !value;
                    if value & IRQ_ERROR != 0 {
                        self.rings.iter_mut().for_each(RingState::clear_error);
                    }
                }
                reg::IRQ_ENABLE => self.irq_enable = value & IRQ_ALL,
                reg::INJECT_IRQ_DELAY_US => self.irq_delay_us = value,
                _ => {}
            },
        }
        (self.irq_level() & !level, wake)
    }

    /// How long a write to the register at `offset` is to be under way.
    pub fn write_delay(&self, offset: u64) -> Duration {
        match offset {
            reg::IRQ_STATUS => Duration::from_micros(self.irq_delay_us.into()),
            _ => Duration::ZERO,
        }
    }

    /// RESET: at once if all engines are idle, else when they are done with the
    /// descriptors at hand.
    pub fn request_reset(&mut self) {
        self.reset_pending = self.rings.iter().any(RingState::is_busy);
        if !self.reset_pending {
            self.units.mmu.reset();
            self.units.peers.disconnect();
            self.units.counters.clear();
            *self = Self::with_units(self.vram_size, Arc::clone(&self.units));
        }
    }

    /// Whether a RESET of the device waits for its engines.
    pub fn reset_pending(&self) -> bool {
        self.reset_pending
    }

    /// Whether ring `ring` shall drop what it can of its work.
    pub fn is_abandoned(&self, ring: usize) -> bool {
        self.reset_pending || self.rings[ring].reset_pending()
    }

    /// The vectors whose condition holds.
    fn irq_level(&self) -> u32 {
        self.irq_status & self.irq_enable
    }

    /// Sets bits in IRQ_STATUS; returns the vectors to send.
    #[must_use]
    pub fn raise(&mut self, bits: u32) -> u32 {
        let level = self.irq_level();
        self.irq_status |= bits;
        self.irq_level() & !level
    }

    /// The engine of ring `ring` is ready for work: what is there to do, if
    /// anything?
    pub fn next_work(&mut self, ring: usize) -> Option<Work> {
        if self.reset_pending {
            return None;
        }
        self.rings[ring].next_work()
    }

    /// The engine is done with its work; a RESET or stop that waited for it
    /// now happens.
    pub fn work_done(&mut self, ring: usize) {
        self.rings[ring].work_done();
        if self.reset_pending {
            self.request_reset();
        }
    }

    /// The ring cannot be used. Returns the vectors to send.
    #[must_use]
    pub fn halt(&mut self, ring: usize) -> u32 {
        self.rings[ring].halt();
        self.raise(IRQ_ERROR)
    }

    /// The descriptor `index` failed. Returns the new error count.
    pub fn count_error(&mut self, ring: usize, index: u32, status: Status) -> u64 {
        self.rings[ring].count_error(index, status)
    }

    /// Sets IRQ_STATUS.ERROR for a failed descriptor, if its ring is one that does.
    /// Returns the vectors to send.
    #[must_use]
    pub fn raise_error(&mut self, ring: usize) -> u32 {
        self.raise(bit(ring <= MMU, IRQ_ERROR))
    }

    /// Steps RING_HEAD.
    pub fn advance(&mut self, ring: usize) {
        self.rings[ring].advance();
    }

    /// A descriptor with these flags is finished, and its fence written.
    /// Returns the vectors to send.
    #[must_use]
    pub fn finished(&mut self, ring: usize, fence: Option<u64>, irq: bool) -> u32 {
        if let Some(seq) = fence {
            self.rings[ring].set_fence(seq);
        }
        self.raise(bit(irq, irq_of(ring)))
    }
}

/// `mask` if `on`.
pub(crate) fn bit(on: bool, mask: u32) -> u32 {
    if on {
        mask
    } else {
        0
    }
}

pub(crate) fn set_low(whole: &mut u64, value: u32) {
    *whole = (*whole & !0xffff_ffff) | u64::from(value);
}

pub(crate) fn set_high(whole: &mut u64, value: u32) {
    *whole = (*whole & 0xffff_ffff) | (u64::from(value) << 32);
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
