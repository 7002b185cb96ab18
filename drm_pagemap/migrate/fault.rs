// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A CPU touched a page in device memory.

use crate::{
    crew, jiffies,
    migrate::home::{
        bring_home,
        copy,
        retire_sources,
        Home, //
    },
    mm::{
        pmd_part,
        Arrays,
        AsRoom,
        Collected,
        Entries,
        Fault,
        LockedFolio,
        LockedMm,
        PagemapOwner,
        RamPolicy,
        Select,
        VmaRange,
        Waited,
        NR_PMD_PAGES, //
    },
    policy::{
        FaultWindow,
        SliceWait, //
    },
    pool::Lent,
    scratch::{
        LargeScratch,
        Scratch, //
    },
    trace::{
        self,
        Span, //
    },
    zdd::Zdd,
};
use core::{
    iter,
    ops::{
        DerefMut,
        Range, //
    }, //
};
use kernel::{
    mm::{
        virt::VmaRef,
        MmWithUser, //
    },
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
        }, //
    },
    time::msecs_to_jiffies, //
};

/// How a CPU fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmFault {
    /// The CPU may try again: the page is home, or it takes another fault to get it there.
    Done,
    /// The same, and the mmap lock has been let go.
    Retry,
    /// No RAM for the page: the core may free some, and tries again.
    OutOfMemory,
    /// The page can't be had: its task gets a SIGBUS.
    Sigbus,
}

impl VmFault {
    fn after(waited: Waited) -> Self {
        match waited {
            Waited::LockDropped => Self::Retry,
            Waited::NotAtAll => Self::Done,
        }
    }
}

/// The longest that a fault waits for the end of a time slice before the core may look at signals,
/// in milliseconds.
const WAIT_MS: u32 = 20;

/// Brings home the page that a CPU wants, and with it as much of its allocation as the pagemap's
/// [policy](crate::policy) says, and is mapped here.
///
/// Within the allocation's time slice nothing moves, and the CPU waits, as far as the fault allows
/// that; for a while, then it faults again. So it does when somebody else is at the page. If all
/// of that can't be brought home, the folio that is wanted still is, so that no process is
/// killed for the sake of a neighbour; if there is no RAM for a large one, it comes home page by
/// page, which takes the CPU another fault. Called under the mmap lock, with the page locked. May
/// sleep.
pub(crate) fn to_ram(fault: Fault<'_>) -> VmFault {
    let Some(zdd) = Zdd::of_folio(fault.folio()) else {
        return VmFault::Sigbus;
    };
    let span = Span::fault(&fault, zdd);
    let mut moved = 0;
    let result = match page_to_ram(&fault, zdd, &mut moved) {
        Next::End(result) => result,
        Next::WaitForSlice(zdd) => wait_for_slice(fault, zdd),
        Next::BackOff => back_off(fault),
    };

    span.end(result, moved);
    result
}

/// What comes next in a fault.
enum Next {
    /// Nothing more.
    End(VmFault),
    /// The time slice of the allocation is not over.
    WaitForSlice(ARef<Zdd>),
    /// Somebody else is at the page.
    BackOff,
}

/// `moved` is raised by the number of pages that came home.
#[inline(always)]
fn page_to_ram(fault: &Fault<'_>, zdd: &Zdd, moved: &mut usize) -> Next {
    let policy = zdd.policy();

    policy.counts().fault();
    if zdd.devmem().in_timeslice() {
        return Next::WaitForSlice(zdd.into());
    }

    match bring_folio_home(fault, zdd, policy.window(), moved) {
        Ok(true) => {
            policy.came_home(fault.vma().mm(), fault.address(), zdd.number());
            Next::End(VmFault::Done)
        }
        Ok(false) => Next::BackOff,
        Err(err) if err == ENOMEM => Next::End(VmFault::OutOfMemory),
        Err(_) => Next::End(VmFault::Sigbus),
    }
}

