// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The C side of the suites, as `helpers.h` declares it.

// The kernel's own types: some have fields of types that are empty in this configuration.
#![allow(improper_ctypes)]

use core::ffi::c_void;
use kernel::{
    bindings::{
        device,
        drm_device,
        folio,
        kunit,
        mm_struct,
        page,
        task_struct, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
};

/// `enum drm_pagemap_kunit_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum Map {
    /// Private anonymous memory.
    Private,
    /// The same, read-only.
    PrivateReadOnly,
    /// The same as the first, locked in memory.
    Locked,
    /// Shared anonymous memory.
    Shared,
    /// A private mapping of a file.
    FilePrivate,
    /// A shared mapping of a file.
    FileShared,
}

/// A C driver's allocation; only C looks into it.
#[repr(C)]
pub(crate) struct CDevmem {
    _opaque: [u8; 0],
}

extern "C" {
    pub(crate) fn drm_pagemap_kunit_fail(
        test: *mut kunit,
        file: *const c_char,
        line: c_uint,
        what: *const c_char,
    );
    pub(crate) fn drm_pagemap_kunit_skip(test: *mut kunit, why: *const c_char);
    pub(crate) fn drm_pagemap_kunit_suppress_warnings(test: *mut kunit) -> *mut c_void;
    pub(crate) fn drm_pagemap_kunit_unsuppress_warnings(test: *mut kunit, w: *mut c_void);

    pub(crate) fn drm_pagemap_kunit_mm_attach() -> c_int;
    pub(crate) fn drm_pagemap_kunit_mm_detach() -> *mut mm_struct;
    pub(crate) fn drm_pagemap_kunit_mm_put(mm: *mut mm_struct);
    pub(crate) fn drm_pagemap_kunit_mmap(addr: c_ulong, len: usize, kind: Map) -> c_ulong;
    pub(crate) fn drm_pagemap_kunit_munmap(addr: c_ulong, len: usize) -> c_int;
    pub(crate) fn drm_pagemap_kunit_mmap_write_lock(mm: *mut mm_struct);
    pub(crate) fn drm_pagemap_kunit_mmap_write_unlock(mm: *mut mm_struct);
    pub(crate) fn drm_pagemap_kunit_want_huge(addr: c_ulong, huge: bool) -> c_int;
    pub(crate) fn drm_pagemap_kunit_make_writable(addr: c_ulong) -> c_int;
    pub(crate) fn drm_pagemap_kunit_pin_page(addr: c_ulong, page: *mut *mut page) -> c_int;
    pub(crate) fn drm_pagemap_kunit_unpin_page(page: *mut page);
    pub(crate) fn drm_pagemap_kunit_get_user_page(addr: c_ulong, page: *mut *mut page) -> c_int;

    pub(crate) fn drm_pagemap_kunit_pfn_to_page(pfn: c_ulong) -> *mut page;
    pub(crate) fn drm_pagemap_kunit_page_to_pfn(page: *const page) -> c_ulong;
    pub(crate) fn drm_pagemap_kunit_migrate_pfn(pfn: c_ulong) -> c_ulong;
    pub(crate) fn drm_pagemap_kunit_migrate_pfn_to_page(mpfn: c_ulong) -> *mut page;
    pub(crate) fn drm_pagemap_kunit_migrate_flags(which: c_int) -> c_ulong;
    pub(crate) fn drm_pagemap_kunit_page_folio(page: *mut page) -> *mut folio;
    pub(crate) fn drm_pagemap_kunit_folio_order(folio: *mut folio) -> c_uint;
    pub(crate) fn drm_pagemap_kunit_folio_test_large(folio: *mut folio) -> bool;
    pub(crate) fn drm_pagemap_kunit_folio_is_zone_device(folio: *mut folio) -> bool;
    pub(crate) fn drm_pagemap_kunit_folio_is_device_private(folio: *mut folio) -> bool;
    pub(crate) fn drm_pagemap_kunit_zone_device_data(folio: *mut folio) -> *mut c_void;
    pub(crate) fn drm_pagemap_kunit_page_pgmap(folio: *mut folio) -> *mut c_void;
    pub(crate) fn drm_pagemap_kunit_folio_test_locked(folio: *mut folio) -> bool;
    pub(crate) fn drm_pagemap_kunit_folio_ref_count(folio: *mut folio) -> c_int;
    pub(crate) fn drm_pagemap_kunit_device_folio_split(old: *mut folio, new: *mut folio);
    pub(crate) fn drm_pagemap_kunit_pmd_order() -> c_uint;
    pub(crate) fn drm_pagemap_kunit_alloc_pages(order: c_uint) -> *mut page;
    pub(crate) fn drm_pagemap_kunit_free_pages(page: *mut page, order: c_uint);
    pub(crate) fn drm_pagemap_kunit_shatter() -> *mut c_void;
    pub(crate) fn drm_pagemap_kunit_unshatter(shards: *mut c_void);
    pub(crate) fn drm_pagemap_kunit_get_page(page: *mut page);
    pub(crate) fn drm_pagemap_kunit_put_page(page: *mut page);
    pub(crate) fn drm_pagemap_kunit_put_page_irqs_off(page: *mut page);
    pub(crate) fn drm_pagemap_kunit_put_page_in_timer(page: *mut page);
    pub(crate) fn drm_pagemap_kunit_lock_page(page: *mut page);
    pub(crate) fn drm_pagemap_kunit_unlock_page(page: *mut page);
    pub(crate) fn drm_pagemap_kunit_addr_encode(
        addr: u64,
        order: c_uint,
        dir: c_int,
        out: *mut [u64; 2],
    );

    pub(crate) fn drm_pagemap_kunit_may_sleep() -> bool;
    pub(crate) fn drm_pagemap_kunit_change_processor() -> c_int;
    pub(crate) fn drm_pagemap_kunit_jiffies() -> u64;
    pub(crate) fn drm_pagemap_kunit_drm_refs(drm: *mut drm_device) -> c_uint;
    pub(crate) fn drm_pagemap_kunit_module_refs() -> c_int;
    pub(crate) fn drm_pagemap_kunit_regions(name: *const c_char) -> c_uint;

    pub(crate) fn drm_pagemap_kunit_dma_init() -> c_int;
    pub(crate) fn drm_pagemap_kunit_dma_exit();
    pub(crate) fn drm_pagemap_kunit_dma_watched() -> bool;
    pub(crate) fn drm_pagemap_kunit_dma_add(dev: *mut device) -> c_int;
    pub(crate) fn drm_pagemap_kunit_dma_remove(dev: *mut device);
    pub(crate) fn drm_pagemap_kunit_dma_maps(dev: *mut device) -> c_long;
    pub(crate) fn drm_pagemap_kunit_dma_live(dev: *mut device) -> c_long;
    pub(crate) fn drm_pagemap_kunit_dma_all_undone(dev: *mut device) -> bool;
    pub(crate) fn drm_pagemap_kunit_dma_fail(dev: *mut device, nth: c_ulong, times: c_ulong);
    pub(crate) fn drm_pagemap_kunit_dma_max(dev: *mut device) -> usize;
    pub(crate) fn drm_pagemap_kunit_dma_to_virt(dev: *mut device, addr: u64) -> *mut u8;

    pub(crate) fn drm_pagemap_kunit_remap_init() -> c_int;
    pub(crate) fn drm_pagemap_kunit_remap_exit();
    pub(crate) fn drm_pagemap_kunit_remap_watched() -> bool;
    pub(crate) fn drm_pagemap_kunit_get_page_on_remap(addr: c_ulong, page: *mut page);
    pub(crate) fn drm_pagemap_kunit_got_page_on_remap() -> bool;
    pub(crate) fn drm_pagemap_kunit_look_on_remap(addr: c_ulong, dev: *mut device);
    pub(crate) fn drm_pagemap_kunit_live_on_remap() -> c_long;

    pub(crate) fn drm_pagemap_kunit_can_fail_alloc() -> bool;
    pub(crate) fn drm_pagemap_kunit_fail_nth(nth: c_uint);
    pub(crate) fn drm_pagemap_kunit_fail_left() -> c_uint;

    pub(crate) fn drm_pagemap_kunit_thread(
        f: unsafe extern "C" fn(*mut c_void) -> c_int,
        data: *mut c_void,
    ) -> *mut task_struct;
    pub(crate) fn drm_pagemap_kunit_thread_join(task: *mut task_struct);
    pub(crate) fn drm_pagemap_kunit_mm_get() -> *mut mm_struct;
    pub(crate) fn drm_pagemap_kunit_mm_use(mm: *mut mm_struct);
    pub(crate) fn drm_pagemap_kunit_mm_unuse(mm: *mut mm_struct);

    pub(crate) fn drm_pagemap_kunit_devmem_new(
        dev: *mut device,
        dpagemap: *mut c_void,
        size: usize,
    ) -> *mut CDevmem;
    pub(crate) fn drm_pagemap_kunit_devmem_base(devmem: *mut CDevmem) -> *mut c_void;
    pub(crate) fn drm_pagemap_kunit_devmem_released(devmem: *mut CDevmem) -> c_int;
    pub(crate) fn drm_pagemap_kunit_devmem_detached(devmem: *mut CDevmem) -> bool;
    pub(crate) fn drm_pagemap_kunit_devmem_free(devmem: *mut CDevmem);
}
