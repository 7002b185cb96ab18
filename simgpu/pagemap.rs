// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What `drm_pagemap` calls: the VRAM as a pagemap.

use crate::{
    descriptor::Command,
    engine::Engine,
    link,
    vram::{
        Allocation,
        Origin,
        Vram, //
    }, //
};
use core::ops::Range;
use drm_pagemap::{
    migrate::Details,
    mm::{
        DmaDirection,
        LockedMm, //
    },
    Copies,
    CopyRun,
    DeviceAddr,
    Devmem,
    DevmemOps,
    DevmemPfns,
    FaultWindow,
    NewDevmem,
    Pagemap,
    PagemapOps,
    Policy,
    Thrash, //
};
use kernel::{
    device::Device,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    }, //
};

/// The driver's data of the pagemap; it lives as long as any VRAM is in use.
#[pin_data]
pub(crate) struct SimgpuPagemap {
    pub(crate) engine: Arc<Engine>,
    #[pin]
    pub(crate) vram: Vram,
    /// The GPU's number on the link, if there is one.
    link_number: Option<u32>,
    /// Pages that went to VRAM.
    populated: Atomic<u64>,
    /// Pages that came home because the driver wanted it.
    evicted: Atomic<u64>,
    /// Pages that were copied home, for whatever reason.
    copied_home: Atomic<u64>,
    /// Pages that went to VRAM of other GPUs, over the link.
    sent: Atomic<u64>,
    /// Pages that other GPUs have addresses of.
    lent: Atomic<u64>,
}

impl SimgpuPagemap {
    /// For the device of `engine`, with `vram_size` bytes of VRAM, and `link_number` on the link.
    pub(crate) fn new(
        engine: Arc<Engine>,
        vram_size: u64,
        link_number: Option<u32>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            engine,
            vram <- Vram::new(vram_size),
            link_number,
            populated: Atomic::new(0),
            evicted: Atomic::new(0),
            copied_home: Atomic::new(0),
            sent: Atomic::new(0),
            lent: Atomic::new(0),
        }? Error)
    }

    /// Pages that went to VRAM.
    pub(crate) fn populated(&self) -> u64 {
        self.populated.load(Relaxed)
    }

    /// Pages that came home by eviction.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Pages that came home by CPU faults: those that did so, less those that were evicted.
    /// Approximate while an eviction is under way.
    pub(crate) fn faulted(&self) -> u64 {
        self.copied_home
            .load(Relaxed)
            .saturating_sub(self.evicted())
    }

    /// The GPU's number on the link, if there is one.
    pub(crate) fn link_number(&self) -> Option<u32> {
        self.link_number
    }

    /// Pages that went to VRAM of other GPUs, over the link.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Pages that other GPUs have addresses of just now: in their page tables, or to send pages
    /// there.
    pub(crate) fn lent(&self) -> u64 {
        self.lent.load(Relaxed)
    }

    /// Counts pages that went to VRAM.
    pub(crate) fn add_populated(&self, pages: usize) {
        self.populated.add(pages as u64, Relaxed);
    }

    /// Counts pages that were evicted.
    pub(crate) fn add_evicted(&self, pages: usize) {
        self.evicted.add(pages as u64, Relaxed);
    }
}

#[vtable]
impl PagemapOps for SimgpuPagemap {
    type Driver = crate::device::SimgpuDrm;
    type Devmem = Allocation;

    /// A process may look at a few bytes of a large result, or at all of it; and may wait for the
    /// device by looking.
    fn policy(&self) -> Policy {
        Policy::new()
            .with_window(FaultWindow::Adaptive)
            .with_thrash(Thrash::ON)
    }

    fn is_lost(&self) -> bool {
        self.engine.is_gone()
    }

    /// On the link all know a GPU by one number, and its VRAM by the same offsets as the GPU
    /// itself.
    fn device_map(
        pagemap: &Pagemap<Self>,
        dev: &Device,
        offset: u64,
        order: u32,
        dir: DmaDirection,
    ) -> Result<DeviceAddr> {
        // Within one VRAM nothing is copied.
        if core::ptr::eq(dev, pagemap.engine.dev()) {
            return Err(EOPNOTSUPP);
        }
        if pagemap.engine.is_gone() {
            return Err(ENODEV);
        }
        let number = pagemap.link_number.ok_or(EOPNOTSUPP)?;

        pagemap.lent.add(1 << order, Relaxed);
        Ok(link::address(number, offset, order, dir))
    }