/// A CPU has to wait for the end of the time slice, as the policy says.
fn wait_for_slice(fault: Fault<'_>, zdd: ARef<Zdd>) -> VmFault {
    if zdd.policy().policy().slice_wait == SliceWait::Refault {
        return VmFault::Done;
    }

    let start = jiffies::now();
    let waited = fault.wait_while(msecs_to_jiffies(WAIT_MS), || zdd.devmem().in_timeslice());

    if waited == Waited::LockDropped {
        zdd.policy().counts().slice_wait(jiffies::now() - start);
    }
    VmFault::after(waited)
}

/// Lets somebody else get on who is at the page that is wanted.
///
/// At first the CPU just faults again. If that doesn't help, it sleeps for a jiffy: a page may be
/// held for long. While it sleeps it keeps a reference on the page itself, with which nobody gets
/// the page home; so only one task does, of all that want this page, and the others keep trying.
fn back_off(fault: Fault<'_>) -> VmFault {
    static ASLEEP: [Atomic<bool>; 64] = [const { Atomic::new(false) }; 64];

    let asleep = &ASLEEP[fault.folio().pfn().as_usize() % ASLEEP.len()];

    if !fault.was_tried() {
        return VmFault::after(fault.wait_while(0, || false));
    }
    if asleep.xchg(true, Relaxed) {
        return VmFault::Done;
    }
    let waited = fault.wait_while(1, || true);
    asleep.store(false, Relaxed);
    VmFault::after(waited)
}

/// Returns whether that has got anywhere. If not, somebody else is at the page.
#[inline(always)]
fn bring_folio_home(
    fault: &Fault<'_>,
    zdd: &Zdd,
    how_much: FaultWindow,
    moved: &mut usize,
) -> Result<bool> {
    let owner = zdd.dpagemap().zone_device().owner();
    if !fault.is_first_page() && !split(fault, owner)? {
        return Ok(false);
    }

    let wanted = window(fault, fault.folio().size());
    let all = match how_much {
        FaultWindow::Allocation => window(fault, zdd.devmem().size()),
        FaultWindow::Page => wanted.clone(),
        FaultWindow::Adaptive => {
            let touched = zdd.touches().window(fault.address());

            // A large folio is not split for the window's sake.
            within_area(
                fault,
                touched.start.min(wanted.start)..touched.end.max(wanted.end),
            )
        }
    };

    let home = match migrate(fault, zdd, owner, how_much, &all, moved) {
        Err(_) if wanted != all => migrate(fault, zdd, owner, how_much, &wanted, moved)?,
        home => home?,
    };

    if home.large.contains(&fault.folio().pfn()) {
        return map_by_pages(fault, zdd, owner, wanted, moved);
    }
    Ok(Zdd::is_retired(fault.folio()))
}

/// Splits the large folio in the middle of which the page is that is wanted, and returns whether
/// that has succeeded.
///
/// Collecting such a folio would split it, too, but the core would then take its first page for the
/// one that the fault has locked, and unlock a page that nobody has locked. So nothing else is
/// collected here.
fn split(fault: &Fault<'_>, owner: PagemapOwner) -> Result<bool> {
    let start = fault.address();
    let range = VmaRange::new(fault.vma(), start..start + PAGE_SIZE)?;

    Collected::from_vma(
        &range,
        owner,
        Select::DEVICE_PRIVATE,
        Some(fault),
        Arrays::new(1)?,
    )?;
    Ok(fault.is_first_page())
}

/// The naturally aligned addresses around the fault, `size` bytes rounded up to a power of two, as
/// far as the area goes.
fn window(fault: &Fault<'_>, size: usize) -> Range<usize> {
    let size = size.max(PAGE_SIZE).checked_next_power_of_two();
    let start = size.map_or(0, |size| fault.address() & !(size - 1));
    let end = size.map_or(usize::MAX & PAGE_MASK, |size| {
        start.saturating_add(size) & PAGE_MASK
    });

    within_area(fault, start..end)
}

/// The part of `range` that is in the fault's area.
fn within_area(fault: &Fault<'_>, range: Range<usize>) -> Range<usize> {
    range.start.max(fault.vma().start())..range.end.min(fault.vma().end())
}

