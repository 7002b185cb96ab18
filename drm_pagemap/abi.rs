// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The C front door: the symbols of
//! [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h) and
//! [`include/drm/drm_pagemap_util.h`](srctree/include/drm/drm_pagemap_util.h).
//!
//! Raw pointers are converted here, once, and nothing else is done.

use crate::{
    bindings,
    cache::{
        self,
        Cache, //
    },
    dev_ops,
    dpagemap::DrmPagemap,
    dpagemap_devmem::{
        DevmemRef,
        DrmPagemapDevmem, //
    },
    migrate::{
        self,
        Details,
        Want, //
    },
    mm::{
        Folio,
        LockedMm, //
    },
    owner,
    policy::PolicyState,
    shrinker::{
        self,
        Shrinker, //
    },
    zdd::Zdd, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        ArcBorrow, //
    }, //
};

/// Lets the compiler compare each function below with the prototype that bindgen read in the
/// header: the elements of an array have one type.
const _: () = {
    let _ = [
        bindings::drm_pagemap_init as unsafe extern "C" fn(_, _, _, _) -> _,
        drm_pagemap_init,
    ];
    let _ = [
        bindings::drm_pagemap_reinit as unsafe extern "C" fn(_) -> _,
        drm_pagemap_reinit,
    ];
    let _ = [
        bindings::drm_pagemap_put as unsafe extern "C" fn(_),
        drm_pagemap_put,
    ];
    let _ = [
        bindings::drm_pagemap_devmem_init as unsafe extern "C" fn(_, _, _, _, _, _, _),
        drm_pagemap_devmem_init,
    ];
    let _ = [
        bindings::drm_pagemap_migrate_to_devmem as unsafe extern "C" fn(_, _, _, _, _) -> _,
        drm_pagemap_migrate_to_devmem,
    ];
    let _ = [
        bindings::drm_pagemap_evict_to_ram as unsafe extern "C" fn(_) -> _,
        drm_pagemap_evict_to_ram,
    ];
    let _ = [
        bindings::drm_pagemap_pagemap_ops_get as unsafe extern "C" fn() -> _,
        drm_pagemap_pagemap_ops_get,
    ];
    let _ = [
        bindings::drm_pagemap_page_to_dpagemap as unsafe extern "C" fn(_) -> _,
        drm_pagemap_page_to_dpagemap,
    ];
    let _ = [
        bindings::drm_pagemap_populate_mm as unsafe extern "C" fn(_, _, _, _, _) -> _,
        drm_pagemap_populate_mm,
    ];
    let _ = [
        bindings::drm_pagemap_destroy as unsafe extern "C" fn(_, _),
        drm_pagemap_destroy,
    ];
};

/// The same for the other header.
const _: () = {
    let _ = [
        bindings::drm_pagemap_shrinker_add as unsafe extern "C" fn(_),
        drm_pagemap_shrinker_add,
    ];
    #[cfg(CONFIG_PROVE_LOCKING)]
    let _ = [
        bindings::drm_pagemap_shrinker_might_lock as unsafe extern "C" fn(_),
        drm_pagemap_shrinker_might_lock,
    ];
    let _ = [
        bindings::drm_pagemap_shrinker_create_devm as unsafe extern "C" fn(_) -> _,
        drm_pagemap_shrinker_create_devm,
    ];
    let _ = [
        bindings::drm_pagemap_cache_create_devm as unsafe extern "C" fn(_) -> _,
        drm_pagemap_cache_create_devm,
    ];
    let _ = [
        bindings::drm_pagemap_cache_lock_lookup as unsafe extern "C" fn(_) -> _,
        drm_pagemap_cache_lock_lookup,
    ];
    let _ = [
        bindings::drm_pagemap_cache_unlock_lookup as unsafe extern "C" fn(_),
        drm_pagemap_cache_unlock_lookup,
    ];
    let _ = [
        bindings::drm_pagemap_get_from_cache as unsafe extern "C" fn(_) -> _,
        drm_pagemap_get_from_cache,
    ];
    let _ = [
        bindings::drm_pagemap_get_from_cache_if_active as unsafe extern "C" fn(_) -> _,
        drm_pagemap_get_from_cache_if_active,
    ];
    let _ = [
        bindings::drm_pagemap_cache_set_pagemap as unsafe extern "C" fn(_, _),
        drm_pagemap_cache_set_pagemap,
    ];
    let _ = [
        bindings::drm_pagemap_acquire_owner as unsafe extern "C" fn(_, _, _) -> _,
        drm_pagemap_acquire_owner,
    ];
    let _ = [
        bindings::drm_pagemap_release_owner as unsafe extern "C" fn(_),
        drm_pagemap_release_owner,
    ];
};

