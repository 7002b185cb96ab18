// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! PCI configuration space: a type 0 header with two memory BARs and an MSI-X
//! capability.

use crate::irq::VECTORS;
use crate::registers;

/// Bytes of configuration space.
pub const SIZE: usize = 256;
/// Bytes of BAR 2, which holds the MSI-X table and pending bits.
pub const MSIX_BAR_SIZE: u64 = 0x1000;

pub const VENDOR_ID: u16 = 0x1b36;
pub const DEVICE_ID: u16 = 0x5347;

/// Offsets in configuration space.
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const CACHE_LINE: usize = 0x0c;
const BAR0: usize = 0x10;
const BAR2: usize = 0x18;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const MSIX: usize = 0x40;

const STATUS_CAP_LIST: u16 = 1 << 4;
const COMMAND_MASTER: u16 = 1 << 2;
/// Memory space, bus master, parity, SERR, INTx disable.
const COMMAND_WRITABLE: u16 = (1 << 1) | COMMAND_MASTER | (1 << 6) | (1 << 8) | (1 << 10);
const CAP_ID_MSIX: u8 = 0x11;
/// Enable and function mask.
const MSIX_WRITABLE: u16 = (1 << 15) | (1 << 14);
const MSIX_TABLE: u32 = 2; // BAR 2, offset 0
const MSIX_PBA: u32 = 0x800 | 2;

/// The configuration space and which of its bits can be written.
#[derive(Debug)]
pub struct PciConfig {
    data: [u8; SIZE],
    writable: [u8; SIZE],
}

impl Default for PciConfig {
    fn default() -> Self {
        let mut c = Self {
            data: [0; SIZE],
            writable: [0; SIZE],
        };
        c.set(0x00, &VENDOR_ID.to_le_bytes(), &[]);
        c.set(0x02, &DEVICE_ID.to_le_bytes(), &[]);
        c.set(COMMAND, &[], &COMMAND_WRITABLE.to_le_bytes());
        c.set(STATUS, &STATUS_CAP_LIST.to_le_bytes(), &[]);
        c.set(REVISION, &[1], &[]);
        c.set(CLASS, &[0x00, 0x80, 0x03], &[]);
        c.set(CACHE_LINE, &[], &[0xff]);
        // A BAR's size is told by the address bits that cannot be written.
        c.set(BAR0, &[], &bar_mask(registers::BAR_SIZE));
        c.set(BAR2, &[], &bar_mask(MSIX_BAR_SIZE));
        c.set(SUBSYSTEM, &VENDOR_ID.to_le_bytes(), &[]);
        c.set(SUBSYSTEM + 2, &DEVICE_ID.to_le_bytes(), &[]);
        c.set(CAPABILITIES, &[MSIX as u8], &[]);
        c.set(INTERRUPT_LINE, &[], &[0xff]);
        c.set(MSIX, &[CAP_ID_MSIX, 0], &[]);
        let last_vector = VECTORS as u16 - 1;
        c.set(
            MSIX + 2,
            &last_vector.to_le_bytes(),
            &MSIX_WRITABLE.to_le_bytes(),
        );
        c.set(MSIX + 4, &MSIX_TABLE.to_le_bytes(), &[]);
        c.set(MSIX + 8, &MSIX_PBA.to_le_bytes(), &[]);
        c
    }
}

fn bar_mask(size: u64) -> [u8; 4] {
    (!(size as u32 - 1)).to_le_bytes()
}

impl PciConfig {
    fn set(&mut self, at: usize, data: &[u8], writable: &[u8]) {
        self.data[at..at + data.len()].copy_from_slice(data);
        self.writable[at..at + writable.len()].copy_from_slice(writable);
    }

    /// Reads bytes from `offset`; 0 past the end.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = index(offset, i).map_or(0, |at| self.data[at]);
        }
    }

    /// Writes bytes from `offset`; bits that cannot be written stay.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (i, byte) in data.iter().enumerate() {
            if let Some(at) = index(offset, i) {
                let mask = self.writable[at];
                self.data[at] = (self.data[at] & !mask) | (byte & mask);
            }
        }
    }

    /// Whether the device may act as bus master.
    pub fn bus_master(&self) -> bool {
        u16::from_le_bytes([self.data[COMMAND], self.data[COMMAND + 1]]) & COMMAND_MASTER != 0
    }
}

