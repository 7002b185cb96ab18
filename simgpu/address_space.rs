// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A process's address space, as the GPU has it.

use crate::{
    advice::{
        Advice,
        Hint,
        Prefer, //
    },
    bring::bring,
    contention::Contention,
    evict::send_home,
    page_table::{
        PageTable,
        Use, //
    },
    pagemap::SimgpuPagemap,
    range::part_where,
    regs::ASIDS,
    svm::Svm, //
};
use core::ops::Range;
use drm_pagemap::{
    mm::{
        Access,
        LockedMm,
        Place, //
    },
    SvmOps,
    SvmPages,
    SvmRange, //
};
use kernel::{
    mm::{
        virt::flags,
        Mm,
        MmWithUser, //
    },
    new_mutex,
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*,
    rbtree::RBTree,
    sizes::SZ_2M,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant, //
    }, //
};

/// How often a fault is looked at again before the GPU is let to try, which makes another fault.
const TRIES: i64 = 8;

/// The numbers of address spaces that are taken, as bits.
#[pin_data]
pub(crate) struct Asids {
    #[pin]
    taken: Mutex<u64>,
}

impl Asids {
    /// None is.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                taken <- new_mutex!(0, "simgpu::Asids::taken"),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes one. [`ENOSPC`]: there is none left.
    fn take(this: &Arc<Self>) -> Result<Arc<Asid>> {
        let mut taken = this.taken.lock();
        let number = taken.trailing_ones() as usize;

        if number >= ASIDS {
            return Err(ENOSPC);
        }
        let asid = Arc::new(
            Asid {
                asids: this.clone(),
                number,
            },
            GFP_KERNEL,
        )?;
        *taken |= 1 << number;
        Ok(asid)
    }
}

/// The number of an address space, given back when this is dropped: when nothing of it is left on
/// the device.
pub(crate) struct Asid {
    asids: Arc<Asids>,
    number: usize,
}

impl Asid {
    /// The number, less than [`ASIDS`].
    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Asid {
    fn drop(&mut self) {
        *self.asids.taken.lock() &= !(1 << self.number);
    }
}

/// How ranges are in the page tables.
pub(crate) struct Mapping;

impl SvmOps for Mapping {
    type Pagemap = SimgpuPagemap;
    type State = PageTable;

    fn map(&self, state: &mut PageTable, pages: &SvmPages) -> Result {
        state.map(pages)
    }

