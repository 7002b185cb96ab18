// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Zone device data: what a device page knows of its allocation.
//!
//! Every page that was migrated to an allocation shares one reference-counted [`Zdd`], found
//! through `zone_device_data`. When the last of those pages is free, the allocation is released.

use crate::{
    bindings,
    dev_ops,
    dpagemap::DrmPagemap,
    dpagemap_devmem::DevmemRef,
    mm::{
        self,
        Folio,
        Frames,
        LockedFolio,
        Singles, //
    },
    policy::{
        thrash,
        window::Touches,
        PolicyState, //
    },
    trace, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        atomic::{
            Full,
            Relaxed, //
        },
        Refcount, //
    }, //
};

/// Zone device data; `struct drm_pagemap_zdd`.
///
/// # Invariants
///
/// Instances live in a `KBox` that belongs to the reference count.
pub struct Zdd {
    refs: Refcount,
    // In this order: the allocation's release operation may need the pagemap.
    devmem: DevmemRef,
    dpagemap: ARef<DrmPagemap>,
    touches: Touches,
    number: u64,
}

// SAFETY: By the type invariant instances are counted, and freed when the count is 0.
unsafe impl AlwaysRefCounted for Zdd {
    #[inline]
    fn inc_ref(&self) {
        self.refs.inc();
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference, so the object is alive.
        if unsafe { obj.as_ref() }.refs.dec_and_test() {
            // SAFETY: By the type invariant it is in a box; that was the last reference.
            drop(unsafe { KBox::from_raw(obj.as_ptr()) });
        }
    }
}

/// Low bit of `zone_device_data`, beside the pointer: the folio's contents were migrated away, so
/// what it holds is stale.
const FLAG_MIGRATED: usize = bindings::ZDD_FLAG_MIGRATED;

kernel::static_assert!(core::mem::align_of::<Zdd>() > FLAG_MIGRATED);

impl Zdd {
    /// Wraps the allocation's reference. May sleep.
    ///
    /// On [`ENOMEM`] the allocation is released.
    pub fn new(devmem: DevmemRef) -> Result<ARef<Self>> {
        let room = KBox::new_uninit(GFP_KERNEL)?;
        let zdd = room.write(Self {
            refs: Refcount::new(1),
            dpagemap: devmem.dpagemap().into(),
            devmem,
            touches: Touches::new(),
            number: thrash::next_allocation(),
        });

        // SAFETY: The box is given up for the one reference that the count starts with; boxes are
        // not null.
        Ok(unsafe { ARef::from_raw(NonNull::new_unchecked(KBox::into_raw(zdd))) })
    }

    /// The allocation.
    #[inline]
    pub fn devmem(&self) -> &DevmemRef {
        &self.devmem
    }

    /// The pagemap of the allocation's pages.
    #[inline]
    pub fn dpagemap(&self) -> &DrmPagemap {
        &self.dpagemap
    }

    /// The pagemap's policy.
    #[inline]
    pub(crate) fn policy(&self) -> &PolicyState {
        // SAFETY: The reference is there.
        unsafe { self.dpagemap.policy() }
    }

    /// What CPU faults have brought home.
    #[inline]
    pub(crate) fn touches(&self) -> &Touches {
        &self.touches
    }

    /// Numbers go up from one migration to the next.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether both are the same.
    #[inline]
    pub fn is(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }

    /// Begins to take device frames into use for this allocation, as `nr` folios at most. [`EINVAL`]:
    /// they are not of its pagemap.
    #[inline(always)]
    pub fn attach<'a>(this: &'a ARef<Self>, frames: Frames<'a>, nr: usize) -> Result<Attach<'a>> {
        if !core::ptr::eq(frames.zone(), this.dpagemap.zone_device()) {
            return Err(EINVAL);
        }

        // All of the references at once: one by one, they would cost more than all the rest.
        this.refs.as_atomic().add(i32::try_from(nr)?, Relaxed);
        // INVARIANT: Taken just now.
        Ok(Attach {
            zdd: this,
            frames,
            refs: nr,
        })
    }

    /// The data of a folio that this layer migrated to device memory.
    ///
    /// [`None`] for folios of RAM, and for those of devices that use another layer.
    #[inline]
    pub fn of_folio(folio: &Folio) -> Option<&Self> {
        if !dev_ops::is_ours(folio) {
            return None;
        }
        // SAFETY: In folios of our zone devices the word is what `attach` put there, with a
        // reference that belongs to the folio, which outlives the borrow.
        NonNull::new(data_ptr(folio)).map(|zdd| unsafe { zdd.as_ref() })
    }