    fn device_unmap(pagemap: &Pagemap<Self>, _dev: &Device, addr: &DeviceAddr) {
        pagemap.lent.fetch_sub(1 << addr.order(), Relaxed);
    }

    /// An area at a time. Evicts nothing: [`ENOSPC`] and [`EBUSY`] are for
    /// [`populate`](crate::populate), which doesn't hold the mmap lock, to deal with.
    fn populate_mm(
        pagemap: ArcBorrow<'_, Pagemap<Self>>,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        timeslice_ms: usize,
    ) -> Result {
        let details = Details::with_timeslice_ms(timeslice_ms);
        let mut start = range.start;

        while start < range.end {
            let area = mm.vma_lookup(start).ok_or(ENOENT)?;
            let end = range.end.min(area.end());

            populate_part(pagemap, mm, start..end, &details)?;
            start = end;
        }
        Ok(())
    }
}

fn populate_part(
    pagemap: ArcBorrow<'_, Pagemap<SimgpuPagemap>>,
    mm: &LockedMm<'_>,
    range: Range<usize>,
    details: &Details,
) -> Result {
    let size = range.len();
    let origin = Origin::new(mm.mm(), range.clone());
    let devmem = NewDevmem::new(pagemap, size, pagemap.vram.allocate(size, origin))?;

    // First, so that pages that get there can be found whatever comes next.
    pagemap.vram.insert(&devmem)?;

    let handle: ARef<Devmem<Allocation>> = ARef::from(&*devmem);
    let result = devmem.migrate_to_devmem(mm, range, details);

    handle.settle();
    // If nobody uses it, all of the range was in VRAM before.
    if result.is_ok() && !handle.is_detached() {
        pagemap.populated.add((size / PAGE_SIZE) as u64, Relaxed);
    }
    result.map(|_| ())
}

/// How often what a reset of the device has interrupted is done again.
const COPY_TRIES: usize = 4;

/// Has the engine carry out the commands for `copies`, and returns how many bytes those are about.
/// If the device is reset meanwhile it begins again: VRAM keeps its contents, and copying twice
/// does no harm.
fn copy(
    pagemap: &Pagemap<SimgpuPagemap>,
    copies: Copies<'_>,
    command: impl Fn(CopyRun) -> Option<Command>,
) -> Result<u64> {
    for _ in 0..COPY_TRIES {
        let mut bytes = 0;
        let commands = copies.clone().filter_map(|run| {
            bytes += run.len;
            command(run)
        });

        match pagemap.engine.run(commands) {
            Err(err) if err == EAGAIN => (),
            result => return result.map(|_| bytes),
        }
    }
    Err(EIO)
}

impl DevmemOps for Allocation {
    type Pagemap = SimgpuPagemap;

    fn populate_devmem_pfn(devmem: &Devmem<Self>, pfns: &mut DevmemPfns<'_>) -> Result {
        for block in devmem.blocks() {
            pfns.push(block.start, block.end - block.start)?;
        }
        Ok(())
    }

    fn copy_to_devmem(pagemap: &Pagemap<SimgpuPagemap>, copies: Copies<'_>) -> Result {
        copy(pagemap, copies, |run| {
            Some(match run.addr {
                Some(src) => Command::CopyToVram {
                    src,
                    dst: run.offset,
                    len: run.len,
                },
                None => Command::Fill {
                    dst: run.offset,
                    len: run.len,
                    value: 0,
                },
            })
        })
        .map(|_| ())
    }

    fn copy_to_ram(pagemap: &Pagemap<SimgpuPagemap>, copies: Copies<'_>) -> Result {
        let sent: u64 = copies
            .clone()
            .filter(|run| link::number(run.protocol).is_some())
            .map(|run| run.len)
            .sum();
        let bytes = copy(pagemap, copies, |run| {
            let (src, dst, len) = (run.offset, run.addr?, run.len);

            Some(match link::number(run.protocol) {
                None => Command::CopyFromVram { src, dst, len },
                Some(peer) => Command::CopyToPeer {
                    src,
                    dst,
                    len,
                    peer,
                },
            })
        })?;

        pagemap
            .copied_home
            .add((bytes - sent) / PAGE_SIZE as u64, Relaxed);
        pagemap.sent.add(sent / PAGE_SIZE as u64, Relaxed);
        Ok(())
    }

    fn release(devmem: &Devmem<Self>) {
        devmem.pagemap().vram.remove(devmem);
    }
}
