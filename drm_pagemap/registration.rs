// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Registration of a Rust driver's pagemap.

use crate::{
    dev_ops,
    migrate::evict,
    mm::{
        PagemapOwner,
        ZoneDeviceRegion, //
    },
    owner_list::{
        Endpoint,
        Peer, //
    },
    pagemap::Pagemap,
    pagemap_ops::PagemapOps, //
};
use kernel::{
    drm,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// A pagemap whose device-private pages exist.
///
/// The driver keeps it while it is bound to the device, and drops it when it is unbound, before the
/// device's copy engine is shut down: dropping it refuses new users with [`ENODEV`], moves every
/// page home, waits for the last one, and removes the pages. Pages that can't be moved, because the
/// device doesn't answer any more, are waited for until their processes unmap them or end; a
/// message in the log says so.
pub struct Registration<T: PagemapOps> {
    // Dropped in this order: the zone device is part of the pagemap, and has the owner of the
    // peer's group.
    region: ZoneDeviceRegion,
    _peer: Option<KBox<dyn Send + Sync>>,
    pagemap: Arc<Pagemap<T>>,
}

impl<T: PagemapOps> Registration<T> {
    /// Makes `size` bytes of device memory a pagemap, with the driver's `data`, that has nothing to
    /// do with other devices. May sleep.
    ///
    /// `name` is for `/proc/iomem`. [`EINVAL`]: the size is 0, or no multiple of the page size.
    /// [`ENOMEM`], [`ERANGE`] and others: what the core says if there are no page frames for it.
    pub fn new<E>(
        drm: &drm::Device<T::Driver>,
        name: &'static CStr,
        size: usize,
        data: impl PinInit<T, E>,
    ) -> Result<Self>
    where
        Error: From<E>,
    {
        let pagemap = Pagemap::new(drm, data)?;
        let owner = PagemapOwner::from_raw(Arc::as_ptr(&pagemap).cast_mut().cast());

        Self::register(pagemap, name, size, owner, None)
    }

    /// The same as a member of an interconnect group, in which it stays as long as its pages exist.
    ///
    /// Errors as [`new`](Self::new).
    pub fn in_group<E, P: Endpoint>(
        drm: &drm::Device<T::Driver>,
        name: &'static CStr,
        size: usize,
        data: impl PinInit<T, E>,
        peer: Peer<P>,
    ) -> Result<Self>
    where
        Error: From<E>,
    {
        let pagemap = Pagemap::new(drm, data)?;
        let owner = peer.owner();

        Self::register(
            pagemap,
            name,
            size,
            owner,
            Some(KBox::new(peer, GFP_KERNEL)?),
        )
    }

    fn register(
        pagemap: Arc<Pagemap<T>>,
        name: &'static CStr,
        size: usize,
        owner: PagemapOwner,
        peer: Option<KBox<dyn Send + Sync>>,
    ) -> Result<Self> {
        // SAFETY: Zeroed memory in an `Arc` that we keep longer than the region. The operations are
        // ours.
        let region = unsafe {
            ZoneDeviceRegion::new(
                pagemap.zone_ptr(),
                size,
                name,
                &dev_ops::OPS,
                owner.as_raw(),
            )?
        };

        // The region may be larger: the core rounds it up.
        pagemap.set_frames(region.start_pfn(), size >> PAGE_SHIFT);
        Ok(Self {
            region,
            _peer: peer,
            pagemap,
        })
    }

    /// The pagemap.
    pub fn pagemap(&self) -> ArcBorrow<'_, Pagemap<T>> {
        self.pagemap.as_arc_borrow()
    }
}

impl<T: PagemapOps> Drop for Registration<T> {
    fn drop(&mut self) {
        /// Milliseconds between tries.
        const PAUSE_MS: i64 = 10;
        /// Tries between messages: ten seconds.
        const MESSAGE: usize = 1000;

        self.pagemap.gate().close();

        for tries in 0usize.. {
            if !self.pagemap.is_active() {
                break;
            }
            let moved = evict::frames_to_ram(
                self.pagemap.as_dpagemap(),
                self.region.start_pfn(),
                self.pagemap.size() >> PAGE_SHIFT,
            );
            crate::queue::flush();
            if !self.pagemap.is_active() {
                break;
            }

            if tries % MESSAGE == MESSAGE - 1 {
                match moved {
                    Ok(true) => pr_warn!("device memory is still referenced, waiting\n"),
                    Ok(false) => pr_warn!("pages in device memory can't be moved, waiting\n"),
                    Err(err) => pr_warn!(
                        "pages in device memory can't be moved ({}), waiting for their processes\n",
                        err.to_errno()
                    ),
                }
            }
            fsleep(Delta::from_millis(PAUSE_MS));
        }
    }
}
