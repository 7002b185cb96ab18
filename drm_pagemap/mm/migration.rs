// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Page migration as a typestate: [`Collected`] → [`Migrated`] → done.
//!
//! C header: [`include/linux/migrate.h`](srctree/include/linux/migrate.h)
//!
//! The core's protocol is setup, fill in destinations, copy, migrate, finalize; whoever leaves out
//! the last step leaves a process waiting for ever on migration entries. Here it runs in `Drop`,
//! so that no error path can forget it, and what was not migrated is restored.

use crate::{
    bindings,
    mm::{
        pfn::Wanted,
        vma_range::Args,
        Arrays,
        Fault,
        Folio,
        Frames,
        LockedFolio,
        MigratePfn,
        PagemapOwner,
        Pfn,
        Select,
        Step,
        Steps,
        Tally,
        VmaRange,
        ZapGuard, //
    },
};
use core::{
    marker::PhantomData,
    mem,
    ops::Range, //
};
use kernel::{
    mm::{
        virt::VmaRef,
        MmWithUser, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// What all states of a migration have.
///
/// # Invariants
///
/// - `src` and `dst` have the same length. `src` is as the core left it.
/// - Each source entry that names a page stands for one reference on, and the lock of, its folio.
///   (For the page of the fault itself, the lock is the fault's.)
/// - Each destination entry that names a page stands for one reference on, and the lock of, its
///   folio, and is at the place where a source folio of the same order, or a hole as large, is; but
///   for what [`Collected::map_by_pages`] does.
struct Inner<'a> {
    arrays: Arrays<'a>,
    by: By,
    guard: ZapGuard,
    _p: PhantomData<&'a VmaRef>,
}

/// How pages were collected, which decides how they are migrated and finalized.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// By virtual address, with the arguments that are beside the arrays.
    Address,
    /// By frame number.
    Frame,
}

impl Inner<'_> {
    #[inline(always)]
    fn migrate(&mut self) {
        if self.guard.is_on() {
            // SAFETY: By the type invariant, entries that name pages hold references.
            unsafe { self.guard.lift(self.arrays.src()) };
        }
        match self.by {
            By::Address => {
                // SAFETY: As migrate_vma_setup() left the arrays, which are migrated once: states
                // are consumed. The destinations are as the type invariant says.
                unsafe { bindings::migrate_vma_pages(self.arrays.raw_args()) };
            }
            By::Frame => {
                let (src, dst, n) = self.arrays.raw();
                // SAFETY: As above, for migrate_device_pfns().
                unsafe { bindings::migrate_device_pages(src, dst, n) };
            }
        }
        if self.guard.is_on() {
            // SAFETY: As above.
            unsafe { self.guard.lower(self.arrays.src()) };
        }
    }

    #[inline(always)]
    fn finalize(&mut self) {
        if self.guard.is_on() {
            self.finalize_guarded();
        } else {
            self.call_finalize();
        }
    }

    #[cold]
    #[inline(never)]
    fn finalize_guarded(&mut self) {
        // SAFETY: By the type invariant, entries that name pages hold references.
        let guarded = unsafe { ZapGuard::take(self.arrays.src()) };

        self.call_finalize();
        guarded.end();
    }

    #[inline(always)]
    fn call_finalize(&mut self) {
        match self.by {
            By::Address => {
                // SAFETY: As migrate_vma_setup() left the arrays. The destinations are as the type
                // invariant says. Called once, from the last state's drop.
                unsafe { bindings::migrate_vma_finalize(self.arrays.raw_args()) };
            }
            By::Frame => {
                let (src, dst, n) = self.arrays.raw();
                // SAFETY: As above, for migrate_device_pfns().
                unsafe { bindings::migrate_device_finalize(src, dst, n) };
            }
        }
    }

    fn steps(&self) -> Steps<'_> {
        self.steps_from(0)
    }

    fn steps_from(&self, index: usize) -> Steps<'_> {
        // SAFETY: By the type invariant, entries that name pages hold references.
        unsafe { Steps::of(self.arrays.src(), index) }
    }

    fn destination(&self, index: usize) -> Option<&Folio> {
        let entry = self.arrays.dst().get(index)?;

        // SAFETY: By the type invariant, entries that name pages hold references.
        unsafe { entry.folio() }
    }
}

