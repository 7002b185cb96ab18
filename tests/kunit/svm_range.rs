// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Ranges in a device's page tables: a table in RAM, read as the device would.

use crate::{
    ffi::{
        self,
        Map, //
    },
    gpu::{
        Gpu,
        Memory,
        VRAM_PAGES, //
    },
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    thread::Thread,
    user::UserMemory,
    vram::{
        Hook,
        Layout, //
    }, //
};
use core::pin::Pin;
use drm_pagemap::{
    migrate::Details,
    mm::{
        Access,
        NR_PMD_PAGES,
        PMD_ORDER, //
    },
    Endpoint,
    OwnerList,
    Peer,
    SvmOps,
    SvmPages,
    SvmPiece,
    SvmPlace,
    SvmRange, //
};
use kernel::{
    mm::MmWithUser,
    new_mutex,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};

/// The device's page table: for each page of the memory, where it is.
struct Table {
    start: usize,
    entries: KVVec<Option<SvmPiece>>,
    maps: usize,
    unmaps: usize,
}

/// Shared by the ranges of a test.
type Shared = Arc<Mutex<Table>>;

struct Ops {
    fail: Hook,
}

impl SvmOps for Ops {
    type Pagemap = Memory;
    type State = Table;

    fn map(&self, table: &mut Table, pages: &SvmPages) -> Result {
        self.fail.call()?;
        table.maps += 1;
        for piece in pages.pieces() {
            for page in 0..1 << piece.order {
                let offset = (page << PAGE_SHIFT) as u64;
                let index = ((piece.addr - table.start) >> PAGE_SHIFT) + page;
                let place = match piece.place {
                    SvmPlace::Ram(addr) => SvmPlace::Ram(addr + offset),
                    SvmPlace::Own(addr) => SvmPlace::Own(addr + offset),
                    peer => peer,
                };

                *table.entries.get_mut(index).ok_or(EINVAL)? = Some(SvmPiece { place, ..*piece });
            }
        }
        Ok(())
    }

    fn unmap(&self, table: &mut Table, pages: &SvmPages) {
        table.unmaps += 1;
        for addr in pages.range().step_by(PAGE_SIZE) {
            table.entries[(addr - table.start) >> PAGE_SHIFT] = None;
        }
    }
}

fn table(memory: &UserMemory) -> Result<Shared> {
    let table = Table {
        start: memory.range().start,
        entries: KVVec::from_elem(None, memory.nr_pages(), GFP_KERNEL)?,
        maps: 0,
        unmaps: 0,
    };

    Arc::pin_init(
        new_mutex!(table, "drm_pagemap_kunit::svm_range::Table"),
        GFP_KERNEL,
    )
}

fn range(
    mm: &MmWithUser,
    gpu: &Gpu,
    memory: &UserMemory,
    table: &Shared,
) -> Result<Pin<KBox<SvmRange<Ops>>>> {
    KBox::pin_init(
        SvmRange::new(
            gpu.pagemap().into(),
            mm,
            memory.range(),
            table.clone(),
            Ops { fail: Hook::new() },
        ),
        GFP_KERNEL,
    )
}

/// Reads all pages through the table, as the device does, and compares them with the pattern of
/// `seed`. With the lock held, as a device's accesses end before its page tables change.
fn verify(gpu: &Gpu, memory: &UserMemory, table: &Table, seed: u64) -> Outcome {
    let mut bytes = KVec::from_elem(0u8, PAGE_SIZE, GFP_ATOMIC)?;
    let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_ATOMIC)?;

    for page in 0..memory.nr_pages() {
        let piece = table.entries[page].ok_or(ENXIO)?;

        match piece.place {
            // SAFETY: RAM that is mapped for the device, until the table changes.
            SvmPlace::Ram(addr) => unsafe {
                core::ptr::copy_nonoverlapping(
                    ffi::drm_pagemap_kunit_dma_to_virt(gpu.dev(), addr),
                    bytes.as_mut_ptr(),
                    PAGE_SIZE,
                )
            },
            SvmPlace::Own(offset) => gpu
                .vram()
                .read_page((offset >> PAGE_SHIFT) as usize, &mut bytes),
            // SAFETY: The address of the other mock's memory, of a piece of one page.
            SvmPlace::Peer(addr) => unsafe {
                core::ptr::copy_nonoverlapping(
                    core::ptr::with_exposed_provenance(addr.addr() as usize),
                    bytes.as_mut_ptr(),
                    PAGE_SIZE,
                )
            },
        }
        memory.pattern(seed, page, &mut expected);
        memory.compare(page, &bytes, &expected)?;
    }
    Ok(())
}

fn is_ram(piece: &Option<SvmPiece>) -> bool {
    piece.is_some_and(|piece| matches!(piece.place, SvmPlace::Ram(_)))
}

fn is_own(piece: &Option<SvmPiece>) -> bool {
    piece.is_some_and(|piece| matches!(piece.place, SvmPlace::Own(_)))
}

