// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Compute jobs.

use crate::{
    address_space::Asid,
    block_ring::BlockRing,
    queue::Queue,
    uapi::{
        self,
        drm_simgpu_submit, //
    }, //
};
use core::ops::Range;
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Jiffies, //
    }, //
};

/// 64-bit words a job.
pub(crate) const WORDS: usize = 16;

/// Fence and interrupt.
const FLAGS: u64 = 0b11 << 32;

/// The result is also written to `dst`.
const FLAG_STORE: u64 = 0b100 << 32;

/// Where the device writes its verdict, and the access that failed, to.
const STATUS_WORD: usize = 12;

/// The words after that.
const FAULT_ADDRESS_WORD: usize = 13;
const DONE_WORD: usize = 14;
const RESULT_WORD: usize = 15;

/// What became of a job.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// 0, or a negative errno.
    pub(crate) error: i32,
    /// What could not be done at `fault_address`.
    pub(crate) fault_access: u32,
    /// The address that could not be used, or 0.
    pub(crate) fault_address: u64,
    /// How much of the length was done.
    pub(crate) done: u64,
    /// The result.
    pub(crate) result: u64,
}

impl Outcome {
    /// Of a job that the device did not finish.
    pub(crate) fn failed(err: Error) -> Self {
        Self {
            error: err.to_errno(),
            ..Self::default()
        }
    }

    /// What the device says of entry `seq`.
    fn read(ring: &BlockRing<WORDS>, seq: u64) -> Result<Self> {
        let verdict = ring.word(seq, STATUS_WORD)?;
        let error = match verdict as u32 {
            1 => 0,
            // Bad operation, length or address: what was submitted makes no sense.
            2 | 5 | 8 => EINVAL.to_errno(),
            // The address space was taken away, so nobody can want the job any more.
            9 => ECANCELED.to_errno(),
            // The driver gave up on a page fault; or what was there is lost with another GPU.
            7 | 11 => EFAULT.to_errno(),
            _ => EIO.to_errno(),
        };

        Ok(Self {
            error,
            fault_access: (verdict >> 32) as u32,
            fault_address: ring.word(seq, FAULT_ADDRESS_WORD)?,
            done: ring.word(seq, DONE_WORD)?,
            result: ring.word(seq, RESULT_WORD)?,
        })
    }
}

/// The addresses that a job will use, as far as they are known before: where a chain of pointers
/// leads is not, and how far a job gets neither.
pub(crate) fn operands(args: &drm_simgpu_submit) -> impl Iterator<Item = Range<usize>> {
    let (src, src2, dst) = (Some(args.src), Some(args.src2), Some(args.dst));
    let strided = args.len.saturating_mul(args.stride);
    let (operands, len) = match args.op {
        uapi::SIMGPU_JOB_FILL | uapi::SIMGPU_JOB_ATOMIC_ADD => ([dst, None, None], args.len),
        uapi::SIMGPU_JOB_COPY => ([src, dst, None], args.len),
        uapi::SIMGPU_JOB_ADD_U32 | uapi::SIMGPU_JOB_ADD_F32 => ([src, src2, dst], args.len),
        uapi::SIMGPU_JOB_ATOMIC_COUNT => ([dst, None, None], 8),
        uapi::SIMGPU_JOB_REDUCE | uapi::SIMGPU_JOB_CHECKSUM => ([src, None, None], args.len),
        uapi::SIMGPU_JOB_STRIDED_READ => ([src, None, None], strided),
        uapi::SIMGPU_JOB_CHASE => ([src, None, None], 8),
        _ => ([None; 3], 0),
    };

    operands
        .into_iter()
        .flatten()
        .map(move |start| start as usize..start.saturating_add(len) as usize)
}

/// A job, which is on a queue or done.
#[pin_data]
pub(crate) struct Job {
    pub(crate) queue: Arc<Queue>,
    words: [u64; WORDS],
    /// Not given to another address space as long as there are jobs with it.
    _asid: Arc<Asid>,
    #[pin]
    outcome: Mutex<Option<Outcome>>,
    #[pin]
    done: CondVar,
}

impl Job {
    /// What `args` describes, which are checked by the device.
    pub(crate) fn new(
        args: &drm_simgpu_submit,
        queue: Arc<Queue>,
        asid: Arc<Asid>,
    ) -> Result<Arc<Self>> {
        let store = if args.flags & crate::uapi::SIMGPU_SUBMIT_STORE != 0 {
            FLAG_STORE
        } else {
            0
        };
        let mut words = [0; WORDS];

        words[0] = u64::from(args.op) | FLAGS | store;
        words[2..8].copy_from_slice(&[
            args.src,
            args.src2,
            args.dst,
            args.len,
            args.arg,
            args.stride,
        ]);
        words[8] = asid.number() as u64;
        Arc::pin_init::<Error>(
            try_pin_init!(Self {
                queue,
                words,
                _asid: asid,
                outcome <- new_mutex!(None, "simgpu::Job::outcome"),
                done <- new_condvar!("simgpu::Job::done"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The ring's entry.
    pub(crate) fn words(&self) -> [u64; WORDS] {
        self.words
    }

    /// It is over: entry `seq` is done.
    pub(crate) fn finish(&self, ring: &BlockRing<WORDS>, seq: u64) {
        self.end(Outcome::read(ring, seq).unwrap_or_else(Outcome::failed));
    }

    /// It is over, in this way; unless it was before.
    pub(crate) fn end(&self, how: Outcome) {
        let mut outcome = self.outcome.lock();

        outcome.get_or_insert(how);
        self.done.notify_all();
    }

    /// The outcome, if it is over.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        *self.outcome.lock()
    }

    /// Waits until it is over, at most for so many milliseconds. [`EINTR`]: there is a signal.
    pub(crate) fn wait(&self, ms: u32) -> Result<Option<Outcome>> {
        let mut outcome = self.outcome.lock();
        let mut rest: Jiffies = msecs_to_jiffies(ms);

        while outcome.is_none() {
            rest = match self.done.wait_interruptible_timeout(&mut outcome, rest) {
                CondVarTimeoutResult::Woken { jiffies } => jiffies,
                CondVarTimeoutResult::Timeout => break,
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
            };
        }
        Ok(*outcome)
    }
}
