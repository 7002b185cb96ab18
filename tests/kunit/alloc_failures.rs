// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Every allocation that a path makes fails once: no data is lost, nothing is left behind.
//!
//! Needs a kernel with fault injection, set up as `helpers.c` says; `scripts/guest/kunit.sh` does
//! that.

use crate::{
    ffi,
    gpu::{
        Gpu,
        VRAM_PAGES, //
    },
    harness::{
        check,
        check_eq,
        suite,
        Failure,
        Outcome,
        Test, //
    },
    user::{
        UserMemory,
        HUGE, //
    },
    vram::Layout, //
};
use drm_pagemap::{
    migrate::Details,
    mm::LockedMm,
    Endpoint,
    OwnerList,
    Pagemap,
    Peer, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// More than any path makes.
const ALL: u32 = 20_000;

/// Lets the current task's allocations fail, the `nth` from now on.
struct Injection {
    nth: u32,
    reached: bool,
}

impl Injection {
    /// Calls `f` with the injection armed, but for what it does on the test's own behalf.
    fn during<R>(&mut self, f: impl FnOnce() -> R) -> R {
        // SAFETY: No requirements.
        unsafe { ffi::drm_pagemap_kunit_fail_nth(self.nth) };
        let result = f();
        // SAFETY: No requirements.
        unsafe {
            self.reached = ffi::drm_pagemap_kunit_fail_left() == 0;
            ffi::drm_pagemap_kunit_fail_nth(0);
        }
        result
    }
}

/// Calls `op` again and again; each time one allocation later fails, until none does, or the
/// `most`th did. The log says how many that were.
fn each_fails(what: &str, most: u32, mut op: impl FnMut(&mut Injection) -> Outcome) -> Outcome {
    // SAFETY: No requirements.
    if !unsafe { ffi::drm_pagemap_kunit_can_fail_alloc() } {
        return Err(Failure::skip(fmt!(
            "no fault injection, or not set up: see tests/kunit/helpers.c"
        )));
    }
    for nth in 1..=most {
        let mut injection = Injection {
            nth,
            reached: false,
        };

        op(&mut injection)?;
        if !injection.reached {
            check!(nth > 1);
            pr_info!("{what}: failed each of {} allocations in turn\n", nth - 1);
            return Ok(());
        }
    }
    check!(most < ALL);
    pr_info!("{what}: failed each of the first {most} allocations in turn\n");
    Ok(())
}

/// What a migration to device memory may say. The core does not tell why it left a page where it
/// was.
fn is_shortage(err: Error) -> bool {
    err == ENOMEM || err == EBUSY
}

/// The number of pages of small ranges; a power of two.
const PAGES: usize = 16;

/// Memory that a path is tried on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Pages of which every fourth was never touched.
    Mixture,
    /// A huge page, if the kernel has one to give.
    Huge,
}

impl Kind {
    fn map(self) -> Outcome<UserMemory> {
        match self {
            Self::Mixture => {
                let memory = UserMemory::map_aligned(PAGES)?;

                for i in (0..PAGES).filter(|i| i % 4 != 3) {
                    memory.part(i..i + 1).fill(6)?;
                }
                Ok(memory)
            }
            Self::Huge => {
                let memory = UserMemory::map_aligned(HUGE / PAGE_SIZE)?;

                memory.want_huge()?;
                memory.fill(6)?;
                Ok(memory)
            }
        }
    }

    fn verify(self, memory: &UserMemory) -> Outcome {
        if self == Self::Huge {
            return memory.verify(6);
        }
        for i in 0..memory.nr_pages() {
            let page = memory.part(i..i + 1);

            if i % 4 != 3 {
                page.verify(6)?;
            } else {
                page.verify_zero()?;
            }
        }
        Ok(())
    }

    /// Verifies it, and that nothing is left when it is gone.
    fn finish(self, memory: &UserMemory, gpu: &Gpu) -> Outcome {
        self.verify(memory)?;
        memory.unmap()?;
        gpu.check_idle()
    }
}

