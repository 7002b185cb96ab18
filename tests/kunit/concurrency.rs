// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Many tasks at once, on the same pages and on others.

use crate::{
    gpu::{
        Gpu,
        Handle, //
    },
    harness::{
        check,
        check_eq,
        suite,
        Failure,
        Outcome,
        Test, //
    },
    random::Random,
    thread::Thread,
    user::UserMemory,
    vram::Pages, //
};
use core::pin::Pin;
use drm_pagemap::{
    mm::LockedMm,
    Devmem,
    Pagemap, //
};
use kernel::{
    mm::MmWithUser,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// How often each thread does its work.
const ROUNDS: usize = 40;

/// Allocations that were migrated to, for evicting them.
#[pin_data]
struct Residents {
    #[pin]
    list: Mutex<KVec<ARef<Devmem<Pages>>>>,
}

impl Residents {
    fn new() -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                list <- new_mutex!(KVec::new(), "drm_pagemap_kunit::Residents"),
            }),
            GFP_KERNEL,
        )
    }

    fn push(&self, devmem: ARef<Devmem<Pages>>) -> Result {
        Ok(self.list.lock().push(devmem, GFP_KERNEL)?)
    }

    fn pop(&self) -> Option<ARef<Devmem<Pages>>> {
        self.list.lock().pop()
    }

    /// Evicts the newest one. Returns whether there was one.
    fn evict_one(&self) -> Outcome<bool> {
        let Some(devmem) = self.pop() else {
            return Ok(false);
        };

        match devmem.evict_to_ram().1 {
            Ok(()) => (),
            // Others are at its pages. They are not lost: a fault brings them home.
            Err(err) if err == EBUSY => (),
            Err(err) => return Err(err.into()),
        }
        Ok(true)
    }

    /// Migrates, and remembers the allocation; being too late is no failure.
    fn migrate(&self, gpu: &Handle, mm: &MmWithUser, memory: &UserMemory) -> Outcome<bool> {
        match gpu.migrate(mm, memory.range()) {
            Ok(devmem) => {
                self.push(devmem)?;
                Ok(true)
            }
            Err(err) if err == EBUSY || err == ENOSPC => Ok(false),
            Err(err) => Err(err.into()),
        }
    }
}

/// All at the same pages: some populate, some read, some evict.
fn same_pages(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(32)?;
    let residents = Residents::new()?;
    let residents = &*residents;
    let migrations = Atomic::new(0);

    memory.fill(1)?;
    let populate = |gpu: Handle| {
        let migrations = &migrations;

        move |mm: &MmWithUser| {
            for _ in 0..ROUNDS {
                if residents.migrate(&gpu, mm, &memory)? {
                    migrations.fetch_add(1, Relaxed);
                }
                fsleep(Delta::from_micros(50));
            }
            Ok(())
        }
    };
    let read = |seed| {
        move |_: &MmWithUser| {
            let mut random = Random::new(seed);

            for _ in 0..4 * ROUNDS {
                let page = random.below(32);
                memory.part(page..page + 1).verify(1)?;
            }
            Ok(())
        }
    };
    let evict = |_: &MmWithUser| {
        for _ in 0..ROUNDS {
            residents.evict_one()?;
            fsleep(Delta::from_micros(50));
        }
        Ok(())
    };

    let a = Thread::start(populate(gpu.handle()))?;
    let b = Thread::start(populate(gpu.handle()))?;
    let c = Thread::start(read(2))?;
    let d = Thread::start(read(3))?;
    let e = Thread::start(evict)?;

    a.join()?;
    b.join()?;
    c.join()?;
    d.join()?;
    e.join()?;
    check!(migrations.load(Relaxed) > 0);
    memory.verify(1)?;
    while residents.pop().is_some() {}
    Ok(())
}

/// Threads write, each to its own page; nothing that was written may get lost.
fn writers(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(16)?;
    let residents = Residents::new()?;
    let residents = &*residents;
    let moved = Atomic::new(false);
    let handle = gpu.handle();

    memory.fill(1)?;
    let write = |page: usize| {
        let moved = &moved;

        move |_: &MmWithUser| {
            let mut read = [0u8; 8];
            let mut count = 0u64;

            while !moved.load(Relaxed) {
                count += 1;
                memory.write(page, &count.to_ne_bytes())?;
                memory.read(page, &mut read)?;
                check_eq!(u64::from_ne_bytes(read), count);
            }
            Ok(())
        }
    };
    let move_about = |mm: &MmWithUser| {
        let outcome = (|| {
            for _ in 0..ROUNDS {
                residents.migrate(&handle, mm, &memory)?;
                residents.evict_one()?;
            }
            Ok(())
        })();

        moved.store(true, Relaxed);
        outcome
    };

    let a = Thread::start(write(0))?;
    let b = Thread::start(write(7))?;
    let c = Thread::start(write(15))?;
    let d = Thread::start(move_about)?;

    a.join()?;
    b.join()?;
    c.join()?;
    d.join()?;
    check!(gpu.vram().copy_to_devmem.calls() > 0);
    memory.part(1..7).verify(1)?;
    memory.part(8..15).verify(1)
}

