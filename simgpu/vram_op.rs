// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What the GPU can do with pages that are in VRAM.

use crate::{
    descriptor::Command,
    pagemap::SimgpuPagemap, //
};
use core::ops::Range;
use drm_pagemap::{
    mm::LockedMm,
    Pagemap, //
};
use kernel::{
    mm::{
        virt::{
            flags,
            vm_flags_t, //
        },
        MmWithUser, //
    },
    prelude::*, //
};

/// An operation on 64-bit words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum VramOp {
    Fill(u64),
    Xor(u64),
    Checksum,
}

impl VramOp {
    /// The command for a run of bytes.
    fn command(self, run: Range<u64>) -> Command {
        let len = run.end - run.start;

        match self {
            Self::Fill(value) => Command::Fill {
                dst: run.start,
                len,
                value,
            },
            Self::Xor(value) => Command::Xor {
                dst: run.start,
                len,
                value,
            },
            Self::Checksum => Command::Checksum {
                src: run.start,
                len,
            },
        }
    }
}

/// Carries out `op` on the pages of `range`, and returns the sum, if it is that.
///
/// [`EFAULT`]: some of them are not in VRAM, or the process may not write to them, or not without
/// having a copy made first, and the GPU would.
pub(crate) fn run(
    pagemap: &Pagemap<SimgpuPagemap>,
    mm: &MmWithUser,
    range: Range<usize>,
    op: VramOp,
) -> Result<u64> {
    if range.len() as u64 > pagemap.vram.size() {
        return Err(EFAULT);
    }

    let mm = LockedMm::read(mm);
    let writes = op != VramOp::Checksum;

    check_access(&mm, &range, if writes { flags::WRITE } else { flags::READ })?;
    let pages = pagemap.hold_pages(&mm, range)?;
    if writes && !pages.are_writable() {
        return Err(EFAULT);
    }

    let result = pagemap.engine.run(pages.runs().map(|run| op.command(run)));
    // Some of it may be done, and not everything can be done twice.
    result.map_err(|err| if err == EAGAIN { EIO } else { err })
}

/// [`EFAULT`] unless all of `range` is mapped with access of the kind `wanted`.
fn check_access(mm: &LockedMm<'_>, range: &Range<usize>, wanted: vm_flags_t) -> Result {
    let mut start = range.start;

    while start < range.end {
        let area = mm.vma_lookup(start).ok_or(EFAULT)?;

        if area.flags() & wanted == 0 {
            return Err(EFAULT);
        }
        start = area.end();
    }
    Ok(())
}
