// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The shrinker: destroys pagemaps that nobody uses when memory is short.
//!
//! C headers: [`include/drm/drm_pagemap_util.h`](srctree/include/drm/drm_pagemap_util.h),
//! [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)
//!
//! There is one lock for a device's shrinker and all [caches](crate::cache) on it. Under it a
//! pagemap moves in one step from "in use" to "idle" and on to "gone" or back, so that nobody ever
//! finds it in the list and not in its cache, or the other way round. It is a spin lock that
//! disables interrupts: the last reference on a pagemap may be dropped in a soft interrupt.

use crate::{
    bindings,
    cache::Cache,
    dpagemap::DrmPagemap, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    devres,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::spinlock::SpinLockIrqGuard,
        Arc,
        SpinLockIrq, //
    },
    types::Opaque, //
};

/// The idle pagemaps of a device, least recently used first; `struct drm_pagemap_shrinker`.
#[pin_data]
pub(crate) struct Shrinker {
    drm: NonNull<bindings::drm_device>,
    #[pin]
    idle: SpinLockIrq<IdleList>,
    #[pin]
    head: Opaque<bindings::list_head>,
    /// The number of idle pagemaps; changed with the lock held.
    len: Atomic<usize>,
}

// SAFETY: The list is guarded by the lock; the device is only looked at.
unsafe impl Send for Shrinker {}
// SAFETY: As above.
unsafe impl Sync for Shrinker {}

/// Access to the idle pagemaps of a [`Shrinker`]: what its lock guards, and the key to its caches.
///
/// # Invariants
///
/// `shrinker` is the one whose lock guards the value. The links in its list are the `shrink_link`
/// of pagemaps whose count is 0, which are in their caches, and which nobody else destroys.
pub(crate) struct IdleList {
    head: *mut bindings::list_head,
}

// SAFETY: A pointer to the list that the value stands for.
unsafe impl Send for IdleList {}

impl IdleList {
    /// Whether `dpagemap` is idle, that is, in the list.
    pub(crate) fn contains(&self, dpagemap: NonNull<DrmPagemap>) -> bool {
        let link = link_of(dpagemap);

        // SAFETY: Initialized since `DrmPagemap::init`; changed with the lock held only.
        unsafe { !ptr::eq((*link).next, link) }
    }
}

/// The link of a pagemap in the list of idle ones.
fn link_of(dpagemap: NonNull<DrmPagemap>) -> *mut bindings::list_head {
    // SAFETY: Callers have an initialized pagemap, which is in memory. The type is transparent.
    unsafe { &raw mut (*dpagemap.as_ptr().cast::<bindings::drm_pagemap>()).shrink_link }
}

/// What lockdep calls the lock.
static NAME: &CStr = c"drm_pagemap_shrinker::lock";

