// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! One page goes to device memory: what most faults of a GPU with small pages ask for, and where
//! the arrays and plans of a [chunk](super::chunk) would cost more than all the rest of the layer.

use crate::{
    device_addr::DeviceAddr,
    migrate::Details,
    mm::{
        DmaDirection,
        Folio,
        OnePage,
        Pfn,
        Select,
        Source,
        VmaRange, //
    },
    peer_mapping::PeerMapping,
    places::Places,
    trace,
    zdd::Zdd, //
};
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

/// Migrates `range`, which is one page, to the first frame of the allocation. Returns whether it
/// has.
///
/// It has not, and all is as before, where what is found is not a page of RAM, nothing, or a page of
/// another device's memory, by itself and free to go: a [chunk](super::chunk) then says what becomes
/// of it. Errors as those of [`to_devmem`](super::to_devmem::to_devmem).
pub(super) fn migrate(
    zdd: &ARef<Zdd>,
    range: &VmaRange<'_>,
    details: &Details,
    places: &Places<'_>,
) -> Result<bool> {
    let zone = zdd.dpagemap().zone_device();
    let select = Select::SYSTEM.and(Select::DEVICE_PRIVATE);
    let page = OnePage::collect(range, zone.owner(), select)?;
    let (source, from) = match page.source() {
        Source::Stays => return Ok(false),
        Source::Hole => (None, None),
        Source::Page(source) if !source.is_zone_device() => (Some(source), None),
        Source::Page(source) => match peer(zdd, source) {
            Some(from) => (Some(source), Some(from)),
            None => return Ok(false),
        },
    };

    let mut room = [Pfn::default()];
    let frames = places.frames(0..1, zone, &mut room)?;
    let folio = Zdd::attach(zdd, frames, 1)?.take(0, 0)?;

    match (source, from) {
        (Some(source), Some(from)) => copy_peer(zdd, source, from, &folio)?,
        _ => copy_ram(zdd, source, &folio)?,
    }
    zdd.devmem().start_timeslice(details.timeslice);
    if !page.replace(folio)? {
        return Err(EBUSY);
    }
    if let (Some(source), Some(from)) = (source, from) {
        from.retire_own(source);
    }
    trace::moved_one(range, source, zdd);
    Ok(true)
}

/// The allocation on another device that `source` can be copied from.
#[inline(always)]
fn peer<'a>(zdd: &Zdd, source: &'a Folio) -> Option<&'a Zdd> {
    let dpagemap = zdd.dpagemap();

    Zdd::of_folio(source).filter(|_| dpagemap.has_device_map() && !dpagemap.owns(source.pgmap()))
}

/// From RAM, or from nowhere.
#[inline(always)]
fn copy_ram(zdd: &Zdd, source: Option<&Folio>, folio: &Folio) -> Result {
    let devmem = zdd.devmem();

    match source {
        Some(source) => {
            let dma = devmem.dma_page(DmaDirection::ToDevice, source)?;

            devmem.copy_page_to_devmem(folio, dma.addr())
        }
        None => devmem.copy_page_to_devmem(folio, DeviceAddr::ABSENT),
    }
}

/// From the memory of another device.
#[inline(always)]
fn copy_peer(zdd: &Zdd, source: &Folio, from: &Zdd, folio: &Folio) -> Result {
    let mut addr = [DeviceAddr::ABSENT];
    let mut mapping = PeerMapping::new(zdd.dpagemap(), from.dpagemap(), &mut addr)?;

    mapping.map_single(0, folio, DmaDirection::FromDevice)?;
    from.devmem()
        .copy_page_to_peer(source, mapping.addrs(), zdd.devmem())
}
