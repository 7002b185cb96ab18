// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The device's own memory.

use crate::mapping::Mapping;
use std::io;

/// A range is outside VRAM.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfVram;

/// VRAM: bytes 0 .. `size`, all zero at first. Only the engine has it, so
/// ordinary slices are fine.
#[derive(Debug)]
pub struct Vram {
    // Invariant: a private anonymous mapping, readable and writable, that is
    // reached through this struct alone.
    map: Mapping,
}

impl Vram {
    /// Reserves `size` bytes (not 0); memory is allocated page by page at the
    /// first write.
    pub fn new(size: u64) -> io::Result<Self> {
        let len = usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self {
            map: Mapping::anonymous(len)?,
        })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.map.len() as u64
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is valid for reads of `len` bytes while it lives,
        // and by the invariant only `bytes_mut` could write it, which needs
        // `&mut self`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }

    /// All of it, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: valid for reads and writes of `len` bytes while it lives; by
        // the invariant and `&mut self` nothing else reaches it.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr(), self.map.len()) }
    }

    /// `len` bytes from `offset`.
    pub fn slice(&self, offset: u64, len: u64) -> Result<&[u8], OutOfVram> {
        self.bytes().get(range(offset, len)?).ok_or(OutOfVram)
    }

    /// `len` bytes from `offset`, to write.
    pub fn slice_mut(&mut self, offset: u64, len: u64) -> Result<&mut [u8], OutOfVram> {
        self.bytes_mut()
            .get_mut(range(offset, len)?)
            .ok_or(OutOfVram)
    }

    /// Copies `len` bytes from `src` to `dst`; the two may overlap.
    pub fn copy(&mut self, src: u64, dst: u64, len: u64) -> Result<(), OutOfVram> {
        self.slice(src, len)?;
        self.slice(dst, len)?;
        let dst = usize::try_from(dst).map_err(|_| OutOfVram)?;
        let src = range(src, len)?;
        self.bytes_mut().copy_within(src, dst);
        Ok(())
    }
}

fn range(offset: u64, len: u64) -> Result<std::ops::Range<usize>, OutOfVram> {
    let end = offset.checked_add(len).ok_or(OutOfVram)?;
    let start = usize::try_from(offset).map_err(|_| OutOfVram)?;
    Ok(start..usize::try_from(end).map_err(|_| OutOfVram)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let mut vram = Vram::new(8192).unwrap();
        assert_eq!(vram.size(), 8192);
        assert_eq!(vram.slice(0, 8192).unwrap().len(), 8192);
        assert_eq!(vram.slice(8191, 1).unwrap(), &[0]);
        for (offset, len) in [
            (0, 8193),
            (8192, 1),
            (1, 8192),
            (u64::MAX, 1),
            (1, u64::MAX),
        ] {
            assert_eq!(vram.slice(offset, len), Err(OutOfVram), "{offset} {len}");
            assert!(vram.slice_mut(offset, len).is_err(), "{offset} {len}");
            assert!(vram.copy(offset, 0, len).is_err(), "{offset} {len}");
            assert!(vram.copy(0, offset, len).is_err(), "{offset} {len}");
        }
    }

    #[test]
    fn overlapping_copy_moves_the_old_bytes() {
        let mut vram = Vram::new(4096).unwrap();
        vram.slice_mut(0, 4).unwrap().copy_from_slice(&[1, 2, 3, 4]);
        vram.copy(0, 1, 4).unwrap();
        assert_eq!(vram.slice(0, 6).unwrap(), &[1, 1, 2, 3, 4, 0]);
        vram.copy(1, 0, 4).unwrap();
        assert_eq!(vram.slice(0, 6).unwrap(), &[1, 2, 3, 4, 4, 0]);
    }

    #[test]
    fn untouched_vram_costs_nothing() {
        let vram = Vram::new(4 << 30).unwrap();
        let mut resident = [0u8; 1024];
        // SAFETY: the range lies inside the mapping, and `resident` has one
        // byte for each of its 1024 pages.
        let rc = unsafe {
            libc::mincore(
                vram.bytes().as_ptr() as *mut _,
                1024 * 4096,
                resident.as_mut_ptr(),
            )
        };
        assert_eq!(rc, 0);
        assert!(resident.iter().all(|r| r & 1 == 0));
    }
}
