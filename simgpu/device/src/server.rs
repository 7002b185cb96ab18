// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The vfio-user side: what QEMU asks, handed to the device.
//!
//! QEMU posts its register writes without waiting for a reply, but the
//! `vfio_user` crate answers an error even then, which would confuse the
//! stream. So register accesses never fail; nonsense is ignored.

use crate::device::Device;
use crate::dma::Rights;
use crate::pci_config::{self, PciConfig};
use crate::registers;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use vfio_bindings::bindings::vfio;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

/// The device as a vfio-user server sees it.
#[derive(Debug)]
pub struct Backend {
    device: Device,
    config: PciConfig,
}

impl Backend {
    pub fn new(device: Device) -> Self {
        Self {
            device,
            config: PciConfig::default(),
        }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0);
        match region {
            vfio::VFIO_PCI_CONFIG_REGION_INDEX => self.config.read(offset, data),
            vfio::VFIO_PCI_BAR0_REGION_INDEX => {
                if let (0, Ok(data)) = (offset % 4, <&mut [u8; 4]>::try_from(data)) {
                    *data = self.device.read(offset).to_le_bytes();
                }
            }
            _ => {} // The client keeps the MSI-X table itself.
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        match region {
            vfio::VFIO_PCI_CONFIG_REGION_INDEX => {
                self.config.write(offset, data);
                self.device.dma().set_bus_master(self.config.bus_master());
            }
            vfio::VFIO_PCI_BAR0_REGION_INDEX => {
                if let (0, Ok(data)) = (offset % 4, <[u8; 4]>::try_from(data)) {
                    self.device.write(offset, u32::from_le_bytes(data));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        // Without a file it is not memory but, say, another device's BAR.
        let Some(file) = fd else {
            return Ok(());
        };
        let rights = Rights {
            read: flags.contains(DmaMapFlags::READ),
            write: flags.contains(DmaMapFlags::WRITE),
        };
        self.device
            .dma()
            .map(address, size, &file, offset, rights)
            .inspect_err(|e| log::warn!("cannot map {size:#x} bytes at {address:#x}: {e}"))
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            self.device.dma().unmap_all();
            return Ok(());
        }
        self.device
            .dma()
            .unmap(address, size)
            .inspect_err(|e| log::warn!("cannot unmap {size:#x} bytes at {address:#x}: {e}"))
    }

    fn reset(&mut self) -> io::Result<()> {
        self.device.reset();
        self.config = PciConfig::default();
        self.device.dma().set_bus_master(false);
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        let irqs = self.device.irqs();
        if index != vfio::VFIO_PCI_MSIX_IRQ_INDEX {
            return if count == 0 { Ok(()) } else { Err(invalid()) };
        }
        if flags & vfio::VFIO_IRQ_SET_ACTION_TRIGGER == 0 {
            return Ok(()); // Masking is done by the client.
        }
        if flags & vfio::VFIO_IRQ_SET_DATA_EVENTFD != 0 {
            return irqs.assign(start, count, fds);
        }
        if count == 0 {
            irqs.clear();
        }
        Ok(())
    }
}

/// Accepts one client on `listener` and serves it until it disconnects.
pub fn serve(listener: UnixListener, backend: &mut Backend) -> Result<(), vfio_user::Error> {
    let server = Server::from_owned_fd(OwnedFd::from(listener), true, irqs(), regions());
    match server.run(backend) {
        Err(e) if is_disconnect(&e) => Ok(()),
        result => result,
    }
}

/// Whether the error only says that the client is gone.
fn is_disconnect(e: &vfio_user::Error) -> bool {
    use vfio_user::Error;
    match e {
        Error::StreamWrite(e) | Error::StreamRead(e) => matches!(
            e.kind(),
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
        ),
        Error::ReceiveWithFd(e) => e.errno() == libc::ECONNRESET,
        Error::SendWithFd(e) => matches!(e.errno(), libc::EPIPE | libc::ECONNRESET),
        _ => false,
    }
}

fn regions() -> Vec<ServerRegion> {
    (0..vfio::VFIO_PCI_NUM_REGIONS)
        .map(|index| {
            let size = match index {
                vfio::VFIO_PCI_BAR0_REGION_INDEX => registers::BAR_SIZE,
                vfio::VFIO_PCI_BAR2_REGION_INDEX => pci_config::MSIX_BAR_SIZE,
                vfio::VFIO_PCI_CONFIG_REGION_INDEX => pci_config::SIZE as u64,
                _ => 0,
            };
            let flags = match size {
                0 => 0,
                _ => vfio::VFIO_REGION_INFO_FLAG_READ | vfio::VFIO_REGION_INFO_FLAG_WRITE,
            };
            ServerRegion {
                region_info: vfio::vfio_region_info {
                    argsz: std::mem::size_of::<vfio::vfio_region_info>() as u32,
                    index,
                    size,
                    flags,
                    ..Default::default()
                },
                sparse_areas: Vec::new(),
                mmap_fd: None,
            }
        })
        .collect()
}

fn irqs() -> Vec<IrqInfo> {
    (0..vfio::VFIO_PCI_NUM_IRQS)
        .map(|index| match index {
            vfio::VFIO_PCI_MSIX_IRQ_INDEX => IrqInfo {
                index,
                count: crate::irq::VECTORS as u32,
                flags: vfio::VFIO_IRQ_INFO_EVENTFD,
            },
            _ => IrqInfo {
                index,
                count: 0,
                flags: 0,
            },
        })
        .collect()
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}
