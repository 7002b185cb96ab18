// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! An emulated GPU as a user-space PCI device.
//!
//! QEMU's `vfio-user-pci` connects to our socket ([`server`]); the guest then
//! sees the PCI function of [`pci_config`] with the registers of
//! [`registers`]. The copy engine ([`engine`]) reads descriptors
//! ([`descriptor`]) from a ring in guest memory ([`ring`], [`dma`]), carries
//! them out ([`ops`]) on memory of its own ([`vram`]), and tells the guest by
//! fences and interrupts ([`irq`]). `REGISTERS.md` is the contract.
//!
//! Everything the guest writes is untrusted: no register value, descriptor or
//! address may make the device panic or touch memory it was not given.

pub mod args;
pub mod descriptor;
pub mod device;
pub mod dma;
pub mod engine;
pub mod irq;
pub mod logger;
pub mod mapping;
pub mod ops;
pub mod pci_config;
pub mod registers;
pub mod ring;
pub mod server;
pub mod socket;
pub mod vram;