/// Pages that are isolated and unmapped, and folios to put in their place.
///
/// The sources are locked and no CPU can reach them, so their contents are stable. Dropping the
/// value puts the sources back as they were and frees the destinations.
pub struct Collected<'a>(Inner<'a>);

impl<'a> Collected<'a> {
    /// Collects what `select` asks for of a range of virtual addresses; `migrate_vma_setup()`.
    ///
    /// `owner` says whose device pages; `fault` is the fault that this is about, if it is. The
    /// range's area must be under the mmap lock, or under the vma lock in a fault. May sleep.
    /// `arrays` must be for as many pages as the range has, else [`EINVAL`], as for areas that
    /// can't migrate, and for ranges larger than a PMD maps where [holes](Select::SYSTEM) are
    /// wanted, but for [parts](VmaRange::first_part): of a larger hole, the core would collect the
    /// first part only.
    #[inline(always)]
    pub fn from_vma(
        range: &VmaRange<'a>,
        owner: PagemapOwner,
        select: Select,
        fault: Option<&'a Fault<'_>>,
        mut arrays: Arrays<'a>,
    ) -> Result<Self> {
        let npages = range.nr_pages();

        if arrays.nr_pages() != npages || (select.has(Select::SYSTEM) && !range.has_holes_by_pmd())
        {
            return Err(EINVAL);
        }

        arrays.set_args(Args::new(range, owner, select, fault));
        let raw = arrays.raw_args();
        // SAFETY: The area is valid and locked, `VmaRange` has checked the range against it, and
        // the arrays have an entry for each of its pages. A fault page is locked by the fault.
        kernel::error::to_result(unsafe { bindings::migrate_vma_setup(raw) })?;
        let collected = raw.npages;

        // The core has written the entries that it has come to, which should be all.
        if collected < npages {
            let (src, dst) = arrays.both();

            src[collected..].fill(MigratePfn::NONE);
            dst[collected..].fill(MigratePfn::NONE);
        }
        // INVARIANT: As migrate_vma_setup() leaves the arrays, without destinations.
        // SAFETY: These hold references, as migrate_vma_setup() leaves them.
        let guard = unsafe { ZapGuard::new(arrays.src()) };
        let this = Self(Inner {
            arrays,
            by: By::Address,
            guard,
            _p: PhantomData,
        });
        if collected < npages {
            return Err(EBUSY);
        }
        Ok(this)
    }

    /// Collects the device pages with these frames, wherever they are mapped;
    /// `migrate_device_pfns()`. No lock is needed. May sleep.
    ///
    /// [`EINVAL`]: the frames are not those of the zone device. The zone device must stay registered
    /// for `'a`: whoever lends it sees to that.
    #[inline(always)]
    pub fn from_frames(frames: &Frames<'_>, mut arrays: Arrays<'a>) -> Result<Self> {
        if arrays.nr_pages() != frames.pfns().len() || !frames.are_its_own() {
            return Err(EINVAL);
        }
        let (src, dst) = arrays.both();

        for (entry, pfn) in src.iter_mut().zip(frames.pfns()) {
            // The callee wants plain frame numbers here and replaces them by entries.
            // SAFETY: Not an entry yet; overwritten below before anybody takes it for one.
            *entry = unsafe { MigratePfn::from_bits(pfn.as_usize()) };
        }
        dst.fill(MigratePfn::NONE);

        let (src, _, n) = arrays.raw();
        // SAFETY: The array has `n` frame numbers of device pages, as was checked.
        let ret = unsafe { bindings::migrate_device_pfns(src, n) };

        kernel::error::to_result(ret)?;
        // SAFETY: These hold references, as migrate_device_pfns() leaves them.
        let guard = unsafe { ZapGuard::new(arrays.src()) };
        // INVARIANT: As migrate_device_pfns() leaves the arrays.
        Ok(Self(Inner {
            arrays,
            by: By::Frame,
            guard,
            _p: PhantomData,
        }))
    }

