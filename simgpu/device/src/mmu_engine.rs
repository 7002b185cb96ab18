// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The engine that carries out the commands of the MMU ring.

use crate::counters::Counter;
use crate::descriptor::{Status, STATUS_WORD};
use crate::device::Shared;
use crate::dma::BusError;
use crate::engine::Outcome;
use crate::fault_buffer::Verdict;
use crate::mmu_command::{Command, Request};
use crate::registers::{Wake, MMU};
use crate::ring::Ring;

/// Carries out the command at `index` of the MMU ring.
pub(crate) fn run_one(shared: &Shared, ring: Ring, index: u32, fail: bool) -> Result<(), BusError> {
    let request = {
        let guest = shared.dma.access();
        ring.fence_block(&guest)?;
        Request::parse(&ring.slot(&guest, index)?.load())
    };
    // Guest memory is not held meanwhile: jobs that an invalidation waits for need it.
    let result = if fail {
        Err(Status::Injected)
    } else {
        request.command.and_then(|command| execute(shared, command))
    };
    let guest = shared.dma.access();
    let slot = ring.slot(&guest, index)?;
    let fence_block = ring.fence_block(&guest)?;
    let outcome = Outcome {
        ring: MMU,
        index,
        status: result.err().unwrap_or(Status::Ok),
        fence: request.fence,
        irq: request.irq,
    };
    outcome.tell(shared, &slot, STATUS_WORD, &fence_block);
    Ok(())
}

fn execute(shared: &Shared, command: Command) -> Result<(), Status> {
    let chosen = |wanted: Option<u32>, asid| wanted.is_none_or(|wanted| wanted == asid);
    match command {
        Command::Nop => {}
        Command::Invalidate { asid, first, last } => {
            let counters = &shared.units.counters;
            shared.units.mmu.invalidate(asid, first, last, counters);
            counters.add(Counter::Invalidations, 1);
        }
        Command::Replay { asid } => {
            end_stalls(shared, Verdict::Replay, |_, of, _| chosen(asid, of));
        }
        Command::CancelAsid { asid } => {
            end_stalls(shared, Verdict::Cancel, |_, of, _| chosen(asid, of));
        }
        Command::Cancel { queue, token } => {
            let count = end_stalls(shared, Verdict::Cancel, |of, _, its| {
                of == queue && (token == 0 || token == u64::from(its))
            });
            if count == 0 {
                return Err(Status::NotStalled);
            }
        }
    }
    Ok(())
}

/// Ends the stalls that `which` chooses by queue, address space and token.
fn end_stalls(shared: &Shared, verdict: Verdict, which: impl Fn(usize, u32, u32) -> bool) -> u64 {
    let mut count = 0;
    shared.update(Wake::All, |registers| {
        count = registers.faults.end_stalls(verdict, which);
        let counter = match verdict {
            Verdict::Replay => Counter::Replays,
            Verdict::Cancel => Counter::Cancels,
        };
        shared.units.counters.add(counter, count);
        0
    });
    count
}
