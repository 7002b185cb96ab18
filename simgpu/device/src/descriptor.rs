// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Descriptors of the copy ring: what they look like in memory, and what they ask for.

/// Bytes in a descriptor.
pub const SIZE: u64 = 64;

/// Index of the 32-bit word that takes the status.
pub const STATUS_WORD: usize = 14;

/// Flag: write the sequence number to the fence block when done.
pub const FLAG_FENCE: u32 = 1 << 0;
/// Flag: set IRQ_STATUS.FENCE when done.
pub const FLAG_IRQ: u32 = 1 << 1;

/// How a descriptor ended; the discriminant is what the guest reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    Ok = 1,
    /// Unknown op or flag, or a reserved field that is not 0.
    BadOp = 2,
    /// A range outside VRAM, or misaligned.
    BadVram = 3,
    /// A bus range that is not guest memory the device may use.
    BadBus = 4,
    /// Length 0, too long, or not a multiple of 8 where it must be.
    BadLen = 5,
    /// A test asked for it.
    Injected = 6,
    /// A peer that is not connected, or has died.
    PeerGone = 7,
    /// A virtual address that is misaligned or does not exist.
    BadAddr = 8,
    /// No such address space, or one without page tables.
    BadAsid = 9,
    /// Page tables that make no sense.
    BadTable = 10,
    /// The driver gave up on a fault.
    FaultCancelled = 11,
    /// Nothing to cancel.
    NotStalled = 12,
}

/// What to do. Addresses are VRAM offsets or bus addresses in bytes, `len` is
/// in bytes; all are as the guest wrote them, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Nop,
    CopyToVram {
        src: u64,
        dst: u64,
        len: u64,
    },
    CopyFromVram {
        src: u64,
        dst: u64,
        len: u64,
    },
    CopyVram {
        src: u64,
        dst: u64,
        len: u64,
    },
    Fill {
        dst: u64,
        len: u64,
        pattern: u64,
    },
    Xor {
        dst: u64,
        len: u64,
        pattern: u64,
    },
    Checksum {
        src: u64,
        dst: u64,
        len: u64,
    },
    CopyFromPeer {
        src: u64,
        dst: u64,
        len: u64,
        peer: u64,
    },
    CopyToPeer {
        src: u64,
        dst: u64,
        len: u64,
        peer: u64,
    },
}

/// One descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// What to do, or why not.
    pub op: Result<Op, Status>,
    /// Sequence number to write to the fence block when done.
    pub fence: Option<u64>,
    /// Whether to set IRQ_STATUS.FENCE when done.
    pub irq: bool,
}

impl Descriptor {
    /// Reads the eight words of a descriptor. The fence and irq flags count
    /// even if the rest is nonsense, so that nobody waits in vain.
    pub fn parse(words: &[u64; 8]) -> Self {
        let [head, seq, src, dst, len, arg, reserved, tail] = *words;
        let (code, flags) = (head as u32, (head >> 32) as u32);
        let clean = flags & !(FLAG_FENCE | FLAG_IRQ) == 0 && reserved == 0 && tail >> 32 == 0;
        let op = match code {
            _ if !clean => Err(Status::BadOp),
            0 => Ok(Op::Nop),
            1 => Ok(Op::CopyToVram { src, dst, len }),
            2 => Ok(Op::CopyFromVram { src, dst, len }),
            3 => Ok(Op::CopyVram { src, dst, len }),
            4 => Ok(Op::Fill {
                dst,
                len,
                pattern: arg,
            }),
            5 => Ok(Op::Xor {
                dst,
                len,
                pattern: arg,
            }),
            6 => Ok(Op::Checksum { src, dst, len }),
            7 => Ok(Op::CopyFromPeer {
                src,
                dst,
                len,
                peer: arg,
            }),
            8 => Ok(Op::CopyToPeer {
                src,
                dst,
                len,
                peer: arg,
            }),
            _ => Err(Status::BadOp),
        };
        Self {
            op,
            fence: (flags & FLAG_FENCE != 0).then_some(seq),
            irq: flags & FLAG_IRQ != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(code: u32, flags: u32) -> [u64; 8] {
        let head = u64::from(code) | (u64::from(flags) << 32);
        [head, 77, 10, 20, 30, 40, 0, 0]
    }

    #[test]
    fn every_op_takes_its_own_fields() {
        let (src, dst, len, pattern) = (10, 20, 30, 40);
        let ops = [
            Op::Nop,
            Op::CopyToVram { src, dst, len },
            Op::CopyFromVram { src, dst, len },
            Op::CopyVram { src, dst, len },
            Op::Fill { dst, len, pattern },
            Op::Xor { dst, len, pattern },
            Op::Checksum { src, dst, len },
            Op::CopyFromPeer {
                src,
                dst,
                len,
                peer: pattern,
            },
            Op::CopyToPeer {
                src,
                dst,
                len,
                peer: pattern,
            },
        ];
        for (code, op) in ops.into_iter().enumerate() {
            assert_eq!(Descriptor::parse(&words(code as u32, 0)).op, Ok(op));
        }
        for code in [9, 10, 256, u32::MAX] {
            assert_eq!(
                Descriptor::parse(&words(code, 0)).op,
                Err(Status::BadOp),
                "{code}"
            );
        }
    }

    #[test]
    fn flags_count_even_in_a_bad_descriptor() {
        for code in [0, 99] {
            let d = Descriptor::parse(&words(code, 0));
            assert_eq!((d.fence, d.irq), (None, false));
            let d = Descriptor::parse(&words(code, FLAG_FENCE));
            assert_eq!((d.fence, d.irq), (Some(77), false));
            let d = Descriptor::parse(&words(code, FLAG_IRQ));
            assert_eq!((d.fence, d.irq), (None, true));
        }
        let d = Descriptor::parse(&words(0, 4 | FLAG_FENCE | FLAG_IRQ));
        assert_eq!((d.op, d.fence, d.irq), (Err(Status::BadOp), Some(77), true));
        assert_eq!(Descriptor::parse(&words(0, 1 << 31)).op, Err(Status::BadOp));
    }

    #[test]
    fn reserved_fields_must_be_zero_but_not_the_status() {
        let mut w = words(0, 0);
        w[7] = 0xffff_ffff; // an old status
        assert_eq!(Descriptor::parse(&w).op, Ok(Op::Nop));
        w[7] = 1 << 32;
        assert_eq!(Descriptor::parse(&w).op, Err(Status::BadOp));
        w[7] = 0;
        w[6] = 1;
        assert_eq!(Descriptor::parse(&w).op, Err(Status::BadOp));
    }
}