    /// Whether there are large folios, or holes to be filled with one.
    #[inline]
    pub fn has_large(&self) -> bool {
        has_compound(self.0.arrays.src())
    }

    /// What there is to migrate.
    #[inline]
    pub fn tally(&self) -> Tally {
        // SAFETY: By the type invariant of `Inner`.
        unsafe { Tally::of(self.0.arrays.src()) }
    }

    /// How many pages were collected, and can be migrated.
    pub fn nr_collected(&self) -> usize {
        self.tally().migrating
    }

    /// The number of pages in the range.
    pub fn nr_pages(&self) -> usize {
        self.0.arrays.nr_pages()
    }

    /// The sources, folio by folio.
    pub fn steps(&self) -> Steps<'_> {
        self.0.steps()
    }

    /// The sources from page `start` on, where one must start.
    pub fn steps_from(&self, start: usize) -> Steps<'_> {
        self.0.steps_from(start)
    }

    /// Puts folios in the places of the sources that start in `part`, at the start of which one must:
    /// calls `choose` for each one that can be migrated, and takes the folio that it returns, if
    /// any. Whoever copies fills it with the source's bytes before [`migrate`](Self::migrate).
    ///
    /// Places that have one already must be left out. An error of `choose` is passed on.
    /// [`EINVAL`]: the folio is of another order than the source.
    #[inline]
    pub fn fill(
        &mut self,
        part: Range<usize>,
        mut choose: impl FnMut(&Step<'_>) -> Result<Option<LockedFolio>>,
    ) -> Result {
        let (src, dst) = self.0.arrays.both();
        // SAFETY: By the type invariant, entries that name pages hold references.
        let steps = unsafe { Steps::of(src, part.start) };

        for step in steps {
            if step.index >= part.end {
                break;
            }
            if !step.is_migrating() {
                continue;
            }
            let Some(folio) = choose(&step)? else {
                continue;
            };
            let entry = dst.get_mut(step.index).ok_or(EINVAL)?;

            debug_assert!(*entry == MigratePfn::NONE);
            // INVARIANT: The entry takes over the reference and the lock, at the place of a
            // source of the same order.
            *entry = if step.nr_pages() == 1 && !folio.is_large() {
                folio.into_single_migrate_pfn()
            } else if folio.nr_pages() == step.nr_pages() {
                folio.into_migrate_pfn()
            } else {
                return Err(EINVAL);
            };
        }
        Ok(())
    }

    /// The places of all pages of the range.
    #[inline(always)]
    pub fn singles(&mut self) -> Singles<'_> {
        let (src, dst) = self.0.arrays.both();
        let len = src.len().min(dst.len());

        // As long, for all to see: no index that is below it need be checked.
        Singles {
            src: src.get(..len).unwrap_or_default(),
            dst: dst.get_mut(..len).unwrap_or_default(),
        }
    }

    /// The place of the only page of the range, as [`Singles::at`] says.
    #[inline(always)]
    pub fn only_single(&mut self) -> Option<Single<'_>> {
        match self.0.arrays.both() {
            ([source], [destination]) => Single::new(*source, destination),
            _ => None,
        }
    }

    /// The sources that can be migrated, as far as they are single pages.
    #[inline(always)]
    pub fn single_sources(&self) -> SingleFolios<'_> {
        // INVARIANT: By the type invariant of `Inner`.
        SingleFolios {
            entries: self.0.arrays.src(),
            wanted: Wanted::Migrating,
        }
    }

    /// The destinations that were put in place, as far as they are single pages.
    #[inline(always)]
    pub fn single_destinations(&self) -> SingleFolios<'_> {
        // INVARIANT: By the type invariant of `Inner`.
        SingleFolios {
            entries: self.0.arrays.dst(),
            wanted: Wanted::Any,
        }
    }

    /// Has the process map the large source folio at `index` page by page from now on, if it was
    /// mapped whole, and gives up all else that was collected. May sleep.
    ///
    /// That is how far the core gets with splitting a folio on which a CPU fault holds a reference.
    /// Once it is mapped by pages, the next fault on it can split it. `head`, one page of RAM, must
    /// have the contents of the folio's first page: should the core be able to split it already,
    /// that page is migrated.
    pub fn map_by_pages(mut self, index: usize, head: LockedFolio) -> Result<Migrated<'a>> {
        let large = self
            .0
            .steps_from(index)
            .next()
            .is_some_and(|step| step.is_migrating() && step.order() > 0);

        let filled = self
            .0
            .arrays
            .dst()
            .iter()
            .any(|&entry| entry != MigratePfn::NONE);

        if !large || head.order() > 0 || filled {
            return Err(EINVAL);
        }
        // INVARIANT: The exception; the core splits the source before it looks at the page.
        *self.0.arrays.both().1.get_mut(index).ok_or(EINVAL)? = head.into_migrate_pfn();
        Ok(self.migrate())
    }

    /// Replaces the sources that have a destination by it; `migrate_vma_pages()` or
    /// `migrate_device_pages()`. May sleep.
    #[inline(always)]
    pub fn migrate(mut self) -> Migrated<'a> {
        self.0.migrate();

        let this = mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not used or dropped any more, so the value has one owner.
        Migrated(unsafe { core::ptr::read(&this.0) })
    }
}

