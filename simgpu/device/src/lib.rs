// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! An emulated GPU as a user-space PCI device.
//!
//! QEMU's `vfio-user-pci` connects to our socket ([`server`]); the guest then
//! sees the PCI function of [`pci_config`] with the registers of
//! [`registers`]. Engines ([`engine`]) read descriptors from rings in guest memory
//! ([`ring`], [`ring_state`], [`dma`]), carry them out, and tell the guest by
//! fences and interrupts ([`irq`]):
//!
//! - the copy engine ([`descriptor`], [`ops`]) works on the device's own memory
//!   ([`vram`]) and that of others ([`peer`]);
//! - compute queues run jobs ([`job`], [`compute`]) on virtual addresses
//!   ([`virtual_memory`]), by way of the [`mmu`] with its page tables
//!   ([`page_table`]) and TLBs ([`tlb`]); where they can't go on they stall, and
//!   report that ([`fault_buffer`]);
//! - the MMU engine carries out the driver's orders to both ([`mmu_command`]).
//!
//! Tests make any of them fail ([`inject`]). `REGISTERS.md` is the contract.
//!
//! Everything the guest writes is untrusted: no register value, descriptor or
//! address may make the device panic or touch memory it was not given.

pub mod args;
pub mod compute;
mod compute_engine;
pub mod counters;
pub mod descriptor;
pub mod device;
pub mod dma;
pub mod engine;
pub mod fault_buffer;
pub mod inject;
pub mod irq;
pub mod job;
pub mod logger;
pub mod mapping;
pub mod mmu;
pub mod mmu_command;
mod mmu_engine;
pub mod ops;
pub mod page_table;
pub mod pci_config;
pub mod peer;
pub mod registers;
pub mod ring;
pub mod ring_state;
pub mod server;
pub mod socket;
pub mod span;
pub mod tlb;
pub mod virtual_memory;
pub mod vram;
