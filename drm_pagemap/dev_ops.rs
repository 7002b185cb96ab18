// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What the memory management core calls: the operations of every pagemap's zone device.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::{
    bindings,
    migrate::fault::{
        self,
        VmFault, //
    },
    mm::{
        Fault,
        Folio, //
    },
    zdd::Zdd,
};

/// The operations that zone devices of this layer are registered with.
pub(crate) static OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
    folio_free: Some(folio_free),
    migrate_to_ram: Some(migrate_to_ram),
    memory_failure: None,
    folio_split: Some(folio_split),
};

/// Whether `folio` is device-private memory of a zone device with [these operations](OPS), so that
/// its `zone_device_data` is this layer's.
#[inline]
pub(crate) fn is_ours(folio: &Folio) -> bool {
    folio.pgmap().is_some_and(|pgmap| {
        // SAFETY: A zone device outlives its folios that have references; its type and operations
        // are constant.
        unsafe {
            (*pgmap.as_ptr()).type_ == bindings::memory_type_MEMORY_DEVICE_PRIVATE
                && core::ptr::eq((*pgmap.as_ptr()).ops, &OPS)
        }
    })
}

/// The last reference on a folio is gone. Any context.
///
/// # Safety
///
/// `folio` must be a free folio of a zone device with these operations.
unsafe extern "C" fn folio_free(folio: *mut bindings::folio) {
    // SAFETY: The folio is the core's until this returns.
    unsafe { Zdd::folio_free(Folio::from_raw(folio)) };
}

/// A CPU touched a device page.
///
/// # Safety
///
/// `vmf` must be a fault on a locked and referenced page of a zone device with these operations.
unsafe extern "C" fn migrate_to_ram(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: That is how the core calls it; the fault is not used after return.
    match fault::to_ram(unsafe { Fault::from_raw(vmf) }) {
        VmFault::Done => 0,
        VmFault::Retry => bindings::vm_fault_reason_VM_FAULT_RETRY,
        VmFault::OutOfMemory => bindings::vm_fault_reason_VM_FAULT_OOM,
        VmFault::Sigbus => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
    }
}

/// A large folio is being split.
///
/// # Safety
///
/// `old` must be a locked folio of a zone device with these operations; `new` a part of it, or
/// null.
unsafe extern "C" fn folio_split(old: *mut bindings::folio, new: *mut bindings::folio) {
    if new.is_null() {
        return;
    }
    // SAFETY: Both are locked by the core.
    unsafe { Zdd::folio_split(Folio::from_raw(old), Folio::from_raw(new)) };
}
