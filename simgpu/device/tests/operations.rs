// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Every operation, and every way in which one can fail.

mod common;
use common::*;

const NOP: u32 = 0;
const TO_VRAM: u32 = 1;
const FROM_VRAM: u32 = 2;
const COPY: u32 = 3;
const FILL: u32 = 4;
const XOR: u32 = 5;
const CHECKSUM: u32 = 6;

const OK: u32 = 1;
const BAD_OP: u32 = 2;
const BAD_VRAM: u32 = 3;
const BAD_BUS: u32 = 4;
const BAD_LEN: u32 = 5;

#[test]
fn copies_there_and_back() {
    let mut g = Guest::new();
    for (offset, len) in [(0, 1), (5, 4097), (VRAM - 1, 1), (VRAM - 70_000, 70_000)] {
        let data = pattern(len, offset);
        g.write_vram(offset, &data);
        g.ram.write(BUF - RAM, &vec![0xee; len as usize + 1]);
        assert_eq!(g.read_vram(offset, len), data, "{offset} {len}");
        let after = g.ram.read(BUF - RAM + len, 1);
        assert_eq!(after, [0xee], "one byte too many, {offset} {len}");
    }
}

#[test]
fn copy_to_vram_leaves_the_neighbours() {
    let mut g = Guest::new();
    g.write_vram(0, &[0x11; 64]);
    g.write_vram(20, &[0x22; 9]);
    let mut want = [0x11; 64];
    want[20..29].fill(0x22);
    assert_eq!(g.read_vram(0, 64), want);
}

#[test]
fn copies_across_two_guest_regions() {
    let mut g = Guest::new();
    let (seam, data) = (RAM + RAM_SPLIT - 100, pattern(300, 1));
    g.ram.write(seam - RAM, &data);
    assert_eq!(g.run(Desc::new(TO_VRAM, seam, 8, 300)), OK);
    assert_eq!(g.read_vram(8, 300), data);
    g.ram.write(seam - RAM, &[0; 300]);
    assert_eq!(g.run(Desc::new(FROM_VRAM, 8, seam, 300)), OK);
    assert_eq!(g.ram.read(seam - RAM, 300), data);
}

#[test]
fn copy_within_vram_may_overlap() {
    let mut g = Guest::new();
    for (src, dst) in [(100, 103), (103, 100), (0, 5000)] {
        let data = pattern(1000, src);
        g.write_vram(src, &data);
        assert_eq!(g.run(Desc::new(COPY, src, dst, 1000)), OK);
        assert_eq!(g.read_vram(dst, 1000), data, "{src} {dst}");
    }
}

#[test]
fn fill_and_xor() {
    let mut g = Guest::new();
    let (a, b) = (0x0123_4567_89ab_cdefu64, 0xfff0_00ff_0f0f_5555u64);
    assert_eq!(g.run(Desc::new(FILL, 0, 8, 800).arg(a)), OK);
    assert_eq!(g.read_vram(8, 800), a.to_le_bytes().repeat(100));
    assert_eq!(g.read_vram(0, 8), [0; 8]);
    assert_eq!(g.read_vram(808, 8), [0; 8]);
    assert_eq!(g.run(Desc::new(XOR, 0, 16, 8).arg(b)), OK);
    let want = [a, a ^ b, a].map(u64::to_le_bytes).concat();
    assert_eq!(g.read_vram(8, 24), want);
    let all = Desc::new(FILL, 0, 0, VRAM).arg(b);
    assert_eq!(g.run(all), OK);
    assert_eq!(g.read_vram(VRAM - 8, 8), b.to_le_bytes());
}

#[test]
fn checksum_adds_words() {
    let mut g = Guest::new();
    let words = [u64::MAX, 2, 0x8000_0000_0000_0000, 0x8000_0000_0000_0003];
    g.write_vram(16, &words.map(u64::to_le_bytes).concat());
    let out = BUF + 0x1003; // alignment is not asked for
    g.ram.write(out - RAM - 1, &[0xee; 10]);
    assert_eq!(g.run(Desc::new(CHECKSUM, 16, out, 32)), OK);
    let mut want = vec![0xee];
    want.extend(4u64.to_le_bytes());
    want.push(0xee);
    assert_eq!(g.ram.read(out - RAM - 1, 10), want);
}

#[test]
fn nop_ignores_addresses() {
    let mut g = Guest::new();
    let desc = Desc::new(NOP, u64::MAX, u64::MAX, u64::MAX).arg(1);
    assert_eq!(g.run(desc), OK);
}

