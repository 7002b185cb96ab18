// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The registers of one ring, and the state of the engine that it feeds.

use crate::descriptor::Status;
use crate::inject::{Inject, Injector};
use crate::registers::{bit, set_high, set_low, CONTROL_RESET};
use crate::ring::Ring;

/// Offsets in a ring block.
pub mod reg {
    pub const BASE_LO: u64 = 0x00;
    pub const BASE_HI: u64 = 0x04;
    pub const ENTRIES: u64 = 0x08;
    pub const HEAD: u64 = 0x0c;
    pub const TAIL: u64 = 0x10;
    pub const ENABLE: u64 = 0x14;
    pub const FENCE_ADDR_LO: u64 = 0x18;
    pub const FENCE_ADDR_HI: u64 = 0x1c;
    pub const FENCE_SEQ_LO: u64 = 0x20;
    pub const FENCE_SEQ_HI: u64 = 0x24;
    pub const ERROR_CODE: u64 = 0x28;
    pub const ERROR_INDEX: u64 = 0x2c;
    pub const ERROR_COUNT: u64 = 0x30;
    // The copy ring has these elsewhere, or not at all.
    pub const STATUS: u64 = 0x34;
    pub const INJECT_KIND: u64 = 0x38;
    pub const INJECT_COUNT: u64 = 0x3c;
    pub const INJECT_DELAY_US: u64 = 0x40;
    pub const CONTROL: u64 = 0x44;
}

/// Bits of STATUS.
pub const STATUS_RUNNING: u32 = 1 << 0;
pub const STATUS_HUNG: u32 = 1 << 1;
pub const STATUS_HALTED: u32 = 1 << 2;
pub const STATUS_STALLED: u32 = 1 << 3;

/// What an engine shall do next. It must report [`RingState::work_done`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Look whether a newly started ring is usable guest memory.
    Check(Ring),
    /// Carry out the descriptor `index`. It does not hang.
    Run {
        ring: Ring,
        index: u32,
        inject: Inject,
    },
}

/// The registers of a ring.
#[derive(Debug, Default)]
pub struct RingState {
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
    inject: Injector,
}

impl RingState {
    /// The state at power-on, of a ring whose descriptors have `entry` bytes.
    pub fn new(entry: u64) -> Self {
        Self {
            ring: Ring {
                entry,
                ..Ring::default()
            },
            ..Default::default()
        }
    }

    /// The register `offset` bytes into the block.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            reg::BASE_LO => self.ring.base as u32,
            reg::BASE_HI => (self.ring.base >> 32) as u32,
            reg::ENTRIES => self.ring.entries,
            reg::HEAD => self.head,
            reg::TAIL => self.tail,
            reg::ENABLE => u32::from(self.enabled),
            reg::FENCE_ADDR_LO => self.ring.fence as u32,
            reg::FENCE_ADDR_HI => (self.ring.fence >> 32) as u32,
            reg::FENCE_SEQ_LO => self.fence_seq as u32,
            reg::FENCE_SEQ_HI => (self.fence_seq >> 32) as u32,
            reg::ERROR_CODE => self.error_code,
            reg::ERROR_INDEX => self.error_index,
            reg::ERROR_COUNT => self.error_count as u32,
            reg::STATUS => {
                bit(self.running, STATUS_RUNNING)
                    | bit(self.hung, STATUS_HUNG)
                    | bit(self.halted, STATUS_HALTED)
            }
            reg::INJECT_KIND => self.inject.kind,
            reg::INJECT_COUNT => self.inject.count,
            reg::INJECT_DELAY_US => self.inject.delay_us,
            reg::CONTROL => bit(self.reset_pending, CONTROL_RESET),
            _ => 0,
        }
    }

    /// Writes that register. Returns whether the ring halted for it. The engine may
    /// have something to do afterwards.
    #[must_use]
    pub fn write(&mut self, offset: u64, value: u32) -> bool {
        if self.reset_pending {
            return false;
        }
        let stopped = !self.running;
        let halted = self.halted;
        match offset {
            reg::BASE_LO if stopped => set_low(&mut self.ring.base, value),
            reg::BASE_HI if stopped => set_high(&mut self.ring.base, value),
            reg::ENTRIES if stopped => self.ring.entries = value,
            reg::TAIL => self.doorbell(value),
            reg::ENABLE if value & 1 != 0 => self.start(),
            reg::ENABLE => self.stop(),
            reg::FENCE_ADDR_LO if stopped => set_low(&mut self.ring.fence, value),
            reg::FENCE_ADDR_HI if stopped => set_high(&mut self.ring.fence, value),
            reg::INJECT_KIND => self.inject.kind = value,
            reg::INJECT_COUNT => self.inject.count = value,
            reg::INJECT_DELAY_US => self.inject.delay_us = value,
            reg::CONTROL if value & CONTROL_RESET != 0 => self.request_reset(),
            _ => {}
        }
        self.halted && !halted
    }

    /// Where the ring is.
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// RESET of this ring: at once if the engine is idle, else when it is done with
    /// the descriptor at hand.
    pub fn request_reset(&mut self) {
        if self.busy {
            self.reset_pending = true;
        } else {
            *self = Self::new(self.ring.entry);
        }
    }

    /// Whether a RESET waits for the engine.
    pub fn reset_pending(&self) -> bool {
        self.reset_pending
    }

    /// Whether the engine is at work.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    fn start(&mut self) {
        if self.running || self.hung || self.halted {
            return;
        }
        (self.head, self.tail) = (0, 0);
        if self.ring.is_sane() {
            (self.enabled, self.running, self.unchecked) = (true, true, true);
        } else {
            self.halt();
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
            self.halt();
        }
    }

    /// The ring cannot be used.
    pub fn halt(&mut self) {
        self.stop();
        self.halted = true;
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
            let inject = self.inject.take();
            if inject == Inject::Hang {
                self.hung = true;
                return None;
            }
            Work::Run {
                ring: self.ring,
                index: self.head,
                inject,
            }
        } else {
            return None;
        };
        self.busy = true;
        Some(work)
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

    /// The descriptor `index` failed. Returns the new error count.
    pub fn count_error(&mut self, index: u32, status: Status) -> u64 {
        self.error_code = status as u32;
        self.error_index = index;
        self.error_count = self.error_count.wrapping_add(1);
        self.error_count
    }

    /// The driver has seen ERROR_CODE.
    pub fn clear_error(&mut self) {
        self.error_code = 0;
    }

    /// Steps RING_HEAD.
    pub fn advance(&mut self) {
        self.head = self.ring.next(self.head);
    }

    /// The fence block was written.
    pub fn set_fence(&mut self, seq: u64) {
        self.fence_seq = seq;
    }
}