/// What C wants for a [`Result`].
fn errno(result: Result) -> c_int {
    result.map_or_else(|err| err.to_errno(), |()| 0)
}

/// Initializes a pagemap, with one reference.
///
/// # Safety
///
/// As [`DrmPagemap::init`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_init(
    dpagemap: *mut bindings::drm_pagemap,
    pagemap: *mut bindings::dev_pagemap,
    drm: *mut bindings::drm_device,
    ops: *const bindings::drm_pagemap_ops,
) -> c_int {
    let result = PolicyState::of_module().and_then(|policy| {
        // SAFETY: Promised by the caller.
        unsafe { DrmPagemap::init(dpagemap, pagemap, drm, ops, policy) }
    });

    errno(result)
}

/// Initializes a pagemap again that its driver kept when its count was 0.
///
/// # Safety
///
/// As [`DrmPagemap::reinit`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_reinit(dpagemap: *mut bindings::drm_pagemap) -> c_int {
    // SAFETY: Promised by the caller.
    errno(unsafe { DrmPagemap::reinit(dpagemap) })
}

/// Puts a reference on a pagemap.
///
/// # Safety
///
/// `dpagemap` must be null, or a pagemap on which the caller gives up a reference.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_put(dpagemap: *mut bindings::drm_pagemap) {
    if let Some(dpagemap) = NonNull::new(dpagemap) {
        // SAFETY: The caller's reference. The type is transparent.
        drop(unsafe { ARef::from_raw(dpagemap.cast::<DrmPagemap>()) });
    }
}

/// Initializes an allocation.
///
/// # Safety
///
/// As [`DrmPagemapDevmem::init`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_devmem_init(
    devmem: *mut bindings::drm_pagemap_devmem,
    dev: *mut bindings::device,
    mm: *mut bindings::mm_struct,
    ops: *const bindings::drm_pagemap_devmem_ops,
    dpagemap: *mut bindings::drm_pagemap,
    size: usize,
    fence: *mut bindings::dma_fence,
) {
    // SAFETY: Promised by the caller.
    unsafe { DrmPagemapDevmem::init(devmem, dev, mm, ops, dpagemap, size, fence) };
}

/// Migrates a range to device memory; see [`to_devmem`](migrate::to_devmem::to_devmem).
///
/// Where that says [`EOPNOTSUPP`] because the area is not private anonymous memory, C drivers get
/// [`EBUSY`], as they always did.
///
/// # Safety
///
/// `devmem` must be an initialized allocation whose reference the caller gives up; `mm` must have
/// users and its mmap lock be held; `details` must be valid.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_migrate_to_devmem(
    devmem: *mut bindings::drm_pagemap_devmem,
    mm: *mut bindings::mm_struct,
    start: usize,
    end: usize,
    details: *const bindings::drm_pagemap_migrate_details,
) -> c_int {
    // SAFETY: The caller gives up its reference.
    let devmem = unsafe { DevmemRef::from_raw(NonNull::new_unchecked(devmem)) };
    // SAFETY: Promised by the caller.
    let mm = unsafe { LockedMm::borrowed(MmWithUser::from_raw(mm)) };
    // SAFETY: Promised by the caller.
    let details = unsafe {
        Details {
            can_migrate_same_pagemap: (*details).can_migrate_same_pagemap() != 0,
            ..Details::with_timeslice_ms((*details).timeslice_ms)
        }
    };
    let complete = devmem.can_migrate();

    errno(
        match migrate::to_devmem::to_devmem(devmem, &mm, start..end, &details, Want::All, None) {
            Err(err) if err == EOPNOTSUPP && complete => Err(EBUSY),
            result => result.map(|_| ()),
        },
    )
}