fn index(offset: u64, i: usize) -> Option<usize> {
    let at = usize::try_from(offset).ok()?.checked_add(i)?;
    (at < SIZE).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<const N: usize>(c: &PciConfig, at: u64) -> [u8; N] {
        let mut out = [0xaa; N];
        c.read(at, &mut out);
        out
    }

    fn dword(c: &PciConfig, at: u64) -> u32 {
        u32::from_le_bytes(get(c, at))
    }

    #[test]
    fn identity() {
        let c = PciConfig::default();
        assert_eq!(dword(&c, 0x00), 0x5347_1b36);
        assert_eq!(dword(&c, 0x08), 0x0380_0001);
        assert_eq!(get(&c, 0x0e), [0u8], "type 0, one function");
        assert_eq!(get(&c, 0x3d), [0u8], "no INTx pin");
    }

    #[test]
    fn identity_is_read_only() {
        let mut c = PciConfig::default();
        let before: [u8; SIZE] = get(&c, 0);
        for at in [0x00, 0x06, 0x08, 0x2c, 0x34, 0x3d, 0x40, 0x44, 0x48, 0xfc] {
            c.write(at, &[!before[at as usize]]);
        }
        assert_eq!(get::<SIZE>(&c, 0), before);
    }

    #[test]
    fn bar_sizing() {
        let mut c = PciConfig::default();
        for bar in 0..6 {
            c.write(0x10 + bar * 4, &[0xff; 4]);
        }
        let sizes: Vec<u32> = (0..6).map(|bar| dword(&c, 0x10 + bar * 4)).collect();
        assert_eq!(sizes, [0xffff_0000, 0, 0xffff_f000, 0, 0, 0]);
        c.write(0x10, &0xfebf_1234u32.to_le_bytes());
        assert_eq!(dword(&c, 0x10), 0xfebf_0000);
        c.write(0x30, &[0xff; 4]);
        assert_eq!(dword(&c, 0x30), 0, "no ROM");
    }

    #[test]
    fn msix_capability() {
        let mut c = PciConfig::default();
        assert_ne!(dword(&c, 0x04) & (1 << 20), 0, "has capabilities");
        assert_eq!(get(&c, 0x34), [0x40u8]);
        assert_eq!(get(&c, 0x40), [0x11u8, 0], "MSI-X, the only one");
        assert_eq!(dword(&c, 0x40) >> 16, 7, "eight vectors, off");
        assert_eq!(dword(&c, 0x44), 2, "table: BAR 2 + 0");
        assert_eq!(dword(&c, 0x48), 0x802, "pending bits: BAR 2 + 0x800");
        c.write(0x42, &[0xff, 0xff]);
        assert_eq!(dword(&c, 0x40) >> 16, 0xc007);
    }

    #[test]
    fn command_register() {
        let mut c = PciConfig::default();
        assert!(!c.bus_master());
        c.write(0x04, &[0x06]);
        assert!(c.bus_master());
        assert_eq!(dword(&c, 0x04) & 0xffff, 0x0006);
        c.write(0x04, &[0xff, 0xff]);
        assert_eq!(dword(&c, 0x04) & 0xffff, 0x0546, "no I/O space");
        c.write(0x04, &[0x02]);
        assert!(!c.bus_master());
    }

    #[test]
    fn any_offset_and_length_is_fine() {
        let mut c = PciConfig::default();
        assert_eq!(get(&c, 0xfe), [0u8; 8]);
        assert_eq!(get(&c, u64::MAX), [0u8; 8]);
        c.write(0xfe, &[0xff; 8]);
        c.write(u64::MAX - 1, &[0xff; 8]);
        assert_eq!(dword(&c, 0), 0x5347_1b36);
    }
}
