// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Jobs on virtual addresses, and the translations behind them.

mod common;
use common::gpu::*;
use common::{pattern, Rng, MIB, RAM, VRAM};
use simgpu_device::registers::*;

const FILL: u32 = 1;
const COPY: u32 = 2;
const ADD_U32: u32 = 3;
const ADD_F32: u32 = 4;
const ATOMIC_ADD: u32 = 5;
const ATOMIC_COUNT: u32 = 6;
const REDUCE: u32 = 7;
const CHECKSUM: u32 = 8;
const STRIDED_READ: u32 = 9;
const CHASE: u32 = 10;
const STORE: u32 = 4;

const OK: u32 = 1;
const BAD_VRAM: u32 = 3;
const BAD_BUS: u32 = 4;
const PEER_GONE: u32 = 7;
const BAD_ADDR: u32 = 8;
const BAD_ASID: u32 = 9;
const BAD_TABLE: u32 = 10;

const ASID: u32 = 5;
/// A stretch of virtual memory that crosses borders of all tables but the root's.
const VA: u64 = (1 << 39) - 16 * PAGE;

/// Maps `pages` pages at `va` to pages of RAM, every other one in reverse.
fn map_ram(gpu: &mut Gpu, va: u64, first: u64, pages: u64) {
    for i in 0..pages {
        let at = if i % 2 == 0 {
            i
        } else {
            pages - 1 - (i - 1) / 2 * 2 - (pages % 2)
        };
        gpu.map(ASID, va + i * PAGE, ALL | (first + at * PAGE));
    }
}

/// Reads virtual memory by a job that copies it to a buffer that is mapped plainly.
fn read(gpu: &mut Gpu, va: u64, len: u64) -> Vec<u8> {
    let (window, buffer) = (1 << 40, DATA_END - 0x4_0000);
    for i in 0..len.div_ceil(PAGE) {
        gpu.map(ASID, window + i * PAGE, RW | (buffer + i * PAGE));
    }
    let job = Job {
        op: COPY,
        src: va,
        dst: window,
        len,
        asid: ASID,
        ..Job::default()
    };
    assert_eq!(gpu.run(4, job).status, OK);
    gpu.g.ram.read(buffer - RAM, len)
}

fn write(gpu: &mut Gpu, va: u64, data: &[u8]) {
    let (window, buffer) = (1 << 40, DATA_END - 0x4_0000);
    for i in 0..(data.len() as u64).div_ceil(PAGE) {
        gpu.map(ASID, window + i * PAGE, RW | (buffer + i * PAGE));
    }
    gpu.g.ram.write(buffer - RAM, data);
    let job = Job {
        op: COPY,
        src: window,
        dst: va,
        len: data.len() as u64,
        asid: ASID,
        ..Job::default()
    };
    assert_eq!(gpu.run(4, job).status, OK);
}

/// Three operands of 32 pages each: RAM, VRAM, and a mix with a page of 2 MiB.
fn three_operands(gpu: &mut Gpu) -> [u64; 3] {
    let (a, b, c) = (VA, VA + 64 * PAGE, (3 << 39) + LARGE - 7 * PAGE);
    map_ram(gpu, a, DATA, 32);
    for i in 0..32 {
        gpu.map(ASID, b + i * PAGE, ALL | IN_VRAM | ((331 - i) * PAGE));
    }
    for i in 0..7 {
        gpu.map(ASID, c + i * PAGE, ALL | (DATA + (40 + i) * PAGE));
    }
    // All of VRAM; b's pages are further behind than c goes.
    gpu.set_entry(ASID, c + 7 * PAGE, ALL | IN_VRAM, true);
    [a, b, c]
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
    bytes.chunks_exact(8).map(word).collect()
}

fn halves(bytes: &[u8]) -> Vec<u32> {
    let half = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
    bytes.chunks_exact(4).map(half).collect()
}

