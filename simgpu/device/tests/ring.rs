// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The engine and its ring: order, errors, stops, RESET, injection.

mod common;
use common::*;
use simgpu_device::registers::*;
use std::time::{Duration, Instant};

const NOP: Desc = Desc {
    op: 0,
    flags: 0,
    seq: 0,
    src: 0,
    dst: 0,
    len: 0,
    arg: 0,
    reserved: 0,
    status: 0,
};
const BAD: Desc = Desc { op: 99, ..NOP };
/// A delay much longer than any test waits, in microseconds.
const LONG_US: u32 = 60_000_000;

fn run_until_empty(g: &Guest) {
    until("the ring is empty", || {
        g.get(reg::RING_HEAD) == g.get(reg::RING_TAIL)
    });
}

#[test]
fn the_ring_wraps_and_keeps_order() {
    let mut g = Guest::started();
    // XOR and FILL do not commute: a wrong order gives a wrong word.
    let mut want = 0u64;
    for i in 0..200u64 {
        let batch: Vec<Desc> = (0..1 + i % 7)
            .map(|j| {
                let arg = i * 1000 + j;
                let fill = (i + j) % 5 == 0;
                want = if fill { arg } else { want ^ arg };
                Desc::new(if fill { 4 } else { 5 }, 0, 64, 8).arg(arg)
            })
            .collect();
        let first = g.submit(&batch);
        run_until_empty(&g);
        for j in 0..batch.len() as u32 {
            assert_eq!(g.status((first + j) % ENTRIES), 1);
        }
    }
    assert_eq!(g.read_vram(64, 8), want.to_le_bytes());
}

#[test]
fn the_fence_comes_after_everything_else() {
    let mut g = Guest::started();
    for seq in 1..=300u64 {
        let data = pattern(4096, seq);
        g.ram.write(BUF - RAM, &data);
        let fail = Desc { seq, ..BAD };
        let first = g.submit(&[
            Desc::new(1, BUF, 0, 4096),
            if seq % 3 == 0 { fail } else { NOP },
            Desc::new(2, 0, BUF + 0x2000, 4096).fence(seq).irq(),
        ]);
        if seq % 2 == 0 {
            while g.fence() != seq {
                std::hint::spin_loop();
            }
        } else {
            until("the interrupt", || signals(&g.fence_irq) > 0);
            assert_eq!(g.fence(), seq, "the interrupt came first");
            assert_eq!(g.get(reg::FENCE_SEQ_LO), seq as u32);
        }
        assert_eq!(g.get(reg::RING_HEAD), g.get(reg::RING_TAIL));
        assert_eq!(g.fence_errors(), seq / 3);
        assert_eq!(g.ram.read(BUF - RAM + 0x2000, 4096), data);
        assert_eq!(g.status((first + 2) % ENTRIES), 1);
        until("the bit", || g.get(reg::IRQ_STATUS) & IRQ_FENCE != 0);
        g.set(reg::IRQ_STATUS, IRQ_FENCE);
        signals(&g.fence_irq);
    }
}

#[test]
fn fences_have_64_bits_and_the_rest_of_the_block_is_the_guests() {
    let mut g = Guest::started();
    g.ram.write(FENCE - RAM, &[0xee; 64]);
    let seq = 0xfedc_ba98_7654_3210;
    g.submit(&[BAD.fence(seq)]);
    g.wait_fence(seq);
    g.idle();
    assert_eq!(g.get(reg::FENCE_SEQ_LO), 0x7654_3210);
    assert_eq!(g.get(reg::FENCE_SEQ_HI), 0xfedc_ba98);
    assert_eq!(g.fence_errors(), 1);
    assert_eq!(g.ram.read(FENCE - RAM + 16, 48), [0xee; 48]);
    // Without the flag nothing is written, and the sequence may go down.
    g.start();
    g.submit(&[Desc { seq: 9, ..NOP }]);
    g.idle();
    assert_eq!(g.fence(), seq);
    g.start();
    g.submit(&[NOP.fence(3)]);
    g.idle();
    assert_eq!(g.fence(), 3);
}

#[test]
fn the_descriptor_gets_a_status_and_nothing_else() {
    let mut g = Guest::started();
    for (desc, status) in [(NOP.fence(1), 1u64), (BAD.fence(2), 2)] {
        let at = g.submit(&[desc]);
        run_until_empty(&g);
        let slot = RING - RAM + u64::from(at) * 64;
        let words: Vec<u64> = (0..8).map(|i| g.ram.word(slot + i * 8)).collect();
        let mut want = desc.words();
        want[7] = status;
        assert_eq!(words, want);
    }
    let after = RING - RAM + 2 * 64;
    assert_eq!(g.ram.read(after, 64), [0; 64]);
}

