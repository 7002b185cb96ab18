// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Being told when a part of an address space changes.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)
//!
//! A device that has page tables of its own mirrors those of a process. Nothing but this protocol
//! keeps the pages that it finds: it [looks](Interval::read_begin), then takes a lock, and only if
//! nothing has changed in between writes its own page tables; who changes something takes the same
//! lock, and has the device forget what it knew, before a page is freed. Here the lock belongs to
//! the protocol: the driver's page tables are its contents, and both sides are called with it held.

use crate::{
    bindings,
    mm::PagemapOwner, //
};
use core::{
    mem::offset_of,
    ops::Range,
    pin::Pin, //
};
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    page::PAGE_MASK,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    types::Opaque, //
};

/// Why a part of an address space changes; `enum mmu_notifier_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is unmapped, or moved to other addresses.
    Unmap,
    /// Pages are replaced, discarded, or swapped out, or something else happens to them.
    Clear,
    /// What may be done with all of it changes.
    ProtectionArea,
    /// What may be done with some of its pages changes.
    ProtectionPages,
    /// It is looked for pages that are written to.
    SoftDirty,
    /// The address space ends.
    Release,
    /// Pages are migrated to or from device memory.
    Migrate,
    /// A device is given pages for itself alone.
    Exclusive,
}

/// A change of an address space that is about to be made; `struct mmu_notifier_range`.
pub struct Change {
    range: Range<usize>,
    event: Event,
    owner: *mut c_void,
    may_block: bool,
}

impl Change {
    /// # Safety
    ///
    /// `range` must be what the core calls a notifier with.
    unsafe fn from_raw(range: *const bindings::mmu_notifier_range) -> Self {
        // SAFETY: Promised by the caller.
        let raw = unsafe { &*range };
        let event = match raw.event {
            bindings::mmu_notifier_event_MMU_NOTIFY_UNMAP => Event::Unmap,
            bindings::mmu_notifier_event_MMU_NOTIFY_PROTECTION_VMA => Event::ProtectionArea,
            bindings::mmu_notifier_event_MMU_NOTIFY_PROTECTION_PAGE => Event::ProtectionPages,
            bindings::mmu_notifier_event_MMU_NOTIFY_SOFT_DIRTY => Event::SoftDirty,
            bindings::mmu_notifier_event_MMU_NOTIFY_RELEASE => Event::Release,
            bindings::mmu_notifier_event_MMU_NOTIFY_MIGRATE => Event::Migrate,
            bindings::mmu_notifier_event_MMU_NOTIFY_EXCLUSIVE => Event::Exclusive,
            // The one that fits all.
            _ => Event::Clear,
        };

        Self {
            range: raw.start..raw.end,
            event,
            owner: match event {
                Event::Migrate | Event::Exclusive => raw.owner,
                // Not initialized.
                _ => core::ptr::null_mut(),
            },
            may_block: raw.flags & bindings::MMU_NOTIFIER_RANGE_BLOCKABLE != 0,
        }
    }

    /// The addresses that it is about, in bytes. They can reach out of the interval.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Why.
    pub fn event(&self) -> Event {
        self.event
    }

    /// Whether it is a migration to or from the memory of devices that have this pagemap owner. A
    /// driver that migrates sees its own migrations, and may have taken care of them.
    pub fn is_migration_by(&self, owner: PagemapOwner) -> bool {
        self.event == Event::Migrate && self.owner == owner.as_raw()
    }

    /// Whether who makes the change may sleep, and so the notifier.
    pub fn may_block(&self) -> bool {
        self.may_block
    }
}