impl Drop for Collected<'_> {
    fn drop(&mut self) {
        for entry in self.0.arrays.both().1 {
            let entry = mem::take(entry);
            // SAFETY: By the type invariant of `Inner` the entry's reference and lock are ours; it
            // was just taken out of the array.
            drop(unsafe { LockedFolio::from_migrate_pfn(entry) });
        }
        // Without destinations, this restores every source.
        self.0.finalize();
    }
}

/// Places that are to be filled with folios of one page.
// To be looked at one by one, by a loop over indices: what an iterator makes of that is larger.
pub struct Singles<'a> {
    src: &'a [MigratePfn],
    dst: &'a mut [MigratePfn],
}

impl Singles<'_> {
    /// The number of places.
    #[inline(always)]
    pub fn nr_pages(&self) -> usize {
        self.dst.len()
    }

    /// The place at `index`, if a source is there that can be migrated, and is a single page, or a hole
    /// of that size.
    #[inline(always)]
    pub fn at(&mut self, index: usize) -> Option<Single<'_>> {
        Single::new(*self.src.get(index)?, self.dst.get_mut(index)?)
    }
}

/// The place of a page that can be migrated, or of a hole, to be filled with a folio of one page.
pub struct Single<'a> {
    /// An entry of the sources, that is not compound.
    source: MigratePfn,
    /// The one of the destinations beside it.
    destination: &'a mut MigratePfn,
}

impl<'a> Single<'a> {
    #[inline(always)]
    fn new(source: MigratePfn, destination: &'a mut MigratePfn) -> Option<Self> {
        if !source.is_migrating() || source.is_compound() {
            return None;
        }
        Some(Self {
            source,
            destination,
        })
    }

    /// The page, locked and referenced; [`None`] for a hole.
    #[inline(always)]
    pub fn folio(&self) -> Option<&'a Folio> {
        // SAFETY: By the type invariant of `Inner` there is a reference, as long as the arrays are
        // borrowed; the core marks all large folios as compound, so the page is a folio.
        unsafe { self.source.single_folio() }
    }

    /// Puts `folio` there. Whoever copies fills it with the source's bytes before
    /// [`migrate`](Collected::migrate). There must be none yet. [`EINVAL`]: it is a large folio.
    #[inline(always)]
    pub fn fill(self, folio: LockedFolio) -> Result {
        if folio.is_large() {
            return Err(EINVAL);
        }
        debug_assert!(*self.destination == MigratePfn::NONE);
        // INVARIANT: The entry takes over the reference and the lock, at the place of a source of
        // the same order.
        *self.destination = folio.into_single_migrate_pfn();
        Ok(())
    }
}

/// The folios of one page among the sources of a migration, or the destinations.
///
/// # Invariants
///
/// Entries that name pages hold references on their folios, for as long as the arrays are borrowed.
// As `Singles`, for loops over indices.
#[derive(Clone, Copy)]
pub struct SingleFolios<'a> {
    entries: &'a [MigratePfn],
    wanted: Wanted,
}