#[test]
fn errors_are_told_and_do_not_stop_the_ring() {
    let mut g = Guest::started();
    g.submit(&[NOP, BAD, Desc::new(4, 0, 0, 0), NOP.fence(5)]);
    g.wait_fence(5);
    assert_eq!(g.get(reg::ERROR_CODE), 5);
    assert_eq!(g.get(reg::ERROR_INDEX), 2);
    assert_eq!(g.get(reg::ERROR_COUNT), 2);
    assert_eq!(g.fence_errors(), 2);
    assert_eq!([0, 1, 2, 3].map(|i| g.status(i)), [1, 2, 5, 1]);
    assert_eq!(g.get(reg::IRQ_STATUS), IRQ_ERROR);
    assert_eq!(signals(&g.error_irq), 1, "the second was pending");
    assert_eq!(signals(&g.fence_irq), 0);
    g.set(reg::IRQ_STATUS, IRQ_ERROR);
    assert_eq!(g.get(reg::ERROR_CODE), 0);
    g.submit(&[BAD]);
    until("the interrupt", || signals(&g.error_irq) == 1);
    assert_eq!(g.get(reg::ERROR_CODE), 2);
    assert_eq!(g.get(reg::STATUS), STATUS_RUNNING);
}

#[test]
fn clearing_an_interrupt_can_be_late() {
    let g = Guest::started();
    let took = |offset| {
        let begun = Instant::now();
        g.set(offset, 0);
        begun.elapsed()
    };
    g.set(reg::INJECT_IRQ_DELAY_US, 100_000);
    assert_eq!(g.get(reg::INJECT_IRQ_DELAY_US), 100_000);
    assert!(took(reg::IRQ_STATUS) >= Duration::from_millis(100));
    g.set(reg::CONTROL, CONTROL_RESET);
    until("the reset", || g.get(reg::CONTROL) == 0);
    assert_eq!(g.get(reg::INJECT_IRQ_DELAY_US), 0);
}

#[test]
fn irq_works_with_and_without_fence_and_only_if_enabled() {
    let mut g = Guest::started();
    g.submit(&[NOP.irq()]);
    until("the interrupt", || signals(&g.fence_irq) == 1);
    assert_eq!(g.get(reg::FENCE_SEQ_LO), 0);
    g.set(reg::IRQ_STATUS, IRQ_FENCE);
    g.submit(&[NOP.fence(1)]);
    g.wait_fence(1);
    g.set(reg::IRQ_ENABLE, 0);
    g.submit(&[BAD.irq().fence(2)]);
    g.wait_fence(2);
    until("both bits", || g.get(reg::IRQ_STATUS) == 3);
    assert_eq!((signals(&g.fence_irq), signals(&g.error_irq)), (0, 0));
    g.set(reg::IRQ_ENABLE, 3);
    assert_eq!((signals(&g.fence_irq), signals(&g.error_irq)), (1, 1));
}

#[test]
fn unreachable_rings_halt() {
    let end = RAM + RAM_SIZE;
    for (base, entries, fence) in [
        (0, 8, FENCE),
        (end, 8, FENCE),
        (end - 7 * 64, 8, FENCE),
        (RAM - 64, 2, FENCE),
        (u64::MAX - 63, 2, FENCE),
        (RAM, 65536, FENCE), // 4 MiB
        (RING, 8, 0),
        (RING, 8, end),
        (RING, 8, u64::MAX - 63),
    ] {
        let g = Guest::new();
        let before = g.ram.read(0, RAM_SIZE);
        g.set_ring(base, entries, fence);
        g.set(reg::IRQ_ENABLE, 3);
        g.set(reg::RING_ENABLE, 1); // no doorbell needed
        until("it halts", || g.get(reg::STATUS) == STATUS_HALTED);
        assert_eq!(signals(&g.error_irq), 1, "{base:x}");
        assert_eq!(g.get(reg::RING_ENABLE), 0);
        assert_eq!(g.get(reg::ERROR_COUNT), 0);
        assert_eq!(g.ram.read(0, RAM_SIZE), before);
    }
    // One that just fits.
    let g = Guest::new();
    g.set_ring(end - 2 * 64, 2, end - 192);
    g.set(reg::RING_ENABLE, 1);
    g.set(reg::RING_TAIL, 1);
    until("it runs", || g.get(reg::RING_HEAD) == 1);
    assert_eq!(g.get(reg::STATUS), STATUS_RUNNING);
}

