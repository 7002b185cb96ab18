// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a process has said about how the GPU will use its memory.

use core::ops::Range;
use kernel::{
    prelude::*,
    rbtree::RBTree, //
};

/// Where pages are to be when the GPU uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// In its VRAM.
    #[default]
    Vram,
    /// In RAM.
    Ram,
    /// Where they are: in RAM, in its VRAM, or in that of a GPU that it has a link to.
    Stay,
}

/// What was said of some addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) prefer: Prefer,
    /// Pages that the GPU only reads stay where they are.
    pub(crate) read_mostly: bool,
    /// For how many milliseconds pages that went to VRAM stay there.
    pub(crate) timeslice_ms: u32,
}

/// Hints by address. Where nothing was said, the default goes.
pub(crate) struct Advice {
    /// By their starts: ends, and hints. They don't overlap.
    hints: RBTree<usize, (usize, Hint)>,
}

impl Advice {
    /// Nothing was said.
    pub(crate) fn new() -> Self {
        Self {
            hints: RBTree::new(),
        }
    }

    /// The hint for an address, and how far to both sides, within `around`, the same one goes.
    pub(crate) fn at(&self, addr: usize, around: &Range<usize>) -> (Hint, Range<usize>) {
        let mut gap = around.clone();

        for (&start, &(end, hint)) in self.hints.iter() {
            if (start..end).contains(&addr) {
                return (hint, start.max(around.start)..end.min(around.end));
            }
            if end <= addr {
                gap.start = gap.start.max(end);
            } else {
                gap.end = gap.end.min(start);
                break;
            }
        }
        (Hint::default(), gap)
    }

    /// Says `hint` of `range`, whatever was said before. On an error, some of that is forgotten.
    pub(crate) fn set(&mut self, range: Range<usize>, hint: Hint) -> Result {
        let mut overlapping = KVec::new();

        for (&start, &(end, hint)) in self.hints.iter() {
            if start < range.end && range.start < end {
                overlapping.push((start, end, hint), GFP_KERNEL)?;
            }
        }
        for (start, end, old) in overlapping {
            let _ = self.hints.remove(&start);
            if start < range.start {
                self.insert(start..range.start, old)?;
            }
            if range.end < end {
                self.insert(range.end..end, old)?;
            }
        }
        if hint == Hint::default() {
            return Ok(());
        }
        self.insert(range, hint)
    }

    fn insert(&mut self, range: Range<usize>, hint: Hint) -> Result {
        self.hints
            .try_create_and_insert(range.start, (range.end, hint), GFP_KERNEL)
            .map(|_| ())
    }
}
