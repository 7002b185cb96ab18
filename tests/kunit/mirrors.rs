// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What the crate does inline instead of calling C, compared with C.

use crate::{
    ffi,
    gpu::Gpu,
    harness::{
        check,
        check_eq,
        suite,
        Failure,
        Outcome,
        Test, //
    },
    random::Random,
    user::UserMemory, //
};
use drm_pagemap::{
    device_addr::DeviceAddr,
    mm::{
        DmaDirection,
        Folio,
        MigratePfn,
        Pfn,
        NR_PMD_PAGES,
        PMD_ORDER, //
    },
};
use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// How many numbers beside those at the edges.
const SAMPLES: usize = 2000;

/// Frame numbers: small ones, those around powers of two, and others; all that x86 can have.
fn frame_numbers() -> impl Iterator<Item = usize> {
    let mut random = Random::new(0x5eed);
    let edges = (0..40).flat_map(|bit| {
        let power = 1usize << bit;

        [power - 1, power, power + 1]
    });

    let others = (0..SAMPLES).map(move |_| (random.next() >> 24) as usize);

    // `pin_init` has a `chain`, too.
    Iterator::chain(Iterator::chain(0..8, edges), others)
}

/// Some RAM.
struct RamPages {
    page: *mut bindings::page,
    order: u32,
}

impl RamPages {
    fn new(order: u32) -> Result<Self> {
        // SAFETY: No requirements.
        let page = unsafe { ffi::drm_pagemap_kunit_alloc_pages(order) };

        if page.is_null() {
            return Err(ENOMEM);
        }
        Ok(Self { page, order })
    }

    /// The page `i`.
    fn get(&self, i: usize) -> *mut bindings::page {
        // SAFETY: Arithmetic on the number.
        unsafe {
            ffi::drm_pagemap_kunit_pfn_to_page(ffi::drm_pagemap_kunit_page_to_pfn(self.page) + i)
        }
    }
}

impl Drop for RamPages {
    fn drop(&mut self) {
        // SAFETY: Ours.
        unsafe { ffi::drm_pagemap_kunit_free_pages(self.page, self.order) };
    }
}

/// `pfn_to_page()` and `page_to_pfn()`.
fn pfn_and_page(_test: &mut Test) -> Outcome {
    for pfn in frame_numbers() {
        // SAFETY: Arithmetic on the number.
        let page = unsafe { ffi::drm_pagemap_kunit_pfn_to_page(pfn) };

        check_eq!(Pfn::new(pfn).page(), page);
        check_eq!(Pfn::from_page(page).as_usize(), pfn);
        check_eq!(Pfn::new(pfn).phys(), (pfn as u64) * PAGE_SIZE as u64);
    }

    let ram = RamPages::new(0)?;
    // SAFETY: A valid page.
    let pfn = unsafe { ffi::drm_pagemap_kunit_page_to_pfn(ram.page) };

    check_eq!(Pfn::from_page(ram.page).as_usize(), pfn);
    check_eq!(Pfn::new(pfn).page(), ram.page);
    Ok(())
}

/// `migrate_pfn()`, `migrate_pfn_to_page()`, and the flags.
fn migrate_pfn(_test: &mut Test) -> Outcome {
    // SAFETY: No requirements.
    let flag = |which| unsafe { ffi::drm_pagemap_kunit_migrate_flags(which) };
    let (valid, migrate, write, compound) = (flag(0), flag(1), flag(2), flag(3));

    for pfn in frame_numbers() {
        // SAFETY: Arithmetic on the number. The pages are only compared.
        let (bits, entry, large) = unsafe {
            (
                ffi::drm_pagemap_kunit_migrate_pfn(pfn),
                MigratePfn::new(Pfn::new(pfn), 0),
                MigratePfn::new(Pfn::new(pfn), 3),
            )
        };

        check_eq!(entry.bits(), bits);
        check_eq!(large.bits(), bits | compound);
        check_eq!(entry.pfn(), Some(Pfn::new(pfn)));
        // SAFETY: As above.
        check_eq!(entry.page(), unsafe {
            ffi::drm_pagemap_kunit_migrate_pfn_to_page(bits)
        });

        for flags in 0..16 {
            let pick = |bit: usize, flag| if flags & bit != 0 { flag } else { 0 };
            let bits = (bits & !valid)
                | pick(1, valid)
                | pick(2, migrate)
                | pick(4, write)
                | pick(8, compound);
            // SAFETY: As above.
            let (entry, page) = unsafe {
                (
                    MigratePfn::from_bits(bits),
                    ffi::drm_pagemap_kunit_migrate_pfn_to_page(bits),
                )
            };

            check_eq!(entry.page(), page);
            check_eq!(entry.pfn().is_some(), bits & valid != 0);
            check_eq!(entry.is_migrating(), bits & migrate != 0);
            check_eq!(entry.is_writable(), bits & write != 0);
            check_eq!(entry.is_compound(), bits & compound != 0);
        }
    }
    check_eq!(MigratePfn::NONE.bits(), 0);
    Ok(())
}