#[test]
fn a_ring_that_goes_away_halts() {
    for block in [RING, FENCE] {
        let mut g = Guest::started();
        g.submit(&[NOP]);
        run_until_empty(&g);
        let dma = g.device.dma();
        dma.unmap(RAM, RAM_SPLIT).unwrap();
        // Everything is back but the page of one block.
        let page = (block - RAM) & !0xfff;
        dma.map(RAM, page, &g.ram.file, 0, RW).unwrap();
        let rest = page + 0x1000;
        dma.map(RAM + rest, RAM_SPLIT - rest, &g.ram.file, rest, RW)
            .unwrap();
        g.submit(&[Desc::new(1, BUF, 0, 64)]);
        until("it halts", || g.get(reg::STATUS) == STATUS_HALTED);
        assert_eq!(g.status(1), 0, "the descriptor did not run");
        assert_eq!(g.get(reg::RING_HEAD), 1);
    }
}

#[test]
fn a_bad_tail_halts_and_reset_revives() {
    let mut g = Guest::started();
    g.set(reg::RING_TAIL, ENTRIES);
    assert_eq!(g.get(reg::STATUS) & STATUS_HALTED, STATUS_HALTED);
    until("it stops", || g.get(reg::STATUS) == STATUS_HALTED);
    assert_eq!(signals(&g.error_irq), 1);
    g.reset();
    assert_eq!(g.get(reg::STATUS), 0);
    g.start();
    g.submit(&[NOP.fence(1)]);
    g.wait_fence(1);
}

#[test]
fn reset_keeps_vram_and_forgets_the_rest() {
    let mut g = Guest::new();
    let data = pattern(1000, 5);
    g.write_vram(777, &data);
    g.start();
    g.submit(&[BAD.fence(7).irq()]);
    g.wait_fence(7);
    g.reset();
    let fresh = Guest::new();
    for offset in (0..0x400).step_by(4) {
        assert_eq!(g.get(offset), fresh.get(offset), "{offset:x}");
    }
    assert_eq!(g.read_vram(777, 1000), data);
    g.start();
    g.submit(&[BAD.fence(8)]);
    g.wait_fence(8);
    assert_eq!(g.fence_errors(), 1, "counted since RESET");
}

#[test]
fn reset_during_copies() {
    let mut g = Guest::started();
    let data = pattern(MIB, 9);
    g.ram.write(RAM_SPLIT, &data);
    for round in 0..50u32 {
        let copies = [Desc::new(1, RAM + RAM_SPLIT, 4096, MIB); 6];
        let first = g.submit(&copies);
        std::thread::sleep(Duration::from_micros(u64::from(round) * 10));
        if round % 2 == 0 {
            g.reset();
        } else {
            g.device.reset(); // returns when it is done
            assert_eq!(g.get(reg::CONTROL), 0);
        }
        assert_eq!(g.get(reg::STATUS), 0);
        // Each ran in full or not at all, and nothing runs any more.
        let status: Vec<u32> = (0..6).map(|i| g.status((first + i) % ENTRIES)).collect();
        std::thread::sleep(Duration::from_micros(200));
        let later: Vec<u32> = (0..6).map(|i| g.status((first + i) % ENTRIES)).collect();
        assert_eq!(status, later);
        assert!(status.is_sorted_by(|a, b| a >= b), "in order: {status:?}");
        g.start();
    }
    assert_eq!(g.run(Desc::new(1, RAM + RAM_SPLIT, 4096, MIB)), 1);
    g.ram.write(RAM_SPLIT, &vec![0; MIB as usize]);
    assert_eq!(g.run(Desc::new(2, 4096, RAM + RAM_SPLIT, MIB)), 1);
    assert_eq!(g.ram.read(RAM_SPLIT, MIB), data);
}

#[test]
fn stop_and_restart() {
    let mut g = Guest::started();
    g.submit(&[NOP.fence(1), NOP.fence(2)]);
    g.wait_fence(2);
    g.idle();
    g.set(reg::RING_TAIL, 5); // stopped: nothing
    assert_eq!(g.get(reg::RING_HEAD), 2);
    g.start();
    assert_eq!(g.get(reg::RING_HEAD), 0);
    assert_eq!(g.submit(&[NOP.fence(3)]), 0);
    g.wait_fence(3);
}

