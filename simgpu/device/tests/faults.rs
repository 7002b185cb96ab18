// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Faults: what is told of them, how jobs go on afterwards, and what a test can
//! make go wrong.

mod common;
use common::gpu::*;
use common::{eventfd, pattern, signals, until, MIB, RAM};
use simgpu_device::registers::*;
use std::time::{Duration, Instant};

const FILL: u32 = 1;
const COPY: u32 = 2;
const ATOMIC_ADD: u32 = 5;
const REDUCE: u32 = 7;
const STORE: u32 = 4;

const OK: u32 = 1;
const INJECTED: u32 = 6;
const BAD_ASID: u32 = 9;
const CANCELLED: u32 = 11;
const NOT_STALLED: u32 = 12;

const ASID: u32 = 7;
const VA: u64 = 0x7fff_ffff_0000;
const FAULT_STATUS: u64 = reg::FAULTS + 0x18;
const STALLED: u64 = reg::FAULTS + 0x1c;
const FAULT_INJECT: u64 = reg::FAULTS + 0x20;
/// A delay much longer than any test waits, in microseconds.
const LONG_US: u32 = 60_000_000;

/// With page tables for ASID, in which nothing is.
fn new_gpu() -> Gpu {
    let mut gpu = Gpu::new();
    gpu.table(ASID, 4, 0);
    gpu
}

fn fill(va: u64, len: u64) -> Job {
    Job {
        op: FILL,
        dst: va,
        len,
        arg: 0x1111,
        asid: ASID,
        ..Job::default()
    }
}

#[test]
fn a_job_may_fault_at_every_page_and_does_nothing_twice() {
    let mut gpu = new_gpu();
    let pages = 12;
    let data = pattern(pages * PAGE, 1);
    gpu.g.ram.write(DATA - RAM, &data);
    let job = Job {
        op: ATOMIC_ADD,
        dst: VA + 8,
        len: pages * PAGE - 8,
        arg: 5,
        asid: ASID,
        ..Job::default()
    };
    let index = gpu.submit(1, job);
    for i in 0..pages {
        let f = gpu.fault();
        let address = if i == 0 { VA + 8 } else { VA + i * PAGE };
        let len = VA + pages * PAGE - address;
        let (asid, queue, access, kind) = (ASID, 1, 2, 0);
        let token = 1 + i as u32;
        assert_eq!(
            f,
            Fault {
                address,
                len,
                asid,
                queue,
                access,
                kind,
                token
            }
        );
        assert_eq!(gpu.g.get(STALLED), 1 << 1);
        assert_eq!(gpu.status(QUEUE0 + 1), STATUS_RUNNING | STATUS_STALLED);
        assert_eq!(gpu.ended(1, index).status, 0);
        gpu.map(ASID, VA + i * PAGE, ALL | (DATA + i * PAGE));
        // Now and then for everybody, or once too often.
        gpu.replay(if i % 3 == 0 { EVERY } else { ASID.into() });
        gpu.replay(u64::from(ASID) + 1);
    }
    let ended = gpu.wait(1, index);
    assert_eq!((ended.status, ended.done), (OK, job.len));
    assert_eq!(
        (gpu.g.get(STALLED), gpu.status(QUEUE0 + 1)),
        (0, STATUS_RUNNING)
    );
    let got = gpu.g.ram.read(DATA - RAM, pages * PAGE);
    for (i, (new, old)) in got.chunks(8).zip(data.chunks(8)).enumerate() {
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
        let plus = if i == 0 { 0 } else { 5 };
        assert_eq!(word(new), word(old).wrapping_add(plus), "word {i}");
    }
    assert_eq!((gpu.counter(0x20), gpu.counter(0x40)), (pages, pages));
    assert!(gpu.poll_fault().is_none());
}

#[test]
fn replaying_in_vain_faults_again() {
    let mut gpu = new_gpu();
    let index = gpu.submit(2, fill(VA, 8));
    let first = gpu.fault();
    gpu.replay(EVERY);
    let second = gpu.fault();
    assert_eq!(Fault { token: 2, ..first }, second);
    gpu.map(ASID, VA, RW | DATA);
    gpu.replay(EVERY);
    assert_eq!(gpu.wait(2, index).status, OK);
    assert_eq!(gpu.g.ram.word(DATA - RAM), 0x1111);
}

