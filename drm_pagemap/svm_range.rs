// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A range of an address space that a device has in its own page tables.
//!
//! The rules are those of [`Documentation/mm/hmm.rst`](srctree/Documentation/mm/hmm.rst): nothing
//! but the notifier keeps the pages. So their addresses belong to the range, not to the driver: it
//! is lent them to write its page tables, and has them taken back before they become invalid.

use crate::{
    bindings,
    device_addr::DeviceAddr,
    dpagemap::DrmPagemap,
    mm::{
        Access,
        Change,
        DmaDirection,
        Event,
        ExclusivePage,
        Folio,
        Found,
        FoundPage,
        Interval,
        IntervalOps,
        Pages,
        RamMapping, //
    },
    pagemap::Pagemap,
    pagemap_ops::PagemapOps,
    zdd::Zdd, //
};
use core::{
    ops::Range,
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    dma::DmaAddress,
    mm::MmWithUser,
    page::{
        PAGE_MASK,
        PAGE_SHIFT, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        LockedBy,
        Mutex, //
    },
};

/// How a driver has a range in its device's page tables.
pub trait SvmOps: Send + Sync + Sized + 'static {
    /// The device memory whose pages need no mapping.
    type Pagemap: PagemapOps;

    /// What the lock guards: the device's page tables. Not zero-sized.
    type State: Send + Unpin + 'static;

    /// Writes entries for `pages`, which the device may use until [`unmap`](Self::unmap).
    ///
    /// Called with the lock held. May sleep, but not allocate memory in ways that wait for it to be
    /// freed (`GFP_KERNEL`). On an error there must be no entry for any of them.
    fn map(&self, state: &mut Self::State, pages: &SvmPages) -> Result;

    /// Clears the entries that [`map`](Self::map) wrote, and returns when the device does not use
    /// the addresses any more.
    ///
    /// Called with the lock held, once for each successful [`map`](Self::map). The same as there
    /// goes for sleeping.
    fn unmap(&self, state: &mut Self::State, pages: &SvmPages);
}

/// Where a device finds some pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvmPlace {
    /// In RAM, at this DMA address.
    Ram(DmaAddress),
    /// In its own memory, at this byte of the pagemap.
    Own(u64),
    /// In the memory of another device of its group, as that one's
    /// [`device_map`](PagemapOps::device_map) says.
    Peer(DeviceAddr),
}

/// Pages that a device finds at contiguous addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SvmPiece {
    /// The virtual address of the first one, in bytes: a multiple of the piece's size.
    pub addr: usize,
    /// There are `1 << order` pages.
    pub order: u32,
    /// Whether the device may write to them.
    pub writable: bool,
    /// Whether no CPU can get at them as long as they are mapped for the device, though they are
    /// in RAM.
    pub exclusive: bool,
    /// Where they are. An address of RAM or of the device's own memory is a multiple of the piece's
    /// size, unless the DMA layer says otherwise.
    pub place: SvmPlace,
}

/// All pages of a range that were found, as a device gets at them. Dropping this unmaps them.
///
/// # Invariants
///
/// `dev` is the device of `active`, which holds it. `peers` are mappings for it.
pub struct SvmPages {
    ram: RamMapping,
    peers: KVec<(ARef<DrmPagemap>, DeviceAddr)>,
    pieces: KVVec<SvmPiece>,
    range: Range<usize>,
    access: Access,
    dev: NonNull<bindings::device>,
    own: Range<usize>,
    /// Whether it is a page for the device alone, and not the whole range.
    exclusive: bool,
    /// Keeps the pagemap from going away before the addresses have.
    _active: ARef<DrmPagemap>,
}

// SAFETY: The device is held; mappings may be undone by any thread.
unsafe impl Send for SvmPages {}
// SAFETY: `&self` gives access to constants only.
unsafe impl Sync for SvmPages {}

impl SvmPages {
    /// With room for all pages of `range`. `own` are the frames of `active`'s memory. May sleep.
    // Not inlined: it is the same for all drivers. So are the others below.
    #[inline(never)]
    fn new(
        active: ARef<DrmPagemap>,
        own: Range<usize>,
        range: Range<usize>,
        access: Access,
    ) -> Result<Self> {
        let nr_pages = range.len() >> PAGE_SHIFT;
        let dir = match access {
            Access::Write => DmaDirection::Both,
            Access::Read | Access::AsIs => DmaDirection::ToDevice,
        };
        let dev = active.parent();

        // INVARIANT: The device is held by the pagemap, as long as that is in use.
        Ok(Self {
            // SAFETY: As above.
            ram: unsafe { RamMapping::new(dev, dir, nr_pages) }?,
            peers: KVec::new(),
            pieces: KVVec::with_capacity(nr_pages, GFP_KERNEL)?,
            range,
            access,
            dev,
            own,
            exclusive: false,
            _active: active,
        })
    }

