// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Commands of the MMU ring.

use crate::descriptor::{Status, FLAG_FENCE, FLAG_IRQ};
use crate::mmu::ASIDS;
use crate::page_table::VA_END;
use crate::registers::QUEUES;

/// A target that stands for all.
const ALL: u64 = u64::MAX;

/// What to do. An address space that is `None` is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Nop,
    /// Forget what touches `first ..= last`.
    Invalidate {
        asid: Option<u32>,
        first: u64,
        last: u64,
    },
    Replay {
        asid: Option<u32>,
    },
    /// A token of 0 is any.
    Cancel {
        queue: usize,
        token: u64,
    },
    CancelAsid {
        asid: Option<u32>,
    },
}

/// A command as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to do, or why not.
    pub command: Result<Command, Status>,
    /// Sequence number to write to the fence block when done.
    pub fence: Option<u64>,
    /// Whether to set IRQ_STATUS.MMU_FENCE when done.
    pub irq: bool,
}

impl Request {
    /// Reads the eight words of a descriptor.
    pub fn parse(words: &[u64; 8]) -> Self {
        let [head, seq, address, token, len, target, reserved, tail] = *words;
        let (code, flags) = (head as u32, (head >> 32) as u32);
        let clean = flags & !(FLAG_FENCE | FLAG_IRQ) == 0 && reserved == 0 && tail >> 32 == 0;
        let command = match code {
            _ if !clean => Err(Status::BadOp),
            0 => Ok(Command::Nop),
            1 => invalidate(target, address, len),
            2 => asid(target).map(|asid| Command::Replay { asid }),
            3 if (1..=QUEUES as u64).contains(&target) => Ok(Command::Cancel {
                queue: target as usize,
                token,
            }),
            3 => Err(Status::BadAsid),
            4 => asid(target).map(|asid| Command::CancelAsid { asid }),
            _ => Err(Status::BadOp),
        };
        Self {
            command,
            fence: (flags & FLAG_FENCE != 0).then_some(seq),
            irq: flags & FLAG_IRQ != 0,
        }
    }
}

fn invalidate(target: u64, address: u64, len: u64) -> Result<Command, Status> {
    let asid = asid(target)?;
    let (first, end) = match len {
        0 => (0, VA_END),
        _ => (address, address.checked_add(len).ok_or(Status::BadAddr)?),
    };
    if end > VA_END {
        return Err(Status::BadAddr);
    }
    Ok(Command::Invalidate {
        asid,
        first,
        last: end - 1,
    })
}

fn asid(target: u64) -> Result<Option<u32>, Status> {
    match target {
        ALL => Ok(None),
        _ if target < ASIDS as u64 => Ok(Some(target as u32)),
        _ => Err(Status::BadAsid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(code: u64, target: u64, len: u64) -> Result<Command, Status> {
        Request::parse(&[code, 9, 0x1000, 6, len, target, 0, 0]).command
    }

    #[test]
    fn commands() {
        assert_eq!(parse(0, 99, 0), Ok(Command::Nop));
        let range = |asid, first, last| Ok(Command::Invalidate { asid, first, last });
        assert_eq!(parse(1, 5, 1), range(Some(5), 0x1000, 0x1000));
        assert_eq!(parse(1, ALL, 0), range(None, 0, VA_END - 1));
        assert_eq!(
            parse(1, 5, VA_END - 0x1000),
            range(Some(5), 0x1000, VA_END - 1)
        );
        assert_eq!(parse(1, 5, VA_END - 0xfff), Err(Status::BadAddr));
        assert_eq!(parse(1, 5, u64::MAX), Err(Status::BadAddr));
        assert_eq!(parse(1, 64, 1), Err(Status::BadAsid));
        assert_eq!(parse(2, 63, 0), Ok(Command::Replay { asid: Some(63) }));
        assert_eq!(parse(2, 1 << 32, 0), Err(Status::BadAsid));
        assert_eq!(parse(3, 4, 0), Ok(Command::Cancel { queue: 4, token: 6 }));
        for queue in [0, 5, ALL] {
            assert_eq!(parse(3, queue, 0), Err(Status::BadAsid));
        }
        assert_eq!(parse(4, ALL, 0), Ok(Command::CancelAsid { asid: None }));
        assert_eq!(parse(5, 0, 0), Err(Status::BadOp));
    }

    #[test]
    fn flags_count_even_in_a_bad_one() {
        let request = Request::parse(&[99 | (3 << 32), 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!((request.fence, request.irq), (Some(9), true));
        let bad: [[u64; 8]; 3] = [
            [4 << 32, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 0, 0, 1 << 32],
        ];
        for words in bad {
            assert_eq!(Request::parse(&words).command, Err(Status::BadOp));
        }
    }
}
