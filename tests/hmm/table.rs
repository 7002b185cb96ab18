// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The device's page table for one process.

use core::ops::Range;
use drm_pagemap::mm::{
    Change,
    IntervalOps, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    rbtree::RBTree, //
};

/// What the device may do with a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Read,
    Write,
    /// Atomic operations: no CPU has it.
    Exclusive,
}

/// The entries, by page number. What there is of a page is looked up when it is accessed: the table
/// says only that it may be, and since when nothing has changed.
pub(crate) struct Table(RBTree<usize, Entry>);

impl Table {
    pub(crate) fn new() -> Self {
        Self(RBTree::new())
    }

    /// The entry of the page at `addr`.
    pub(crate) fn get(&self, addr: usize) -> Option<Entry> {
        self.0.get(&(addr >> PAGE_SHIFT)).copied()
    }

    /// Sets the entry of the page at `addr`. Does not wait for memory.
    pub(crate) fn set(&mut self, addr: usize, entry: Entry) -> Result {
        self.0
            .try_create_and_insert(addr >> PAGE_SHIFT, entry, GFP_ATOMIC)?;
        Ok(())
    }

    /// Removes all entries of a range of addresses.
    fn clear(&mut self, range: Range<usize>) {
        let last = range.end.saturating_sub(1) >> PAGE_SHIFT;
        let mut cursor = self.0.cursor_lower_bound_mut(&(range.start >> PAGE_SHIFT));

        while let Some(current) = cursor {
            if *current.current().0 > last {
                break;
            }
            cursor = current.remove_current().0;
        }
    }
}

/// Keeps a [`Table`] up to date.
pub(crate) struct Watch;

impl IntervalOps for Watch {
    type State = Table;

    fn invalidate(&self, table: &mut Table, change: &Change) {
        table.clear(change.range());
    }

    fn try_invalidate(&self, table: &mut Table, change: &Change) -> bool {
        table.clear(change.range());
        true
    }
}