    /// Maps what was found. Called with the lock held.
    #[inline(never)]
    fn fill(&mut self, found: &Found<'_>) -> Result {
        for (page, order) in found.pieces() {
            if page.is_ram() {
                self.add_ram(&page, order)?;
            } else {
                self.add_device(&page, order)?;
            }
        }
        self.ram.sync()
    }

    fn piece(&self, page: &FoundPage<'_>, order: u32, place: SvmPlace) -> SvmPiece {
        SvmPiece {
            addr: page.addr(),
            order,
            writable: page.is_writable() && self.access == Access::Write,
            exclusive: false,
            place,
        }
    }

    fn add_ram(&mut self, page: &FoundPage<'_>, order: u32) -> Result {
        let piece = self.piece(page, order, SvmPlace::Ram(0));
        let pieces = &mut self.pieces;

        // SAFETY: Just now these are pages of RAM; the range keeps the mapping no longer than they
        // are, which its notifier tells it of.
        unsafe {
            self.ram.map(page.pfn(), order, |first, addr| {
                // The DMA layer may not take all at once. There is room for each page.
                pieces
                    .push_within_capacity(SvmPiece {
                        addr: piece.addr + (first << PAGE_SHIFT),
                        order: addr.order(),
                        place: SvmPlace::Ram(addr.addr()),
                        ..piece
                    })
                    .map_err(|_| EINVAL)
            })
        }?;
        if piece.writable {
            // Before the device writes: whatever takes the page for clean after that tells the
            // notifier first, and the device has to come back for it.
            // SAFETY: As above, and a piece is in one folio.
            unsafe { Folio::of_page(page.pfn().page()) }.mark_dirty();
        }
        Ok(())
    }

    /// Maps the page at `addr`, which the device gets for itself. Called with the lock held.
    #[inline(never)]
    fn fill_exclusive(&mut self, addr: usize, page: &ExclusivePage) -> Result {
        let mut place = None;

        // SAFETY: A page of RAM that is referenced. The range keeps the mapping no longer than the
        // page stays, which its notifier tells it of.
        unsafe {
            self.ram.map(page.pfn(), 0, |_, mapped| {
                place = Some(SvmPlace::Ram(mapped.addr()));
                Ok(())
            })
        }?;
        self.ram.sync()?;
        let piece = SvmPiece {
            addr,
            order: 0,
            writable: true,
            exclusive: true,
            place: place.ok_or(EFAULT)?,
        };

        // As in `add_ram`.
        // SAFETY: As above.
        unsafe { Folio::of_page(page.pfn().page()) }.mark_dirty();
        self.exclusive = true;
        self.pieces.push_within_capacity(piece).map_err(|_| EINVAL)
    }

    fn add_device(&mut self, page: &FoundPage<'_>, order: u32) -> Result {
        if !page.is_device() {
            return Err(EOPNOTSUPP);
        }
        let pfn = page.pfn().as_usize();
        if self.own.contains(&pfn) {
            let offset = ((pfn - self.own.start) << PAGE_SHIFT) as u64;

            let piece = self.piece(page, order, SvmPlace::Own(offset));

            return self.pieces.push_within_capacity(piece).map_err(|_| EINVAL);
        }

        // SAFETY: Just now it is a page that is mapped, and so referenced.
        let zdd = Zdd::of_folio(unsafe { Folio::of_page(page.pfn().page()) }).ok_or(EOPNOTSUPP)?;
        let dir = match self.access {
            Access::Write => DmaDirection::Both,
            Access::Read | Access::AsIs => DmaDirection::ToDevice,
        };
        self.peers.reserve(1, GFP_ATOMIC)?;

        let ops = zdd.dpagemap().peer_ops()?;
        // SAFETY: By the type invariant the device is valid; the frames are of one folio, as the
        // CPU has them mapped as one.
        let addr = unsafe { ops.map(self.dev, page.pfn().page(), order, dir) }?;

        // INVARIANT: Mapped just now.
        self.peers.push((zdd.dpagemap().into(), addr), GFP_ATOMIC)?;
        let piece = self.piece(page, order, SvmPlace::Peer(addr));

        self.pieces.push_within_capacity(piece).map_err(|_| EINVAL)
    }