#[test]
fn injected_failures() {
    let mut g = Guest::new();
    g.write_vram(0, &[0x33; 8]);
    g.reset();
    g.start();
    g.set(reg::INJECT_KIND, INJECT_FAIL);
    g.set(reg::INJECT_COUNT, 2);
    let fill = Desc::new(4, 0, 0, 8).arg(u64::MAX);
    g.submit(&[fill, fill.fence(1).irq()]);
    g.wait_fence(1);
    until("the interrupt", || signals(&g.fence_irq) == 1);
    assert_eq!([g.status(0), g.status(1)], [6, 6]);
    assert_eq!(g.get(reg::ERROR_CODE), 6);
    assert_eq!(g.fence_errors(), 2);
    assert_eq!(g.get(reg::INJECT_COUNT), 0);
    g.submit(&[Desc::new(2, 0, BUF, 8).fence(2)]);
    g.wait_fence(2);
    assert_eq!(g.status(2), 1);
    assert_eq!(g.ram.read(BUF - RAM, 8), [0x33; 8], "was not filled");
}

#[test]
fn an_injected_hang_is_ended_by_reset() {
    let mut g = Guest::started();
    g.set(reg::INJECT_KIND, INJECT_HANG);
    g.set(reg::INJECT_COUNT, 1);
    g.submit(&[NOP.fence(1), NOP.fence(2)]);
    until("it hangs", || g.get(reg::STATUS) & STATUS_HUNG != 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((g.fence(), g.status(0), g.get(reg::RING_HEAD)), (0, 0, 0));
    assert_eq!(signals(&g.error_irq), 0);
    g.set(reg::CONTROL, CONTROL_RESET);
    assert_eq!(g.get(reg::CONTROL), 0, "at once");
    g.start();
    g.submit(&[NOP.fence(3)]);
    g.wait_fence(3);
}

#[test]
fn an_injected_delay_delays_and_holds_nothing_up() {
    let mut g = Guest::started();
    g.set(reg::INJECT_KIND, INJECT_DELAY);
    g.set(reg::INJECT_COUNT, 1);
    g.set(reg::INJECT_DELAY_US, 100_000);
    let start = Instant::now();
    g.submit(&[NOP.fence(1)]);
    until("it is used up", || g.get(reg::INJECT_COUNT) == 0);
    // Neither registers nor mappings wait for it.
    g.device.dma().unmap(RAM + RAM_SPLIT, MIB).unwrap();
    assert!(start.elapsed() < Duration::from_millis(90));
    assert_eq!(g.fence(), 0);
    g.wait_fence(1);
    assert!(start.elapsed() >= Duration::from_millis(100));
    let start = Instant::now();
    g.submit(&[NOP.fence(2)]);
    g.wait_fence(2);
    assert!(start.elapsed() < Duration::from_millis(90));
}

#[test]
fn reset_cuts_an_injected_delay_short() {
    let mut g = Guest::started();
    g.set(reg::INJECT_KIND, INJECT_DELAY);
    g.set(reg::INJECT_COUNT, 1);
    g.set(reg::INJECT_DELAY_US, LONG_US);
    g.submit(&[NOP.fence(1)]);
    until("it is used up", || g.get(reg::INJECT_COUNT) == 0);
    g.reset();
    assert_eq!((g.fence(), g.status(0)), (0, 0), "it did not run");
    g.start();
    g.submit(&[NOP.fence(2)]);
    g.wait_fence(2);
}

#[test]
fn device_reset_and_power_off_do_not_wait_for_a_delay() {
    let start = Instant::now();
    let mut g = Guest::started();
    g.set(reg::INJECT_KIND, INJECT_DELAY);
    g.set(reg::INJECT_COUNT, 2);
    g.set(reg::INJECT_DELAY_US, LONG_US);
    g.submit(&[NOP]);
    until("it is used up", || g.get(reg::INJECT_COUNT) == 1);
    g.device.reset();
    assert_eq!((g.get(reg::STATUS), g.get(reg::CONTROL)), (0, 0));
    g.start();
    g.set(reg::INJECT_KIND, INJECT_DELAY);
    g.set(reg::INJECT_COUNT, 1);
    g.set(reg::INJECT_DELAY_US, LONG_US);
    g.submit(&[NOP]);
    until("it is used up", || g.get(reg::INJECT_COUNT) == 0);
    let vram = g.device.stop().expect("the engine did not panic");
    assert_eq!(vram.size(), VRAM);
    assert!(start.elapsed() < Duration::from_secs(20));
}
