// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a pagemap does on a CPU fault, where more than one answer is right.
//!
//! A Rust driver says it by [`PagemapOps::policy`](crate::PagemapOps::policy), once, when it
//! registers its pagemap. For the pagemaps of C drivers, module parameters say it, at any time; by
//! default they are as C drivers know it, but that a CPU sleeps for the rest of a time slice.
//! [`window`] is how the fault window grows and shrinks, [`thrash`] how fights are seen and ended.

mod counters;
mod params;
pub(crate) mod thrash;
pub(crate) mod window;

pub use self::{
    counters::Counters,
    thrash::Thrash, //
};

use self::{
    counters::Counts,
    thrash::Table, //
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Jiffies, //
    }, //
};

/// How much comes home on a CPU fault.
///
/// Only pages of the allocation that the wanted page belongs to, and as far as the area goes. A
/// large folio is never split for it: that of the wanted page comes home whole. If the whole window
/// can't come home, the wanted folio alone does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultWindow {
    /// The allocation: the naturally aligned addresses around the fault, as many as it has. C's
    /// behaviour. Best where the CPU goes on to use all of it.
    #[default]
    Allocation,
    /// The folio that is wanted. Least copied, most faults.
    Page,
    /// A power of two of pages, up to 512, that depends on what came home before: more than half
    /// of an aligned block, and all of it does. It doubles with each fault of a sequential reader,
    /// up or down, from 16 pages on; faults that are far from each other halve it, down to a page.
    Adaptive,
}

/// What a CPU does that wants a page within its allocation's
/// [time slice](crate::migrate::Details::timeslice).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SliceWait {
    /// It sleeps until the slice is over, 20 ms at a time, without the mmap lock and the page's, and
    /// can be killed meanwhile. Where a fault can't let go of the mmap lock
    /// (`FAULT_FLAG_ALLOW_RETRY`, `FAULT_FLAG_RETRY_NOWAIT`), it is as [`Refault`](Self::Refault).
    #[default]
    Sleep,
    /// It takes the same fault again and again. C's behaviour.
    Refault,
}

/// What a pagemap does on a CPU fault.
///
/// The default is C's behaviour, but for the sleep.
///
/// ```ignore
/// const POLICY: Policy = Policy::new()
///     .with_window(FaultWindow::Adaptive)
///     .with_thrash(Thrash::ON);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How much comes home.
    pub window: FaultWindow,
    /// What a CPU does within a time slice.
    pub slice_wait: SliceWait,
    /// When a page may stay where it is for a while.
    pub thrash: Thrash,
}

impl Policy {
    /// The default.
    pub const fn new() -> Self {
        Self {
            window: FaultWindow::Allocation,
            slice_wait: SliceWait::Sleep,
            thrash: Thrash::OFF,
        }
    }

    /// The same with another fault window.
    #[must_use]
    pub const fn with_window(self, window: FaultWindow) -> Self {
        Self { window, ..self }
    }

    /// The same with another way to spend a time slice.
    #[must_use]
    pub const fn with_slice_wait(self, slice_wait: SliceWait) -> Self {
        Self { slice_wait, ..self }
    }

    /// The same with another idea of thrashing.
    #[must_use]
    pub const fn with_thrash(self, thrash: Thrash) -> Self {
        Self { thrash, ..self }
    }
}

/// Who says what the policy is.
#[derive(Clone, Copy)]
enum Source {
    /// The driver, once and for all.
    Driver(Policy),
    /// The module's parameters, which can change at any time.
    Module,
}

/// The policy of one pagemap, and what came of it.
#[pin_data]
pub struct PolicyState {
    source: Source,
    counts: Counts,
    #[pin]
    table: Table,
}

impl PolicyState {
    /// For the pagemap of a Rust driver. May sleep.
    pub fn of_driver(policy: Policy) -> Result<Arc<Self>> {
        Self::new(Source::Driver(policy))
    }

    /// For the pagemap of a C driver: what the module's parameters say. May sleep.
    pub fn of_module() -> Result<Arc<Self>> {
        Self::new(Source::Module)
    }

    // Not inlined: made in this crate only, also for drivers' pagemaps.
    #[inline(never)]
    fn new(source: Source) -> Result<Arc<Self>> {
        let watch = match source {
            Source::Driver(policy) => policy.thrash.is_on(),
            Source::Module => true,
        };

        Arc::pin_init(
            try_pin_init!(Self {
                source,
                counts: Counts::new(),
                table <- Table::new(watch),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The policy, now.
    pub fn policy(&self) -> Policy {
        match self.source {
            Source::Driver(policy) => policy,
            Source::Module => params::policy(),
        }
    }

    /// How much comes home on a CPU fault, now.
    #[inline]
    pub(crate) fn window(&self) -> FaultWindow {
        match self.source {
            Source::Driver(policy) => policy.window,
            Source::Module => params::window(),
        }
    }

    /// Whether fights are watched, now.
    #[inline]
    fn watches(&self) -> bool {
        match self.source {
            Source::Driver(policy) => policy.thrash.is_on(),
            Source::Module => params::watches(),
        }
    }

    /// What has happened until now.
    pub fn counters(&self) -> Counters {
        self.counts.read()
    }

    /// What is counted.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A CPU fault at `address` (in bytes) has taken memory of the allocation `number` home.
    #[inline(always)]
    pub(crate) fn came_home(&self, mm: &MmWithUser, address: usize, number: u64) {
        if self.watches() {
            self.watch(mm, address, number);
        }
    }

    #[cold]
    fn watch(&self, mm: &MmWithUser, address: usize, number: u64) {
        let thrash = self.policy().thrash;

        if thrash.is_on() && self.table.came_home(&thrash, mm, address, number) {
            self.counts.thrash();
        }
    }

    /// Whether the pages of `range` (in bytes) shall stay in RAM, where the driver can do without
    /// them.
    #[inline(always)]
    pub(crate) fn stays(&self, mm: &MmWithUser, range: Range<usize>) -> bool {
        self.table.any_pinned(mm, range)
    }

    /// The time slice of what is migrated of `range` (in bytes), where `asked` jiffies is what the
    /// driver wants: that, or the time of a pin, whichever is longer.
    #[inline(always)]
    pub(crate) fn timeslice(
        &self,
        mm: &MmWithUser,
        range: Range<usize>,
        asked: Jiffies,
    ) -> Jiffies {
        if !self.table.any_pinned(mm, range) {
            return asked;
        }
        self.counts.pinned_in_device();
        asked.max(msecs_to_jiffies(self.policy().thrash.pin_ms))
    }
}