/// Pages of RAM, until the process unmaps one.
fn ram(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let table = table(&memory)?;
    let range = range(test.mm(), gpu, &memory, &table)?;

    check!(!range.is_populated(Access::Read));
    range.populate(Access::Write)?;
    check!(range.is_populated(Access::Read) && range.is_populated(Access::Write));
    check_eq!(gpu.dma_maps()?, 8);
    check!(gpu.pagemap().is_active());
    {
        let table = table.lock();

        check!(table.entries.iter().all(is_ram));
        check!(table.entries.iter().flatten().all(|piece| piece.writable));
        verify(gpu, &memory, &table, 1)?;
    }

    // It is there: nothing happens.
    range.populate(Access::Read)?;
    check_eq!(table.lock().maps, 1);

    memory.part(3..4).unmap()?;
    check!(!range.is_populated(Access::Read));
    check!(range.is_gone());
    check!(table.lock().entries.iter().all(|entry| entry.is_none()));
    check_eq!(table.lock().unmaps, 1);
    gpu.check_no_dma()?;
    check!(!gpu.pagemap().is_active());
    check_err!(range.populate(Access::Read), EFAULT);

    // Once for each success.
    drop(range);
    check_eq!(table.lock().unmaps, 1);
    Ok(())
}

/// What is only read is mapped so, and again when it is written to.
fn read_then_write(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map(4)?;
    let table = table(&memory)?;
    let range = range(test.mm(), gpu, &memory, &table)?;

    range.populate(Access::Read)?;
    check!(!range.is_populated(Access::Write));
    check!(table
        .lock()
        .entries
        .iter()
        .flatten()
        .all(|piece| !piece.writable));
    range.populate(Access::Write)?;
    check!(range.is_populated(Access::Write));
    check!(table
        .lock()
        .entries
        .iter()
        .flatten()
        .all(|piece| piece.writable));
    // Page faults for writing replaced the page of zeroes.
    check!(!range.is_gone());

    range.unmap();
    check!(!range.is_populated(Access::Read));
    gpu.check_no_dma()?;
    {
        let table = table.lock();

        check_eq!(table.maps, table.unmaps);
    }
    memory.verify_zero()
}

/// Pages in the device's own memory, and in both places. They are unmapped when they move.
fn device_memory(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let table = table(&memory)?;
    let range = range(test.mm(), gpu, &memory, &table)?;

    range.populate(Access::Write)?;
    gpu.migrate(test.mm(), memory.pages(2..6))?;
    check!(!range.is_populated(Access::Read));
    gpu.check_no_dma()?;

    range.populate(Access::Write)?;
    {
        let table = table.lock();

        for (page, entry) in table.entries.iter().enumerate() {
            check_eq!(is_own(entry), (2..6).contains(&page));
            check_eq!(is_ram(entry), !(2..6).contains(&page));
        }
        verify(gpu, &memory, &table, 1)?;
    }

    memory.touch(3)?;
    check!(!range.is_populated(Access::Read));
    gpu.check_no_dma()?;
    check!(!range.is_gone());
    range.populate(Access::Read)?;
    verify(gpu, &memory, &table.lock(), 1)?;
    memory.verify(1)
}

/// Pages in device memory that may not be written to become ones that may, in RAM, even within a
/// time slice; others stay where they are.
fn shared_in_device(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_kind(8, Map::PrivateReadOnly)?;
    let table = table(&memory)?;
    let range = range(test.mm(), gpu, &memory, &table)?;
    let slice = Details::with_timeslice_ms(3_600_000);

    for part in [1..3, 5..6] {
        gpu.migrate_as(test.mm(), memory.pages(part), Layout::Contiguous, &slice)?;
    }
    check_err!(range.populate(Access::Write), EPERM);
    memory.make_writable()?;
    gpu.migrate(test.mm(), memory.pages(6..8))?;

    // To be read, they are where they shall be.
    check!(!range.populate(Access::Read)?);
    for (page, entry) in table.lock().entries.iter().enumerate() {
        check_eq!(is_own(entry), [1, 2, 5, 6, 7].contains(&page));
    }

    check!(range.populate(Access::Write)?);
    for (page, entry) in table.lock().entries.iter().enumerate() {
        check!(entry.is_some_and(|piece| piece.writable));
        check_eq!(is_own(entry), [6, 7].contains(&page));
    }
    check!(!range.populate(Access::Write)?);
    memory.verify_zero()
}

/// A large folio is one piece, or as few as the DMA layer allows.
fn large_folios(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(NR_PMD_PAGES)?;
    let table = table(&memory)?;

    memory.fill_huge(1)?;
    let range = range(test.mm(), gpu, &memory, &table)?;
    range.populate(Access::Write)?;
    let order = PMD_ORDER.min(gpu.dma_max_pages().ilog2());
    {
        let table = table.lock();

        check!(table
            .entries
            .iter()
            .all(|piece| piece.is_some_and(|piece| piece.order == order)));
        verify(gpu, &memory, &table, 1)?;
    }

    gpu.migrate(test.mm(), memory.range())?;
    range.populate(Access::Write)?;
    {
        let table = table.lock();

        check!(table
            .entries
            .iter()
            .all(|piece| is_own(piece) && piece.is_some_and(|piece| piece.order == PMD_ORDER)));
        verify(gpu, &memory, &table, 1)?;
    }
    memory.verify(1)
}