    /// The pieces, in ascending order of virtual addresses. What was absent is left out.
    pub fn pieces(&self) -> &[SvmPiece] {
        &self.pieces
    }

    /// The addresses of the range, in bytes.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Drop for SvmPages {
    fn drop(&mut self) {
        for (dpagemap, addr) in &self.peers {
            if let Ok(ops) = dpagemap.peer_ops() {
                // SAFETY: By the type invariant this undoes one mapping, once.
                unsafe { ops.unmap(self.dev, addr) };
            }
        }
    }
}

/// A range of an address space, for a device's page tables.
///
/// The pages that it [has mapped](Self::populate) stay so until something happens to any of them;
/// then the whole range is unmapped, and has to be populated again when the device takes a page
/// fault there. While pages are mapped the pagemap is in use: a driver that is unbound unmaps, or
/// drops, its ranges before the [`Registration`](crate::Registration), which waits for that.
///
/// Dropping it may sleep, and must not be done with the lock held.
#[pin_data(PinnedDrop)]
pub struct SvmRange<T: SvmOps> {
    #[pin]
    interval: Interval<Mapped<T>>,
}

/// What the notifier of an [`SvmRange`] works on.
struct Mapped<T: SvmOps> {
    ops: T,
    pagemap: Arc<Pagemap<T::Pagemap>>,
    pages: LockedBy<Option<SvmPages>, T::State>,
    gone: Atomic<bool>,
}

impl<T: SvmOps> Mapped<T> {
    /// Unmaps what is mapped. Called with the lock held.
    fn unmap(&self, state: &mut T::State) {
        if let Some(pages) = self.pages.access_mut(state).take() {
            self.ops.unmap(state, &pages);
        }
    }
}

impl<T: SvmOps> IntervalOps for Mapped<T> {
    type State = T::State;

    fn invalidate(&self, state: &mut T::State, change: &Change) {
        if matches!(change.event(), Event::Unmap | Event::Release) {
            self.gone.store(true, Relaxed);
        }
        self.unmap(state);
    }

    fn try_invalidate(&self, state: &mut T::State, _change: &Change) -> bool {
        self.pages.access_mut(state).is_none()
    }
}

impl<T: SvmOps> SvmRange<T> {
    /// The range `range` (in bytes) of `mm`, nothing of it mapped.
    ///
    /// `lock` guards the page tables; all ranges of a device's address space have the same. The
    /// mmap lock must not be held; may sleep. [`EINVAL`]: the range is empty or misaligned.
    /// [`ENOMEM`]; [`EINTR`].
    pub fn new(
        pagemap: Arc<Pagemap<T::Pagemap>>,
        mm: &MmWithUser,
        range: Range<usize>,
        lock: Arc<Mutex<T::State>>,
        ops: T,
    ) -> impl PinInit<Self, Error> {
        let mapped = Mapped {
            ops,
            pages: LockedBy::new(&lock, None),
            gone: Atomic::new(false),
            pagemap,
        };
        let owner = mapped.pagemap.owner();
        let interval =
            Interval::new::<core::convert::Infallible>(mm, range, owner, lock, Ok(mapped));

        try_pin_init!(Self {
            interval <- interval,
        }? Error)
    }

    /// The addresses, in bytes.
    pub fn range(&self) -> Range<usize> {
        self.interval.range()
    }

    /// The driver's data.
    pub fn ops(&self) -> &T {
        &self.interval.ops().ops
    }

    /// Whether the process has unmapped or moved some of it, or ended: at these addresses there may
    /// be something else by now.
    pub fn is_gone(&self) -> bool {
        self.interval.ops().gone.load(Relaxed)
    }

    /// Whether pages are mapped, good for `access`. That can change at any time.
    pub fn is_populated(&self, access: Access) -> bool {
        let mut state = self.interval.lock().lock();

        self.interval
            .ops()
            .pages
            .access_mut(&mut state)
            .as_ref()
            .is_some_and(|pages| {
                !pages.exclusive && (pages.access == access || pages.access == Access::Write)
            })
    }

