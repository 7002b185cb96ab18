// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Jobs of the compute queues: what they look like in memory, and what they ask
//! for.

use crate::descriptor::{Status, FLAG_FENCE, FLAG_IRQ};
use crate::dma::Block;
use crate::mmu::ASIDS;
use crate::page_table::VA_END;

/// Bytes in a job: two blocks, of which the device writes the second.
pub const SIZE: u64 = 2 * Block::SIZE;
/// Index, in the second block, of the 32-bit word that takes the status.
pub const STATUS_WORD: usize = 8;
/// Flag: write the result to `dst`, too.
const FLAG_STORE: u32 = 1 << 2;
/// Most of what `len` counts.
pub const MAX_LEN: u64 = 1 << 36;

/// The work of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOp {
    Nop,
    Fill,
    Copy,
    AddU32,
    AddF32,
    AtomicAdd,
    AtomicCount,
    Reduce,
    Checksum,
    StridedRead,
    Chase,
}

impl JobOp {
    fn from_code(code: u32) -> Option<Self> {
        use JobOp::*;
        let all = [
            Nop,
            Fill,
            Copy,
            AddU32,
            AddF32,
            AtomicAdd,
            AtomicCount,
            Reduce,
            Checksum,
            StridedRead,
            Chase,
        ];
        all.get(code as usize).copied()
    }

    /// What addresses are multiples of, in bytes.
    fn alignment(self) -> u64 {
        match self {
            JobOp::Nop | JobOp::Copy => 1,
            JobOp::AddU32 | JobOp::AddF32 => 4,
            _ => 8,
        }
    }

    /// What `len` is a multiple of.
    fn unit(self) -> u64 {
        match self {
            JobOp::AtomicCount | JobOp::StridedRead | JobOp::Chase => 1,
            _ => self.alignment(),
        }
    }

    fn has_result(self) -> bool {
        use JobOp::*;
        matches!(self, Reduce | Checksum | StridedRead | Chase)
    }
}

/// One job. Addresses are virtual, `len` is in bytes or counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    pub op: JobOp,
    /// The result is to be written to `dst`.
    pub store: bool,
    pub src: u64,
    pub src2: u64,
    pub dst: u64,
    pub len: u64,
    pub arg: u64,
    pub stride: u64,
    pub asid: u32,
}

/// A job as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to do, or why not; then maybe with the address that is no good.
    pub job: Result<Job, (Status, u64)>,
    /// Sequence number to write to the fence block when done.
    pub fence: Option<u64>,
    /// Whether to set the queue's bit in IRQ_STATUS when done.
    pub irq: bool,
}

impl Request {
    /// Reads a job from its two blocks. The fence and irq flags count even if the
    /// rest is nonsense, so that nobody waits in vain.
    pub fn parse(first: &[u64; 8], second: &[u64; 8]) -> Self {
        let [head, seq, src, src2, dst, len, arg, stride] = *first;
        let (code, flags) = (head as u32, (head >> 32) as u32);
        let [asid, r0, r1, r2, ..] = *second;
        let store = flags & FLAG_STORE != 0;
        let clean = flags & !(FLAG_FENCE | FLAG_IRQ | FLAG_STORE) == 0
            && [asid >> 32, r0, r1, r2].iter().all(|&word| word == 0);
        let job = JobOp::from_code(code)
            .filter(|op| clean && (!store || op.has_result()))
            .ok_or((Status::BadOp, 0))
            .map(|op| Job {
                op,
                store,
                src,
                src2,
                dst,
                len,
                arg,
                stride,
                asid: asid as u32,
            })
            .and_then(Job::checked);
        Self {
            job,
            fence: (flags & FLAG_FENCE != 0).then_some(seq),
            irq: flags & FLAG_IRQ != 0,
        }
    }
}