#[test]
fn rights_fault_too_and_giving_them_needs_no_invalidation() {
    let mut gpu = new_gpu();
    gpu.map(ASID, VA, RO | DATA);
    let reduce = Job {
        op: REDUCE,
        src: VA,
        ..fill(0, 8)
    };
    assert_eq!(gpu.run(1, reduce).status, OK, "now it is cached");
    let index = gpu.submit(1, fill(VA, 16));
    let f = gpu.fault();
    assert_eq!((f.address, f.len, f.access, f.kind), (VA, 16, 1, 1));
    gpu.map(ASID, VA, RW | DATA);
    gpu.replay(ASID.into());
    assert_eq!(gpu.wait(1, index).status, OK);
    let add = Job {
        op: ATOMIC_ADD,
        ..fill(VA + 8, 8)
    };
    let index = gpu.submit(3, add);
    let f = gpu.fault();
    assert_eq!((f.address, f.queue, f.access, f.kind), (VA + 8, 3, 2, 2));
    gpu.map(ASID, VA, ALL | DATA);
    gpu.replay(ASID.into());
    assert_eq!(gpu.wait(3, index).status, OK);
    assert_eq!(gpu.g.ram.word(DATA - RAM + 8), 0x2222);
    assert_eq!([0x20, 0x28, 0x30].map(|at| gpu.counter(at)), [0, 1, 1]);
}

#[test]
fn both_operands_and_the_result_may_fault() {
    let mut gpu = new_gpu();
    let (src, dst) = (VA + 100, VA + MIB + 4000);
    let data = pattern(5000, 3);
    gpu.g.ram.write(DATA - RAM + 100, &data);
    let copy = Job {
        op: COPY,
        src,
        dst,
        ..fill(dst, 5000)
    };
    let index = gpu.submit(1, copy);
    let mut faults = Vec::new();
    while gpu.ended(1, index).status == 0 {
        let Some(f) = gpu.poll_fault() else {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        };
        faults.push((f.address, f.access));
        let page = f.address & !(PAGE - 1);
        let at = if page < VA + MIB {
            page - VA
        } else {
            page - VA - MIB + 16 * PAGE
        };
        gpu.map(ASID, page, RW | (DATA + at));
        gpu.replay(ASID.into());
    }
    let third = (dst + 96 + PAGE, 1);
    let want = [(src, 0), (dst, 1), (dst + 96, 1), (VA + PAGE, 0), third];
    assert_eq!(faults, want);
    assert_eq!(gpu.g.ram.read(DATA - RAM + 16 * PAGE + 4000, 5000), data);
    // STORE: the sum is not computed twice.
    let store = Job {
        op: REDUCE,
        flags: STORE,
        src: VA,
        dst: VA + 2 * MIB,
        ..fill(0, 4096)
    };
    let index = gpu.submit(1, store);
    assert_eq!(gpu.fault().address, VA + 2 * MIB);
    gpu.map(ASID, VA + 2 * MIB, RW | (DATA + 32 * PAGE));
    gpu.replay(ASID.into());
    let ended = gpu.wait(1, index);
    assert_eq!(gpu.g.ram.word(DATA - RAM + 32 * PAGE), ended.result);
    let words = gpu.g.ram.read(DATA - RAM, PAGE);
    let sum = words.chunks(8).fold(0u64, |s, w| {
        s.wrapping_add(u64::from_le_bytes(w.try_into().unwrap()))
    });
    assert_eq!(ended.result, sum);
}

