// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The page arrays of a migration, and the walk over them, folio by folio.

use crate::mm::{
    Folio,
    MigratePfn,
    NR_PMD_PAGES, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::prelude::*;

/// The two page arrays of a migration: sources and destinations, one entry a page.
///
/// # Invariants
///
/// Both have the same length.
pub struct Arrays {
    pub(super) src: KVVec<MigratePfn>,
    pub(super) dst: KVVec<MigratePfn>,
}

impl Arrays {
    /// Arrays of `npages` empty entries each: 16 bytes a page. May sleep.
    pub fn new(npages: usize) -> Result<Self> {
        Ok(Self {
            src: KVVec::from_elem(MigratePfn::NONE, npages, GFP_KERNEL)?,
            dst: KVVec::from_elem(MigratePfn::NONE, npages, GFP_KERNEL)?,
        })
    }

    /// How many pages the arrays are for.
    pub fn nr_pages(&self) -> usize {
        self.src.len()
    }

    /// Both arrays, and their length, for C.
    pub(super) fn raw(&mut self) -> (*mut usize, *mut usize, usize) {
        (
            self.src.as_mut_ptr().cast(),
            self.dst.as_mut_ptr().cast(),
            self.src.len(),
        )
    }
}

/// One source of a migration: a folio, or an address without a page.
pub struct Step<'a> {
    /// The place of its first page in the range, in pages.
    pub index: usize,
    entry: MigratePfn,
    nr_pages: usize,
    _p: PhantomData<&'a Arrays>,
}

impl<'a> Step<'a> {
    /// The folio, locked and referenced; [`None`] for a hole.
    #[inline]
    pub fn folio(&self) -> Option<&'a Folio> {
        // SAFETY: By the invariant of `Steps`, which made this.
        unsafe { self.entry.folio() }
    }

    /// Whether it can be, or was, migrated.
    #[inline]
    pub fn is_migrating(&self) -> bool {
        self.entry.is_migrating()
    }

    /// Whether the process could write to it without a fault: it is not shared copy-on-write.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.entry.is_writable()
    }

    /// The pages it stands for.
    #[inline]
    pub fn pages(&self) -> Range<usize> {
        self.index..self.index + self.nr_pages
    }

    /// The number of pages it stands for.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        self.nr_pages
    }

    /// The order it has to be replaced in.
    #[inline]
    pub fn order(&self) -> u32 {
        self.nr_pages.trailing_zeros()
    }
}

/// Iterator over the sources of a migration, in steps of folios.
///
/// # Invariants
///
/// Entries that name pages hold references on their folios, for as long as the arrays are borrowed.
pub struct Steps<'a> {
    arrays: &'a Arrays,
    next: usize,
}

impl<'a> Steps<'a> {
    /// The sources from page `start` on, where one must start.
    ///
    /// # Safety
    ///
    /// Entries of the arrays that name pages must hold references on their folios.
    pub(super) unsafe fn new(arrays: &'a Arrays, start: usize) -> Self {
        // INVARIANT: Promised by the caller.
        Self {
            arrays,
            next: start,
        }
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    #[inline]
    fn next(&mut self) -> Option<Step<'a>> {
        let index = self.next;
        let entry = *self.arrays.src.get(index)?;
        let nr_pages = if !entry.is_compound() {
            1
        } else {
            // SAFETY: By the type invariant.
            unsafe { entry.folio() }.map_or(NR_PMD_PAGES, Folio::nr_pages)
        };

        self.next = index + nr_pages;
        Some(Step {
            index,
            entry,
            nr_pages,
            _p: PhantomData,
        })
    }
}
