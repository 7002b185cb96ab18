// SPDX-License-Identifier: GPL-2.0-only OR MIT

use super::*;

const SIZE: u64 = 0x1_2340_0000;

fn ready() -> Registers {
    let mut r = Registers::new(SIZE);
    for (offset, value) in [
        (reg::RING_BASE_LO, 0x1000),
        (reg::RING_ENTRIES, 4),
        (reg::FENCE_ADDR_LO, 0x2000),
    ] {
        assert_eq!(write(&mut r, offset, value), 0);
    }
    r
}

fn running() -> Registers {
    let mut r = ready();
    assert_eq!(write(&mut r, reg::RING_ENABLE, 1), 0);
    assert!(matches!(r.next_work(COPY), Some(Work::Check(_))));
    r.work_done(COPY);
    r
}

/// Returns the vectors to send.
fn write(r: &mut Registers, offset: u64, value: u32) -> u32 {
    r.write(offset, value).0
}

fn set(r: &mut Registers, offset: u64, value: u32) {
    write(r, offset, value);
}

#[test]
fn identity_is_read_only() {
    let mut r = Registers::new(SIZE);
    for (offset, value) in [
        (0x0, 0x5349_4d47),
        (0x4, 0x0001_0001),
        (0x8, 0x2340_0000),
        (0xc, 0x1),
        (0x10, 0),
        (0x14, 0),
        (0x18, 4),
        (0x1c, 64),
        (0x20, 0xffff),
        (0x24, 0),
        (0x10c, 0),
        (0x120, 0),
        (0x124, 0),
        (0x128, 0),
        (0x12c, 0),
        (0x130, 0),
    ] {
        assert_eq!(r.read(offset), value, "{offset:x}");
        if offset != reg::CONTROL {
            set(&mut r, offset, !0);
        }
        assert_eq!(r.read(offset), value, "{offset:x}");
    }
}

#[test]
fn every_other_offset_is_nothing() {
    let mut r = Registers::new(SIZE);
    let used = (0..0x28)
        .chain(0x100..0x134)
        .chain(0x200..0x20c)
        .chain(0x300..0x30c)
        .chain(0x2000..0x202c)
        .chain(0x4000..0x4200)
        .chain((0x1000..0x1500).filter(|offset| offset % 0x100 < 0x48));
    let used: std::collections::HashSet<u64> = used.filter(|o| o % 4 == 0).collect();
    for offset in (0..BAR_SIZE + 64).chain([u64::MAX - 3, 1 << 32]) {
        if !used.contains(&offset) {
            set(&mut r, offset, !0);
            assert_eq!(r.read(offset), 0, "{offset:x}");
        }
    }
}

#[test]
fn wide_registers_have_two_halves() {
    let mut r = Registers::new(SIZE);
    for (lo, hi) in [
        (reg::RING_BASE_LO, reg::RING_BASE_HI),
        (reg::FENCE_ADDR_LO, reg::FENCE_ADDR_HI),
    ] {
        set(&mut r, hi, 0xaabb_ccdd);
        set(&mut r, lo, 0x1122_3344);
        assert_eq!((r.read(lo), r.read(hi)), (0x1122_3344, 0xaabb_ccdd));
        set(&mut r, hi, 1);
        assert_eq!((r.read(lo), r.read(hi)), (0x1122_3344, 1));
    }
    assert_eq!(
        (r.rings[COPY].ring().base, r.rings[COPY].ring().fence),
        (0x1_1122_3344, 0x1_1122_3344)
    );
}

#[test]
fn ring_registers_are_locked_while_running() {
    let mut r = running();
    for offset in [
        reg::RING_BASE_LO,
        reg::RING_BASE_HI,
        reg::RING_ENTRIES,
        reg::FENCE_ADDR_LO,
        reg::FENCE_ADDR_HI,
    ] {
        let before = r.read(offset);
        set(&mut r, offset, 0x4000_0040);
        assert_eq!(r.read(offset), before, "{offset:x}");
        set(&mut r, reg::RING_ENABLE, 0);
        set(&mut r, offset, 0x40);
        assert_eq!(r.read(offset), 0x40, "{offset:x}");
        r = running();
    }
}

#[test]
fn insane_rings_halt_at_once() {
    for (offset, value) in [
        (reg::RING_ENTRIES, 0),
        (reg::RING_ENTRIES, 1),
        (reg::RING_ENTRIES, 3),
        (reg::RING_ENTRIES, 131072),
        (reg::RING_BASE_LO, 0x1008),
        (reg::FENCE_ADDR_LO, 0x2020),
    ] {
        let mut r = ready();
        set(&mut r, reg::IRQ_ENABLE, IRQ_ERROR);
        set(&mut r, offset, value);
        assert_eq!(write(&mut r, reg::RING_ENABLE, 1), IRQ_ERROR);
        assert_eq!(r.read(reg::STATUS), STATUS_HALTED);
        assert_eq!(r.read(reg::IRQ_STATUS), IRQ_ERROR);
        assert_eq!(r.read(reg::ERROR_CODE), 0, "no descriptor failed");
        assert_eq!(r.next_work(COPY), None);
        // Only RESET helps.
        set(&mut r, reg::RING_ENABLE, 0);
        set(&mut r, reg::RING_ENTRIES, 4);
        set(&mut r, reg::RING_ENABLE, 1);
        assert_eq!(r.read(reg::STATUS), STATUS_HALTED);
    }
}