    fn unmap(&self, state: &mut PageTable, pages: &SvmPages) {
        state.unmap(pages.range());
    }
}

type Mapped = SvmRange<Mapping>;

/// The ranges that there are, by their starts. They are in 2 MiB windows and don't overlap.
struct Ranges {
    map: RBTree<usize, Arc<Mapped>>,
    dead: bool,
}

/// An address space. See [`svm`](crate::svm) for how all of it works, and for the lock order.
#[pin_data]
pub(crate) struct AddressSpace {
    svm: Arc<Svm>,
    asid: Arc<Asid>,
    mm: ARef<Mm>,
    tables: Arc<Mutex<PageTable>>,
    #[pin]
    ranges: Mutex<Ranges>,
    #[pin]
    advice: Mutex<Advice>,
    #[pin]
    contention: Mutex<Contention>,
    /// Held while it is taken away.
    #[pin]
    ending: Mutex<()>,
}

impl AddressSpace {
    /// That of `mm`. May sleep. [`ENOSPC`]: there are too many; [`ENOMEM`].
    pub(crate) fn new(svm: &Arc<Svm>, mm: &MmWithUser) -> Result<Arc<Self>> {
        let asid = Asids::take(&svm.asids)?;
        let mmu = svm.compute.mmu.clone();
        let tables = PageTable::new(mmu, asid.number, svm.leaves.clone());
        let tables = Arc::pin_init(
            new_mutex!(tables, "simgpu::AddressSpace::tables"),
            GFP_KERNEL,
        )?;

        // A root, so that jobs find an address space.
        svm.reserve(&tables, 0)?;
        Arc::pin_init::<Error>(
            try_pin_init!(Self {
                svm: svm.clone(),
                asid,
                mm: ARef::from(&**mm),
                tables,
                ranges <- new_mutex!(
                    Ranges { map: RBTree::new(), dead: false },
                    "simgpu::AddressSpace::ranges"
                ),
                advice <- new_mutex!(Advice::new(), "simgpu::AddressSpace::advice"),
                contention <- new_mutex!(
                    Contention::new(),
                    "simgpu::AddressSpace::contention"
                ),
                ending <- new_mutex!((), "simgpu::AddressSpace::ending"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Its number on the device.
    pub(crate) fn asid(&self) -> &Arc<Asid> {
        &self.asid
    }

    /// Whether it is that of `mm`.
    pub(crate) fn is_of(&self, mm: &MmWithUser) -> bool {
        self.mm.as_raw() == mm.as_raw()
    }

    /// Notes that what `range` has in VRAM is used.
    pub(crate) fn touch(&self, range: &Range<usize>) {
        self.svm.pagemap.vram.touch_range(&self.mm, range);
    }

    /// Says something of `range`. So that it counts, what is mapped there is unmapped: the GPU's
    /// next use makes a fault.
    pub(crate) fn advise(&self, range: Range<usize>, hint: Hint) -> Result {
        self.advice.lock().set(range.clone(), hint)?;

        let ranges = self.ranges.lock();
        let mut from = range.start & !(SZ_2M - 1);
        while let Some(at) = ranges.map.cursor_lower_bound(&from) {
            let there = at.current().1.range();

            if there.start >= range.end {
                break;
            }
            if overlaps(&there, &range) {
                at.current().1.unmap();
            }
            from = there.end;
        }
        Ok(())
    }

    /// Sees to it that the GPU can use the page at `addr` in this way, if only for a moment: when
    /// this returns, it can have lost it again. May sleep.
    ///
    /// [`EFAULT`], [`EPERM`]: the process itself could not. [`ECANCELED`]: this was taken away. And
    /// what [`Mapped::populate`] says.
    pub(crate) fn serve(&self, addr: u64, how: Use) -> Result {
        let addr = usize::try_from(addr)? & PAGE_MASK;
        let mut small = false;

        self.svm.reserve(&self.tables, addr)?;
        for tries in 0..TRIES {
            let result = self.serve_once(addr, how, small);

            match result {
                Err(err) if err == EFAULT && !small => small = true,
                Err(err) if err == EBUSY || err == EAGAIN => fsleep(Delta::from_millis(1 + tries)),
                Err(err) => return Err(err),
                Ok(true) => return Ok(()),
                // It is gone again.
                Ok(false) => (),
            }
        }
        Ok(())
    }

    /// Returns whether it was there for a moment. `small`: nothing but the page.
    fn serve_once(&self, addr: usize, how: Use, small: bool) -> Result<bool> {
        let mm = self.mm.mmget_not_zero().ok_or(EFAULT)?;
        let mut window = window(&mm, addr, how)?;
        let access = match how {
            Use::Read => Access::Read,
            Use::Write | Use::Atomic => Access::Write,
        };

        let (hint, hinted) = self.advice.lock().at(addr, &window);
        window = if small {
            addr..addr + PAGE_SIZE
        } else {
            hinted
        };
        let stays = hint.prefer == Prefer::Stay
            || hint.read_mostly && how == Use::Read
            || self.is_contested(&mm, addr)?;
        if !stays {
            match self.bring(&mm, addr, &window, hint.prefer, hint.timeslice_ms) {
                Err(err) if err == ENODEV || err == EIO => return Err(err),
                // It can be used where it is.
                _ => (),
            }
        }

        let range = self.range(&mm, addr, window)?;
        if how == Use::Atomic && self.is_in_ram(&mm, addr)? {
            // No CPU may have it, so the range will be mapped for this page alone.
            range.populate_exclusive(addr)?;
            return Ok(self.tables.lock().allows(addr, how));
        }
        if range.populate(access)? && !stays {
            // What came to RAM to become the process's own can go back.
            return Ok(false);
        }
        if self.tables.lock().allows(addr, how) {
            return Ok(true);
        }
        if how == Use::Atomic && self.tables.lock().allows(addr, Use::Write) {
            // It has come to RAM just now.
            range.populate_exclusive(addr)?;
            return Ok(self.tables.lock().allows(addr, how));
        }
        // It seems to be there, but is not: another range had it, before this one came.
        range.unmap();
        Ok(false)
    }

    /// Whether another GPU has the page at `addr`, and has taken it from this one again and again.
    fn is_contested(&self, mm: &MmWithUser, addr: usize) -> Result<bool> {
        if !self.contention.lock().is_contested(addr) {
            return Ok(false);
        }

        // One without a link to this GPU has what seems to be absent.
        let is_away = |place| matches!(place, Place::Peer | Place::None);
        let away = part_where(&self.svm.pagemap, mm, addr..addr + PAGE_SIZE, is_away)?;
        Ok(!away.is_empty())
    }

    /// Whether the page at `addr` is in RAM.
    fn is_in_ram(&self, mm: &MmWithUser, addr: usize) -> Result<bool> {
        let page = addr..addr + PAGE_SIZE;
        let there = part_where(&self.svm.pagemap, mm, page, |place| place == Place::Ram)?;

        Ok(!there.is_empty())
    }

    /// Brings `window`, in which `addr` is, to where it is preferred.
    fn bring(
        &self,
        mm: &MmWithUser,
        addr: usize,
        window: &Range<usize>,
        prefer: Prefer,
        timeslice_ms: u32,
    ) -> Result {
        let begun = Instant::now();
        let pagemap = self.svm.pagemap.as_arc_borrow();
        let brought = match prefer {
            Prefer::Vram => bring(pagemap, mm, window, timeslice_ms).map(|pages| pages > 0),
            Prefer::Ram => send_home(&pagemap, mm, window),
            Prefer::Stay => Ok(false),
        };

        // What could not be brought will be tried again, too.
        if brought != Ok(false) {
            self.contention.lock().brought(addr, begun);
        }
        brought.map(|_| ())
    }

    /// The range that has `addr`, of those in `window`; a new one, if there is none. Others that
    /// reach out of the window, into another area, say, are no good any more.
    fn range(&self, mm: &MmWithUser, addr: usize, window: Range<usize>) -> Result<Arc<Mapped>> {
        let mut useless = KVec::new();
        let mut new = window.clone();
        let mut found = None;
        let mut ranges = self.ranges.lock();

        if ranges.dead {
            return Err(ECANCELED);
        }
        let mut from = addr & !(SZ_2M - 1);
        while let Some(at) = ranges.map.cursor_lower_bound(&from) {
            let (&start, range) = at.current();
            let there = range.range();

            if start >= window.end {
                break;
            }
            from = there.end;
            if range.is_gone() || overlaps(&there, &window) && !within(&there, &window) {
                useless.push(range.clone(), GFP_KERNEL)?;
            } else if there.contains(&addr) {
                found = Some(range.clone());
            } else if there.end <= addr {
                new.start = new.start.max(there.end);
            } else {
                new.end = new.end.min(start);
            }
        }
        for range in &useless {
            let _ = ranges.map.remove(&range.range().start);
        }
        // Now, before others map something there.
        drop(useless);
        if let Some(found) = found {
            return Ok(found);
        }

        let range = Arc::pin_init(
            Mapped::new(
                self.svm.pagemap.clone(),
                mm,
                new.clone(),
                self.tables.clone(),
                Mapping,
            ),
            GFP_KERNEL,
        )?;
        ranges
            .map
            .try_create_and_insert(new.start, range.clone(), GFP_KERNEL)?;
        Ok(range)
    }

    /// Brings `range` to VRAM, as far as that is possible, and maps it for the GPU.
    pub(crate) fn prefetch(&self, mm: &MmWithUser, range: Range<usize>) -> Result {
        let mut addr = range.start;

        while addr < range.end {
            if kernel::current!().signal_pending() {
                return Err(EINTR);
            }
            let end = range.end.min((addr | (SZ_2M - 1)) + 1);
            let window = window(mm, addr, Use::Read)?;
            let part = addr..end.min(window.end);
            let timeslice_ms = self.advice.lock().at(addr, &window).0.timeslice_ms;

            match bring(
                self.svm.pagemap.as_arc_borrow(),
                mm,
                &part,
                timeslice_ms, //
            ) {
                // Of a file, say: there is nothing to bring.
                Err(err) if err == EOPNOTSUPP => (),
                result => {
                    result?;
                }
            }
            addr = part.end;
        }
        Ok(())
    }

    /// Takes it from the device. Its jobs fail, its pages are the process's alone. May sleep; may
    /// be called again, which waits for whoever is at it.
    pub(crate) fn kill(&self) {
        let _ending = self.ending.lock();
        let ranges = {
            let mut ranges = self.ranges.lock();

            if !core::mem::replace(&mut ranges.dead, true) {
                self.tables.lock().kill();
            }
            core::mem::replace(&mut ranges.map, RBTree::new())
        };

        drop(ranges);
        let tables = self.tables.lock().take_tables();
        drop(tables);
    }
}

fn overlaps(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

fn within(a: &Range<usize>, b: &Range<usize>) -> bool {
    b.start <= a.start && a.end <= b.end
}

/// The part of the 2 MiB around `addr` that is in the same area of `mm`. [`EFAULT`]: there is
/// none; [`EPERM`]: or not one that can be used in this way.
fn window(mm: &MmWithUser, addr: usize, how: Use) -> Result<Range<usize>> {
    let mm = LockedMm::read(mm);
    let area = mm.vma_lookup(addr).ok_or(EFAULT)?;
    let start = addr & !(SZ_2M - 1);

    let wanted = match how {
        Use::Read => flags::READ,
        Use::Write | Use::Atomic => flags::READ | flags::WRITE,
    };
    if area.flags() & wanted != wanted {
        return Err(EPERM);
    }
    Ok(start.max(area.start())..(start + SZ_2M).min(area.end()))
}
