// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The user interface, which is that of the kernel's own test module.
//!
//! C header: [`lib/test_hmm_uapi.h`](srctree/lib/test_hmm_uapi.h)

use kernel::ioctl::_IOWR;

/// A command, and what became of it: address, user memory for data, number of pages; pages done,
/// page faults.
pub(crate) type Command = [u64; 5];

const fn command(number: u32) -> u32 {
    _IOWR::<Command>('H' as u32, number)
}

pub(crate) const READ: u32 = command(0);
pub(crate) const WRITE: u32 = command(1);
pub(crate) const MIGRATE_TO_DEV: u32 = command(2);
pub(crate) const MIGRATE_TO_SYS: u32 = command(3);
pub(crate) const SNAPSHOT: u32 = command(4);
pub(crate) const EXCLUSIVE: u32 = command(5);
pub(crate) const CHECK_EXCLUSIVE: u32 = command(6);
pub(crate) const RELEASE: u32 = command(7);
pub(crate) const FLAGS: u32 = command(8);
/// The same as [`READ`] here, where page faults never hold on to the mmap lock.
pub(crate) const READ_UNLOCKED: u32 = command(9);

/// For [`FLAGS`], in place of the number of pages.
pub(crate) const FLAG_FAIL_ALLOC: u64 = 1;

// What a snapshot says of a page.
pub(crate) const PROT_ERROR: u8 = 0xff;
pub(crate) const PROT_NONE: u8 = 0x00;
pub(crate) const PROT_READ: u8 = 0x01;
pub(crate) const PROT_WRITE: u8 = 0x02;
pub(crate) const PROT_PMD: u8 = 0x04;
pub(crate) const PROT_PUD: u8 = 0x08;
pub(crate) const PROT_ZERO: u8 = 0x10;
pub(crate) const PROT_DEV_PRIVATE_LOCAL: u8 = 0x20;
