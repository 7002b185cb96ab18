// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Addresses as a device sees them.
//!
//! C header: [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h)

use crate::{
    bindings,
    mm::DmaDirection, //
};
use kernel::dma::DmaAddress;

/// Where a device finds a page, and how; `struct drm_pagemap_addr`.
///
/// C has bit fields: the protocol in bits 0 to 53 of the second word, the order in 54 to 61, the
/// direction in 62 and 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceAddr {
    addr: DmaAddress,
    meta: u64,
}

kernel::static_assert!(
    core::mem::size_of::<DeviceAddr>() == core::mem::size_of::<bindings::drm_pagemap_addr>()
);

impl DeviceAddr {
    const ORDER_SHIFT: u32 = 54;
    const DIR_SHIFT: u32 = 62;
    /// `DRM_INTERCONNECT_SYSTEM`.
    const PROTO_SYSTEM: u64 = 0;

    /// No address: nothing is mapped for this page.
    pub const ABSENT: Self = Self { addr: 0, meta: 0 };

    /// The address `addr` of a mapping of `1 << order` pages of RAM.
    #[inline]
    pub fn system(addr: DmaAddress, order: u32, dir: DmaDirection) -> Self {
        let dir = dir.as_raw().0 as u64;

        Self {
            addr,
            meta: Self::PROTO_SYSTEM
                | u64::from(order) << Self::ORDER_SHIFT
                | dir << Self::DIR_SHIFT,
        }
    }

    /// The DMA address, in bytes.
    #[inline]
    pub fn addr(&self) -> DmaAddress {
        self.addr
    }

    /// The mapping is of `1 << order()` pages.
    #[inline]
    pub fn order(&self) -> u32 {
        ((self.meta >> Self::ORDER_SHIFT) & 0xff) as u32
    }

    /// Whether there is a mapping. By the direction, which is never zero in one, so that the device
    /// address 0 is an address like any other.
    #[inline]
    pub fn is_present(&self) -> bool {
        self.meta >> Self::DIR_SHIFT != 0
    }
}