impl Job {
    /// Looks whether the numbers make sense, page tables aside.
    fn checked(self) -> Result<Self, (Status, u64)> {
        use JobOp::*;
        if self.op == Nop {
            return Ok(self);
        }
        if self.len == 0 || self.len > MAX_LEN || self.len % self.op.unit() != 0 {
            return Err((Status::BadLen, 0));
        }
        let (reads, writes): (&[u64], &[u64]) = match self.op {
            Nop => (&[], &[]),
            Fill | AtomicAdd | AtomicCount => (&[], &[self.dst]),
            Copy => (&[self.src], &[self.dst]),
            AddU32 | AddF32 => (&[self.src, self.src2], &[self.dst]),
            Reduce | Checksum | StridedRead | Chase => (&[self.src], &[]),
        };
        let bytes = match self.op {
            AtomicCount | Chase => 8,
            StridedRead => {
                let way = self.stride.checked_mul(self.len - 1);
                let aligned = self.stride % 8 == 0;
                way.filter(|_| aligned)
                    .and_then(|way| way.checked_add(8))
                    .ok_or((Status::BadAddr, self.src))?
            }
            _ => self.len,
        };
        let alignment = self.op.alignment();
        for &address in reads.iter().chain(writes) {
            check_range(address, bytes, alignment)?;
        }
        if self.store {
            check_range(self.dst, 8, 8)?;
        }
        match (self.asid as usize) < ASIDS {
            true => Ok(self),
            false => Err((Status::BadAsid, 0)),
        }
    }
}

/// Whether `bytes` from `address` exist, and it is aligned.
pub fn check_range(address: u64, bytes: u64, alignment: u64) -> Result<(), (Status, u64)> {
    match address.checked_add(bytes) {
        Some(end) if end <= VA_END && address % alignment == 0 => Ok(()),
        _ => Err((Status::BadAddr, address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: [u64; 8] = [0, 7, 0x1000, 0x2000, 0x3000, 64, 5, 16];

    fn parse(code: u64, change: impl FnOnce(&mut [u64; 8], &mut [u64; 8])) -> Request {
        let (mut first, mut second) = (BASE, [3, 0, 0, 0, !0, !0, !0, !0]);
        first[0] = code;
        change(&mut first, &mut second);
        Request::parse(&first, &second)
    }

    #[test]
    fn every_op_is_known() {
        for code in 0..=10 {
            let job = parse(code, |_, _| ()).job.unwrap();
            assert_eq!(job.op as u64, code);
            assert_eq!((job.asid, job.stride, job.store), (3, 16, false));
        }
        assert_eq!(parse(11, |_, _| ()).job, Err((Status::BadOp, 0)));
        assert_eq!(parse(1 << 31, |_, _| ()).job, Err((Status::BadOp, 0)));
    }

    #[test]
    fn flags_count_even_in_a_bad_job() {
        for code in [0, 99] {
            let request = parse(code | (3 << 32), |_, _| ());
            assert_eq!((request.fence, request.irq), (Some(7), true));
        }
        assert_eq!(parse(8 << 32, |_, _| ()).job, Err((Status::BadOp, 0)));
        // STORE is for what has a result.
        for (code, good) in [(1, false), (6, false), (7, true), (10, true)] {
            assert_eq!(parse(code | (4 << 32), |_, _| ()).job.is_ok(), good);
        }
    }

    #[test]
    fn bad_fields() {
        let status = |code, change: fn(&mut [u64; 8], &mut [u64; 8])| {
            parse(code, change).job.err().map(|(status, _)| status)
        };
        let (len, addr) = (Some(Status::BadLen), Some(Status::BadAddr));
        assert_eq!(status(0, |f, _| f[5] = 0), None, "NOP has no len");
        assert_eq!(status(1, |f, _| f[5] = 0), len);
        assert_eq!(status(1, |f, _| f[5] = 12), len);
        assert_eq!(status(2, |f, _| f[5] = 13), None);
        assert_eq!(status(3, |f, _| f[5] = 6), len);
        assert_eq!(status(2, |f, _| f[5] = MAX_LEN + 1), len);
        assert_eq!(status(2, |f, _| f[2] = VA_END - 64), None);
        assert_eq!(status(2, |f, _| f[2] = VA_END - 63), addr);
        assert_eq!(status(2, |f, _| f[4] = u64::MAX), addr);
        assert_eq!(status(3, |f, _| f[3] = 2), addr);
        assert_eq!(status(1, |f, _| f[2] = 1), None, "FILL has no src");
        assert_eq!(status(9, |f, _| f[7] = 4), addr);
        assert_eq!(status(9, |f, _| f[7] = 1 << 63), addr);
        assert_eq!(status(9, |f, _| f[7] = 1 << 43), addr);
        assert_eq!(status(10, |f, _| f[2] = 4), addr);
        assert_eq!(status(7 | (4 << 32), |f, _| f[4] = 4), addr);
        assert_eq!(status(7, |f, _| f[4] = 4), None);
        assert_eq!(status(1, |_, s| s[0] = 64), Some(Status::BadAsid));
        for word in 0..4 {
            let request = parse(1, |_, s| s[word] |= 1 << 40);
            assert_eq!(request.job, Err((Status::BadOp, 0)), "{word}");
        }
    }
}
