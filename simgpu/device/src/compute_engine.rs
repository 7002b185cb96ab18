// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The engines of the compute queues: one thread each.

use crate::compute::{Failure, Progress, Scratch, Stop};
use crate::counters::Counter;
use crate::descriptor::Status;
use crate::device::Shared;
use crate::dma::BusError;
use crate::engine::Outcome;
use crate::fault_buffer::Verdict;
use crate::job::{Request, STATUS_WORD};
use crate::page_table::Intent;
use crate::registers::QUEUE0;
use crate::ring::Ring;
use crate::virtual_memory::{Parts, VirtualMemory};

/// Indices, in the second block of a job, of what the device writes.
const FAULT_ACCESS_WORD: usize = 9; // of 32 bits
const FAULT_ADDRESS_WORD: usize = 5;
const DONE_WORD: usize = 6;
const RESULT_WORD: usize = 7;

/// The engine of one queue.
pub(crate) struct ComputeEngine<'a> {
    shared: &'a Shared,
    /// Its number, from 1.
    queue: usize,
    scratch: Scratch,
}

/// How a job ended.
type Ending = Result<(), Failure>;

impl<'a> ComputeEngine<'a> {
    pub fn new(shared: &'a Shared, queue: usize) -> Self {
        Self {
            shared,
            queue,
            scratch: Scratch::default(),
        }
    }

    /// Carries out the job at `index`. A RESET drops it.
    pub fn run_one(&mut self, ring: Ring, index: u32, fail: bool) -> Result<(), BusError> {
        let shared = self.shared;
        let request = {
            let guest = shared.dma.access();
            ring.fence_block(&guest)?;
            let first = ring.slot(&guest, index)?;
            Request::parse(&first.load(), &ring.second_block(&guest, index)?.load())
        };
        // Neither guest memory nor anything else is held while a job runs: it may
        // stall for as long as the driver likes.
        let (ending, done, result) = match request.job {
            _ if fail => (Err(Failure::new(Status::Injected)), 0, 0),
            Err((status, address)) => {
                let failure = Failure {
                    status,
                    address,
                    intent: Intent::Read,
                };
                (Err(failure), 0, 0)
            }
            Ok(job) => {
                let mut progress = Progress::new(job);
                let Some(ending) = self.work(&mut progress) else {
                    return Ok(());
                };
                (ending, progress.done(), progress.result())
            }
        };

        let guest = shared.dma.access();
        let block = ring.second_block(&guest, index)?;
        let fence_block = ring.fence_block(&guest)?;
        let failure = ending.err().unwrap_or(Failure::new(Status::Ok));
        block.store_u32(FAULT_ACCESS_WORD, failure.intent as u32);
        block.store_u64(FAULT_ADDRESS_WORD, failure.address);
        block.store_u64(DONE_WORD, done);
        block.store_u64(RESULT_WORD, result);
        let counter = match ending {
            Ok(()) => Counter::JobsOk,
            Err(_) => Counter::JobsFailed,
        };
        shared.units.counters.add(counter, 1);
        let outcome = Outcome {
            ring: QUEUE0 + self.queue,
            index,
            status: failure.status,
            fence: request.fence,
            irq: request.irq,
        };
        outcome.tell(shared, &block, STATUS_WORD, &fence_block);
        Ok(())
    }

    /// Works on a job until its end; `None` if a RESET came.
    fn work(&mut self, progress: &mut Progress) -> Option<Ending> {
        let shared = self.shared;
        let counters = &shared.units.counters;
        let parts = Parts {
            mmu: &shared.units.mmu,
            dma: &shared.dma,
            vram: &shared.vram,
            peers: &shared.units.peers,
            counters,
        };
        while !progress.is_finished() {
            if shared.is_abandoned(QUEUE0 + self.queue) {
                return None;
            }
            let stop = match VirtualMemory::enter(&parts, progress.asid()) {
                Ok(memory) => progress.step(&memory, &mut self.scratch),
                Err(status) => Err(Stop::Error(Failure::new(status))),
            };
            let traffic = progress.take_traffic();
            counters.add_queue_bytes(self.queue, traffic.bytes);
            counters.add(Counter::PeerBytes, traffic.remote);
            let fault = match stop {
                Ok(()) => continue,
                Err(Stop::Error(failure)) => return Some(Err(failure)),
                Err(Stop::Fault(fault)) => fault,
            };
            match shared.stall(self.queue, fault)? {
                Verdict::Replay => {}
                Verdict::Cancel => {
                    return Some(Err(Failure {
                        status: Status::FaultCancelled,
                        address: fault.address,
                        intent: fault.intent,
                    }));
                }
            }
        }
        Some(Ok(()))
    }
}
