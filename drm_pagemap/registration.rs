// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Registration of a Rust driver's pagemap.

use crate::{
    crew,
    dev_ops,
    lost::LostZone,
    migrate::evict,
    mm::{
        self,
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
/// page home, waits for the last one, and removes the pages. If the device [is gone](PagemapOps::is_lost),
/// pages that processes still have are lost, and are not waited for. Else those that can't be moved
/// are waited for until their processes unmap them or end; messages in the log say so.
pub struct Registration<T: PagemapOps> {
    // Dropped in this order: the zone device has the owner of the peer's group. Not there any more if
    // its pages were lost.
    region: Option<ZoneDeviceRegion>,
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
        Self::register(drm, name, size, data, None, None)
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
        let owner = peer.owner();
        let peer = KBox::new(peer, GFP_KERNEL)?;

        Self::register(drm, name, size, data, Some(owner), Some(peer))
    }

    fn register<E>(
        drm: &drm::Device<T::Driver>,
        name: &'static CStr,
        size: usize,
        data: impl PinInit<T, E>,
        owner: Option<PagemapOwner>,
        peer: Option<KBox<dyn Send + Sync>>,
    ) -> Result<Self>
    where
        Error: From<E>,
    {
        // SAFETY: The operations are ours.
        let region = unsafe { ZoneDeviceRegion::new(size, name, &dev_ops::OPS, owner)? };
        // The region may be larger: the core rounds it up.
        let pagemap = Pagemap::new(drm, region.zone().clone(), size >> PAGE_SHIFT, data)?;

        Ok(Self {
            region: Some(region),
            _peer: peer,
            pagemap,
        })
    }

    /// The pagemap.
    pub fn pagemap(&self) -> ArcBorrow<'_, Pagemap<T>> {
        self.pagemap.as_arc_borrow()
    }

    /// Returns whether all that was found has moved.
    fn bring_pages_home(&self) -> Result<bool> {
        evict::frames_to_ram(
            self.pagemap.as_dpagemap(),
            self.pagemap.start_pfn(),
            self.pagemap.size() >> PAGE_SHIFT,
        )
    }

    /// Takes from their allocations all pages that are in use; their number is added to `lost`.
    fn lose_pages(&self, zone: &LostZone, lost: &mut usize) -> Result<bool> {
        *lost += zone.take(
            self.pagemap.as_dpagemap(),
            self.pagemap.size() >> PAGE_SHIFT,
        )?;
        Ok(true)
    }
}

impl<T: PagemapOps> Drop for Registration<T> {
    fn drop(&mut self) {
        /// Milliseconds between tries.
        const PAUSE_MS: i64 = 10;
        /// Tries between messages: ten seconds.
        const MESSAGE: usize = 1000;
        /// Tries before references of the core's are looked for, and between that: 100 ms.
        const DRAIN: usize = 10;

        self.pagemap.gate().close();

        let mut lost = None;
        let mut nr_lost = 0;
        for tries in 0usize.. {
            if !self.pagemap.is_active() {
                break;
            }
            if lost.is_none() && T::is_lost(&self.pagemap) {
                lost = self.region.take().map(LostZone::new);
            }
            let done = match &lost {
                Some(zone) => self.lose_pages(zone, &mut nr_lost),
                None => self.bring_pages_home(),
            };
            crate::queue::flush();
            if !self.pagemap.is_active() {
                break;
            }

            if tries % DRAIN == DRAIN - 1 {
                crew::on_each_processor(&mm::drain_batches);
            }
            if tries % MESSAGE == MESSAGE - 1 {
                match done {
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
        if nr_lost > 0 {
            pr_warn!(
                "{}: {} pages are lost, as the device is gone: who touches one gets a SIGBUS\n",
                self.pagemap.name(),
                nr_lost
            );
        }
    }
}
