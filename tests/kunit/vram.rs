// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The memory of the mock GPU, and what can go wrong with it.

use crate::{
    ffi,
    harness::{
        check_eq,
        Outcome, //
    },
    user::HUGE, //
};
use drm_pagemap::{
    mm::DmaDirection,
    Copies,
    CopyRun,
    DeviceAddr, //
};
use kernel::{
    bindings, new_mutex,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// A place in the mock where something can be made to fail.
pub(crate) struct Hook {
    calls: Atomic<usize>,
    first: Atomic<usize>,
    times: Atomic<usize>,
    errno: Atomic<i32>,
    pause: Atomic<u32>,
}

/// The states of [`Hook::pause`]: nobody stops; the next call does; it has.
const NONE: u32 = 0;
const WANTED: u32 = 1;
const STOPPED: u32 = 2;

impl Hook {
    /// One that never fails.
    pub(crate) fn new() -> Self {
        Self {
            calls: Atomic::new(0),
            first: Atomic::new(0),
            times: Atomic::new(0),
            errno: Atomic::new(0),
            pause: Atomic::new(NONE),
        }
    }

    /// Stops the next call, which is made by another thread, calls `f` meanwhile, and lets it go on.
    /// `begin` leads to that call.
    pub(crate) fn while_stopped<T>(
        &self,
        begin: impl FnOnce() -> Outcome<T>,
        f: impl FnOnce() -> Outcome,
    ) -> Outcome<T> {
        self.pause.store(WANTED, Relaxed);
        let begun = begin();
        let mut result = begun.as_ref().map_or(Ok(()), |_| self.wait_while(WANTED));

        if result.is_ok() {
            result = f();
        }
        self.pause.store(NONE, Relaxed);
        result.and(begun)
    }

    fn wait_while(&self, state: u32) -> Outcome {
        for _ in 0..30_000 {
            if self.pause.load(Relaxed) != state {
                return Ok(());
            }
            fsleep(Delta::from_millis(1));
        }
        Err(ETIMEDOUT.into())
    }

    /// How often it was called.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    /// Lets the `nth` call from now on (1: the next one) fail, and `times - 1` calls after it.
    pub(crate) fn fail(&self, nth: usize, times: usize, err: Error) {
        self.errno.store(err.to_errno(), Relaxed);
        self.first.store(self.calls() + nth, Relaxed);
        self.times.store(times, Relaxed);
    }

    /// Lets all calls from now on fail.
    pub(crate) fn fail_always(&self, err: Error) {
        self.fail(1, usize::MAX, err);
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.times.store(0, Relaxed);
    }

    /// Counts a call, and fails if it shall.
    pub(crate) fn call(&self) -> Result {
        let call = self.calls.fetch_add(1, Relaxed) + 1;
        let first = self.first.load(Relaxed);

        if self.pause.cmpxchg(WANTED, STOPPED, Relaxed).is_ok() {
            let _ = self.wait_while(STOPPED);
        }
        if call >= first && call - first < self.times.load(Relaxed) {
            return Err(Error::from_errno(self.errno.load(Relaxed)));
        }
        Ok(())
    }
}

/// Counts for the tests, and knobs.
pub(crate) struct Counts {
    /// Allocations made.
    pub(crate) made: Atomic<usize>,
    /// Allocations whose data was dropped.
    pub(crate) dropped: Atomic<usize>,
    /// Calls of the release operation.
    pub(crate) released: Atomic<usize>,
    /// Those of them where sleeping is not allowed.
    pub(crate) released_atomically: Atomic<usize>,
    /// Bytes copied to device memory, cleared there, and copied to RAM.
    pub(crate) copied_in: Atomic<u64>,
    pub(crate) cleared: Atomic<u64>,
    pub(crate) copied_out: Atomic<u64>,
}

/// What every page of free device memory holds, so that one that nobody clears is noticed.
const POISON: u8 = 0xa5;

/// The mock GPU's memory, shared by all that belongs to it.
#[pin_data]
pub(crate) struct Vram {
    /// The bytes. Only ever accessed through `bytes`: pages are copied concurrently.
    _storage: KVVec<u8>,
    bytes: *mut u8,
    len: usize,
    /// Which pages are allocated.
    #[pin]
    used: Mutex<KVec<bool>>,
    dev: *mut bindings::device,
    /// Asking an allocation where its pages are.
    pub(crate) populate: Hook,
    /// Copies to device memory, and to RAM. An error comes after the first run was copied.
    pub(crate) copy_to_devmem: Hook,
    pub(crate) copy_to_ram: Hook,
    /// Giving another device access to some of it.
    pub(crate) device_map: Hook,
    /// How many such accesses there are.
    pub(crate) mapped: Atomic<usize>,
    /// Copies to RAM of more pages than this fail with [`EIO`].
    pub(crate) most_to_ram: Atomic<usize>,
    /// The device is gone for good.
    pub(crate) is_lost: Atomic<bool>,
    /// Allocations name this many pages less than they have.
    pub(crate) too_few_pfns: Atomic<usize>,
    pub(crate) counts: Counts,
    /// What the last copy was made of.
    #[pin]
    last_copy: Mutex<KVec<CopyRun>>,
}

// SAFETY: The bytes are accessed by whoever has allocated them, or migrates them; the device is
// held by the fixture, which outlives its memory.
unsafe impl Send for Vram {}
// SAFETY: As above.
unsafe impl Sync for Vram {}

impl Vram {
    /// `pages` pages of device memory of `dev`.
    pub(crate) fn new(dev: *mut bindings::device, pages: usize) -> Result<Arc<Self>> {
        let mut storage = KVVec::from_elem(POISON, pages << PAGE_SHIFT, GFP_KERNEL)?;
        let bytes = storage.as_mut_ptr();
        let used = KVec::from_elem(false, pages, GFP_KERNEL)?;

        Arc::pin_init(
            pin_init!(Self {
                _storage: storage,
                bytes,
                len: pages << PAGE_SHIFT,
                used <- new_mutex!(used, "drm_pagemap_kunit::Vram::used"),
                dev,
                populate: Hook::new(),
                copy_to_devmem: Hook::new(),
                copy_to_ram: Hook::new(),
                device_map: Hook::new(),
                mapped: Atomic::new(0),
                most_to_ram: Atomic::new(usize::MAX),
                is_lost: Atomic::new(false),
                too_few_pfns: Atomic::new(0),
                counts: Counts {
                    made: Atomic::new(0),
                    dropped: Atomic::new(0),
                    released: Atomic::new(0),
                    released_atomically: Atomic::new(0),
                    copied_in: Atomic::new(0),
                    cleared: Atomic::new(0),
                    copied_out: Atomic::new(0),
                },
                last_copy <- new_mutex!(KVec::new(), "drm_pagemap_kunit::Vram::last_copy"),
            }),
            GFP_KERNEL,
        )
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.len
    }

    /// The number of allocated pages.
    pub(crate) fn nr_used(&self) -> usize {
        self.used.lock().iter().filter(|&&used| used).count()
    }

    /// The number of allocations that exist.
    pub(crate) fn live(&self) -> usize {
        self.counts.made.load(Relaxed) - self.counts.dropped.load(Relaxed)
    }

    /// Counts a call of the release operation.
    pub(crate) fn count_release(&self) {
        self.counts.released.fetch_add(1, Relaxed);
        // SAFETY: No requirements.
        if !unsafe { ffi::drm_pagemap_kunit_may_sleep() } {
            self.counts.released_atomically.fetch_add(1, Relaxed);
        }
    }

    /// Counts a call of the populate operation.
    pub(crate) fn call_populate(&self) -> Result {
        self.populate.call()
    }

    /// Allocates pages, in an order as `layout` says.
    fn alloc(&self, pages: usize, layout: Layout) -> Result<KVec<usize>> {
        let mut used = self.used.lock();
        let huge = HUGE / PAGE_SIZE;
        let first_fit = |used: &[bool]| find(used, pages, pages, 1);
        let mut found = match layout {
            Layout::Contiguous | Layout::Shuffled if pages >= huge => {
                match find(&used, pages, pages, huge) {
                    Err(ENOSPC) => first_fit(&used),
                    found => found,
                }
            }
            Layout::Contiguous | Layout::Shuffled | Layout::FirstFit | Layout::Backwards => {
                first_fit(&used)
            }
            Layout::Scattered => find(&used, pages, 1, 2),
        }?;

        for &page in &found {
            used[page] = true;
        }
        if layout == Layout::Backwards {
            found.reverse();
        }
        if layout == Layout::Shuffled {
            for pages in found.chunks_exact_mut(huge) {
                pages[huge / 4..huge / 4 * 3].rotate_left(huge / 4);
            }
        }
        Ok(found)
    }

    fn free(&self, pages: &[usize]) {
        let mut used = self.used.lock();

        for &page in pages {
            used[page] = false;
            // SAFETY: In bounds; a free page is nobody's.
            unsafe {
                self.bytes
                    .add(page << PAGE_SHIFT)
                    .write_bytes(POISON, PAGE_SIZE)
            };
        }
    }

    /// Reads a page of device memory.
    pub(crate) fn read_page(&self, page: usize, out: &mut [u8]) {
        // SAFETY: In bounds: `page` is one of an allocation.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.bytes.add(page << PAGE_SHIFT),
                out.as_mut_ptr(),
                out.len().min(PAGE_SIZE),
            )
        };
    }

    /// Flips every bit of a page of device memory: work that only the device can have done.
    pub(crate) fn flip_page(&self, page: usize) {
        for i in 0..PAGE_SIZE {
            // SAFETY: In bounds: `page` is one of an allocation.
            unsafe {
                let byte = self.bytes.add((page << PAGE_SHIFT) + i);

                byte.write(!byte.read());
            }
        }
    }

    /// The copy operation to device memory.
    pub(crate) fn copy_in(&self, copies: Copies<'_>) -> Result {
        let result = self.copy_to_devmem.call();

        self.run(copies, result, |run, vram| match run.addr {
            // SAFETY: RAM that was mapped for us to read; in bounds of device memory.
            Some(addr) => unsafe {
                core::ptr::copy_nonoverlapping(
                    ffi::drm_pagemap_kunit_dma_to_virt(self.dev, addr),
                    vram,
                    run.len as usize,
                );
                self.counts.copied_in.fetch_add(run.len, Relaxed);
                Ok(())
            },
            // SAFETY: In bounds of device memory.
            None => unsafe {
                vram.write_bytes(0, run.len as usize);
                self.counts.cleared.fetch_add(run.len, Relaxed);
                Ok(())
            },
        })
    }

    /// The copy operation to RAM.
    pub(crate) fn copy_out(&self, copies: Copies<'_>) -> Result {
        let mut result = self.copy_to_ram.call();
        let mut left = self.most_to_ram.load(Relaxed) as u64;

        if result.is_ok() && left == 0 {
            result = Err(EIO);
        }
        self.run(copies, result, |run, vram| {
            let pages = run.len >> PAGE_SHIFT;

            if pages > left {
                return Err(EIO);
            }
            left -= pages;
            let addr = run.addr.ok_or(EINVAL)?;
            let to = match run.protocol {
                // SAFETY: RAM that was mapped for us to write.
                0 => unsafe { ffi::drm_pagemap_kunit_dma_to_virt(self.dev, addr) },
                DeviceAddr::INTERCONNECT => core::ptr::with_exposed_provenance_mut(addr as usize),
                _ => return Err(EINVAL),
            };
            // SAFETY: In bounds of device memory, and of what was mapped for us to write.
            unsafe { core::ptr::copy_nonoverlapping(vram, to, run.len as usize) };
            self.counts.copied_out.fetch_add(run.len, Relaxed);
            Ok(())
        })
    }

    /// The operation that gives a device access: the address of its bytes is as good as any.
    pub(crate) fn map(&self, offset: u64, order: u32, dir: DmaDirection) -> Result<DeviceAddr> {
        self.device_map.call()?;
        if offset + ((PAGE_SIZE as u64) << order) > self.len as u64 {
            return Err(ERANGE);
        }
        self.mapped.fetch_add(1, Relaxed);

        let addr = self.bytes.wrapping_add(offset as usize).expose_provenance();
        Ok(DeviceAddr::device(
            addr as u64,
            DeviceAddr::INTERCONNECT,
            order,
            dir,
        ))
    }

    /// Ends an access.
    pub(crate) fn unmap(&self, addr: &DeviceAddr) {
        if addr.protocol() == DeviceAddr::INTERCONNECT {
            self.mapped.fetch_sub(1, Relaxed);
        }
    }

    /// The runs of the last copy, which is then forgotten.
    pub(crate) fn take_last_copy(&self) -> KVec<CopyRun> {
        core::mem::take(&mut *self.last_copy.lock())
    }

    /// Calls `copy` for each run, of which the first one is carried out even if `result` is an
    /// error.
    fn run(
        &self,
        copies: Copies<'_>,
        result: Result,
        mut copy: impl FnMut(CopyRun, *mut u8) -> Result,
    ) -> Result {
        let mut done = KVec::new();

        for run in copies {
            let end = run.offset.checked_add(run.len).ok_or(EINVAL)?;

            if end > self.len as u64 || run.len == 0 {
                return Err(ERANGE);
            }
            // SAFETY: In bounds, as was just checked.
            copy(run, unsafe { self.bytes.add(run.offset as usize) })?;
            done.push(run, GFP_KERNEL)?;
            result?;
        }
        *self.last_copy.lock() = done;
        result
    }

    /// Checks that nothing is left.
    pub(crate) fn check_idle(&self) -> Outcome {
        check_eq!(self.live(), 0);
        check_eq!(self.nr_used(), 0);
        check_eq!(self.mapped.load(Relaxed), 0);
        check_eq!(
            self.counts.released.load(Relaxed),
            self.counts.made.load(Relaxed)
        );
        check_eq!(self.counts.released_atomically.load(Relaxed), 0);
        Ok(())
    }
}

