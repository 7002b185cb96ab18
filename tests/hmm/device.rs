// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A device with memory of its own: a DRM device on the faux bus, and its pagemap.

use crate::{
    least_driver::{
        Driver,
        DriverData, //
    },
    ram::DmaDevice,
    vram::{
        self,
        Chunk,
        Vram, //
    },
};
use core::ops::Range;
use drm_pagemap::{
    migrate::Details,
    mm::LockedMm,
    queue,
    Copies,
    Devmem,
    DevmemOps,
    DevmemPfns,
    NewDevmem,
    Pagemap,
    PagemapOps,
    Registration, //
};
use kernel::{
    drm::UnregisteredDevice,
    faux,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
};

/// A handle on an allocation.
pub(crate) type Handle = ARef<Devmem<Chunk>>;

/// The device's pagemap.
pub(crate) struct Memory(Arc<Vram>);

#[vtable]
impl PagemapOps for Memory {
    type Driver = Driver;
    type Devmem = Chunk;

    fn populate_mm(
        pagemap: ArcBorrow<'_, Pagemap<Self>>,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        timeslice_ms: usize,
    ) -> Result {
        let nr = range.len() >> PAGE_SHIFT;
        let chunk = Chunk::new(&pagemap.0, nr, false)?;
        let devmem = NewDevmem::<Chunk>::new(pagemap, range.len(), Ok::<_, Error>(chunk))?;

        devmem.migrate_to_devmem(mm, range, &Details::with_timeslice_ms(timeslice_ms))?;
        Ok(())
    }
}

impl DevmemOps for Chunk {
    type Pagemap = Memory;

    fn populate_devmem_pfn(devmem: &Devmem<Self>, pfns: &mut DevmemPfns<'_>) -> Result {
        devmem
            .offsets()
            .try_for_each(|offset| pfns.push(offset, PAGE_SIZE as u64))
    }

    fn copy_to_devmem(pagemap: &Pagemap<Memory>, copies: Copies<'_>) -> Result {
        pagemap.0.copy_in(copies)
    }

    fn copy_to_ram(pagemap: &Pagemap<Memory>, copies: Copies<'_>) -> Result {
        pagemap.0.copy_out(copies)
    }

    fn release(devmem: &Devmem<Self>) {
        devmem.set_owner(None);
    }
}

/// The device.
pub(crate) struct Device {
    // Dropped in this order.
    registration: Registration<Memory>,
    vram: Arc<Vram>,
    _faux: faux::Registration,
}

impl Device {
    pub(crate) fn new(name: &CStr) -> Result<Arc<Self>> {
        let faux = faux::Registration::new(name, None)?;
        let dma = DmaDevice::new(faux.as_ref().as_ref())?;
        // The pagemap holds it.
        let drm = UnregisteredDevice::<Driver>::new(faux.as_ref(), try_pin_init!(DriverData {}))?;
        let vram = Vram::new(dma)?;
        let registration = Registration::new(
            &drm,
            c"hmm_dmirror",
            vram::SIZE,
            Ok::<_, Error>(Memory(vram.clone())),
        )?;

        Ok(Arc::new(
            Self {
                registration,
                vram,
                _faux: faux,
            },
            GFP_KERNEL,
        )?)
    }

    /// The pagemap.
    pub(crate) fn pagemap(&self) -> ArcBorrow<'_, Pagemap<Memory>> {
        self.registration.pagemap()
    }

    /// The memory.
    pub(crate) fn vram(&self) -> &Vram {
        &self.vram
    }

    /// Migrates what it can of `range`, of one area. If that is a block, and it shall be
    /// `scattered`, it goes page by page.
    pub(crate) fn migrate(
        &self,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        scattered: bool,
    ) -> Result {
        let nr = range.len() >> PAGE_SHIFT;
        let chunk = Chunk::new(&self.vram, nr, scattered).or_else(|_| {
            // What was freed just now may be enough.
            queue::flush();
            Chunk::new(&self.vram, nr, scattered)
        })?;
        let devmem = NewDevmem::<Chunk>::new(self.pagemap(), range.len(), Ok::<_, Error>(chunk))?;

        // Forgotten by the release, which comes in any case.
        devmem.set_owner(Some(&ARef::from(&*devmem)));
        let details = Details {
            private_files: true,
            ..Details::default()
        };
        match devmem.migrate_missing(mm, range, &details) {
            // No memory of the kind that can be migrated: as good as pages that can't.
            Err(err) if err == EOPNOTSUPP => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Brings all of the device's memory home.
    pub(crate) fn evict_all(&self) -> Result {
        for handle in self.vram.owners()? {
            if !handle.is_detached() {
                handle.evict_to_ram().1?;
            }
        }
        Ok(())
    }
}
