// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The tracepoints: what the engine tells of its work to who listens.
//!
//! C header: `trace.h`, beside this file, which says what is in the events.
//!
//! An operation of the engine is a [`Span`], from its beginning to its event. With the event off,
//! that is a static branch at both ends; the clock is read, and names are looked up, only with the
//! event on. Where pages [have moved](moved), or were [freed] in device memory, there is
//! `drm_pagemap_move`.

use crate::{
    bindings,
    dpagemap::DrmPagemap,
    dpagemap_devmem::DrmPagemapDevmem,
    migrate::{
        fault::VmFault,
        Outcome, //
    },
    mm::{
        Fault,
        Folio,
        LockedFolio,
        LockedMm,
        Migrated,
        Step,
        VmaRange, //
    },
    zdd::Zdd,
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SHIFT,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Declares events of `trace.h`: for each, a function that emits it, and one that says whether it
/// is on.
///
/// As `kernel::declare_trace!`, which finds only tracepoints of the kernel crate's own bindings, and
/// can't say whether one is on. All arguments are plain values, so there is nothing to promise.
macro_rules! events {
    ($(fn $name:ident / $on:ident($($arg:ident: $type:ty),* $(,)?);)*) => {$(
        #[inline(always)]
        fn $on() -> bool {
            #[cfg(CONFIG_TRACEPOINTS)]
            {
                kernel::macros::paste! {
                    // SAFETY: The tracepoint is defined by tracepoints.c, in this module.
                    unsafe {
                        kernel::jump_label::static_branch_unlikely!(
                            bindings::[<__tracepoint_ $name>],
                            bindings::tracepoint,
                            key
                        )
                    }
                }
            }
            #[cfg(not(CONFIG_TRACEPOINTS))]
            {
                false
            }
        }

        // As many as the event has fields.
        #[allow(clippy::too_many_arguments)]
        #[cold]
        fn $name($($arg: $type),*) {
            #[cfg(CONFIG_TRACEPOINTS)]
            {
                kernel::macros::paste! {
                    // SAFETY: The event copies its arguments. It follows no pointer.
                    unsafe { bindings::[<rust_do_trace_ $name>]($($arg),*) };
                }
            }
            #[cfg(not(CONFIG_TRACEPOINTS))]
            {
                let _ = ($($arg,)*);
            }
        }
    )*};
}

events! {
    fn drm_pagemap_migrate / migrate_is_on(
        mm: Id, pid: c_int, start: usize, nr_pages: usize, device: c_int, moved: usize,
        resident: usize, error: c_int, ns: u64,
    );
    fn drm_pagemap_fault / fault_is_on(
        mm: Id, pid: c_int, address: usize, nr_pages: usize, device: c_int, moved: usize,
        result: c_int, ns: u64,
    );
    fn drm_pagemap_evict / evict_is_on(
        allocation: Id, mm: Id, nr_pages: usize, device: c_int, moved: usize, error: c_int,
        ns: u64,
    );
    fn drm_pagemap_move / move_is_on(
        mm: Id, start: usize, nr_pages: usize, order: u32, from: c_int, to: c_int,
    );
}

/// An address that tells things apart, and is not followed.
type Id = *const c_void;

/// Numbers of places that are no device's.
const RAM: c_int = -1;
const NOWHERE: c_int = -2;

/// The number of the pagemap's device.
fn device_of(dpagemap: &DrmPagemap) -> c_int {
    // SAFETY: A pagemap that is referenced holds its DRM device.
    unsafe { bindings::drm_pagemap_helper_trace_device((*dpagemap.as_raw()).drm) }
}

/// The process of an address space.
fn pid_of(mm: &MmWithUser) -> c_int {
    // SAFETY: A reference to an address space that is alive.
    unsafe { bindings::drm_pagemap_helper_trace_pid(mm.as_raw()) }
}

/// The address space that the allocation was migrated for, if its driver has said so.
fn mm_of(devmem: &DrmPagemapDevmem) -> Id {
    // SAFETY: A word of an allocation that is in memory.
    unsafe { (&raw const (*devmem.as_raw()).mm).read_volatile().cast() }
}

/// An operation that may move pages: since when it goes on, and `what` is known of it, if its event
/// is on.
pub(crate) struct Span<What> {
    on: Option<(What, Instant<Monotonic>)>,
}

/// A migration to device memory.
pub(crate) struct Migrate<'a> {
    mm: &'a MmWithUser,
    range: Range<usize>,
    device: c_int,
}

