// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Interconnect groups: devices that reach each other's memory share a pagemap owner.
//!
//! C header: [`include/drm/drm_pagemap_util.h`](srctree/include/drm/drm_pagemap_util.h)
//!
//! A list of peers is kept group by group: the peers of one group are neighbours in it. That holds
//! because a newcomer is put behind the last peer of the group that it joins, or starts a group of
//! its own at the end, and because leaving changes no order.

use crate::bindings;
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    prelude::*,
    sync::{
        lock::mutex::MutexBackend,
        lock::Lock,
        Arc,
        ArcBorrow, //
    },
};

/// What peers of a group have in common; `struct drm_pagemap_owner`.
///
/// Only its address means something: it is what zone devices are marked with. Each peer has a count
/// of the [`Arc`], so no other group gets the address while anybody is left in this one.
struct Group {
    // Not empty, so that the address is its own.
    _used: u8,
}

/// How two peers are asked whether they have a fast interconnect.
pub(crate) type HasInterconnect =
    unsafe extern "C" fn(*mut bindings::drm_pagemap_peer, *mut bindings::drm_pagemap_peer) -> bool;

/// The peers of a driver; `struct drm_pagemap_owner_list`, locked.
///
/// # Invariants
///
/// - The list is initialized, its lock is held by whoever made the value, and is until it is gone.
/// - Its links are those of peers that have not left; the peers of a group are neighbours.
/// - The `owner` of each of them is a [`Group`], of which one count is the peer's.
struct Peers(NonNull<bindings::drm_pagemap_owner_list>);

impl Peers {
    fn head(&self) -> *mut bindings::list_head {
        // SAFETY: In bounds of the structure, which is alive by the type invariant.
        unsafe { &raw mut (*self.0.as_ptr()).peers }
    }

    /// The peers, in order.
    fn iter(&self) -> impl Iterator<Item = NonNull<bindings::drm_pagemap_peer>> + '_ {
        let head = self.head();
        // SAFETY: The head of an initialized list.
        let mut link = unsafe { (*head).next };

        core::iter::from_fn(move || {
            if ptr::eq(link, head) {
                return None;
            }
            // SAFETY: By the type invariant each link but the head is part of a peer.
            let peer = unsafe { kernel::container_of!(link, bindings::drm_pagemap_peer, link) };
            // SAFETY: As above; nobody changes the list while its lock is held.
            link = unsafe { (*link).next };
            NonNull::new(peer)
        })
    }

    /// The group that `newcomer` fits in (the first one, each peer of which it has an interconnect
    /// with), and the last peer of that.
    ///
    /// # Safety
    ///
    /// `has_interconnect` must be sound to call with `newcomer` and any peer of the list.
    unsafe fn find(
        &self,
        newcomer: NonNull<bindings::drm_pagemap_peer>,
        has_interconnect: HasInterconnect,
    ) -> Option<(Arc<Group>, NonNull<bindings::drm_pagemap_peer>)> {
        let mut peers = self.iter().peekable();

        while let Some(first) = peers.next() {
            let group = owner_of(first);
            let fits = |peer: NonNull<_>| {
                // SAFETY: Promised by the caller.
                unsafe { has_interconnect(newcomer.as_ptr(), peer.as_ptr()) }
            };
            let mut last = first;
            let mut all = fits(first);

            while let Some(next) = peers.next_if(|next| ptr::eq(owner_of(*next), group)) {
                // One that it can't reach is enough: the others need not be asked.
                all = all && fits(next);
                last = next;
            }
            if all {
                // SAFETY: By the type invariant it is a group, kept alive by its peers.
                let group = unsafe { ArcBorrow::from_raw(group.cast::<Group>()) };

                return Some((group.into(), last));
            }
        }
        None
    }
}

/// The owner of a peer in a list whose lock is held.
fn owner_of(peer: NonNull<bindings::drm_pagemap_peer>) -> *mut bindings::drm_pagemap_owner {
    // SAFETY: The callers got it from the list, which keeps no peers that are gone.
    unsafe { (*peer.as_ptr()).owner }
}

