// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Finding the pages of a range.

use crate::{
    ffi::Map,
    gpu::Gpu,
    harness::{
        check,
        check_eq,
        check_err,
        suite,
        Outcome,
        Test, //
    },
    interval::watch,
    user::UserMemory, //
};
use core::ops::Range;
use drm_pagemap::mm::{
    Access,
    PagemapOwner,
    Pages,
    NR_PMD_PAGES,
    PMD_ORDER, //
};
use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// A page, as it was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    present: bool,
    writable: bool,
    zero: bool,
    device: bool,
    order: u32,
    pfn: usize,
}

/// The pages of `range`.
fn find(
    mm: &MmWithUser,
    owner: PagemapOwner,
    range: Range<usize>,
    access: Access,
) -> Result<KVec<Seen>> {
    let interval = watch(mm, range.clone(), owner)?;
    let mut seen = KVec::from_elem(Seen::default(), range.len() >> PAGE_SHIFT, GFP_KERNEL)?;

    Pages::new(&interval, range, access)?.fault_and_commit(|_, found| {
        for (index, seen) in seen.iter_mut().enumerate() {
            if let Some(page) = found.page(index) {
                *seen = Seen {
                    present: true,
                    writable: page.is_writable(),
                    zero: page.is_zero_page(),
                    device: page.is_device(),
                    order: page.map_order(),
                    pfn: page.pfn().as_usize(),
                };
            }
        }
        Ok(())
    })?;
    Ok(seen)
}

/// The pieces of `range`: address, order, frame.
fn pieces(
    mm: &MmWithUser,
    owner: PagemapOwner,
    range: Range<usize>,
) -> Result<KVec<(usize, u32, usize)>> {
    let interval = watch(mm, range.clone(), owner)?;
    let mut pieces = KVec::with_capacity(range.len() >> PAGE_SHIFT, GFP_KERNEL)?;

    Pages::new(&interval, range, Access::AsIs)?.fault_and_commit(|_, found| {
        for (page, order) in found.pieces() {
            pieces
                .push_within_capacity((page.addr(), order, page.pfn().as_usize()))
                .map_err(|_| EINVAL)?;
        }
        Ok(())
    })?;
    Ok(pieces)
}

/// As they are: what was never touched is absent, and stays so.
fn as_is(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::map(8)?;

    memory.part(2..4).fill(1)?;
    for _ in 0..2 {
        let seen = find(
            test.mm(),
            gpu.pagemap().owner(),
            memory.range(),
            Access::AsIs,
        )?;
        for (page, seen) in seen.iter().enumerate() {
            let touched = (2..4).contains(&page);

            check_eq!(seen.present, touched);
            check_eq!(seen.writable, touched);
            check!(!seen.device && !seen.zero);
        }
    }
    Ok(())
}

/// Page faults are taken for what shall be there.
fn faulted_in(test: &mut Test, gpu: &Gpu) -> Outcome {
    let owner = gpu.pagemap().owner();
    let memory = UserMemory::map(8)?;

    for seen in find(test.mm(), owner, memory.range(), Access::Read)? {
        check!(seen.present && seen.zero && !seen.writable);
    }
    for seen in find(test.mm(), owner, memory.range(), Access::Write)? {
        check!(seen.present && !seen.zero && seen.writable);
    }
    memory.verify_zero()
}

/// The contents are those that the process sees, and the other way round.
fn contents(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(4, 1)?;
    let interval = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;
    let mut bytes = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
    let mut expected = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;

    Pages::new(&interval, memory.range(), Access::Read)?
        .fault_and_commit(|_, found| found.page(2).ok_or(EINVAL)?.read(0, &mut bytes))?;
    memory.pattern(1, 2, &mut expected);
    memory.compare(2, &bytes, &expected)?;

    memory.pattern(5, 2, &mut bytes);
    let outside =
        Pages::new(&interval, memory.range(), Access::Write)?.fault_and_commit(|_, found| {
            let page = found.page(2).ok_or(EINVAL)?;

            page.write(0, &bytes)?;
            Ok(page.write(1, &bytes).and(page.read(1, &mut expected)))
        })?;
    check_err!(outside, EINVAL);
    memory.read(2, &mut expected)?;
    memory.compare(2, &expected, &bytes)
}