/// Collects the device pages in `range`, large folios whole. The page that `wanted` is about may be
/// among them.
#[inline(always)]
fn collect<'a>(
    wanted: Option<&'a Fault<'_>>,
    owner: PagemapOwner,
    range: &VmaRange<'a>,
    arrays: Arrays<'a>,
) -> Result<Collected<'a>> {
    Collected::from_vma(
        range,
        owner,
        Select::DEVICE_PRIVATE
            .and(Select::DEVICE_COHERENT)
            .and(Select::COMPOUND),
        wanted,
        arrays,
    )
}

/// Brings home what belongs to `zdd` in `range`: first what a PMD maps where the page is that is
/// wanted. From there on it is best effort.
///
/// If nothing could be collected, somebody else is at the page: the CPU faults again if it must.
#[inline(always)]
fn migrate(
    fault: &Fault<'_>,
    zdd: &Zdd,
    owner: PagemapOwner,
    how_much: FaultWindow,
    range: &Range<usize>,
    moved: &mut usize,
) -> Result<Home> {
    let mut rest = 0;
    let first = pmd_part(range, fault.address());
    let home = if first == *range {
        let area = VmaRange::new(fault.vma(), first)?;

        migrate_chunk(
            Some(fault),
            zdd,
            owner,
            how_much,
            &area,
            Lent::<Scratch>::new,
            &|| (),
        )
    } else {
        Job {
            zdd,
            owner,
            how_much,
            mm: fault.vma().mm(),
            is_large: VmaRange::new(fault.vma(), range.clone())?.is_large(),
            next: Atomic::new(range.start),
            range: range.clone(),
            first,
            moved: Atomic::new(0),
            failed: Atomic::new(false),
        }
        .run(fault, &mut rest)
    };

    *moved += rest;
    let home = home?;

    *moved += home.moved;
    zdd.policy()
        .counts()
        .came_home(range.len() >> PAGE_SHIFT, home.moved + rest);
    Ok(home)
}

fn migrate_chunk<const N: usize, S: DerefMut<Target = Scratch<N>>>(
    wanted: Option<&Fault<'_>>,
    zdd: &Zdd,
    owner: PagemapOwner,
    how_much: FaultWindow,
    part: &VmaRange<'_>,
    scratch: impl FnOnce() -> Result<S>,
    busy: &impl Fn(),
) -> Result<Home>
where
    Entries<N>: AsRoom,
{
    let mut scratch = scratch()?;
    let Scratch {
        entries, copies, ..
    } = &mut *scratch;
    let arrays = Arrays::within(entries, part.nr_pages())?;
    let pages = collect(wanted, owner, part, arrays)?;

    let policy = |index| RamPolicy::Vma(part.vma(), part.start() + index * PAGE_SIZE);
    let home = bring_home(pages, zdd, copies, policy, busy)?;

    if how_much == FaultWindow::Adaptive {
        zdd.touches().came_home(&part.addresses());
    }
    Ok(home)
}

/// What a fault brings home where more than one PMD maps it. Several tasks may work on it.
struct Job<'a> {
    zdd: &'a Zdd,
    owner: PagemapOwner,
    how_much: FaultWindow,
    mm: &'a MmWithUser,
    range: Range<usize>,
    /// The part with the page that is wanted, which comes first.
    first: Range<usize>,
    /// Whether there are large folios, but for the ends.
    is_large: bool,
    /// The first address that nobody has begun with yet, of the rest.
    next: Atomic<usize>,
    /// Pages so far, of the rest.
    moved: Atomic<usize>,
    failed: Atomic<bool>,
}

