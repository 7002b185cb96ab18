// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The cache: finds a device's pagemap again, also when nobody uses it just now.
//!
//! C header: [`include/drm/drm_pagemap_util.h`](srctree/include/drm/drm_pagemap_util.h)
//!
//! A pagemap in a cache is in one of three states, which change under the
//! [shrinker's](crate::shrinker) lock only:
//! - in use: it has references;
//! - going: the last one was just dropped, and who did that is on the way to the next state;
//! - idle: it has none, and is in the shrinker's list.
//!
//! From idle it becomes used again through a lookup, or is taken out and destroyed: by the
//! shrinker, or with the cache. If it can't become idle, because the device was unplugged, it
//! leaves the cache, and whoever waits for it is told.

use crate::{
    bindings,
    dpagemap::DrmPagemap,
    shrinker::{
        IdleList,
        Shrinker, //
    }, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    devres,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow,
        CondVar,
        LockedBy, //
    },
    types::Opaque, //
};

/// Holds one pagemap; `struct drm_pagemap_cache`.
///
/// It goes when the device is unbound, but its memory stays for the pagemaps that refer to it.
///
/// # Invariants
///
/// Instances live in an [`Arc`]. `dpagemap`, if there is one, is initialized and in memory, and its
/// `cache` is this one; a count of the [`Arc`] belongs to that field.
#[pin_data(PinnedDrop)]
pub(crate) struct Cache {
    shrinker: Arc<Shrinker>,
    /// Makes a lookup that fails and the insertion that follows one step.
    #[pin]
    lookup: Opaque<bindings::mutex>,
    dpagemap: LockedBy<Option<Cached>, IdleList>,
    /// Tells those who wait that the pagemap is not going any more.
    #[pin]
    settled: CondVar,
}

// SAFETY: The C mutex may be used by any thread; the rest is too.
unsafe impl Send for Cache {}
// SAFETY: As above.
unsafe impl Sync for Cache {}

/// The pagemap of a cache, which has no reference on it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cached(NonNull<DrmPagemap>);

// SAFETY: Pagemaps can be used by any thread.
unsafe impl Send for Cached {}

/// What lockdep calls the wait queue.
static NAME: &CStr = c"drm_pagemap_cache::settled";

