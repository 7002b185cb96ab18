// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Addresses as a device sees them.
//!
//! C header: [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h)

use crate::{
    bindings,
    mm::DmaDirection, //
};
use kernel::{
    dma::DmaAddress,
    prelude::*, //
};

/// Where a device finds a page, and how; `struct drm_pagemap_addr`.
///
/// C has bit fields: the protocol in bits 0 to 53 of the second word, the order in 54 to 61, the
/// direction in 62 and 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
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
    const PROTO_MASK: u64 = (1 << Self::ORDER_SHIFT) - 1;
    /// `DRM_INTERCONNECT_SYSTEM`.
    const PROTO_SYSTEM: u64 = 0;
    /// The first protocol that is a driver's; `DRM_INTERCONNECT_DRIVER`.
    pub const INTERCONNECT: u64 = 1;

    /// No address: nothing is mapped for this page.
    pub const ABSENT: Self = Self { addr: 0, meta: 0 };

    /// What C drivers return for "it can't be mapped"; `DMA_MAPPING_ERROR`.
    #[cfg(CONFIG_DRM = "y")]
    pub(crate) const ERROR: Self = Self {
        addr: DmaAddress::MAX,
        meta: 0,
    };

    /// The address `addr`, for what the driver calls `protocol`, of a mapping of `1 << order` pages
    /// of device memory.
    ///
    /// `protocol` is [`INTERCONNECT`](Self::INTERCONNECT), or a value of the driver's own above it
    /// (54 bits); an order has 8 bits.
    #[inline]
    pub fn device(addr: DmaAddress, protocol: u64, order: u32, dir: DmaDirection) -> Self {
        Self::encode(addr, protocol, order, dir)
    }

    fn encode(addr: DmaAddress, protocol: u64, order: u32, dir: DmaDirection) -> Self {
        let dir = dir.as_raw().0 as u64;

        Self {
            addr,
            meta: (protocol & Self::PROTO_MASK)
                | (u64::from(order) & 0xff) << Self::ORDER_SHIFT
                | dir << Self::DIR_SHIFT,
        }
    }

    /// The address `addr` of a mapping of `1 << order` pages of RAM.
    #[inline]
    pub fn system(addr: DmaAddress, order: u32, dir: DmaDirection) -> Self {
        Self::encode(addr, Self::PROTO_SYSTEM, order, dir)
    }

    /// The same for another address.
    #[inline(always)]
    pub(crate) fn at(self, addr: DmaAddress) -> Self {
        Self { addr, ..self }
    }

    /// The DMA address, or the one that the driver gave, in bytes.
    #[inline]
    pub fn addr(&self) -> DmaAddress {
        self.addr
    }

    /// How the device gets there: 0 for RAM; else what the driver of the memory says.
    #[inline]
    pub fn protocol(&self) -> u64 {
        self.meta & Self::PROTO_MASK
    }

    /// The mapping is of `1 << order()` pages.
    #[inline]
    pub fn order(&self) -> u32 {
        ((self.meta >> Self::ORDER_SHIFT) & 0xff) as u32
    }

    /// Whether there is a mapping: all but address 0 of RAM, for both directions, of one page, which
    /// the DMA layer gives nobody.
    #[inline]
    pub fn is_present(&self) -> bool {
        *self != Self::ABSENT
    }
}

impl From<bindings::drm_pagemap_addr> for DeviceAddr {
    fn from(addr: bindings::drm_pagemap_addr) -> Self {
        // SAFETY: Both have the same layout, and no bits that are invalid.
        unsafe { core::mem::transmute(addr) }
    }
}

impl From<DeviceAddr> for bindings::drm_pagemap_addr {
    fn from(addr: DeviceAddr) -> Self {
        // SAFETY: As above.
        unsafe { core::mem::transmute(addr) }
    }
}
