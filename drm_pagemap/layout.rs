// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Compares the layout of the C structs that are used in place, as bindgen's clang and rustc see
//! it, with what the compiler that builds the kernel says: in `layout.c`, from which Kbuild makes
//! numbers.
//!
//! The build fails if they differ, or if what is listed here is not listed there.

use crate::bindings;
use core::mem::offset_of;

/// The C compiler's numbers: `STRUCT__SIZE`, `STRUCT__ALIGN` and `STRUCT__FIELD`, in bytes.
// The compiler doesn't count what a `const _` uses.
#[allow(dead_code, non_upper_case_globals)]
mod c {
    include!(concat!(
        env!("DRM_PAGEMAP_GENERATED"),
        "/layout_generated.rs"
    ));
}

/// Fails the build unless the size, the alignment and the offsets of the fields named are C's. What
/// Rust calls differently is named as `c_name = rust_name`.
macro_rules! same_as_c {
    ($type:ident { $($c:ident $(= $rust:ident)?),* $(,)? }) => {
        kernel::macros::paste! {
            const _: () = assert!(size_of::<bindings::$type>() == c::[<$type __SIZE>]);
            const _: () = assert!(align_of::<bindings::$type>() == c::[<$type __ALIGN>]);
        }
        $(same_as_c!(@field $type, $c $(, $rust)?);)*
    };
    (@field $type:ident, $field:ident) => {
        same_as_c!(@field $type, $field, $field);
    };
    (@field $type:ident, $c:ident, $rust:ident) => {
        kernel::macros::paste! {
            const _: () = assert!(offset_of!(bindings::$type, $rust) == c::[<$type __ $c>]);
        }
    };
}

same_as_c!(drm_pagemap {
    ops,
    ref = ref_,
    drm,
    pagemap,
    dev_hold,
    cache,
    shrink_link,
});
same_as_c!(drm_pagemap_ops {
    device_map,
    device_unmap,
    populate_mm,
    destroy,
});
same_as_c!(drm_pagemap_devmem {
    dev,
    mm,
    detached,
    ops,
    dpagemap,
    size,
    timeslice_expiration,
    pre_migrate_fence,
});
same_as_c!(drm_pagemap_devmem_ops {
    devmem_release,
    populate_devmem_pfn,
    copy_to_devmem,
    copy_to_ram,
});
// C has no offsets of bit-fields; the suite `drm_pagemap_mirrors` compares those at run time.
same_as_c!(drm_pagemap_addr { addr });
same_as_c!(drm_pagemap_migrate_details { timeslice_ms });
same_as_c!(drm_pagemap_peer {
    list,
    link,
    owner,
    private,
});
same_as_c!(drm_pagemap_owner_list { lock, peers });
same_as_c!(migrate_vma {
    vma,
    dst,
    src,
    cpages,
    npages,
    start,
    end,
    pgmap_owner,
    flags,
    fault_page,
});
same_as_c!(dev_pagemap {
    type = type_,
    ops,
    owner,
    nr_range,
    ranges = __bindgen_anon_1,
});
same_as_c!(shrinker {
    count_objects,
    scan_objects,
    private_data,
});
same_as_c!(shrink_control {
    nr_to_scan,
    nr_scanned,
});
