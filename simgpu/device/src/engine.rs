// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The copy engine: a thread that takes descriptors off the ring.

use crate::descriptor::{Descriptor, Status, STATUS_WORD};
use crate::device::Shared;
use crate::dma::BusError;
use crate::ops;
use crate::registers::{Inject, Registers, Work};
use crate::ring::Ring;
use crate::vram::Vram;

/// Works until shutdown; gives the VRAM back.
pub(crate) fn run(shared: &Shared, mut vram: Vram) -> Vram {
    while let Some(work) = shared.wait_for_work() {
        let result = match work {
            Work::Check(ring) => ring.check(&shared.dma.access()),
            Work::Run {
                inject: Inject::Delay(delay),
                ..
            } if !shared.delay(delay) => Ok(()), // dropped by a RESET
            Work::Run {
                ring,
                index,
                inject,
            } => run_one(shared, &mut vram, ring, index, inject == Inject::Fail),
        };
        shared.update(|registers| {
            let vectors = match result {
                Ok(()) => 0,
                Err(BusError) => registers.halt(),
            };
            registers.work_done();
            vectors
        });
    }
    vram
}

/// Carries out the descriptor at `index`, in the steps that REGISTERS.md lists
/// under "Order of things". An error means that the ring or the fence block
/// cannot be reached; then nothing has changed.
fn run_one(
    shared: &Shared,
    vram: &mut Vram,
    ring: Ring,
    index: u32,
    fail: bool,
) -> Result<(), BusError> {
    // Held to the end: memory that is there now stays until all is written.
    let guest = shared.dma.access();
    let slot = ring.slot(&guest, index)?;
    let fence_block = ring.fence_block(&guest)?;

    let descriptor = Descriptor::parse(&slot.load());
    let result = if fail {
        Err(Status::Injected)
    } else {
        descriptor.op.and_then(|op| ops::execute(op, vram, &guest))
    };
    let status = result.err().unwrap_or(Status::Ok);
    slot.store_u32(STATUS_WORD, status as u32);

    if status != Status::Ok {
        let mut count = 0;
        shared.update(|registers| {
            count = registers.count_error(index, status);
            0
        });
        fence_block.set_errors(count);
        shared.update(Registers::raise_error);
    }
    shared.update(|registers| {
        registers.advance();
        0
    });
    if let Some(seq) = descriptor.fence {
        fence_block.signal(seq);
    }
    shared.update(|registers| registers.finished(descriptor.fence, descriptor.irq));
    Ok(())
}