#[test]
fn cancelled_jobs_say_where_and_the_next_one_runs() {
    let mut gpu = new_gpu();
    gpu.map(ASID, VA, RW | DATA);
    let index = gpu.submit(1, fill(VA, 2 * PAGE));
    let next = gpu.submit(1, fill(VA, 8));
    let f = gpu.fault();
    assert_eq!(f.address, VA + PAGE);
    assert_eq!(gpu.cancel(1, u64::from(f.token) + 1), NOT_STALLED);
    assert_eq!(gpu.cancel(2, f.token.into()), NOT_STALLED);
    assert_eq!(gpu.cancel(5, 0), BAD_ASID);
    assert_eq!(gpu.g.get(STALLED), 1 << 1);
    assert_eq!(gpu.cancel(1, f.token.into()), OK);
    assert_eq!(gpu.wait(1, next).status, OK);
    let ended = gpu.ended(1, index);
    assert_eq!(
        (ended.status, ended.access, ended.address, ended.done),
        (CANCELLED, 1, VA + PAGE, PAGE)
    );
    assert_eq!(gpu.cancel(1, 0), NOT_STALLED);
    // By token 0, and by address space.
    let index = gpu.submit(1, fill(VA + PAGE, 8));
    gpu.fault();
    assert_eq!(gpu.cancel(1, 0), OK);
    assert_eq!(gpu.wait(1, index).status, CANCELLED);
    gpu.table(ASID + 1, 4, 0);
    let here = gpu.submit(1, fill(VA + PAGE, 8));
    let there = gpu.submit(
        2,
        Job {
            asid: ASID + 1,
            ..fill(VA, 8)
        },
    );
    until("both stall", || gpu.g.get(STALLED) == 6);
    gpu.cancel_asid(ASID.into());
    assert_eq!(gpu.wait(1, here).status, CANCELLED);
    assert_eq!(gpu.g.get(STALLED), 4);
    gpu.cancel_asid(EVERY);
    assert_eq!(gpu.wait(2, there).status, CANCELLED);
    assert_eq!(gpu.counter(0x48), 4);
}

#[test]
fn a_stalled_queue_holds_nobody_up() {
    let mut gpu = new_gpu();
    gpu.map(ASID, VA, RW | DATA);
    let stalled = gpu.submit(1, fill(VA + PAGE, 8));
    gpu.fault();
    for queue in [2, 3, 4] {
        assert_eq!(gpu.run(queue, fill(VA, 8)).status, OK);
    }
    // Nor invalidations, mappings, or other registers.
    gpu.invalidate(ASID, 0, 0);
    gpu.g.device.dma().unmap(RAM + MIB, MIB).unwrap();
    gpu.g
        .device
        .dma()
        .map(RAM + MIB, MIB, &gpu.g.ram.file, MIB, common::RW)
        .unwrap();
    assert_eq!(gpu.ended(1, stalled).status, 0);
    gpu.map(ASID, VA + PAGE, RW | DATA);
    gpu.replay(EVERY);
    assert_eq!(gpu.wait(1, stalled).status, OK);
}

#[test]
fn a_buffer_that_is_full_loses_nothing() {
    let mut gpu = new_gpu();
    gpu.start_faults(2); // room for one
    let index = [1, 2, 3, 4].map(|queue| gpu.submit(queue, fill(VA + queue as u64 * PAGE, 8)));
    until("all stall", || gpu.g.get(STALLED) == 0x1e);
    until("it overflows", || {
        gpu.g.get(FAULT_STATUS) == 1 && gpu.counter(0x38) == 3
    });
    gpu.g.set(FAULT_STATUS, 1);
    assert_eq!(gpu.g.get(FAULT_STATUS), 0);
    let mut seen = 0;
    for _ in 0..4 {
        let f = gpu.fault();
        seen |= 1 << f.queue;
        gpu.map(ASID, f.address, RW | DATA);
    }
    assert_eq!(seen, 0x1e);
    gpu.replay(EVERY);
    for queue in 1..=4 {
        assert_eq!(gpu.wait(queue, index[queue - 1]).status, OK);
    }
}

