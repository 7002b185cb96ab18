// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The work that descriptors of the copy ring ask for.
//!
//! Each operation checks everything before it changes anything: one that fails
//! leaves VRAM and guest memory as they were.

use crate::counters::{Counter, Counters};
use crate::descriptor::{Op, Status};
use crate::dma::{Access, BusError};
use crate::peer::Peers;
use crate::span::Span;
use crate::vram::{OutOfVram, Vram};

/// Bytes that are worked on at a time.
const CHUNK: usize = 32 << 10;

impl From<OutOfVram> for Status {
    fn from(_: OutOfVram) -> Self {
        Status::BadVram
    }
}

impl From<BusError> for Status {
    fn from(_: BusError) -> Self {
        Status::BadBus
    }
}

/// What the copy engine works on.
#[derive(Debug)]
pub struct Parts<'a> {
    pub vram: &'a Vram,
    pub peers: &'a Peers,
    pub counters: &'a Counters,
}

/// Carries out `op`. Faults are looked for in the order length, peer, VRAM, bus.
pub fn execute(op: Op, parts: &Parts<'_>, guest: &Access<'_>) -> Result<(), Status> {
    let Parts {
        vram,
        peers,
        counters,
    } = *parts;
    let bytes = match op {
        Op::Nop => 0,
        Op::CopyToVram { src, dst, len } => {
            check_len(len, vram)?;
            guest.read_span(src, vram.span(dst, len)?)?;
            len
        }
        Op::CopyFromVram { src, dst, len } => {
            check_len(len, vram)?;
            guest.write_span(dst, vram.span(src, len)?)?;
            len
        }
        Op::CopyVram { src, dst, len } => {
            check_len(len, vram)?;
            vram.span(dst, len)?.copy_from(&vram.span(src, len)?);
            len
        }
        Op::Fill { dst, len, pattern } => {
            check_words(dst, len, vram)?;
            change_words(vram.span(dst, len)?, |_| pattern);
            len
        }
        Op::Xor { dst, len, pattern } => {
            check_words(dst, len, vram)?;
            change_words(vram.span(dst, len)?, |old| old ^ pattern);
            len
        }
        Op::Checksum { src, dst, len } => {
            check_words(src, len, vram)?;
            let mut sum = 0u64;
            each_word(vram.span(src, len)?, |word| sum = sum.wrapping_add(word));
            guest.write(dst, &sum.to_le_bytes())?;
            len
        }
        Op::CopyFromPeer {
            src,
            dst,
            len,
            peer,
        } => {
            check_len(len, vram)?;
            let peers = peers.lock();
            let from = peers.span(peer, src, len)?;
            vram.span(dst, len)?.copy_from(&from);
            counters.add(Counter::PeerBytes, len);
            len
        }
        Op::CopyToPeer {
            src,
            dst,
            len,
            peer,
        } => {
            check_len(len, vram)?;
            let peers = peers.lock();
            let to = peers.span(peer, dst, len)?;
            to.copy_from(&vram.span(src, len)?);
            counters.add(Counter::PeerBytes, len);
            len
        }
    };
    counters.add(Counter::CopyBytes, bytes);
    Ok(())
}

/// Replaces every 8-byte word by what `f` makes of it.
fn change_words(span: Span<'_>, f: impl Fn(u64) -> u64) {
    let mut buffer = [0; CHUNK];
    let mut at = 0;
    while at < span.len() {
        let now = span.from(at).first(CHUNK);
        let bytes = &mut buffer[..now.len()];
        now.read(bytes);
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&f(load(word)).to_le_bytes());
        }
        now.write(bytes);
        at += now.len();
    }
}

/// Calls `f` with every 8-byte word.
fn each_word(span: Span<'_>, mut f: impl FnMut(u64)) {
    let mut buffer = [0; CHUNK];
    let mut at = 0;
    while at < span.len() {
        let now = span.from(at).first(CHUNK);
        let bytes = &mut buffer[..now.len()];
        now.read(bytes);
        bytes.chunks_exact(8).for_each(|word| f(load(word)));
        at += now.len();
    }
}

/// The little-endian word in 8 bytes.
fn load(word: &[u8]) -> u64 {
    word.iter()
        .rev()
        .fold(0, |value, &byte| (value << 8) | u64::from(byte))
}

fn check_len(len: u64, vram: &Vram) -> Result<(), Status> {
    if len == 0 || len > vram.size() {
        return Err(Status::BadLen);
    }
    Ok(())
}

fn check_words(offset: u64, len: u64, vram: &Vram) -> Result<(), Status> {
    check_len(len, vram)?;
    if len % 8 != 0 {
        return Err(Status::BadLen);
    }
    if offset % 8 != 0 {
        return Err(Status::BadVram);
    }
    Ok(())
}
