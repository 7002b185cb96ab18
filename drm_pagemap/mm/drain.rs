// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! References that the core has for a while.
//!
//! C header: [`include/linux/migrate.h`](srctree/include/linux/migrate.h)

use crate::bindings;

/// Has the core give up the references on pages that it has in the batches of this processor, as
/// `lru_add_drain()` does. May sleep.
///
/// One of these batches has what was unmapped from an area that is locked in memory, of device
/// memory, too: up to 30 single pages, for as long as nobody on that processor has reason to do this.
pub(crate) fn drain_batches() {
    // To migrate pages begins with it; of none of them, it is all there is to do. The function itself
    // is not for modules.
    // SAFETY: Of 0 pages, neither the array nor the first frame is looked at.
    let _ = unsafe { bindings::migrate_device_range(core::ptr::null_mut(), 0, 0) };
}