#[test]
fn a_bad_tail_halts() {
    for tail in [4, 5, u32::MAX] {
        let mut r = running();
        set(&mut r, reg::RING_TAIL, 3);
        assert_eq!(r.read(reg::STATUS), STATUS_RUNNING);
        set(&mut r, reg::RING_TAIL, tail);
        assert_eq!(r.read(reg::STATUS), STATUS_HALTED);
        assert_eq!(r.next_work(COPY), None);
    }
}

#[test]
fn a_doorbell_before_the_start_is_nothing() {
    let mut r = ready();
    set(&mut r, reg::RING_TAIL, 99);
    assert_eq!((r.read(reg::RING_TAIL), r.read(reg::STATUS)), (0, 0));
    set(&mut r, reg::RING_TAIL, 2);
    set(&mut r, reg::RING_ENABLE, 1);
    assert!(matches!(r.next_work(COPY), Some(Work::Check(_))));
    r.work_done(COPY);
    assert_eq!(r.next_work(COPY), None, "head == tail == 0");
}

#[test]
fn head_wraps() {
    let mut r = running();
    for expect in [0, 1, 2, 3, 0, 1] {
        set(&mut r, reg::RING_TAIL, (expect + 1) % 4);
        let Some(Work::Run { index, .. }) = r.next_work(COPY) else {
            panic!("no work at {expect}");
        };
        assert_eq!(index, expect);
        r.advance(COPY);
        r.work_done(COPY);
    }
    assert_eq!(r.read(reg::RING_HEAD), 2);
}

#[test]
fn stop_waits_for_the_descriptor_at_hand() {
    let mut r = running();
    set(&mut r, reg::RING_TAIL, 2);
    assert!(r.next_work(COPY).is_some());
    set(&mut r, reg::RING_ENABLE, 0);
    assert_eq!(r.read(reg::RING_ENABLE), 0);
    assert_eq!(r.read(reg::STATUS), STATUS_RUNNING);
    set(&mut r, reg::RING_ENABLE, 1); // not yet
    set(&mut r, reg::RING_ENTRIES, 8);
    assert_eq!(r.read(reg::RING_ENABLE), 0);
    r.advance(COPY);
    r.work_done(COPY);
    assert_eq!(r.read(reg::STATUS), 0);
    assert_eq!(r.next_work(COPY), None);
    assert_eq!(r.read(reg::RING_ENTRIES), 4);
    assert_eq!((r.read(reg::RING_HEAD), r.read(reg::RING_TAIL)), (1, 2));
    set(&mut r, reg::RING_ENABLE, 1);
    assert_eq!((r.read(reg::RING_HEAD), r.read(reg::RING_TAIL)), (0, 0));
    assert_eq!(r.read(reg::STATUS), STATUS_RUNNING);
}

#[test]
fn reset_of_an_idle_device_is_immediate_and_complete() {
    let mut r = running();
    for offset in (0..0x400).step_by(4).filter(|&o| o != reg::CONTROL) {
        set(&mut r, offset, 1);
    }
    let _ = r.count_error(COPY, 1, Status::BadBus);
    let _ = r.finished(COPY, Some(u64::MAX), true);
    let _ = r.halt(COPY);
    set(&mut r, reg::CONTROL, 2); // only bit 0 counts
    assert_eq!(r.read(reg::STATUS), STATUS_HALTED);
    set(&mut r, reg::CONTROL, CONTROL_RESET);
    let fresh = Registers::new(SIZE);
    for offset in (0..0x400).step_by(4) {
        assert_eq!(r.read(offset), fresh.read(offset), "{offset:x}");
    }
}

#[test]
fn reset_of_a_busy_device_waits() {
    let mut r = running();
    set(&mut r, reg::RING_TAIL, 2);
    assert!(r.next_work(COPY).is_some());
    set(&mut r, reg::CONTROL, CONTROL_RESET);
    assert_eq!(r.read(reg::CONTROL), CONTROL_RESET);
    assert_eq!(r.read(reg::RING_BASE_LO), 0x1000);
    set(&mut r, reg::IRQ_ENABLE, 3); // lost
    assert_eq!(r.read(reg::IRQ_ENABLE), 0);
    r.advance(COPY);
    r.work_done(COPY);
    assert_eq!(r.read(reg::CONTROL), 0);
    assert_eq!(r.read(reg::STATUS), 0);
    assert_eq!(r.read(reg::RING_BASE_LO), 0);
    assert_eq!(r.next_work(COPY), None);
}

