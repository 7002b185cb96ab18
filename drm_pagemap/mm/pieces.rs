// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Migration by virtual address: of which pages, and in which pieces.
//!
//! C header: [`include/linux/migrate.h`](srctree/include/linux/migrate.h)

use crate::{
    bindings,
    mm::{
        Arrays,
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

/// A page-aligned range within one area.
pub struct VmaRange<'a> {
    vma: &'a VmaRef,
    range: Range<usize>,
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
        Ok(Self { vma, range })
    }

    /// Its length in pages.
    pub fn nr_pages(&self) -> usize {
        self.range.len() >> PAGE_SHIFT
    }

    /// Whether one PMD maps it.
    #[inline]
    fn is_in_one_pmd(&self) -> bool {
        (self.range.start ^ (self.range.end - 1)) >> PAGE_SHIFT < 1 << PMD_ORDER
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

/// The arguments that the pieces of a migration by virtual address have in common.
pub(super) struct Pieces {
    args: bindings::migrate_vma,
    /// Pieces end at multiples of this, in bytes, a power of two; [`None`]: there is one piece.
    align: Option<usize>,
}

impl Pieces {
    /// The pieces of `range`: parts that one PMD maps, or one piece, as `by_pmd` says.
    #[inline(always)]
    pub(super) fn new(
        range: &VmaRange<'_>,
        owner: PagemapOwner,
        fault: Option<&Fault<'_>>,
        by_pmd: bool,
    ) -> Self {
        Self {
            args: bindings::migrate_vma {
                vma: range.vma.as_ptr(),
                dst: core::ptr::null_mut(),
                src: core::ptr::null_mut(),
                cpages: 0,
                npages: 0,
                start: range.range.start,
                end: range.range.end,
                pgmap_owner: owner.as_raw(),
                flags: 0,
                fault_page: fault.map_or(core::ptr::null_mut(), Fault::page),
            },
            align: (by_pmd && !range.is_in_one_pmd()).then_some(PAGE_SIZE << PMD_ORDER),
        }
    }

    /// The area that the range is in, and its first address, in bytes.
    pub(super) fn place(&self) -> (*mut bindings::vm_area_struct, usize) {
        (self.args.vma, self.args.start)
    }

    /// Calls `f` with the arguments of each piece, pointing at its part of the arrays, and the
    /// range of pages that it is; until it returns an error. The arguments are made anew each time,
    /// so that no pointer outlives a borrow.
    #[inline(always)]
    pub(super) fn each(
        &mut self,
        arrays: &mut Arrays,
        mut f: impl FnMut(&mut bindings::migrate_vma, Range<usize>) -> Result,
    ) -> Result {
        if self.align.is_none() {
            let (src, dst, npages) = arrays.raw();

            self.args.src = src;
            self.args.dst = dst;
            self.args.npages = npages;
            return f(&mut self.args, 0..npages);
        }
        self.each_of_many(arrays, &mut f)
    }

    #[inline(never)]
    fn each_of_many(
        &self,
        arrays: &mut Arrays,
        f: &mut dyn FnMut(&mut bindings::migrate_vma, Range<usize>) -> Result,
    ) -> Result {
        let mut start = self.args.start;

        while start < self.args.end {
            let end = self.align.map_or(self.args.end, |align| {
                self.args
                    .end
                    .min((start & !(align - 1)).saturating_add(align))
            });
            let pages =
                (start - self.args.start) >> PAGE_SHIFT..(end - self.args.start) >> PAGE_SHIFT;
            let (src, dst) = arrays.both();
            let (Some(src), Some(dst)) = (src.get_mut(pages.clone()), dst.get_mut(pages.clone()))
            else {
                return Err(EINVAL);
            };
            let mut args = bindings::migrate_vma {
                src: src.as_mut_ptr().cast(),
                dst: dst.as_mut_ptr().cast(),
                npages: pages.len(),
                start,
                end,
                ..self.args
            };

            f(&mut args, pages)?;
            start = end;
        }
        Ok(())
    }
}
