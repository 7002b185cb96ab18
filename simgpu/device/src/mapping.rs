// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Memory mappings: the one place that calls mmap and munmap.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// A mapped range of memory, unmapped on drop.
///
/// Invariant: `ptr .. ptr + len` is mapped for as long as the value lives, and
/// nobody else unmaps it. `len` is not 0, and `ptr` is page aligned.
#[derive(Debug)]
pub struct Mapping {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; `Mapping` itself
// never dereferences the pointer.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` only gives out the raw pointer.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` from byte `offset`, shared with whoever else
    /// maps the file.
    pub fn shared(file: &File, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| invalid())?;
        let write = if writable { libc::PROT_WRITE } else { 0 };
        Self::map(
            len,
            libc::PROT_READ | write,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            offset,
        )
    }

    fn map(
        len: usize,
        prot: libc::c_int,
        flags: libc::c_int,
        fd: libc::c_int,
        offset: libc::off_t,
    ) -> io::Result<Self> {
        // SAFETY: without MAP_FIXED the kernel picks free address space, so no
        // memory that Rust knows of is affected.
        let ptr = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) };
        if ptr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ptr = NonNull::new(ptr.cast()).ok_or_else(invalid)?;
        Ok(Self { ptr, len })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: by the invariant the range is mapped and ours; nothing can
        // use it after drop, because users borrow the Mapping.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}
