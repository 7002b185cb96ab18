// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a pagemap does on a CPU fault, where more than one answer is right.
//!
//! A Rust driver says it by [`PagemapOps::policy`](crate::PagemapOps::policy), once, when it
//! registers its pagemap. For the pagemaps of C drivers, module parameters say it, at any time; by
//! default they are as C drivers know it. [`window`] is how the window grows and shrinks.

mod counters;
mod params;
pub(crate) mod window;

pub use self::counters::Counters;

use self::counters::Counts;
use kernel::{
    prelude::*,
    sync::Arc, //
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

/// What a pagemap does on a CPU fault.
///
/// ```ignore
/// const POLICY: Policy = Policy::new().with_window(FaultWindow::Adaptive);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How much comes home.
    pub window: FaultWindow,
}

impl Policy {
    /// The default: the whole allocation comes home.
    pub const fn new() -> Self {
        Self {
            window: FaultWindow::Allocation,
        }
    }

    /// The same with another fault window.
    #[must_use]
    pub const fn with_window(self, window: FaultWindow) -> Self {
        Self { window }
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
pub struct PolicyState {
    source: Source,
    counts: Counts,
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
        Ok(Arc::new(
            Self {
                source,
                counts: Counts::new(),
            },
            GFP_KERNEL,
        )?)
    }

    /// The policy, now.
    pub fn policy(&self) -> Policy {
        match self.source {
            Source::Driver(policy) => policy,
            Source::Module => params::policy(),
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
}