/// Evicts an allocation; see [`to_ram`](migrate::evict::to_ram).
///
/// # Safety
///
/// `devmem` must be an initialized allocation that the caller keeps in memory.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_evict_to_ram(
    devmem: *mut bindings::drm_pagemap_devmem,
) -> c_int {
    // SAFETY: Promised by the caller.
    let devmem = unsafe { DrmPagemapDevmem::from_raw(devmem) };

    errno(migrate::evict::to_ram(devmem, None, &mut 0))
}

/// The operations that a driver registers its zone device with.
#[no_mangle]
pub extern "C" fn drm_pagemap_pagemap_ops_get() -> *const bindings::dev_pagemap_ops {
    &dev_ops::OPS
}

/// The pagemap of a device page; null if the page is not one of this layer's.
///
/// # Safety
///
/// `page` must be a page that is referenced.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_page_to_dpagemap(
    page: *mut bindings::page,
) -> *mut bindings::drm_pagemap {
    // SAFETY: Promised by the caller.
    let folio = unsafe { Folio::of_page(page) };

    Zdd::of_folio(folio).map_or(ptr::null_mut(), |zdd| zdd.dpagemap().as_raw())
}

/// Has a pagemap's driver populate a range; see [`populate_mm`](migrate::populate_mm).
///
/// # Safety
///
/// `dpagemap` must be referenced, and `mm` be kept from being freed, by the caller.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_populate_mm(
    dpagemap: *mut bindings::drm_pagemap,
    start: usize,
    end: usize,
    mm: *mut bindings::mm_struct,
    timeslice_ms: usize,
) -> c_int {
    // SAFETY: Promised by the caller.
    let (dpagemap, mm) = unsafe { (DrmPagemap::from_raw(dpagemap), Mm::from_raw(mm)) };

    errno(migrate::populate_mm(dpagemap, mm, start..end, timeslice_ms))
}

/// Destroys a pagemap that nobody uses; see [`DrmPagemap::destroy`]. For the layer itself: not
/// exported, as in C.
///
/// # Safety
///
/// As [`DrmPagemap::destroy`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_destroy(
    dpagemap: *mut bindings::drm_pagemap,
    is_atomic_or_reclaim: bool,
) {
    // SAFETY: Promised by the caller.
    unsafe {
        DrmPagemap::destroy(
            NonNull::new_unchecked(dpagemap.cast()),
            is_atomic_or_reclaim,
        )
    };
}

/// Keeps or destroys a pagemap that nobody uses any more; see [`shrinker::add`]. For the layer
/// itself: not exported, as in C.
///
/// # Safety
///
/// As [`shrinker::add`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_shrinker_add(dpagemap: *mut bindings::drm_pagemap) {
    // SAFETY: Promised by the caller.
    unsafe { shrinker::add(NonNull::new_unchecked(dpagemap.cast())) };
}

/// Tells lockdep that a reference on the pagemap may be dropped here. Not exported, as in C.
///
/// # Safety
///
/// `dpagemap` must be initialized, and referenced.
#[cfg(CONFIG_PROVE_LOCKING)]
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_shrinker_might_lock(dpagemap: *mut bindings::drm_pagemap) {
    // SAFETY: Promised by the caller.
    unsafe { shrinker::might_lock(NonNull::new_unchecked(dpagemap.cast())) };
}

/// Makes a shrinker, which goes when the device is unbound.
///
/// # Safety
///
/// As [`shrinker::create_devm`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_shrinker_create_devm(
    drm: *mut bindings::drm_device,
) -> *mut bindings::drm_pagemap_shrinker {
    // SAFETY: Promised by the caller.
    let shrinker = unsafe { shrinker::create_devm(NonNull::new_unchecked(drm)) };

    shrinker.map_or_else(|err| err.to_ptr(), |shrinker| shrinker.as_ptr().cast())
}

/// Makes a cache, which goes when the device is unbound.
///
/// # Safety
///
/// `shrinker` must be one that [`drm_pagemap_shrinker_create_devm`] made for a device that is still
/// bound.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_cache_create_devm(
    shrinker: *mut bindings::drm_pagemap_shrinker,
) -> *mut bindings::drm_pagemap_cache {
    // SAFETY: Promised by the caller: the device has a count of it.
    let cache = unsafe {
        cache::create_devm(ArcBorrow::from_raw(
            shrinker.cast::<Shrinker>().cast_const(),
        ))
    };

    cache.map_or_else(|err| err.to_ptr(), |cache| cache.as_ptr().cast())
}

