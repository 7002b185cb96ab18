// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A guest for tests: its memory, its interrupts, and a driver's moves.

#![allow(dead_code)] // each test program uses a part

pub mod gpu;

use simgpu_device::device::Device;
use simgpu_device::dma::Rights;
use simgpu_device::mapping::Mapping;
use simgpu_device::registers::*;
use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use std::time::{Duration, Instant};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const RW: Rights = Rights {
    read: true,
    write: true,
};

/// VRAM of the devices under test.
pub const VRAM: u64 = 2 * MIB;
/// Guest memory: bus addresses RAM .. RAM + RAM_SIZE, in two regions that
/// touch at RAM + RAM_SPLIT.
pub const RAM: u64 = 0x4000_0000;
pub const RAM_SIZE: u64 = 2 * MIB;
pub const RAM_SPLIT: u64 = MIB;
/// Where the tests put things.
pub const RING: u64 = RAM + 0x1000;
pub const FENCE: u64 = RAM + 0x3000;
pub const BUF: u64 = RAM + 0x10000;
pub const ENTRIES: u32 = 8;

/// A descriptor as a driver writes it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Desc {
    pub op: u32,
    pub flags: u32,
    pub seq: u64,
    pub src: u64,
    pub dst: u64,
    pub len: u64,
    pub arg: u64,
    pub reserved: u64,
    pub status: u64,
}

impl Desc {
    pub fn new(op: u32, src: u64, dst: u64, len: u64) -> Self {
        Self {
            op,
            src,
            dst,
            len,
            ..Default::default()
        }
    }

    pub fn arg(self, arg: u64) -> Self {
        Self { arg, ..self }
    }

    pub fn fence(self, seq: u64) -> Self {
        let flags = self.flags | 1;
        Self { flags, seq, ..self }
    }

    pub fn irq(self) -> Self {
        let flags = self.flags | 2;
        Self { flags, ..self }
    }

    pub fn words(&self) -> [u64; 8] {
        let head = u64::from(self.op) | (u64::from(self.flags) << 32);
        [
            head,
            self.seq,
            self.src,
            self.dst,
            self.len,
            self.arg,
            self.reserved,
            self.status,
        ]
    }
}

/// Guest memory and the file behind it.
pub struct Ram {
    pub file: File,
    map: Mapping,
}

impl Ram {
    pub fn new(size: u64) -> Self {
        let file = memfd();
        file.set_len(size).unwrap();
        let map = Mapping::shared(&file, 0, size as usize, true).unwrap();
        Self { file, map }
    }

    fn byte(&self, offset: u64) -> &AtomicU8 {
        assert!(offset < self.map.len() as u64);
        // SAFETY: inside the mapping, which outlives the reference; the engine
        // writes it through another mapping, hence the atomic.
        unsafe { AtomicU8::from_ptr(self.map.as_ptr().add(offset as usize)) }
    }

    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        (offset..offset + len)
            .map(|at| self.byte(at).load(Ordering::Relaxed))
            .collect()
    }

    pub fn write(&self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            self.byte(at).store(*byte, Ordering::Relaxed);
        }
    }

    /// Reads an aligned word, and all that was written before it.
    pub fn word(&self, offset: u64) -> u64 {
        self.atomic(offset).load(Ordering::Acquire)
    }

    /// Writes an aligned word, after all that was written before it.
    pub fn set_word(&self, offset: u64, value: u64) {
        self.atomic(offset).store(value, Ordering::Release);
    }

    fn atomic(&self, offset: u64) -> &AtomicU64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.map.len() as u64);
        // SAFETY: aligned and inside the mapping, as above.
        unsafe { AtomicU64::from_ptr(self.map.as_ptr().add(offset as usize).cast()) }
    }
}

/// A device, the guest's memory, and eventfds on its two vectors.
pub struct Guest {
    pub device: Device,
    pub ram: Ram,
    pub fence_irq: File,
    pub error_irq: File,
    tail: u32,
    entries: u32,
}

impl Guest {
    /// Powered on, bus master, interrupts on, ring not started.
    pub fn new() -> Self {
        Self::with(Device::new(VRAM).unwrap())
    }

    /// The same, with this device.
    pub fn with(device: Device) -> Self {
        let guest = Self {
            device,
            ram: Ram::new(RAM_SIZE),
            fence_irq: eventfd(),
            error_irq: eventfd(),
            tail: 0,
            entries: ENTRIES,
        };
        let (dma, file) = (guest.device.dma(), &guest.ram.file);
        let rest = RAM_SIZE - RAM_SPLIT;
        dma.map(RAM, RAM_SPLIT, file, 0, RW).unwrap();
        dma.map(RAM + RAM_SPLIT, rest, file, RAM_SPLIT, RW).unwrap();
        dma.set_bus_master(true);
        let fds = [&guest.fence_irq, &guest.error_irq];
        let fds = fds.map(|fd| fd.try_clone().unwrap());
        guest.device.irqs().assign(0, 2, fds.into()).unwrap();
        guest
    }