impl Cache {
    fn new(shrinker: Arc<Shrinker>) -> Result<Arc<Self>> {
        Arc::pin_init::<Error>(
            try_pin_init!(Self {
                lookup <- Opaque::ffi_init(|lock: *mut bindings::mutex| {
                    // SAFETY: Memory for a mutex, which is pinned.
                    unsafe { bindings::drm_pagemap_helper_cache_lookup_init(lock) };
                }),
                dpagemap: LockedBy::new(shrinker.guard(), None),
                settled <- CondVar::new(NAME, kernel::static_lock_class!()),
                shrinker,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The cache that a pagemap is, or was, in.
    ///
    /// # Safety
    ///
    /// `dpagemap` must be initialized, and not be destroyed during `'a`.
    pub(crate) unsafe fn of<'a>(dpagemap: NonNull<DrmPagemap>) -> Option<ArcBorrow<'a, Self>> {
        // SAFETY: Promised by the caller. The type is transparent.
        let cache = unsafe { (*dpagemap.as_ptr().cast::<bindings::drm_pagemap>()).cache };

        // SAFETY: What `set` put there, with a count that is the pagemap's until it is destroyed.
        NonNull::new(cache).map(|cache| unsafe { ArcBorrow::from_raw(cache.as_ptr().cast()) })
    }

    /// Ends that a pagemap refers to a cache. The cache may be freed. Any context.
    ///
    /// # Safety
    ///
    /// `dpagemap` must be initialized, in no cache, and nobody else's.
    pub(crate) unsafe fn unset(dpagemap: NonNull<DrmPagemap>) {
        // SAFETY: Promised by the caller. The type is transparent.
        let field = unsafe { &mut (*dpagemap.as_ptr().cast::<bindings::drm_pagemap>()).cache };
        let cache = core::mem::replace(field, ptr::null_mut());

        if !cache.is_null() {
            // SAFETY: The count that `set` gave to the pagemap.
            drop(unsafe { Arc::from_raw(cache.cast::<Self>().cast_const()) });
        }
    }

    /// The shrinker that it is on.
    #[cfg(CONFIG_PROVE_LOCKING)]
    pub(crate) fn shrinker(&self) -> &Shrinker {
        &self.shrinker
    }

    /// Locks it for a lookup. May sleep. [`EINTR`]: a signal came first.
    pub(crate) fn lock_lookup(&self) -> Result {
        // SAFETY: Initialized.
        kernel::error::to_result(unsafe {
            bindings::drm_pagemap_helper_mutex_lock_interruptible(self.lookup.get())
        })
    }

    /// Ends what [`lock_lookup`](Self::lock_lookup) began.
    ///
    /// # Safety
    ///
    /// The caller must have locked it.
    pub(crate) unsafe fn unlock_lookup(&self) {
        // SAFETY: Promised by the caller.
        unsafe { bindings::mutex_unlock(self.lookup.get()) };
    }

    fn assert_locked(&self) {
        // SAFETY: Initialized.
        unsafe { bindings::mutex_assert_is_held(self.lookup.get()) };
    }

    /// The pagemap, if it is in use. Any context.
    pub(crate) fn get_if_active(&self) -> Option<ARef<DrmPagemap>> {
        let idle = self.shrinker.lock();

        self.dpagemap(&idle)?.get_unless_zero()
    }

    /// The pagemap, brought back to life if it is idle; [`None`]: the caller shall make one and
    /// [insert](Self::set) it. Called with the lookup locked; may sleep.
    ///
    /// [`ERESTARTSYS`]: a signal came while the pagemap was going. [`ENOMEM`]; [`ENODEV`]: the
    /// driver's module is being unloaded. With these two the pagemap is destroyed.
    pub(crate) fn get(this: ArcBorrow<'_, Self>) -> Result<Option<ARef<DrmPagemap>>> {
        this.assert_locked();

        let mut idle = this.shrinker.lock();
        let dpagemap = loop {
            let Some(dpagemap) = this.dpagemap(&idle) else {
                return Ok(None);
            };
            if let Some(dpagemap) = dpagemap.get_unless_zero() {
                return Ok(Some(dpagemap));
            }
            let dpagemap = NonNull::from(dpagemap);

            if this.shrinker.remove(&mut idle, dpagemap) {
                this.forget(&mut idle, dpagemap);
                break dpagemap;
            }
            if this.settled.wait_interruptible(&mut idle) {
                return Err(ERESTARTSYS);
            }
        };

        drop(idle);
        // SAFETY: It was idle, and now is ours alone.
        unsafe {
            if let Err(err) = DrmPagemap::reinit(dpagemap.as_ptr().cast()) {
                DrmPagemap::destroy(dpagemap, false);
                return Err(err);
            }
            Self::set(this, dpagemap.as_ref());
            // The reference that `reinit` made.
            Ok(Some(ARef::from_raw(dpagemap)))
        }
    }

    /// Inserts a pagemap that is in use. Called with the lookup locked; may sleep.
    ///
    /// The cache should be empty. If it isn't there is a warning; what was in it is destroyed, or
    /// will be when its last reference is gone.
    pub(crate) fn set(this: ArcBorrow<'_, Self>, dpagemap: &DrmPagemap) {
        this.assert_locked();

        let new = NonNull::from(dpagemap);
        // SAFETY: The caller has a reference.
        let before = unsafe { Self::of(new) };

        if !before.is_some_and(|before| ptr::eq(&*before, &*this)) {
            // SAFETY: Only who inserts it writes the field while there are references.
            unsafe {
                Self::unset(new);
                (*dpagemap.as_raw()).cache = Arc::into_raw(this.into()).cast_mut().cast();
            }
        }

        let mut idle = this.shrinker.lock();
        // INVARIANT: It refers to this cache, since just now.
        let old = this.dpagemap.access_mut(&mut idle).replace(Cached(new));
        let unused = old.filter(|old| this.shrinker.remove(&mut idle, old.0));

        drop(idle);
        kernel::warn_on!(old.is_some());
        if let Some(Cached(old)) = unused {
            // SAFETY: It was idle, and in this cache; now it is ours alone.
            unsafe { DrmPagemap::destroy(old, false) };
        }
    }

    /// The last reference on `dpagemap` is gone. Makes it idle, if `keep`, and returns whether it
    /// is; else it is in no cache any more. Any context.
    ///
    /// # Safety
    ///
    /// Its count must be 0, it nobody else's, and its cache this one. When it is idle it may be
    /// destroyed any time.
    pub(crate) unsafe fn unused(&self, dpagemap: NonNull<DrmPagemap>, keep: bool) -> bool {
        let mut idle = self.shrinker.lock();
        let ours = *self.dpagemap.access_mut(&mut idle) == Some(Cached(dpagemap));

        if ours && keep {
            // SAFETY: It is in this cache; the rest is promised by the caller.
            unsafe { self.shrinker.push(&mut idle, dpagemap) };
        } else {
            self.forget(&mut idle, dpagemap);
        }
        self.settled.notify_all();
        ours && keep
    }

    /// Empties the cache, if it is `dpagemap` that is in it.
    pub(crate) fn forget(&self, idle: &mut IdleList, dpagemap: NonNull<DrmPagemap>) {
        self.dpagemap
            .access_mut(idle)
            .take_if(|cached| cached.0 == dpagemap);
    }

    /// What is in the cache.
    fn dpagemap<'a>(&'a self, idle: &'a IdleList) -> Option<&'a DrmPagemap> {
        let cached = self.dpagemap.access(idle).as_ref()?;

        // SAFETY: By the type invariant; it is not destroyed before it was taken out, which takes
        // the lock.
        Some(unsafe { cached.0.as_ref() })
    }
}

// SAFETY: `&Cached` is a pointer that can be copied, and nothing more.
unsafe impl Sync for Cached {}

#[pinned_drop]
impl PinnedDrop for Cache {
    /// Any context.
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialized, and nobody has it locked: nobody has a count.
        unsafe { bindings::mutex_destroy(self.lookup.get()) };
    }
}

/// A cache as the device has it. Dropping it empties the cache; an idle pagemap is destroyed. May
/// sleep.
struct Bound(Arc<Cache>);

impl Drop for Bound {
    fn drop(&mut self) {
        let Self(cache) = self;
        let mut idle = cache.shrinker.lock();
        let dpagemap = cache.dpagemap.access_mut(&mut idle).take();
        let unused = dpagemap.filter(|dpagemap| cache.shrinker.remove(&mut idle, dpagemap.0));

        // Nobody should wait for it any more; but if somebody does, not for ever.
        cache.settled.notify_all();
        drop(idle);
        if let Some(Cached(dpagemap)) = unused {
            // SAFETY: It was idle, and now is ours alone.
            unsafe { DrmPagemap::destroy(dpagemap, false) };
        }
    }
}

/// Makes a cache, which is emptied and goes when the device is unbound: before its shrinker does.
/// May sleep. [`ENOMEM`].
///
/// # Safety
///
/// `shrinker` must come from [`create_devm`](crate::shrinker::create_devm), and its device be
/// bound.
pub(crate) unsafe fn create_devm(shrinker: ArcBorrow<'_, Shrinker>) -> Result<NonNull<Cache>> {
    let cache = Cache::new(shrinker.into())?;
    let raw = NonNull::from(&*cache);
    // SAFETY: Promised by the caller.
    let parent = unsafe { shrinker.parent() };

    devres::register::<Bound, Error>(parent, Ok(Bound(cache)), GFP_KERNEL)?;
    Ok(raw)
}
