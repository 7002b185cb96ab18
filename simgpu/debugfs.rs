// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Numbers for people: `simgpu-ADDRESS/` in debugfs, a folder for each device, with
//!
//! - `device`: its VRAM, its allocations, and the pages that have moved since it was bound, also
//!   those that were sent to other GPUs over the link; how many are lent to others just now; how
//!   many of others' were mapped so far; its number on the link, and those of the GPUs that it is
//!   connected to, as bits;
//! - `clients`: who has it open, and how much VRAM is for them.
//!
//! The format is that of DRM's `fdinfo` ([`Documentation/gpu/drm-usage-stats.rst`]), a client after
//! the other with an empty line between, so that what reads that can read this. They are not in
//! `/proc/PID/fdinfo/` itself, since `kernel::drm` has no way to set `drm_driver::show_fdinfo` or
//! `file_operations::show_fdinfo`: both are constants of its own that leave it out. Nor in
//! `dri/N/`, as it has no `debugfs_init` either.
//!
//! [`Documentation/gpu/drm-usage-stats.rst`]: srctree/Documentation/gpu/drm-usage-stats.rst

use crate::{
    clients::Clients,
    page_table::Leaves,
    pagemap::SimgpuPagemap, //
};
use drm_pagemap::{
    queue,
    Pagemap, //
};
use kernel::{
    debugfs::Scope,
    fmt,
    pci,
    prelude::*,
    str::CString,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// What the files tell of.
pub(crate) struct Numbers {
    address: CString,
    pagemap: Arc<Pagemap<SimgpuPagemap>>,
    clients: Arc<Clients>,
    leaves: Arc<Leaves>,
}

/// The folder. It is gone with this.
#[pin_data]
pub(crate) struct Folder {
    #[pin]
    scope: Scope<Numbers>,
}

impl Folder {
    /// The folder of `pdev`, which must not outlive the registration of `pagemap`.
    pub(crate) fn new(
        pdev: &pci::Device,
        pagemap: Arc<Pagemap<SimgpuPagemap>>,
        clients: Arc<Clients>,
        leaves: Arc<Leaves>,
    ) -> Result<impl PinInit<Self, Error>> {
        let address = CString::try_from_fmt(fmt!("{}", pdev.as_ref().name()))?;
        let name = CString::try_from_fmt(fmt!("simgpu-{}", pdev.as_ref().name()))?;

        Ok(pin_init::pin_init_scope(move || {
            let name = name;
            let numbers = Numbers {
                address,
                pagemap,
                clients,
                leaves,
            };
            Ok(try_pin_init!(Self {
                scope <- Scope::dir(numbers, &name, |numbers, dir| {
                    dir.read_callback_file(c"device", numbers, &device);
                    dir.read_callback_file(c"clients", numbers, &clients_of);
                }),
            }? Error))
        }))
    }
}

impl Numbers {
    /// What both files begin with.
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "drm-driver:\tsimgpu")?;
        writeln!(f, "drm-pdev:\t{}", self.address.to_str().unwrap_or("?"))
    }
}

/// Bytes in the unit that DRM prints.
fn kib(bytes: u64) -> u64 {
    bytes >> 10
}

fn device(numbers: &Numbers, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let pagemap = &numbers.pagemap;

    // So that what was freed before is free.
    queue::flush();
    numbers.head(f)?;
    writeln!(f, "simgpu-vram-size:\t{} KiB", kib(pagemap.vram.size()))?;
    writeln!(f, "simgpu-vram-free:\t{} KiB", kib(pagemap.vram.free()))?;
    writeln!(f, "simgpu-allocations:\t{}", pagemap.vram.usage(|_| true).0)?;
    writeln!(f, "simgpu-pages-populated:\t{}", pagemap.populated())?;
    writeln!(f, "simgpu-pages-faulted:\t{}", pagemap.faulted())?;
    writeln!(f, "simgpu-pages-evicted:\t{}", pagemap.evicted())?;
    writeln!(f, "simgpu-pages-sent:\t{}", pagemap.sent())?;
    writeln!(f, "simgpu-pages-lent:\t{}", pagemap.lent())?;
    writeln!(
        f,
        "simgpu-pages-borrowed:\t{}",
        numbers.leaves.remote.load(Relaxed)
    )?;
    if let Some(number) = pagemap.link_number() {
        writeln!(f, "simgpu-link-number:\t{number}")?;
    }
    if let Ok(peers) = pagemap.engine.peers() {
        writeln!(f, "simgpu-link-peers:\t{peers:#x}")?;
    }
    Ok(())
}

fn clients_of(numbers: &Numbers, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    queue::flush();
    for (i, (id, client)) in numbers
        .clients
        .list()
        .map_err(|_| fmt::Error)?
        .iter()
        .enumerate()
    {
        // All that was made for its address space: the files of one process tell the same.
        let (allocations, bytes) = numbers.pagemap.vram.usage(|mm| mm == client.mm);

        if i > 0 {
            writeln!(f)?;
        }
        numbers.head(f)?;
        writeln!(f, "drm-client-id:\t{id}")?;
        writeln!(f, "drm-total-vram:\t{} KiB", kib(bytes))?;
        // Allocations are of VRAM, so all of them are there.
        writeln!(f, "drm-resident-vram:\t{} KiB", kib(bytes))?;
        writeln!(f, "simgpu-pid:\t{}", client.pid)?;
        writeln!(f, "simgpu-allocations:\t{allocations}")?;
    }
    Ok(())
}
