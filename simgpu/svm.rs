// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Shared virtual memory: jobs work at the addresses of the process that submits them.
//!
//! # How it works
//!
//! A process creates an [address space](crate::address_space), whose page tables are empty. A job
//! that comes to a page which is not there stalls its queue, and the device
//! [tells](crate::fault_buffer) of it. Each queue's fault has a work item of its own, so faults are
//! [served](crate::service) concurrently:
//!
//! 1. the 2 MiB window around the address, cut to its area and to what was
//!    [advised](crate::advice), is [brought](crate::bring) to VRAM, if it should be there: private
//!    anonymous memory by default, from the VRAM of other GPUs too; pages of files and shared
//!    memory never; and nothing that another GPU [wants too](crate::contention), just now;
//! 2. a [`SvmRange`](drm_pagemap::SvmRange) for the window is found or made, and populated: page
//!    faults are taken for the process, wherever the pages are, RAM or VRAM or both, or the VRAM of
//!    a GPU on the same [link](crate::link);
//! 3. with the lock of the [page tables](crate::page_table) held, and if nothing has changed
//!    meanwhile, entries are written, 2 MiB at a time where the CPU has it so. Otherwise step 2 is
//!    done again: retried, not locked;
//! 4. the device is told to try again; or, if the process itself could not have used the address,
//!    to give the job up, which then fails with the address.
//!
//! Whatever happens to the pages, the notifier comes first: with the same lock held it clears the
//! entries, has the device forget them, and returns when it has. Atomic operations get pages that
//! no CPU can use: those in VRAM are like that, and one in RAM that has to stay there is taken from
//! the CPUs, until one wants it.
//!
//! # Why not `drm_gpusvm`
//!
//! The kernel has GPU SVM in C, `drm_gpusvm`. This driver stands on the project's own wrappers of
//! `mmu_interval_notifier` and `hmm_range_fault` ([`drm_pagemap::mm`]) instead:
//!
//! - It takes a range all of whose pages are in RAM or all in device memory. One that is mixed, as
//!   it is after a page went home or where one is pinned, must be moved as a whole or not at all;
//!   here it is mapped as it is, and only what is missing moves.
//! - Faults that concern the same notifier are served one after the other there.
//! - It is in the same helper module as the C implementation of `drm_pagemap`, and calls that. On a
//!   kernel with the helper built in there would be two layers, whose pages don't know each other.
//! - There is no Rust abstraction of it, and its contract, with locks that the driver holds while
//!   it calls in and pages that it leaves valid or not, is hard to make a safe one.
//!
//! What remains, an interval and the retry, is small: see [`drm_pagemap::SvmRange`].
//!
//! # Jobs are waited for by number
//!
//! DRM's way would be a fence in a syncobj or a sync file. The kernel crate of Linux 7.3 has
//! neither of them, nor `dma_fence`, and to wrap them would take what a driver must not have: raw pointers.
//! So each job has a number, and an ioctl waits for it, which a signal ends.
//!
//! # Locks
//!
//! The address space's `advice` and `contention` are taken with no other lock held, and for
//! moments. Lock order: the address space's `ending`, `ranges`, (the mmap lock,) (pages' locks,)
//! `tables`, then those of [`Mmu`](crate::mmu::Mmu). None of them but the last two is taken by who
//! holds the mmap lock or a page's lock, or by who frees memory. `bound` and `spaces` are taken
//! with none of them held. The [copy engine](crate::engine)'s lock is taken with pages' locks
//! held, and those of the MMU below that, but never `tables`: with that held, who waits for the MMU
//! takes it if the device was reset.

