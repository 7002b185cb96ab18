// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a driver's copy operation has to copy.

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        Folio,
        Pfn, //
    },
};
use kernel::{
    dma::DmaAddress,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
};

/// One run of bytes that is contiguous both in device memory and for DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRun {
    /// Where it is in device memory: bytes from the start of the pagemap.
    pub offset: u64,
    /// Where it is in RAM, mapped for DMA, or what [`protocol`](Self::protocol) says. [`None`]:
    /// there is no source, the device memory has to be cleared. (Never so in copies to RAM.)
    pub addr: Option<DmaAddress>,
    /// 0: the address is one of RAM. Else, in what is called a copy to RAM, it is one of another
    /// place of device memory, of this device or another, which gave it by
    /// [`device_map`](crate::PagemapOps::device_map) and says by this what it means: a
    /// [`DeviceAddr::protocol`].
    pub protocol: u64,
    /// Its length in bytes, a multiple of the page size.
    pub len: u64,
}

impl CopyRun {
    /// Takes in `next` if it follows directly.
    fn extend(&mut self, next: &Self) -> bool {
        let follows = self.offset + self.len == next.offset
            && self.protocol == next.protocol
            && match (self.addr, next.addr) {
                (Some(addr), Some(next)) => addr + self.len == next,
                (None, None) => true,
                _ => false,
            };

        if follows {
            self.len += next.len;
        }
        follows
    }
}

/// Iterator over the runs of a copy, in ascending order of virtual addresses.
#[derive(Clone)]
pub struct Copies<'a> {
    pages: &'a [*mut bindings::page],
    addrs: &'a [DeviceAddr],
    start: Pfn,
    next: usize,
}

impl<'a> Copies<'a> {
    /// Wraps the arguments of a C copy operation.
    ///
    /// # Safety
    ///
    /// The pages must be referenced pages of the zone device that starts at `start`, or null.
    pub(crate) unsafe fn new(
        pages: &'a [*mut bindings::page],
        addrs: &'a [DeviceAddr],
        start: Pfn,
    ) -> Self {
        Self {
            pages,
            addrs,
            start,
            next: 0,
        }
    }

    /// The run at the next page, not merged with those after it.
    fn peek(&self) -> Option<(usize, CopyRun)> {
        let mut index = self.next;

        while self.pages.get(index)?.is_null() {
            index += 1;
        }
        let page = *self.pages.get(index)?;
        let addr = self.addrs.get(index)?;
        let order = if addr.is_present() {
            addr.order()
        } else {
            // SAFETY: By the requirement of `new` the page is referenced.
            unsafe { Folio::of_page(page) }.order()
        };
        let pages = Pfn::from_page(page).as_usize() - self.start.as_usize();

        Some((
            index + (1 << order),
            CopyRun {
                offset: (pages as u64) << PAGE_SHIFT,
                addr: addr.is_present().then(|| addr.addr()),
                protocol: addr.protocol(),
                len: (PAGE_SIZE as u64) << order,
            },
        ))
    }
}

impl Iterator for Copies<'_> {
    type Item = CopyRun;

    fn next(&mut self) -> Option<CopyRun> {
        let (index, mut run) = self.peek()?;

        self.next = index;
        while let Some((index, next)) = self.peek() {
            if !run.extend(&next) {
                break;
            }
            self.next = index;
        }
        Some(run)
    }
}