    /// Has the device's page tables filled with the pages of the range, which are faulted in as
    /// `access` says; returns at once if they are.
    ///
    /// Pages in device memory that the process shares with others, after a fork, say, come to RAM if
    /// they are to be written to, as they do when a CPU writes; their allocations' time slices end.
    /// Returns whether there were any: now they are the process's own, and a driver may want to
    /// migrate, and populate, again.
    ///
    /// The driver's lock and the mmap lock must not be held; may sleep. When this returns, it can
    /// all be invalid again: the device then takes another page fault.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`]: the device is gone;
    /// - [`EFAULT`]: the process is gone, there is something that is not mapped, or it can't be
    ///   mapped for the device;
    /// - [`EPERM`]: the process itself may not write there;
    /// - [`EBUSY`]: the range changes all the time;
    /// - [`EOPNOTSUPP`]: there are pages in a device's memory that this one can't get at;
    /// - [`EINTR`]: the task is being killed;
    /// - [`ENOMEM`], and what [`SvmOps::map`] says.
    pub fn populate(&self, access: Access) -> Result<bool> {
        /// How often pages are taken home that have become read-only in between.
        const TRIES: usize = 10;

        let mapped = self.interval.ops();
        let _pass = mapped.pagemap.gate().enter()?;

        if self.is_populated(access) {
            return Ok(false);
        }
        let active = Pagemap::acquire(mapped.pagemap.as_arc_borrow())?;
        let new = SvmPages::new(active, mapped.pagemap.frames(), self.range(), access)?;
        let mut new = Some(new);
        let mut pages = Pages::new(&self.interval, self.range(), access)?;

        for tries in 0..TRIES {
            let done = pages.fault_and_commit(|state, found| {
                if access == Access::Write && has_shared_device_pages(&found) {
                    return Ok(false);
                }
                let mut new = new.take().ok_or(EINVAL)?;

                new.fill(&found)?;
                mapped.unmap(state);
                mapped.ops.map(state, &new)?;
                *mapped.pages.access_mut(state) = Some(new);
                Ok(true)
            })?;

            if done {
                return Ok(tries > 0);
            }
            pages.fault_read_only()?;
        }
        Err(EBUSY)
    }

    /// Has the device's page tables filled with the page at `addr` (in bytes) alone, in RAM, where
    /// no CPU can get at it: for atomic operations that CPUs must not get in between. As soon as a
    /// CPU touches it, it is unmapped.
    ///
    /// The other pages of the range are not mapped then. Errors, and when this may be called: see
    /// [`Interval::exclusive`] and [`populate`](Self::populate).
    pub fn populate_exclusive(&self, addr: usize) -> Result {
        let addr = addr & PAGE_MASK;
        let mapped = self.interval.ops();
        let _pass = mapped.pagemap.gate().enter()?;
        let active = Pagemap::acquire(mapped.pagemap.as_arc_borrow())?;
        let mut new = SvmPages::new(active, mapped.pagemap.frames(), self.range(), Access::Write)?;

        self.interval.exclusive(addr, |state, page| {
            new.fill_exclusive(addr, page)?;
            mapped.unmap(state);
            mapped.ops.map(state, &new)?;
            *mapped.pages.access_mut(state) = Some(new);
            Ok(())
        })
    }

    /// Has the device's page tables cleared of the range. The driver's lock must not be held; may
    /// sleep.
    pub fn unmap(&self) {
        let mut state = self.interval.lock().lock();

        self.interval.ops().unmap(&mut state);
    }
}

/// Whether there are pages in device memory that the process may not write to. Whoever takes them
/// home shall not have to wait: their time slices end. Called with the lock held.
#[inline(never)]
fn has_shared_device_pages(found: &Found<'_>) -> bool {
    let mut any = false;

    for page in (0..found.nr_pages()).filter_map(|index| found.page(index)) {
        if page.is_writable() || !page.is_device() {
            continue;
        }
        // SAFETY: Just now it is a page that is mapped, and so referenced.
        if let Some(zdd) = Zdd::of_folio(unsafe { Folio::of_page(page.pfn().page()) }) {
            zdd.devmem().end_timeslice();
        }
        any = true;
    }
    any
}

#[pinned_drop]
impl<T: SvmOps> PinnedDrop for SvmRange<T> {
    fn drop(self: Pin<&mut Self>) {
        self.unmap();
    }
}
