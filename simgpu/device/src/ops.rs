// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The work that descriptors ask for.
//!
//! Each operation checks everything before it changes anything: one that fails
//! leaves VRAM and guest memory as they were.

use crate::descriptor::{Op, Status};
use crate::dma::{Access, BusError};
use crate::vram::{OutOfVram, Vram};

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

/// Carries out `op`. Faults are looked for in the order length, VRAM, bus.
pub fn execute(op: Op, vram: &mut Vram, guest: &Access<'_>) -> Result<(), Status> {
    match op {
        Op::Nop => Ok(()),
        Op::CopyToVram { src, dst, len } => {
            check_len(len, vram)?;
            Ok(guest.read(src, vram.slice_mut(dst, len)?)?)
        }
        Op::CopyFromVram { src, dst, len } => {
            check_len(len, vram)?;
            Ok(guest.write(dst, vram.slice(src, len)?)?)
        }
        Op::CopyVram { src, dst, len } => {
            check_len(len, vram)?;
            Ok(vram.copy(src, dst, len)?)
        }
        Op::Fill { dst, len, pattern } => {
            check_words(dst, len, vram)?;
            for word in vram.slice_mut(dst, len)?.chunks_exact_mut(8) {
                word.copy_from_slice(&pattern.to_le_bytes());
            }
            Ok(())
        }
        Op::Xor { dst, len, pattern } => {
            check_words(dst, len, vram)?;
            for word in vram.slice_mut(dst, len)?.chunks_exact_mut(8) {
                let new = load(word) ^ pattern;
                word.copy_from_slice(&new.to_le_bytes());
            }
            Ok(())
        }
        Op::Checksum { src, dst, len } => {
            check_words(src, len, vram)?;
            let words = vram.slice(src, len)?.chunks_exact(8);
            let sum = words.fold(0, |sum: u64, word| sum.wrapping_add(load(word)));
            Ok(guest.write(dst, &sum.to_le_bytes())?)
        }
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
