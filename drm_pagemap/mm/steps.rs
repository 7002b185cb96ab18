// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The page arrays of a migration, and the walk over them, folio by folio.

use crate::{
    mm::{
        Folio,
        MigratePfn,
        NR_PMD_PAGES, //
    },
    pool::{
        Buffer,
        Lent,
        Pool, //
    }, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::prelude::*;

/// Room for two page arrays.
pub(crate) struct Entries {
    src: KVVec<MigratePfn>,
    dst: KVVec<MigratePfn>,
}

impl Buffer for Entries {
    fn new(npages: usize) -> Result<Self> {
        Ok(Self {
            src: KVVec::from_elem(MigratePfn::NONE, npages, GFP_KERNEL)?,
            dst: KVVec::from_elem(MigratePfn::NONE, npages, GFP_KERNEL)?,
        })
    }

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Entries> = Pool::new();

        &POOL
    }
}

/// Frees what is kept for the next time.
pub(super) fn clear_pool() {
    Entries::pool().clear();
}

/// The two page arrays of a migration: sources and destinations, one entry a page.
///
/// What is in them when they are made is left over from others, and means nothing.
///
/// # Invariants
///
/// Both have room for `npages` entries.
pub struct Arrays {
    entries: Lent<Entries>,
    npages: usize,
}

impl Arrays {
    /// Arrays of `npages` entries each: 16 bytes a page. May sleep.
    pub fn new(npages: usize) -> Result<Self> {
        // INVARIANT: As asked for.
        Ok(Self {
            entries: Lent::new(npages)?,
            npages,
        })
    }

    /// How many pages the arrays are for.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        self.npages
    }

    #[inline]
    pub(super) fn src(&self) -> &[MigratePfn] {
        self.entries.src.get(..self.npages).unwrap_or_default()
    }

    #[inline]
    pub(super) fn dst(&self) -> &[MigratePfn] {
        self.entries.dst.get(..self.npages).unwrap_or_default()
    }

    /// Sources and destinations.
    #[inline]
    pub(super) fn both(&mut self) -> (&mut [MigratePfn], &mut [MigratePfn]) {
        let Entries { src, dst } = &mut *self.entries;

        (
            src.get_mut(..self.npages).unwrap_or_default(),
            dst.get_mut(..self.npages).unwrap_or_default(),
        )
    }

    /// Both arrays, and their length, for C.
    #[inline]
    pub(super) fn raw(&mut self) -> (*mut usize, *mut usize, usize) {
        let npages = self.npages;
        let (src, dst) = self.both();

        (src.as_mut_ptr().cast(), dst.as_mut_ptr().cast(), npages)
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

    /// Whether it is a page, or a folio, of a zone device.
    #[inline]
    pub(super) fn page_is_of_device(&self) -> bool {
        let page = self.entry.page();

        // SAFETY: By the invariant of `Steps`, which made this.
        !page.is_null() && unsafe { Folio::is_page_of_zone_device(page) }
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
    src: &'a [MigratePfn],
    next: usize,
}

impl<'a> Steps<'a> {
    /// The sources `src` from page `start` on, where one must start.
    ///
    /// # Safety
    ///
    /// Entries that name pages must hold references on their folios.
    #[inline]
    pub(super) unsafe fn of(src: &'a [MigratePfn], start: usize) -> Self {
        // INVARIANT: Promised by the caller.
        Self { src, next: start }
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    #[inline]
    fn next(&mut self) -> Option<Step<'a>> {
        let index = self.next;
        let entry = *self.src.get(index)?;
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
