// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The fault buffer, and the queues that stall.
//!
//! No threads and no memory here. A queue whose job cannot go on calls
//! [`FaultBuffer::stall`], then [`FaultBuffer::next`] again and again, which says
//! what to do: write an entry, sleep, or go on. REPLAY and CANCEL arrive by
//! [`FaultBuffer::end_stalls`].

use crate::compute::Fault;
use crate::inject::{Inject, Injector};
use crate::registers::{bit, set_high, set_low, QUEUES};
use std::time::Instant;

/// Offsets in the block of registers.
pub mod reg {
    pub const BASE_LO: u64 = 0x00;
    pub const BASE_HI: u64 = 0x04;
    pub const ENTRIES: u64 = 0x08;
    pub const PUT: u64 = 0x0c;
    pub const GET: u64 = 0x10;
    pub const ENABLE: u64 = 0x14;
    pub const STATUS: u64 = 0x18;
    pub const STALLED: u64 = 0x1c;
    pub const INJECT_KIND: u64 = 0x20;
    pub const INJECT_COUNT: u64 = 0x24;
    pub const INJECT_DELAY_US: u64 = 0x28;
}

/// Bits of STATUS.
pub const OVERFLOW: u32 = 1 << 0;
pub const BAD: u32 = 1 << 1;

/// Bytes in an entry.
const ENTRY: u64 = 64;
const MIN_ENTRIES: u32 = 2;
const MAX_ENTRIES: u32 = 65536;

/// How a stall ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Replay,
    Cancel,
}

/// What a stalled queue does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is not stalled any more.
    Go(Verdict),
    /// Write this entry to the bus address, the last 32 bits last, and raise the interrupt.
    Write { bus: u64, entry: [u64; 8] },
    /// There is no room. Count that, raise the interrupt, and ask again.
    Overflow,
    /// Sleep until something changes, or until then.
    Sleep(Option<Instant>),
}

/// A stalled queue.
#[derive(Debug)]
struct Stall {
    fault: Fault,
    token: u32,
    report: Report,
    verdict: Option<Verdict>,
}

/// How far the report of a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    /// The test knobs have not been asked yet.
    New,
    /// To be written then.
    Late(Instant),
    /// To be written when there is room; whether it was said that there is none.
    Due { told: bool },
    /// Written, or never to be.
    Over,
}

/// The registers, and who is stalled.
#[derive(Debug, Default)]
pub struct FaultBuffer {
    base: u64,
    entries: u32,
    put: u32,
    get: u32,
    enabled: bool,
    status: u32,
    inject: Injector,
    hung: bool,
    last_token: u32,
    stalls: [Option<Stall>; QUEUES],
}

