// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a driver does for virtual addresses: page tables, jobs, faults.

use super::{until, Guest, BUF, RAM, RAM_SIZE};
use simgpu_device::device::Device;
use simgpu_device::registers::*;
use std::collections::HashMap;

/// Bits of page table entries.
pub const VALID: u64 = 1;
pub const WRITE: u64 = 2;
pub const ATOMIC: u64 = 4;
pub const LEAF: u64 = 8;
pub const IN_VRAM: u64 = 1 << 4;
pub const IN_PEER: u64 = 2 << 4;
/// A page that may be written, and so on.
pub const RO: u64 = VALID | LEAF;
pub const RW: u64 = RO | WRITE;
pub const ALL: u64 = RW | ATOMIC;

pub const PAGE: u64 = 4096;
pub const LARGE: u64 = 2 << 20;
/// A target that stands for all.
pub const EVERY: u64 = u64::MAX;

/// Where things are in guest memory.
const RINGS_AT: u64 = RAM + 0x4000; // ring n: 0x800 bytes
const FENCES_AT: u64 = RAM + 0x7800; // ring n: 64 bytes
const FAULTS_AT: u64 = RAM + 0x8000;
const TABLES_AT: u64 = RAM + 0x10_0000; // to the end
/// Free for data: DATA .. DATA_END.
pub const DATA: u64 = BUF;
pub const DATA_END: u64 = TABLES_AT;
pub const ENTRIES: u32 = 8;

/// Offsets in a ring block.
pub const STATUS: u64 = 0x34;
pub const KIND: u64 = 0x38;
pub const COUNT: u64 = 0x3c;
pub const DELAY: u64 = 0x40;
pub const CONTROL: u64 = 0x44;

/// A job as a driver writes it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Job {
    pub op: u32,
    pub flags: u32,
    pub src: u64,
    pub src2: u64,
    pub dst: u64,
    pub len: u64,
    pub arg: u64,
    pub stride: u64,
    pub asid: u32,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub status: u32,
    pub access: u32,
    pub address: u64,
    pub done: u64,
    pub result: u64,
}

/// An entry of the fault buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub address: u64,
    pub len: u64,
    pub asid: u32,
    pub queue: u32,
    pub access: u32,
    pub kind: u32,
    pub token: u32,
}

/// A guest whose driver uses all rings.
pub struct Gpu {
    pub g: Guest,
    /// Tables by address space, level and index bits above it.
    tables: HashMap<(u32, u64, u64), u64>,
    next_table: u64,
    tails: [u32; RINGS],
    seqs: [u64; RINGS],
    get: u32,
    fault_entries: u32,
}

impl Gpu {
    pub fn new() -> Self {
        Self::with(Guest::new())
    }

    pub fn with_device(device: Device) -> Self {
        Self::with(Guest::with(device))
    }

    fn with(g: Guest) -> Self {
        let mut gpu = Self {
            g,
            tables: HashMap::new(),
            next_table: TABLES_AT,
            tails: [0; RINGS],
            seqs: [0; RINGS],
            get: 0,
            fault_entries: 64,
        };
        gpu.start();
        gpu
    }

    /// Starts all rings but the copy ring, and the fault buffer, after a RESET.
    pub fn start(&mut self) {
        for ring in MMU..RINGS {
            self.start_ring(ring);
        }
        self.start_faults(64);
        self.g.set(reg::IRQ_ENABLE, 0xff);
        self.next_table = TABLES_AT;
        self.tables.clear();
    }

    pub fn start_ring(&mut self, ring: usize) {
        self.g.ram.write(ring_at(ring) - RAM, &[0; 0x800]);
        self.g.ram.write(fence_at(ring) - RAM, &[0; 64]);
        let block = block(ring);
        self.g.set(block, ring_at(ring) as u32);
        self.g.set(block + 0x08, ENTRIES);
        self.g.set(block + 0x18, fence_at(ring) as u32);
        self.g.set(block + 0x14, 1);
        (self.tails[ring], self.seqs[ring]) = (0, 0);
    }