#[test]
fn every_op_computes_what_it_says() {
    let mut gpu = Gpu::new();
    let [a, b, c] = three_operands(&mut gpu);
    let job = Job {
        src: a,
        src2: b,
        dst: c,
        asid: ASID,
        arg: 0x1234_5678_9abc_def1,
        ..Job::default()
    };
    for (skip, len) in [
        (0, 8),
        (4088, 16),
        (8, 40_000),
        (0, 32 * PAGE),
        (4096, 4096),
    ] {
        let (x, y) = (pattern(len, skip + 1), pattern(len, skip + 2));
        write(&mut gpu, a + skip, &x);
        write(&mut gpu, b + skip, &y);
        let job = Job {
            src: a + skip,
            src2: b + skip,
            dst: c + skip,
            len,
            ..job
        };
        let run = |gpu: &mut Gpu, op| {
            let ended = gpu.run(1, Job { op, ..job });
            assert_eq!((ended.status, ended.done, ended.address), (OK, len, 0));
            ended.result
        };
        run(&mut gpu, COPY);
        assert_eq!(read(&mut gpu, c + skip, len), x);
        run(&mut gpu, ADD_U32);
        let want: Vec<u32> = halves(&x)
            .iter()
            .zip(halves(&y))
            .map(|(x, y)| x.wrapping_add(y))
            .collect();
        assert_eq!(halves(&read(&mut gpu, c + skip, len)), want);
        run(&mut gpu, ATOMIC_ADD);
        let sums = words(
            &want
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .collect::<Vec<_>>(),
        );
        let want: Vec<u64> = sums.iter().map(|w| w.wrapping_add(job.arg)).collect();
        assert_eq!(words(&read(&mut gpu, c + skip, len)), want);
        run(&mut gpu, FILL);
        assert_eq!(
            words(&read(&mut gpu, c + skip, len)),
            vec![job.arg; len as usize / 8]
        );
        let sum = words(&x).iter().fold(0u64, |sum, w| sum.wrapping_add(*w));
        assert_eq!(run(&mut gpu, REDUCE), sum);
        let hash = words(&x).iter().fold(0xcbf2_9ce4_8422_2325u64, |h, w| {
            (h ^ w).wrapping_mul(0x100_0000_01b3)
        });
        assert_eq!(run(&mut gpu, CHECKSUM), hash);
    }
    assert_eq!(gpu.counter(0x3088 - 0x3000), 0, "no job failed");
}

#[test]
fn floats_add_like_floats() {
    let mut gpu = Gpu::new();
    let [a, b, c] = three_operands(&mut gpu);
    let mut rng = Rng(11);
    let mut floats = || -> Vec<f32> {
        (0..3000)
            .map(|_| rng.below(1 << 20) as f32 / 64.0 - 8000.0)
            .collect()
    };
    let (x, y) = (floats(), floats());
    let bytes = |f: &[f32]| f.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<_>>();
    write(&mut gpu, a + 4, &bytes(&x));
    write(&mut gpu, b + 8, &bytes(&y));
    let job = Job {
        op: ADD_F32,
        src: a + 4,
        src2: b + 8,
        dst: c + 12,
        len: 12_000,
        asid: ASID,
        ..Job::default()
    };
    assert_eq!(gpu.run(2, job).status, OK);
    let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
    assert_eq!(read(&mut gpu, c + 12, 12_000), bytes(&want));
}

#[test]
fn copies_need_no_alignment() {
    let mut gpu = Gpu::new();
    let [a, b, _] = three_operands(&mut gpu);
    let mut rng = Rng(3);
    for _ in 0..40 {
        let (from, to) = (rng.below(50_000), rng.below(50_000));
        let len = 1 + rng.below(70_000);
        let data = pattern(len, from);
        write(&mut gpu, b, &[0x5a; 130_000]);
        write(&mut gpu, a + from, &data);
        let job = Job {
            op: COPY,
            src: a + from,
            dst: b + to,
            len,
            asid: ASID,
            ..Job::default()
        };
        assert_eq!(gpu.run(1, job).status, OK);
        let mut want = vec![0x5a; 130_000];
        want[to as usize..(to + len) as usize].copy_from_slice(&data);
        assert_eq!(read(&mut gpu, b, 130_000), want);
    }
}

#[test]
fn strides_chases_and_stores() {
    let mut gpu = Gpu::new();
    let [a, b, c] = three_operands(&mut gpu);
    let data = pattern(32 * PAGE, 4);
    write(&mut gpu, a, &data);
    let all = words(&data);
    for (stride, len) in [(8, 100), (4096, 32), (4104, 31), (0, 5), (64, 2000)] {
        let job = Job {
            op: STRIDED_READ,
            flags: STORE,
            src: a + 8,
            dst: b,
            len,
            stride,
            asid: ASID,
            ..Job::default()
        };
        let ended = gpu.run(1, job);
        let want = (0..len).fold(0u64, |s, i| {
            s.wrapping_add(all[(8 + i * stride) as usize / 8])
        });
        assert_eq!((ended.status, ended.done, ended.result), (OK, len, want));
        assert_eq!(words(&read(&mut gpu, b, 8)), [want]);
    }
    // A chain through all three, with an end; then a loop.
    let chain = [a + 8, c + 4096, b + 12_288, a + 16, c];
    for pair in chain.windows(2) {
        write(&mut gpu, pair[0], &pair[1].to_le_bytes());
    }
    write(&mut gpu, c, &[0; 8]);
    let job = Job {
        op: CHASE,
        src: chain[0],
        len: 1000,
        asid: ASID,
        ..Job::default()
    };
    let ended = gpu.run(1, job);
    assert_eq!((ended.status, ended.done, ended.result), (OK, 5, 0));
    write(&mut gpu, c, &chain[0].to_le_bytes());
    let ended = gpu.run(1, Job { len: 50_003, ..job });
    assert_eq!(
        (ended.status, ended.done, ended.result),
        (OK, 50_003, chain[3])
    );
    // Pointers that lead nowhere.
    for bad in [a + 4, 1 << 48, u64::MAX - 7] {
        write(&mut gpu, c, &bad.to_le_bytes());
        let ended = gpu.run(1, job);
        assert_eq!(
            (ended.status, ended.address, ended.done),
            (BAD_ADDR, bad, 5)
        );
    }
}