impl FaultBuffer {
    /// The register `offset` bytes into the block.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            reg::BASE_LO => self.base as u32,
            reg::BASE_HI => (self.base >> 32) as u32,
            reg::ENTRIES => self.entries,
            reg::PUT => self.put,
            reg::GET => self.get,
            reg::ENABLE => u32::from(self.enabled),
            reg::STATUS => self.status,
            reg::STALLED => (0..QUEUES).fold(0, |mask, i| {
                mask | bit(self.stalls[i].is_some(), 1 << (i + 1))
            }),
            reg::INJECT_KIND => self.inject.kind,
            reg::INJECT_COUNT => self.inject.count,
            reg::INJECT_DELAY_US => self.inject.delay_us,
            _ => 0,
        }
    }

    /// Writes that register.
    pub fn write(&mut self, offset: u64, value: u32) {
        let off = !self.enabled;
        match offset {
            reg::BASE_LO if off => set_low(&mut self.base, value),
            reg::BASE_HI if off => set_high(&mut self.base, value),
            reg::ENTRIES if off => self.entries = value,
            reg::GET if value < self.entries => self.get = value,
            reg::ENABLE if value & 1 == 0 => self.enabled = false,
            reg::ENABLE if off && self.is_sane() => {
                (self.put, self.get, self.enabled) = (0, 0, true);
            }
            reg::STATUS => self.status &= !value,
            reg::INJECT_KIND => self.inject.kind = value,
            reg::INJECT_COUNT => self.inject.count = value,
            reg::INJECT_DELAY_US => self.inject.delay_us = value,
            _ => {}
        }
    }

    fn is_sane(&self) -> bool {
        self.entries.is_power_of_two()
            && (MIN_ENTRIES..=MAX_ENTRIES).contains(&self.entries)
            && self.base % ENTRY == 0
    }

    /// Queue `queue` (1 .. QUEUES) stalls.
    pub fn stall(&mut self, queue: usize, fault: Fault) {
        // Never 0.
        self.last_token = self.last_token.checked_add(1).unwrap_or(1);
        self.stalls[queue - 1] = Some(Stall {
            fault,
            token: self.last_token,
            report: Report::New,
            verdict: None,
        });
    }

    /// Queue `queue` is not stalled any more, whatever became of it.
    pub fn forget(&mut self, queue: usize) {
        self.stalls[queue - 1] = None;
    }

    /// Whether queue `queue` is stalled.
    pub fn is_stalled(&self, queue: usize) -> bool {
        self.stalls[queue - 1].is_some()
    }

    /// Ends the stalls that `which` chooses by queue, address space and token.
    /// Returns how many.
    pub fn end_stalls(&mut self, verdict: Verdict, which: impl Fn(usize, u32, u32) -> bool) -> u64 {
        let mut count = 0;
        for (i, stall) in self.stalls.iter_mut().enumerate() {
            let Some(stall) = stall.as_mut().filter(|s| s.verdict.is_none()) else {
                continue;
            };
            if which(i + 1, stall.fault.asid, stall.token) {
                stall.verdict = Some(verdict);
                count += 1;
            }
        }
        count
    }

    /// What queue `queue`, which is stalled, does next.
    pub fn next(&mut self, queue: usize, now: Instant) -> Next {
        let full = !self.enabled || self.after(self.put) == self.get;
        let Some(stall) = &mut self.stalls[queue - 1] else {
            return Next::Go(Verdict::Replay);
        };
        if let Some(verdict) = stall.verdict {
            self.forget(queue);
            return Next::Go(verdict);
        }
        if stall.report == Report::New {
            stall.report = match self.inject.take() {
                _ if self.hung => Report::Over,
                Inject::Nothing => Report::Due { told: false },
                Inject::Fail => Report::Over,
                Inject::Delay(delay) => Report::Late(now + delay),
                Inject::Hang => {
                    self.hung = true;
                    Report::Over
                }
            };
        }
        match stall.report {
            Report::Late(then) if then > now => return Next::Sleep(Some(then)),
            Report::Late(_) => stall.report = Report::Due { told: false },
            _ => {}
        }
        match stall.report {
            Report::Due { told: false } if full => {
                stall.report = Report::Due { told: true };
                self.status |= OVERFLOW;
                Next::Overflow
            }
            Report::Due { .. } if !full => {
                stall.report = Report::Over;
                let entry = entry(queue, stall);
                let bus = self.base.wrapping_add(u64::from(self.put) * ENTRY);
                self.put = self.after(self.put);
                Next::Write { bus, entry }
            }
            _ => Next::Sleep(None),
        }
    }

    /// The entry of queue `queue` could not be written: there is no memory.
    pub fn write_failed(&mut self, queue: usize) {
        self.enabled = false;
        self.status |= BAD;
        if let Some(stall) = &mut self.stalls[queue - 1] {
            stall.report = Report::Due { told: true };
        }
    }

    fn after(&self, index: u32) -> u32 {
        // `entries` is a power of two while enabled; 0 must not panic.
        index.wrapping_add(1) & self.entries.wrapping_sub(1)
    }
}

/// The words of an entry.
fn entry(queue: usize, stall: &Stall) -> [u64; 8] {
    let Stall { fault, token, .. } = stall;
    let pair = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    [
        fault.address,
        fault.len,
        pair(fault.asid, queue as u32),
        pair(fault.intent as u32, fault.kind as u32),
        0,
        0,
        0,
        pair(0, *token),
    ]
}

#[cfg(test)]
#[path = "fault_buffer_tests.rs"]
mod tests;