/// `page_folio()`, from every page of folios of many orders, and what is known of the folio.
fn folio_of_page(_test: &mut Test) -> Outcome {
    let mut tried = 0;

    for order in 0..=PMD_ORDER {
        let Ok(ram) = RamPages::new(order) else {
            continue;
        };

        tried += 1;
        for i in 0..1usize << order {
            let page = ram.get(i);
            // SAFETY: A page of a folio that is ours.
            let (ours, theirs) = unsafe {
                (
                    Folio::of_page(page),
                    ffi::drm_pagemap_kunit_page_folio(page),
                )
            };

            check_eq!(ours.as_raw(), theirs);
            check_eq!(ours.page(), ram.page);
            check_eq!(ours.pfn(), Pfn::from_page(ram.page));
            // SAFETY: A folio that is ours.
            unsafe {
                check_eq!(ours.order(), ffi::drm_pagemap_kunit_folio_order(theirs));
                check_eq!(
                    ours.is_large(),
                    ffi::drm_pagemap_kunit_folio_test_large(theirs)
                );
                check_eq!(
                    ours.is_zone_device(),
                    ffi::drm_pagemap_kunit_folio_is_zone_device(theirs)
                );
                check_eq!(
                    ours.is_device_private(),
                    ffi::drm_pagemap_kunit_folio_is_device_private(theirs)
                );
            }
            check_eq!(ours.order(), order);
            check_eq!(ours.nr_pages(), 1usize << order);
            check_eq!(ours.size(), PAGE_SIZE << order);
            check!(!ours.is_zone_device());
            check!(ours.pgmap().is_none());
        }
    }
    // Memory may be too scattered for the greatest ones, but not for those.
    check!(tried > 4);
    Ok(())
}

/// `folio_is_zone_device()` and the like, on pages that are.
fn device_page(test: &mut Test) -> Outcome {
    let gpu = Gpu::new()?;
    let memory = UserMemory::filled(3, 1)?;

    gpu.migrate(test.mm(), memory.range())?;
    for i in 0..3 {
        let pfn = gpu.device_pfn(test.mm(), memory.addr(i))?;
        // SAFETY: Arithmetic on the number; a page that is in use.
        let (ours, theirs) = unsafe {
            let page = ffi::drm_pagemap_kunit_pfn_to_page(pfn.as_usize());

            check_eq!(pfn.page(), page);
            (
                Folio::of_page(page),
                ffi::drm_pagemap_kunit_page_folio(page),
            )
        };

        check_eq!(ours.as_raw(), theirs);
        check_eq!(ours.pfn(), pfn);
        // SAFETY: The page is in use.
        unsafe {
            check!(ffi::drm_pagemap_kunit_folio_is_zone_device(theirs));
            check!(ffi::drm_pagemap_kunit_folio_is_device_private(theirs));
            check_eq!(
                ours.zone_device_data(),
                ffi::drm_pagemap_kunit_zone_device_data(theirs)
            );
            check_eq!(
                ours.pgmap()
                    .map_or(core::ptr::null_mut(), |pgmap| pgmap.as_ptr().cast()),
                ffi::drm_pagemap_kunit_page_pgmap(theirs)
            );
        }
        check!(ours.is_zone_device());
        check!(ours.is_device_private());
        check_eq!(ours.order(), 0);
    }
    memory.verify(1)?;
    test.end_mm();
    gpu.finish()
}

/// `PMD_ORDER`.
fn pmd_order(_test: &mut Test) -> Outcome {
    // SAFETY: No requirements.
    check_eq!(PMD_ORDER, unsafe { ffi::drm_pagemap_kunit_pmd_order() });
    check_eq!(NR_PMD_PAGES, 1usize << PMD_ORDER);
    Ok(())
}

/// `drm_pagemap_addr_encode()`, and the fields of what it makes.
fn device_addr(_test: &mut Test) -> Outcome {
    let mut random = Random::new(0xadd2);
    let addrs = [
        0,
        1,
        PAGE_SIZE as u64,
        u64::MAX,
        u64::MAX - 1,
        1 << 52,
        1 << 63,
    ];
    let others = (0..SAMPLES / 10).map(|_| random.next());

    for addr in Iterator::chain(addrs.into_iter(), others) {
        for order in [0, 1, 2, 8, 9, 10, 18, 63, 127, 128, 255] {
            // The values of `enum dma_data_direction`.
            for (dir, value) in [(DmaDirection::ToDevice, 1), (DmaDirection::FromDevice, 2)] {
                let ours = DeviceAddr::system(addr, order, dir);
                let mut theirs = [0; 2];

                // SAFETY: The array is of the structure's size.
                unsafe { ffi::drm_pagemap_kunit_addr_encode(addr, order, value, &mut theirs) };
                // SAFETY: Both are 16 bytes without padding.
                let bits: [u64; 2] = unsafe { core::mem::transmute(ours) };
                // SAFETY: As above.
                let decoded: DeviceAddr = unsafe { core::mem::transmute(theirs) };

                check_eq!(bits, theirs);
                check_eq!(decoded.addr(), addr);
                check_eq!(decoded.order(), order);
                check!(decoded.is_present());
            }
        }
    }

    check!(!DeviceAddr::ABSENT.is_present());
    // The device address 0 is one.
    if !DeviceAddr::system(0, 0, DmaDirection::FromDevice).is_present() {
        return Err(Failure::new(fmt!("the device address 0 counts as absent")));
    }
    Ok(())
}

suite!(
    drm_pagemap_mirrors,
    crate::harness::alone,
    [
        pfn_and_page,
        migrate_pfn,
        folio_of_page,
        device_page,
        pmd_order,
        device_addr,
    ]
);