/// Runs descriptors that must fail with `status`, and looks that each changed
/// nothing: VRAM by a checksum, guest memory byte by byte.
fn all_fail(status: u32, descs: &[Desc]) {
    let mut g = Guest::new();
    let fill = pattern(VRAM / 2, 7);
    for half in [0, VRAM / 2] {
        g.write_vram(half, &fill);
    }
    let look = |g: &mut Guest| {
        assert_eq!(g.run(Desc::new(CHECKSUM, 0, BUF, VRAM)), OK);
        g.ram.word(BUF - RAM)
    };
    let vram = look(&mut g);
    let work = RING - RAM..FENCE - RAM + 64;
    let outside = |g: &Guest| {
        let mut bytes = g.ram.read(0, RAM_SIZE);
        bytes[work.start as usize..work.end as usize].fill(0);
        bytes
    };
    let ram = outside(&g);
    for desc in descs {
        assert_eq!(g.run(*desc), status, "{desc:x?}");
        assert_eq!(outside(&g), ram, "guest memory changed by {desc:x?}");
    }
    assert_eq!(look(&mut g), vram, "VRAM changed");
}

#[test]
fn bad_op() {
    let good = Desc::new(FILL, 0, 0, 8).arg(1);
    let mut bad: Vec<Desc> = [9, 10, 0x100, 1 << 31, u32::MAX]
        .map(|op| Desc { op, ..good })
        .to_vec();
    bad.extend([4, 8, 1 << 31].map(|flags| Desc { flags, ..good }));
    bad.extend([1, 1 << 63].map(|reserved| Desc { reserved, ..good }));
    bad.extend([1 << 32, 1 << 63].map(|status| Desc { status, ..good }));
    // It is found before any other fault.
    bad.push(Desc::new(99, u64::MAX, u64::MAX, 0));
    all_fail(BAD_OP, &bad);
}

#[test]
fn bad_vram() {
    let mut bad = Vec::new();
    for (offset, len) in [
        (VRAM, 8),
        (VRAM - 8, 16),
        (8, VRAM),
        (u64::MAX - 7, 8),
        (u64::MAX - 7, VRAM),
        (1 << 63, 8),
    ] {
        bad.push(Desc::new(TO_VRAM, BUF, offset, len));
        bad.push(Desc::new(FROM_VRAM, offset, BUF, len));
        bad.push(Desc::new(COPY, offset, 0, len));
        bad.push(Desc::new(COPY, 0, offset, len));
        bad.push(Desc::new(FILL, 0, offset, len).arg(1));
        bad.push(Desc::new(XOR, 0, offset, len).arg(1));
        bad.push(Desc::new(CHECKSUM, offset, BUF, len));
    }
    for odd in [1, 4, 7, VRAM - 12] {
        bad.push(Desc::new(FILL, 0, odd, 8).arg(1));
        bad.push(Desc::new(XOR, 0, odd, 8).arg(1));
        bad.push(Desc::new(CHECKSUM, odd, BUF, 8));
    }
    all_fail(BAD_VRAM, &bad);
}

#[test]
fn bad_bus() {
    let mut bad = Vec::new();
    for (bus, len) in [
        (0, 8),
        (RAM - 1, 2),
        (RAM - 8, 8),
        (RAM + RAM_SIZE, 1),
        (RAM + RAM_SIZE - 1, 2),
        (RAM + RAM_SIZE - MIB, MIB + 1),
        (RAM + RAM_SPLIT - 8, MIB + 9),
        (u64::MAX, 1),
        (u64::MAX - 7, 8),
        (u64::MAX, VRAM),
    ] {
        bad.push(Desc::new(TO_VRAM, bus, 0, len));
        bad.push(Desc::new(FROM_VRAM, 0, bus, len));
    }
    for bus in [0, RAM - 4, RAM + RAM_SIZE - 7, u64::MAX - 3] {
        bad.push(Desc::new(CHECKSUM, 0, bus, 8));
    }
    all_fail(BAD_BUS, &bad);
}

#[test]
fn bad_len() {
    let mut bad = Vec::new();
    for len in [0, VRAM + 1, VRAM + 8, 1 << 63, u64::MAX, u64::MAX - 7] {
        for op in TO_VRAM..=CHECKSUM {
            bad.push(Desc::new(op, 0, 0, len));
        }
    }
    for len in [1, 7, 12, VRAM - 1] {
        for op in [FILL, XOR, CHECKSUM] {
            bad.push(Desc::new(op, 0, 0, len).arg(1));
        }
    }
    all_fail(BAD_LEN, &bad);
}