use crate::{
    address_space::{
        AddressSpace,
        Asids, //
    },
    compute::Compute,
    engine::Engine,
    fault_buffer::Fault,
    job::{
        self,
        Job, //
    },
    mmu::Command,
    page_table::{
        Leaves,
        PageTable, //
    },
    pagemap::SimgpuPagemap,
    regs::{
        ASIDS,
        QUEUES, //
    },
    uapi::{
        drm_simgpu_counters,
        drm_simgpu_submit, //
    }, //
};
use drm_pagemap::Pagemap;
use kernel::{
    device::{
        Bound,
        Device, //
    },
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// The GPU, as processes share their memory with it.
#[pin_data]
pub(crate) struct Svm {
    dev: ARef<Device>,
    pub(crate) pagemap: Arc<Pagemap<SimgpuPagemap>>,
    pub(crate) compute: Arc<Compute>,
    pub(crate) asids: Arc<Asids>,
    pub(crate) leaves: Arc<Leaves>,
    /// Whether the driver is bound to the device; it stays so while this is held.
    #[pin]
    bound: Mutex<bool>,
    /// Those that there are, by number.
    #[pin]
    spaces: Mutex<KVec<Option<Arc<AddressSpace>>>>,
    faults: Atomic<u64>,
    cancelled: Atomic<u64>,
}

impl Svm {
    /// Starts the compute side of the device. May sleep.
    fn new(
        dev: &Device<Bound>,
        engine: Arc<Engine>,
        pagemap: Arc<Pagemap<SimgpuPagemap>>,
    ) -> Result<Arc<Self>> {
        let mut spaces = KVec::with_capacity(ASIDS, GFP_KERNEL)?;
        for _ in 0..ASIDS {
            spaces.push(None, GFP_KERNEL)?;
        }
        let asids = Asids::new()?;
        let leaves = Arc::new(
            Leaves {
                small: Atomic::new(0),
                huge: Atomic::new(0),
                remote: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        let compute = Compute::start(dev, engine)?;
        let used = compute.clone();
        let made = Arc::pin_init::<Error>(
            try_pin_init!(Self {
                dev: dev.into(),
                pagemap,
                compute: used,
                asids,
                leaves,
                bound <- new_mutex!(true, "simgpu::Svm::bound"),
                spaces <- new_mutex!(spaces, "simgpu::Svm::spaces"),
                faults: Atomic::new(0),
                cancelled: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        );

        made.inspect_err(|_| compute.stop())
    }

    /// [Reserves](PageTable::reserve) tables. [`ENODEV`]: the driver isn't bound any more.
    pub(crate) fn reserve(&self, tables: &Mutex<PageTable>, addr: usize) -> Result {
        let bound = self.bound.lock();

        if !*bound {
            return Err(ENODEV);
        }
        // SAFETY: It is bound as long as the lock is held: unbinding takes it to say so.
        let dev = unsafe { self.dev.as_bound() };

        PageTable::reserve(tables, dev, addr)
    }

    /// Makes an address space for `mm`. Errors as [`AddressSpace::new`].
    pub(crate) fn create(this: &Arc<Self>, mm: &MmWithUser) -> Result<Arc<AddressSpace>> {
        let space = AddressSpace::new(this, mm)?;
        let mut spaces = this.spaces.lock();
        let slot = spaces.get_mut(space.asid().number()).ok_or(EINVAL)?;

        *slot = Some(space.clone());
        Ok(space)
    }

    /// Takes an address space away.
    pub(crate) fn destroy(&self, space: &AddressSpace) {
        space.kill();

        let number = space.asid().number();
        let old = self.spaces.lock().get_mut(number).and_then(Option::take);
        // Not under the lock.
        drop(old);
    }

    /// Submits a job. [`EINVAL`]: there is no such queue; [`EAGAIN`]: it is full. [`ENODEV`].
    pub(crate) fn submit(
        &self,
        args: &drm_simgpu_submit,
        space: &AddressSpace,
    ) -> Result<Arc<Job>> {
        let number = args.queue as usize;
        if number >= QUEUES {
            return Err(EINVAL);
        }
        let queue = self.compute.queue(number + 1).ok_or(EINVAL)?;
        let job = Job::new(args, queue.clone(), space.asid().clone())?;

        // What it will use is the last that should go.
        for range in job::operands(args) {
            space.touch(&range);
        }
        queue.submit(job.clone())?;
        Ok(job)
    }

    /// Serves a fault. May sleep.
    pub(crate) fn serve(&self, fault: &Fault) {
        let space = self.spaces.lock().get(fault.asid).cloned().flatten();
        let result = match space {
            Some(space) => space.serve(fault.addr, fault.how),
            None => Err(ECANCELED),
        };
        let command = match result {
            Ok(()) => Command::Replay { asid: fault.asid },
            Err(err) => {
                if err != ECANCELED {
                    self.cancelled.add(1, Relaxed);
                    dev_dbg!(self.dev, "{:?} can't be served: {:?}\n", fault, err);
                }
                Command::Cancel {
                    queue: fault.queue,
                    token: fault.token,
                }
            }
        };

        self.faults.add(1, Relaxed);
        // An error is a device that is gone, and its job with it.
        let _ = self.compute.mmu.run(&command);
    }

    /// The counters.
    pub(crate) fn counters(&self) -> Result<drm_simgpu_counters> {
        let device = |index| self.compute.mmu.counter(index);
        let mut moved = 0;

        for queue in 0..QUEUES {
            moved += device(11 + queue)?;
        }
        Ok(drm_simgpu_counters {
            gpu_faults: self.faults.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            invalidations: self.compute.mmu.invalidations(),
            small_leaves: self.leaves.small.load(Relaxed),
            huge_leaves: self.leaves.huge.load(Relaxed),
            tlb_hits: device(0)?,
            tlb_misses: device(1)?,
            atomic_faults: device(6)?,
            job_bytes: moved,
            peer_bytes: device(15)?,
            jobs_done: device(16)?,
            jobs_failed: device(17)?,
            flags: 0,
            pad: 0,
        })
    }
}

/// The compute side, in use. Dropping it ends all jobs, takes all address spaces from the device,
/// and stops it.
pub(crate) struct Running(Arc<Svm>);

impl Running {
    /// Starts it. May sleep.
    pub(crate) fn start(
        dev: &Device<Bound>,
        engine: Arc<Engine>,
        pagemap: Arc<Pagemap<SimgpuPagemap>>,
    ) -> Result<Self> {
        Ok(Self(Svm::new(dev, engine, pagemap)?))
    }

    /// The GPU.
    pub(crate) fn svm(&self) -> &Arc<Svm> {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let svm = &self.0;

        // First: that is why jobs end, and not that their address spaces go.
        svm.compute.stop_queues();
        for number in 0..ASIDS {
            let space = svm.spaces.lock().get_mut(number).and_then(Option::take);

            if let Some(space) = space {
                space.kill();
            }
        }
        *svm.bound.lock() = false;
        svm.compute.stop();
    }
}
