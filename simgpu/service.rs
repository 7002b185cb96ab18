// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Who serves page faults: for each queue a work item, which run concurrently.

use crate::{
    engine::Engine,
    fault_buffer::Fault,
    regs::QUEUES,
    svm::Svm, //
};
use drm_pagemap::queue::WorkQueue;
use kernel::{
    impl_has_work,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// What serves the faults of one queue.
#[pin_data]
struct Server {
    svm: Arc<Svm>,
    /// The queue's last fault; those before it were replayed.
    #[pin]
    fault: Mutex<Option<Fault>>,
    #[pin]
    work: Work<Server>,
}

impl_has_work! {
    impl HasWork<Self> for Server { self.work }
}

impl WorkItem for Server {
    type Pointer = Arc<Server>;

    fn run(this: Arc<Server>) {
        loop {
            let fault = this.fault.lock().take();

            match fault {
                Some(fault) => this.svm.serve(&fault),
                None => break,
            }
        }
    }
}

/// All servers. Dropping it waits for what they are at.
pub(crate) struct Service {
    svm: Arc<Svm>,
    servers: KVec<Arc<Server>>,
    work: WorkQueue,
}

impl Service {
    /// Servers for all queues. May sleep.
    pub(crate) fn new(svm: &Arc<Svm>) -> Result<Arc<Self>> {
        let mut servers = KVec::with_capacity(QUEUES, GFP_KERNEL)?;

        for _ in 0..QUEUES {
            let server = Arc::pin_init(
                pin_init!(Server {
                    svm: svm.clone(),
                    fault <- new_mutex!(None, "simgpu::Server::fault"),
                    work <- new_work!("simgpu::Server::work"),
                }),
                GFP_KERNEL,
            )?;

            servers.push(server, GFP_KERNEL)?;
        }
        Ok(Arc::new(
            Self {
                svm: svm.clone(),
                servers,
                work: WorkQueue::new(c"simgpu-faults")?,
            },
            GFP_KERNEL,
        )?)
    }

    /// The engine, for its registers.
    pub(crate) fn engine(&self) -> &Engine {
        &self.svm.compute.engine
    }

    /// There are faults, or so says the device.
    pub(crate) fn interrupt(&self) {
        self.svm.compute.faults.acknowledge();
        while let Some(fault) = self.svm.compute.faults.take() {
            let Some(server) = fault.queue.checked_sub(1).and_then(|i| self.servers.get(i)) else {
                continue;
            };

            *server.fault.lock() = Some(fault);
            // If it is queued already, it will find this one.
            let _ = self.work.enqueue(server.clone());
        }
    }
}