fn new_allocation(_test: &mut Test, gpu: &Gpu) -> Outcome {
    each_fails("new allocation", ALL, |injection| {
        let result = injection.during(|| gpu.alloc(PAGES));

        if let Some(err) = result.err() {
            check_eq!(err, ENOMEM);
        }
        gpu.check_idle()
    })
}

fn to_devmem_of(test: &Test, gpu: &Gpu, what: &str, kind: Kind, layout: Layout) -> Outcome {
    each_fails(what, ALL, |injection| {
        let memory = kind.map()?;
        let result = injection
            .during(|| gpu.migrate_as(test.mm(), memory.range(), layout, &Details::default()));

        match result.err() {
            None => gpu.check_in_device(test.mm(), &memory)?,
            Some(err) => check!(is_shortage(err)),
        }
        kind.finish(&memory, gpu)
    })
}

fn to_devmem(test: &mut Test, gpu: &Gpu) -> Outcome {
    to_devmem_of(test, gpu, "to devmem", Kind::Mixture, Layout::Contiguous)
}

fn large_to_devmem(test: &mut Test, gpu: &Gpu) -> Outcome {
    let what = "to devmem, large";

    to_devmem_of(test, gpu, what, Kind::Huge, Layout::Contiguous)
}

fn missing(test: &mut Test, gpu: &Gpu) -> Outcome {
    each_fails("missing to devmem", ALL, |injection| {
        let memory = Kind::Mixture.map()?;
        let first = gpu.migrate(test.mm(), memory.pages(2..6))?;
        let result = injection.during(|| {
            gpu.alloc(PAGES)?.migrate_missing(
                &LockedMm::read(test.mm()),
                memory.range(),
                &Details::default(),
            )
        });

        match result.map(|(_, outcome)| outcome) {
            Ok(outcome) => check_eq!(outcome.resident, 4),
            Err(err) => check_eq!(err, ENOMEM),
        }
        check!(!first.is_detached());
        drop(first);
        Kind::Mixture.finish(&memory, gpu)
    })
}

fn evict_of(test: &Test, gpu: &Gpu, what: &str, kind: Kind) -> Outcome {
    each_fails(what, ALL, |injection| {
        let memory = kind.map()?;
        let devmem = gpu.migrate(test.mm(), memory.range())?;
        let (moved, result) = injection.during(|| devmem.evict_to_ram());

        // One failure is what the three tries are for.
        result?;
        check_eq!(moved, memory.nr_pages());
        drop(devmem);
        kind.finish(&memory, gpu)
    })
}

fn evict(test: &mut Test, gpu: &Gpu) -> Outcome {
    evict_of(test, gpu, "evict", Kind::Mixture)
}

fn evict_large(test: &mut Test, gpu: &Gpu) -> Outcome {
    evict_of(test, gpu, "evict, large", Kind::Huge)
}

fn fault_of(test: &Test, gpu: &Gpu, what: &str, kind: Kind) -> Outcome {
    each_fails(what, ALL, |injection| {
        let memory = kind.map()?;

        gpu.migrate(test.mm(), memory.range())?;
        if let Err(err) = injection.during(|| memory.touch(5)) {
            check_eq!(err, EFAULT);
        }
        kind.finish(&memory, gpu)
    })
}

fn fault(test: &mut Test, gpu: &Gpu) -> Outcome {
    fault_of(test, gpu, "fault", Kind::Mixture)
}

fn fault_on_large(test: &mut Test, gpu: &Gpu) -> Outcome {
    fault_of(test, gpu, "fault, large", Kind::Huge)
}

fn hold_pages(test: &mut Test, gpu: &Gpu) -> Outcome {
    each_fails("hold pages", ALL, |injection| {
        let memory = Kind::Mixture.map()?;

        gpu.migrate(test.mm(), memory.range())?;
        {
            let mm = LockedMm::read(test.mm());
            let result = injection.during(|| gpu.hold_pages(&mm, memory.range()));

            if let Some(err) = result.err() {
                check_eq!(err, ENOMEM);
            }
        }
        gpu.check_in_device(test.mm(), &memory)?;
        Kind::Mixture.finish(&memory, gpu)
    })
}

