// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Memory as a job sees it: virtual addresses, behind which lie guest memory,
//! VRAM, and that of peers.

use crate::counters::Counters;
use crate::descriptor::Status;
use crate::dma::{Access, Dma, READ, READ_WRITE, WRITE};
use crate::mmu::{Inside, Mmu, Trouble};
use crate::page_table::{Intent, Place};
use crate::peer::{self, Peers};
use crate::span::Span;
use crate::vram::Vram;

/// The memory that the device has at hand.
#[derive(Debug)]
pub struct Parts<'a> {
    pub mmu: &'a Mmu,
    pub dma: &'a Dma,
    pub vram: &'a Vram,
    pub peers: &'a Peers,
    pub counters: &'a Counters,
}

/// An address space in use, with all memory behind it held still: to be
/// dropped soon, as invalidations wait for it.
pub struct VirtualMemory<'a> {
    inside: Inside<'a>,
    guest: Access<'a>,
    peers: peer::Locked<'a>,
    vram: &'a Vram,
    counters: &'a Counters,
}

/// What lies behind an address.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    pub span: Span<'a>,
    /// It is VRAM of a peer.
    pub remote: bool,
}

impl<'a> VirtualMemory<'a> {
    /// Gets hold of address space `asid`.
    pub fn enter(parts: &Parts<'a>, asid: u32) -> Result<Self, Status> {
        Ok(Self {
            inside: parts.mmu.enter(asid)?,
            guest: parts.dma.access(),
            peers: parts.peers.lock(),
            vram: parts.vram,
            counters: parts.counters,
        })
    }

    /// The memory at `va`: the first of `len` bytes (not 0), as many as are in one
    /// piece.
    pub fn resolve(&self, va: u64, len: u64, intent: Intent) -> Result<Operand<'_>, Trouble> {
        let leaf = self
            .inside
            .translate(&self.guest, va, intent, self.counters)?;
        let skip = va % leaf.size;
        let len = len.min(leaf.size - skip);
        let span = match leaf.place {
            Place::Ram(bus) => {
                let need = match intent {
                    Intent::Read => READ,
                    Intent::Write => WRITE,
                    Intent::Atomic => READ_WRITE,
                };
                self.guest.span(bus + skip, len, need).map_err(Status::from)
            }
            Place::Vram(offset) => self.vram.span(offset + skip, len).map_err(Status::from),
            Place::Peer(number, offset) => self.peers.span(number.into(), offset + skip, len),
        };
        Ok(Operand {
            span: span?,
            remote: matches!(leaf.place, Place::Peer(..)),
        })
    }
}
