// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The registers in BAR 0; see `device/REGISTERS.md`.

use kernel::{
    pci,
    register,
    sizes::SZ_64K, //
};

/// The size of BAR 0.
pub(crate) const BAR_SIZE: usize = SZ_64K;

/// BAR 0.
pub(crate) type Bar<'a> = pci::Bar<'a, BAR_SIZE>;

/// What any register reads as when the device is gone.
pub(crate) const ALL_ONES: u32 = u32::MAX;

register! {
    /// Who it is.
    pub(crate) ID(u32) @ 0x000 {
        31:0 id;
    }

    /// Which version of the registers it has.
    pub(crate) VERSION(u32) @ 0x004 {
        /// Incompatible changes.
        31:16 major;
        /// Additions.
        15:0 minor;
    }

    /// Size of the VRAM in bytes.
    pub(crate) VRAM_SIZE_LO(u32) @ 0x008 {
        31:0 half;
    }

    /// High half of it.
    pub(crate) VRAM_SIZE_HI(u32) @ 0x00c {
        31:0 half;
    }

    /// Control.
    pub(crate) CONTROL(u32) @ 0x010 {
        /// Resets all but the contents of the VRAM; reads as set until done.
        0:0 reset => bool;
    }

    /// State of the engine.
    pub(crate) STATUS(u32) @ 0x014 {
        /// The ring is enabled.
        0:0 running => bool;
        /// Stuck in a descriptor.
        1:1 hung => bool;
        /// The ring itself is unusable.
        2:2 halted => bool;
    }

    /// Its number on the link to other GPUs.
    pub(crate) PEER_SELF(u32) @ 0x020 {
        31:0 number;
    }

    /// Other GPUs, by their numbers: those that are connected and alive; writing ones connects.
    pub(crate) PEERS(u32) @ 0x024 {
        31:0 numbers;
    }

    /// Bus address of the descriptor ring.
    pub(crate) RING_BASE_LO(u32) @ 0x100 {
        31:0 half;
    }

    /// High half of it.
    pub(crate) RING_BASE_HI(u32) @ 0x104 {
        31:0 half;
    }

    /// Number of descriptors in the ring.
    pub(crate) RING_ENTRIES(u32) @ 0x108 {
        31:0 entries;
    }

    /// Index of the descriptor that is next.
    pub(crate) RING_HEAD(u32) @ 0x10c {
        31:0 index;
    }

    /// Doorbell: index behind the last descriptor that is ready.
    pub(crate) RING_TAIL(u32) @ 0x110 {
        31:0 index;
    }

    /// Starts and stops the engine.
    pub(crate) RING_ENABLE(u32) @ 0x114 {
        0:0 enable => bool;
    }

    /// Bus address of the fence block.
    pub(crate) FENCE_ADDR_LO(u32) @ 0x118 {
        31:0 half;
    }

    /// High half of it.
    pub(crate) FENCE_ADDR_HI(u32) @ 0x11c {
        31:0 half;
    }

    /// Interrupts that are pending, as those of [`IRQ_ENABLE`]; writing ones clears them.
    pub(crate) IRQ_STATUS(u32) @ 0x200 {
        31:0 vectors;
    }

    /// Interrupts that are sent: bit n is that of vector n.
    pub(crate) IRQ_ENABLE(u32) @ 0x204 {
        31:0 vectors;
    }

    /// How many microseconds late interrupts are cleared, for tests.
    pub(crate) INJECT_IRQ_DELAY_US(u32) @ 0x208 {
        31:0 delay;
    }

    /// How to misbehave.
    pub(crate) INJECT_KIND(u32) @ 0x300 {
        31:0 kind;
    }

    /// For how many descriptors.
    pub(crate) INJECT_COUNT(u32) @ 0x304 {
        31:0 count;
    }

    /// How many microseconds late.
    pub(crate) INJECT_DELAY_US(u32) @ 0x308 {
        31:0 delay;
    }
}

impl ID {
    /// What it reads as.
    pub(crate) const SIMGPU: u32 = 0x5349_4d47;
}

impl STATUS {
    /// Neither enabled nor stuck. Once it was started, this is so only after a reset that somebody
    /// else has made.
    pub(crate) fn is_off(self) -> bool {
        !self.running() && !self.halted()
    }
}

impl PEER_SELF {
    /// Numbers are less than this; a GPU without a link reads as something else.
    pub(crate) const NUMBERS: u32 = 16;
}

impl VERSION {
    /// The major version that this driver is for.
    pub(crate) const MAJOR: u32 = 1;

    /// The first minor version with all that this driver uses.
    pub(crate) const MINOR: u32 = 1;
}

/// What there is several times is addressed by the sum of two offsets.
pub(crate) mod block {
    /// The registers of the MMU ring.
    pub(crate) const MMU: usize = 0x1000;

    /// The registers of compute queue `number`, 1 to 4.
    pub(crate) const fn queue(number: usize) -> usize {
        MMU + number * 0x100
    }

    pub(crate) const RING_BASE_LO: usize = 0x00;
    pub(crate) const RING_BASE_HI: usize = 0x04;
    pub(crate) const RING_ENTRIES: usize = 0x08;
    pub(crate) const RING_TAIL: usize = 0x10;
    pub(crate) const RING_ENABLE: usize = 0x14;
    pub(crate) const FENCE_ADDR_LO: usize = 0x18;
    pub(crate) const FENCE_ADDR_HI: usize = 0x1c;
    pub(crate) const STATUS: usize = 0x34;
    pub(crate) const INJECT_KIND: usize = 0x38;
    pub(crate) const INJECT_COUNT: usize = 0x3c;
    pub(crate) const INJECT_DELAY_US: usize = 0x40;
    pub(crate) const CONTROL: usize = 0x44;

    /// `STATUS`: a descriptor was swallowed.
    pub(crate) const STATUS_HUNG: u32 = 1 << 1;
    /// `STATUS`: the ring is unusable.
    pub(crate) const STATUS_HALTED: u32 = 1 << 2;
    /// `CONTROL`: reset of this ring alone.
    pub(crate) const CONTROL_RESET: u32 = 1;
}

/// The fault buffer.
pub(crate) mod fault {
    pub(crate) const BASE_LO: usize = 0x2000;
    pub(crate) const BASE_HI: usize = 0x2004;
    pub(crate) const ENTRIES: usize = 0x2008;
    pub(crate) const GET: usize = 0x2010;
    pub(crate) const ENABLE: usize = 0x2014;
    pub(crate) const STATUS: usize = 0x2018;
}

/// All bits of `IRQ_STATUS` and `IRQ_ENABLE`.
pub(crate) const ALL_VECTORS: u32 = 0xff;

/// Address spaces.
pub(crate) const ASIDS: usize = 64;

/// Compute queues.
pub(crate) const QUEUES: usize = 4;

/// The register pair with the root of an address space.
pub(crate) const fn asid_root(asid: usize) -> usize {
    0x4000 + 8 * asid
}

/// The counters, 64 bits each.
pub(crate) const fn counter(index: usize) -> usize {
    0x3000 + 8 * index
}

/// The high and low halves of a 64-bit value.
pub(crate) const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
