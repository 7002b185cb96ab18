// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Page tables: what the entries mean, and how they are walked.

use crate::descriptor::Status;
use crate::dma;

/// Virtual addresses end here.
pub const VA_END: u64 = 1 << 48;
/// Bytes in a page, and in one that a level 1 entry maps.
pub const SMALL: u64 = 1 << 12;
pub const LARGE: u64 = 1 << 21;

const VALID: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const ATOMIC: u64 = 1 << 2;
const LEAF: u64 = 1 << 3;
const APERTURE_SHIFT: u32 = 4;
const APERTURE: u64 = 3 << APERTURE_SHIFT;
const PEER_SHIFT: u32 = 8;
const PEER: u64 = 0xf << PEER_SHIFT;
const ADDRESS: u64 = (VA_END * 16 - 1) & !(SMALL - 1); // bits 51:12

/// What is done to a byte; the discriminant is what the guest reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Intent {
    Read = 0,
    Write = 1,
    Atomic = 2,
}

/// Why an access cannot be done now; the discriminant is what the guest reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FaultKind {
    NotPresent = 0,
    NoWrite = 1,
    NoAtomic = 2,
}

/// Where a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Bus address.
    Ram(u64),
    /// Offset in VRAM.
    Vram(u64),
    /// Number of a peer, and offset in its VRAM.
    Peer(u32, u64),
}

/// A page, as an entry describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    pub place: Place,
    pub write: bool,
    pub atomic: bool,
    /// Bytes: SMALL or LARGE.
    pub size: u64,
}

impl Leaf {
    /// Whether the page may be accessed like that.
    pub fn allows(&self, intent: Intent) -> Result<(), FaultKind> {
        match intent {
            Intent::Write if !self.write => Err(FaultKind::NoWrite),
            Intent::Atomic if !self.write => Err(FaultKind::NoWrite),
            Intent::Atomic if !self.atomic => Err(FaultKind::NoAtomic),
            _ => Ok(()),
        }
    }
}

/// Looks the page of `va` up in the tables below `root`, a value of the ASID_ROOT
/// registers. `None`: there is none.
pub fn walk(guest: &dma::Access<'_>, root: u64, va: u64) -> Result<Option<Leaf>, Status> {
    if root & !(VALID | ADDRESS) != 0 || va >= VA_END {
        return Err(Status::BadTable);
    }
    let mut table = root & ADDRESS;
    for level in (0..4).rev() {
        let index = (va >> (12 + 9 * level)) & 511;
        let place = table + index * 8;
        let entry = guest.load_u64(place).map_err(|_| Status::BadTable)?;
        if entry & VALID == 0 {
            return Ok(None);
        }
        match (level, entry & LEAF != 0) {
            (0, true) => return leaf(entry, SMALL).map(Some),
            (1, true) => return leaf(entry, LARGE).map(Some),
            (0, false) | (_, true) => return Err(Status::BadTable),
            (_, false) if entry & !(VALID | ADDRESS) != 0 => return Err(Status::BadTable),
            (_, false) => table = entry & ADDRESS,
        }
    }
    Err(Status::BadTable)
}

/// What a valid leaf entry for a page of `size` bytes says.
fn leaf(entry: u64, size: u64) -> Result<Leaf, Status> {
    let known = VALID | WRITE | ATOMIC | LEAF | APERTURE | PEER | ADDRESS;
    let address = entry & ADDRESS;
    let peer = ((entry & PEER) >> PEER_SHIFT) as u32;
    let place = match (entry & APERTURE) >> APERTURE_SHIFT {
        0 => Place::Ram(address),
        1 => Place::Vram(address),
        2 => Place::Peer(peer, address),
        _ => return Err(Status::BadTable),
    };
    let (write, atomic) = (entry & WRITE != 0, entry & ATOMIC != 0);
    let stray_peer = peer != 0 && !matches!(place, Place::Peer(..));
    if entry & !known != 0 || address % size != 0 || stray_peer || (atomic && !write) {
        return Err(Status::BadTable);
    }
    Ok(Leaf {
        place,
        write,
        atomic,
        size,
    })
}

/// Whether a value of the ASID_ROOT registers says that there are tables.
pub fn is_valid_root(root: u64) -> bool {
    root & VALID != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: u64 = VALID | LEAF;

    #[test]
    fn leaves() {
        let l = leaf(GOOD | WRITE | 0x5000, SMALL).unwrap();
        assert_eq!(
            (l.place, l.write, l.atomic),
            (Place::Ram(0x5000), true, false)
        );
        let l = leaf(GOOD | WRITE | ATOMIC | (1 << 4) | LARGE, LARGE).unwrap();
        assert_eq!(
            (l.place, l.atomic, l.size),
            (Place::Vram(LARGE), true, LARGE)
        );
        let l = leaf(GOOD | (2 << 4) | (15 << 8) | 0x000f_ffff_ffff_f000, SMALL).unwrap();
        assert_eq!(l.place, Place::Peer(15, 0x000f_ffff_ffff_f000));
        for bad in [3 << 4, 1 << 8, ATOMIC, 1 << 6, 1 << 7, 1 << 52, 1 << 63] {
            assert_eq!(leaf(GOOD | bad, SMALL), Err(Status::BadTable), "{bad:x}");
        }
        assert_eq!(leaf(GOOD | 0x1000, LARGE), Err(Status::BadTable));
    }

    #[test]
    fn rights() {
        let leaf = |write, atomic| Leaf {
            place: Place::Ram(0),
            write,
            atomic,
            size: SMALL,
        };
        assert_eq!(leaf(false, false).allows(Intent::Read), Ok(()));
        assert_eq!(
            leaf(false, false).allows(Intent::Write),
            Err(FaultKind::NoWrite)
        );
        assert_eq!(
            leaf(false, false).allows(Intent::Atomic),
            Err(FaultKind::NoWrite)
        );
        assert_eq!(leaf(true, false).allows(Intent::Write), Ok(()));
        assert_eq!(
            leaf(true, false).allows(Intent::Atomic),
            Err(FaultKind::NoAtomic)
        );
        assert_eq!(leaf(true, true).allows(Intent::Atomic), Ok(()));
    }
}