/// Each thread has its own pages, and goes through all there is.
fn other_pages(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let worker = |gpu: Handle, seed: u64| {
        move |mm: &MmWithUser| {
            // Apart from those of other threads: what a fault looks at is aligned.
            let memory = UserMemory::map_aligned(32)?;

            memory.fill(seed)?;
            for round in 0..ROUNDS as u64 {
                let devmem = gpu.migrate(mm, memory.range())?;

                gpu.check_in_device(mm, &memory)?;
                if round % 2 == 0 {
                    devmem.evict_to_ram().1?;
                }
                memory.verify(seed + round)?;
                memory.fill(seed + round + 1)?;
            }
            memory.unmap()?;
            Ok(())
        }
    };
    let a = Thread::start(worker(gpu.handle(), 1000))?;
    let b = Thread::start(worker(gpu.handle(), 2000))?;
    let c = Thread::start(worker(gpu.handle(), 3000))?;

    a.join()?;
    b.join()?;
    c.join()?;
    Ok(())
}

/// More memory than the device has: who finds it full evicts somebody else, as drivers do.
fn memory_pressure(test: &mut Test) -> Outcome {
    let gpu = Gpu::with_pages(64)?;
    let residents = Residents::new()?;
    let residents = &*residents;
    let worker = |gpu: Handle, seed: u64| {
        move |mm: &MmWithUser| {
            let memory = UserMemory::filled(30, seed)?;

            for _ in 0..ROUNDS {
                for _ in 0..50 {
                    if residents.migrate(&gpu, mm, &memory)? {
                        break;
                    }
                    residents.evict_one()?;
                    drm_pagemap::queue::flush();
                }
                memory.verify(seed)?;
            }
            Ok(())
        }
    };
    let a = Thread::start(worker(gpu.handle(), 1))?;
    let b = Thread::start(worker(gpu.handle(), 2))?;
    let c = Thread::start(worker(gpu.handle(), 3))?;
    let outcomes = (a.join(), b.join(), c.join());

    while residents.pop().is_some() {}
    test.end_mm();
    outcomes.0?;
    outcomes.1?;
    outcomes.2?;
    gpu.finish()
}

/// `memory_pressure`, beside another device.
fn pressure(test: &mut Test, _gpu: &Gpu) -> Outcome {
    memory_pressure(test)
}

/// Pages are thrown away while they move: what is read is the data, or zero.
fn throwing_away(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map_aligned(16)?;
    let residents = Residents::new()?;
    let residents = &*residents;
    let done = Atomic::new(false);
    let handle = gpu.handle();

    memory.fill(1)?;
    let throw = |mm: &MmWithUser| {
        let mut random = Random::new(5);
        let outcome = (|| {
            for _ in 0..ROUNDS {
                let page = random.below(16);

                {
                    let locked = LockedMm::read(mm);
                    let vma = locked.vma_lookup(memory.addr(page)).ok_or(ENOENT)?;
                    vma.zap_vma_range(memory.addr(page), PAGE_SIZE);
                }
                memory.part(page..page + 1).verify_zero()?;
                memory.part(page..page + 1).fill(1)?;
            }
            Ok(())
        })();

        done.store(true, Relaxed);
        outcome
    };
    let move_about = |mm: &MmWithUser| {
        while !done.load(Relaxed) {
            residents.migrate(&handle, mm, &memory)?;
            residents.evict_one()?;
        }
        Ok(())
    };
    let read = |_: &MmWithUser| {
        let mut bytes = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
        let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

        while !done.load(Relaxed) {
            for page in 0..16 {
                memory.pattern(1, page, &mut expected);
                memory.read(page, &mut bytes)?;
                // Both may be, as the page can be written, or thrown away, while this reads it.
                let is_either = |(&is, &data): (&u8, &u8)| is == 0 || is == data;

                if !bytes.iter().zip(expected.iter()).all(is_either) {
                    return Err(Failure::new(kernel::prelude::fmt!(
                        "page {page} is neither the data nor zero"
                    )));
                }
            }
        }
        Ok(())
    };

    let a = Thread::start(throw)?;
    let b = Thread::start(move_about)?;
    let c = Thread::start(read)?;

    a.join()?;
    b.join()?;
    c.join()?;
    while residents.pop().is_some() {}
    memory.verify(1)
}

/// The first and the last user of the pagemap come and go.
fn acquire(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let body = |gpu: Handle| {
        move |_: &MmWithUser| {
            for _ in 0..20 * ROUNDS {
                let a = Pagemap::acquire(gpu.pagemap())?;
                check!(gpu.pagemap().is_active());
                drop(a);
            }
            Ok(())
        }
    };
    let a = Thread::start(body(gpu.handle()))?;
    let b = Thread::start(body(gpu.handle()))?;
    let c = Thread::start(body(gpu.handle()))?;

    a.join()?;
    b.join()?;
    c.join()?;
    check!(!gpu.pagemap().is_active());
    Ok(())
}

suite!(
    drm_pagemap_concurrency,
    crate::harness::with_gpu,
    [
        same_pages,
        writers,
        other_pages,
        pressure,
        throwing_away,
        acquire,
    ]
);