fn places(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = Kind::Mixture.map()?;

    each_fails("places", ALL, |injection| {
        let result = injection.during(|| gpu.residency(test.mm(), memory.range()));

        if let Some(err) = result.err() {
            check_eq!(err, ENOMEM);
        }
        Ok(())
    })?;
    Kind::Mixture.finish(&memory, gpu)
}

fn populate_mm(test: &mut Test, gpu: &Gpu) -> Outcome {
    each_fails("populate_mm", ALL, |injection| {
        let memory = Kind::Mixture.map()?;
        let result =
            injection.during(|| Pagemap::populate_mm(gpu.pagemap(), test.mm(), memory.range(), 0));

        match result.err() {
            None => gpu.check_in_device(test.mm(), &memory)?,
            Some(err) => check!(is_shortage(err)),
        }
        Kind::Mixture.finish(&memory, gpu)
    })
}

/// The device goes away: what does not move at the first try does later.
fn unregister(test: &mut Test, _gpu: &Gpu) -> Outcome {
    each_fails("unregister", ALL, |injection| {
        let mut gpu = Gpu::with_pages(2 * PAGES)?;
        let memory = Kind::Mixture.map()?;

        gpu.migrate(test.mm(), memory.range())?;
        injection.during(|| gpu.unregister());
        Kind::Mixture.verify(&memory)?;
        memory.unmap()?;
        gpu.finish()
    })
}

/// The first allocations: the pagemap, the core's resource for it, and what a debug kernel has to
/// note about them, which it can do without, and how much that is depends on what it has in store.
/// Of later ones the core complains in the log.
fn register(_test: &mut Test, gpu: &Gpu) -> Outcome {
    let mut failed = 0;

    each_fails("register", 4, |injection| {
        let result = injection.during(|| gpu.register_again(64 * PAGE_SIZE));

        if let Some(err) = result.err() {
            failed += 1;
            check_eq!(err, ENOMEM);
        }
        Ok(())
    })?;
    check!(failed >= 1);
    Ok(())
}

struct Port;

impl Endpoint for Port {
    fn has_interconnect(&self, _other: &Self) -> bool {
        true
    }
}

static PORTS: OwnerList<Port> = OwnerList::new();

fn join(_test: &mut Test, _gpu: &Gpu) -> Outcome {
    each_fails("join a group", ALL, |injection| {
        let result = injection.during(|| (Peer::join(&PORTS, Port), Peer::join(&PORTS, Port)));

        for err in [result.0.err(), result.1.err()].into_iter().flatten() {
            check_eq!(err, ENOMEM);
        }
        Ok(())
    })
}

fn between_devices(test: &mut Test, _gpu: &Gpu) -> Outcome {
    let a = Gpu::in_group(VRAM_PAGES, Peer::join(&PORTS, Port)?)?;
    let b = Gpu::in_group(VRAM_PAGES, Peer::join(&PORTS, Port)?)?;
    let outcome = each_fails("between devices", ALL, |injection| {
        let memory = Kind::Mixture.map()?;

        a.migrate(test.mm(), memory.pages(0..PAGES / 2))?;
        match injection.during(|| b.migrate(test.mm(), memory.range())) {
            Ok(_) => b.check_in_device(test.mm(), &memory)?,
            Err(err) => {
                check!(is_shortage(err));
                a.check_in_device(test.mm(), &memory.part(0..PAGES / 2))?;
            }
        }
        Kind::Mixture.finish(&memory, &b)?;
        a.check_idle()
    });

    outcome.and(a.finish()).and(b.finish())
}

suite!(
    drm_pagemap_alloc_failures,
    crate::harness::with_gpu,
    [
        new_allocation,
        to_devmem,
        large_to_devmem,
        missing,
        evict,
        evict_large,
        fault,
        fault_on_large,
        hold_pages,
        places,
        populate_mm,
        register,
        unregister,
        join,
        between_devices,
    ]
);
