// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The link between GPUs, over which each reaches the VRAM of the others.
//!
//! Those that do are one group, with one pagemap owner: a page in the VRAM of any of them can be
//! mapped by all, and goes from one to another without a stop in RAM: the GPU that has it pushes
//! it. For GPUs of another group it is not there; they get it from RAM, where page faults bring it.
//!
//! A machine has one link at most. A GPU's number on it is what the others write to their page
//! tables and descriptors, and, for the layer, the protocol of its addresses.

use crate::engine::Engine;
use drm_pagemap::{
    mm::DmaDirection,
    DeviceAddr,
    Endpoint,
    OwnerList,
    Peer, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// All GPUs that have the driver.
static PORTS: OwnerList<Port> = OwnerList::new();

/// Where a GPU is on the link.
pub(crate) struct Port {
    engine: Arc<Engine>,
    /// [`None`]: it has no link.
    number: Option<u32>,
}

impl Port {
    /// Whether it reaches the VRAM of `other`, which it is connected to by this.
    fn reaches(&self, other: &Self) -> bool {
        let Some(bit) = other.number.map(|number| 1u32 << number) else {
            return false;
        };

        // Without an answer from the other one its VRAM is no good, whatever the link says.
        self.number.is_some()
            && other.engine.check_alive().is_ok()
            && self.engine.connect(bit).is_ok_and(|peers| peers & bit != 0)
    }
}

impl Endpoint for Port {
    fn has_interconnect(&self, other: &Self) -> bool {
        self.reaches(other) && other.reaches(self)
    }
}

/// Lets the GPU of `engine` join those that it has a link to, which are connected by this. Joined
/// again after a reset, they stay so until it leaves. May sleep. [`ENODEV`]; [`ENOMEM`].
pub(crate) fn join(engine: Arc<Engine>) -> Result<Peer<Port>> {
    let number = engine.link_number()?;

    Peer::join(&PORTS, Port { engine, number })
}

/// The address for other GPUs of `1 << order` pages, from byte `offset` on, of the VRAM of the GPU
/// that has `number`.
pub(crate) fn address(number: u32, offset: u64, order: u32, dir: DmaDirection) -> DeviceAddr {
    DeviceAddr::device(
        offset,
        DeviceAddr::INTERCONNECT + u64::from(number),
        order,
        dir,
    )
}

/// The number of the GPU that an address with `protocol` leads to. [`None`]: to RAM.
pub(crate) fn number(protocol: u64) -> Option<u64> {
    protocol.checked_sub(DeviceAddr::INTERCONNECT)
}
