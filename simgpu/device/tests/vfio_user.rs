// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The program as a client sees it: over the socket, with the vfio_user
//! crate's own client.

mod common;
use common::*;
use simgpu_device::registers::reg;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use vfio_bindings::bindings::vfio;
use vfio_user::Client;

const BAR0: u32 = vfio::VFIO_PCI_BAR0_REGION_INDEX;
const CONFIG: u32 = vfio::VFIO_PCI_CONFIG_REGION_INDEX;
const MSIX: u32 = vfio::VFIO_PCI_MSIX_IRQ_INDEX;

/// The program, killed on drop.
struct Program {
    child: Child,
    socket: PathBuf,
}

impl Program {
    /// Starts it, and waits until it says it is ready.
    fn start(name: &str, args: &[&str]) -> (Self, String) {
        let socket = scratch(name);
        Self::start_at(socket, args)
    }

    fn start_at(socket: PathBuf, args: &[&str]) -> (Self, String) {
        let mut child = command()
            .arg("--socket")
            .arg(&socket)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        (Self { child, socket }, line)
    }

    fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        until("it exits", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|c| c.code())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_simgpu-device"))
}

/// A path in a folder of this run's own. Process numbers are not enough for that: in namespaces of their
/// own two runs can have the same one.
fn scratch(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let name = format!("simgpu-test-{}-{}", std::process::id(), now.as_nanos());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    });

    dir.join(name)
}

fn read(client: &mut Client, region: u32, offset: u64) -> u32 {
    let mut data = [0xaa; 4];
    client.region_read(region, offset, &mut data).unwrap();
    u32::from_le_bytes(data)
}

fn write(client: &mut Client, region: u32, offset: u64, value: u32) {
    let data = value.to_le_bytes();
    client.region_write(region, offset, &data).unwrap();
}

#[test]
fn a_session() {
    let (mut program, line) = Program::start("session", &["--vram", "8M"]);
    let path = program.socket.display();
    assert_eq!(
        line,
        format!("simgpu-device: listening on {path}, VRAM 8 MiB\n")
    );
    let mut c = Client::new(&program.socket).unwrap();

    // What there is.
    let sizes = [0, 1, 2, 7].map(|i| c.region(i).map(|region| region.size));
    assert_eq!(sizes, [Some(0x10000), Some(0), Some(0x1000), Some(256)]);
    let irqs = [0, 1, 2, 3, 4].map(|i| c.get_irq_info(i).unwrap().count);
    assert_eq!(irqs, [0, 0, 8, 0, 0]);
    assert_eq!(read(&mut c, CONFIG, 0), 0x5347_1b36);
    assert_eq!(read(&mut c, BAR0, 0), 0x5349_4d47);
    assert_eq!(read(&mut c, BAR0, 8), 8 << 20);

    // Other widths are nothing.
    let mut wide = [0xaa; 8];
    c.region_read(BAR0, 0, &mut wide).unwrap();
    assert_eq!(wide, [0; 8]);
    let mut narrow = [0xaa; 2];
    c.region_read(BAR0, 0, &mut narrow).unwrap();
    assert_eq!(narrow, [0; 2]);
    assert_eq!(read(&mut c, BAR0, 2), 0);
    c.region_write(BAR0, reg::IRQ_ENABLE, &[3]).unwrap();
    c.region_write(BAR0, reg::IRQ_ENABLE, &[3; 8]).unwrap();
    c.region_write(BAR0, u64::MAX, &[3; 4]).unwrap();
    assert_eq!(read(&mut c, BAR0, reg::IRQ_ENABLE), 0);
    assert_eq!(read(&mut c, vfio::VFIO_PCI_BAR2_REGION_INDEX, 0), 0);

    // One descriptor, through memory and interrupt.
    let (ram, irq) = (Ram::new(64 * KIB), eventfd());
    let fd = ram.file.as_raw_fd();
    c.dma_map(0, RAM, 64 * KIB, fd).unwrap();
    let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
    c.set_irqs(MSIX, flags, 0, 1, &[irq.as_raw_fd()]).unwrap();
    write(&mut c, CONFIG, 4, 6);
    let desc = Desc::new(0, 0, 0, 0).fence(9).irq();
    for (i, word) in desc.words().iter().enumerate() {
        ram.write(RING - RAM + i as u64 * 8, &word.to_le_bytes());
    }
    for (offset, value) in [
        (reg::RING_BASE_LO, RING as u32),
        (reg::RING_ENTRIES, 8),
        (reg::FENCE_ADDR_LO, FENCE as u32),
        (reg::IRQ_ENABLE, 3),
        (reg::RING_ENABLE, 1),
        (reg::RING_TAIL, 1),
    ] {
        write(&mut c, BAR0, offset, value);
    }
    until("the interrupt", || signals(&irq) == 1);
    assert_eq!(ram.word(FENCE - RAM), 9);

    // Device reset: registers and bus mastering are off, memory stays.
    c.reset().unwrap();
    assert_eq!(read(&mut c, BAR0, reg::IRQ_ENABLE), 0);
    assert_eq!(read(&mut c, CONFIG, 4) & 0xffff, 0);
    c.dma_unmap(RAM, 64 * KIB).unwrap();
    c.set_irqs(MSIX, vfio::VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, &[])
        .unwrap();
    assert_eq!(read(&mut c, BAR0, 0), 0x5349_4d47, "still in step");

    c.shutdown().unwrap();
    assert_eq!(program.exit_code(), Some(0));
    assert!(!program.socket.exists());
}

#[test]
fn sigterm_ends_it_cleanly() {
    for connected in [false, true] {
        let (mut program, _) = Program::start("term", &[]);
        let client = connected.then(|| Client::new(&program.socket).unwrap());
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(program.child.id() as i32, libc::SIGTERM) };
        assert_eq!(program.exit_code(), Some(0));
        assert!(!program.socket.exists());
        drop(client);
    }
}

#[test]
fn a_socket_left_behind_is_replaced_but_not_one_in_use() {
    let socket = scratch("stale");
    drop(UnixListener::bind(&socket).unwrap());
    let (program, line) = Program::start_at(socket.clone(), &[]);
    assert!(line.contains("listening"));
    let second = command().arg("--socket").arg(&socket).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(
        text.contains("in use") && text.lines().count() == 1,
        "{text}"
    );
    let mut client = Client::new(&program.socket).unwrap();
    assert_eq!(read(&mut client, BAR0, 0), 0x5349_4d47, "undisturbed");
}

#[test]
fn exit_codes() {
    let run = |args: &[&str]| {
        let out = command().args(args).output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8(text).unwrap())
    };
    for args in [&[][..], &["--socket"], &["--socket", "x", "--vram", "1X"]] {
        let (code, text) = run(args);
        assert_eq!(code, Some(2), "{args:?}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let (code, text) = run(&["--socket", "/nonexistent/socket"]);
    assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
    let (code, text) = run(&["--help"]);
    assert!(code == Some(0) && text.contains("--vram SIZE"));
    let (code, text) = run(&["--version"]);
    assert!(code == Some(0) && text.starts_with("simgpu-device "));
}
