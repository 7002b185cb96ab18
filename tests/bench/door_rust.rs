// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A GPU of the Rust door, for what C's interface can't ask for: to migrate what is missing.
//!
//! Part of the benchmark's driver where the provider of drm_pagemap is ours. That is in C, and
//! has what touches memory: see `door.h`.

use core::{
    ffi::{
        c_int,
        c_void, //
    },
    ops::Range, //
};
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
    bindings,
    device,
    drm::{
        DriverInfo,
        UnregisteredDevice, //
    },
    error::to_result,
    faux,
    mm::MmWithUser,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        ArcBorrow, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    },
    ModuleMetadata,
    ThisModule, //
};

const NAME: &CStr = c"drm_pagemap_bench_door";

extern "C" {
    /// Lets a device reach all of RAM; see `door.h`.
    fn bench_door_dma(dev: *mut c_void) -> c_int;

    /// Copies a run, in or out.
    fn bench_door_copy(
        dev: *mut c_void,
        vram: *mut c_void,
        offset: u64,
        addr: u64,
        len: u64,
        mode: c_int,
    );
}

/// This module, which is C's but for this file: there is no `module!` that would say so.
struct LocalModule;

impl ModuleMetadata for LocalModule {
    const NAME: &'static CStr = c"drm_pagemap_bench";
    const THIS_MODULE: ThisModule = {
        #[allow(improper_ctypes)]
        extern "C" {
            static __this_module: Opaque<bindings::module>;
        }

        // SAFETY: Made by the kernel's build, and there while the module is.
        unsafe { ThisModule::from_ptr(__this_module.get()) }
    };
}

#[path = "../kunit/least_driver.rs"]
mod least_driver;

use least_driver::{
    Driver,
    DriverData, //
};

/// The driver of the GPU.
const DRM_INFO: DriverInfo = DriverInfo {
    major: 0,
    minor: 0,
    patchlevel: 0,
    name: NAME,
    desc: c"drm_pagemap benchmark",
};

/// The pagemap: memory that C allocated, given out from one end to the other, and from the start
/// again when nothing is in use.
struct Memory {
    dev: *mut c_void,
    vram: *mut c_void,
    size: u64,
    next: Atomic<u64>,
    live: Atomic<usize>,
}

// SAFETY: The pointers are only given to C, which reads and writes memory by them.
unsafe impl Send for Memory {}
// SAFETY: As above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Copies runs; `mode` is that of `bench_door_copy`.
    fn copy(&self, copies: Copies<'_>, out: bool) {
        for run in copies {
            let (addr, mode) = match (run.addr, out) {
                (Some(addr), false) => (addr, 0),
                (Some(addr), true) => (addr, 1),
                (None, _) => (0, 2),
            };

            // SAFETY: The device is there while its pagemap is; the run is in its memory, and
            // mapped for it.
            unsafe { bench_door_copy(self.dev, self.vram, run.offset, addr, run.len, mode) };
        }
    }
}

#[vtable]
impl PagemapOps for Memory {
    type Driver = Driver;
    type Devmem = Chunk;

    fn populate_mm(
        _pagemap: ArcBorrow<'_, Pagemap<Self>>,
        _mm: &LockedMm<'_>,
        _range: Range<usize>,
        _timeslice_ms: usize,
    ) -> Result {
        Err(EOPNOTSUPP)
    }
}

/// An allocation: where it starts, in bytes.
struct Chunk(u64);

impl DevmemOps for Chunk {
    type Pagemap = Memory;

    fn populate_devmem_pfn(devmem: &Devmem<Self>, pfns: &mut DevmemPfns<'_>) -> Result {
        pfns.push(devmem.0, devmem.size() as u64)
    }

    fn copy_to_devmem(pagemap: &Pagemap<Memory>, copies: Copies<'_>) -> Result {
        pagemap.copy(copies, false);
        Ok(())
    }

    fn copy_to_ram(pagemap: &Pagemap<Memory>, copies: Copies<'_>) -> Result {
        pagemap.copy(copies, true);
        Ok(())
    }

    fn release(devmem: &Devmem<Self>) {
        let pagemap = devmem.pagemap();
        let memory: &Memory = &pagemap;

        if memory.live.fetch_sub(1, Relaxed) == 1 {
            memory.next.store(0, Relaxed);
        }
    }
}

