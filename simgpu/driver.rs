// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Binding to the PCI device, and unbinding from it.

use crate::{
    clients::Clients,
    debugfs,
    device::{
        RegistrationData,
        SimgpuDrm, //
    },
    engine::{
        Engine,
        Running, //
    },
    irq::{
        self,
        ComputeInterrupts,
        Interrupts, //
    },
    link,
    pagemap::SimgpuPagemap,
    regs::BAR_SIZE,
    service::Service,
    svm, //
};
use kernel::{
    device::Core,
    dma::{
        Device as _,
        DmaMask, //
    },
    drm,
    pci::{
        self,
        IrqVectorRegistration, //
    },
    prelude::*,
    sync::Arc, //
};

/// The device ID; the vendor is Red Hat's, as for other emulated devices.
const DEVICE_ID: u32 = 0x5347;

kernel::pci_device_table!(
    PCI_TABLE,
    <SimgpuDriver as pci::Driver>::IdInfo,
    [(pci::DeviceId::from_id(pci::Vendor::REDHAT, DEVICE_ID), ())]
);

/// The PCI driver.
pub(crate) struct SimgpuDriver;

/// What the driver has while it is bound to a device. Unbinding drops the fields, in this order:
///
/// 1. `_debugfs`: its files are gone, once nobody reads them;
/// 2. `_drm`: user space is cut off, once the ioctls under way are done;
/// 3. `svm`: all jobs end, all address spaces are taken from the device, the compute side stops;
/// 4. `_compute_interrupts`, `_service`: nobody is told of faults any more, or at one;
/// 5. `_pagemap`: all pages come home, by the copy engine, after other GPUs have let go of them;
///    the last allocation is released; the GPU leaves the group of those that it has a link to;
/// 6. `_running`: the engine is stopped, and with it its interrupts; the ring is freed;
/// 7. `_interrupts`, `vectors`: the interrupts are freed.
///
/// After that the kernel unmaps the BAR, which it keeps for the driver. If the device is gone,
/// everything that would need it fails at once, and the order stays the same; pages in VRAM that
/// processes still have are lost, and not waited for.
#[pin_data]
pub(crate) struct Simgpu<'bound> {
    #[pin]
    _debugfs: debugfs::Folder,
    _drm: drm::Registration<'bound, SimgpuDrm>,
    svm: svm::Running,
    #[pin]
    _compute_interrupts: ComputeInterrupts<'bound>,
    service: Arc<Service>,
    _pagemap: drm_pagemap::Registration<SimgpuPagemap>,
    _running: Running,
    #[pin]
    _interrupts: Interrupts<'bound>,
    vectors: IrqVectorRegistration<'bound>,
}

impl pci::Driver for SimgpuDriver {
    type IdInfo = ();
    type Data<'bound> = Simgpu<'bound>;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Simgpu<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            pdev.enable_device_mem()?;
            pdev.set_master();
            // SAFETY: Nobody does DMA for a device that is being probed, before we do.
            unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<64>())? };

            let bar = pdev.iomap_region_sized::<BAR_SIZE>(0, c"simgpu")?;
            let engine = Engine::new(pdev.as_ref(), bar)?;
            let vram_size = engine.vram_size()?;
            let clients = Clients::new()?;
            let drm = drm::UnregisteredDevice::<SimgpuDrm>::new(pdev, Ok(clients.clone()))?;

            dev_info!(pdev, "{} MiB of VRAM\n", vram_size >> 20);

            Ok(try_pin_init!(Simgpu {
                vectors: irq::allocate(pdev)?,
                // SAFETY: `vectors` is initialized, stays where it is, as `Simgpu` is pinned, and
                // is dropped after this, which is dropped with `Simgpu`.
                _interrupts <- unsafe {
                    Interrupts::new(&*core::ptr::from_ref(vectors), &engine)?
                },
                _running: Running::start(engine.clone())?,
                _pagemap: drm_pagemap::Registration::in_group(
                    &drm,
                    c"simgpu",
                    usize::try_from(vram_size)?,
                    SimgpuPagemap::new(engine.clone(), vram_size, engine.link_number()?),
                    link::join(engine.clone())?,
                )?,
                svm: svm::Running::start(
                    pdev.as_ref(),
                    engine,
                    Arc::from(_pagemap.pagemap()),
                )?,
                service: Service::new(svm.svm())?,
                // SAFETY: As above.
                _compute_interrupts <- unsafe {
                    ComputeInterrupts::new(
                        &*core::ptr::from_ref(vectors),
                        &svm.svm().compute,
                        service,
                    )?
                },
                _debugfs <- debugfs::Folder::new(
                    pdev,
                    Arc::from(_pagemap.pagemap()),
                    clients,
                    svm.svm().leaves.clone(),
                )?,
                _drm: {
                    let data = RegistrationData {
                        pagemap: Arc::from(_pagemap.pagemap()),
                        svm: svm.svm().clone(),
                    };

                    // SAFETY: It is dropped with `Simgpu`, which the kernel drops when the driver
                    // is unbound.
                    unsafe { drm::Registration::new(pdev.as_ref(), drm, data, 0)? }
                },
            }? Error))
        })
    }
}
