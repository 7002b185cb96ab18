// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A driver that writes garbage: the device must neither panic, nor get stuck,
//! nor touch memory it was not given. SIMGPU_SEED repeats a run.

mod common;
use common::*;
use simgpu_device::registers::*;
use std::time::Duration;

const ROUNDS: u32 = 400;
const DEFAULT_SEED: u64 = 0x5347_2026;
/// Guest pages that the device gets read-only, and never.
const READ_ONLY: u64 = 0x180000;
const NEVER: u64 = 0x1c0000;
const GUARD: u8 = 0xa5;

#[test]
fn garbage_driver() {
    let seed = std::env::var("SIMGPU_SEED")
        .map(|s| s.parse().expect("SIMGPU_SEED is a number"))
        .unwrap_or(DEFAULT_SEED);
    println!("garbage driver: SIMGPU_SEED={seed}");
    let mut rng = Rng(seed | 1);

    let mut g = Guest::new();
    // Replace the second region: writable, read-only, and a part of the file
    // that the device never sees.
    let dma = g.device.dma();
    dma.unmap(RAM + RAM_SPLIT, RAM_SIZE - RAM_SPLIT).unwrap();
    dma.map(
        RAM + RAM_SPLIT,
        READ_ONLY - RAM_SPLIT,
        &g.ram.file,
        RAM_SPLIT,
        RW,
    )
    .unwrap();
    let read_only = simgpu_device::dma::Rights {
        read: true,
        write: false,
    };
    dma.map(
        RAM + READ_ONLY,
        NEVER - READ_ONLY,
        &g.ram.file,
        READ_ONLY,
        read_only,
    )
    .unwrap();
    let guard = vec![GUARD; (RAM_SIZE - READ_ONLY) as usize];
    g.ram.write(READ_ONLY, &guard);

    let (mut ran, mut halted) = (0, 0);
    for round in 0..ROUNDS {
        g.reset();
        let sane = rng.below(4) != 0;
        if sane {
            g.start();
        }
        for _ in 0..rng.below(60) {
            match rng.below(10) {
                0..=3 => write_ring(&g, &mut rng),
                4 => g.set(reg::RING_TAIL, rng.below(8) as u32),
                5 if round % 3 == 0 => remap(&g, &mut rng),
                6 if rng.below(8) == 0 => g.device.dma().set_bus_master(rng.below(2) == 0),
                7 => drop(g.get(random_offset(&mut rng))),
                _ if sane && rng.below(8) != 0 => g.set(reg::RING_TAIL, rng.below(8) as u32),
                _ => garbage_register(&g, &mut rng),
            }
        }
        std::thread::sleep(Duration::from_micros(rng.below(300)));
        ran += u32::from(g.get(reg::RING_HEAD) != 0 || g.get(reg::ERROR_COUNT) != 0);
        halted += u32::from(g.get(reg::STATUS) & STATUS_HALTED != 0);
        g.device.dma().set_bus_master(true);
    }
    println!("{ran} rounds ran descriptors, {halted} halted");
    assert!(
        ran > ROUNDS / 4 && halted > ROUNDS / 20,
        "not much of a test"
    );

    // The device still works, end to end, and the guards are whole.
    g.reset();
    assert_eq!(g.ram.read(READ_ONLY, RAM_SIZE - READ_ONLY), guard);
    let data = pattern(8192, seed);
    g.write_vram(VRAM - 8192, &data);
    assert_eq!(g.read_vram(VRAM - 8192, 8192), data);
    let vram = g.device.stop().expect("the engine did not panic");
    assert_eq!(vram.bytes(VRAM - 8192, 8192).unwrap(), data);
}

/// Numbers near the edges of things, and some that are just random.
fn number(rng: &mut Rng) -> u64 {
    let edges = [
        0,
        8,
        64,
        4096,
        VRAM / 2,
        VRAM,
        RAM,
        RING,
        FENCE,
        BUF,
        RAM + RAM_SPLIT,
        RAM + READ_ONLY,
        RAM + NEVER,
        RAM + RAM_SIZE,
        1 << 32,
        1 << 63,
        u64::MAX,
    ];
    match rng.below(8) {
        0 => (rng.next() << 8) ^ rng.next(),
        1 => rng.below(VRAM),
        2 => RAM + rng.below(RAM_SIZE),
        3 => rng.below(VRAM) & !7,
        4 => rng
            .pick(&edges)
            .wrapping_add(rng.below(32))
            .wrapping_sub(16),
        _ => rng.pick(&edges),
    }
}

fn write_ring(g: &Guest, rng: &mut Rng) {
    let mut words = [0; 8];
    match rng.below(8) {
        0 => words.fill_with(|| (rng.next() << 8) ^ rng.next()),
        _ => {
            let limit = if rng.below(8) == 0 { 8 } else { 4 };
            let flags = rng.below(limit);
            words[0] = rng.below(8) | (flags << 32);
            words[1..6].fill_with(|| number(rng));
            if rng.below(2) == 0 {
                words[4] = rng.below(9000);
            }
        }
    }
    let slot = RING - RAM + rng.below(ENTRIES.into()) * 64;
    for (i, word) in words.iter().enumerate() {
        g.ram.write(slot + i as u64 * 8, &word.to_le_bytes());
    }
}

fn random_offset(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rng.next() << 8,
        1 => rng.below(0x1_0000),
        _ => rng.pick(&[0x000, 0x100, 0x200, 0x300]) + rng.below(16) * 4,
    }
}

fn garbage_register(g: &Guest, rng: &mut Rng) {
    let offset = random_offset(rng);
    let value = number(rng) >> (rng.below(2) * 32);
    g.set(offset, value as u32);
}

/// Takes the first region away and puts it back, whole or in two parts.
fn remap(g: &Guest, rng: &mut Rng) {
    let dma = g.device.dma();
    dma.unmap(RAM, RAM_SPLIT).unwrap();
    if rng.below(4) == 0 {
        std::thread::sleep(Duration::from_micros(50));
    }
    let cut = (1 + rng.below(RAM_SPLIT / 4096 - 1)) * 4096;
    dma.map(RAM, cut, &g.ram.file, 0, RW).unwrap();
    dma.map(RAM + cut, RAM_SPLIT - cut, &g.ram.file, cut, RW)
        .unwrap();
}
