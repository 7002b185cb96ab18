// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Devices that reach each other's VRAM: two in this process, and one in another.

mod common;
use common::gpu::*;
use common::{pattern, until, Desc, BUF, MIB, RAM, VRAM};
use simgpu_device::device::Device;
use simgpu_device::peer::Link;
use simgpu_device::registers::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const COPY_JOB: u32 = 2;
const ATOMIC_COUNT: u32 = 6;
const COPY_FROM_PEER: u32 = 7;
const COPY_TO_PEER: u32 = 8;

const OK: u32 = 1;
const BAD_VRAM: u32 = 3;
const BAD_LEN: u32 = 5;
const PEER_GONE: u32 = 7;

const ASID: u32 = 1;
const VA: u64 = 0x1234_5678_0000;
const PEER_BYTES: u64 = 0x78;

fn folder(name: &str) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let own = format!(
        "simgpu-peers-{}-{}-{name}",
        std::process::id(),
        now.as_nanos()
    );
    let folder = std::env::temp_dir().join(own);
    std::fs::create_dir(&folder).unwrap();
    folder
}

fn gpu(folder: &Path, number: u32) -> Gpu {
    let folder = folder.to_path_buf();
    Gpu::with_device(Device::with_link(VRAM, Some(Link { folder, number })).unwrap())
}

fn copy(dst: u64, src: u64, len: u64) -> Job {
    Job {
        op: COPY_JOB,
        src,
        dst,
        len,
        asid: ASID,
        ..Job::default()
    }
}

/// One descriptor of the copy ring, without the RESET that `Guest::run` begins with.
fn run(gpu: &mut Gpu, desc: Desc) -> u32 {
    gpu.g.start();
    let index = gpu.g.submit(&[desc]);
    gpu.g.idle();
    gpu.g.status(index)
}

#[test]
fn bytes_go_both_ways() {
    let folder = folder("both");
    let (mut a, mut b) = (gpu(&folder, 0), gpu(&folder, 9));
    assert_eq!((a.g.get(reg::PEER_SELF), b.g.get(reg::PEER_SELF)), (0, 9));
    assert_eq!(a.g.get(reg::PEERS), 0);
    a.g.set(reg::PEERS, !0);
    b.g.set(reg::PEERS, 1);
    assert_eq!((a.g.get(reg::PEERS), b.g.get(reg::PEERS)), (1 << 9, 1));

    // By the copy ring: a's RAM, a's VRAM, b's VRAM, b's RAM.
    let data = pattern(100_001, 5);
    a.g.ram.write(BUF - RAM, &data);
    let len = data.len() as u64;
    assert_eq!(run(&mut a, Desc::new(1, BUF, 777, len)), OK);
    assert_eq!(
        run(&mut a, Desc::new(COPY_TO_PEER, 777, 555, len).arg(9)),
        OK
    );
    assert_eq!(run(&mut b, Desc::new(2, 555, BUF, len)), OK);
    assert_eq!(b.g.ram.read(BUF - RAM, len), data);
    assert_eq!(
        run(&mut a, Desc::new(COPY_FROM_PEER, 555, MIB, len).arg(9)),
        OK
    );
    assert_eq!(run(&mut a, Desc::new(2, MIB, BUF + 0x2_0000, len)), OK);
    assert_eq!(a.g.ram.read(BUF - RAM + 0x2_0000, len), data);
    assert_eq!(a.counter(PEER_BYTES), 2 * len);
    assert_eq!(b.counter(PEER_BYTES), 0);

    // By page tables, pages of both sizes.
    for i in 0..8 {
        a.map(ASID, VA + i * PAGE, RW | (DATA + i * PAGE));
    }
    a.set_entry(
        ASID,
        (VA + 4 * LARGE) & !(LARGE - 1),
        ALL | IN_PEER | (9 << 8),
        true,
    );
    a.map(ASID, VA + 8 * PAGE, ALL | IN_PEER | (9 << 8) | (5 * PAGE));
    let remote = (VA + 4 * LARGE) & !(LARGE - 1);
    assert_eq!(a.run(1, copy(remote + 5 * PAGE, VA, 3 * PAGE)).status, OK);
    assert_eq!(
        a.run(2, copy(VA + 4 * PAGE, VA + 8 * PAGE, PAGE)).status,
        OK
    );
    assert_eq!(a.g.ram.read(DATA - RAM + 4 * PAGE, PAGE), data[..4096]);
    assert_eq!(a.counter(PEER_BYTES), 2 * len + 4 * PAGE);
    assert_eq!(run(&mut b, Desc::new(2, 5 * PAGE, BUF, 3 * PAGE)), OK);
    assert_eq!(b.g.ram.read(BUF - RAM, 3 * PAGE), data[..12_288]);
}

#[test]
fn atomics_of_two_devices_add_up() {
    let folder = folder("atomics");
    let (mut a, mut b) = (gpu(&folder, 0), gpu(&folder, 1));
    a.g.set(reg::PEERS, 2);
    a.map(ASID, VA, ALL | IN_PEER | (1 << 8) | PAGE);
    b.map(ASID, VA, ALL | IN_VRAM | PAGE);
    let job = Job {
        op: ATOMIC_COUNT,
        arg: 1,
        len: 300_000,
        dst: VA + 8,
        asid: ASID,
        ..Job::default()
    };
    let (x, y) = (a.submit(1, job), b.submit(1, job));
    assert_eq!((a.wait(1, x).status, b.wait(1, y).status), (OK, OK));
    assert_eq!(run(&mut b, Desc::new(2, PAGE + 8, BUF, 8)), OK);
    assert_eq!(b.g.ram.word(BUF - RAM), 600_000);
}