    /// Notes that the folio's contents have been migrated away.
    ///
    /// Does nothing to folios that this layer doesn't manage. The caller should have the folio's
    /// lock.
    #[inline]
    pub fn retire(folio: &Folio) {
        if !dev_ops::is_ours(folio) {
            return;
        }
        let data = folio
            .zone_device_data()
            .map_addr(|addr| addr | FLAG_MIGRATED);

        // SAFETY: A device-private folio of ours. The pointer in the word stays what it is.
        unsafe { folio.set_zone_device_data(data) };
    }

    /// As [`retire`](Self::retire), for a folio of this allocation; others are left alone.
    #[inline]
    pub(crate) fn retire_own(&self, folio: &Folio) {
        if !self.has_contents(folio) {
            return;
        }
        let data = core::ptr::from_ref(self).cast_mut().cast::<c_void>();

        // SAFETY: A device-private folio of ours. The pointer in the word stays what it is.
        unsafe { folio.set_zone_device_data(data.map_addr(|addr| addr | FLAG_MIGRATED)) };
    }

    /// Whether the folio's contents have been migrated away.
    #[inline]
    pub fn is_retired(folio: &Folio) -> bool {
        dev_ops::is_ours(folio) && folio.zone_device_data().addr() & FLAG_MIGRATED != 0
    }

    /// Whether the folio, one of a zone device, is of this allocation.
    #[inline]
    pub fn is_of(&self, folio: &Folio) -> bool {
        core::ptr::eq(data_ptr(folio).cast_const(), self)
    }

    /// Whether the folio, one of a zone device, is of this allocation, and its contents have not been
    /// migrated away.
    #[inline]
    pub fn has_contents(&self, folio: &Folio) -> bool {
        // The address of a `Zdd` is nowhere but in folios of its allocation.
        core::ptr::eq(folio.zone_device_data().cast_const().cast(), self)
    }

    /// The last reference on a device folio is gone: drops the folio's reference on its data. Any
    /// context.
    ///
    /// Returns whether it is free and had none, as it was [taken](Self::detach) from its allocation.
    ///
    /// # Safety
    ///
    /// `folio` must be a free device-private folio that [`attach`](Self::attach) made.
    pub(crate) unsafe fn folio_free(folio: &Folio) -> bool {
        // SAFETY: Promised by the caller.
        if unsafe { mm::undo_free(folio) } {
            return false;
        }
        let Some(zdd) = NonNull::new(data_ptr(folio)) else {
            // SAFETY: It is being freed, and its order was looked at for the last time.
            unsafe { folio.forget_order() };
            return true;
        };

        // SAFETY: The folio's reference keeps it alive until below.
        trace::freed(folio, unsafe { zdd.as_ref() });
        // SAFETY: It is being freed; the tracepoint was the last to look at its order.
        unsafe { folio.forget_order() };
        // SAFETY: Nobody else looks at a free folio's data.
        unsafe { folio.set_zone_device_data(core::ptr::null_mut()) };
        // SAFETY: The reference that `attach` or `folio_split` gave to the folio keeps it alive.
        let refs = unsafe { zdd.as_ref() }.refs.as_atomic().fetch_sub(1, Full);
        if refs == 1 {
            // SAFETY: By the type invariant it is in a box; that was the last reference.
            drop(unsafe { KBox::from_raw(zdd.as_ptr()) });
        }
        false
    }

    /// Takes a folio from its allocation for ever, and returns the reference that it had. [`None`]: it
    /// was taken before.
    ///
    /// # Safety
    ///
    /// `folio` must be a locked device-private folio that [`attach`](Self::attach) made, and not be
    /// mapped; and what its zone device's operations do must be right for one without data.
    #[cfg(CONFIG_DRM = "y")]
    pub(crate) unsafe fn detach(folio: &Folio) -> Option<ARef<Self>> {
        let zdd = NonNull::new(data_ptr(folio))?;

        // SAFETY: Promised by the caller; who looks at the data has the lock, or finds the page mapped.
        unsafe { folio.set_zone_device_data(core::ptr::null_mut()) };
        // SAFETY: The reference that `attach` or `folio_split` gave to the folio.
        Some(unsafe { ARef::from_raw(zdd) })
    }

