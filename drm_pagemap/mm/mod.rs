// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Safe abstractions over the memory management core: page frames, folios, zone devices, page
//! migration, mirroring and DMA mapping.
//!
//! This layer holds the `unsafe` that the layers above it don't have. It knows of pages and
//! devices, not of GPUs: neither device memory allocations nor drivers appear here.

mod dma;
mod dma_page;
mod drain;
mod exclusive;
mod fault;
mod folio;
mod interval;
mod locked_mm;
mod mapper;
mod migration;
mod one_page;
mod pfn;
mod place;
mod ram_mapping;
mod range_fault;
mod rmap;
mod split;
mod steps;
mod survey;
mod tally;
mod touch;
mod vma_range;
mod zap_guard;
mod zone_device;
#[cfg(CONFIG_DRM = "y")]
mod zone_region;

pub use self::{
    dma::{DmaDirection, DmaMapping},
    dma_page::DmaPage,
    exclusive::ExclusivePage,
    fault::{Fault, Waited},
    folio::{Folio, FolioRef, LockedFolio, RamPolicy},
    interval::{Change, Event, Interval, IntervalOps, Seq},
    locked_mm::{user_end, LockedMm},
    migration::{Collected, Migrated, Single, SingleFolios, Singles},
    one_page::{OnePage, Source},
    pfn::{are_one_folio, MigratePfn, Pfn, NR_PMD_PAGES, PMD_ORDER},
    place::{places, Place},
    range_fault::{Access, Found, FoundPage, Pages},
    split::split,
    steps::{Arrays, Step},
    survey::Survey,
    tally::Tally,
    touch::touch,
    vma_range::{pmd_part, Select, VmaRange},
    zone_device::{Frames, PagemapOwner, ZoneDevice}, //
};

use self::{
    steps::Steps,
    zap_guard::ZapGuard, //
};

#[cfg(CONFIG_DRM = "y")]
pub(crate) use self::{
    ram_mapping::RamMapping,
    zone_region::{Zone, ZoneDeviceRegion}, //
};

pub(crate) use self::{
    drain::drain_batches,
    locked_mm::{vma_is_anonymous, vma_is_private_file},
    steps::{AsRoom, Entries, LARGE_PAGES},
    zap_guard::undo_free, //
};

/// Frees the buffers that are kept for the next migration.
pub(crate) fn clear_pools() {
    steps::clear_pool();
}
