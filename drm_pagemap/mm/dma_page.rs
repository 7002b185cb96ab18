// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA mapping of one page of RAM.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    device_addr::DeviceAddr,
    mm::{
        mapper::Mapper,
        DmaDirection,
        Folio, //
    },
};
use core::ptr::NonNull;
use kernel::{
    dma::DmaAddress,
    page::PAGE_SIZE,
    prelude::*, //
};

/// A page of RAM, mapped for a device by itself; dropping it unmaps it.
///
/// # Invariants
///
/// `addr` is the address of a mapping of one page by `mapper`.
pub struct DmaPage {
    mapper: Mapper,
    addr: DmaAddress,
}

impl DmaPage {
    /// Maps `folio`, a folio of RAM of one page, which must stay in use as long as the value exists.
    /// May sleep.
    ///
    /// [`EINVAL`]: it is larger. [`EFAULT`]: it can't be mapped.
    ///
    /// # Safety
    ///
    /// `dev` must be a valid device, able to do DMA, for as long as the value exists.
    #[inline(always)]
    pub unsafe fn new(
        dev: NonNull<bindings::device>,
        dir: DmaDirection,
        folio: &Folio,
    ) -> Result<Self> {
        if folio.is_large() {
            return Err(EINVAL);
        }
        // SAFETY: Promised by the caller.
        let mapper = unsafe { Mapper::new(dev, dir, 1) };
        // SAFETY: A live folio of RAM.
        let addr = unsafe { mapper.map(folio.pfn().phys(), PAGE_SIZE) }?;

        // INVARIANT: Mapped just now.
        Ok(Self { mapper, addr })
    }

    /// Where the device finds it.
    #[inline(always)]
    pub fn addr(&self) -> DeviceAddr {
        DeviceAddr::system(self.addr, 0, self.mapper.dir())
    }
}

impl Drop for DmaPage {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: By the type invariant this undoes one mapping, once.
        unsafe { self.mapper.unmap(self.addr, PAGE_SIZE) };
    }
}
