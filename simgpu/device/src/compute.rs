// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Jobs at work.
//!
//! A job runs in steps. A step looks up the pages of all operands, and only when
//! it has them all does it change anything, and count that as done: so a step
//! that faults has left nothing half done, and is simply tried again after a
//! replay.

use crate::descriptor::Status;
use crate::job::{check_range, Job, JobOp};
use crate::mmu::Trouble;
use crate::page_table::{FaultKind, Intent};
use crate::span::Span;
use crate::virtual_memory::{Operand, VirtualMemory};

/// Most bytes in a step, a multiple of every operand's alignment.
pub const CHUNK: usize = 64 << 10;
/// Most single accesses in a step.
const ACCESSES: u64 = 1024;
const CHECKSUM_START: u64 = 0xcbf2_9ce4_8422_2325;
const CHECKSUM_FACTOR: u64 = 0x100_0000_01b3;

/// An access that cannot be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub address: u64,
    /// Bytes from there on that will be accessed in this way.
    pub len: u64,
    pub asid: u32,
    pub intent: Intent,
    pub kind: FaultKind,
}

/// Why a step did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Fault(Fault),
    Error(Failure),
}

/// Why a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub status: Status,
    /// Address and way of the access, if it was one.
    pub address: u64,
    pub intent: Intent,
}

impl Failure {
    /// One that no single access is to blame for.
    pub fn new(status: Status) -> Self {
        Self {
            status,
            address: 0,
            intent: Intent::Read,
        }
    }
}

/// Room to work in.
#[derive(Debug)]
pub struct Scratch {
    a: Vec<u8>,
    b: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            a: vec![0; CHUNK],
            b: vec![0; CHUNK],
        }
    }
}

/// A job, and how far it has come.
#[derive(Debug)]
pub struct Progress {
    job: Job,
    /// How much of `len` is done.
    done: u64,
    result: u64,
    finished: bool,
    traffic: Traffic,
}

/// Bytes read and written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    /// Those of them that were in VRAM of peers.
    pub remote: u64,
}

impl Traffic {
    fn count(&mut self, operand: &Operand<'_>, bytes: u64) {
        self.bytes += bytes;
        if operand.remote {
            self.remote += bytes;
        }
    }
}

impl Progress {
    /// A job that has not begun.
    pub fn new(job: Job) -> Self {
        let result = match job.op {
            JobOp::Checksum => CHECKSUM_START,
            JobOp::Chase => job.src,
            _ => 0,
        };
        Self {
            job,
            done: 0,
            result,
            finished: job.op == JobOp::Nop,
            traffic: Traffic::default(),
        }
    }

    pub fn asid(&self) -> u32 {
        self.job.asid
    }

    /// How much of `len` is done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// The result, so far.
    pub fn result(&self) -> u64 {
        self.result
    }

    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// What was read and written since the last call.
    pub fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Does the next part of a job that is not finished.
    pub fn step(&mut self, memory: &VirtualMemory<'_>, scratch: &mut Scratch) -> Result<(), Stop> {
        if !self.is_computed() {
            match self.job.op {
                JobOp::Nop => {}
                JobOp::AtomicCount => self.count(memory)?,
                JobOp::StridedRead => self.strided(memory)?,
                JobOp::Chase => self.chase(memory)?,
                _ => self.sweep(memory, scratch)?,
            }
        } else if self.job.store {
            let word = self.word(memory, self.job.dst, 8, Intent::Write)?;
            word.span.write(&self.result.to_le_bytes());
            self.traffic.count(&word, 8);
            self.finished = true;
        }
        self.finished |= self.is_computed() && !self.job.store;
        Ok(())
    }

    /// Whether only the result is left to be stored.
    fn is_computed(&self) -> bool {
        let chased = self.job.op == JobOp::Chase && self.result == 0;
        self.done == self.job.len || chased
    }

    /// The ops that go through their operands from first to last byte.
    fn sweep(&mut self, memory: &VirtualMemory<'_>, scratch: &mut Scratch) -> Result<(), Stop> {
        use JobOp::*;
        let job = self.job;
        let left = job.len - self.done;
        let resolve = |start: u64, intent| {
            let va = start + self.done;
            let found = memory.resolve(va, left, intent);
            found.map_err(|trouble| self.stop(trouble, va, left, intent))
        };
        let (src, src2) = match job.op {
            AddU32 | AddF32 => (
                Some(resolve(job.src, Intent::Read)?),
                Some(resolve(job.src2, Intent::Read)?),
            ),
            Fill | AtomicAdd => (None, None),
            _ => (Some(resolve(job.src, Intent::Read)?), None),
        };
        let dst = match job.op {
            Reduce | Checksum => None,
            AtomicAdd => Some(resolve(job.dst, Intent::Atomic)?),
            _ => Some(resolve(job.dst, Intent::Write)?),
        };
        let operands = [src, src2, dst];
        let n = operands.iter().flatten().map(|operand| operand.span.len());
        let n = n.min().unwrap_or(0).min(CHUNK);
        for operand in operands.iter().flatten() {
            self.traffic.count(operand, n as u64);
        }
        let spans = operands.map(|operand| operand.map(|operand| operand.span.first(n)));
        self.result = work(&job, spans, self.result, scratch, n);
        self.done += n as u64;
        Ok(())
    }

