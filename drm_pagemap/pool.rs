// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Buffers for one piece of a migration, kept for the next one.
//!
//! A large range is migrated in pieces of what a PMD maps, so that the memory that this takes does
//! not grow with the range. A migration of a single page takes the same buffers: cheaper than to
//! allocate and clear them. There is a buffer of each kind for each processor, or fewer if fewer
//! were ever in use; and, for pieces of several large folios, two for all processors.

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
        Atomic,
        Full,
        Relaxed, //
    }, //
};

/// How many buffers of a kind are kept at most.
const SLOTS: usize = 64;

/// A kind of buffer, which begins as zeroes.
///
/// Who gives one back leaves it as it was made, but for what the kind says may be stale.
pub(crate) trait Buffer: Send + Sized + Zeroable + 'static {
    /// Where those of this kind are kept.
    fn pool() -> &'static Pool<Self>;
}

/// Buffers that are kept.
///
/// # Invariants
///
/// A slot is 0, or the address of a `KVBox<T>` that belongs to it.
pub(crate) struct Pool<T, const N: usize = SLOTS> {
    slots: [Atomic<usize>; N],
    _p: PhantomData<fn() -> T>,
}

impl<T: Send, const N: usize> Pool<T, N> {
    pub(crate) const fn new() -> Self {
        // INVARIANT: All are empty.
        Self {
            slots: [const { Atomic::new(0) }; N],
            _p: PhantomData,
        }
    }

    /// That of the processor which this runs on, or ran on a moment ago.
    #[inline(always)]
    fn slot(&self) -> &Atomic<usize> {
        &self.slots[CpuId::current().as_u32() as usize % N]
    }

    /// Puts a buffer into `slot`, or nothing; returns what was there.
    #[inline(always)]
    fn exchange(slot: &Atomic<usize>, buffer: Option<KVBox<T>>) -> Option<KVBox<T>> {
        let raw = buffer.map_or(core::ptr::null_mut(), KVBox::into_raw);

        // INVARIANT: The box, if any, belongs to the slot from now on.
        let raw: *mut T =
            core::ptr::with_exposed_provenance_mut(slot.xchg(raw.expose_provenance(), Full));
        if raw.is_null() {
            None
        } else {
            // SAFETY: By the type invariant, a box that belonged to the slot until just now.
            Some(unsafe { KVBox::from_raw(raw) })
        }
    }

    /// Takes one, whatever the processor, if there is any.
    pub(crate) fn take(&self) -> Option<KVBox<T>> {
        self.slots
            .iter()
            .find_map(|slot| Self::exchange(slot, None))
    }

    /// Puts one back that was [taken](Self::take), if there is room.
    pub(crate) fn put(&self, buffer: KVBox<T>) {
        // What is in the way goes on to the next slot.
        self.slots
            .iter()
            .try_fold(buffer, |buffer, slot| Self::exchange(slot, Some(buffer)));
    }

    /// Frees those that are kept.
    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            if slot.load(Relaxed) != 0 {
                drop(Self::exchange(slot, None));
            }
        }
    }
}

/// A buffer in use; dropping it gives it back.
pub(crate) struct Lent<T: Buffer> {
    buffer: ManuallyDrop<KVBox<T>>,
    slot: &'static Atomic<usize>,
}

impl<T: Buffer> Lent<T> {
    /// May sleep. [`ENOMEM`].
    #[inline(always)]
    pub(crate) fn new() -> Result<Self> {
        let slot = T::pool().slot();
        let buffer = match Pool::<T>::exchange(slot, None) {
            Some(buffer) => buffer,
            None => Self::make()?,
        };

        Ok(Self {
            buffer: ManuallyDrop::new(buffer),
            slot,
        })
    }

    #[cold]
    #[inline(never)]
    fn make() -> Result<KVBox<T>> {
        Ok(KVBox::zeroed(GFP_KERNEL)?)
    }
}

impl<T: Buffer> Deref for Lent<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.buffer
    }
}

impl<T: Buffer> DerefMut for Lent<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.buffer
    }
}

impl<T: Buffer> Drop for Lent<T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: Not used any more after this.
        let buffer = unsafe { ManuallyDrop::take(&mut self.buffer) };

        // That of whoever was faster is one too many.
        if let Some(other) = Pool::<T>::exchange(self.slot, Some(buffer)) {
            free(other);
        }
    }
}

#[cold]
#[inline(never)]
fn free<T>(buffer: KVBox<T>) {
    drop(buffer);
}