/// Those with the same number are connected.
struct Port(u32);

impl Endpoint for Port {
    fn has_interconnect(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

static PORTS: OwnerList<Port> = OwnerList::new();

/// Pages in the memory of another device of the group stay there.
fn peer_memory(test: &mut Test, _: &Gpu) -> Outcome {
    let a = Gpu::in_group(VRAM_PAGES, Peer::join(&PORTS, Port(1))?)?;
    let b = Gpu::in_group(VRAM_PAGES, Peer::join(&PORTS, Port(1))?)?;
    let outcome = (|| {
        // Aligned, so that it comes home as a whole.
        let memory = UserMemory::map_aligned(4)?;
        memory.fill(1)?;
        let table = table(&memory)?;
        let range = range(test.mm(), &b, &memory, &table)?;

        a.migrate(test.mm(), memory.range())?;
        range.populate(Access::Read)?;
        check_eq!(a.vram().mapped.load(Relaxed), 4);
        verify(&b, &memory, &table.lock(), 1)?;
        memory.touch(0)?;
        check_eq!(a.vram().mapped.load(Relaxed), 0);

        // A peer that can't map: what could be is undone.
        a.migrate(test.mm(), memory.range())?;
        a.vram().device_map.fail(3, 1, EIO);
        check_err!(range.populate(Access::Read), EFAULT);
        check_eq!(a.vram().mapped.load(Relaxed), 0);
        check!(!range.is_populated(Access::Read));
        memory.verify(1)
    })();

    test.end_mm();
    outcome.and(a.finish()).and(b.finish())
}

/// Errors leave nothing mapped, and the range as usable as before.
fn errors(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let shared = table(&memory)?;
    let populated = range(test.mm(), gpu, &memory, &shared)?;

    populated.ops().fail.fail(1, 1, EIO);
    check_err!(populated.populate(Access::Write), EIO);
    check!(!populated.is_populated(Access::Read));
    gpu.check_no_dma()?;

    gpu.fail_dma(5, 1)?;
    check_err!(
        test.without_warnings(|| populated.populate(Access::Write)),
        EFAULT
    );
    check!(!populated.is_populated(Access::Read));
    gpu.check_no_dma()?;

    populated.populate(Access::Write)?;
    verify(gpu, &memory, &shared.lock(), 1)?;

    let read_only = UserMemory::map_kind(4, Map::PrivateReadOnly)?;
    let shared = table(&read_only)?;
    let refused = range(test.mm(), gpu, &read_only, &shared)?;
    check_err!(refused.populate(Access::Write), EPERM);
    refused.populate(Access::Read)?;

    // The address space ends with both in use.
    test.end_mm();
    check!(!populated.is_populated(Access::Read) && !refused.is_populated(Access::Read));
    check!(populated.is_gone());
    check_err!(populated.populate(Access::Read), EFAULT);
    gpu.check_no_dma()
}

/// A device that reads all the time, and pages that move all the time: what it reads is right.
fn under_fire(test: &mut Test, gpu: &Gpu) -> Outcome {
    const ROUNDS: usize = 200;

    let memory = UserMemory::filled(16, 1)?;
    let table = table(&memory)?;
    let range = range(test.mm(), gpu, &memory, &table)?;
    let handle = gpu.handle();
    let rounds = |mm: &MmWithUser| {
        for round in 0..ROUNDS {
            match handle.migrate(mm, memory.pages(round % 8..round % 8 + 8)) {
                Err(err) if err != EBUSY => return Err(err.into()),
                _ => (),
            }
            memory.verify(1)?;
        }
        Ok(())
    };
    let done = Atomic::new(false);
    let thread = Thread::start(|mm: &MmWithUser| {
        let outcome = rounds(mm);

        done.store(true, Relaxed);
        outcome
    })?;
    let mut valid = 0;

    while !done.load(Relaxed) {
        match range.populate(Access::Write) {
            Err(err) if err != EBUSY => return Err(err.into()),
            _ => (),
        }
        let table = table.lock();
        if table.entries.iter().all(|entry| entry.is_some()) {
            verify(gpu, &memory, &table, 1)?;
            valid += 1;
        }
    }
    thread.join()?;
    check!(valid > 0);
    check!(table.lock().unmaps > 1);
    memory.verify(1)
}

suite!(
    drm_pagemap_svm_range,
    crate::harness::with_gpu,
    [
        ram,
        read_then_write,
        device_memory,
        shared_in_device,
        large_folios,
        peer_memory,
        errors,
        under_fire,
    ]
);
