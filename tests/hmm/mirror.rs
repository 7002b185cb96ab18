// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A process's address space, mirrored by a device: what the tests have the device do.
//!
//! All of it behaves as the kernel's own `lib/test_hmm.c`, whose user interface this has. Errors
//! are those that the tests want.

use crate::{
    device::Device,
    table::{
        Entry,
        Table,
        Watch, //
    },
    uapi, //
};
use core::ops::Range;
use drm_pagemap::mm::{
    Access,
    Found,
    FoundPage,
    Interval,
    LockedMm,
    Pages,
    PMD_ORDER, //
};
use kernel::{
    mm::{
        virt,
        MmWithUser, //
    },
    new_mutex,
    page::{
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// Bytes that are migrated at a time: what a PMD maps.
pub(crate) const STEP: usize = PAGE_SIZE << PMD_ORDER;

/// The order of what the next level of page tables maps.
const PUD_ORDER: u32 = 2 * PMD_ORDER;

/// What an open file of the device has.
#[pin_data]
pub(crate) struct Mirror {
    #[pin]
    interval: Interval<Watch>,
    device: Arc<Device>,
    /// Whether the next allocation of a large folio shall fail.
    fail: Atomic<bool>,
}

impl Mirror {
    /// Mirrors all of `mm`.
    pub(crate) fn new(device: Arc<Device>, mm: &MmWithUser) -> Result<Pin<KBox<Self>>> {
        let table = Arc::pin_init(
            new_mutex!(Table::new(), "hmm_dmirror::Mirror::table"),
            GFP_KERNEL,
        )?;
        let owner = device.pagemap().owner();
        let interval = Interval::new(
            mm,
            0..usize::MAX & PAGE_MASK,
            owner,
            table,
            Ok::<_, Error>(Watch),
        );

        KBox::try_pin_init(
            try_pin_init!(Self {
                interval <- interval,
                device,
                fail: Atomic::new(false),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The device.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The next allocation of a large folio fails.
    pub(crate) fn fail_alloc(&self, fail: bool) {
        self.fail.store(fail, Relaxed);
    }

    fn mm(&self) -> Result<ARef<MmWithUser>> {
        self.interval.mm().mmget_not_zero().ok_or(EINVAL)
    }

    /// Looks at `range` as it is, and calls `f` with it.
    fn look<R>(
        &self,
        range: Range<usize>,
        f: impl FnOnce(&mut Table, Found<'_>) -> Result<R>,
    ) -> Result<R> {
        Pages::new(&self.interval, range, Access::AsIs)?.fault_and_commit(f)
    }

    /// A page fault of the device: has its table filled for `range`.
    fn fault(&self, range: Range<usize>, access: Access) -> Result {
        Pages::new(&self.interval, range, access)?.fault_and_commit(|table, found| {
            for page in (0..found.nr_pages()).filter_map(|index| found.page(index)) {
                let entry = if page.is_writable() {
                    Entry::Write
                } else {
                    Entry::Read
                };

                table.set(page.addr(), entry)?;
            }
            Ok(())
        })
    }

    /// Calls `access` for the pages of `range`, until there is one that the device can't access.
    /// Returns how many it could.
    fn access(
        &self,
        range: Range<usize>,
        may: impl Fn(Entry) -> bool,
        mut access: impl FnMut(usize, FoundPage<'_>) -> Result,
    ) -> Result<usize> {
        if range.is_empty() {
            return Ok(0);
        }
        self.look(range, |table, found| {
            for index in 0..found.nr_pages() {
                let page = found
                    .page(index)
                    .filter(|page| table.get(page.addr()).is_some_and(&may));

                match page {
                    Some(page) => access(index, page)?,
                    None => return Ok(index),
                }
            }
            Ok(found.nr_pages())
        })
    }

    /// Reads as many pages of `range` as the device can without a fault.
    fn read_mapped(&self, range: Range<usize>, out: &mut [u8]) -> Result<usize> {
        let pagemap = self.device.pagemap();

        self.access(
            range,
            |_| true,
            |index, page| {
                let out = &mut out[index << PAGE_SHIFT..][..PAGE_SIZE];

                if page.is_device() {
                    let offset = pagemap.offset_of(page.pfn());

                    self.device.vram().read(offset, out)
                } else {
                    page.read(0, out)
                }
            },
        )
    }

    fn write_mapped(&self, range: Range<usize>, from: &[u8]) -> Result<usize> {
        let pagemap = self.device.pagemap();

        self.access(
            range,
            |entry| entry == Entry::Write,
            |index, page| {
                let from = &from[index << PAGE_SHIFT..][..PAGE_SIZE];

                if page.is_device() {
                    let offset = pagemap.offset_of(page.pfn());

                    self.device.vram().write(offset, from)
                } else {
                    page.write(0, from)
                }
            },
        )
    }

    /// The device reads `range`. Returns the number of its page faults.
    pub(crate) fn read(&self, range: Range<usize>, out: &mut [u8]) -> Result<usize> {
        let mut at = range.start;

        for faults in 0.. {
            let pages = self.read_mapped(at..range.end, &mut out[at - range.start..])?;

            at += pages << PAGE_SHIFT;
            if at == range.end {
                return Ok(faults);
            }
            self.fault(at..range.end, Access::Read)?;
        }
        Err(EBUSY)
    }

    /// The device writes `range`. Returns the number of its page faults.
    pub(crate) fn write(&self, range: Range<usize>, from: &[u8]) -> Result<usize> {
        let mut at = range.start;

        for faults in 0.. {
            let pages = self.write_mapped(at..range.end, &from[at - range.start..])?;

            at += pages << PAGE_SHIFT;
            if at == range.end {
                return Ok(faults);
            }
            self.fault(at..range.end, Access::Write)?;
        }
        Err(EBUSY)
    }

    /// Calls `f` for the parts of `range`, each within one area and one PMD. [`EINVAL`]: there are
    /// parts that are not mapped, or not for reading.
    fn areas(
        mm: &LockedMm<'_>,
        range: Range<usize>,
        mut f: impl FnMut(Range<usize>) -> Result,
    ) -> Result {
        let mut at = range.start;

        while at < range.end {
            let vma = mm
                .vma_lookup(at)
                .filter(|vma| vma.flags() & virt::flags::READ != 0)
                .ok_or(EINVAL)?;
            let end = range
                .end
                .min(vma.end())
                .min((at & !(STEP - 1)).saturating_add(STEP));

            f(at..end)?;
            at = end;
        }
        Ok(())
    }

    /// Migrates what it can of `range` to the device.
    pub(crate) fn migrate_to_device(&self, range: Range<usize>) -> Result {
        let mm = self.mm()?;
        let locked = LockedMm::read(&mm);

        Self::areas(&locked, range.clone(), |part| {
            let fail = part.len() == STEP && self.fail.xchg(false, Relaxed);

            self.device.migrate(&locked, part, fail)
        })?;
        drop(locked);

        self.look(range, |table, found| {
            for page in (0..found.nr_pages()).filter_map(|index| found.page(index)) {
                if page.is_device() {
                    let entry = if page.is_writable() {
                        Entry::Write
                    } else {
                        Entry::Read
                    };

                    table.set(page.addr(), entry)?;
                }
            }
            Ok(())
        })
    }

    /// Reads `range`, that was migrated to the device. [`ENOENT`]: that is not all.
    pub(crate) fn read_migrated(&self, range: Range<usize>, out: &mut [u8]) -> Result {
        self.expect_all(range.clone(), self.read_mapped(range, out)?)
    }

    /// [`ENOENT`] unless `pages` are as many as those of `range`.
    fn expect_all(&self, range: Range<usize>, pages: usize) -> Result {
        if pages == range.len() >> PAGE_SHIFT {
            Ok(())
        } else {
            Err(ENOENT)
        }
    }

    /// Where the pages of `range` are that are in the device's memory.
    fn in_device(&self, range: Range<usize>) -> Result<KVVec<u64>> {
        let mut offsets = KVVec::with_capacity(range.len() >> PAGE_SHIFT, GFP_KERNEL)?;
        let pagemap = self.device.pagemap();

        self.look(range, |_, found| {
            for page in (0..found.nr_pages()).filter_map(|index| found.page(index)) {
                if page.is_device() {
                    offsets
                        .push_within_capacity(pagemap.offset_of(page.pfn()))
                        .map_err(|_| EINVAL)?;
                }
            }
            Ok(())
        })?;
        Ok(offsets)
    }

    /// Migrates `range` from the device. Returns the number of pages that it did.
    pub(crate) fn migrate_to_system(&self, range: Range<usize>) -> Result<usize> {
        let mm = self.mm()?;

        Self::areas(&LockedMm::read(&mm), range.clone(), |_| Ok(()))?;
        // The layer takes care of the folios that it can't get by itself.
        self.fail_alloc(false);

        let before = self.in_device(range.clone())?;
        for &offset in &before {
            if let Some(handle) = self.device.vram().owner(offset) {
                if !handle.is_detached() {
                    handle.evict_to_ram().1?;
                }
            }
        }
        Ok(before.len() - self.in_device(range)?.len())
    }

    /// Takes the pages of `range` from the CPUs, and reads what they hold. [`ENOENT`]: some have
    /// been taken back meanwhile.
    pub(crate) fn exclusive(&self, range: Range<usize>, out: &mut [u8]) -> Result {
        for (addr, out) in range
            .clone()
            .step_by(PAGE_SIZE)
            .zip(out.chunks_mut(PAGE_SIZE))
        {
            self.interval.exclusive(addr, |table, page| {
                page.read(0, out)?;
                table.set(addr, Entry::Exclusive)
            })?;
        }

        let table = self.interval.lock().lock();
        let left = range
            .clone()
            .step_by(PAGE_SIZE)
            .filter(|&addr| table.get(addr).is_some());

        self.expect_all(range, left.count())
    }

    /// [`EPERM`] if the device has a page of `range` for itself.
    pub(crate) fn check_exclusive(&self, range: Range<usize>) -> Result {
        let table = self.interval.lock().lock();

        if range
            .step_by(PAGE_SIZE)
            .any(|addr| table.get(addr) == Some(Entry::Exclusive))
        {
            return Err(EPERM);
        }
        Ok(())
    }

    /// Says of each page of `range` what the device sees.
    pub(crate) fn snapshot(&self, range: Range<usize>, out: &mut [u8]) -> Result {
        self.mm()?;
        self.look(range, |_, found| {
            for (index, out) in out.iter_mut().enumerate() {
                *out = match found.page(index) {
                    None if found.is_error(index) => uapi::PROT_ERROR,
                    None => uapi::PROT_NONE,
                    Some(page) => protection(&page),
                };
            }
            Ok(())
        })
    }
}

/// What the device sees of a page.
fn protection(page: &FoundPage<'_>) -> u8 {
    let place = if page.is_device() {
        uapi::PROT_DEV_PRIVATE_LOCAL
    } else if page.is_zero_page() {
        uapi::PROT_ZERO
    } else {
        uapi::PROT_NONE
    };
    let access = if page.is_writable() {
        uapi::PROT_WRITE
    } else {
        uapi::PROT_READ
    };
    let size = match page.map_order() {
        PMD_ORDER => uapi::PROT_PMD,
        PUD_ORDER => uapi::PROT_PUD,
        _ => 0,
    };

    place | access | size
}