impl<'a> SingleFolios<'a> {
    /// The number of places.
    #[inline(always)]
    pub fn nr_pages(self) -> usize {
        self.entries.len()
    }

    /// The one at `index`, if there is one.
    #[inline(always)]
    pub fn at(self, index: usize) -> Option<&'a Folio> {
        let entry = self
            .entries
            .get(index)
            .filter(|entry| entry.is_single(self.wanted))?;

        // SAFETY: By the type invariant; large folios are marked as compound, so the page is a folio.
        unsafe { entry.single_folio() }
    }

    /// How many there are from `index` on, `most` at most, in the places of as many pages one behind
    /// another, the first of which has the frame `pfn`, and each other the one that is by `step` (1,
    /// or -1) away from that of the one before.
    #[inline(always)]
    pub(super) fn nr_contiguous(self, index: usize, most: usize, pfn: Pfn, step: isize) -> usize {
        let entries = self.entries.get(index..).unwrap_or_default();
        let mut pfn = pfn;
        let mut nr = 0;

        for entry in entries.iter().take(most) {
            if !entry.is_single_of(self.wanted, pfn) {
                break;
            }
            pfn = Pfn::new(pfn.as_usize().wrapping_add_signed(step));
            nr += 1;
        }
        nr
    }
}

/// Whether any of the entries stands for a large folio, or a hole to be filled with one.
#[inline(always)]
fn has_compound(src: &[MigratePfn]) -> bool {
    match src {
        // Mostly, all of them are.
        [entry, ..] if entry.is_compound() => true,
        [_] => false,
        _ => src.iter().fold(0, |any, entry| any | entry.bits()) & MigratePfn::COMPOUND != 0,
    }
}

/// Pages of which some were replaced; each knows whether it was.
///
/// Dropping the value makes the new pages visible to the process and restores those that were not
/// replaced.
pub struct Migrated<'a>(Inner<'a>);

impl Migrated<'_> {
    /// Calls `f` with each folio that was replaced, and its number of pages.
    #[inline(always)]
    pub fn for_each_source(&self, mut f: impl FnMut(&Folio, usize)) {
        let src = self.0.arrays.src();

        if has_compound(src) {
            for step in self.steps().filter(|step| step.is_migrating()) {
                if let Some(folio) = step.folio() {
                    f(folio, step.nr_pages());
                }
            }
            return;
        }
        for entry in src.iter().filter(|entry| entry.is_migrating_page()) {
            // SAFETY: By the type invariant there is a reference; the core marks all large folios as
            // compound, so the page is a folio.
            if let Some(folio) = unsafe { entry.single_folio() } {
                f(folio, 1);
            }
        }
    }

    /// The number of pages that were migrated.
    #[inline(always)]
    pub fn nr_migrated(&self) -> usize {
        // SAFETY: By the type invariant of `Inner`.
        unsafe { Tally::nr_migrated(self.0.arrays.src()) }
    }

    /// The sources, folio by folio: [`Step::is_migrating`] now says whether it was replaced.
    pub fn steps(&self) -> Steps<'_> {
        self.0.steps()
    }

    /// What is in the place of the source at page `index` now, if that was replaced.
    pub fn destination(&self, index: usize) -> Option<&Folio> {
        self.0.destination(index)
    }

    /// The address space and the address in it, in bytes, that a source was collected by. [`None`]
    /// if it was collected by its frame number.
    pub fn address_of(&self, step: &Step<'_>) -> Option<(&MmWithUser, usize)> {
        match &self.0.by {
            By::Address => {
                let (vma, start) = self.0.arrays.args().place();
                // SAFETY: The area that was collected from is locked for as long as the value
                // exists.
                let vma = unsafe { VmaRef::from_raw(vma) };

                Some((vma.mm(), start + step.index * PAGE_SIZE))
            }
            By::Frame => None,
        }
    }
}

impl Drop for Migrated<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.finalize();
    }
}