    pub fn start_faults(&mut self, entries: u32) {
        let (g, at) = (&self.g, reg::FAULTS);
        g.ram.write(FAULTS_AT - RAM, &[0; 4096]);
        g.set(at + 0x14, 0);
        g.set(at, FAULTS_AT as u32);
        g.set(at + 0x08, entries);
        g.set(at + 0x14, 1);
        (self.get, self.fault_entries) = (0, entries);
    }

    /// Puts an entry into the page tables of `asid`: for a 4 KiB page, or if `large`
    /// for one of 2 MiB.
    pub fn set_entry(&mut self, asid: u32, va: u64, entry: u64, large: bool) {
        let last = u64::from(large);
        let mut table = self.table(asid, 4, 0);
        for level in (last + 1..4).rev() {
            let next = self.table(asid, level, va >> (12 + 9 * level));
            self.g
                .ram
                .set_word(slot(table, va, level) - RAM, next | VALID);
            table = next;
        }
        self.g.ram.set_word(slot(table, va, last) - RAM, entry);
    }

    pub fn map(&mut self, asid: u32, va: u64, entry: u64) {
        self.set_entry(asid, va, entry, false);
    }

    /// The table of `level` for the address bits above it; level 4 is the root.
    pub fn table(&mut self, asid: u32, level: u64, above: u64) -> u64 {
        let key = (asid, level, above);
        if let Some(&table) = self.tables.get(&key) {
            return table;
        }
        let table = self.next_table;
        self.next_table += PAGE;
        assert!(self.next_table <= RAM + RAM_SIZE, "out of tables");
        self.g.ram.write(table - RAM, &[0; PAGE as usize]);
        self.tables.insert(key, table);
        if level == 4 {
            self.set_root(asid, table | VALID);
        }
        table
    }

    pub fn set_root(&self, asid: u32, root: u64) {
        let at = reg::ASID_ROOTS + 8 * u64::from(asid);
        self.g.set(at + 4, (root >> 32) as u32);
        self.g.set(at, root as u32);
    }

    /// Puts words on a ring; returns the index.
    fn push(&mut self, ring: usize, words: &[u64]) -> u32 {
        let index = self.tails[ring];
        let at = ring_at(ring) - RAM + u64::from(index) * words.len() as u64 * 8;
        for (i, word) in words.iter().enumerate() {
            self.g.ram.set_word(at + i as u64 * 8, *word);
        }
        self.tails[ring] = (index + 1) % ENTRIES;
        self.g.set(block(ring) + 0x10, self.tails[ring]);
        index
    }

    /// Starts a job with fence and interrupt. Returns its index.
    pub fn submit(&mut self, queue: usize, job: Job) -> u32 {
        let ring = QUEUE0 + queue;
        self.seqs[ring] += 1;
        let flags = u64::from(job.flags | 3);
        let mut words = [0; 16];
        words[..9].copy_from_slice(&[
            u64::from(job.op) | (flags << 32),
            self.seqs[ring],
            job.src,
            job.src2,
            job.dst,
            job.len,
            job.arg,
            job.stride,
            job.asid.into(),
        ]);
        self.push(ring, &words)
    }

    /// Waits for all jobs of the queue, and says how the one at `index` ended.
    pub fn wait(&self, queue: usize, index: u32) -> Ended {
        let ring = QUEUE0 + queue;
        until("the job is done", || self.fence(ring) == self.seqs[ring]);
        self.ended(queue, index)
    }

    /// How the job at `index` ended; status 0: not yet.
    pub fn ended(&self, queue: usize, index: u32) -> Ended {
        let at = ring_at(QUEUE0 + queue) - RAM + u64::from(index) * 128 + 96;
        let word = |i: u64| self.g.ram.word(at + i * 8);
        Ended {
            status: word(0) as u32,
            access: (word(0) >> 32) as u32,
            address: word(1),
            done: word(2),
            result: word(3),
        }
    }

    pub fn run(&mut self, queue: usize, job: Job) -> Ended {
        let index = self.submit(queue, job);
        self.wait(queue, index)
    }

