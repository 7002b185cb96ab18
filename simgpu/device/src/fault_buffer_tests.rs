// SPDX-License-Identifier: GPL-2.0-only OR MIT

use super::*;
use crate::inject::{INJECT_DELAY, INJECT_FAIL, INJECT_HANG};
use crate::page_table::{FaultKind, Intent};
use std::time::Duration;

const BASE: u64 = 0x1_0000_1000;

fn enabled(entries: u32) -> FaultBuffer {
    let mut f = FaultBuffer::default();
    f.write(reg::BASE_LO, BASE as u32);
    f.write(reg::BASE_HI, (BASE >> 32) as u32);
    f.write(reg::ENTRIES, entries);
    f.write(reg::ENABLE, 1);
    assert_eq!(f.read(reg::ENABLE), 1);
    f
}

fn fault(asid: u32) -> Fault {
    Fault {
        address: 0x7777,
        len: 99,
        asid,
        intent: Intent::Atomic,
        kind: FaultKind::NoWrite,
    }
}

fn written(next: Next) -> (u64, u32) {
    match next {
        Next::Write { bus, entry } => (bus, (entry[7] >> 32) as u32),
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_have_their_fields() {
    let (mut f, now) = (enabled(4), Instant::now());
    f.stall(2, fault(5));
    assert_eq!(f.read(reg::STALLED), 1 << 2);
    let Next::Write { bus, entry } = f.next(2, now) else {
        panic!("nothing to write");
    };
    assert_eq!(bus, BASE);
    assert_eq!(
        entry,
        [0x7777, 99, 5 | (2 << 32), 2 | (1 << 32), 0, 0, 0, 1 << 32]
    );
    assert_eq!(f.next(2, now), Next::Sleep(None));
    assert_eq!((f.read(reg::PUT), f.read(reg::STATUS)), (1, 0));
}

#[test]
fn a_full_buffer_keeps_faults_back() {
    let (mut f, now) = (enabled(2), Instant::now());
    f.stall(1, fault(0));
    f.stall(2, fault(0));
    assert_eq!(written(f.next(1, now)), (BASE, 1));
    assert_eq!(f.next(2, now), Next::Overflow);
    assert_eq!(f.next(2, now), Next::Sleep(None), "told once");
    assert_eq!(f.read(reg::STATUS), OVERFLOW);
    f.write(reg::STATUS, OVERFLOW);
    assert_eq!(f.read(reg::STATUS), 0);
    f.write(reg::GET, 2); // no such entry
    assert_eq!(f.next(2, now), Next::Sleep(None));
    f.write(reg::GET, 1);
    assert_eq!(written(f.next(2, now)), (BASE + 64, 2));
    assert_eq!(f.read(reg::PUT), 0);
}

#[test]
fn a_buffer_that_is_off_or_bad_keeps_faults_back() {
    let (mut f, now) = (FaultBuffer::default(), Instant::now());
    f.stall(1, fault(0));
    assert_eq!(f.next(1, now), Next::Overflow);
    for (base, entries) in [(0x1020, 4), (0x1000, 3), (0x1000, 1), (0x1000, 131072)] {
        f.write(reg::BASE_LO, base);
        f.write(reg::ENTRIES, entries);
        f.write(reg::ENABLE, 1);
        assert_eq!(f.read(reg::ENABLE), 0);
    }
    f.write(reg::ENTRIES, 4);
    f.write(reg::ENABLE, 1);
    f.write(reg::BASE_LO, 0); // not while enabled
    assert_eq!(written(f.next(1, now)), (0x1000, 1));
    f.write_failed(1);
    assert_eq!(
        (f.read(reg::STATUS), f.read(reg::ENABLE)),
        (OVERFLOW | BAD, 0)
    );
    assert_eq!(f.next(1, now), Next::Sleep(None));
    f.write(reg::ENABLE, 1);
    assert_eq!(written(f.next(1, now)), (0x1000, 1));
}

#[test]
fn verdicts_reach_whom_they_are_for() {
    let (mut f, now) = (enabled(8), Instant::now());
    for (queue, asid) in [(1, 3), (2, 4), (3, 3)] {
        f.stall(queue, fault(asid));
        written(f.next(queue, now));
    }
    assert_eq!(f.end_stalls(Verdict::Replay, |_, asid, _| asid == 3), 2);
    assert_eq!(f.end_stalls(Verdict::Cancel, |_, asid, _| asid == 3), 0);
    assert_eq!(f.next(1, now), Next::Go(Verdict::Replay));
    assert_eq!(f.next(2, now), Next::Sleep(None));
    assert_eq!(f.next(3, now), Next::Go(Verdict::Replay));
    assert_eq!(f.read(reg::STALLED), 1 << 2);
    let right = |queue, token| move |q, _, t| q == queue && t == token;
    assert_eq!(
        f.end_stalls(Verdict::Cancel, right(2, 1)),
        0,
        "an old token"
    );
    assert_eq!(f.end_stalls(Verdict::Cancel, right(2, 2)), 1);
    assert_eq!(f.next(2, now), Next::Go(Verdict::Cancel));
    assert!(!f.is_stalled(2));
    // It faults again: a new token.
    f.stall(1, fault(3));
    assert_eq!(written(f.next(1, now)).1, 4);
}

#[test]
fn tokens_are_never_0() {
    let mut f = enabled(4);
    f.last_token = u32::MAX;
    f.stall(1, fault(0));
    assert_eq!(written(f.next(1, Instant::now())).1, 1);
}

#[test]
fn knobs() {
    let (mut f, now) = (enabled(8), Instant::now());
    f.write(reg::INJECT_DELAY_US, 1000);
    for (queue, kind) in [(1, INJECT_FAIL), (2, INJECT_DELAY), (3, INJECT_HANG)] {
        f.write(reg::INJECT_KIND, kind);
        f.write(reg::INJECT_COUNT, 1);
        f.stall(queue, fault(0));
        let next = f.next(queue, now);
        assert_eq!(f.read(reg::INJECT_COUNT), 0);
        let then = now + Duration::from_millis(1);
        match queue {
            2 => {
                assert_eq!(next, Next::Sleep(Some(then)));
                assert_eq!(written(f.next(queue, then)).0, BASE);
            }
            _ => assert_eq!(next, Next::Sleep(None)),
        }
    }
    f.stall(4, fault(0));
    assert_eq!(f.next(4, now), Next::Sleep(None), "it hangs for good");
}
