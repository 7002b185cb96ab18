// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The page arrays of a migration, and the walk over them, folio by folio.

use crate::{
    bindings,
    mm::{
        vma_range::Args,
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

/// Room for two page arrays of `N` pages, and for the arguments of a migration by virtual address.
#[derive(Zeroable)]
pub(crate) struct Entries<const N: usize> {
    args: Args,
    src: [MigratePfn; N],
    dst: [MigratePfn; N],
}

// SAFETY: The pointers in the arguments are not followed between two uses; in use, the buffer is not
// sent.
unsafe impl<const N: usize> Send for Entries<N> {}

impl Buffer for Entries<NR_PMD_PAGES> {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Entries<NR_PMD_PAGES>> = Pool::new();

        &POOL
    }
}

/// Frees what is kept for the next time.
pub(super) fn clear_pool() {
    Entries::<NR_PMD_PAGES>::pool().clear();
}

/// The most pages that are collected at once, where folios are as large as what a PMD maps.
///
/// Each copy is a call of the driver: it submits it, and its device sends an interrupt, for which a
/// task is woken. For 2 MiB that takes longer than what there is to do about one folio. For the same
/// reason chunks that begin smaller and grow are no quicker, although the first copy begins earlier.
pub(crate) const LARGE_PAGES: usize = 8 * NR_PMD_PAGES;

/// Where arrays are.
pub(crate) enum Room<'a> {
    Small(&'a mut Entries<NR_PMD_PAGES>),
    Large(&'a mut Entries<LARGE_PAGES>),
    Owned(Lent<Entries<NR_PMD_PAGES>>),
}

/// [`Entries`] of one of the two sizes that there are.
pub(crate) trait AsRoom {
    /// They are lent for [`Arrays`].
    fn room(&mut self) -> Room<'_>;
}

impl AsRoom for Entries<NR_PMD_PAGES> {
    #[inline(always)]
    fn room(&mut self) -> Room<'_> {
        Room::Small(self)
    }
}

impl AsRoom for Entries<LARGE_PAGES> {
    #[inline(always)]
    fn room(&mut self) -> Room<'_> {
        Room::Large(self)
    }
}

/// The two page arrays of a migration: sources and destinations, one entry a page.
///
/// What is in them when they are made is left over from others, and means nothing.
///
/// # Invariants
///
/// There is room for `npages` pages.
pub struct Arrays<'a> {
    room: Room<'a>,
    npages: usize,
}

impl<'a> Arrays<'a> {
    /// Arrays of `npages` entries each. May sleep. [`EINVAL`]: `npages` is more than
    /// [`NR_PMD_PAGES`].
    pub fn new(npages: usize) -> Result<Self> {
        if npages > NR_PMD_PAGES {
            return Err(EINVAL);
        }
        // INVARIANT: Just looked at.
        Ok(Self {
            room: Room::Owned(Lent::new()?),
            npages,
        })
    }

    /// The same, in room that there is. [`EINVAL`]: it is too small.
    #[inline(always)]
    pub(crate) fn within<const N: usize>(entries: &'a mut Entries<N>, npages: usize) -> Result<Self>
    where
        Entries<N>: AsRoom,
    {
        if npages > N {
            return Err(EINVAL);
        }
        // INVARIANT: Just looked at.
        Ok(Self {
            room: entries.room(),
            npages,
        })
    }

    /// How many pages the arrays are for.
    #[inline(always)]
    pub fn nr_pages(&self) -> usize {
        self.npages
    }

    #[inline(always)]
    pub(super) fn src(&self) -> &[MigratePfn] {
        match &self.room {
            Room::Small(entries) => entries.src.get(..self.npages),
            Room::Large(entries) => entries.src.get(..self.npages),
            Room::Owned(entries) => entries.src.get(..self.npages),
        }
        .unwrap_or_default()
    }

    #[inline(always)]
    pub(super) fn dst(&self) -> &[MigratePfn] {
        match &self.room {
            Room::Small(entries) => entries.dst.get(..self.npages),
            Room::Large(entries) => entries.dst.get(..self.npages),
            Room::Owned(entries) => entries.dst.get(..self.npages),
        }
        .unwrap_or_default()
    }

    /// Sources and destinations.
    #[inline(always)]
    pub(super) fn both(&mut self) -> (&mut [MigratePfn], &mut [MigratePfn]) {
        #[inline(always)]
        fn of<const N: usize>(
            entries: &mut Entries<N>,
            npages: usize,
        ) -> (&mut [MigratePfn], &mut [MigratePfn]) {
            (
                entries.src.get_mut(..npages).unwrap_or_default(),
                entries.dst.get_mut(..npages).unwrap_or_default(),
            )
        }

        match &mut self.room {
            Room::Small(entries) => of(entries, self.npages),
            Room::Large(entries) => of(entries, self.npages),
            Room::Owned(entries) => of(entries, self.npages),
        }
    }

    /// Both arrays, and their length, for C.
    #[inline(always)]
    pub(super) fn raw(&mut self) -> (*mut usize, *mut usize, usize) {
        let npages = self.npages;
        let (src, dst) = self.both();

        (src.as_mut_ptr().cast(), dst.as_mut_ptr().cast(), npages)
    }

    /// Sets the arguments of a migration by virtual address, of as many pages.
    #[inline(always)]
    pub(super) fn set_args(&mut self, args: Args) {
        *self.args_mut() = args;
    }

    #[inline(always)]
    fn args_mut(&mut self) -> &mut Args {
        match &mut self.room {
            Room::Small(entries) => &mut entries.args,
            Room::Large(entries) => &mut entries.args,
            Room::Owned(entries) => &mut entries.args,
        }
    }

    /// The arguments.
    #[inline(always)]
    pub(super) fn args(&self) -> &Args {
        match &self.room {
            Room::Small(entries) => &entries.args,
            Room::Large(entries) => &entries.args,
            Room::Owned(entries) => &entries.args,
        }
    }

    /// The arguments for C, with pointers to the arrays. Those are put in anew each time, so that
    /// none outlives a borrow.
    #[inline(always)]
    pub(super) fn raw_args(&mut self) -> &mut bindings::migrate_vma {
        let (src, dst, npages) = self.raw();

        self.args_mut().with(src, dst, npages)
    }
}

/// One source of a migration: a folio, or an address without a page.
pub struct Step<'a> {
    /// The place of its first page in the range, in pages.
    pub index: usize,
    entry: MigratePfn,
    nr_pages: usize,
    _p: PhantomData<&'a Arrays<'a>>,
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
        // SAFETY: By the invariant of `Steps`, which made this.
        unsafe { self.entry.is_of_zone_device() }
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
