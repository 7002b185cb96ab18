// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The registers, and the state that lies behind them.
//!
//! No threads and no memory here: register accesses come in by [`Registers::read`]
//! and [`Registers::write`], the engine asks for work by
//! [`Registers::next_work`] and reports by the methods after it. Whoever
//! changes IRQ_STATUS or IRQ_ENABLE gets back the vectors to send.

use crate::descriptor::Status;
use crate::ring::Ring;
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
    pub const INJECT_KIND: u64 = 0x300;
    pub const INJECT_COUNT: u64 = 0x304;
    pub const INJECT_DELAY_US: u64 = 0x308;
}

pub const ID: u32 = 0x5349_4d47;
pub const VERSION: u32 = 0x0001_0000;
pub const CONTROL_RESET: u32 = 1 << 0;
pub const STATUS_RUNNING: u32 = 1 << 0;
pub const STATUS_HUNG: u32 = 1 << 1;
pub const STATUS_HALTED: u32 = 1 << 2;
/// Bits of the IRQ registers; bit n is vector n.
pub const IRQ_FENCE: u32 = 1 << 0;
pub const IRQ_ERROR: u32 = 1 << 1;
pub const INJECT_FAIL: u32 = 1;
pub const INJECT_HANG: u32 = 2;
pub const INJECT_DELAY: u32 = 3;

/// What a test wants done to a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    Nothing,
    Fail,
    Delay(Duration),
}

/// What the engine shall do next. It must report [`Registers::work_done`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Look whether a newly started ring is usable guest memory.
    Check(Ring),
    /// Carry out the descriptor `index`.
    Run {
        ring: Ring,
        index: u32,
        inject: Inject,
    },
}

/// The register file.
#[derive(Debug, Default)]
pub struct Registers {
    vram_size: u64,
    /// RESET was asked for while the engine was busy.
    reset_pending: bool,
    /// The engine has work that it has not reported as done.
    busy: bool,
    /// RING_ENABLE as the driver wants it.
    enabled: bool,
    /// STATUS.RUNNING: `enabled`, or still busy.
    running: bool,
    /// The engine has not looked at the ring yet.
    unchecked: bool,
    hung: bool,
    halted: bool,
    ring: Ring,
    head: u32,
    tail: u32,
    fence_seq: u64,
    error_code: u32,
    error_index: u32,
    error_count: u64,
    irq_status: u32,
    irq_enable: u32,
    inject_kind: u32,
    inject_count: u32,
    inject_delay_us: u32,
}

impl Registers {
    /// The state at power-on; `vram_size` is in bytes.
    pub fn new(vram_size: u64) -> Self {
        Self {
            vram_size,
            ..Default::default()
        }
    }

