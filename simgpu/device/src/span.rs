// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Memory that others may write at any time: guest memory, VRAM, a peer's VRAM.
//!
//! The guest's CPUs, the engines and other devices all reach such memory, at
//! the guest's discretion. To this program it is like memory behind a device:
//! no reference to it exists; it is only ever copied as bytes, or accessed with
//! atomics. Who races gets some mixture of old and new bytes, as on hardware.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// Some bytes of such memory, in one piece.
///
/// Invariant: `ptr` is valid for reads of `len` bytes for `'a`, and for writes
/// too if the span was made for writing; it is a shared file mapping.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    ptr: *mut u8,
    len: usize,
    _memory: PhantomData<&'a ()>,
}

impl Span<'_> {
    /// Wraps `len` bytes from `ptr`.
    ///
    /// # Safety
    ///
    /// They must be mapped from a shared file for `'a`, readable, and writable
    /// if the span will be written; nobody may have a reference to them.
    pub unsafe fn new(ptr: *mut u8, len: usize) -> Self {
        Self {
            ptr,
            len,
            _memory: PhantomData,
        }
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)] // not needed
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes from `offset` on. It must be at most the length.
    pub fn from(self, offset: usize) -> Self {
        assert!(offset <= self.len);
        // SAFETY: the rest of a span, or nothing at its end, is valid as it is.
        unsafe { Self::new(self.ptr.add(offset), self.len - offset) }
    }

    /// The first `len` bytes, or fewer if there are not as many.
    pub fn first(self, len: usize) -> Self {
        Self {
            len: self.len.min(len),
            ..self
        }
    }

    /// Fills `to` from the first bytes. There must be as many.
    pub fn read(&self, to: &mut [u8]) {
        assert!(to.len() <= self.len);
        // SAFETY: valid by the invariant and the assertion; `to` is ordinary
        // memory, and does not overlap.
        unsafe { std::ptr::copy_nonoverlapping(self.ptr, to.as_mut_ptr(), to.len()) };
    }

    /// Writes `from` to the first bytes. There must be as many.
    pub fn write(&self, from: &[u8]) {
        assert!(from.len() <= self.len);
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.ptr, from.len()) };
    }

    /// Copies as many bytes from `src` as both have. The two may overlap.
    pub fn copy_from(&self, src: &Span<'_>) {
        let len = self.len.min(src.len);
        // SAFETY: both are valid for `len` bytes by the invariant.
        unsafe { std::ptr::copy(src.ptr, self.ptr, len) };
    }

    /// Reads the 8-byte word at `offset`, in one load. The place must be
    /// aligned to 8, and inside.
    pub fn load_u64(&self, offset: usize) -> u64 {
        u64::from_le(self.word(offset).load(Ordering::Acquire))
    }

    /// Adds `value`, modulo 2^64, to the 8-byte word at `offset`, atomically.
    /// The place must be aligned to 8, and inside.
    pub fn add_u64(&self, offset: usize, value: u64) {
        let word = self.word(offset);
        if cfg!(target_endian = "little") {
            word.fetch_add(value, Ordering::AcqRel);
            return;
        }
        let add = |old: u64| Some(u64::from_le(old).wrapping_add(value).to_le());
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(self.len >= 8 && offset <= self.len - 8);
        // SAFETY: inside by the assertion.
        let ptr = unsafe { self.ptr.add(offset) }.cast::<u64>();
        assert!(ptr.is_aligned());
        // SAFETY: valid and aligned; whoever else accesses the word is beyond
        // the compiler's view or uses atomics as well.
        unsafe { AtomicU64::from_ptr(ptr) }
    }
}

#[cfg(test)]
mod tests {
    use crate::vram::Vram;

    #[test]
    fn parts_and_words() {
        let vram = Vram::new(1 << 20).unwrap();
        let span = vram.span(4096, 64).unwrap();
        span.write(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(span.load_u64(0), 0x0807_0605_0403_0201);
        span.from(8).add_u64(0, u64::MAX);
        span.from(8).add_u64(0, 3);
        assert_eq!(span.load_u64(8), 2);
        let mut two = [0; 2];
        span.from(3).first(2).read(&mut two);
        assert_eq!(two, [4, 5]);
        span.from(1).copy_from(&span.first(8));
        assert_eq!(span.load_u64(0), 0x0706_0504_0302_0101);
        assert_eq!(span.from(64).len(), 0);
        assert_eq!(span.first(65).len(), 64);
    }
}