#[test]
fn a_buffer_that_is_no_memory_is_told_and_can_be_replaced() {
    let mut gpu = new_gpu();
    let at = reg::FAULTS;
    gpu.g.set(at + 0x14, 0);
    gpu.g.set(at, 0x1000); // nothing there
    gpu.g.set(at + 0x14, 1);
    let index = gpu.submit(1, fill(VA, 8));
    until("it is told", || gpu.g.get(FAULT_STATUS) & 2 != 0);
    until("the bit", || gpu.g.get(reg::IRQ_STATUS) & IRQ_FAULT != 0);
    assert_eq!(gpu.g.get(at + 0x14), 0);
    gpu.start_faults(4);
    assert_eq!(gpu.fault().address, VA);
    gpu.map(ASID, VA, RW | DATA);
    gpu.replay(EVERY);
    assert_eq!(gpu.wait(1, index).status, OK);
}

#[test]
fn every_vector_comes() {
    let mut gpu = new_gpu();
    let fds: Vec<_> = (0..8).map(|_| eventfd()).collect();
    let clones = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    gpu.g.device.irqs().assign(0, 8, clones).unwrap();
    gpu.map(ASID, VA, RW | DATA);
    for queue in 1..=4 {
        gpu.run(queue, fill(VA, 8));
        until("the queue's vector", || signals(&fds[3 + queue]) == 1);
    }
    gpu.submit(1, fill(VA + PAGE, 8));
    until("the fault vector", || signals(&fds[2]) == 1);
    gpu.fault();
    gpu.cancel(1, 0);
    until("the MMU's vector", || signals(&fds[3]) == 1);
    gpu.cancel(1, 0);
    until("an error", || signals(&fds[1]) == 1);
    assert_eq!(gpu.g.get(reg::IRQ_STATUS), 0xfe);
    gpu.g.set(reg::IRQ_STATUS, 0xff);
    assert_eq!(gpu.g.get(reg::IRQ_STATUS), 0);
}

