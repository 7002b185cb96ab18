// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Interconnect groups for Rust drivers.
//!
//! C header: [`include/drm/drm_pagemap_util.h`](srctree/include/drm/drm_pagemap_util.h)

use crate::{
    bindings,
    mm::PagemapOwner,
    owner, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    types::Opaque, //
};

/// One that may have fast interconnects to others: a device with memory, or a user of such memory.
pub trait Endpoint: Send + Sync + 'static {
    /// Whether the two reach each other's memory. It must not matter who of them is asked.
    ///
    /// Called with the list's lock held, so it must not join or leave the list; may sleep.
    fn has_interconnect(&self, other: &Self) -> bool;
}

/// All endpoints of a driver; `struct drm_pagemap_owner_list`. Typically the driver's one static:
///
/// ```ignore
/// static OWNERS: OwnerList<Port> = OwnerList::new();
/// ```
///
/// # Invariants
///
/// `list` is initialized if `state` is [`READY`].
pub struct OwnerList<E> {
    state: Atomic<i32>,
    list: Opaque<bindings::drm_pagemap_owner_list>,
    _endpoint: PhantomData<fn(&E)>,
}

// SAFETY: The list has a lock of its own.
unsafe impl<E> Sync for OwnerList<E> {}

/// States of a list: a lock can't be initialized in a constant, so the first peer does it.
const NEW: i32 = 0;
const BUSY: i32 = 1;
const READY: i32 = 2;

impl<E: Endpoint> OwnerList<E> {
    /// An empty list.
    #[expect(clippy::new_without_default)]
    pub const fn new() -> Self {
        // INVARIANT: Not ready.
        Self {
            state: Atomic::new(NEW),
            list: Opaque::uninit(),
            _endpoint: PhantomData,
        }
    }
}

/// The list, initialized. Not inlined: drivers' crates can't call the helper. May sleep.
///
/// # Safety
///
/// `list` must be memory for a list for ever, and `state` say whether it is initialized.
#[inline(never)]
unsafe fn ready(
    state: &Atomic<i32>,
    list: *mut bindings::drm_pagemap_owner_list,
) -> NonNull<bindings::drm_pagemap_owner_list> {
    if state.load(Acquire) != READY {
        if state.cmpxchg(NEW, BUSY, Relaxed).is_ok() {
            // SAFETY: Promised by the caller; everybody else waits.
            unsafe { bindings::drm_pagemap_helper_owner_list_init(list) };
            state.store(READY, Release);
        }
        while state.load(Acquire) != READY {
            fsleep(Delta::from_micros(10));
        }
    }
    // SAFETY: Memory is not at null.
    unsafe { NonNull::new_unchecked(list) }
}

/// A member of an interconnect group, until it is dropped.
///
/// A newcomer joins the first group each member of which it has an interconnect with, or founds
/// one. What a group has in common is its [owner](Self::owner), with which the zone devices of its
/// members are [registered](crate::Registration::in_group).
pub struct Peer<E: Endpoint>(Pin<KBox<Member<E>>>);

/// What a [`Peer`] keeps in one place.
///
/// # Invariants
///
/// `base` is in an [`OwnerList`] of such members.
#[pin_data]
#[repr(C)]
struct Member<E> {
    #[pin]
    base: Opaque<bindings::drm_pagemap_peer>,
    endpoint: E,
}

// SAFETY: `base` changes with the list's lock held; the endpoint is `Send` and `Sync`.
unsafe impl<E: Endpoint> Send for Peer<E> {}
// SAFETY: As above.
unsafe impl<E: Endpoint> Sync for Peer<E> {}

impl<E: Endpoint> Peer<E> {
    /// Joins a group on `list`. May sleep. [`ENOMEM`].
    pub fn join(list: &'static OwnerList<E>, endpoint: E) -> Result<Self> {
        let member = KBox::pin_init::<Error>(
            try_pin_init!(Member {
                base <- Opaque::zeroed(),
                endpoint,
            }? Error),
            GFP_KERNEL,
        )?;

        // SAFETY: The list is a static, and has peers of this type only, which are pinned until
        // they have left.
        unsafe {
            owner::acquire(
                NonNull::new_unchecked(member.base.get()),
                ready(&list.state, list.list.get()),
                has_interconnect::<E>,
            )?
        };
        // INVARIANT: Joined.
        Ok(Self(member))
    }

    /// What it joined as.
    pub fn endpoint(&self) -> &E {
        &self.0.endpoint
    }

    /// The owner that its group has in common. No other group has the same one while this peer is
    /// in it.
    pub fn owner(&self) -> PagemapOwner {
        // SAFETY: Set when it joined, constant until it leaves.
        PagemapOwner::from_raw(unsafe { (*self.0.base.get()).owner }.cast())
    }
}

impl<E: Endpoint> Drop for Peer<E> {
    /// Leaves the group. May sleep.
    fn drop(&mut self) {
        // SAFETY: By the type invariant of `Member` it has joined.
        unsafe { owner::release(NonNull::new_unchecked(self.0.base.get())) };
    }
}

/// Asks one endpoint about another.
///
/// # Safety
///
/// Both must be peers on an `OwnerList<E>`.
unsafe extern "C" fn has_interconnect<E: Endpoint>(
    one: *mut bindings::drm_pagemap_peer,
    other: *mut bindings::drm_pagemap_peer,
) -> bool {
    // SAFETY: By the caller's promise each is the first field of a member.
    let (one, other) = unsafe { (&*one.cast::<Member<E>>(), &*other.cast::<Member<E>>()) };

    one.endpoint.has_interconnect(&other.endpoint)
}