/// What a driver does when a part of an address space changes.
pub trait IntervalOps: Send + Sync + Sized + 'static {
    /// What the lock guards: the device's page tables, say. One lock may serve many intervals.
    type State: Send + Unpin + 'static;

    /// Sees to it that the device does not use what it knows of the part of `change` that is in
    /// the interval, before this returns.
    ///
    /// May sleep, but not allocate memory in ways that wait for it to be freed (`GFP_KERNEL`), nor
    /// take locks under which others do: this is called from there. That goes for whoever holds the
    /// lock of `state`. Must not drop the interval.
    fn invalidate(&self, state: &mut Self::State, change: &Change);

    /// The same where sleeping is not allowed. `false`: it would have to sleep; that is as good as
    /// an answer, and nothing has changed then.
    fn try_invalidate(&self, state: &mut Self::State, change: &Change) -> bool {
        let _ = (state, change);
        false
    }
}

/// An interval of an address space, whose changes a driver is told of; `struct
/// mmu_interval_notifier`.
///
/// Dropping it waits until no callback runs any more: it may sleep, and must be done neither by a
/// callback nor with a lock held that one takes.
///
/// # Invariants
///
/// - `notifier` is inserted for `range` of `mm`, from the end of its initialization until `drop`.
/// - Its sequence number changes with `lock` held only, except that the core sets the first one.
#[pin_data(PinnedDrop)]
pub struct Interval<T: IntervalOps> {
    lock: Arc<Mutex<T::State>>,
    mm: ARef<Mm>,
    range: Range<usize>,
    owner: PagemapOwner,
    #[pin]
    ops: T,
    /// Initialized last: callbacks come at once.
    #[pin]
    notifier: Opaque<bindings::mmu_interval_notifier>,
}

// SAFETY: The notifier may be used and removed by any thread; the rest is `Send`.
unsafe impl<T: IntervalOps> Send for Interval<T> {}
// SAFETY: The notifier is guarded by the core and by `lock`; the rest is `Sync`.
unsafe impl<T: IntervalOps> Sync for Interval<T> {}

impl<T: IntervalOps> Interval<T> {
    /// The table of callbacks.
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate),
        invalidate_start: None,
        invalidate_finish: None,
    };

    /// An interval of `range` (in bytes) of `mm`.
    ///
    /// `lock` guards what the driver knows of it; `owner` is that of the device memory whose pages
    /// count as [pages](crate::mm::Pages) of the driver's. The mmap lock must not be held; may
    /// sleep. [`EINVAL`]: the range is empty or misaligned. [`ENOMEM`]; [`EINTR`]; and what `ops`
    /// says.
    pub fn new<E>(
        mm: &MmWithUser,
        range: Range<usize>,
        owner: PagemapOwner,
        lock: Arc<Mutex<T::State>>,
        ops: impl PinInit<T, E>,
    ) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        let interval_mm: ARef<Mm> = ARef::from(&**mm);
        let user_mm: ARef<MmWithUser> = mm.into();
        let interval = range.clone();

        try_pin_init!(Self {
            lock,
            mm: interval_mm,
            range,
            owner,
            ops <- ops,
            notifier <- Opaque::try_ffi_init(move |slot| {
                // INVARIANT: Inserted.
                // SAFETY: Memory in a pinned object that removes it before it is freed. The
                // callbacks find an object all other fields of which are initialized.
                unsafe { insert(slot, &user_mm, interval, &Self::OPS) }
            }),
        }? Error)
    }

    /// The addresses, in bytes.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The address space.
    pub fn mm(&self) -> &Mm {
        &self.mm
    }

    /// The owner of the driver's own device memory.
    pub fn owner(&self) -> PagemapOwner {
        self.owner
    }

    /// The lock.
    pub fn lock(&self) -> &Mutex<T::State> {
        &self.lock
    }

    /// The driver's data.
    pub fn ops(&self) -> &T {
        &self.ops
    }

    /// Begins to look at the address space, after waiting for changes that are being made. May
    /// sleep; not with the lock held.
    pub fn read_begin(&self) -> Seq<'_, T> {
        Seq {
            interval: self,
            // SAFETY: By the type invariant it is inserted.
            seq: unsafe { bindings::mmu_interval_read_begin(self.notifier.get()) },
        }
    }

    /// The notifier, which is inserted as long as `self` is borrowed.
    pub(crate) fn notifier(&self) -> *mut bindings::mmu_interval_notifier {
        self.notifier.get()
    }

    /// What was begun with this sequence number.
    pub(crate) fn seq(&self, seq: usize) -> Seq<'_, T> {
        Seq {
            interval: self,
            seq,
        }
    }

    /// What a change for this interval's own exclusive access is marked with.
    pub(crate) fn exclusive_owner(&self) -> *mut c_void {
        self.notifier.get().cast()
    }

    /// # Safety
    ///
    /// Called by the core, with the notifier of a `Self` that is inserted.
    unsafe extern "C" fn invalidate(
        notifier: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: usize,
    ) -> bool {
        // SAFETY: Promised by the caller.
        let (this, change) = unsafe {
            (
                &*notifier.byte_sub(offset_of!(Self, notifier)).cast::<Self>(),
                Change::from_raw(range),
            )
        };

        // The page stays mapped, and so it stays; who makes it exclusive knows of it. To take it
        // for a change would make that fail for ever.
        if change.event == Event::Exclusive && change.owner == this.exclusive_owner() {
            return true;
        }

        let state = if change.may_block {
            Some(this.lock.lock())
        } else {
            this.lock.try_lock()
        };
        let Some(mut state) = state else {
            return false;
        };

        // INVARIANT: The lock is held. Always, even if the driver takes no notice: what was found
        // before must not be used.
        // SAFETY: The notifier is inserted; others only read the number, as here, in one access.
        unsafe { (&raw mut (*notifier).invalidate_seq).write_volatile(seq) };

        if change.may_block {
            this.ops.invalidate(&mut state, &change);
            true
        } else {
            this.ops.try_invalidate(&mut state, &change)
        }
    }
}