/// Runs `f` on the list, locked. May sleep.
///
/// # Safety
///
/// `list` must be initialized, and changed by nobody but this module.
unsafe fn locked<R>(
    list: NonNull<bindings::drm_pagemap_owner_list>,
    f: impl FnOnce(&mut Peers) -> R,
) -> R {
    // SAFETY: In bounds; the caller promises that it is initialized.
    let lock = unsafe { Lock::<(), MutexBackend>::from_raw(&raw mut (*list.as_ptr()).lock) };
    let _guard = lock.lock();

    // INVARIANT: Locked here. Only `acquire` and `release` change the list, and keep what is said
    // of it.
    f(&mut Peers(list))
}

/// Joins the first group each peer of which `peer` has an interconnect with, or founds one. May
/// sleep.
///
/// `has_interconnect` is called with the list's lock held: always with `peer` first, and not more
/// than once for each peer of the list. [`ENOMEM`]; [`EBUSY`]: `peer` is in the list already. The
/// peer is not touched then.
///
/// # Safety
///
/// - `peer` must be valid, and stay where it is until it has left.
/// - `list` must be initialized, outlive its peers, and be changed by nobody but this module.
/// - `has_interconnect` must be sound to call with any two peers that ever join the list.
// Not inlined, as the next one: drivers' crates can't call what is below.
#[inline(never)]
pub(crate) unsafe fn acquire(
    peer: NonNull<bindings::drm_pagemap_peer>,
    list: NonNull<bindings::drm_pagemap_owner_list>,
    has_interconnect: HasInterconnect,
) -> Result {
    // SAFETY: Promised by the caller.
    let join = |peers: &mut Peers| unsafe {
        // The peer's own fields can't tell: they may be garbage before it joins.
        if peers.iter().any(|member| member == peer) {
            return Err(EBUSY);
        }
        let (group, before) = match peers.find(peer, has_interconnect) {
            Some((group, last)) => (group, &raw mut (*last.as_ptr()).link),
            None => (
                Arc::new(Group { _used: 0 }, GFP_KERNEL)?,
                (*peers.head()).prev,
            ),
        };
        let raw = peer.as_ptr();

        // INVARIANT: Behind the last one of its group, or behind all. The count goes to the peer.
        // Adding at the tail of a list whose head were the next link is adding before that.
        bindings::list_add_tail(&raw mut (*raw).link, (*before).next);
        (*raw).owner = Arc::into_raw(group).cast_mut().cast();
        (&raw mut (*raw).list).write_volatile(list.as_ptr());
        Ok(())
    };

    // SAFETY: Promised by the caller.
    unsafe { locked(list, join) }
}

/// Leaves the group. Does nothing for a peer that is zeroed or has left. May sleep.
///
/// # Safety
///
/// `peer` must be valid: zeroed, or have joined a list at some time. Nobody else may be joining
/// with it.
#[inline(never)]
pub(crate) unsafe fn release(peer: NonNull<bindings::drm_pagemap_peer>) {
    let raw = peer.as_ptr();
    // SAFETY: Valid by the caller's promise; volatile because of another one who releases it just
    // now.
    let joined = || NonNull::new(unsafe { (&raw const (*raw).list).read_volatile() });
    let Some(list) = joined() else {
        return;
    };
    let leave = |_: &mut Peers| {
        // Somebody else was faster.
        joined()?;
        // SAFETY: By the invariants of `Peers`, as `list` is set only while the peer is in it.
        unsafe {
            let group = Arc::from_raw((*raw).owner.cast::<Group>().cast_const());

            bindings::drm_pagemap_helper_list_del_init(&raw mut (*raw).link);
            (*raw).owner = ptr::null_mut();
            (&raw mut (*raw).list).write_volatile(ptr::null_mut());
            Some(group)
        }
    };

    // SAFETY: The list that the peer has joined.
    drop(unsafe { locked(list, leave) });
}
