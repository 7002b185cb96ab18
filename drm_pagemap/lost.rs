// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Device memory that is lost: the device is gone, and processes still have pages in it.
//!
//! Nobody can move these pages, as nobody can read them, nor take them away from who has them mapped.
//! But the driver isn't needed for them any more: who touches one gets a SIGBUS. So they are taken
//! from their allocations, and all that is the driver's goes. What is left, the zone device, is this
//! module's alone, which can't be unloaded until the last of these pages is free.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::{
    bindings,
    dpagemap::DrmPagemap,
    mm::{
        Folio,
        Pfn,
        Zone,
        ZoneDeviceRegion,
        NR_PMD_PAGES, //
    },
    queue,
    zdd::Zdd, //
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    }, //
};

/// What a zone device knows of its lost pages.
#[pin_data]
pub(crate) struct Lost {
    /// Folios that are lost, and one more while there is a [`LostZone`].
    count: Atomic<usize>,
    /// Unregisters the zone device when there are no more.
    #[pin]
    work: queue::Work,
}

impl Lost {
    /// None, yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            count: Atomic::new(0),
            work <- queue::Work::new(unregister),
        })
    }
}

/// The operations of a zone device whose memory is lost.
static OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
    folio_free: Some(folio_free),
    migrate_to_ram: Some(migrate_to_ram),
    memory_failure: None,
    folio_split: Some(folio_split),
};

/// A zone device whose memory is being lost.
///
/// # Invariants
///
/// The zone device is registered, by a region that was given up, and has the operations of this
/// module; one of its count is ours, and a reference on this kernel module is the count's.
pub(crate) struct LostZone(NonNull<Zone>);

impl LostZone {
    /// From now on, who touches a page gets a SIGBUS, and nobody but who has them mapped can do
    /// anything with the pages.
    pub(crate) fn new(region: ZoneDeviceRegion) -> Self {
        // SAFETY: No requirements: who calls this uses the module.
        unsafe { bindings::drm_pagemap_helper_hold_module() };

        // INVARIANT: As is done here.
        let this = Self(region.into_raw());
        let zone = this.zone();
        let (raw, owner) = (zone.as_raw(), zone.own_cookie());

        zone.lost.count.store(1, Relaxed);
        // SAFETY: A registered zone device. Who reads these does so once, and may find either value:
        // both operations know what to do with a folio that is not lost yet, and those that are have
        // been referenced and put since then.
        unsafe {
            (&raw mut (*raw).owner).write_volatile(owner.as_raw());
            (&raw mut (*raw).ops).write_volatile(&OPS);
        }
        this
    }

    fn zone(&self) -> &Zone {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }

    /// Takes what is in use of the first `npages` frames from its allocations, which with the last one
    /// of their pages are released. `dpagemap` is the pagemap of the zone device. May sleep.
    ///
    /// Returns the number of pages that were taken. Those that somebody has locked, who may be making
    /// use of their allocation, are left out, and are to be tried again.
    pub(crate) fn take(&self, dpagemap: &DrmPagemap, npages: usize) -> Result<usize> {
        let start = self.zone().start_pfn().as_usize();
        let mut taken = 0;

        for done in (0..npages).step_by(NR_PMD_PAGES) {
            let nr = NR_PMD_PAGES.min(npages - done);
            // No address space has them mapped, and no device, while they are collected.
            let pages = dpagemap.collect(Pfn::new(start + done), nr)?;

            for step in pages.steps().filter(|step| step.is_migrating()) {
                if let Some(folio) = step.folio() {
                    taken += self.take_folio(folio);
                }
            }
        }
        Ok(taken)
    }

    /// Takes a folio, which is collected, and returns its number of pages.
    fn take_folio(&self, folio: &Folio) -> usize {
        // SAFETY: Locked, and not mapped: nobody makes anything of its data just now.
        if unsafe { Zdd::detach(folio) }.is_none() {
            return 0;
        }
        // The collection's reference keeps it from being freed before.
        self.zone().lost.count.add(1, Relaxed);
        folio.nr_pages()
    }
}

impl Drop for LostZone {
    fn drop(&mut self) {
        // SAFETY: By the type invariant one is ours.
        unsafe { put(self.zone()) };
    }
}

/// One less of the zone's count. Any context.
///
/// # Safety
///
/// It must belong to the caller. The zone may be gone afterwards.
unsafe fn put(zone: &Zone) {
    if zone.lost.count.fetch_sub(1, Full) == 1 {
        // SAFETY: The region's reference keeps it in memory until it has run; nobody counts again.
        unsafe { zone.lost.work.enqueue() };
    }
}

/// The last page is free.
///
/// # Safety
///
/// `work` must be that of a zone whose count has dropped to 0.
unsafe extern "C" fn unregister(work: *mut bindings::work_struct) {
    // SAFETY: By the caller's promise it is in a zone, whose region was given up for this.
    unsafe {
        let zone = work.byte_sub(offset_of!(Zone, lost) + offset_of!(Lost, work));

        drop(ZoneDeviceRegion::from_raw(NonNull::new_unchecked(
            zone.cast(),
        )));
    }
    // SAFETY: `LostZone::new` took it. This is run by a queue that is waited for before the code
    // goes.
    unsafe { bindings::drm_pagemap_helper_put_module() };
}

/// The zone that a folio is of.
///
/// # Safety
///
/// `folio` must be one of a zone device with [these operations](OPS), and not be unregistered for
/// `'a`.
unsafe fn zone_of<'a>(folio: &Folio) -> Option<&'a Zone> {
    // SAFETY: Only zone devices that are in a `Zone`, at its start, get these operations.
    folio.pgmap().map(|pgmap| unsafe { pgmap.cast().as_ref() })
}

/// The last reference on a folio is gone. Any context.
///
/// # Safety
///
/// `folio` must be a free folio of a zone device with these operations.
unsafe extern "C" fn folio_free(folio: *mut bindings::folio) {
    // SAFETY: The folio is the core's until this returns, which has a reference on the zone device for
    // it; if it was taken, it was counted.
    unsafe {
        let folio = Folio::from_raw(folio);

        if Zdd::folio_free(folio) {
            if let Some(zone) = zone_of(folio) {
                put(zone);
            }
        }
    }
}

/// A CPU touched a page.
///
/// # Safety
///
/// None.
unsafe extern "C" fn migrate_to_ram(_: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    bindings::vm_fault_reason_VM_FAULT_SIGBUS
}

/// A large folio is being split.
///
/// # Safety
///
/// `old` must be a locked folio of a zone device with these operations; `new` a part of it, or
/// null.
unsafe extern "C" fn folio_split(old: *mut bindings::folio, new: *mut bindings::folio) {
    if new.is_null() {
        return;
    }
    // SAFETY: Both are locked by the core, and are of a registered zone device.
    unsafe {
        let old = Folio::from_raw(old);

        Zdd::folio_split(old, Folio::from_raw(new));
        if old.zone_device_data().is_null() {
            // Each of the parts is freed by itself.
            if let Some(zone) = zone_of(old) {
                zone.lost.count.add(1, Relaxed);
            }
        }
    }
}
