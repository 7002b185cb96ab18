// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A mock GPU: a DRM device on the faux bus whose memory is a buffer in RAM.

use crate::{
    ffi,
    harness::{
        check,
        check_eq,
        Failure,
        Outcome, //
    },
    least_driver::{
        Driver,
        DriverData, //
    },
    thread::Thread,
    user::UserMemory,
    vram::{
        Layout,
        Pages,
        Vram, //
    },
};
use core::{
    mem::ManuallyDrop,
    ops::{
        Deref,
        Range, //
    }, //
};
use drm_pagemap::{
    migrate::Details,
    mm::{
        DmaDirection,
        Folio,
        LockedMm,
        Pfn,
        Place, //
    },
    queue,
    zdd::Zdd,
    Copies,
    DeviceAddr,
    Devmem,
    DevmemOps,
    DevmemPfns,
    Endpoint,
    HeldPages,
    NewDevmem,
    Pagemap,
    PagemapOps,
    Peer,
    Policy,
    Registration, //
};
use kernel::{
    bindings, device,
    drm::{
        self,
        UnregisteredDevice, //
    },
    error::to_result,
    faux,
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// What the device memory is called in `/proc/iomem`.
const NAME: &CStr = c"drm_pagemap_kunit";

/// The pages of device memory that a mock GPU has: 8 MiB.
pub(crate) const VRAM_PAGES: usize = 2048;

/// How long a thread keeps what others wait for.
pub(crate) const A_WHILE: Delta = Delta::from_millis(50);

/// The mock's pagemap.
pub(crate) struct Memory(Arc<Vram>, Policy);

#[vtable]
impl PagemapOps for Memory {
    type Driver = Driver;
    type Devmem = Pages;

    fn policy(&self) -> Policy {
        self.1
    }

    fn is_lost(&self) -> bool {
        self.0.is_lost.load(Relaxed)
    }

    fn populate_mm(
        pagemap: ArcBorrow<'_, Pagemap<Self>>,
        mm: &LockedMm<'_>,
        range: Range<usize>,
        timeslice_ms: usize,
    ) -> Result {
        let pages = range.len() >> PAGE_SHIFT;
        let devmem = new_devmem(pagemap, &pagemap.0, pages, Layout::Contiguous)?;

        devmem.migrate_to_devmem(mm, range, &Details::with_timeslice_ms(timeslice_ms))?;
        Ok(())
    }

    fn device_map(
        pagemap: &Pagemap<Self>,
        _dev: &device::Device,
        offset: u64,
        order: u32,
        dir: DmaDirection,
    ) -> Result<DeviceAddr> {
        pagemap.0.map(offset, order, dir)
    }

    fn device_unmap(pagemap: &Pagemap<Self>, _dev: &device::Device, addr: &DeviceAddr) {
        pagemap.0.unmap(addr);
    }
}

/// Makes an allocation of `vram`, which is `pagemap`'s.
fn new_devmem(
    pagemap: ArcBorrow<'_, Pagemap<Memory>>,
    vram: &Arc<Vram>,
    pages: usize,
    layout: Layout,
) -> Result<NewDevmem<Pages>> {
    let memory = Pages::new(vram, pages, layout)?;

    // If the allocation can't be made, this was not one.
    NewDevmem::new(pagemap, pages << PAGE_SHIFT, Ok::<_, Error>(memory)).inspect_err(|_| {
        vram.counts.made.fetch_sub(1, Relaxed);
        vram.counts.dropped.fetch_sub(1, Relaxed);
    })
}

impl DevmemOps for Pages {
    type Pagemap = Memory;

    fn populate_devmem_pfn(devmem: &Devmem<Self>, pfns: &mut DevmemPfns<'_>) -> Result {
        devmem.vram().call_populate()?;

        let left_out = devmem.vram().too_few_pfns.load(Relaxed);
        let pages = devmem.pages();

        for &page in &pages[..pages.len() - left_out] {
            pfns.push((page << PAGE_SHIFT) as u64, PAGE_SIZE as u64)?;
        }
        Ok(())
    }

    fn copy_to_devmem(pagemap: &Pagemap<Memory>, copies: Copies<'_>) -> Result {
        pagemap.0.copy_in(copies)
    }

    fn copy_to_ram(pagemap: &Pagemap<Memory>, copies: Copies<'_>) -> Result {
        pagemap.0.copy_out(copies)
    }

    fn release(devmem: &Devmem<Self>) {
        devmem.vram().count_release();
    }
}

/// A C device that does DMA, watched.
struct DmaDevice(*mut bindings::device);

impl DmaDevice {
    fn new(dev: &device::Device<device::Bound>) -> Result<Self> {
        // `Device::as_raw` is private to the kernel crate; the type is transparent.
        let raw = core::ptr::from_ref(dev).cast_mut().cast();

        // SAFETY: A bound device.
        to_result(unsafe { ffi::drm_pagemap_kunit_dma_add(raw) })?;
        Ok(Self(raw))
    }
}

impl Drop for DmaDevice {
    fn drop(&mut self) {
        // SAFETY: Added by `new`.
        unsafe { ffi::drm_pagemap_kunit_dma_remove(self.0) };
    }
}

/// What threads share of a mock GPU.
#[derive(Clone)]
pub(crate) struct Handle {
    pagemap: Arc<Pagemap<Memory>>,
    vram: Arc<Vram>,
}

/// The mock GPU.
pub(crate) struct Gpu {
    // Dropped in this order.
    registration: Option<Registration<Memory>>,
    handle: Handle,
    drm: UnregisteredDevice<Driver>,
    dma: DmaDevice,
    _faux: faux::Registration,
}

impl Deref for Gpu {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Gpu {
    /// Makes one, with [`VRAM_PAGES`] pages of memory.
    pub(crate) fn new() -> Result<Self> {
        Self::with_pages(VRAM_PAGES)
    }

    /// Makes one.
    pub(crate) fn with_pages(pages: usize) -> Result<Self> {
        Self::with_policy(pages, Policy::new())
    }

    /// Makes one whose CPU faults do something else than by default.
    pub(crate) fn with_policy(pages: usize, policy: Policy) -> Result<Self> {
        Self::registered(pages, policy, |drm, memory| {
            Registration::new(drm, NAME, pages << PAGE_SHIFT, Ok::<_, Error>(memory))
        })
    }

    /// Makes one in an interconnect group.
    pub(crate) fn in_group<E: Endpoint>(pages: usize, peer: Peer<E>) -> Result<Self> {
        Self::registered(pages, Policy::new(), |drm, memory| {
            Registration::in_group(drm, NAME, pages << PAGE_SHIFT, Ok::<_, Error>(memory), peer)
        })
    }

    fn registered(
        pages: usize,
        policy: Policy,
        register: impl FnOnce(&drm::Device<Driver>, Memory) -> Result<Registration<Memory>>,
    ) -> Result<Self> {
        static NUMBER: Atomic<usize> = Atomic::new(0);

        let name =
            CString::try_from_fmt(fmt!("drm_pagemap_kunit.{}", NUMBER.fetch_add(1, Relaxed)))?;
        let faux = faux::Registration::new(&name, None)?;
        let dma = DmaDevice::new(faux.as_ref().as_ref())?;
        let drm = UnregisteredDevice::<Driver>::new(faux.as_ref(), try_pin_init!(DriverData {}))?;
        let vram = Vram::new(dma.0, pages)?;
        let registration = register(&drm, Memory(vram.clone(), policy))?;

        Ok(Self {
            handle: Handle {
                pagemap: registration.pagemap().into(),
                vram,
            },
            registration: Some(registration),
            drm,
            dma,
            _faux: faux,
        })
    }

    /// How many zone devices of mock GPUs are registered.
    pub(crate) fn nr_regions() -> usize {
        // SAFETY: A static string.
        unsafe { ffi::drm_pagemap_kunit_regions(NAME.as_char_ptr()) as usize }
    }

    /// What threads share of it.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The C device that does DMA.
    pub(crate) fn dev(&self) -> *mut bindings::device {
        self.dma.0
    }

    /// The C DRM device, whose references are counted.
    pub(crate) fn drm_refs(&self) -> u32 {
        let drm: &drm::Device<Driver> = &self.drm;

        // SAFETY: A valid DRM device; `Device` has the C structure first.
        unsafe { ffi::drm_pagemap_kunit_drm_refs(core::ptr::from_ref(drm).cast_mut().cast()) }
    }

    /// Calls `migration`, which brings the page at an address home, and takes a reference on the
    /// device page when it has just lost its contents.
    pub(crate) fn hold_stale_page(
        &self,
        mm: &MmWithUser,
        addr: usize,
        migration: impl FnOnce() -> Outcome,
    ) -> Outcome<HeldPage> {
        let page = self.device_pfn(mm, addr)?.page();

        // SAFETY: No requirements.
        if !unsafe { ffi::drm_pagemap_kunit_remap_watched() } {
            return Err(Failure::skip(fmt!(
                "the kernel has no tracepoint of page migration"
            )));
        }
        // SAFETY: The page is in use until it has moved.
        unsafe { ffi::drm_pagemap_kunit_get_page_on_remap(addr, page) };
        let outcome = migration();
        // SAFETY: No requirements.
        let held = unsafe { ffi::drm_pagemap_kunit_got_page_on_remap() }.then(|| HeldPage(page));

        outcome?;
        held.ok_or_else(|| Failure::new(fmt!("the page did not move")))
    }

    /// How many DMA mappings there were.
    pub(crate) fn dma_maps(&self) -> Outcome<usize> {
        // SAFETY: No requirements.
        if !unsafe { ffi::drm_pagemap_kunit_dma_watched() } {
            return Err(Failure::skip(fmt!(
                "the kernel has no tracepoints of the DMA layer"
            )));
        }
        // SAFETY: A watched device.
        Ok(unsafe { ffi::drm_pagemap_kunit_dma_maps(self.dma.0) as usize })
    }

    /// Calls `migration`, which brings the page at an address home, and returns how many DMA
    /// mappings there were when the process could just see it again.
    pub(crate) fn dma_live_on_remap(
        &self,
        addr: usize,
        migration: impl FnOnce() -> Outcome,
    ) -> Outcome<usize> {
        // SAFETY: No requirements.
        if !unsafe {
            ffi::drm_pagemap_kunit_remap_watched() && ffi::drm_pagemap_kunit_dma_watched()
        } {
            return Err(Failure::skip(fmt!(
                "the kernel has no tracepoints of page migration and the DMA layer"
            )));
        }
        // SAFETY: A watched device, which stays so until the call below.
        unsafe { ffi::drm_pagemap_kunit_look_on_remap(addr, self.dma.0) };
        let outcome = migration();
        // SAFETY: No requirements.
        let live = unsafe { ffi::drm_pagemap_kunit_live_on_remap() };

        outcome?;
        usize::try_from(live).map_err(|_| Failure::new(fmt!("the page did not move")))
    }

    /// The most pages that one DMA mapping can be of.
    pub(crate) fn dma_max_pages(&self) -> usize {
        // SAFETY: A valid device.
        unsafe { ffi::drm_pagemap_kunit_dma_max(self.dma.0) >> PAGE_SHIFT }
    }

    /// Lets the `nth` DMA mapping from now on, and those after it, fail: `times` in all.
    pub(crate) fn fail_dma(&self, nth: usize, times: usize) -> Outcome {
        // SAFETY: No requirements.
        if !unsafe { ffi::drm_pagemap_kunit_dma_watched() } {
            return Err(Failure::skip(fmt!(
                "the kernel has no tracepoints of the DMA layer"
            )));
        }
        // SAFETY: A watched device.
        unsafe { ffi::drm_pagemap_kunit_dma_fail(self.dma.0, nth, times) };
        Ok(())
    }

    /// Checks that the device has no DMA mappings, and that all that it had were undone as they
    /// were made.
    pub(crate) fn check_no_dma(&self) -> Outcome {
        // SAFETY: No requirements.
        if unsafe { ffi::drm_pagemap_kunit_dma_watched() } {
            // SAFETY: A watched device.
            check_eq!(unsafe { ffi::drm_pagemap_kunit_dma_live(self.dma.0) }, 0);
            // SAFETY: As above.
            check!(unsafe { ffi::drm_pagemap_kunit_dma_all_undone(self.dma.0) });
        }
        Ok(())
    }

    /// Checks that nothing of the device is in use.
    pub(crate) fn check_idle(&self) -> Outcome {
        queue::flush();
        self.vram.check_idle()?;
        self.check_no_dma()?;
        check!(!self.pagemap().is_active());
        Ok(())
    }

    /// Tries to register `size` bytes of memory more.
    pub(crate) fn register_again(&self, size: usize) -> Result {
        Registration::<Memory>::new(
            &self.drm,
            c"drm_pagemap_kunit",
            size,
            Ok::<_, Error>(Memory(self.handle.vram.clone(), Policy::new())),
        )?;
        Ok(())
    }

    /// Unregisters the pagemap, as a driver does that is unbound.
    pub(crate) fn unregister(&mut self) {
        self.registration = None;
    }

    /// Unregisters the pagemap while a thread does `let_go`, after a while; checks that it was waited
    /// for, and that no allocation is left.
    pub(crate) fn unregister_waits_for(
        &mut self,
        let_go: impl FnOnce(&MmWithUser) -> Outcome + Send,
    ) -> Outcome {
        let has_let_go = Atomic::new(false);
        let thread = Thread::start(|mm: &MmWithUser| {
            fsleep(A_WHILE);
            has_let_go.store(true, Relaxed);
            let_go(mm)
        })?;

        self.unregister();
        let (waited, live) = (has_let_go.load(Relaxed), self.vram().live());

        thread.join()?;
        check!(waited);
        check_eq!(live, 0);
        Ok(())
    }

    /// Checks that nothing of the device is in use, and removes it.
    ///
    /// If something is, the device stays for ever: waiting for it would hang the tests.
    pub(crate) fn finish(self) -> Outcome {
        let outcome = self.check_idle();

        if outcome.is_err() {
            core::mem::forget(self);
        }
        outcome
    }
}

impl Handle {
    /// The pagemap.
    pub(crate) fn pagemap(&self) -> ArcBorrow<'_, Pagemap<Memory>> {
        self.pagemap.as_arc_borrow()
    }

    /// The memory.
    pub(crate) fn vram(&self) -> &Vram {
        &self.vram
    }

    /// The memory, to hold on to.
    pub(crate) fn vram_arc(&self) -> &Arc<Vram> {
        &self.vram
    }

    /// Makes an allocation.
    pub(crate) fn alloc(&self, pages: usize) -> Result<NewDevmem<Pages>> {
        self.alloc_as(pages, Layout::Contiguous)
    }

    /// Makes an allocation whose pages are in the order that `layout` says.
    pub(crate) fn alloc_as(&self, pages: usize, layout: Layout) -> Result<NewDevmem<Pages>> {
        new_devmem(self.pagemap(), &self.vram, pages, layout)
    }

    /// Migrates `range` to a new allocation.
    pub(crate) fn migrate(
        &self,
        mm: &MmWithUser,
        range: Range<usize>,
    ) -> Result<ARef<Devmem<Pages>>> {
        self.migrate_as(mm, range, Layout::Contiguous, &Details::default())
    }

    /// Migrates `range` to a new allocation.
    pub(crate) fn migrate_as(
        &self,
        mm: &MmWithUser,
        range: Range<usize>,
        layout: Layout,
        details: &Details,
    ) -> Result<ARef<Devmem<Pages>>> {
        let devmem = self.alloc_as(range.len() >> PAGE_SHIFT, layout)?;

        devmem.migrate_to_devmem(&LockedMm::read(mm), range, details)
    }

    /// Migrates `range` to a new allocation, unless somebody is in the way. Returns whether the device
    /// is still there.
    pub(crate) fn try_migrate(&self, mm: &MmWithUser, range: Range<usize>) -> Result<bool> {
        match self.migrate(mm, range) {
            Ok(_) => Ok(true),
            Err(err) if err == EBUSY => Ok(true),
            Err(err) if err == ENODEV => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Where the pages of `range` are.
    pub(crate) fn residency(&self, mm: &MmWithUser, range: Range<usize>) -> Result<Residency> {
        let mut residency = Residency::default();

        self.pagemap().places(mm, range, |_, place| {
            match place {
                Place::None => residency.none += 1,
                Place::Ram => residency.ram += 1,
                Place::Device(_) => residency.device += 1,
                Place::Peer => residency.peer += 1,
            }
            Ok(())
        })?;
        Ok(residency)
    }

    /// Checks that all of `memory` is in device memory.
    #[track_caller]
    pub(crate) fn check_in_device(&self, mm: &MmWithUser, memory: &UserMemory) -> Outcome {
        self.check_place(mm, memory, "device memory", |residency| residency.device)
    }

    /// Checks that all of `memory` is in RAM.
    #[track_caller]
    pub(crate) fn check_in_ram(&self, mm: &MmWithUser, memory: &UserMemory) -> Outcome {
        self.check_place(mm, memory, "RAM", |residency| residency.ram)
    }

    #[track_caller]
    fn check_place(
        &self,
        mm: &MmWithUser,
        memory: &UserMemory,
        place: &str,
        count: fn(&Residency) -> usize,
    ) -> Outcome {
        const TRIES: usize = 50;

        let mut residency = Err(EBUSY);

        // Pages of RAM are on the move for a moment when the core compacts it, as it does where a
        // test has left it without huge pages. Those are nowhere then, and in device memory never;
        // and as long as it goes on, there may be no snapshot to be had.
        for _ in 0..TRIES {
            residency = self.residency(mm, memory.range());
            match &residency {
                Ok(found) if count(found) == memory.nr_pages() => return Ok(()),
                Ok(found) if found.ram + found.none < memory.nr_pages() => break,
                Err(error) if *error != EBUSY => break,
                _ => fsleep(Delta::from_millis(20)),
            }
        }
        Err(Failure::new(fmt!(
            "expected all {} pages in {}, got {:?}",
            memory.nr_pages(),
            place,
            residency
        )))
    }

    /// Holds the pages of `range` in device memory.
    pub(crate) fn hold_pages<'a>(
        &'a self,
        mm: &'a LockedMm<'_>,
        range: Range<usize>,
    ) -> Result<HeldPages<'a>> {
        Pagemap::hold_pages(&self.pagemap, mm, range)
    }

    /// The frame of the device page at an address.
    pub(crate) fn device_pfn(&self, mm: &MmWithUser, addr: usize) -> Outcome<Pfn> {
        let mut found = None;

        self.pagemap()
            .places(mm, addr..addr + PAGE_SIZE, |_, place| {
                if let Place::Device(pfn) = place {
                    found = Some(pfn);
                }
                Ok(())
            })?;
        found.ok_or_else(|| Failure::new(fmt!("no device page at {:#x}", addr)))
    }

    /// The order of the folio that is in device memory at an address.
    pub(crate) fn device_order(&self, mm: &MmWithUser, addr: usize) -> Outcome<u32> {
        let held = self.hold_page(mm, addr)?;

        // SAFETY: The reference is ours.
        Ok(unsafe { Folio::of_page(held.0) }.order())
    }

    /// Takes a reference on the device page at an address.
    pub(crate) fn hold_page(&self, mm: &MmWithUser, addr: usize) -> Outcome<HeldPage> {
        let page = self.device_pfn(mm, addr)?.page();

        // SAFETY: The page is in use: nothing else goes on in the address space.
        unsafe { ffi::drm_pagemap_kunit_get_page(page) };
        Ok(HeldPage(page))
    }
}

/// How many pages are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Residency {
    pub(crate) none: usize,
    pub(crate) ram: usize,
    pub(crate) device: usize,
    pub(crate) peer: usize,
}

