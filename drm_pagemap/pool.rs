// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Buffers for one piece of a migration, kept for the next one.
//!
//! A large range is migrated in pieces of what a PMD maps, so that the memory that this takes does
//! not grow with the range. A migration of a single page takes the same buffers: cheaper than to
//! allocate and clear them. There is a buffer of each kind for each processor, or fewer if fewer
//! were ever in use.

use crate::mm::NR_PMD_PAGES;
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{
        Deref,
        DerefMut, //
    },
};
use kernel::{
    cpu::CpuId,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    }, //
};

/// How many buffers of a kind are kept at most.
const SLOTS: usize = 64;

/// A kind of buffer.
///
/// Who gives one back leaves it as it was made, but for what the kind says may be stale.
pub(crate) trait Buffer: Send + Sized + 'static {
    /// Makes one with room for `npages` pages. May sleep.
    fn new(npages: usize) -> Result<Self>;

    /// Where those of this kind are kept.
    fn pool() -> &'static Pool<Self>;
}

/// Buffers with room for [`NR_PMD_PAGES`] pages.
///
/// # Invariants
///
/// A slot is 0, or the address of a `KBox<T>` that belongs to it.
pub(crate) struct Pool<T> {
    slots: [Atomic<usize>; SLOTS],
    _p: PhantomData<fn() -> T>,
}

impl<T: Buffer> Pool<T> {
    pub(crate) const fn new() -> Self {
        // INVARIANT: All are empty.
        Self {
            slots: [const { Atomic::new(0) }; SLOTS],
            _p: PhantomData,
        }
    }

    /// That of the processor which this runs on, or ran on a moment ago.
    fn slot(&self) -> &Atomic<usize> {
        &self.slots[CpuId::current().as_u32() as usize % SLOTS]
    }

    fn take(slot: &Atomic<usize>) -> Option<KBox<T>> {
        let raw: *mut T = core::ptr::with_exposed_provenance_mut(slot.xchg(0, Acquire));

        if raw.is_null() {
            None
        } else {
            // SAFETY: By the type invariant, a box that belonged to the slot until just now.
            Some(unsafe { KBox::from_raw(raw) })
        }
    }

    fn put(&self, buffer: KBox<T>) {
        let raw = KBox::into_raw(buffer);

        // INVARIANT: The box belongs to the slot from now on.
        if self
            .slot()
            .cmpxchg(0, raw.expose_provenance(), Release)
            .is_err()
        {
            // SAFETY: Given up just above, and not stored.
            drop(unsafe { KBox::from_raw(raw) });
        }
    }

    /// Frees those that are kept.
    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            if slot.load(Relaxed) != 0 {
                drop(Self::take(slot));
            }
        }
    }
}

/// A buffer in use; dropping it gives it back.
pub(crate) struct Lent<T: Buffer> {
    buffer: ManuallyDrop<KBox<T>>,
    /// Whether it has the size of those that are kept.
    keep: bool,
}

impl<T: Buffer> Lent<T> {
    /// One with room for `npages` pages at least. May sleep. [`ENOMEM`].
    #[inline]
    pub(crate) fn new(npages: usize) -> Result<Self> {
        let keep = npages <= NR_PMD_PAGES;
        let kept = if keep {
            Pool::take(T::pool().slot())
        } else {
            None
        };
        let buffer = match kept {
            Some(buffer) => buffer,
            None => KBox::new(T::new(npages.max(NR_PMD_PAGES))?, GFP_KERNEL)?,
        };

        Ok(Self {
            buffer: ManuallyDrop::new(buffer),
            keep,
        })
    }
}

impl<T: Buffer> Deref for Lent<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.buffer
    }
}

impl<T: Buffer> DerefMut for Lent<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.buffer
    }
}

impl<T: Buffer> Drop for Lent<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: Not used any more after this.
        let buffer = unsafe { ManuallyDrop::take(&mut self.buffer) };

        if self.keep {
            T::pool().put(buffer);
        }
    }
}