#[test]
fn queues_run_side_by_side_and_count_exactly() {
    let mut gpu = Gpu::new();
    map_ram(&mut gpu, VA, DATA, 2);
    gpu.g.ram.write(DATA - RAM, &[0; 8192]);
    let job = Job {
        op: ATOMIC_COUNT,
        dst: VA + 64,
        len: 1_000_000,
        arg: 3,
        asid: ASID,
        ..Job::default()
    };
    let index = [1, 2, 3, 4].map(|queue| gpu.submit(queue, job));
    for queue in 1..=4 {
        assert_eq!(gpu.wait(queue, index[queue - 1]).status, OK);
        let bit = gpu.g.get(reg::IRQ_STATUS) & irq_of(QUEUE0 + queue);
        assert_eq!(bit, 1 << (3 + queue));
    }
    assert_eq!(gpu.g.ram.word(DATA - RAM + 64), 4 * 1_000_000 * 3);
    for queue in 0..4 {
        assert_eq!(gpu.counter(0x58 + queue * 8), 8 * 1_000_000);
    }
    assert_eq!(gpu.counter(0x80), 4);
}

#[test]
fn the_tlb_caches_until_it_is_told() {
    let mut gpu = Gpu::new();
    let (old, new) = (DATA, DATA + 8 * PAGE);
    gpu.g.ram.set_word(old - RAM, 1);
    gpu.g.ram.set_word(new - RAM, 2);
    let job = Job {
        op: REDUCE,
        src: VA,
        len: 8,
        asid: ASID,
        ..Job::default()
    };
    gpu.map(ASID, VA, RO | old);
    gpu.map(ASID, VA + PAGE, RO | old);
    assert_eq!(gpu.run(1, job).result, 1);
    gpu.map(ASID, VA, RO | new);
    assert_eq!(
        gpu.run(2, job).result,
        1,
        "without invalidation it is the old page"
    );
    gpu.invalidate(ASID, VA + PAGE, PAGE);
    gpu.invalidate(ASID + 1, 0, 0);
    assert_eq!(gpu.run(1, job).result, 1, "others were invalidated");
    assert_eq!(gpu.counter(0x18), 0);
    gpu.invalidate(ASID, VA + 7, 1);
    assert_eq!(gpu.run(1, job).result, 2);
    assert_eq!((gpu.counter(0x10), gpu.counter(0x18)), (3, 1));
    let (hits, misses) = (gpu.counter(0), gpu.counter(8));
    assert_eq!((hits, misses), (2, 2));
    // All of the space, and all spaces.
    for target in [ASID, u32::MAX] {
        gpu.map(ASID, VA, RO | old);
        let target = if target == u32::MAX {
            EVERY
        } else {
            target.into()
        };
        let index = gpu.start_command(1, target, 0, 0, 0);
        assert_eq!(gpu.wait_command(index), OK);
        assert_eq!(gpu.run(1, job).result, 1);
        gpu.map(ASID, VA, RO | new);
        gpu.invalidate(ASID, 0, 0);
        assert_eq!(gpu.run(1, job).result, 2);
    }
    // A RESET forgets it as well.
    gpu.g.reset();
    gpu.start();
    assert_eq!(gpu.counter(0x10), 0);
    gpu.map(ASID, VA, RO | old);
    assert_eq!(gpu.run(1, job).result, 1);
}