/// Finds free pages in runs of `run`, each of which begins at a multiple of `align`.
fn find(used: &[bool], pages: usize, run: usize, align: usize) -> Result<KVec<usize>> {
    let mut found = KVec::with_capacity(pages, GFP_KERNEL)?;
    let mut page = 0;

    while found.len() < pages {
        if page + run > used.len() {
            return Err(ENOSPC);
        }
        if used[page..page + run].iter().any(|&used| used) {
            page += align;
            continue;
        }
        for i in page..page + run {
            found.push(i, GFP_KERNEL)?;
        }
        page = (page + run).next_multiple_of(align);
    }
    Ok(found)
}

/// In what order an allocation has its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One after the other, from where a large folio may be on if there is room, as drivers' memory
    /// managers see to. What an earlier allocation has is free only some time after its last page
    /// is, so without that it would depend on time whether large folios stay whole.
    Contiguous,
    /// One after the other, in the first place that has room.
    FirstFit,
    /// No two side by side.
    Scattered,
    /// The last one first.
    Backwards,
    /// As contiguous, but for what is in the middle of where a large folio may be, as a buddy
    /// allocator puts blocks together.
    Shuffled,
}

/// An allocation: some pages of device memory. Dropping it frees them.
pub(crate) struct Pages {
    vram: Arc<Vram>,
    pages: KVec<usize>,
    counted: bool,
}

impl Pages {
    /// Allocates `pages` pages. [`ENOSPC`] if there are not that many.
    pub(crate) fn new(vram: &Arc<Vram>, pages: usize, layout: Layout) -> Result<Self> {
        let mut this = Self::new_uncounted(vram, pages, layout)?;

        this.counted = true;
        vram.counts.made.fetch_add(1, Relaxed);
        Ok(this)
    }

    /// The same, not counted as an allocation: there will be no release.
    pub(crate) fn new_uncounted(vram: &Arc<Vram>, pages: usize, layout: Layout) -> Result<Self> {
        Ok(Self {
            vram: vram.clone(),
            pages: vram.alloc(pages, layout)?,
            counted: false,
        })
    }

    /// The pages, as numbers.
    pub(crate) fn pages(&self) -> &[usize] {
        &self.pages
    }

    /// The memory that they are of.
    pub(crate) fn vram(&self) -> &Arc<Vram> {
        &self.vram
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.vram.free(&self.pages);
        if self.counted {
            self.vram.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}
