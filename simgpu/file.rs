// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! An open file: the address spaces and the jobs that were made with it.

use crate::{
    address_space::AddressSpace,
    clients::{
        self,
        Clients, //
    },
    device::{
        SimgpuDevice,
        SimgpuDrm, //
    },
    job::Job,
    svm::Svm, //
};
use kernel::{
    drm,
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// How many jobs there can be that nobody has waited for.
const MAX_JOBS: usize = 4096;

/// An open file. What is made with it goes when it is closed.
#[pin_data(PinnedDrop)]
pub(crate) struct File {
    #[pin]
    spaces: Mutex<KVec<Owned>>,
    #[pin]
    jobs: Mutex<Jobs>,
    _client: clients::Entry,
}

/// An address space that is taken away when this is dropped.
struct Owned {
    svm: Arc<Svm>,
    space: Arc<AddressSpace>,
}

impl Owned {
    /// Its number for user space: that of the device and 1, so that 0 is none.
    fn number(&self) -> u32 {
        self.space.asid().number() as u32 + 1
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.svm.destroy(&self.space);
    }
}

/// Jobs by their numbers.
struct Jobs {
    next: u64,
    count: usize,
    map: RBTree<u64, Arc<Job>>,
}

impl drm::file::DriverFile for File {
    type Driver = SimgpuDrm;

    fn open(device: &SimgpuDevice) -> Result<Pin<KBox<Self>>> {
        let jobs = Jobs {
            next: 1,
            count: 0,
            map: RBTree::new(),
        };

        let clients: &Arc<Clients> = device;
        let client = Clients::enter(clients)?;

        KBox::try_pin_init(
            try_pin_init!(Self {
                _client: client,
                spaces <- new_mutex!(KVec::new(), "simgpu::File::spaces"),
                jobs <- new_mutex!(jobs, "simgpu::File::jobs"),
            }),
            GFP_KERNEL,
        )
    }
}

#[pinned_drop]
impl PinnedDrop for File {
    fn drop(self: Pin<&mut Self>) {
        // Before the jobs: those that stall end by this.
        self.spaces.lock().clear();
    }
}

impl File {
    /// Makes an address space for `mm`, and returns its number. Errors as [`AddressSpace::new`].
    pub(crate) fn create(&self, svm: &Arc<Svm>, mm: &MmWithUser) -> Result<u32> {
        let owned = Owned {
            svm: svm.clone(),
            space: Svm::create(svm, mm)?,
        };
        let number = owned.number();

        self.spaces.lock().push(owned, GFP_KERNEL)?;
        Ok(number)
    }

    /// Takes an address space away. [`ENOENT`]: there is none with this number.
    pub(crate) fn destroy(&self, number: u32) -> Result {
        let owned = {
            let mut spaces = self.spaces.lock();
            let index = spaces
                .iter()
                .position(|owned| owned.number() == number)
                .ok_or(ENOENT)?;

            spaces.remove(index).map_err(|_| ENOENT)?
        };

        drop(owned);
        Ok(())
    }

    /// The address space with this number. [`ENOENT`]: there is none. [`EPERM`]: it is not that of
    /// `mm`.
    pub(crate) fn space(&self, number: u32, mm: &MmWithUser) -> Result<Arc<AddressSpace>> {
        let spaces = self.spaces.lock();
        let owned = spaces
            .iter()
            .find(|owned| owned.number() == number)
            .ok_or(ENOENT)?;

        if !owned.space.is_of(mm) {
            return Err(EPERM);
        }
        Ok(owned.space.clone())
    }

    /// Submits a job by `submit`, and returns its number. [`EAGAIN`]: too many were not waited for.
    pub(crate) fn add_job(&self, submit: impl FnOnce() -> Result<Arc<Job>>) -> Result<u64> {
        let mut jobs = self.jobs.lock();

        if jobs.count >= MAX_JOBS {
            return Err(EAGAIN);
        }
        let node = kernel::rbtree::RBTreeNodeReservation::new(GFP_KERNEL)?;
        let job = submit()?;
        let number = jobs.next;

        jobs.next += 1;
        jobs.count += 1;
        let _ = jobs.map.insert(node.into_node(number, job));
        Ok(number)
    }

    /// The job with this number. [`ENOENT`]: there is none, or it was waited for.
    pub(crate) fn job(&self, number: u64) -> Result<Arc<Job>> {
        self.jobs.lock().map.get(&number).cloned().ok_or(ENOENT)
    }

    /// Forgets a job. [`ENOENT`]: somebody else has.
    pub(crate) fn forget(&self, number: u64) -> Result {
        let mut jobs = self.jobs.lock();
        let job = jobs.map.remove(&number).ok_or(ENOENT)?;

        jobs.count -= 1;
        drop(jobs);
        drop(job);
        Ok(())
    }
}