/// A CPU fault.
pub(crate) struct CpuFault {
    mm: Id,
    pid: c_int,
    address: usize,
    nr_pages: usize,
    device: c_int,
}

/// An eviction.
pub(crate) struct Evict {
    allocation: Id,
    mm: Id,
    nr_pages: usize,
    device: c_int,
}

impl<What> Span<What> {
    #[inline(always)]
    fn new(is_on: bool, what: impl FnOnce() -> What) -> Self {
        Self {
            on: is_on.then(|| (what(), Instant::now())),
        }
    }

    /// What is known, and the nanoseconds that it took.
    #[inline(always)]
    fn finish(self) -> Option<(What, u64)> {
        let (what, began) = self.on?;
        let ns = began.elapsed().as_nanos();

        Some((what, ns.try_into().unwrap_or(0)))
    }
}

impl<'a> Span<Migrate<'a>> {
    /// The migration of `range` to `devmem` begins.
    pub(crate) fn migrate(
        devmem: &DrmPagemapDevmem,
        mm: &LockedMm<'a>,
        range: &Range<usize>,
    ) -> Self {
        Self::new(migrate_is_on(), || Migrate {
            mm: mm.mm(),
            range: range.clone(),
            device: device_of(devmem.dpagemap()),
        })
    }

    /// It is over, and has moved as many pages.
    #[inline]
    pub(crate) fn end(self, result: &Result<Outcome>, moved: usize) {
        if let Some((what, ns)) = self.finish() {
            drm_pagemap_migrate(
                what.mm.as_raw().cast(),
                pid_of(what.mm),
                what.range.start,
                what.range.len() >> PAGE_SHIFT,
                what.device,
                moved,
                result.as_ref().map_or(0, |outcome| outcome.resident),
                errno(result),
                ns,
            );
        }
    }
}

impl Span<CpuFault> {
    /// The handling of a fault on a page of `zdd` begins.
    pub(crate) fn fault(fault: &Fault<'_>, zdd: &Zdd) -> Self {
        Self::new(fault_is_on(), || CpuFault {
            mm: fault.vma().mm().as_raw().cast(),
            pid: pid_of(fault.vma().mm()),
            address: fault.address(),
            nr_pages: fault.folio().nr_pages(),
            device: device_of(zdd.dpagemap()),
        })
    }

    /// It is over, and has brought home as many pages.
    #[inline]
    pub(crate) fn end(self, result: VmFault, moved: usize) {
        if let Some((what, ns)) = self.finish() {
            let result = match result {
                VmFault::Done => 0,
                VmFault::Retry => 1,
                VmFault::OutOfMemory => 2,
                VmFault::Sigbus => 3,
            };

            drm_pagemap_fault(
                what.mm,
                what.pid,
                what.address,
                what.nr_pages,
                what.device,
                moved,
                result,
                ns,
            );
        }
    }
}

impl Span<Evict> {
    /// The eviction of an allocation begins.
    pub(crate) fn evict(devmem: &DrmPagemapDevmem) -> Self {
        Self::new(evict_is_on(), || Evict {
            allocation: devmem.as_raw().cast_const().cast(),
            mm: mm_of(devmem),
            nr_pages: devmem.nr_pages(),
            device: device_of(devmem.dpagemap()),
        })
    }

    /// The eviction of `nr_pages` pages of a device's memory begins, whosever they are.
    pub(crate) fn evict_frames(dpagemap: &DrmPagemap, nr_pages: usize) -> Self {
        Self::new(evict_is_on(), || Evict {
            allocation: core::ptr::null(),
            mm: core::ptr::null(),
            nr_pages,
            device: device_of(dpagemap),
        })
    }

    /// It is over, and has moved as many pages.
    #[inline]
    pub(crate) fn end<T>(self, result: &Result<T>, moved: usize) {
        if let Some((what, ns)) = self.finish() {
            drm_pagemap_evict(
                what.allocation,
                what.mm,
                what.nr_pages,
                what.device,
                moved,
                errno(result),
                ns,
            );
        }
    }
}