    /// The same, with the ring started.
    pub fn started() -> Self {
        let mut guest = Self::new();
        guest.start();
        guest
    }

    pub fn set_ring(&self, base: u64, entries: u32, fence: u64) {
        let d = &self.device;
        d.write(reg::RING_BASE_LO, base as u32);
        d.write(reg::RING_BASE_HI, (base >> 32) as u32);
        d.write(reg::RING_ENTRIES, entries);
        d.write(reg::FENCE_ADDR_LO, fence as u32);
        d.write(reg::FENCE_ADDR_HI, (fence >> 32) as u32);
    }

    pub fn start(&mut self) {
        self.set_ring(RING, self.entries, FENCE);
        self.device.write(reg::IRQ_ENABLE, IRQ_FENCE | IRQ_ERROR);
        self.device.write(reg::RING_ENABLE, 1);
        self.tail = 0;
    }

    pub fn get(&self, offset: u64) -> u32 {
        self.device.read(offset)
    }

    pub fn set(&self, offset: u64, value: u32) {
        self.device.write(offset, value);
    }

    /// Puts descriptors on the ring and rings the doorbell. Returns the index
    /// of the first.
    pub fn submit(&mut self, descs: &[Desc]) -> u32 {
        let first = self.tail;
        for desc in descs {
            let at = RING - RAM + u64::from(self.tail) * 64;
            for (i, word) in desc.words().iter().enumerate() {
                self.ram.write(at + i as u64 * 8, &word.to_le_bytes());
            }
            self.tail = (self.tail + 1) % self.entries;
        }
        self.set(reg::RING_TAIL, self.tail);
        first
    }

    /// Waits until the ring is empty.
    pub fn idle(&self) {
        until("the ring is empty", || {
            self.get(reg::RING_HEAD) == self.get(reg::RING_TAIL)
        });
        // Fence and interrupt come after the head; a stop comes after both.
        self.set(reg::RING_ENABLE, 0);
        until("the engine has stopped", || {
            self.get(reg::STATUS) & STATUS_RUNNING == 0
        });
    }

    /// The status in ring slot `index`.
    pub fn status(&self, index: u32) -> u32 {
        self.ram.word(RING - RAM + u64::from(index) * 64 + 56) as u32
    }

    /// Starts afresh, runs one descriptor, returns its status.
    pub fn run(&mut self, desc: Desc) -> u32 {
        self.reset();
        self.start();
        let index = self.submit(&[desc]);
        self.idle();
        self.status(index)
    }

    /// RESET, and waits for it.
    pub fn reset(&self) {
        self.set(reg::CONTROL, CONTROL_RESET);
        until("RESET is done", || self.get(reg::CONTROL) == 0);
    }

    pub fn fence(&self) -> u64 {
        self.ram.word(FENCE - RAM)
    }

    pub fn fence_errors(&self) -> u64 {
        self.ram.word(FENCE - RAM + 8)
    }

    /// Waits for a fence by its memory.
    pub fn wait_fence(&self, seq: u64) {
        until("the fence", || self.fence() == seq);
    }

    /// Writes VRAM by the engine, through BUF.
    pub fn write_vram(&mut self, offset: u64, data: &[u8]) {
        self.ram.write(BUF - RAM, data);
        assert_eq!(self.run(Desc::new(1, BUF, offset, data.len() as u64)), 1);
    }

    /// Reads VRAM by the engine, through BUF.
    pub fn read_vram(&mut self, offset: u64, len: u64) -> Vec<u8> {
        assert_eq!(self.run(Desc::new(2, offset, BUF, len)), 1);
        self.ram.read(BUF - RAM, len)
    }
}

/// Waits until `done`; fails the test after a while.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Bytes that are easy to tell apart.
pub fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed | 1);
    (0..len).map(|_| rng.next() as u8).collect()
}

/// A small random number generator (xorshift64*).
pub struct Rng(pub u64);

impl Rng {
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// How often an eventfd was signalled since the last look.
pub fn signals(mut fd: &File) -> u64 {
    let mut buf = [0; 8];
    match fd.read_exact(&mut buf) {
        Ok(()) => u64::from_ne_bytes(buf),
        Err(_) => 0,
    }
}

pub fn eventfd() -> File {
    // SAFETY: no pointers are passed.
    owned(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

pub fn memfd() -> File {
    // SAFETY: the name is a C string.
    owned(unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) })
}

fn owned(fd: i32) -> File {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { File::from_raw_fd(fd) }
}