/// What may not be accessed is an error.
fn refused(test: &mut Test, gpu: &Gpu) -> Outcome {
    let owner = gpu.pagemap().owner();
    let memory = UserMemory::filled(8, 1)?;
    let read_only = UserMemory::map_kind(4, Map::PrivateReadOnly)?;

    check_err!(
        find(test.mm(), owner, read_only.range(), Access::Write),
        EPERM
    );
    check!(find(test.mm(), owner, read_only.range(), Access::Read).is_ok());

    memory.part(3..4).unmap()?;
    check_err!(find(test.mm(), owner, memory.range(), Access::Read), EFAULT);
    let seen = find(test.mm(), owner, memory.range(), Access::AsIs)?;
    check!(!seen[3].present && seen[4].present);

    // Not in the interval.
    let interval = watch(test.mm(), memory.pages(0..2), owner)?;
    check_err!(
        Pages::new(&interval, memory.pages(0..3), Access::Read),
        EINVAL
    );
    check_err!(
        Pages::new(&interval, memory.pages(0..0), Access::Read),
        EINVAL
    );
    Ok(())
}

/// Device pages of the owner are found where they are; those of another one come home.
fn device_pages(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let other = Gpu::new()?;

    gpu.migrate(test.mm(), memory.range())?;
    for (page, seen) in find(
        test.mm(),
        gpu.pagemap().owner(),
        memory.range(),
        Access::Write,
    )?
    .iter()
    .enumerate()
    {
        check!(seen.present && seen.device && seen.writable);
        let pfn = gpu.device_pfn(test.mm(), memory.addr(page))?;
        check_eq!(seen.pfn, pfn.as_usize());
    }
    gpu.check_in_device(test.mm(), &memory)?;

    for seen in find(
        test.mm(),
        other.pagemap().owner(),
        memory.range(),
        Access::AsIs,
    )? {
        check!(!seen.present);
    }
    for seen in find(
        test.mm(),
        other.pagemap().owner(),
        memory.range(),
        Access::Read,
    )? {
        check!(seen.present && !seen.device);
    }
    gpu.check_in_ram(test.mm(), &memory)?;
    memory.verify(1)?;
    other.finish()
}

/// A large folio is found as one, and, from within, in parts that are aligned.
fn large_folios(test: &mut Test, gpu: &Gpu) -> Outcome {
    let owner = gpu.pagemap().owner();
    let memory = UserMemory::map_aligned(NR_PMD_PAGES)?;

    memory.fill_huge(1)?;
    for device in [false, true] {
        if device {
            gpu.migrate(test.mm(), memory.range())?;
            check_eq!(
                gpu.device_order(test.mm(), memory.range().start)?,
                PMD_ORDER
            );
        }
        let whole = pieces(test.mm(), owner, memory.range())?;
        check_eq!(whole.len(), 1);
        let (addr, order, first) = whole[0];
        check_eq!(addr, memory.range().start);
        check_eq!(order, PMD_ORDER);

        // 3, 4 to 7, 8 to 15, ..., 256 to 511, less the last page.
        let parts = pieces(test.mm(), owner, memory.pages(3..NR_PMD_PAGES - 1))?;
        let mut next = 3;
        for &(addr, order, pfn) in &parts {
            check_eq!(addr, memory.addr(next));
            check_eq!(pfn, first + next);
            check_eq!(next & ((1 << order) - 1), 0);
            next += 1 << order;
        }
        check_eq!(next, NR_PMD_PAGES - 1);
        check_eq!(parts.len(), 7 + 8);
    }
    memory.verify(1)
}

/// What has changed since is not committed; nor is what was never looked for.
fn stale(test: &mut Test, gpu: &Gpu) -> Outcome {
    let memory = UserMemory::filled(8, 1)?;
    let interval = watch(test.mm(), memory.range(), gpu.pagemap().owner())?;
    let mut pages = Pages::new(&interval, memory.range(), Access::Read)?;

    check_eq!(pages.commit(|_, _| ()), None);
    pages.fault()?;
    check_eq!(pages.commit(|_, _| ()), Some(()));
    gpu.migrate(test.mm(), memory.pages(7..8))?;
    check_eq!(pages.commit(|_, _| ()), None);
    pages.fault()?;
    check_eq!(
        pages.commit(|_, found| found.page(7).is_some_and(|page| page.is_device())),
        Some(true)
    );

    memory.part(7..8).unmap()?;
    check_err!(pages.fault(), EFAULT);
    check_eq!(pages.commit(|_, _| ()), None);
    Ok(())
}

suite!(
    drm_pagemap_range_fault,
    crate::harness::with_gpu,
    [
        as_is,
        faulted_in,
        contents,
        refused,
        device_pages,
        large_folios,
        stale,
    ]
);