/// The GPU.
struct Gpu {
    // Dropped in this order.
    registration: Registration<Memory>,
    _drm: UnregisteredDevice<Driver>,
    _faux: faux::Registration,
}

impl Gpu {
    fn new(vram: *mut c_void, size: usize) -> Result<Self> {
        let faux = faux::Registration::new(NAME, None)?;
        let dev: &device::Device<device::Bound> = faux.as_ref().as_ref();
        // `Device::as_raw` is private to the kernel crate; the type is transparent.
        let dev = core::ptr::from_ref(dev).cast_mut().cast();

        // SAFETY: A bound device.
        to_result(unsafe { bench_door_dma(dev) })?;
        let drm = UnregisteredDevice::<Driver>::new(faux.as_ref(), try_pin_init!(DriverData {}))?;
        let memory = Memory {
            dev,
            vram,
            size: size as u64,
            next: Atomic::new(0),
            live: Atomic::new(0),
        };

        Ok(Self {
            registration: Registration::new(&drm, NAME, size, Ok::<_, Error>(memory))?,
            _drm: drm,
            _faux: faux,
        })
    }

    fn alloc(&self, size: usize) -> Result<NewDevmem<Chunk>> {
        // What was used before may be on its way back.
        queue::flush();

        let pagemap = self.registration.pagemap();
        let memory: &Memory = &pagemap;
        let len = size.next_multiple_of(2 << 20) as u64;
        let offset = memory.next.load(Relaxed);

        if offset + len > memory.size {
            return Err(ENOSPC);
        }
        memory.next.store(offset + len, Relaxed);
        memory.live.fetch_add(1, Relaxed);
        NewDevmem::new(pagemap, size, Ok::<_, Error>(Chunk(offset)))
    }
}

/// Makes a GPU with `size` bytes of memory at `vram`; null where it can't be made.
///
/// # Safety
///
/// The memory must outlive the GPU.
#[no_mangle]
unsafe extern "C" fn bench_door_new(vram: *mut c_void, size: usize) -> *mut c_void {
    match Gpu::new(vram, size).and_then(|gpu| Ok(KBox::new(gpu, GFP_KERNEL)?)) {
        Ok(gpu) => gpu.into_foreign().cast(),
        Err(_) => core::ptr::null_mut(),
    }
}

/// Takes the GPU away.
///
/// # Safety
///
/// `gpu` must be of [`bench_door_new`], and not be used any more.
#[no_mangle]
unsafe extern "C" fn bench_door_free(gpu: *mut c_void) {
    // SAFETY: Promised by the caller.
    drop(unsafe { KBox::<Gpu>::from_foreign(gpu.cast()) });
}

/// An allocation of `size` bytes; null where there is none. The next call of
/// [`bench_door_migrate`] uses it up.
///
/// # Safety
///
/// `gpu` must be of [`bench_door_new`].
#[no_mangle]
unsafe extern "C" fn bench_door_alloc(gpu: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: Promised by the caller.
    let gpu: &Gpu = unsafe { KBox::<Gpu>::borrow(gpu.cast()) };

    match gpu
        .alloc(size)
        .and_then(|devmem| Ok(KBox::new(devmem, GFP_KERNEL)?))
    {
        Ok(devmem) => devmem.into_foreign().cast(),
        Err(_) => core::ptr::null_mut(),
    }
}

/// Migrates what is missing of a range to an allocation; returns 0 or a negative errno.
///
/// # Safety
///
/// `devmem` must be of [`bench_door_alloc`], and is used up; the current task must hold the mmap
/// lock of `mm` for reading.
#[no_mangle]
unsafe extern "C" fn bench_door_migrate(
    devmem: *mut c_void,
    mm: *const bindings::mm_struct,
    start: usize,
    end: usize,
) -> c_int {
    // SAFETY: Promised by the caller.
    let devmem = KBox::into_inner(unsafe { KBox::<NewDevmem<Chunk>>::from_foreign(devmem.cast()) });
    // SAFETY: Promised by the caller.
    let mm = unsafe { LockedMm::borrowed(MmWithUser::from_raw(mm)) };

    match devmem.migrate_missing(&mm, start..end, &Details::default()) {
        Ok((handle, _)) => {
            let _: ARef<Devmem<Chunk>> = handle;
            0
        }
        Err(err) => err.to_errno(),
    }
}
