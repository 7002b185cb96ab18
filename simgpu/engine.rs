// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The copy engine: gives it work and waits until that is done.

use crate::{
    compute::Compute,
    descriptor::Command,
    module_parameters,
    regs::{
        self,
        halves,
        Bar, //
    },
    ring::{
        Batch,
        Ring,
        ENTRIES, //
    },
    wakeups::{
        Wakeups,
        CHECK_MS, //
    },
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    io::{
        poll::read_poll_timeout,
        Io, //
    },
    new_mutex,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How long a reset may take, in milliseconds.
const RESET_MS: i64 = 1000;

/// For how many milliseconds the registers may not be there before the device is given up: they are
/// switched off while the PCI core resets it.
const SILENCE_MS: i64 = 1000;

/// How often a device is started that does not run then: it may have been reset again.
const START_TRIES: usize = 3;

/// The copy engine.
///
/// Work is submitted batch by batch by whoever holds `ring`, who then waits for the batch. A batch
/// that doesn't end in time is ended by a reset. A device that is gone stays gone: all work fails
/// with [`ENODEV`] from then on.
///
/// The PCI core resets the device without a word to the driver (`reset` in sysfs), which then finds
/// an engine that does not run, and starts everything again.
///
/// `ring` is taken in the CPU fault path, below the mmap lock and page locks: nothing that may take
/// those, nor memory allocation, may happen under it. A reset, which ends the work of all engines,
/// happens with it held, and so does the start of the others afterwards. Lock order: `ring`,
/// `compute` and the locks that [`Compute`] has, `wakeups`. So none of those but this may be held
/// by who calls [`check_alive`](Self::check_alive).
#[pin_data]
pub(crate) struct Engine {
    dev: ARef<Device>,
    bar: pci::DevresBar<{ regs::BAR_SIZE }>,
    gone: Atomic<bool>,
    /// [`None`] when the engine has been stopped for good.
    #[pin]
    ring: Mutex<Option<Ring>>,
    #[pin]
    wakeups: Wakeups,
    /// How often the device was reset.
    resets: Atomic<u32>,
    /// The peers that are connected, for when the device has forgotten them.
    connected: Atomic<u32>,
    /// The other engines, as long as they are in use.
    #[pin]
    compute: Mutex<Option<Arc<Compute>>>,
}

impl Engine {
    /// Finds out whether the device is one of ours, and resets it. May sleep.
    pub(crate) fn new(dev: &Device<Bound>, bar: Bar<'_>) -> Result<Arc<Self>> {
        identify(dev, &bar)?;

        let bar = bar.into_devres()?;
        let ring = Ring::new(dev)?;
        let engine = Arc::pin_init(
            try_pin_init!(Self {
                dev: dev.into(),
                bar,
                gone: Atomic::new(false),
                ring <- new_mutex!(Some(ring), "simgpu::Engine::ring"),
                wakeups <- Wakeups::new(),
                resets: Atomic::new(0),
                connected: Atomic::new(0),
                compute <- new_mutex!(None, "simgpu::Engine::compute"),
            }? Error),
            GFP_KERNEL,
        )?;

        engine.reset()?;
        Ok(engine)
    }

    /// Calls `access` with the registers. [`ENODEV`]: the driver is not bound to the device any
    /// more.
    pub(crate) fn with_bar<R>(&self, access: impl FnOnce(&Bar<'_>) -> R) -> Result<R> {
        let bar = self.bar.try_access().ok_or(ENODEV)?;

        Ok(access(&bar))
    }

    /// The size of the VRAM in bytes.
    pub(crate) fn vram_size(&self) -> Result<u64> {
        self.with_bar(|bar| {
            let lo = bar.read(regs::VRAM_SIZE_LO).into_raw();
            let hi = bar.read(regs::VRAM_SIZE_HI).into_raw();

            u64::from(hi) << 32 | u64::from(lo)
        })
    }

    /// [`ENODEV`] if the device is gone. If it was reset, it is started again: all jobs have failed
    /// then. May sleep.
    pub(crate) fn check_alive(&self) -> Result {
        if self.status()?.running() {
            return Ok(());
        }

        let mut ring = self.ring.lock();
        let ring = (*ring).as_mut().ok_or(ENODEV)?;

        // Who had the lock may have seen to it.
        if !self.status()?.running() && self.recover(ring, EIO) == ENODEV {
            return Err(ENODEV);
        }
        Ok(())
    }

    /// The status register. May sleep. [`ENODEV`]: the device is gone.
    pub(crate) fn status(&self) -> Result<regs::STATUS> {
        let status = read_poll_timeout(
            || {
                if self.gone.load(Relaxed) {
                    return Err(ENODEV);
                }
                self.with_bar(|bar| {
                    let status = bar.read(regs::STATUS);
                    // Registers that are off read as all ones, or as zero.
                    let is_there = status.into_raw() != regs::ALL_ONES && status.running()
                        || bar.read(regs::ID).into_raw() == regs::ID::SIMGPU;

                    is_there.then_some(status)
                })
            },
            |status| status.is_some(),
            Delta::from_millis(2),
            Delta::from_millis(SILENCE_MS),
        );

        match status {
            Ok(status) => status.ok_or(ENODEV),
            Err(err) if err == ETIMEDOUT => Err(self.lost("the device does not answer any more")),
            Err(err) => Err(err),
        }
    }

    /// Notes that the device is gone.
    pub(crate) fn lost(&self, why: &str) -> Error {
        if !self.gone.load(Relaxed) {
            dev_err!(self.dev, "{}, giving the device up\n", why);
        }
        self.gone.store(true, Relaxed);
        ENODEV
    }

    /// Connects GPUs on the link, by the bits of their numbers, as far as they are there; returns
    /// which are. Waits for work under way, as that may end with a reset. [`ENODEV`]: the device is
    /// gone.
    pub(crate) fn connect(&self, peers: u32) -> Result<u32> {
        let _ring = self.ring.lock();

        self.with_bar(|bar| bar.write(regs::PEERS, peers.into()))?;
        let peers = self.peers()?;

        self.connected.store(peers, Relaxed);
        Ok(peers)
    }

    /// The GPUs that are connected, and alive. [`ENODEV`]: the device is gone.
    pub(crate) fn peers(&self) -> Result<u32> {
        let peers = self.with_bar(|bar| bar.read(regs::PEERS).into_raw())?;

        self.status()?;
        Ok(peers)
    }

    /// The number on the link. [`None`]: there is no link.
    pub(crate) fn link_number(&self) -> Result<Option<u32>> {
        let number = self.with_bar(|bar| bar.read(regs::PEER_SELF).into_raw())?;

        self.status()?;
        Ok((number < regs::PEER_SELF::NUMBERS).then_some(number))
    }

    /// Makes the engine forget everything. May sleep. [`ENODEV`]: the device is gone.
    /// [`ETIMEDOUT`]: it is no better than gone, but may still write to memory.
    fn reset(&self) -> Result {
        // If the PCI core is at it, this is not heard, and not needed either.
        let is_silent = |control: &regs::CONTROL| control.into_raw() == regs::ALL_ONES;

        self.with_bar(|bar| bar.write_reg(regs::CONTROL::zeroed().with_reset(true)))?;

        let control = read_poll_timeout(
            || self.with_bar(|bar| bar.read(regs::CONTROL)),
            |control| !control.reset() || is_silent(control) && self.is_gone(),
            Delta::from_millis(1),
            Delta::from_millis(RESET_MS),
        );
        match control {
            Ok(control) if is_silent(&control) => Err(ENODEV),
            Ok(_) => {
                self.resets.add(1, Relaxed);
                Ok(())
            }
            Err(err) => {
                if self.with_bar(|bar| is_silent(&bar.read(regs::CONTROL)))? {
                    return Err(self.lost("the device does not answer any more"));
                }
                self.lost("the engine's reset does not end");
                Err(err)
            }
        }
    }

    /// Hands `ring` to the engine, which was reset, and starts it.
    fn program(&self, ring: &mut Ring) -> Result {
        let (base_hi, base_lo) = halves(ring.base());
        let (fence_hi, fence_lo) = halves(ring.fence_address());

        ring.rewind();
        self.with_bar(|bar| {
            bar.write(regs::RING_BASE_LO, base_lo.into());
            bar.write(regs::RING_BASE_HI, base_hi.into());
            bar.write(regs::RING_ENTRIES, (ENTRIES as u32).into());
            bar.write(regs::FENCE_ADDR_LO, fence_lo.into());
            bar.write(regs::FENCE_ADDR_HI, fence_hi.into());
            bar.write(regs::IRQ_ENABLE, regs::ALL_VECTORS.into());
            bar.write_reg(regs::RING_ENABLE::zeroed().with_enable(true));
        })?;

        let status = self.status()?;
        if !status.running() {
            dev_err!(
                self.dev,
                "the engine does not start, status {:#x}\n",
                status.into_raw()
            );
            return Err(EIO);
        }
        Ok(())
    }

    /// Runs all of `commands`, in order, and returns the sum of their checksums.
    ///
    /// May sleep, in an uninterruptible way, for as long as the device and the module's time-out
    /// make it. [`ENODEV`]: the device is gone. [`EIO`]: it reported an error, or did not finish in
    /// time; then some of `commands` were carried out. [`EAGAIN`]: so they were, but the device was
    /// only reset meanwhile.
    pub(crate) fn run(&self, commands: impl Iterator<Item = Command>) -> Result<u64> {
        let mut commands = commands.peekable();
        let mut sum = 0u64;
        let mut ring = self.ring.lock();

        while commands.peek().is_some() {
            if self.gone.load(Relaxed) {
                return Err(ENODEV);
            }
            let ring = (*ring).as_mut().ok_or(ENODEV)?;
            let batch = ring.fill(&mut commands)?;

            self.with_bar(|bar| bar.write(regs::RING_TAIL, ring.tail().into()))?;
            if let Err(err) = self.wait(ring, &batch) {
                return Err(self.recover(ring, err));
            }
            sum = sum.wrapping_add(ring.outcome(&self.dev, &batch)?);
        }
        Ok(sum)
    }

    /// Waits for the fence of `batch`. [`EIO`]: nothing moves any more, or the engine halted.
    /// [`EAGAIN`]: the device was reset. [`ENODEV`]: it is gone.
    fn wait(&self, ring: &Ring, batch: &Batch) -> Result {
        let mut progress = Progress::new();

        self.wakeups.wait(|| {
            if ring.is_signalled(batch)? {
                return Ok(Some(()));
            }
            self.check(&mut progress)?;
            Ok(None)
        })
    }

    /// Looks after the engine from time to time, while its fence is waited for.
    fn check(&self, progress: &mut Progress) -> Result {
        let timeout = i64::from(module_parameters::timeout_ms.value());

        if progress.checked.elapsed().as_millis() < i64::from(CHECK_MS) {
            return Ok(());
        }
        let status = self.status()?;
        if status.halted() {
            dev_err!(self.dev, "the engine halted\n");
            return Err(EIO);
        }
        if status.is_off() {
            return Err(EAGAIN);
        }

        let head = self.with_bar(|bar| bar.read(regs::RING_HEAD).into_raw())?;
        let now = Instant::now();
        if head != progress.head {
            progress.head = head;
            progress.moved = now;
        } else if (now - progress.moved).as_millis() >= timeout {
            dev_err!(self.dev, "descriptor {} does not end\n", head);
            return Err(EIO);
        }
        progress.checked = now;
        Ok(())
    }

    /// Makes the engine usable again after work did not end, if that is possible; returns the error
    /// to fail that work with.
    fn recover(&self, ring: &mut Ring, err: Error) -> Error {
        if err == ENODEV {
            return err;
        }

        dev_err!(
            self.dev,
            "the engine failed or was reset, starting it again\n"
        );
        let peers = match self.peers_to_reconnect() {
            Ok(peers) => peers,
            Err(err) => return err,
        };
        let mut restart = || {
            self.reset()?;
            self.with_bar(|bar| bar.write(regs::PEERS, peers.into()))?;
            self.program(ring)
        };
        if (0..START_TRIES).all(|_| restart().is_err()) {
            return self.lost("the engine can't be started again");
        }
        if let Some(compute) = &*self.compute.lock() {
            compute.after_reset();
        }
        err
    }

    /// The GPUs to connect after a reset: only those that are alive, as another one that has got the
    /// number of one that died has other memory. A device that was reset already can't tell.
    fn peers_to_reconnect(&self) -> Result<u32> {
        if self.status()?.is_off() {
            return Ok(self.connected.load(Relaxed));
        }
        self.peers()
    }

    /// How often the device was reset, by which all its engines forget everything.
    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Relaxed)
    }

    /// The other engines are told of resets from now on; or not any more.
    pub(crate) fn attach(&self, compute: Option<Arc<Compute>>) {
        let old = core::mem::replace(&mut *self.compute.lock(), compute);

        // Not under the lock.
        drop(old);
    }

    /// Whether the device is known to be gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// The device for messages.
    pub(crate) fn dev(&self) -> &Device {
        &self.dev
    }

    /// Writes a register of those that there are several of.
    pub(crate) fn write(&self, offset: usize, value: u32) -> Result {
        self.with_bar(|bar| bar.try_write32(value, offset))?
    }

    /// Reads one. [`ENODEV`] if the device is gone.
    pub(crate) fn read(&self, offset: usize) -> Result<u32> {
        let value = self.with_bar(|bar| bar.try_read32(offset))??;

        // Such a value is looked at twice: it may be one.
        if value == regs::ALL_ONES {
            self.status()?;
        }
        Ok(value)
    }

    /// Has the device send interrupts that are pending once more: while it is reset, they get lost.
    pub(crate) fn resend_interrupts(&self) {
        let _ = self.with_bar(|bar| {
            bar.write(regs::IRQ_ENABLE, 0.into());
            bar.write(regs::IRQ_ENABLE, regs::ALL_VECTORS.into());
        });
    }

    /// Gives up a device that can't be made to do what it must: it is reset, so that it leaves all
    /// memory alone.
    pub(crate) fn give_up(&self, why: &str) -> Error {
        let _ = self.reset();

        self.lost(why)
    }

    /// Makes the device misbehave, for tests.
    pub(crate) fn inject(&self, kind: u32, count: u32, delay_us: u32) -> Result {
        // Not serialised with work: work that is in flight may be what a test wants to hit.
        self.status()?;
        self.with_bar(|bar| {
            bar.write(regs::INJECT_COUNT, 0.into());
            bar.write(regs::INJECT_DELAY_US, delay_us.into());
            bar.write(regs::INJECT_KIND, if count > 0 { kind } else { 0 }.into());
            bar.write(regs::INJECT_COUNT, count.into());
        })
    }

    /// Makes the device clear interrupts late, for tests; 0: not any more.
    pub(crate) fn delay_clearing(&self, delay_us: u32) -> Result {
        self.status()?;
        self.with_bar(|bar| bar.write(regs::INJECT_IRQ_DELAY_US, delay_us.into()))
    }

    /// Clears a vector, so that it can come again: for whatever the device writes to memory from
    /// now on. What came before is there to be seen when this returns.
    pub(crate) fn clear_interrupt(&self, vector: usize) {
        let _ = self.with_bar(|bar| {
            bar.write(regs::IRQ_STATUS, (1 << vector).into());
            // The write may still be on its way, while the device finds the bit set and sends
            // nothing. Reading waits for it.
            bar.read(regs::IRQ_STATUS)
        });
    }

    /// A fence was signalled, or a descriptor failed, which its status says too, or the engine
    /// halted.
    pub(crate) fn interrupt(&self) {
        self.wakeups.wake();
    }
}