    fn count(&mut self, memory: &VirtualMemory<'_>) -> Result<(), Stop> {
        let word = self.word(memory, self.job.dst, 8, Intent::Atomic)?;
        let n = (self.job.len - self.done).min(ACCESSES);
        for _ in 0..n {
            word.span.add_u64(0, self.job.arg);
        }
        self.done += n;
        self.traffic.count(&word, 8 * n);
        Ok(())
    }

    fn strided(&mut self, memory: &VirtualMemory<'_>) -> Result<(), Stop> {
        for _ in 0..ACCESSES.min(self.job.len - self.done) {
            let va = self.job.src + self.done * self.job.stride;
            let way = (self.job.len - self.done - 1) * self.job.stride + 8;
            let word = self.word(memory, va, way, Intent::Read)?;
            self.result = self.result.wrapping_add(word.span.load_u64(0));
            self.done += 1;
            self.traffic.count(&word, 8);
        }
        Ok(())
    }

    fn chase(&mut self, memory: &VirtualMemory<'_>) -> Result<(), Stop> {
        for _ in 0..ACCESSES {
            if self.is_computed() {
                break;
            }
            let intent = Intent::Read;
            check_range(self.result, 8, 8).map_err(|(status, address)| {
                Stop::Error(Failure {
                    status,
                    address,
                    intent,
                })
            })?;
            let word = self.word(memory, self.result, 8, intent)?;
            self.result = word.span.load_u64(0);
            self.done += 1;
            self.traffic.count(&word, 8);
        }
        Ok(())
    }

    /// The word at `va`, which is aligned, so that it never crosses a page; it is
    /// the first of `way` bytes that will be accessed.
    fn word<'m>(
        &self,
        memory: &'m VirtualMemory<'_>,
        va: u64,
        way: u64,
        intent: Intent,
    ) -> Result<Operand<'m>, Stop> {
        let found = memory.resolve(va, 8, intent);
        found.map_err(|trouble| self.stop(trouble, va, way, intent))
    }

    /// What is to be told of `trouble` with the first of `len` bytes from `address`.
    fn stop(&self, trouble: Trouble, address: u64, len: u64, intent: Intent) -> Stop {
        match trouble {
            Trouble::Fault(kind) => Stop::Fault(Fault {
                address,
                len,
                asid: self.job.asid,
                intent,
                kind,
            }),
            Trouble::Error(status) => Stop::Error(Failure {
                status,
                address,
                intent,
            }),
        }
    }
}

/// Works on the `n` bytes of each operand: `src`, `src2` and `dst`, those that the
/// op has. Returns the new result.
fn work(job: &Job, operands: [Option<Span<'_>>; 3], old: u64, s: &mut Scratch, n: usize) -> u64 {
    let (a, b) = (&mut s.a[..n], &mut s.b[..n]);
    match (job.op, operands) {
        (JobOp::Fill, [_, _, Some(dst)]) => {
            for word in a.chunks_exact_mut(8) {
                word.copy_from_slice(&job.arg.to_le_bytes());
            }
            dst.write(a);
        }
        (JobOp::Copy, [Some(src), _, Some(dst)]) => dst.copy_from(&src),
        (JobOp::AddU32, [Some(src), Some(src2), Some(dst)]) => {
            src.read(a);
            src2.read(b);
            add(a, b, |x, y| {
                u32::from_le_bytes(x)
                    .wrapping_add(u32::from_le_bytes(y))
                    .to_le_bytes()
            });
            dst.write(a);
        }
        (JobOp::AddF32, [Some(src), Some(src2), Some(dst)]) => {
            src.read(a);
            src2.read(b);
            add(a, b, |x, y| {
                (f32::from_le_bytes(x) + f32::from_le_bytes(y)).to_le_bytes()
            });
            dst.write(a);
        }
        (JobOp::AtomicAdd, [_, _, Some(dst)]) => {
            (0..n).step_by(8).for_each(|at| dst.add_u64(at, job.arg));
        }
        (JobOp::Reduce, [Some(src), ..]) => {
            src.read(a);
            return words(a).fold(old, u64::wrapping_add);
        }
        (JobOp::Checksum, [Some(src), ..]) => {
            src.read(a);
            return words(a).fold(old, |h, word| (h ^ word).wrapping_mul(CHECKSUM_FACTOR));
        }
        _ => {}
    }
    old
}

/// `a` = `f`(`a`, `b`), for each 4 bytes.
fn add(a: &mut [u8], b: &[u8], f: impl Fn([u8; 4], [u8; 4]) -> [u8; 4]) {
    for (x, y) in a.chunks_exact_mut(4).zip(b.chunks_exact(4)) {
        let sum = f([x[0], x[1], x[2], x[3]], [y[0], y[1], y[2], y[3]]);
        x.copy_from_slice(&sum);
    }
}

/// The little-endian words in `bytes`.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .chunks_exact(8)
        .map(|w| u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]))
}
