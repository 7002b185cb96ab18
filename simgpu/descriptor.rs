// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What the engine can be told to do, and how that looks in memory; see `device/REGISTERS.md`.

use kernel::dma::DmaAddress;

/// 64-bit words a descriptor. As the ring is an array of words, no layout has to be trusted.
pub(crate) const WORDS: usize = 8;

/// The word that the device writes its verdict to.
pub(crate) const STATUS_WORD: usize = 7;

/// The verdict: done.
pub(crate) const STATUS_OK: u32 = 1;

/// The descriptor is a batch's last: signal its fence, with an interrupt.
const FLAGS_FENCE_IRQ: u64 = 0b11;

/// One piece of work. VRAM is addressed by byte offsets, RAM by DMA addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    CopyToVram {
        src: DmaAddress,
        dst: u64,
        len: u64,
    },
    CopyFromVram {
        src: u64,
        dst: DmaAddress,
        len: u64,
    },
    Fill {
        dst: u64,
        len: u64,
        value: u64,
    },
    Xor {
        dst: u64,
        len: u64,
        value: u64,
    },
    /// To the VRAM of another GPU on the link, by that one's number.
    CopyToPeer {
        src: u64,
        dst: u64,
        len: u64,
        peer: u64,
    },
    /// The sum is what running it returns.
    Checksum {
        src: u64,
        len: u64,
    },
}

impl Command {
    /// The descriptor. `fence` is the sequence number if it is a batch's last; `result` is where a
    /// sum goes.
    pub(crate) fn encode(self, fence: Option<u64>, result: DmaAddress) -> [u64; WORDS] {
        let (op, src, dst, len, arg) = match self {
            Self::CopyToVram { src, dst, len } => (1, src, dst, len, 0),
            Self::CopyFromVram { src, dst, len } => (2, src, dst, len, 0),
            Self::Fill { dst, len, value } => (4, 0, dst, len, value),
            Self::Xor { dst, len, value } => (5, 0, dst, len, value),
            Self::Checksum { src, len } => (6, src, result, len, 0),
            Self::CopyToPeer {
                src,
                dst,
                len,
                peer,
            } => (8, src, dst, len, peer),
        };
        let flags = fence.map_or(0, |_| FLAGS_FENCE_IRQ);

        [
            op | flags << 32,
            fence.unwrap_or(0),
            src,
            dst,
            len,
            arg,
            0,
            0,
        ]
    }
}

/// The verdict in the last word of a descriptor, in plain words.
pub(crate) fn status_name(status: u32) -> &'static str {
    match status {
        0 => "not done",
        STATUS_OK => "ok",
        2 => "bad operation",
        3 => "bad VRAM range",
        4 => "bad bus address",
        5 => "bad length",
        6 => "injected",
        7 => "peer gone",
        _ => "unknown error",
    }
}
