// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The interrupts: they wake who waits for the engine.
//!
//! Their handlers run in threads, so that waking can take the mutex under which a waiter looks at
//! its fence before it goes to sleep; that way no wake-up is lost.

use crate::engine::Engine;
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
const VECTORS: u32 = 2;

/// The vector that says that a fence was signalled.
const FENCE_VECTOR: usize = 0;

/// The vector that says that something went wrong.
const ERROR_VECTOR: usize = 1;

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
        self.0.fence_interrupt();
        IrqReturn::Handled
    }
}

/// Something went wrong.
struct ErrorHandler(Arc<Engine>);

impl ThreadedHandler for ErrorHandler {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.error_interrupt();
        IrqReturn::Handled
    }
}