    pub fn fence(&self, ring: usize) -> u64 {
        self.g.ram.word(fence_at(ring) - RAM)
    }

    /// Starts a command of the MMU ring. Returns its index.
    pub fn start_command(
        &mut self,
        op: u64,
        target: u64,
        address: u64,
        len: u64,
        token: u64,
    ) -> u32 {
        self.seqs[MMU] += 1;
        let words = [
            op | (3 << 32),
            self.seqs[MMU],
            address,
            token,
            len,
            target,
            0,
            0,
        ];
        self.push(MMU, &words)
    }

    /// Waits for all commands, and returns the status of the one at `index`.
    pub fn wait_command(&self, index: u32) -> u32 {
        until("the acknowledge", || self.fence(MMU) == self.seqs[MMU]);
        self.g
            .ram
            .word(ring_at(MMU) - RAM + u64::from(index) * 64 + 56) as u32
    }

    fn command(&mut self, op: u64, target: u64, address: u64, len: u64, token: u64) -> u32 {
        let index = self.start_command(op, target, address, len, token);
        self.wait_command(index)
    }

    pub fn invalidate(&mut self, asid: u32, address: u64, len: u64) {
        assert_eq!(self.command(1, asid.into(), address, len, 0), 1);
    }

    pub fn replay(&mut self, target: u64) {
        assert_eq!(self.command(2, target, 0, 0, 0), 1);
    }

    pub fn cancel(&mut self, queue: u64, token: u64) -> u32 {
        self.command(3, queue, 0, 0, token)
    }

    pub fn cancel_asid(&mut self, target: u64) {
        assert_eq!(self.command(4, target, 0, 0, 0), 1);
    }

    /// The next entry of the fault buffer, if there is one.
    pub fn poll_fault(&mut self) -> Option<Fault> {
        let at = FAULTS_AT - RAM + u64::from(self.get) * 64;
        let word = |i: u64| self.g.ram.word(at + i * 8);
        let token = (word(7) >> 32) as u32;
        if token == 0 {
            return None;
        }
        assert_eq!([word(4), word(5), word(6), word(7) << 32], [0; 4]);
        let fault = Fault {
            address: word(0),
            len: word(1),
            asid: word(2) as u32,
            queue: (word(2) >> 32) as u32,
            access: word(3) as u32,
            kind: (word(3) >> 32) as u32,
            token,
        };
        self.g.ram.set_word(at + 56, 0);
        self.get = (self.get + 1) % self.fault_entries;
        self.g.set(reg::FAULTS + 0x10, self.get);
        Some(fault)
    }

    /// Waits for a fault.
    pub fn fault(&mut self) -> Fault {
        let mut found = None;
        until("a fault", || {
            found = self.poll_fault();
            found.is_some()
        });
        found.unwrap()
    }

    /// A ring's status register.
    pub fn status(&self, ring: usize) -> u32 {
        self.g.get(block(ring) + STATUS)
    }

    /// Sets the test knobs whose first register is `at`.
    pub fn inject(&self, at: u64, kind: u32, count: u32, delay_us: u32) {
        self.g.set(at + 8, delay_us);
        self.g.set(at, kind);
        self.g.set(at + 4, count);
    }

    pub fn counter(&self, offset: u64) -> u64 {
        let at = reg::COUNTERS + offset;
        u64::from(self.g.get(at)) | (u64::from(self.g.get(at + 4)) << 32)
    }
}

/// The registers of a ring.
pub fn block(ring: usize) -> u64 {
    reg::RINGS + (ring - MMU) as u64 * reg::RING_BLOCK
}

fn ring_at(ring: usize) -> u64 {
    RINGS_AT + ring as u64 * 0x800 - 0x800
}

fn fence_at(ring: usize) -> u64 {
    FENCES_AT + ring as u64 * 64
}

fn slot(table: u64, va: u64, level: u64) -> u64 {
    table + ((va >> (12 + 9 * level)) & 511) * 8
}
