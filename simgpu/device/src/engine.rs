// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What all engines have in common, and the copy engine. Each engine is a thread
//! that takes descriptors off its ring.

use crate::descriptor::{Descriptor, Status, STATUS_WORD};
use crate::device::Shared;
use crate::dma::{Block, BusError};
use crate::inject::Inject;
use crate::ops;
use crate::registers::{Wake, COPY};
use crate::ring::{FenceBlock, Ring};
use crate::ring_state::Work;

/// Works on ring `id` until shutdown. `run_one` carries out the descriptor at an
/// index, or lets it fail; its error means that the ring or the fence block cannot
/// be reached.
pub(crate) fn run(
    shared: &Shared,
    id: usize,
    mut run_one: impl FnMut(Ring, u32, bool) -> Result<(), BusError>,
) {
    while let Some(work) = shared.wait_for_work(id) {
        let result = match work {
            Work::Check(ring) => ring.check(&shared.dma.access()),
            Work::Run {
                inject: Inject::Delay(delay),
                ..
            } if !shared.delay(id, delay) => Ok(()), // dropped by a RESET
            Work::Run {
                ring,
                index,
                inject,
            } => run_one(ring, index, inject == Inject::Fail),
        };
        shared.update(Wake::Nobody, |registers| {
            let vectors = match result {
                Ok(()) => 0,
                Err(BusError) => registers.halt(id),
            };
            registers.work_done(id);
            vectors
        });
    }
}

/// A descriptor that was carried out, or failed.
pub(crate) struct Outcome {
    pub ring: usize,
    pub index: u32,
    pub status: Status,
    pub fence: Option<u64>,
    pub irq: bool,
}

impl Outcome {
    /// Tells of it, in the steps that REGISTERS.md lists under "Order of
    /// things". The status goes to word `word` of `block`.
    pub fn tell(&self, shared: &Shared, block: &Block<'_>, word: usize, fence: &FenceBlock<'_>) {
        let ring = self.ring;
        block.store_u32(word, self.status as u32);
        if self.status != Status::Ok {
            let mut count = 0;
            shared.update(Wake::Nobody, |registers| {
                count = registers.count_error(ring, self.index, self.status);
                0
            });
            fence.set_errors(count);
            shared.update(Wake::Nobody, |registers| registers.raise_error(ring));
        }
        shared.update(Wake::Nobody, |registers| {
            registers.advance(ring);
            0
        });
        if let Some(seq) = self.fence {
            fence.signal(seq);
        }
        shared.update(Wake::Nobody, |registers| {
            registers.finished(ring, self.fence, self.irq)
        });
    }
}

/// The copy engine: carries out the descriptor at `index` of its ring.
pub(crate) fn copy(shared: &Shared, ring: Ring, index: u32, fail: bool) -> Result<(), BusError> {
    // Held to the end: memory that is there now stays until all is written.
    let guest = shared.dma.access();
    let slot = ring.slot(&guest, index)?;
    let fence_block = ring.fence_block(&guest)?;

    let descriptor = Descriptor::parse(&slot.load());
    let parts = ops::Parts {
        vram: &shared.vram,
        peers: &shared.units.peers,
        counters: &shared.units.counters,
    };
    let result = if fail {
        Err(Status::Injected)
    } else {
        descriptor
            .op
            .and_then(|op| ops::execute(op, &parts, &guest))
    };
    let outcome = Outcome {
        ring: COPY,
        index,
        status: result.err().unwrap_or(Status::Ok),
        fence: descriptor.fence,
        irq: descriptor.irq,
    };
    outcome.tell(shared, &slot, STATUS_WORD, &fence_block);
    Ok(())
}