    /// A device folio was split: `new` is a part of what `old` was. Any context.
    ///
    /// # Safety
    ///
    /// Both must be locked device-private folios, of which `old` has data that
    /// [`attach`](Self::attach) gave it, or [none](Self::detach).
    pub(crate) unsafe fn folio_split(old: &Folio, new: &Folio) {
        // SAFETY: The first word of a zone device folio is its `pgmap`; the caller has both folios.
        unsafe {
            (*new.as_raw())
                .__bindgen_anon_1
                .__bindgen_anon_1
                .__bindgen_anon_1
                .pgmap = (*old.as_raw())
                .__bindgen_anon_1
                .__bindgen_anon_1
                .__bindgen_anon_1
                .pgmap;
        }
        let Some(zdd) = NonNull::new(data_ptr(old)) else {
            // SAFETY: As above; the word of what was a page in the middle means nothing.
            return unsafe { new.set_zone_device_data(core::ptr::null_mut()) };
        };
        // SAFETY: The old folio's reference keeps it alive; the new one gets a reference of its own.
        unsafe {
            zdd.as_ref().inc_ref();
            new.set_zone_device_data(old.zone_device_data());
        }
    }
}

/// Device frames being taken into use for an allocation.
///
/// # Invariants
///
/// `refs` references on `zdd` belong to this value.
pub struct Attach<'a> {
    zdd: &'a Zdd,
    frames: Frames<'a>,
    refs: usize,
}

impl Attach<'_> {
    /// Takes `1 << order` free frames from the one at `index` on into use as a folio of the
    /// allocation.
    ///
    /// [`ENOSPC`]: there were as many folios as was said. Else as
    /// [`Frames::init_folio`](crate::mm::Frames::init_folio).
    // Not inlined: other crates can't reach the helper that making a folio takes.
    #[inline(never)]
    pub fn folio(&mut self, index: usize, order: u32) -> Result<LockedFolio> {
        self.take(index, order)
    }

    /// As [`folio`](Self::folio).
    #[inline(always)]
    pub(crate) fn take(&mut self, index: usize, order: u32) -> Result<LockedFolio> {
        let refs = self.refs.checked_sub(1).ok_or(ENOSPC)?;
        let data = core::ptr::from_ref::<Zdd>(self.zdd).cast_mut().cast();
        // SAFETY: `folio_free()` of `Zdd` is the callback of all pagemaps, and finds a reference
        // that is given up below. The frames are the allocation's, which its driver gave to no one
        // else.
        let mut folio = unsafe { self.frames.init_folio(index, order, data) }?;

        trace::attached(&mut folio);

        // INVARIANT: One of them is the folio's now.
        self.refs = refs;
        Ok(folio)
    }

    /// Fills all `places` that can be with folios of one page, each made of the frame at the same index,
    /// and calls `made` with it.
    ///
    /// [`ENOSPC`]: there would be more than was said. Else as [`folio`](Self::folio).
    // An iterator takes a register more, of which there are too few: 20 instructions a page.
    #[expect(clippy::needless_range_loop)]
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        mut places: Singles<'_>,
        mut made: impl FnMut(usize, &Folio),
    ) -> Result {
        let nr_pages = places.nr_pages();
        let frames = self.frames.first(nr_pages);
        let pfns = frames.pfns();

        if pfns.len() < nr_pages || !frames.are_its_own() {
            return Err(EINVAL);
        }
        let data = core::ptr::from_ref::<Zdd>(self.zdd).cast_mut().cast();

        for index in 0..nr_pages.min(pfns.len()) {
            let Some(place) = places.at(index) else {
                continue;
            };
            let refs = self.refs.checked_sub(1).ok_or(ENOSPC)?;
            // SAFETY: As in `take`; it was checked above that the frame is one of the zone device.
            let mut folio = unsafe { frames.init_checked(pfns[index], 0, data) }?;

            trace::attached(&mut folio);
            // INVARIANT: One of them is the folio's now.
            self.refs = refs;
            made(index, &folio);
            place.fill(folio)?;
        }
        Ok(())
    }
}

impl Drop for Attach<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.refs > 0 {
            // Not the last ones: `zdd` has one.
            self.zdd
                .refs
                .as_atomic()
                .fetch_sub(self.refs as i32, Relaxed);
        }
    }
}

/// The pointer in a device folio's data, without the flag.
#[inline]
fn data_ptr(folio: &Folio) -> *mut Zdd {
    folio
        .zone_device_data()
        .map_addr(|addr| addr & !FLAG_MIGRATED)
        .cast()
}
