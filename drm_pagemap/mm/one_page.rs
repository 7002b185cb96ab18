// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The migration of one page, by virtual address: what [`Collected`](crate::mm::Collected) and
//! [`Migrated`](crate::mm::Migrated) do for many, without arrays and walks over them.
//!
//! C header: [`include/linux/migrate.h`](srctree/include/linux/migrate.h)

use crate::{
    bindings,
    mm::{
        vma_range::Args,
        Folio,
        LockedFolio,
        MigratePfn,
        PagemapOwner,
        Select,
        VmaRange, //
    },
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData, //
};
use kernel::{
    mm::virt::VmaRef,
    prelude::*, //
};

/// What was found of a page.
pub enum Source<'a> {
    /// It can't be migrated, or not by itself.
    Stays,
    /// Nothing: the address was never touched.
    Hole,
    /// A folio of one page.
    Page(&'a Folio),
}

/// A page, or the address of one, that is isolated and unmapped.
///
/// Dropping the value puts the page back, or makes the one that it was [replaced](Self::replace) by
/// visible to the process.
///
/// # Invariants
///
/// The state is as migrate_vma_setup() left it, or migrate_vma_pages(), which was called if there
/// is a destination. The source, if it names a page, stands for one reference on its folio, and its
/// lock; so does the destination, which is a folio of one page.
pub struct OnePage<'a> {
    state: UnsafeCell<State>,
    _p: PhantomData<&'a VmaRef>,
}

struct State {
    args: Args,
    src: MigratePfn,
    dst: MigratePfn,
}

impl State {
    /// The arguments for C, with pointers to the entries: put in anew each time, as the value moves.
    #[inline(always)]
    fn raw(&mut self) -> &mut bindings::migrate_vma {
        let (src, dst) = (&raw mut self.src, &raw mut self.dst);

        self.args.with(src.cast(), dst.cast(), 1)
    }
}

impl<'a> OnePage<'a> {
    /// Collects the page of `range` if `select` asks for it; `migrate_vma_setup()`.
    ///
    /// `owner` says whose device pages. The range's area must be under the mmap lock. May sleep.
    /// [`EINVAL`]: the range is of more than one page, or of an area that can't migrate.
    #[inline(always)]
    pub fn collect(range: &VmaRange<'a>, owner: PagemapOwner, select: Select) -> Result<Self> {
        if range.nr_pages() != 1 {
            return Err(EINVAL);
        }

        let mut state = State {
            args: Args::new(range, owner, select, None),
            src: MigratePfn::NONE,
            dst: MigratePfn::NONE,
        };
        // SAFETY: The area is valid and locked, `VmaRange` has checked the range against it, and
        // there is an entry for its page in both places.
        kernel::error::to_result(unsafe { bindings::migrate_vma_setup(state.raw()) })?;
        // INVARIANT: As migrate_vma_setup() leaves it, without a destination.
        Ok(Self {
            state: UnsafeCell::new(state),
            _p: PhantomData,
        })
    }

    #[inline(always)]
    fn src(&self) -> MigratePfn {
        // SAFETY: Nobody has a reference into the state while this runs.
        unsafe { (*self.state.get()).src }
    }

    /// What was found.
    #[inline(always)]
    pub fn source(&self) -> Source<'_> {
        let src = self.src();

        if !src.is_migrating() || src.is_compound() {
            return Source::Stays;
        }
        // SAFETY: By the type invariant there is a reference, for as long as the value exists; the
        // core marks all large folios as compound, so the page is a folio.
        match unsafe { src.single_folio() } {
            Some(folio) => Source::Page(folio),
            None => Source::Hole,
        }
    }

    /// Puts `folio` in its place; `migrate_vma_pages()`. To be called once. Returns whether the page
    /// was still there. May sleep.
    ///
    /// [`EINVAL`]: either is a large folio, or it was called before.
    #[inline(always)]
    pub fn replace(&self, folio: LockedFolio) -> Result<bool> {
        if folio.is_large() || self.src().is_compound() {
            return Err(EINVAL);
        }
        // SAFETY: Nobody else has a reference into the state; the type is not `Sync`, and what the
        // core calls in the meantime does not know of it. Folios that were borrowed are not in it.
        let state = unsafe { &mut *self.state.get() };
        if state.dst != MigratePfn::NONE {
            return Err(EINVAL);
        }

        // INVARIANT: The entry takes over the reference and the lock.
        state.dst = folio.into_single_migrate_pfn();
        // SAFETY: As migrate_vma_setup() left it, for the first time; the destination is as the type
        // invariant says.
        unsafe { bindings::migrate_vma_pages(state.raw()) };
        Ok(state.src.is_migrating())
    }
}

impl Drop for OnePage<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: By the type invariant, it is what the core expects. Called once.
        unsafe { bindings::migrate_vma_finalize(self.state.get_mut().raw()) };
    }
}
