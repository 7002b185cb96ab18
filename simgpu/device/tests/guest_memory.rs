// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! DMA_MAP and DMA_UNMAP: bounds, rights, and unmapping under the engine.

mod common;
use common::*;
use simgpu_device::dma::{Dma, Rights};
use simgpu_device::registers::*;
use std::time::Instant;

const READ_ONLY: Rights = Rights {
    read: true,
    write: false,
};
const WRITE_ONLY: Rights = Rights {
    read: false,
    write: true,
};

fn dma() -> (Dma, Ram) {
    let dma = Dma::default();
    dma.set_bus_master(true);
    (dma, Ram::new(64 * KIB))
}

fn reaches(dma: &Dma, bus: u64, len: usize) -> bool {
    let guest = dma.access();
    let read = guest.read(bus, &mut vec![0; len]).is_ok();
    assert_eq!(read, guest.check_read(bus, len as u64).is_ok());
    read
}

#[test]
fn nonsense_is_not_mapped() {
    let (dma, ram) = dma();
    let size = 64 * KIB;
    for (bus, len, offset) in [
        (0, 0, 0),
        (0, size + 4096, 0),
        (0, size, 4096),
        (0, 4096, size),
        (0, 4096, u64::MAX - 4095),
        (0, 4096, 1 << 63),
        (u64::MAX - 4095, 4096, 0),
        (u64::MAX - 4095, 8192, 0),
        (0, u64::MAX - 4095, 4096),
        (1, 4096, 0),
        (64, 4096, 0),
        (0, 4095, 0),
        (0, 4096, 64),
    ] {
        let result = dma.map(bus, len, &ram.file, offset, RW);
        assert!(result.is_err(), "{bus:x} {len:x} {offset:x}");
    }
    assert!(!reaches(&dma, 0, 1));
    let pipe = eventfd(); // not a file with bytes in it
    assert!(dma.map(0, 4096, &pipe, 0, RW).is_err());
}

#[test]
fn overlaps_are_refused_and_neighbours_are_not() {
    let (dma, ram) = dma();
    let map = |bus, len| dma.map(bus, len, &ram.file, 0, RW);
    map(0x10000, 0x4000).unwrap();
    for (bus, len) in [
        (0x10000, 0x4000),
        (0xf000, 0x2000),
        (0x13000, 0x2000),
        (0x11000, 0x1000),
        (0xf000, 0x6000),
    ] {
        assert!(map(bus, len).is_err(), "{bus:x}");
    }
    map(0xf000, 0x1000).unwrap();
    map(0x14000, 0x1000).unwrap();
    assert!(reaches(&dma, 0xf000, 0x6000));
    assert!(!reaches(&dma, 0xefff, 2));
    assert!(!reaches(&dma, 0x14fff, 2));
}

#[test]
fn the_file_offset_counts() {
    let (dma, ram) = dma();
    ram.write(0x3010, b"here");
    dma.map(0x8000, 0x1000, &ram.file, 0x3000, RW).unwrap();
    let mut got = [0; 4];
    dma.access().read(0x8010, &mut got).unwrap();
    assert_eq!(&got, b"here");
    dma.access().write(0x8020, b"back").unwrap();
    assert_eq!(ram.read(0x3020, 4), b"back");
}

#[test]
fn unmap_takes_whole_regions_only() {
    let (dma, ram) = dma();
    for bus in [0x10000, 0x12000, 0x20000] {
        dma.map(bus, 0x2000, &ram.file, 0, RW).unwrap();
    }
    for (bus, len) in [
        (0x10000, 0x1000),
        (0x11000, 0x1000),
        (0x11000, 0x3000),
        (0x10000, 0x3000),
        (u64::MAX, 1 << 20),
    ] {
        assert!(dma.unmap(bus, len).is_err(), "{bus:x}");
    }
    assert!(reaches(&dma, 0x10000, 0x4000), "nothing is gone yet");
    dma.unmap(0x30000, 0x1000).unwrap(); // nothing there
    dma.unmap(0x10000, 0x4000).unwrap();
    assert!(!reaches(&dma, 0x10000, 1) && !reaches(&dma, 0x13fff, 1));
    assert!(reaches(&dma, 0x20000, 0x2000));
    dma.unmap_all();
    assert!(!reaches(&dma, 0x20000, 1));
    dma.map(0x10000, 0x2000, &ram.file, 0, RW).unwrap();
    assert!(reaches(&dma, 0x10000, 0x2000));
}

