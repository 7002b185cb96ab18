// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DRM pagemap: moves a process's pages between system RAM and device memory.
//!
//! The layer augments `struct dev_pagemap`: a driver populates a range of an address space with
//! device-private pages, and the pages come home on a CPU fault or on eviction. It offers two
//! front doors over one engine:
//!
//! - the C interface of [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h) and
//!   [`include/drm/drm_pagemap_util.h`](srctree/include/drm/drm_pagemap_util.h), which [`abi`]
//!   implements symbol by symbol;
//! - Rust traits ([`PagemapOps`], [`DevmemOps`]) and types ([`Pagemap`], [`Devmem`],
//!   [`Registration`]) with which a driver needs no `unsafe`. They build the same C ops tables.
//!
//! The layers, from the bottom up: [`mm`] wraps the memory management core and knows nothing of
//! GPUs; the objects ([`zdd`], [`dpagemap`], [`dpagemap_devmem`]) wrap the C structs in place; the
//! engine ([`migrate`]) is all safe code; [`policy`] is what can be chosen of it.

mod bindings;

pub mod mm;

mod cache;
mod crew;
mod dev_ops;
pub mod device_addr;
pub mod dpagemap;
pub mod dpagemap_devmem;
pub mod hold;
mod jiffies;
mod layout;
mod owner;
mod page_array;
mod peer_mapping;
mod places;
pub mod policy;
mod pool;
pub mod queue;
mod scratch;
mod shrinker;
mod trace;
pub mod zdd;

pub mod migrate;

pub mod abi;

#[cfg(CONFIG_DRM = "y")]
pub mod copies;
#[cfg(CONFIG_DRM = "y")]
pub mod devmem;
#[cfg(CONFIG_DRM = "y")]
pub mod devmem_ops;
#[cfg(CONFIG_DRM = "y")]
pub mod gate;
#[cfg(CONFIG_DRM = "y")]
pub mod held_pages;
#[cfg(CONFIG_DRM = "y")]
mod lost;
#[cfg(CONFIG_DRM = "y")]
pub mod owner_list;
#[cfg(CONFIG_DRM = "y")]
pub mod pagemap;
#[cfg(CONFIG_DRM = "y")]
pub mod pagemap_ops;
#[cfg(CONFIG_DRM = "y")]
pub mod registration;
#[cfg(CONFIG_DRM = "y")]
pub mod svm_range;

#[cfg(CONFIG_DRM = "y")]
pub use crate::{
    copies::{
        Copies,
        CopyRun, //
    },
    device_addr::DeviceAddr,
    devmem::{
        Devmem,
        NewDevmem, //
    },
    devmem_ops::{
        DevmemOps,
        DevmemPfns, //
    },
    held_pages::HeldPages,
    owner_list::{
        Endpoint,
        OwnerList,
        Peer, //
    },
    pagemap::Pagemap,
    pagemap_ops::PagemapOps,
    policy::{
        FaultWindow,
        Policy,
        SliceWait,
        Thrash, //
    },
    registration::Registration,
    svm_range::{
        SvmOps,
        SvmPages,
        SvmPiece,
        SvmPlace,
        SvmRange, //
    },
};

use kernel::prelude::*;

/// The module: nothing but the queues on which releases run, and large migrations.
struct DrmPagemapModule {
    _queue: queue::Owner,
    _crew: queue::Owner,
}

impl kernel::Module for DrmPagemapModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _queue: queue::Owner::new()?,
            _crew: crew::start()?,
        })
    }
}

impl Drop for DrmPagemapModule {
    fn drop(&mut self) {
        mm::clear_pools();
        scratch::clear_pool();
    }
}

module! {
    type: DrmPagemapModule,
    name: "drm_pagemap",
    authors: ["drm_pagemap in Rust maintainers"],
    description: "Migration of process memory to and from device memory",
    license: "Dual MIT/GPL",
}