#[test]
fn interrupts_go_out_when_status_and_enable_meet() {
    let mut r = running();
    assert_eq!(r.finished(COPY, None, true), 0, "not enabled");
    assert_eq!(write(&mut r, reg::IRQ_ENABLE, !0), IRQ_FENCE, "was pending");
    assert_eq!(r.read(reg::IRQ_ENABLE), 0xff);
    assert_eq!(write(&mut r, reg::IRQ_ENABLE, 3), 0, "no change");
    assert_eq!(r.finished(COPY, None, true), 0, "still pending");
    assert_eq!(write(&mut r, reg::IRQ_STATUS, IRQ_ERROR), 0);
    assert_eq!(r.read(reg::IRQ_STATUS), IRQ_FENCE);
    assert_eq!(write(&mut r, reg::IRQ_STATUS, IRQ_FENCE), 0);
    assert_eq!(r.read(reg::IRQ_STATUS), 0);
    assert_eq!(r.finished(COPY, Some(1), false), 0, "nobody asked");
    assert_eq!(r.finished(COPY, None, true), IRQ_FENCE);
    assert_eq!(r.raise_error(COPY), IRQ_ERROR);
    assert_eq!(r.read(reg::IRQ_STATUS), 3);
}

#[test]
fn clearing_the_error_bit_clears_the_code_alone() {
    let mut r = running();
    assert_eq!(r.count_error(COPY, 2, Status::BadBus), 1);
    assert_eq!(r.count_error(COPY, 3, Status::BadLen), 2);
    let _ = r.raise_error(COPY);
    let read = |r: &Registers| {
        [reg::ERROR_CODE, reg::ERROR_INDEX, reg::ERROR_COUNT].map(|offset| r.read(offset))
    };
    assert_eq!(read(&r), [5, 3, 2]);
    set(&mut r, reg::IRQ_STATUS, IRQ_FENCE);
    assert_eq!(read(&r), [5, 3, 2]);
    set(&mut r, reg::IRQ_STATUS, IRQ_ERROR);
    assert_eq!(read(&r), [0, 3, 2]);
}

fn injected(r: &mut Registers) -> Option<Inject> {
    set(r, reg::RING_TAIL, (r.read(reg::RING_HEAD) + 1) % 4);
    match r.next_work(COPY) {
        Some(Work::Run { inject, .. }) => {
            r.advance(COPY);
            r.work_done(COPY);
            Some(inject)
        }
        _ => None,
    }
}

#[test]
fn injection_counts_down() {
    let mut r = running();
    let delay = Inject::Delay(Duration::from_micros(250));
    set(&mut r, reg::INJECT_DELAY_US, 250);
    for (kind, want) in [(INJECT_FAIL, Inject::Fail), (INJECT_DELAY, delay)] {
        set(&mut r, reg::INJECT_KIND, kind);
        assert_eq!(injected(&mut r), Some(Inject::Nothing), "count is 0");
        set(&mut r, reg::INJECT_COUNT, 2);
        assert_eq!(injected(&mut r), Some(want));
        assert_eq!(r.read(reg::INJECT_COUNT), 1);
        assert_eq!(injected(&mut r), Some(want));
        assert_eq!(injected(&mut r), Some(Inject::Nothing));
        assert_eq!(r.read(reg::INJECT_COUNT), 0);
    }
    for kind in [0, 4, u32::MAX] {
        set(&mut r, reg::INJECT_KIND, kind);
        set(&mut r, reg::INJECT_COUNT, 2);
        assert_eq!(injected(&mut r), Some(Inject::Nothing));
        assert_eq!(r.read(reg::INJECT_COUNT), 2, "not used up");
    }
}

#[test]
fn a_hang_lasts_until_reset() {
    let mut r = running();
    set(&mut r, reg::INJECT_KIND, INJECT_HANG);
    set(&mut r, reg::INJECT_COUNT, 1);
    assert_eq!(injected(&mut r), None);
    assert_eq!(r.read(reg::INJECT_COUNT), 0);
    assert_eq!(r.read(reg::STATUS), STATUS_RUNNING | STATUS_HUNG);
    assert_eq!(r.read(reg::RING_HEAD), 0);
    set(&mut r, reg::RING_TAIL, 2);
    assert_eq!(r.next_work(COPY), None);
    set(&mut r, reg::RING_ENABLE, 0);
    assert_eq!(r.read(reg::STATUS), STATUS_HUNG);
    set(&mut r, reg::RING_ENABLE, 1);
    assert_eq!(r.read(reg::STATUS), STATUS_HUNG);
    set(&mut r, reg::CONTROL, CONTROL_RESET);
    assert_eq!(r.read(reg::STATUS), 0);
    assert_eq!(r.read(reg::CONTROL), 0);
}