#[pinned_drop]
impl<T: IntervalOps> PinnedDrop for Interval<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant it is inserted.
        unsafe { bindings::mmu_interval_notifier_remove(self.notifier.get()) };
    }
}

/// Inserts a notifier. Not inlined: it is the same for all drivers.
///
/// # Safety
///
/// `slot` must be pinned memory that is removed before it is freed, and callbacks be fit to be
/// called from now on.
#[inline(never)]
unsafe fn insert(
    slot: *mut bindings::mmu_interval_notifier,
    mm: &MmWithUser,
    range: Range<usize>,
    ops: &'static bindings::mmu_interval_notifier_ops,
) -> Result {
    if range.is_empty() || (range.start | range.end) & !PAGE_MASK != 0 {
        return Err(EINVAL);
    }
    // SAFETY: Promised by the caller; the address space has users.
    kernel::error::to_result(unsafe {
        bindings::mmu_interval_notifier_insert(slot, mm.as_raw(), range.start, range.len(), ops)
    })
}

/// What has been seen of an interval since [`Interval::read_begin`], to be used only if nothing has
/// changed since.
pub struct Seq<'a, T: IntervalOps> {
    interval: &'a Interval<T>,
    seq: usize,
}

impl<T: IntervalOps> Seq<'_, T> {
    /// Whether something has changed, without the lock: if not, that can still come.
    pub fn is_stale(&self) -> bool {
        // SAFETY: By the type invariant of `Interval` the notifier is inserted.
        let seq =
            unsafe { (&raw const (*self.interval.notifier.get()).invalidate_seq).read_volatile() };

        seq != self.seq
    }

    /// Takes the lock, and calls `f` if nothing has changed. [`None`]: something has; begin again.
    ///
    /// As long as `f` runs, nothing can change. What goes for
    /// [`invalidate`](IntervalOps::invalidate) goes for `f`: no allocation that waits for memory.
    pub fn commit<R>(&self, f: impl FnOnce(&mut T::State) -> R) -> Option<R> {
        let mut state = self.interval.lock.lock();

        (!self.is_stale()).then(|| f(&mut state))
    }
}
