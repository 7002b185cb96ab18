// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Migration by virtual address: of which pages.
//!
//! C header: [`include/linux/migrate.h`](srctree/include/linux/migrate.h)

use crate::{
    bindings,
    mm::{
        Fault,
        PagemapOwner,
        PMD_ORDER, //
    },
};
use core::ops::Range;
use kernel::{
    mm::virt::VmaRef,
    page::{
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Which pages a migration by virtual address collects.
#[derive(Clone, Copy)]
pub struct Select(bindings::migrate_vma_direction);

impl Select {
    /// Pages in RAM, and addresses never touched.
    pub const SYSTEM: Self = Self(bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM);
    /// Device-private pages of the given owner.
    pub const DEVICE_PRIVATE: Self =
        Self(bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE);
    /// Device-coherent pages of the given owner.
    pub const DEVICE_COHERENT: Self =
        Self(bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_COHERENT);
    /// Folios that a PMD maps stay whole. Otherwise the core splits them.
    pub const COMPOUND: Self = Self(bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_COMPOUND);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn as_raw(self) -> usize {
        self.0 as usize
    }

    /// Whether all of `other` is in `self`.
    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The part of `range` that the PMD maps which maps the address `at`; all in bytes.
#[inline]
pub fn pmd_part(range: &Range<usize>, at: usize) -> Range<usize> {
    let start = at & PMD_MASK;
    start.max(range.start)..range.end.min(start.saturating_add(PMD_SIZE))
}

/// What a PMD maps, in bytes.
const PMD_SIZE: usize = PAGE_SIZE << PMD_ORDER;
const PMD_MASK: usize = !(PMD_SIZE - 1);

/// A page-aligned range within one area.
///
/// # Invariants
///
/// If `has_tables`, there is a table of PMDs for each of its addresses. It stays as long as the mmap
/// lock is held, which is as long as the area is borrowed.
pub struct VmaRange<'a> {
    vma: &'a VmaRef,
    range: Range<usize>,
    has_tables: bool,
}

impl<'a> VmaRange<'a> {
    /// The part `range` (in bytes) of `vma`. [`EINVAL`] if it is empty, misaligned, or reaches out
    /// of it.
    pub fn new(vma: &'a VmaRef, range: Range<usize>) -> Result<Self> {
        if range.is_empty()
            || (range.start | range.end) & !PAGE_MASK != 0
            || range.start < vma.start()
            || range.end > vma.end()
        {
            return Err(EINVAL);
        }
        // INVARIANT: None are known of.
        Ok(Self {
            vma,
            range,
            has_tables: false,
        })
    }

    /// Whether there are large folios, or nothing yet, in all of it but for the ends that a PMD maps in
    /// part. A snapshot.
    pub fn is_large(&self) -> bool {
        let start = self.range.start.saturating_add(PMD_SIZE - 1) & PMD_MASK;
        let end = self.range.end & PMD_MASK;

        start < end && self.peek_whole(start, end) == end
    }

    /// How far, from `start` to `end`, both of which begin a PMD, large folios are there, or nothing,
    /// and tables of PMDs.
    fn peek_whole(&self, start: usize, end: usize) -> usize {
        // SAFETY: The range is of an area under the mmap lock, whose address space is alive.
        unsafe { bindings::drm_pagemap_peek_whole((*self.vma.as_ptr()).vm_mm, start, end) }
    }

    /// The first part of it that is migrated at once: what a PMD maps; or, as far as large folios
    /// are there, or nothing yet, what several do, `most` pages at most.
    pub fn first_part(&self, most: usize) -> Self {
        let part = pmd_part(&self.range, self.range.start);
        let end = part.start.saturating_add(most << PAGE_SHIFT);
        let end = self.range.end.min(end) & PMD_MASK;

        if part.len() == PMD_SIZE && end > part.end {
            let end = self.peek_whole(part.start, end);

            if end > part.end {
                // INVARIANT: Seen just now.
                return Self {
                    vma: self.vma,
                    range: part.start..end,
                    has_tables: true,
                };
            }
        }
        // INVARIANT: None are known of.
        Self {
            vma: self.vma,
            range: part,
            has_tables: false,
        }
    }

    /// The first part of it, of those pages that one PMD maps, that a private mapping of a file has
    /// copies of, which are anonymous memory: the process has written to them. A snapshot. [`None`]:
    /// there are none.
    pub fn first_written(&self) -> Option<Self> {
        // SAFETY: The range is of an area under the mmap lock, whose address space is alive.
        let part = unsafe {
            let mm = (*self.vma.as_ptr()).vm_mm;

            bindings::drm_pagemap_peek_written(mm, self.range.start, self.range.end)
        };

        // INVARIANT: None are known of.
        (part.start < part.end).then_some(Self {
            vma: self.vma,
            range: part.start..part.end,
            has_tables: false,
        })
    }

    /// Its length in pages.
    pub fn nr_pages(&self) -> usize {
        self.range.len() >> PAGE_SHIFT
    }

    /// Whether one PMD maps it.
    #[inline]
    pub fn is_in_one_pmd(&self) -> bool {
        pmd_part(&self.range, self.range.start) == self.range
    }

    /// Whether the core collects holes of it one PMD after the other.
    #[inline]
    pub(super) fn has_holes_by_pmd(&self) -> bool {
        self.has_tables || self.is_in_one_pmd()
    }

    /// Its first address, in bytes.
    pub fn start(&self) -> usize {
        self.range.start
    }

    /// Its addresses, in bytes.
    pub fn addresses(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The area.
    pub fn vma(&self) -> &'a VmaRef {
        self.vma
    }
}

/// The arguments of a migration by virtual address.
#[derive(Zeroable)]
pub(super) struct Args(bindings::migrate_vma);

impl Args {
    #[inline(always)]
    pub(super) fn new(
        range: &VmaRange<'_>,
        owner: PagemapOwner,
        select: Select,
        fault: Option<&Fault<'_>>,
    ) -> Self {
        Self(bindings::migrate_vma {
            vma: range.vma.as_ptr(),
            dst: core::ptr::null_mut(),
            src: core::ptr::null_mut(),
            cpages: 0,
            npages: 0,
            start: range.range.start,
            end: range.range.end,
            pgmap_owner: owner.as_raw(),
            flags: select.as_raw(),
            fault_page: fault.map_or(core::ptr::null_mut(), Fault::page),
        })
    }

    /// The area that the range is in, and its first address, in bytes.
    pub(super) fn place(&self) -> (*mut bindings::vm_area_struct, usize) {
        (self.0.vma, self.0.start)
    }

    /// The arguments for C, with these arrays.
    #[inline(always)]
    pub(super) fn with(
        &mut self,
        src: *mut usize,
        dst: *mut usize,
        npages: usize,
    ) -> &mut bindings::migrate_vma {
        self.0.src = src;
        self.0.dst = dst;
        self.0.npages = npages;
        &mut self.0
    }
}