#[test]
fn ranges_are_checked() {
    let folder = folder("ranges");
    let (mut a, _b) = (gpu(&folder, 0), gpu(&folder, 1));
    a.g.set(reg::PEERS, 2);
    for op in [COPY_FROM_PEER, COPY_TO_PEER] {
        for (src, dst, len, peer, status) in [
            (0, 0, 0, 1, BAD_LEN),
            (0, 0, VRAM + 1, 1, BAD_LEN),
            (VRAM - 7, 0, 8, 1, BAD_VRAM),
            (0, VRAM - 7, 8, 1, BAD_VRAM),
            (u64::MAX, 0, 8, 1, BAD_VRAM),
            (VRAM - 7, 0, 8, 2, PEER_GONE),
            (0, VRAM - 7, 8, 2, PEER_GONE),
            (0, 0, 8, 0, PEER_GONE),
            (0, 0, 8, 2, PEER_GONE),
            (0, 0, 8, 16, PEER_GONE),
            (0, 0, 8, u64::MAX, PEER_GONE),
            (0, 0, 8, (1 << 32) | 1, PEER_GONE),
            (0, 0, VRAM, 1, OK),
        ] {
            let desc = Desc::new(op, src, dst, len).arg(peer);
            assert_eq!(run(&mut a, desc), status, "{desc:x?}");
        }
    }
    a.map(ASID, VA, RW | IN_PEER | (1 << 8) | VRAM);
    assert_eq!(a.run(1, copy(VA, VA, 8)).status, BAD_VRAM);
    // A RESET lets go.
    a.g.reset();
    assert_eq!(a.g.get(reg::PEERS), 0);
    a.start();
    assert_eq!(
        run(&mut a, Desc::new(COPY_TO_PEER, 0, 0, 8).arg(1)),
        PEER_GONE
    );
}

/// The program as another process, killed on drop.
struct Program(std::process::Child);

impl Program {
    fn start(folder: &Path, number: u32) -> Self {
        let socket = folder.join(format!("socket{number}"));
        // What one that was killed has left.
        let _ = std::fs::remove_file(&socket);
        let child = Command::new(env!("CARGO_BIN_EXE_simgpu-device"))
            .args(["--vram", "2M", "--number", &number.to_string()])
            .arg("--socket")
            .arg(&socket)
            .arg("--link")
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self(child);
        until("it listens", || socket.exists());
        program
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_peer_that_dies_takes_nobody_along() {
    let folder = folder("dies");
    let mut other = Program::start(&folder, 4);
    let mut a = gpu(&folder, 0);
    a.g.set(reg::PEERS, 1 << 4);
    assert_eq!(a.g.get(reg::PEERS), 1 << 4);
    a.map(ASID, VA, ALL | IN_PEER | (4 << 8) | PAGE);
    a.map(ASID, VA + PAGE, ALL | DATA);
    a.g.ram.set_word(DATA - RAM, 99);
    assert_eq!(a.run(1, copy(VA, VA + PAGE, PAGE)).status, OK);
    // In the middle of a job.
    let endless = Job {
        op: ATOMIC_COUNT,
        arg: 1,
        len: 1 << 36,
        dst: VA + 8,
        asid: ASID,
        ..Job::default()
    };
    let index = a.submit(2, endless);
    until("it counts", || a.counter(0x60) > 0);
    other.kill();
    assert_eq!(a.g.get(reg::PEERS), 0);
    let ended = a.wait(2, index);
    assert_eq!(
        (ended.status, ended.access, ended.address),
        (PEER_GONE, 2, VA + 8)
    );
    assert_eq!(a.run(1, copy(VA + PAGE, VA, PAGE)).status, PEER_GONE);
    assert_eq!(
        run(&mut a, Desc::new(COPY_FROM_PEER, 0, 0, 8).arg(4)),
        PEER_GONE
    );
    a.g.set(reg::PEERS, !0);
    assert_eq!(a.g.get(reg::PEERS), 0);
    // The next one of that number is another one, and is taken when asked for.
    let _next = Program::start(&folder, 4);
    assert_eq!(a.run(1, copy(VA + PAGE, VA, PAGE)).status, PEER_GONE);
    a.g.set(reg::PEERS, 1 << 4);
    assert_eq!(a.run(1, copy(VA + PAGE, VA, PAGE)).status, OK);
    assert_eq!(
        a.g.ram.word(DATA - RAM),
        0,
        "it has nothing of the old one's"
    );
}

#[test]
fn a_number_that_is_taken_is_refused_in_one_sentence() {
    let folder = folder("taken");
    let _a = gpu(&folder, 3);
    let output = Command::new(env!("CARGO_BIN_EXE_simgpu-device"))
        .args(["--number=3", "--socket=/nonexistent/socket"])
        .arg("--link")
        .arg(&folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("taken") && text.lines().count() == 1,
        "{text}"
    );
}
