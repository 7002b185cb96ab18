// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Device pages for a driver's copy operation.

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

/// Room for an entry for each page of a range: 8 bytes each.
pub(crate) struct PageArray(KVVec<*mut bindings::page>);

impl PageArray {
    /// `npages` entries without a page. May sleep.
    pub(crate) fn new(npages: usize) -> Result<Self> {
        Ok(Self(KVVec::from_elem(
            core::ptr::null_mut(),
            npages,
            GFP_KERNEL,
        )?))
    }

    /// The entries of a part of the range. [`EINVAL`]: there are not as many.
    pub(crate) fn part(&mut self, pages: Range<usize>) -> Result<Pages<'_>> {
        self.0.get_mut(pages).map(Pages).ok_or(EINVAL)
    }
}

/// `struct page` pointers, one for each page of a part of a range, which say beside as many
/// [`DeviceAddr`]s what is to be copied.
pub(crate) struct Pages<'a>(&'a mut [*mut bindings::page]);

impl Pages<'_> {
    /// Stores the pages of `folio` from `index` on: one for each address that there is for a piece
    /// of it; without an address, each page, so that who clears them finds them all.
    ///
    /// What reaches out of the part is left out.
    pub(crate) fn set(&mut self, index: usize, folio: &Folio, addrs: &[DeviceAddr]) {
        let mut page = 0;

        while page < folio.nr_pages() {
            let (Some(entry), Some(addr)) = (self.0.get_mut(index + page), addrs.get(index + page))
            else {
                break;
            };

            *entry = Pfn::new(folio.pfn().as_usize() + page).page();
            page += if addr.is_present() {
                1 << addr.order()
            } else {
                1
            };
        }
    }

    /// The pointers for C.
    pub(crate) fn as_raw(&mut self) -> &mut [*mut bindings::page] {
        self.0
    }
}