/// A reference on a device page.
pub(crate) struct HeldPage(*mut bindings::page);

// SAFETY: References may be put by any task.
unsafe impl Send for HeldPage {}

impl HeldPage {
    /// Whether its contents are gone.
    pub(crate) fn is_retired(&self) -> bool {
        // SAFETY: The reference is ours.
        Zdd::is_retired(unsafe { Folio::of_page(self.0) })
    }

    /// Takes the page's lock, too.
    pub(crate) fn lock(self) -> LockedPage {
        // SAFETY: The reference is ours.
        unsafe { ffi::drm_pagemap_kunit_lock_page(self.0) };
        LockedPage(self)
    }

    /// Gives up the reference by `put`.
    pub(crate) fn put_by(self, put: unsafe extern "C" fn(*mut bindings::page)) {
        let this = ManuallyDrop::new(self);

        // SAFETY: The reference is ours.
        unsafe { put(this.0) };
    }
}

impl Drop for HeldPage {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { ffi::drm_pagemap_kunit_put_page(self.0) };
    }
}

/// A reference on a device page, and its lock.
pub(crate) struct LockedPage(HeldPage);

impl Drop for LockedPage {
    fn drop(&mut self) {
        // SAFETY: The lock is ours; page locks may be given up by any task.
        unsafe { ffi::drm_pagemap_kunit_unlock_page(self.0 .0) };
    }
}