fn errno<T>(result: &Result<T>) -> c_int {
    match result {
        Ok(_) => 0,
        Err(err) => err.to_errno(),
    }
}

/// Pages that have the same way behind them.
#[derive(Clone, Copy)]
struct Run {
    mm: Id,
    start: usize,
    nr_pages: usize,
    order: u32,
    from: c_int,
    to: c_int,
}

impl Run {
    fn of(migrated: &Migrated<'_>, step: &Step<'_>) -> Self {
        let (mm, start) = match migrated.address_of(step) {
            Some((mm, address)) => (mm.as_raw().cast_const().cast(), address),
            None => {
                let of = step.folio().and_then(Zdd::of_folio);

                (
                    of.map_or(core::ptr::null(), |zdd| mm_of(zdd.devmem())),
                    step.folio().and_then(Folio::first_address).unwrap_or(0),
                )
            }
        };

        Self {
            mm,
            start,
            nr_pages: step.nr_pages(),
            order: step.order(),
            from: place_of(step.folio()),
            to: place_of(migrated.destination(step.index)),
        }
    }

    /// Takes in `next` if it goes on where this ends.
    fn extend(&mut self, next: &Self) -> bool {
        let goes_on = next.start == self.start + (self.nr_pages << PAGE_SHIFT)
            && (next.mm, next.order, next.from, next.to)
                == (self.mm, self.order, self.from, self.to);

        if goes_on {
            self.nr_pages += next.nr_pages;
        }
        goes_on
    }

    fn emit(&self) {
        drm_pagemap_move(
            self.mm,
            self.start,
            self.nr_pages,
            self.order,
            self.from,
            self.to,
        );
    }
}

/// Where a folio is.
fn place_of(folio: Option<&Folio>) -> c_int {
    match folio {
        None => NOWHERE,
        Some(folio) => Zdd::of_folio(folio).map_or(RAM, |zdd| device_of(zdd.dpagemap())),
    }
}

/// Pages have changed place.
#[inline(always)]
pub(crate) fn moved(migrated: &Migrated<'_>) {
    if move_is_on() {
        emit_moves(migrated);
    }
}

#[cold]
fn emit_moves(migrated: &Migrated<'_>) {
    let mut runs = migrated
        .steps()
        .filter(Step::is_migrating)
        .map(|step| Run::of(migrated, &step))
        .peekable();

    while let Some(mut run) = runs.next() {
        while runs.next_if(|next| run.extend(next)).is_some() {}
        run.emit();
    }
}

/// The page of `range`, which was `source`, is in the memory of `zdd` now.
#[inline(always)]
pub(crate) fn moved_one(range: &VmaRange<'_>, source: Option<&Folio>, zdd: &Zdd) {
    if move_is_on() {
        emit_move_of_one(range, source, zdd);
    }
}

#[cold]
fn emit_move_of_one(range: &VmaRange<'_>, source: Option<&Folio>, zdd: &Zdd) {
    let run = Run {
        mm: range.vma().mm().as_raw().cast_const().cast(),
        start: range.start(),
        nr_pages: 1,
        order: 0,
        from: place_of(source),
        to: device_of(zdd.dpagemap()),
    };

    run.emit();
}

/// A folio of device memory was taken into use.
#[inline(always)]
pub(crate) fn attached(folio: &mut LockedFolio) {
    if move_is_on() {
        folio.forget_address();
    }
}

/// A folio of `zdd` is free. Unless its contents were migrated away before, or it has never had
/// any, its process has let go of them, or is gone: they end here. Any context.
#[inline(always)]
pub(crate) fn freed(folio: &Folio, zdd: &Zdd) {
    if move_is_on() && !Zdd::is_retired(folio) {
        emit_freed(folio, zdd);
    }
}

#[cold]
fn emit_freed(folio: &Folio, zdd: &Zdd) {
    if let Some(start) = folio.first_address() {
        let run = Run {
            mm: mm_of(zdd.devmem()),
            start,
            nr_pages: folio.nr_pages(),
            order: folio.order(),
            from: device_of(zdd.dpagemap()),
            to: NOWHERE,
        };

        run.emit();
    }
}