#[test]
fn rights_are_kept() {
    let (dma, ram) = dma();
    dma.map(0x1000, 0x1000, &ram.file, 0, READ_ONLY).unwrap();
    dma.map(0x2000, 0x1000, &ram.file, 0, WRITE_ONLY).unwrap();
    dma.map(0x3000, 0x1000, &ram.file, 0, RW).unwrap();
    let guest = dma.access();
    let mut buf = [0; 4];
    assert!(guest.read(0x1000, &mut buf).is_ok());
    assert!(guest.write(0x1000, &buf).is_err());
    assert!(guest.read(0x2000, &mut buf).is_err());
    assert!(guest.write(0x2000, &buf).is_ok());
    assert!(guest.block(0x1000).is_err() && guest.block(0x2000).is_err());
    assert!(guest.block(0x3000).is_ok());
    assert!(guest.block(0x3020).is_err(), "not aligned");
}

#[test]
fn a_range_that_is_bad_at_the_end_is_not_begun() {
    let (dma, ram) = dma();
    dma.map(0x1000, 0x1000, &ram.file, 0, RW).unwrap();
    let guest = dma.access();
    let mut buf = [7; 0x1001];
    assert!(guest.read(0x1000, &mut buf).is_err());
    assert!(buf.iter().all(|&b| b == 7));
    assert!(guest.write(0x1000, &buf).is_err());
    assert_eq!(ram.read(0, 0x1000), [0; 0x1000]);
}

#[test]
fn without_bus_mastering_there_is_no_memory() {
    let (dma, ram) = dma();
    dma.map(0, 0x1000, &ram.file, 0, RW).unwrap();
    assert!(reaches(&dma, 0, 1));
    dma.set_bus_master(false);
    assert!(!reaches(&dma, 0, 1));
    assert!(dma.access().block(0).is_err());

    let mut g = Guest::new();
    g.device.dma().set_bus_master(false);
    g.start();
    until("it halts", || g.get(reg::STATUS) == STATUS_HALTED);
    assert_eq!(signals(&g.error_irq), 0, "MSI-X is a bus write, too");
}

#[test]
fn unmap_waits_for_the_copy_at_hand() {
    let mut g = Guest::started();
    g.write_vram(0, &pattern(64, 3));
    g.reset();
    g.start();
    // A long list of long copies; unmapping happens between two of them.
    for round in 0..20u64 {
        let copies = [Desc::new(2, 0, RAM + RAM_SPLIT, MIB); 6];
        let first = g.submit(&copies);
        let dma = g.device.dma();
        dma.unmap(RAM + RAM_SPLIT, MIB).unwrap();
        // Nobody may write to it now.
        let last = MIB + MIB - 8;
        g.ram.write(last, &[0x5a; 8]);
        until("all are done", || {
            g.get(reg::RING_HEAD) == g.get(reg::RING_TAIL)
        });
        assert_eq!(g.ram.read(last, 8), [0x5a; 8]);
        let mut seen = Vec::new();
        for i in 0..6 {
            seen.push(g.status((first + i) % ENTRIES));
        }
        assert!(seen.is_sorted(), "first OK, then BAD_BUS: {seen:?}");
        assert!(seen.iter().all(|s| [1, 4].contains(s)), "{seen:?}");
        dma.map(RAM + RAM_SPLIT, MIB, &g.ram.file, RAM_SPLIT, RW)
            .unwrap();
        assert_eq!(g.get(reg::STATUS), STATUS_RUNNING, "round {round}");
    }
}

#[test]
fn a_copy_does_not_hold_up_registers() {
    let dma_size = 256 * MIB;
    let device = simgpu_device::device::Device::new(dma_size).unwrap();
    let ram = Ram::new(MIB);
    device.dma().map(RAM, MIB, &ram.file, 0, RW).unwrap();
    device.dma().set_bus_master(true);
    let fill = Desc::new(4, 0, 0, dma_size).arg(1).fence(1);
    for (i, word) in fill.words().iter().enumerate() {
        ram.write(0x1000 + i as u64 * 8, &word.to_le_bytes());
    }
    device.write(reg::RING_BASE_LO, RING as u32);
    device.write(reg::RING_ENTRIES, 2);
    device.write(reg::FENCE_ADDR_LO, FENCE as u32);
    device.write(reg::RING_ENABLE, 1);
    let start = Instant::now();
    device.write(reg::RING_TAIL, 1);
    let mut accesses = 0;
    while ram.word(FENCE - RAM) != 1 {
        device.write(reg::INJECT_KIND, 0);
        device.read(reg::STATUS);
        accesses += 1;
        assert!(start.elapsed().as_secs() < 60);
        std::thread::yield_now();
    }
    println!("{accesses} accesses in {:?}", start.elapsed());
    assert!(accesses > 20, "only {accesses} during the fill");
}
