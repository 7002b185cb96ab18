// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a driver's copy operation is given: device pages, and where it finds the other side.

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        Folio,
        Pfn, //
    },
};
use core::ops::Range;
use kernel::prelude::*;

/// Room for the arrays of a copy operation of `N` pages: device pages, and an address for each.
///
/// All entries are empty between two uses.
#[derive(Zeroable)]
pub(crate) struct CopyEntries<const N: usize> {
    pages: [*mut bindings::page; N],
    addrs: [DeviceAddr; N],
}

// SAFETY: The pointers are null between two uses; in use, the buffer is not sent.
unsafe impl<const N: usize> Send for CopyEntries<N> {}

impl<const N: usize> CopyEntries<N> {
    /// The entries of a part of a range, pages and addresses. [`EINVAL`]: there are not as many.
    #[inline(always)]
    pub(crate) fn part(&mut self, part: Range<usize>) -> Result<(Pages<'_>, &mut [DeviceAddr])> {
        Ok((
            Pages {
                entries: self.pages.get_mut(part.clone()).ok_or(EINVAL)?,
                end: 0,
            },
            self.addrs.get_mut(part).ok_or(EINVAL)?,
        ))
    }
}

/// `struct page` pointers, one for each page of a part of a range, which say beside as many
/// [`DeviceAddr`]s what is to be copied. Dropping the value empties them.
pub(crate) struct Pages<'a> {
    entries: &'a mut [*mut bindings::page],
    /// Pointers are below this.
    end: usize,
}

impl Pages<'_> {
    /// Stores the pages of `folio`, of `nr_pages` pages, from `index` on: one for each piece of it of
    /// order `piece` that there is an address for. For a folio without an address, each page is to
    /// be there, so that who clears them finds them all: order 0.
    ///
    /// What reaches out of the part is left out.
    #[inline]
    pub(crate) fn set(&mut self, index: usize, folio: &Folio, nr_pages: usize, piece: u32) {
        let first = folio.pfn().as_usize();
        let mut page = 0;

        while page < nr_pages {
            let Some(entry) = self.entries.get_mut(index + page) else {
                break;
            };

            *entry = Pfn::new(first + page).page();
            self.end = index + page + 1;
            page += 1 << piece;
        }
    }

    /// As [`set`](Self::set), for a folio of one page.
    #[inline(always)]
    pub(crate) fn set_single(&mut self, index: usize, folio: &Folio) {
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = folio.page();
            self.end = index + 1;
        }
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// The pointers for C.
    #[inline]
    pub(crate) fn as_raw(&mut self) -> &mut [*mut bindings::page] {
        self.entries
    }
}

impl Drop for Pages<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(used) = self.entries.get_mut(..self.end) {
            used.fill(core::ptr::null_mut());
        }
    }
}