#[test]
fn reset_drops_jobs_stalled_and_running() {
    let mut gpu = new_gpu();
    gpu.map(ASID, VA, ALL | DATA);
    let endless = Job {
        op: 6,
        len: 1 << 36,
        ..fill(VA, 8)
    };
    for whole in [true, false, true] {
        let stalled = gpu.submit(1, fill(VA + PAGE, 8));
        let running = gpu.submit(2, endless);
        gpu.fault();
        until("it runs", || gpu.counter(0x60) > 0);
        let start = Instant::now();
        if whole {
            gpu.g.reset();
        } else {
            for queue in [1, 2] {
                gpu.g.set(block(QUEUE0 + queue) + CONTROL, 1);
                until("it is reset", || {
                    gpu.g.get(block(QUEUE0 + queue) + CONTROL) == 0
                });
            }
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(
            (gpu.ended(1, stalled).status, gpu.ended(2, running).status),
            (0, 0)
        );
        assert_eq!(gpu.g.get(STALLED), 0);
        assert_eq!([1, 2].map(|q| gpu.status(QUEUE0 + q)), [0, 0]);
        if whole {
            gpu.start();
            gpu.map(ASID, VA, ALL | DATA);
        } else {
            // The others were left alone.
            assert_eq!(gpu.run(3, fill(VA, 8)).status, OK);
            gpu.start_ring(QUEUE0 + 1);
            gpu.start_ring(QUEUE0 + 2);
        }
        assert_eq!(gpu.run(1, fill(VA, 8)).status, OK);
        assert_eq!(gpu.run(2, fill(VA, 8)).status, OK);
    }
    // And so does power-off.
    gpu.submit(1, fill(VA + PAGE, 8));
    gpu.submit(2, endless);
    gpu.fault();
    assert!(gpu.g.device.stop().is_some());
}

#[test]
fn queues_fail_hang_and_are_late_when_asked_to() {
    let mut gpu = new_gpu();
    gpu.map(ASID, VA, RW | DATA);
    let knobs = block(QUEUE0 + 2) + KIND;
    gpu.inject(knobs, INJECT_FAIL, 1, 0);
    assert_eq!(gpu.run(1, fill(VA, 8)).status, OK, "another queue");
    assert_eq!(gpu.run(2, fill(VA, 8)).status, INJECTED);
    assert_eq!(gpu.run(2, fill(VA, 8)).status, OK);
    let start = Instant::now();
    gpu.inject(knobs, INJECT_DELAY, 1, 50_000);
    assert_eq!(gpu.run(2, fill(VA, 8)).status, OK);
    assert!(start.elapsed() >= Duration::from_millis(50));
    gpu.inject(knobs, INJECT_HANG, 1, 0);
    let index = gpu.submit(2, fill(VA, 8));
    until("it hangs", || gpu.status(QUEUE0 + 2) & STATUS_HUNG != 0);
    assert_eq!(gpu.run(3, fill(VA, 8)).status, OK);
    assert_eq!(gpu.ended(2, index).status, 0);
    gpu.g.set(block(QUEUE0 + 2) + CONTROL, 1);
    assert_eq!(gpu.g.get(block(QUEUE0 + 2) + CONTROL), 0, "at once");
    gpu.start_ring(QUEUE0 + 2);
    assert_eq!(gpu.run(2, fill(VA, 8)).status, OK);
    // A RESET does not wait for a delay.
    gpu.inject(knobs, INJECT_DELAY, 1, LONG_US);
    gpu.submit(2, fill(VA, 8));
    until("it is used up", || gpu.g.get(knobs + 4) == 0);
    gpu.g.reset();
}

#[test]
fn acknowledges_fail_hang_and_are_late_when_asked_to() {
    let mut gpu = new_gpu();
    gpu.map(ASID, VA, RW | DATA);
    assert_eq!(gpu.run(1, fill(VA, 8)).status, OK);
    let knobs = block(MMU) + KIND;
    gpu.inject(knobs, INJECT_FAIL, 1, 0);
    let index = gpu.start_command(1, ASID.into(), 0, 0, 0);
    assert_eq!(gpu.wait_command(index), INJECTED);
    assert_eq!(
        (gpu.counter(0x10), gpu.counter(0x18)),
        (0, 0),
        "nothing was dropped"
    );
    assert_eq!(gpu.g.get(reg::IRQ_STATUS) & IRQ_ERROR, IRQ_ERROR);
    gpu.inject(knobs, INJECT_DELAY, 1, 50_000);
    let start = Instant::now();
    gpu.invalidate(ASID, 0, 0);
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!((gpu.counter(0x10), gpu.counter(0x18)), (1, 1));
    gpu.inject(knobs, INJECT_HANG, 1, 0);
    let fence = gpu.fence(MMU);
    gpu.start_command(1, ASID.into(), 0, 0, 0);
    until("it hangs", || gpu.status(MMU) & STATUS_HUNG != 0);
    assert_eq!(gpu.fence(MMU), fence);
    gpu.g.set(block(MMU) + CONTROL, 1);
    gpu.start_ring(MMU);
    gpu.invalidate(ASID, 0, 0);
}

#[test]
fn fault_reports_get_lost_and_are_late_when_asked_to() {
    let mut gpu = new_gpu();
    gpu.map(ASID, VA, RW | DATA);
    gpu.inject(FAULT_INJECT, INJECT_FAIL, 1, 0);
    let index = gpu.submit(1, fill(VA + PAGE, 8));
    until("it stalls", || {
        gpu.g.get(STALLED) == 2 && gpu.g.get(FAULT_INJECT + 4) == 0
    });
    std::thread::sleep(Duration::from_millis(5));
    assert!(gpu.poll_fault().is_none(), "the report is lost");
    gpu.replay(EVERY);
    let f = gpu.fault();
    assert_eq!((f.address, f.token), (VA + PAGE, 2));
    gpu.inject(FAULT_INJECT, INJECT_DELAY, 1, 50_000);
    let start = Instant::now();
    gpu.replay(EVERY);
    gpu.fault();
    assert!(start.elapsed() >= Duration::from_millis(50));
    gpu.inject(FAULT_INJECT, INJECT_HANG, 1, 0);
    gpu.replay(EVERY);
    until("it is used up", || gpu.g.get(FAULT_INJECT + 4) == 0);
    gpu.replay(EVERY);
    std::thread::sleep(Duration::from_millis(5));
    assert!(gpu.poll_fault().is_none(), "no more reports");
    gpu.map(ASID, VA + PAGE, RW | DATA);
    gpu.replay(EVERY);
    assert_eq!(gpu.wait(1, index).status, OK);
}