#[test]
fn after_the_acknowledge_nobody_uses_the_page() {
    let mut gpu = Gpu::new();
    let counted = DATA + 5 * PAGE;
    gpu.g.ram.set_word(counted - RAM, 0);
    for round in 1..=20u64 {
        gpu.map(ASID, VA, ALL | counted);
        let job = Job {
            op: ATOMIC_COUNT,
            dst: VA,
            len: 500_000,
            arg: 1,
            asid: ASID,
            ..Job::default()
        };
        let start = (round - 1) * 1_000_000;
        let index = [1, 2].map(|queue| gpu.submit(queue, job));
        common::until("it counts", || gpu.g.ram.word(counted - RAM) > start);
        gpu.map(ASID, VA, 0);
        gpu.invalidate(ASID, VA, PAGE);
        let count = gpu.g.ram.word(counted - RAM);
        std::thread::sleep(std::time::Duration::from_micros(300));
        assert_eq!(gpu.g.ram.word(counted - RAM), count, "it was written later");
        // Both go on elsewhere, none the poorer.
        gpu.map(ASID, VA, ALL | counted);
        while (1..=2).any(|queue| gpu.ended(queue, index[queue - 1]).status == 0) {
            if gpu.poll_fault().is_some() {
                gpu.replay(ASID.into());
            }
        }
        assert_eq!(gpu.g.ram.word(counted - RAM), round * 1_000_000);
    }
}

#[test]
fn bad_tables_are_errors_not_faults() {
    let mut gpu = Gpu::new();
    let job = Job {
        op: COPY,
        src: VA,
        dst: VA + PAGE,
        len: 4096,
        asid: ASID,
        ..Job::default()
    };
    gpu.map(ASID, VA, RO | DATA);
    let outside = 0x1_0000;
    for (entry, status) in [
        (RW | outside, BAD_BUS),
        (RW | (1 << 51), BAD_BUS),
        (RW | IN_VRAM | VRAM, BAD_VRAM),
        (RW | IN_VRAM | 0x000f_ffff_ffff_f000, BAD_VRAM),
        (RW | IN_PEER, PEER_GONE),
        (RW | IN_PEER | (15 << 8), PEER_GONE),
        (RW | (3 << 4), BAD_TABLE),
        (RW | (1 << 6), BAD_TABLE),
        (RW | (1 << 8), BAD_TABLE),
        (RW | (1 << 52), BAD_TABLE),
        (RO | ATOMIC, BAD_TABLE),
        (VALID | WRITE, BAD_TABLE),
    ] {
        gpu.map(ASID, VA + PAGE, entry);
        let ended = gpu.run(1, job);
        assert_eq!(
            (ended.status, ended.access, ended.address, ended.done),
            (status, 1, VA + PAGE, 0),
            "{entry:x}"
        );
        gpu.invalidate(ASID, 0, 0);
    }
    // A large page at the wrong address, or where there is none.
    gpu.set_entry(ASID, VA, ALL | PAGE, true);
    assert_eq!(gpu.run(1, job).status, BAD_TABLE);
    // Tables: outside of memory, with rights, a leaf, one that leads to itself.
    let top = gpu.table(ASID, 4, 0);
    let slot = top - RAM + (VA >> 39) * 8;
    for entry in [
        outside | VALID,
        0x000f_ffff_ffff_f000 | VALID,
        top | VALID | WRITE,
        top | ALL,
    ] {
        gpu.g.ram.set_word(slot, entry);
        assert_eq!(gpu.run(1, job).status, BAD_TABLE, "{entry:x}");
    }
    for at in 0..512 {
        gpu.g.ram.set_word(top - RAM + at * 8, top | VALID);
    }
    assert_eq!(gpu.run(1, job).status, BAD_TABLE, "a table as a page");
    // Roots.
    for (root, status) in [
        (0, BAD_ASID),
        (top, BAD_ASID),
        (top | VALID | 2, BAD_TABLE),
        (VALID, BAD_TABLE),
    ] {
        gpu.set_root(ASID, root);
        let ended = gpu.run(1, job);
        assert_eq!((ended.status, ended.done), (status, 0), "{root:x}");
    }
    assert_eq!(gpu.run(1, Job { asid: 64, ..job }).status, BAD_ASID);
    assert!(gpu.poll_fault().is_none());
    assert_eq!(gpu.g.get(reg::IRQ_STATUS) & IRQ_ERROR, 0);
    assert!(
        gpu.g.get(block(QUEUE0 + 1) + 0x30) > 20,
        "errors are counted"
    );
}

#[test]
fn a_space_that_is_taken_away_fails_its_jobs() {
    let mut gpu = Gpu::new();
    map_ram(&mut gpu, VA, DATA, 1);
    let job = Job {
        op: ATOMIC_COUNT,
        dst: VA,
        len: 1 << 36,
        arg: 1,
        asid: ASID,
        ..Job::default()
    };
    let running = gpu.submit(1, job);
    let stalled = gpu.submit(
        2,
        Job {
            dst: VA + MIB,
            ..job
        },
    );
    gpu.fault();
    gpu.set_root(ASID, 0);
    gpu.invalidate(ASID, 0, 0);
    gpu.replay(ASID.into());
    assert_eq!(gpu.wait(1, running).status, BAD_ASID);
    assert_eq!(gpu.wait(2, stalled).status, BAD_ASID);
}
