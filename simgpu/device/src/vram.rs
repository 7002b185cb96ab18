// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The device's own memory. It is a file without a name, so that peers can map
//! it, too; see [`crate::peer`].

use crate::mapping::Mapping;
use crate::span::Span;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// A range is outside VRAM.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfVram;

/// VRAM: bytes 0 .. `size`, all zero at first.
///
/// Invariant: `map` maps `file` from its start, readable, writable and shared,
/// and the file cannot shrink.
#[derive(Debug)]
pub struct Vram {
    map: Mapping,
    file: File,
}

impl Vram {
    /// Reserves `size` bytes (not 0); memory is allocated page by page at the
    /// first write.
    pub fn new(size: u64) -> io::Result<Self> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"simgpu-vram".as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(size)?;
        // So that nobody's mapping of it can ever fail with SIGBUS.
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: F_ADD_SEALS takes an int.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Self::open(file)
    }

    /// The VRAM in a file that [`Vram::new`] has made, maybe in another process.
    pub fn open(file: File) -> io::Result<Self> {
        // SAFETY: F_GET_SEALS takes no argument.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| invalid())?;
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 || len == 0 {
            return Err(invalid());
        }
        Ok(Self {
            map: Mapping::shared(&file, 0, len, true)?,
            file,
        })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.map.len() as u64
    }

    /// The file it is in.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// `len` bytes from `offset`.
    pub fn span(&self, offset: u64, len: u64) -> Result<Span<'_>, OutOfVram> {
        let end = offset.checked_add(len).ok_or(OutOfVram)?;
        if end > self.size() {
            return Err(OutOfVram);
        }
        // SAFETY: the range is inside the mapping, which is one of a shared
        // file, readable and writable, and lives as long as `self`. Nothing
        // here gives out references to it.
        Ok(unsafe { Span::new(self.map.as_ptr().add(offset as usize), len as usize) })
    }

    /// A copy of `len` bytes from `offset`.
    pub fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>, OutOfVram> {
        let span = self.span(offset, len)?;
        let mut bytes = vec![0; span.len()];
        span.read(&mut bytes);
        Ok(bytes)
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let vram = Vram::new(8192).unwrap();
        assert_eq!(vram.size(), 8192);
        assert_eq!(vram.span(0, 8192).unwrap().len(), 8192);
        assert_eq!(vram.bytes(8191, 1).unwrap(), &[0]);
        for (offset, len) in [
            (0, 8193),
            (8192, 1),
            (1, 8192),
            (u64::MAX, 1),
            (1, u64::MAX),
        ] {
            assert!(vram.span(offset, len).is_err(), "{offset} {len}");
        }
    }

    #[test]
    fn others_see_the_same_bytes_and_cannot_shrink_it() {
        let vram = Vram::new(8192).unwrap();
        let other = Vram::open(vram.file().try_clone().unwrap()).unwrap();
        vram.span(4096, 8).unwrap().write(&[7; 8]);
        assert_eq!(other.bytes(4096, 8), Ok(vec![7; 8]));
        assert!(vram.file().set_len(4096).is_err());
        assert!(vram.file().set_len(16384).is_err());
        // A file that could shrink is refused.
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"any".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(8192).unwrap();
        assert!(Vram::open(file).is_err());
    }

    #[test]
    fn untouched_vram_costs_nothing() {
        use std::os::unix::fs::MetadataExt;
        let vram = Vram::new(4 << 30).unwrap();
        assert_eq!(vram.file().metadata().unwrap().blocks(), 0);
        vram.span(1 << 30, 1).unwrap().write(&[1]);
        let blocks = vram.file().metadata().unwrap().blocks();
        assert!((1..=4096).contains(&blocks), "{blocks}");
    }
}
