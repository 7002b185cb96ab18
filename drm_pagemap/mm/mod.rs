// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Safe abstractions over the memory management core: page frames, folios, zone devices, page
//! migration and DMA mapping.
//!
//! This layer holds the `unsafe` that the layers above it don't have. It knows of pages and
//! devices, not of GPUs: neither device memory allocations nor drivers appear here.

mod dma;
mod folio;
mod locked_mm;
mod migration;
mod pfn;
mod place;
mod zone_device;

pub use self::{
    dma::{DmaArray, DmaDirection},
    folio::{Folio, LockedFolio, RamPolicy},
    locked_mm::{user_end, LockedMm},
    migration::{Arrays, Collected, Fault, Migrated, Select, Step, VmaRange},
    pfn::{MigratePfn, Pfn, NR_PMD_PAGES, PMD_ORDER},
    place::{places, Place},
    zone_device::{PagemapOwner, ZoneDevice, ZoneDeviceRegion}, //
};

pub(crate) use self::locked_mm::vma_is_anonymous;
