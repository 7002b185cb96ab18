// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The interrupts: they wake who waits for the engine.
//!
//! Their handlers run in threads, so that waking can take the mutex under which a waiter looks at
//! its fence before it goes to sleep; that way no wake-up is lost.

use crate::{
    compute::Compute,
    engine::Engine,
    service::Service, //
};
use kernel::{
    irq::{
        Flags,
        IrqReturn,
        ThreadedHandler,
        ThreadedRegistration, //
    },
    pci::{
        self,
        IrqType,
        IrqTypes,
        IrqVectorRegistration, //
    },
    prelude::*,
    sync::Arc, //
};

/// How many vectors there are.
const VECTORS: u32 = 8;

/// The vector that says that a fence was signalled.
const FENCE_VECTOR: usize = 0;

/// The vector that says that something went wrong.
const ERROR_VECTOR: usize = 1;

/// The vector that says that there are page faults.
const FAULT_VECTOR: usize = 2;

/// The vector of the MMU's fence.
const MMU_VECTOR: usize = 3;

/// The vector of the first compute queue's fence; those of the others follow.
const QUEUE_VECTOR: usize = 4;

/// Allocates the vectors. The device has MSI-X only.
pub(crate) fn allocate(
    pdev: &pci::Device<kernel::device::Bound>,
) -> Result<IrqVectorRegistration<'_>> {
    pdev.alloc_irq_vectors(VECTORS, VECTORS, IrqTypes::default().with(IrqType::MsiX))
}

/// The handlers, registered.
#[pin_data]
pub(crate) struct Interrupts<'a> {
    #[pin]
    error: ThreadedRegistration<'a, ErrorHandler>,
    #[pin]
    fence: ThreadedRegistration<'a, FenceHandler>,
}

impl<'a> Interrupts<'a> {
    /// Registers the handlers.
    ///
    /// # Safety
    ///
    /// What this makes must be dropped; it must not be forgotten.
    pub(crate) unsafe fn new(
        vectors: &'a IrqVectorRegistration<'a>,
        engine: &Arc<Engine>,
    ) -> Result<impl PinInit<Self, Error> + 'a> {
        let fence = vectors.index(FENCE_VECTOR)?.into();
        let error = vectors.index(ERROR_VECTOR)?.into();
        let fence_handler = FenceHandler(engine.clone());
        let error_handler = ErrorHandler(engine.clone());
        let flags = Flags::TRIGGER_NONE;

        // SAFETY: Promised by the caller.
        let (fence, error) = unsafe {
            (
                ThreadedRegistration::new(fence, flags, c"simgpu-fence", Ok(fence_handler)),
                ThreadedRegistration::new(error, flags, c"simgpu-error", Ok(error_handler)),
            )
        };

        Ok(try_pin_init!(Self {
            error <- error,
            fence <- fence,
        }? Error))
    }
}

/// A fence was signalled.
struct FenceHandler(Arc<Engine>);

impl ThreadedHandler for FenceHandler {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.clear_interrupt(FENCE_VECTOR);
        self.0.interrupt();
        IrqReturn::Handled
    }
}

/// Something went wrong.
struct ErrorHandler(Arc<Engine>);

impl ThreadedHandler for ErrorHandler {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.clear_interrupt(ERROR_VECTOR);
        self.0.interrupt();
        IrqReturn::Handled
    }
}

/// The handlers of the compute side, registered.
#[pin_data]
pub(crate) struct ComputeInterrupts<'a> {
    #[pin]
    fault: ThreadedRegistration<'a, FaultHandler>,
    #[pin]
    mmu: ThreadedRegistration<'a, MmuHandler>,
    #[pin]
    queue1: ThreadedRegistration<'a, QueueHandler>,
    #[pin]
    queue2: ThreadedRegistration<'a, QueueHandler>,
    #[pin]
    queue3: ThreadedRegistration<'a, QueueHandler>,
    #[pin]
    queue4: ThreadedRegistration<'a, QueueHandler>,
}

impl<'a> ComputeInterrupts<'a> {
    /// Registers the handlers.
    ///
    /// # Safety
    ///
    /// What this makes must be dropped; it must not be forgotten.
    pub(crate) unsafe fn new(
        vectors: &'a IrqVectorRegistration<'a>,
        compute: &Arc<Compute>,
        service: &Arc<Service>,
    ) -> Result<impl PinInit<Self, Error> + 'a> {
        let flags = Flags::TRIGGER_NONE;
        let fault = vectors.index(FAULT_VECTOR)?.into();
        let fault_handler = FaultHandler(service.clone());
        let mmu = vectors.index(MMU_VECTOR)?.into();
        let mmu_handler = MmuHandler(compute.clone());
        let queue = |number: usize, name| -> Result<_> {
            let request = vectors.index(QUEUE_VECTOR + number - 1)?.into();
            let handler = QueueHandler {
                compute: compute.clone(),
                number,
            };

            // SAFETY: Promised by the caller.
            Ok(unsafe { ThreadedRegistration::new(request, flags, name, Ok(handler)) })
        };
        let queue1 = queue(1, c"simgpu-queue1")?;
        let queue2 = queue(2, c"simgpu-queue2")?;
        let queue3 = queue(3, c"simgpu-queue3")?;
        let queue4 = queue(4, c"simgpu-queue4")?;

        // SAFETY: Promised by the caller.
        let (fault, mmu) = unsafe {
            (
                ThreadedRegistration::new(fault, flags, c"simgpu-fault", Ok(fault_handler)),
                ThreadedRegistration::new(mmu, flags, c"simgpu-mmu", Ok(mmu_handler)),
            )
        };

        Ok(try_pin_init!(Self {
            fault <- fault,
            mmu <- mmu,
            queue1 <- queue1,
            queue2 <- queue2,
            queue3 <- queue3,
            queue4 <- queue4,
        }? Error))
    }
}

/// There are page faults.
struct FaultHandler(Arc<Service>);

impl ThreadedHandler for FaultHandler {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.engine().clear_interrupt(FAULT_VECTOR);
        self.0.interrupt();
        IrqReturn::Handled
    }
}

/// A command of the MMU is done.
struct MmuHandler(Arc<Compute>);

impl ThreadedHandler for MmuHandler {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.engine.clear_interrupt(MMU_VECTOR);
        self.0.mmu.interrupt();
        IrqReturn::Handled
    }
}

/// A job is done.
struct QueueHandler {
    compute: Arc<Compute>,
    /// 1 to 4.
    number: usize,
}

impl ThreadedHandler for QueueHandler {
    fn handle_threaded(&self) -> IrqReturn {
        self.compute
            .engine
            .clear_interrupt(QUEUE_VECTOR + self.number - 1);
        if let Some(queue) = self.compute.queue(self.number) {
            queue.interrupt();
        }
        IrqReturn::Handled
    }
}
