// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A compute queue.

use crate::{
    block_ring::BlockRing,
    engine::Engine,
    job::{
        Job,
        Outcome,
        WORDS, //
    },
    regs::block, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// Jobs in the ring, and one.
const ENTRIES: usize = 256;

/// A compute queue. Its jobs are done in the order in which they are submitted.
#[pin_data]
pub(crate) struct Queue {
    engine: Arc<Engine>,
    #[pin]
    state: Mutex<State>,
}

/// What a queue does.
struct State {
    /// [`None`] when it has been stopped for good.
    ring: Option<BlockRing<WORDS>>,
    /// The jobs that are in the ring: that with sequence number n at index n modulo [`ENTRIES`].
    jobs: KVec<Option<Arc<Job>>>,
    /// The sequence number of the oldest.
    oldest: u64,
}

impl State {
    /// Takes the jobs out that have a number up to `last`.
    fn take(&mut self, last: u64) -> impl Iterator<Item = (u64, Arc<Job>)> + '_ {
        let first = self.oldest;

        self.oldest = self.oldest.max(last + 1);
        (first..=last).filter_map(|seq| {
            let slot = self.jobs.get_mut(seq as usize % ENTRIES)?;

            Some((seq, slot.take()?))
        })
    }

    /// Ends the jobs that are done.
    fn collect(&mut self) -> Result {
        let Some(ring) = self.ring.take() else {
            return Ok(());
        };
        let last = ring.done().map(|done| done.min(ring.last()));

        if let Ok(last) = last {
            for (seq, job) in self.take(last) {
                job.finish(&ring, seq);
            }
        }
        self.ring = Some(ring);
        last.map(|_| ())
    }

    /// Ends all jobs with an error.
    fn fail(&mut self, err: Error) {
        if let Some(last) = self.ring.as_ref().map(BlockRing::last) {
            for (_, job) in self.take(last) {
                job.end(Outcome::failed(err));
            }
        }
    }
}

impl Queue {
    /// Queue `number`, 1 to 4. May sleep.
    pub(crate) fn new(
        dev: &Device<Bound>,
        engine: Arc<Engine>,
        number: usize,
    ) -> Result<Arc<Self>> {
        let mut jobs = KVec::with_capacity(ENTRIES, GFP_KERNEL)?;
        for _ in 0..ENTRIES {
            jobs.push(None, GFP_KERNEL)?;
        }
        let state = State {
            ring: Some(BlockRing::new(dev, block::queue(number), ENTRIES)?),
            jobs,
            oldest: 1,
        };

        Arc::pin_init::<Error>(
            try_pin_init!(Self {
                engine,
                state <- new_mutex!(state, "simgpu::Queue::state"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Hands a job over. [`EAGAIN`]: the ring is full. [`ENODEV`].
    pub(crate) fn submit(&self, job: Arc<Job>) -> Result {
        let mut state = self.state.lock();

        if self.engine.is_gone() {
            return Err(ENODEV);
        }
        state.collect()?;
        let oldest = state.oldest;
        let ring = state.ring.as_mut().ok_or(ENODEV)?;
        if ring.is_stale(&self.engine) {
            // Whoever resets the device starts it soon.
            return Err(EAGAIN);
        }
        if ring.last() + 1 - oldest >= ring.capacity() as u64 {
            return Err(EAGAIN);
        }
        let words = job.words();
        let seq = ring.last() + 1;

        // First: it may be done in no time.
        *state.jobs.get_mut(seq as usize % ENTRIES).ok_or(EINVAL)? = Some(job);
        let ring = state.ring.as_mut().ok_or(ENODEV)?;
        ring.push(&self.engine, words).map(|_| ())
    }

    /// A job's fence was signalled, or so says the device.
    pub(crate) fn interrupt(&self) {
        let _ = self.state.lock().collect();
    }

    /// Looks after the engine: called from time to time while a job is waited for. Jobs that can't
    /// end by themselves are ended.
    pub(crate) fn check(&self) {
        // Without the lock: the queues may be started again by this.
        let alive = self.engine.check_alive();
        let mut state = self.state.lock();

        // An interrupt that was lost would be noticed here.
        let _ = state.collect();
        if alive.is_err() {
            state.fail(ENODEV);
            return;
        }
        // Of faults, too, which nobody looks for.
        self.engine.resend_interrupts();
        let stuck = state.ring.as_ref().map(|ring| ring.is_stuck(&self.engine));
        if matches!(stuck, Some(Ok(true))) {
            dev_err!(
                self.engine.dev(),
                "a compute queue is stuck, resetting it\n"
            );
            state.fail(EIO);
            if let Some(ring) = &mut state.ring {
                if ring
                    .reset(&self.engine)
                    .and_then(|()| ring.start(&self.engine))
                    .is_err()
                {
                    self.engine.give_up("a compute queue can't be reset");
                }
            }
        }
    }

    /// Starts it, after a reset of the device, which has dropped all jobs.
    pub(crate) fn start(&self) -> Result {
        let mut state = self.state.lock();

        state.collect()?;
        state.fail(EIO);
        match &mut state.ring {
            Some(ring) => ring.start(&self.engine),
            None => Ok(()),
        }
    }

    /// Makes it misbehave, for tests.
    pub(crate) fn inject(&self, kind: u32, count: u32, delay_us: u32) -> Result {
        let state = self.state.lock();
        let ring = state.ring.as_ref().ok_or(ENODEV)?;

        ring.inject(&self.engine, kind, count, delay_us)
    }

    /// Stops it for good. Jobs that are not over end with [`ENODEV`], and do nothing any more by
    /// then. Nothing happens when this is done again.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();

        if let Some(ring) = &state.ring {
            let _ = ring.reset(&self.engine);
        }
        let _ = state.collect();
        state.fail(ENODEV);
        if let Some(ring) = state.ring.take() {
            ring.stop(&self.engine);
        }
    }
}
