// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A process's memory: mapped, filled, and verified through the CPU, as a program would.

use crate::{
    ffi::{
        self,
        Map, //
    },
    harness::{
        check,
        Failure,
        Outcome, //
    },
};
use core::{
    ffi::c_void,
    ops::Range,
    ptr::NonNull, //
};
use drm_pagemap::mm::Pfn;
use kernel::{
    bindings,
    error::to_result,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

/// The size of what a page table's upper level maps.
pub(crate) const HUGE: usize = 2 << 20;

/// Some pages of the test's address space.
///
/// They are not unmapped when this is dropped, but with the address space.
#[derive(Clone, Copy)]
pub(crate) struct UserMemory {
    start: usize,
    len: usize,
}

impl UserMemory {
    /// Maps `pages` pages of private anonymous memory, of which none is touched.
    pub(crate) fn map(pages: usize) -> Result<Self> {
        Self::map_kind(pages, Map::Private)
    }

    /// Maps `pages` pages of some kind.
    pub(crate) fn map_kind(pages: usize, kind: Map) -> Result<Self> {
        Self::map_at(0, pages << PAGE_SHIFT, kind)
    }

    /// Maps `pages` pages of private anonymous memory, the first one at a multiple of [`HUGE`].
    pub(crate) fn map_aligned(pages: usize) -> Result<Self> {
        let len = pages << PAGE_SHIFT;
        let room = Self::map_at(0, len + HUGE, Map::Private)?;
        let start = room.start.next_multiple_of(HUGE);

        // What is left and right of it goes; it stays mapped all the time, so no other thread gets
        // hold of its addresses.
        for part in [room.start..start, start + len..room.range().end] {
            if !part.is_empty() {
                Self {
                    start: part.start,
                    len: part.len(),
                }
                .unmap()?;
            }
        }
        Ok(Self { start, len })
    }

    /// Maps `pages` pages and [fills](Self::fill) them with the pattern of `seed`.
    pub(crate) fn filled(pages: usize, seed: u64) -> Outcome<Self> {
        let this = Self::map(pages)?;

        this.fill(seed)?;
        Ok(this)
    }

    fn map_at(addr: usize, len: usize, kind: Map) -> Result<Self> {
        // SAFETY: The test has an address space attached.
        let start = unsafe { ffi::drm_pagemap_kunit_mmap(addr, len, kind) };

        if start & !kernel::page::PAGE_MASK != 0 {
            return Err(ENOMEM);
        }
        Ok(Self { start, len })
    }

    /// The addresses, in bytes.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// The addresses of some of the pages.
    pub(crate) fn pages(&self, pages: Range<usize>) -> Range<usize> {
        self.start + pages.start * PAGE_SIZE..self.start + pages.end * PAGE_SIZE
    }

    /// A part of it.
    pub(crate) fn part(&self, pages: Range<usize>) -> Self {
        Self {
            start: self.start + pages.start * PAGE_SIZE,
            len: pages.len() * PAGE_SIZE,
        }
    }

    /// The number of pages.
    pub(crate) fn nr_pages(&self) -> usize {
        self.len >> PAGE_SHIFT
    }

    /// The address of a page.
    pub(crate) fn addr(&self, page: usize) -> usize {
        self.start + page * PAGE_SIZE
    }

    /// Unmaps all of it.
    pub(crate) fn unmap(&self) -> Result {
        // SAFETY: The test has an address space attached.
        to_result(unsafe { ffi::drm_pagemap_kunit_munmap(self.start, self.len) })
    }

    /// The same; then the test continues on another processor, if there is one.
    pub(crate) fn unmap_elsewhere(&self) -> Result {
        self.unmap()?;
        // SAFETY: No requirements.
        to_result(unsafe { ffi::drm_pagemap_kunit_change_processor() })
    }

    /// Maps new memory where it was unmapped.
    pub(crate) fn map_again(&self) -> Result {
        Self::map_at(self.start, self.len, Map::Private)?;
        Ok(())
    }

    /// Asks for huge pages.
    pub(crate) fn want_huge(&self) -> Result {
        // SAFETY: The test has an address space attached.
        to_result(unsafe { ffi::drm_pagemap_kunit_want_huge(self.start, true) })
    }

    /// Asks for single pages, whatever the kernel does by itself.
    pub(crate) fn want_small(&self) -> Result {
        // SAFETY: The test has an address space attached.
        to_result(unsafe { ffi::drm_pagemap_kunit_want_huge(self.start, false) })
    }

    /// Lets memory that was mapped read-only be written to. Its pages stay read-only until somebody
    /// writes, as those that were shared after a fork.
    pub(crate) fn make_writable(&self) -> Result {
        // SAFETY: The test has an address space attached.
        to_result(unsafe { ffi::drm_pagemap_kunit_make_writable(self.start) })
    }

    /// Gets huge pages, and [fills](Self::fill) them with the pattern of `seed`. If the kernel has
    /// none to give, the test is skipped.
    pub(crate) fn fill_huge(&self, seed: u64) -> Outcome {
        self.want_huge()?;
        self.fill(seed)?;
        if !self.is_huge()? {
            return Err(Failure::skip(fmt!("the kernel had no huge page to give")));
        }
        Ok(())
    }

    /// Whether the first page is a part of a larger one, in RAM.
    pub(crate) fn is_huge(&self) -> Result<bool> {
        let mut page = core::ptr::null_mut();

        // SAFETY: The test has an address space attached; the reference is put again.
        unsafe {
            to_result(ffi::drm_pagemap_kunit_get_user_page(self.start, &mut page))?;
            let order = ffi::drm_pagemap_kunit_folio_order(ffi::drm_pagemap_kunit_page_folio(page));
            ffi::drm_pagemap_kunit_put_page(page);
            Ok(order > 0)
        }
    }

    /// Writes the pattern of `seed` to every page. Page `n` of a [part](Self::part) has its own
    /// pattern.
    pub(crate) fn fill(&self, seed: u64) -> Outcome {
        let mut bytes = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

        for page in 0..self.nr_pages() {
            self.pattern(seed, page, &mut bytes);
            self.write(page, &bytes)?;
        }
        Ok(())
    }

    /// As [`fill`](Self::fill), of the pages that are `wanted`, such that no neighbours here are
    /// neighbours in RAM: each is mapped for DMA by itself. The number of pages must be a power of
    /// two.
    pub(crate) fn fill_apart(&self, seed: u64, wanted: impl Fn(usize) -> bool) -> Outcome {
        let nr = self.nr_pages();
        let mut spacers = KVec::new();

        // What the core gives first depends on what was freed last.
        for step in (3..64).step_by(2) {
            for i in (0..nr).map(|i| i * step % nr).filter(|i| wanted(*i)) {
                self.part(i..i + 1).fill(seed)?;
            }
            if self.is_apart(&wanted)? {
                return Ok(());
            }
            self.unmap()?;
            spacers.push(Self::filled(1, 0)?, GFP_KERNEL)?;
            self.map_again()?;
        }
        Err(Failure::skip(fmt!("neighbours stay neighbours")))
    }

    fn is_apart(&self, wanted: impl Fn(usize) -> bool) -> Result<bool> {
        let pfn = |i: usize| {
            let mut page = core::ptr::null_mut();

            // SAFETY: The test has an address space attached; the reference is put again.
            unsafe {
                to_result(ffi::drm_pagemap_kunit_get_user_page(
                    self.addr(i),
                    &mut page,
                ))?;
                ffi::drm_pagemap_kunit_put_page(page);
            }
            Ok::<_, Error>(Pfn::from_page(page).as_usize())
        };

        for i in (1..self.nr_pages()).filter(|i| wanted(*i) && wanted(*i - 1)) {
            if pfn(i)?.abs_diff(pfn(i - 1)?) == 1 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads every page, and compares it with the pattern of `seed`.
    pub(crate) fn verify(&self, seed: u64) -> Outcome {
        let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
        let mut actual = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

        for page in 0..self.nr_pages() {
            self.pattern(seed, page, &mut expected);
            self.read(page, &mut actual)?;
            self.compare(page, &actual, &expected)?;
        }
        Ok(())
    }

    /// Reads every page, and finds only zeroes.
    pub(crate) fn verify_zero(&self) -> Outcome {
        let expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
        let mut actual = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

        for page in 0..self.nr_pages() {
            self.read(page, &mut actual)?;
            self.compare(page, &actual, &expected)?;
        }
        Ok(())
    }

    /// Compares the contents of a page, wherever they were read.
    pub(crate) fn compare(&self, page: usize, actual: &[u8], expected: &[u8]) -> Outcome {
        if let Some(at) = actual.iter().zip(expected).position(|(a, e)| a != e) {
            return Err(Failure::new(fmt!(
                "page {page} of {}, byte {at}: expected {:#x}, got {:#x}",
                self.nr_pages(),
                expected[at],
                actual[at]
            )));
        }
        Ok(())
    }

    /// Reads a page, as a process does: takes the fault if it is not there.
    pub(crate) fn read(&self, page: usize, out: &mut [u8]) -> Result {
        UserSlice::new(UserPtr::from_addr(self.addr(page)), out.len())
            .reader()
            .read_slice(out)
    }

    /// Writes a page, as a process does.
    pub(crate) fn write(&self, page: usize, bytes: &[u8]) -> Result {
        UserSlice::new(UserPtr::from_addr(self.addr(page)), bytes.len())
            .writer()
            .write_slice(bytes)
    }

    /// Reads one byte of a page.
    pub(crate) fn touch(&self, page: usize) -> Result<u8> {
        let mut byte = [0];

        self.read(page, &mut byte)?;
        Ok(byte[0])
    }

    /// The bytes that page `page` has in the pattern of `seed`; each address has another one.
    pub(crate) fn pattern(&self, seed: u64, page: usize, out: &mut [u8]) {
        let mut state = seed ^ ((self.addr(page) as u64) << 8) | 1;

        for word in out.chunks_exact_mut(8) {
            // Xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_ne_bytes());
        }
    }

    /// Pins a page, as for DMA by some other device.
    pub(crate) fn pin(&self, page: usize) -> Outcome<Pin> {
        let mut pinned = core::ptr::null_mut();

        // SAFETY: The test has an address space attached.
        to_result(unsafe { ffi::drm_pagemap_kunit_pin_page(self.addr(page), &mut pinned) })?;
        check!(!pinned.is_null());
        Ok(Pin(pinned))
    }
}

/// As long as this exists, the kernel has no huge pages to give, but single ones.
pub(crate) struct NoHugePages(NonNull<c_void>);

impl NoHugePages {
    /// Takes a page out of the middle of every block that could be one.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: No requirements.
        NonNull::new(unsafe { ffi::drm_pagemap_kunit_shatter() })
            .map(Self)
            .ok_or(ENOMEM)
    }
}

impl Drop for NoHugePages {
    fn drop(&mut self) {
        // SAFETY: Made by `new`.
        unsafe { ffi::drm_pagemap_kunit_unshatter(self.0.as_ptr()) };
    }
}

/// A page that is pinned.
pub(crate) struct Pin(*mut bindings::page);

impl Drop for Pin {
    fn drop(&mut self) {
        // SAFETY: Pinned by `UserMemory::pin`.
        unsafe { ffi::drm_pagemap_kunit_unpin_page(self.0) };
    }
}