    /// The 32-bit register at `offset`; 0 if there is none.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            reg::ID => ID,
            reg::VERSION => VERSION,
            reg::VRAM_SIZE_LO => self.vram_size as u32,
            reg::VRAM_SIZE_HI => (self.vram_size >> 32) as u32,
            reg::CONTROL => bit(self.reset_pending, CONTROL_RESET),
            reg::STATUS => {
                bit(self.running, STATUS_RUNNING)
                    | bit(self.hung, STATUS_HUNG)
                    | bit(self.halted, STATUS_HALTED)
            }
            reg::RING_BASE_LO => self.ring.base as u32,
            reg::RING_BASE_HI => (self.ring.base >> 32) as u32,
            reg::RING_ENTRIES => self.ring.entries,
            reg::RING_HEAD => self.head,
            reg::RING_TAIL => self.tail,
            reg::RING_ENABLE => u32::from(self.enabled),
            reg::FENCE_ADDR_LO => self.ring.fence as u32,
            reg::FENCE_ADDR_HI => (self.ring.fence >> 32) as u32,
            reg::FENCE_SEQ_LO => self.fence_seq as u32,
            reg::FENCE_SEQ_HI => (self.fence_seq >> 32) as u32,
            reg::ERROR_CODE => self.error_code,
            reg::ERROR_INDEX => self.error_index,
            reg::ERROR_COUNT => self.error_count as u32,
            reg::IRQ_STATUS => self.irq_status,
            reg::IRQ_ENABLE => self.irq_enable,
            reg::INJECT_KIND => self.inject_kind,
            reg::INJECT_COUNT => self.inject_count,
            reg::INJECT_DELAY_US => self.inject_delay_us,
            _ => 0,
        }
    }

    /// Writes the 32-bit register at `offset`. Returns the vectors to send. The
    /// engine may have something to do afterwards.
    #[must_use]
    pub fn write(&mut self, offset: u64, value: u32) -> u32 {
        if self.reset_pending {
            return 0;
        }
        let level = self.irq_level();
        let stopped = !self.running;
        match offset {
            reg::CONTROL if value & CONTROL_RESET != 0 => self.request_reset(),
            reg::RING_BASE_LO if stopped => set_low(&mut self.ring.base, value),
            reg::RING_BASE_HI if stopped => set_high(&mut self.ring.base, value),
            reg::RING_ENTRIES if stopped => self.ring.entries = value,
            reg::RING_TAIL => self.doorbell(value),
            reg::RING_ENABLE if value & 1 != 0 => self.start(),
            reg::RING_ENABLE => self.stop(),
            reg::FENCE_ADDR_LO if stopped => set_low(&mut self.ring.fence, value),
            reg::FENCE_ADDR_HI if stopped => set_high(&mut self.ring.fence, value),
            reg::IRQ_STATUS => {
                self.irq_status &= !value;
                if value & IRQ_ERROR != 0 {
                    self.error_code = 0;
                }
            }
            reg::IRQ_ENABLE => self.irq_enable = value & (IRQ_FENCE | IRQ_ERROR),
            reg::INJECT_KIND => self.inject_kind = value,
            reg::INJECT_COUNT => self.inject_count = value,
            reg::INJECT_DELAY_US => self.inject_delay_us = value,
            _ => {}
        }
        self.irq_level() & !level
    }

    /// RESET: at once if the engine is idle, else when it is done with the
    /// descriptor at hand.
    pub fn request_reset(&mut self) {
        if self.busy {
            self.reset_pending = true;
        } else {
            *self = Self::new(self.vram_size);
        }
    }

    /// Whether a RESET waits for the engine.
    pub fn reset_pending(&self) -> bool {
        self.reset_pending
    }

    fn start(&mut self) {
        if self.running || self.hung || self.halted {
            return;
        }
        (self.head, self.tail) = (0, 0);
        if self.ring.is_sane() {
            (self.enabled, self.running, self.unchecked) = (true, true, true);
        } else {
            self.set_halted();
        }
    }

    fn stop(&mut self) {
        self.enabled = false;
        self.running = self.busy;
    }

    fn doorbell(&mut self, tail: u32) {
        if !self.enabled {
            return;
        }
        if tail < self.ring.entries {
            self.tail = tail;
        } else {
            self.set_halted();
        }
    }

    fn set_halted(&mut self) {
        self.stop();
        self.halted = true;
        self.irq_status |= IRQ_ERROR;
    }

    /// The vectors whose condition holds.
    fn irq_level(&self) -> u32 {
        self.irq_status & self.irq_enable
    }

    /// Sets bits in IRQ_STATUS; returns the vectors to send.
    fn raise(&mut self, bits: u32) -> u32 {
        let level = self.irq_level();
        self.irq_status |= bits;
        self.irq_level() & !level
    }

    /// The engine is ready for work: what is there to do, if anything? An
    /// injected hang takes effect here.
    pub fn next_work(&mut self) -> Option<Work> {
        if !self.enabled || self.hung || self.busy {
            return None;
        }
        let work = if self.unchecked {
            self.unchecked = false;
            Work::Check(self.ring)
        } else if self.head != self.tail {
            Work::Run {
                ring: self.ring,
                index: self.head,
                inject: self.take_injection()?,
            }
        } else {
            return None;
        };
        self.busy = true;
        Some(work)
    }

    /// What to do to the next descriptor; `None` if it hangs.
    fn take_injection(&mut self) -> Option<Inject> {
        if self.inject_count == 0 {
            return Some(Inject::Nothing);
        }
        let delay = Duration::from_micros(self.inject_delay_us.into());
        let inject = match self.inject_kind {
            INJECT_FAIL => Some(Inject::Fail),
            INJECT_HANG => None,
            INJECT_DELAY => Some(Inject::Delay(delay)),
            _ => return Some(Inject::Nothing),
        };
        self.inject_count -= 1;
        self.hung = inject.is_none();
        inject
    }

    /// The engine is done with its work; a RESET or stop that waited for it
    /// now happens.
    pub fn work_done(&mut self) {
        self.busy = false;
        if self.reset_pending {
            self.request_reset();
        } else {
            self.running = self.enabled;
        }
    }

    /// The ring cannot be used. Returns the vectors to send.
    #[must_use]
    pub fn halt(&mut self) -> u32 {
        let level = self.irq_level();
        self.set_halted();
        self.irq_level() & !level
    }

    /// The descriptor `index` failed. Returns the new error count.
    pub fn count_error(&mut self, index: u32, status: Status) -> u64 {
        self.error_code = status as u32;
        self.error_index = index;
        self.error_count = self.error_count.wrapping_add(1);
        self.error_count
    }

    /// Sets IRQ_STATUS.ERROR. Returns the vectors to send.
    #[must_use]
    pub fn raise_error(&mut self) -> u32 {
        self.raise(IRQ_ERROR)
    }

    /// Steps RING_HEAD.
    pub fn advance(&mut self) {
        self.head = self.ring.next(self.head);
    }

    /// A descriptor with these flags is finished, and its fence written.
    /// Returns the vectors to send.
    #[must_use]
    pub fn finished(&mut self, fence: Option<u64>, irq: bool) -> u32 {
        if let Some(seq) = fence {
            self.fence_seq = seq;
        }
        self.raise(bit(irq, IRQ_FENCE))
    }
}

fn bit(on: bool, mask: u32) -> u32 {
    if on {
        mask
    } else {
        0
    }
}

fn set_low(whole: &mut u64, value: u32) {
    *whole = (*whole & !0xffff_ffff) | u64::from(value);
}

fn set_high(whole: &mut u64, value: u32) {
    *whole = (*whole & 0xffff_ffff) | (u64::from(value) << 32);
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