impl Shrinker {
    fn new(drm: NonNull<bindings::drm_device>) -> Result<Arc<Self>> {
        let shrinker = Arc::pin_init::<Error>(
            try_pin_init!(Self {
                drm,
                idle <- SpinLockIrq::new(
                    IdleList { head: ptr::null_mut() },
                    NAME,
                    kernel::static_lock_class!(),
                ),
                head <- Opaque::ffi_init(|head: *mut bindings::list_head| {
                    // SAFETY: Memory for a list head, which is pinned.
                    unsafe { bindings::INIT_LIST_HEAD(head) };
                }),
                len: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        )?;

        // INVARIANT: The list of this shrinker, which is empty.
        shrinker.idle.lock().head = shrinker.head.get();
        Ok(shrinker)
    }

    /// Locks it, and the caches on it, with interrupts off.
    pub(crate) fn lock(&self) -> SpinLockIrqGuard<'_, IdleList> {
        self.idle.lock()
    }

    /// What the caches on this shrinker are guarded by.
    pub(crate) fn guard(&self) -> &SpinLockIrq<IdleList> {
        &self.idle
    }

    /// The device that shrinker and caches are bound to.
    ///
    /// # Safety
    ///
    /// The DRM device must exist, and its parent be bound to a driver for `'a`.
    pub(crate) unsafe fn parent<'a>(&self) -> &'a Device<Bound> {
        // SAFETY: Promised by the caller.
        unsafe { Device::from_raw(bindings::drm_pagemap_helper_drm_parent(self.drm.as_ptr())) }
    }

    /// Makes `dpagemap` idle, as the most recently used one. Any context.
    ///
    /// # Safety
    ///
    /// It must be in its cache, which is on this shrinker, have a count of 0, and be nobody else's.
    pub(crate) unsafe fn push(&self, idle: &mut IdleList, dpagemap: NonNull<DrmPagemap>) {
        debug_assert!(!idle.contains(dpagemap));
        // SAFETY: The lock is held, of which `idle` is proof. The link is not in a list.
        unsafe { bindings::list_add_tail(link_of(dpagemap), idle.head) };
        self.len.store(self.len.load(Relaxed) + 1, Relaxed);
    }

    /// Ends that `dpagemap` is idle, and returns whether it was. It is the caller's then. Any
    /// context.
    pub(crate) fn remove(&self, idle: &mut IdleList, dpagemap: NonNull<DrmPagemap>) -> bool {
        if !idle.contains(dpagemap) {
            return false;
        }
        // SAFETY: In the list, whose lock is held.
        unsafe { bindings::drm_pagemap_helper_list_del_init(link_of(dpagemap)) };
        self.len.store(self.len.load(Relaxed) - 1, Relaxed);
        true
    }

    /// Takes the pagemap that was idle for longest out of the list and out of its cache.
    fn pop(&self) -> Option<NonNull<DrmPagemap>> {
        let mut idle = self.lock();
        // SAFETY: The lock is held.
        let link = unsafe { (*idle.head).next };

        if ptr::eq(link, idle.head) {
            return None;
        }
        // SAFETY: By the type invariant the link is in a pagemap.
        let raw = unsafe { kernel::container_of!(link, bindings::drm_pagemap, shrink_link) };
        let dpagemap = NonNull::new(raw)?.cast::<DrmPagemap>();

        // SAFETY: By the type invariant it is initialized, and in its cache.
        if let Some(cache) = unsafe { Cache::of(dpagemap) } {
            cache.forget(&mut idle, dpagemap);
        }
        self.remove(&mut idle, dpagemap);
        Some(dpagemap)
    }

    /// Destroys up to `nr` idle pagemaps, and returns how many. From reclaim.
    fn scan(&self, nr: usize) -> usize {
        let mut freed = 0;

        // The core asks for one at least.
        while let Some(dpagemap) = self.pop() {
            // SAFETY: It was idle, and now is ours alone.
            unsafe { DrmPagemap::destroy(dpagemap, true) };
            freed += 1;
            if freed >= nr {
                break;
            }
        }
        freed
    }
}

/// A shrinker that the core knows of. Dropping it waits until it doesn't, and nobody is in it. May
/// sleep.
///
/// # Invariants
///
/// `core` is registered; its private data is `shrinker`.
struct Registered {
    core: NonNull<bindings::shrinker>,
    shrinker: Arc<Shrinker>,
}

// SAFETY: It may be unregistered by any thread.
unsafe impl Send for Registered {}

impl Registered {
    fn new(shrinker: Arc<Shrinker>) -> Result<Self> {
        // SAFETY: The device exists: it was given to `create_devm`.
        let core = unsafe { bindings::drm_pagemap_helper_shrinker_alloc(shrinker.drm.as_ptr()) };
        let core = NonNull::new(core).ok_or(ENOMEM)?;

        // SAFETY: Ours, and filled in before it is registered.
        unsafe {
            (*core.as_ptr()).count_objects = Some(count_objects);
            (*core.as_ptr()).scan_objects = Some(scan_objects);
            (*core.as_ptr()).private_data = Arc::as_ptr(&shrinker).cast_mut().cast();
            bindings::shrinker_register(core.as_ptr());
        }
        // INVARIANT: Just done.
        Ok(Self { core, shrinker })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Caches are bound to the same device later, so they are gone before; with them what was
        // idle.
        debug_assert_eq!(self.shrinker.len.load(Relaxed), 0);
        // SAFETY: By the type invariant. It waits for those who are in the callbacks.
        unsafe { bindings::shrinker_free(self.core.as_ptr()) };
    }
}

/// Makes the shrinker of a device, which goes when the device's parent is unbound. May sleep.
/// [`ENOMEM`].
///
/// # Safety
///
/// `drm` must be a DRM device whose parent is bound, or being bound, to its driver.
pub(crate) unsafe fn create_devm(drm: NonNull<bindings::drm_device>) -> Result<NonNull<Shrinker>> {
    let shrinker = Shrinker::new(drm)?;
    // SAFETY: Promised by the caller.
    let parent = unsafe { shrinker.parent() };
    let raw = NonNull::from(&*shrinker);

    devres::register::<Registered, Error>(parent, Ok(Registered::new(shrinker)?), GFP_KERNEL)?;
    Ok(raw)
}

/// What the core calls that there is nothing to free. bindgen makes a signed number of it, as of
/// the next.
const EMPTY: usize = bindings::SHRINK_EMPTY as usize;
/// What the core calls that nothing was freed.
const STOP: usize = bindings::SHRINK_STOP as usize;

/// The number of pagemaps that could be destroyed. Any context.
///
/// # Safety
///
/// `core` must be a registered shrinker of this module.
unsafe extern "C" fn count_objects(
    core: *mut bindings::shrinker,
    _control: *mut bindings::shrink_control,
) -> usize {
    // SAFETY: By the invariant of `Registered`; the core keeps it registered during the call.
    let shrinker = unsafe { &*(*core).private_data.cast::<Shrinker>() };

    match shrinker.len.load(Relaxed) {
        0 => EMPTY,
        len => len,
    }
}

/// Destroys some. From reclaim.
///
/// # Safety
///
/// `core` must be a registered shrinker of this module; `control` be valid.
unsafe extern "C" fn scan_objects(
    core: *mut bindings::shrinker,
    control: *mut bindings::shrink_control,
) -> usize {
    // SAFETY: As in `count_objects`.
    let shrinker = unsafe { &*(*core).private_data.cast::<Shrinker>() };
    // SAFETY: Promised by the caller.
    let control = unsafe { &mut *control };

    control.nr_scanned = shrinker.scan(control.nr_to_scan);
    match control.nr_scanned {
        0 => STOP,
        freed => freed,
    }
}

/// The last reference on `dpagemap` is gone: keeps it, idle, if it is in a cache and its device was
/// not unplugged; else destroys it. Any context but that of a hard interrupt.
///
/// # Safety
///
/// Its count must be 0, and it nobody else's. It may be gone afterwards.
pub(crate) unsafe fn add(dpagemap: NonNull<DrmPagemap>) {
    // SAFETY: Initialized, and ours.
    let kept = match unsafe { Cache::of(dpagemap) } {
        // A count of its own: once idle, the pagemap, and the one that it has, may go any time.
        Some(cache) => {
            let cache: Arc<Cache> = cache.into();
            // SAFETY: The pagemap's hold keeps the DRM device.
            let plugged =
                unsafe { Plugged::enter((*dpagemap.as_ptr().cast::<bindings::drm_pagemap>()).drm) };

            // SAFETY: As the caller promises.
            unsafe { cache.unused(dpagemap, plugged.is_some()) }
        }
        None => false,
    };

    if !kept {
        // SAFETY: As the caller promises; it is in no cache any more.
        unsafe { DrmPagemap::destroy(dpagemap, true) };
    }
}

/// A section during which the DRM device is not unplugged.
struct Plugged(i32);

impl Plugged {
    /// [`None`]: it was unplugged. Any context.
    ///
    /// # Safety
    ///
    /// `drm` must be a DRM device.
    unsafe fn enter(drm: *mut bindings::drm_device) -> Option<Self> {
        let mut index = 0;

        // SAFETY: Promised by the caller.
        unsafe { bindings::drm_dev_enter(drm, &mut index) }.then(|| Self(index))
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        // SAFETY: The index is that of the section.
        unsafe { bindings::drm_dev_exit(self.0) };
    }
}

/// Lets lockdep know that dropping a reference on `dpagemap` may take its shrinker's lock.
///
/// # Safety
///
/// `dpagemap` must be initialized, and referenced.
#[cfg(CONFIG_PROVE_LOCKING)]
pub(crate) unsafe fn might_lock(dpagemap: NonNull<DrmPagemap>) {
    // SAFETY: Promised by the caller. The cache stays as long as the reference.
    if let Some(cache) = unsafe { Cache::of(dpagemap) } {
        // Taking it says no less than C's annotation, and takes nothing that the lock doesn't give.
        drop(cache.shrinker().lock());
    }
}