/// [`ENODEV`]: there is no device, or not one that this driver knows.
fn identify(dev: &Device<Bound>, bar: &Bar<'_>) -> Result {
    let id = bar.read(regs::ID).into_raw();
    let version = bar.read(regs::VERSION);

    if id == regs::ALL_ONES {
        dev_err!(dev, "the device does not answer\n");
        return Err(ENODEV);
    }
    if id != regs::ID::SIMGPU {
        dev_err!(dev, "unknown device, ID {:#010x}\n", id);
        return Err(ENODEV);
    }
    if version.major().get() != regs::VERSION::MAJOR {
        dev_err!(
            dev,
            "unknown register version {}.{}\n",
            version.major().get(),
            version.minor().get()
        );
        return Err(ENODEV);
    }
    if version.minor().get() < regs::VERSION::MINOR {
        dev_err!(dev, "old register version 1.{}\n", version.minor().get());
        return Err(ENODEV);
    }
    Ok(())
}

/// How far the engine has come.
struct Progress {
    /// When it was looked at.
    checked: Instant<Monotonic>,
    /// Where it was.
    head: u32,
    /// When it was first seen there.
    moved: Instant<Monotonic>,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();

        Self {
            checked: now,
            head: regs::ALL_ONES,
            moved: now,
        }
    }
}

/// The engine, started. Dropping it stops the engine for good, and frees the ring.
pub(crate) struct Running(Arc<Engine>);

impl Running {
    /// Starts the engine. May sleep.
    pub(crate) fn start(engine: Arc<Engine>) -> Result<Self> {
        {
            let mut ring = engine.ring.lock();

            engine.program((*ring).as_mut().ok_or(ENODEV)?)?;
        }
        Ok(Self(engine))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ring = self.0.ring.lock().take();

        let _ = self
            .0
            .with_bar(|bar| bar.write_reg(regs::RING_ENABLE::zeroed()));
        // Resetting ends its interrupts too. An engine that doesn't end its reset may still write
        // to the ring, so that memory is lost.
        if self.0.reset() == Err(ETIMEDOUT) {
            core::mem::forget(ring);
        }
    }
}
