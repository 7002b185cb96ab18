// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The compute side of the device: its MMU, its queues, its faults.

use crate::{
    engine::Engine,
    fault_buffer::FaultBuffer,
    mmu::Mmu,
    queue::Queue,
    regs::QUEUES, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*,
    sync::Arc, //
};

/// All engines but the copy engine.
///
/// Each has a lock of its own; none is taken with another one of them held.
#[pin_data]
pub(crate) struct Compute {
    pub(crate) engine: Arc<Engine>,
    pub(crate) mmu: Arc<Mmu>,
    queues: KVec<Arc<Queue>>,
    #[pin]
    pub(crate) faults: FaultBuffer,
}

impl Compute {
    /// Allocates what they need, and starts them. They are told of resets from now on, until
    /// [`stop`](Self::stop). May sleep.
    pub(crate) fn start(dev: &Device<Bound>, engine: Arc<Engine>) -> Result<Arc<Self>> {
        let mmu = Arc::pin_init(Mmu::new(dev, engine.clone()), GFP_KERNEL)?;
        let mut queues = KVec::with_capacity(QUEUES, GFP_KERNEL)?;

        for number in 1..=QUEUES {
            queues.push(Queue::new(dev, engine.clone(), number)?, GFP_KERNEL)?;
        }
        let compute = Arc::pin_init::<Error>(
            try_pin_init!(Self {
                mmu,
                queues,
                faults <- FaultBuffer::new(dev, engine.clone()),
                engine,
            }? Error),
            GFP_KERNEL,
        )?;

        compute.start_all()?;
        compute.engine.attach(Some(compute.clone()));
        Ok(compute)
    }

    /// A compute queue by its number, which begins at 1.
    pub(crate) fn queue(&self, number: usize) -> Option<&Arc<Queue>> {
        self.queues.get(number.checked_sub(1)?)
    }

    fn start_all(&self) -> Result {
        // The translations first: nothing must be found that is not there any more.
        self.mmu.start()?;
        self.faults.start()?;
        for queue in &self.queues {
            queue.start()?;
        }
        Ok(())
    }

    /// The device was reset: all jobs are lost, and all is to be started again.
    pub(crate) fn after_reset(&self) {
        if self.start_all().is_err() && !self.engine.is_gone() {
            self.engine.lost("the compute side can't be started again");
        }
    }

    /// Stops the queues for good, and ends their jobs with [`ENODEV`]. May sleep.
    pub(crate) fn stop_queues(&self) {
        for queue in &self.queues {
            queue.stop();
        }
    }

    /// Stops all of them for good. May sleep.
    pub(crate) fn stop(&self) {
        self.engine.attach(None);
        self.stop_queues();
        self.faults.stop();
        self.mmu.stop();
    }
}
