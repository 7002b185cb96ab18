// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a pagemap in use holds of its provider: the DRM device and its module.
//!
//! C header: [`include/drm/drm_pagemap.h`](srctree/include/drm/drm_pagemap.h)

use crate::{
    bindings,
    policy::PolicyState,
    queue, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A reference on a DRM device and on the module that drives it; `struct drm_pagemap_dev_hold`. With
/// them comes the pagemap's policy, which the C structure has no room for.
///
/// Putting them may sleep, and the caller may itself be running code of that module; hence
/// [`release`](Self::release) does it from the module's [queue](crate::queue).
///
/// # Invariants
///
/// A reference on `drm` and one on `module` belong to the value.
#[pin_data]
#[repr(C)]
pub struct DevHold {
    #[pin]
    work: queue::Work,
    drm: NonNull<bindings::drm_device>,
    module: *mut bindings::module,
    policy: Arc<PolicyState>,
}

impl DevHold {
    /// Takes the references. May sleep. [`ENODEV`]: the driver's module is being unloaded.
    ///
    /// # Safety
    ///
    /// `drm` must be a valid DRM device.
    pub(crate) unsafe fn take(
        drm: NonNull<bindings::drm_device>,
        policy: Arc<PolicyState>,
    ) -> Result<OwnedHold> {
        // SAFETY: A valid DRM device has a driver with file operations.
        let module = unsafe { bindings::drm_pagemap_helper_drm_module(drm.as_ptr()) };
        let hold = KBox::pin_init(
            pin_init!(Self {
                work <- queue::Work::new(put_references),
                drm,
                module,
                policy,
            }),
            GFP_KERNEL,
        )?;

        // SAFETY: As above.
        if !unsafe { bindings::drm_pagemap_helper_drm_try_module_get(drm.as_ptr()) } {
            return Err(ENODEV);
        }
        // SAFETY: As above.
        unsafe { bindings::drm_dev_get(drm.as_ptr()) };

        // SAFETY: Not moved: it goes on living behind the pointer.
        let hold = KBox::into_raw(unsafe { Pin::into_inner_unchecked(hold) });
        // SAFETY: A box is not null.
        Ok(OwnedHold(unsafe { NonNull::new_unchecked(hold) }))
    }

    /// The pagemap's policy.
    pub(crate) fn policy(&self) -> &Arc<PolicyState> {
        &self.policy
    }
}

/// Puts the references of a [`DevHold`], and frees it.
///
/// # Safety
///
/// `work` must be the first field of a [`DevHold`] that was given up for this.
unsafe extern "C" fn put_references(work: *mut bindings::work_struct) {
    // SAFETY: By the caller's promise; `work` is at offset 0.
    let hold = unsafe { KBox::from_raw(work.cast::<DevHold>()) };

    // SAFETY: By the type invariant both references are ours. The device's release function may be
    // code of the module, so the module goes last.
    unsafe {
        bindings::drm_dev_put(hold.drm.as_ptr());
        bindings::drm_pagemap_helper_drm_module_put(hold.module);
    }
}

/// An owned [`DevHold`].
pub struct OwnedHold(NonNull<DevHold>);

impl OwnedHold {
    /// The value to keep in `drm_pagemap::dev_hold`.
    pub(crate) fn into_raw(self) -> *mut bindings::drm_pagemap_dev_hold {
        ManuallyDrop::new(self).0.as_ptr().cast()
    }

    /// Takes back what [`into_raw`](Self::into_raw) gave.
    ///
    /// # Safety
    ///
    /// `hold` must come from there, and not be taken back twice.
    pub(crate) unsafe fn from_raw(hold: *mut bindings::drm_pagemap_dev_hold) -> Option<Self> {
        NonNull::new(hold.cast()).map(Self)
    }
}

impl Drop for OwnedHold {
    /// Any context: the references are put from the queue.
    fn drop(&mut self) {
        // SAFETY: Ours, and given up here; `put_references` frees it.
        unsafe { self.0.as_ref().work.enqueue() };
    }
}
