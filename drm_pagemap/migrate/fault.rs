// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A CPU touched a page in device memory.

use crate::{
    jiffies,
    migrate::home::{
        bring_home,
        copy,
        retire_sources,
        Home, //
    },
    mm::{
        pmd_part,
        Arrays,
        Collected,
        Fault,
        LockedFolio,
        PagemapOwner,
        RamPolicy,
        Select,
        VmaRange,
        Waited, //
    },
    policy::{
        FaultWindow,
        SliceWait, //
    },
    pool::Lent,
    scratch::Scratch,
    trace::{
        self,
        Span, //
    },
    zdd::Zdd,
};
use core::{
    iter,
    ops::Range, //
};
use kernel::{
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

    let home = match migrate(fault, zdd, owner, how_much, &all) {
        Err(_) if wanted != all => migrate(fault, zdd, owner, how_much, &wanted)?,
        home => home?,
    };

    *moved += home.moved;
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

/// Collects the device pages in `range`, large folios whole. With `wanted` the page that is wanted may
/// be among them.
#[inline(always)]
fn collect<'a>(
    fault: &'a Fault<'_>,
    wanted: bool,
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
        wanted.then_some(fault),
        arrays,
    )
}

/// Brings home what belongs to `zdd` in `range`: what a PMD maps at a time, first where the page is
/// that is wanted. From there on it is best effort.
///
/// If nothing could be collected, somebody else is at the page: the CPU faults again if it must.
#[inline(always)]
fn migrate(
    fault: &Fault<'_>,
    zdd: &Zdd,
    owner: PagemapOwner,
    how_much: FaultWindow,
    range: &Range<usize>,
) -> Result<Home> {
    let first = pmd_part(range, fault.address());
    let mut home = migrate_chunk(fault, true, zdd, owner, how_much, &first)?;

    if first != *range {
        let mut at = range.start;

        while at < range.end {
            let part = pmd_part(range, at);

            at = part.end;
            if part != first {
                match migrate_chunk(fault, false, zdd, owner, how_much, &part) {
                    Ok(more) => home.moved += more.moved,
                    Err(_) => break,
                }
            }
        }
    }
    zdd.policy()
        .counts()
        .came_home(range.len() >> PAGE_SHIFT, home.moved);
    Ok(home)
}

fn migrate_chunk(
    fault: &Fault<'_>,
    wanted: bool,
    zdd: &Zdd,
    owner: PagemapOwner,
    how_much: FaultWindow,
    part: &Range<usize>,
) -> Result<Home> {
    let area = VmaRange::new(fault.vma(), part.clone())?;
    let mut scratch = Lent::<Scratch>::new()?;
    let Scratch {
        entries, copies, ..
    } = &mut *scratch;
    let arrays = Arrays::within(entries, area.nr_pages())?;
    let pages = collect(fault, wanted, owner, &area, arrays)?;

    let home = bring_home(pages, zdd, copies, |index| {
        RamPolicy::Vma(area.vma(), area.start() + index * PAGE_SIZE)
    })?;

    if how_much == FaultWindow::Adaptive {
        zdd.touches().came_home(part);
    }
    Ok(home)
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
    let pages = collect(fault, true, owner, &range, arrays)?;
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
