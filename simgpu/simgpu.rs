// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! simgpu: driver of the emulated GPU in `simgpu/device`, and model of a driver on top of
//! [`drm_pagemap`].
//!
//! A process asks, through the ioctls of
//! [`include/uapi/drm/simgpu_drm.h`](../include/uapi/drm/simgpu_drm.h), to have a range of its own
//! memory in VRAM. The pages come home when a CPU touches them, or when the VRAM is needed.
//!
//! From the bottom up: [`regs`] and [`descriptor`] say what the hardware looks like; [`engine`]
//! runs the copy engine, [`irq`] wakes who waits for it; [`vram`] gives out the memory;
//! [`pagemap`] is what [`drm_pagemap`] calls, [`link`] says which GPUs reach each other's memory;
//! [`populate`] and [`evict`] are policy; [`svm`] lets jobs use the process's own addresses;
//! [`ioctl`] and [`device`] face user space, [`debugfs`] and [`clients`] who wants to know;
//! [`driver`] puts it together and takes it apart.

mod address_space;
mod advice;
mod block_ring;
mod bring;
mod clients;
mod compute;
mod contention;
mod debugfs;
mod descriptor;
mod device;
mod driver;
mod engine;
mod evict;
mod fault_buffer;
mod file;
mod ioctl;
mod ioctl_svm;
mod irq;
mod job;
mod link;
mod mmu;
mod page_table;
mod pagemap;
mod populate;
mod queue;
mod range;
mod regs;
mod residency;
mod ring;
mod service;
mod svm;
mod uapi;
mod vram;
mod vram_op;
mod wakeups;

kernel::module_pci_driver! {
    type: driver::SimgpuDriver,
    name: "simgpu",
    authors: ["drm_pagemap in Rust maintainers"],
    description: "Driver of the emulated GPU",
    license: "Dual MIT/GPL",
    params: {
        timeout_ms: u32 {
            default: 5000,
            description: "How long the engine may stay at one descriptor before it is reset",
        },
    },
}