impl Job<'_> {
    /// Brings home the first part; then, or at the same time, the rest, unless that fails. `rest`
    /// becomes the number of pages that came home of that.
    fn run(&mut self, fault: &Fault<'_>, rest: &mut usize) -> Result<Home> {
        let vma = fault.vma();
        let mut scratch = LargeScratch::new(self.is_large);
        let area =
            VmaRange::new(vma, self.first.start..self.range.end)?.first_part(scratch.most_pages());

        self.first = area.addresses();

        let this = &*self;
        let help = || {
            let mm = LockedMm::try_read(this.mm);

            // The core holds the lock for the fault, so the area is what it was.
            if let Some(vma) = mm.as_ref().and_then(|mm| mm.vma_lookup(this.range.start)) {
                this.work(vma, &mut LargeScratch::new(this.is_large), &|| ());
            }
        };
        let nr_pmds = crew::for_ram((this.range.len() >> PAGE_SHIFT) / NR_PMD_PAGES);

        let mut home = Err(EBUSY);

        if this.is_large {
            crew::work_by_turns(nr_pmds, &help, |busy| {
                home = this.part(Some(fault), &area, &mut scratch, busy);
                if home.is_err() {
                    this.failed.store(true, Relaxed);
                }
                this.work(vma, &mut scratch, busy);
            });
        } else {
            home = this.part(Some(fault), &area, &mut scratch, &|| ());
            if home.is_ok() {
                let progress = || this.next.load(Relaxed);

                crew::work_together(nr_pmds, &help, progress, || {
                    this.work(vma, &mut scratch, &|| ())
                });
            }
        }
        *rest = this.moved.load(Relaxed);
        home
    }

    /// Brings home chunks of the rest until there are no more, or one has failed. Calls `busy` before
    /// each copy.
    fn work(&self, vma: &VmaRef, scratch: &mut LargeScratch, busy: &dyn Fn()) {
        while !self.failed.load(Relaxed) {
            let Some(part) = self.next_part(vma, scratch.most_pages()) else {
                break;
            };

            match self.part(None, &part, scratch, busy) {
                Ok(home) => self.moved.add(home.moved, Relaxed),
                Err(_) => self.failed.store(true, Relaxed),
            }
        }
    }

    /// The next chunk that nobody has begun with yet, of up to `most` pages.
    fn next_part<'v>(&self, vma: &'v VmaRef, most: usize) -> Option<VmaRange<'v>> {
        let mut at = self.next.load(Relaxed);

        loop {
            let start = if at == self.first.start {
                self.first.end
            } else {
                at
            };
            let end = if start < self.first.start {
                self.first.start
            } else {
                self.range.end
            };
            // None, at the end.
            let part = VmaRange::new(vma, start..end).ok()?.first_part(most);

            match self.next.cmpxchg(at, part.addresses().end, Relaxed) {
                Ok(_) => return Some(part),
                Err(now) => at = now,
            }
        }
    }

    fn part(
        &self,
        wanted: Option<&Fault<'_>>,
        part: &VmaRange<'_>,
        scratch: &mut LargeScratch,
        busy: &dyn Fn(),
    ) -> Result<Home> {
        let (zdd, owner, how_much) = (self.zdd, self.owner, self.how_much);

        match scratch.room(part.nr_pages()) {
            Some(room) => migrate_chunk(wanted, zdd, owner, how_much, part, || Ok(room), &busy),
            None => {
                let room = Lent::<Scratch>::new;

                migrate_chunk(wanted, zdd, owner, how_much, part, room, &busy)
            }
        }
    }
}

/// Has the large folio that is wanted mapped page by page, so that the next fault can split it.
/// Returns whether that has got anywhere.
fn map_by_pages(
    fault: &Fault<'_>,
    zdd: &Zdd,
    owner: PagemapOwner,
    range: Range<usize>,
    moved: &mut usize,
) -> Result<bool> {
    let range = VmaRange::new(fault.vma(), range)?;
    let arrays = Arrays::new(range.nr_pages())?;
    let pages = collect(Some(fault), owner, &range, arrays)?;
    let Some(index) = pages
        .steps()
        .find(|step| {
            let wanted = step.folio().is_some_and(|of| of.is(fault.folio()));

            wanted && step.is_migrating() && step.order() > 0
        })
        .map(|step| step.index)
    else {
        return Ok(false);
    };

    let at = range.start() + index * PAGE_SIZE;
    let head = LockedFolio::new_ram(RamPolicy::Vma(range.vma(), at), 0)?;

    copy(zdd, 1, iter::once((0, fault.folio(), &*head)))?;
    let migrated = pages.map_by_pages(index, head)?;

    *moved += retire_sources(&migrated);
    trace::moved(&migrated);
    Ok(true)
}