/// A cache that C has.
///
/// # Safety
///
/// `cache` must be one that [`drm_pagemap_cache_create_devm`] made for a device that stays bound
/// for `'a`.
unsafe fn cache_of<'a>(cache: *mut bindings::drm_pagemap_cache) -> ArcBorrow<'a, Cache> {
    // SAFETY: Promised by the caller: the device has a count of it.
    unsafe { ArcBorrow::from_raw(cache.cast::<Cache>().cast_const()) }
}

/// Locks a cache for a lookup. `-EINTR`: a signal came first.
///
/// # Safety
///
/// As [`cache_of`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_cache_lock_lookup(
    cache: *mut bindings::drm_pagemap_cache,
) -> c_int {
    // SAFETY: Promised by the caller.
    errno(unsafe { cache_of(cache) }.lock_lookup())
}

/// Unlocks a cache after a lookup.
///
/// # Safety
///
/// As [`cache_of`] says; the caller must have locked the cache.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_cache_unlock_lookup(cache: *mut bindings::drm_pagemap_cache) {
    // SAFETY: Promised by the caller.
    unsafe { cache_of(cache).unlock_lookup() };
}

/// Looks up a pagemap, with a reference; null: the caller shall make one. Errors as [`Cache::get`].
///
/// # Safety
///
/// As [`cache_of`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_get_from_cache(
    cache: *mut bindings::drm_pagemap_cache,
) -> *mut bindings::drm_pagemap {
    // SAFETY: Promised by the caller.
    let dpagemap = Cache::get(unsafe { cache_of(cache) });

    dpagemap.map_or_else(|err| err.to_ptr(), given)
}

/// Looks up a pagemap that is in use, with a reference; null if it isn't.
///
/// # Safety
///
/// As [`cache_of`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_get_from_cache_if_active(
    cache: *mut bindings::drm_pagemap_cache,
) -> *mut bindings::drm_pagemap {
    // SAFETY: Promised by the caller.
    given(unsafe { cache_of(cache) }.get_if_active())
}

/// A reference that the caller gets, or null.
fn given(dpagemap: Option<ARef<DrmPagemap>>) -> *mut bindings::drm_pagemap {
    dpagemap.map_or(ptr::null_mut(), |dpagemap| {
        ARef::into_raw(dpagemap).as_ptr().cast()
    })
}

/// Inserts a pagemap into a cache; see [`Cache::set`].
///
/// # Safety
///
/// As [`cache_of`] says; `dpagemap` must be initialized and referenced, and in no other cache.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_cache_set_pagemap(
    cache: *mut bindings::drm_pagemap_cache,
    dpagemap: *mut bindings::drm_pagemap,
) {
    // SAFETY: Promised by the caller.
    let (cache, dpagemap) = unsafe { (cache_of(cache), DrmPagemap::from_raw(dpagemap)) };

    Cache::set(cache, dpagemap);
}

/// Joins an interconnect group; see [`owner::acquire`].
///
/// # Safety
///
/// As [`owner::acquire`] says; `has_interconnect` must not be null.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_acquire_owner(
    peer: *mut bindings::drm_pagemap_peer,
    owner_list: *mut bindings::drm_pagemap_owner_list,
    has_interconnect: Option<owner::HasInterconnect>,
) -> c_int {
    let Some(has_interconnect) = has_interconnect else {
        return EINVAL.to_errno();
    };

    // SAFETY: Promised by the caller.
    errno(unsafe {
        owner::acquire(
            NonNull::new_unchecked(peer),
            NonNull::new_unchecked(owner_list),
            has_interconnect,
        )
    })
}

/// Leaves an interconnect group; see [`owner::release`].
///
/// # Safety
///
/// As [`owner::release`] says.
#[no_mangle]
pub unsafe extern "C" fn drm_pagemap_release_owner(peer: *mut bindings::drm_pagemap_peer) {
    // SAFETY: Promised by the caller.
    unsafe { owner::release(NonNull::new_unchecked(peer)) };
}
