// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A driver that writes garbage to page tables, jobs, MMU commands and their
//! registers: the device must neither panic, nor get stuck, nor touch memory it
//! was not given. SIMGPU_SEED repeats a run.

mod common;
use common::gpu::*;
use common::{Rng, MIB, RAM, RAM_SIZE, VRAM};
use simgpu_device::dma::Rights;
use simgpu_device::registers::*;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 300;
const DEFAULT_SEED: u64 = 0x5347_2027;
const ASIDS: u64 = 3;
/// Guest pages that the device gets read-only, and never: the last 128 KiB.
const READ_ONLY: u64 = RAM_SIZE - 0x2_0000;
const NEVER: u64 = RAM_SIZE - 0x1_0000;
const GUARD: u8 = 0xa5;

#[test]
fn garbage_driver() {
    let seed = std::env::var("SIMGPU_SEED")
        .map(|s| s.parse().expect("SIMGPU_SEED is a number"))
        .unwrap_or(DEFAULT_SEED);
    println!("garbage driver: SIMGPU_SEED={seed}");
    let mut rng = Rng(seed | 1);

    let mut gpu = Gpu::new();
    let (dma, file) = (gpu.g.device.dma(), &gpu.g.ram.file);
    dma.unmap(RAM + MIB, MIB).unwrap();
    dma.map(RAM + MIB, READ_ONLY - MIB, file, MIB, common::RW)
        .unwrap();
    let read_only = Rights {
        read: true,
        write: false,
    };
    dma.map(
        RAM + READ_ONLY,
        NEVER - READ_ONLY,
        file,
        READ_ONLY,
        read_only,
    )
    .unwrap();
    let guard = vec![GUARD; (RAM_SIZE - READ_ONLY) as usize];
    gpu.g.ram.write(READ_ONLY, &guard);

    let (mut ok, mut failed, mut faults) = (0, 0, 0);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        gpu.g.reset();
        assert!(start.elapsed() < Duration::from_secs(10), "it was stuck");
        gpu.start();
        for asid in 0..ASIDS as u32 {
            for page in 0..24 {
                let entry = entry(&mut rng);
                gpu.set_entry(asid, page * PAGE, entry, false);
            }
            let large = rng.below(3) == 0;
            let entry = entry(&mut rng);
            gpu.set_entry(asid, 24 * PAGE + LARGE, entry, large);
            if rng.below(4) == 0 {
                spoil_a_table(&mut gpu, asid, &mut rng);
            }
        }
        for _ in 0..rng.below(50) {
            match rng.below(12) {
                0..=4 => {
                    let queue = 1 + rng.below(4) as usize;
                    let job = job(&mut rng);
                    gpu.submit(queue, job);
                }
                5 | 6 => {
                    let target = rng.pick(&[0, 1, 2, 4, 64, EVERY, EVERY - 1]);
                    let (address, len) = (va(&mut rng), va(&mut rng));
                    let token = rng.below(6);
                    gpu.start_command(rng.below(6), target, address, len, token);
                }
                7 => faults += u32::from(gpu.poll_fault().is_some()),
                8 => drop(gpu.g.get(offset(&mut rng))),
                9 => gpu.g.set(offset(&mut rng), va(&mut rng) as u32),
                10 => {
                    let entry = entry(&mut rng);
                    let page = rng.below(24) * PAGE;
                    gpu.set_entry(rng.below(ASIDS) as u32, page, entry, false);
                }
                _ => std::thread::sleep(Duration::from_micros(rng.below(200))),
            }
        }
        ok += gpu.counter(0x80);
        failed += gpu.counter(0x88);
    }
    println!("{ok} jobs ran, {failed} failed, {faults} faults seen");
    assert!(
        ok > 100 && failed > 100 && faults > 20,
        "not much of a test"
    );

    // The device still works, end to end, and the guards are whole.
    gpu.g.reset();
    gpu.start();
    assert_eq!(gpu.g.ram.read(READ_ONLY, RAM_SIZE - READ_ONLY), guard);
    gpu.map(0, 0, RW | DATA);
    let fill = Job {
        op: 1,
        len: 4096,
        arg: seed,
        ..Job::default()
    };
    for queue in 1..=4 {
        gpu.g.ram.set_word(DATA - RAM + 4088, 0);
        assert_eq!(gpu.run(queue, fill).status, 1);
        assert_eq!(gpu.g.ram.word(DATA - RAM + 4088), seed);
    }
    assert!(gpu.g.device.stop().is_some(), "no engine panicked");
}

/// An entry for a page: mostly good, often near the edge of something.
fn entry(rng: &mut Rng) -> u64 {
    // Neither tables nor rings, or the garbage would destroy the test itself.
    let ram = DATA + rng.below((DATA_END - DATA) / PAGE) * PAGE;
    match rng.below(12) {
        0 => 0,
        1 => ((rng.next() << 8) ^ rng.next()) | (1 << 52), // never good
        2 => RO | ram,
        3 => ALL | IN_VRAM | (rng.below(VRAM / PAGE + 2) * PAGE),
        4 => ALL | (RAM + READ_ONLY + rng.below(40) * PAGE), // guarded, and beyond
        5 => ALL | IN_PEER | (rng.below(16) << 8),
        6 => ALL | IN_VRAM,
        _ => ALL | ram,
    }
}

/// Replaces an entry of a table of some level.
fn spoil_a_table(gpu: &mut Gpu, asid: u32, rng: &mut Rng) {
    let root = gpu.table(asid, 4, 0);
    let bad = rng.pick(&[
        0,
        1,
        root | 1,
        RAM + NEVER + 1,
        u64::MAX,
        root | ALL,
        (1 << 51) | 1,
    ]);
    let level = 1 + rng.below(3);
    let table = match level {
        3 => root,
        _ => gpu.table(asid, level, 0),
    };
    gpu.g.ram.set_word(table - RAM, bad);
}

fn va(rng: &mut Rng) -> u64 {
    match rng.below(10) {
        0 => (rng.next() << 8) ^ rng.next(),
        1 => rng.pick(&[
            0,
            1,
            8,
            LARGE,
            1 << 39,
            1 << 47,
            (1 << 48) - 8,
            1 << 48,
            u64::MAX,
        ]),
        2 => LARGE + (rng.below(40 * PAGE) & !7),
        3 if rng.below(3) == 0 => rng.below(24 * PAGE),
        _ => rng.below(24 * PAGE) & !7,
    }
}

fn job(rng: &mut Rng) -> Job {
    let flags = match rng.below(16) {
        0 => rng.below(16) as u32 * 4,
        1..=3 => 4, // STORE
        _ => 0,
    };
    Job {
        op: rng.below(12) as u32,
        flags,
        src: va(rng),
        src2: va(rng),
        dst: va(rng),
        len: match rng.below(8) {
            0 => va(rng),
            1 => rng.below(9),
            _ => (1 + rng.below(600)) * 8,
        },
        arg: rng.next(),
        stride: rng.pick(&[0, 8, 16, 4096, 4104, 7, 1 << 40]),
        asid: match rng.below(16) {
            0 => rng.pick(&[3, 64, u32::MAX]),
            _ => rng.below(ASIDS) as u32,
        },
    }
}

fn offset(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rng.next() << 8,
        1 => rng.below(0x1_0000),
        2 | 3 => reg::FAULTS + rng.below(12) * 4,
        4 => reg::ASID_ROOTS + rng.below(2 * ASIDS) * 4,
        _ => reg::RINGS + rng.below(5) * reg::RING_BLOCK + 4 + rng.below(17) * 4,
    }
}
