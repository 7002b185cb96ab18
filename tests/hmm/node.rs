// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! `/dev/hmm_dmirror0` and `1`.

use crate::{
    device::Device,
    mirror::{
        Mirror,
        STEP, //
    },
    uapi, //
};
use core::ops::Range;
use kernel::{
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    mm::virt::VmaNew,
    page::{
        Page,
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

/// How many devices there are.
pub(crate) const DEVICES: usize = 2;

kernel::sync::global_lock! {
    // SAFETY: Initialized by the module before it registers nodes.
    pub(crate) unsafe(uninit) static TABLE: Mutex<[Option<Arc<Device>>; DEVICES]> = [None, None];
}

/// The node of device `N`.
pub(crate) struct Node<const N: usize>;

#[vtable]
impl<const N: usize> MiscDevice for Node<N> {
    type Ptr = Pin<KBox<Mirror>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let device = TABLE.lock()[N].clone().ok_or(ENODEV)?;

        Mirror::new(device, kernel::current!().mm().ok_or(EINVAL)?)
    }

    fn mmap(_mirror: Pin<&Mirror>, _file: &File, vma: &VmaNew) -> Result {
        let area = vma.set_mixedmap();

        for addr in (area.start()..area.end()).step_by(PAGE_SIZE) {
            area.vm_insert_page(addr, &Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?)?;
        }
        Ok(())
    }

    fn ioctl(mirror: Pin<&Mirror>, _file: &File, command: u32, arg: usize) -> Result<isize> {
        let arg = UserPtr::from_addr(arg);
        let size = core::mem::size_of::<uapi::Command>();
        let mut args = UserSlice::new(arg, size).reader().read::<uapi::Command>()?;
        let range = range(args[0], args[2])?;

        let (pages, faults) = run(&mirror, command, range, &args)?;
        args[3] = pages as u64;
        args[4] = faults as u64;
        UserSlice::new(arg, size).writer().write(&args)?;
        Ok(0)
    }
}

/// The addresses of `pages` pages. [`EINVAL`]: they are none.
fn range(addr: u64, pages: u64) -> Result<Range<usize>> {
    let start = usize::try_from(addr)?;
    let pages = usize::try_from(pages)?;
    let end = pages
        .checked_mul(PAGE_SIZE)
        .and_then(|len| start.checked_add(len))
        .ok_or(EINVAL)?;

    if start & !PAGE_MASK != 0 || start >= end {
        return Err(EINVAL);
    }
    Ok(start..end)
}

/// Carries out a command. Returns the number of pages and of page faults.
fn run(
    mirror: &Mirror,
    command: u32,
    range: Range<usize>,
    args: &uapi::Command,
) -> Result<(usize, usize)> {
    let pages = range.len() >> PAGE_SHIFT;
    let user = UserPtr::from_addr(usize::try_from(args[1])?);
    let buffer = |len| KVVec::from_elem(0u8, len, GFP_KERNEL);

    match command {
        uapi::READ | uapi::READ_UNLOCKED => {
            let mut bytes = buffer(range.len())?;
            let faults = mirror.read(range, &mut bytes)?;

            UserSlice::new(user, bytes.len())
                .writer()
                .write_slice(&bytes)?;
            Ok((pages, faults))
        }
        uapi::WRITE => {
            let mut bytes = buffer(range.len())?;

            UserSlice::new(user, bytes.len())
                .reader()
                .read_slice(&mut bytes)?;
            Ok((pages, mirror.write(range, &bytes)?))
        }
        uapi::MIGRATE_TO_DEV => {
            mirror.migrate_to_device(range.clone())?;

            // As ranges may be large, a part at a time.
            let mut bytes = buffer(range.len().min(STEP))?;
            let mut user = UserSlice::new(user, range.len()).writer();

            for start in range.clone().step_by(STEP) {
                let part = start..range.end.min(start + STEP);
                let bytes = &mut bytes[..part.len()];

                mirror.read_migrated(part, bytes)?;
                user.write_slice(bytes)?;
            }
            Ok((pages, 0))
        }
        uapi::MIGRATE_TO_SYS => Ok((mirror.migrate_to_system(range)?, 0)),
        uapi::EXCLUSIVE => {
            let mut bytes = buffer(range.len())?;

            mirror.exclusive(range, &mut bytes)?;
            UserSlice::new(user, bytes.len())
                .writer()
                .write_slice(&bytes)?;
            Ok((pages, 0))
        }
        uapi::CHECK_EXCLUSIVE => {
            mirror.check_exclusive(range)?;
            Ok((0, 0))
        }
        uapi::SNAPSHOT => {
            let mut bytes = buffer(pages)?;

            mirror.snapshot(range, &mut bytes)?;
            UserSlice::new(user, bytes.len())
                .writer()
                .write_slice(&bytes)?;
            Ok((pages, 0))
        }
        uapi::RELEASE => {
            mirror.device().evict_all()?;
            Ok((0, 0))
        }
        uapi::FLAGS => {
            mirror.fail_alloc(args[2] & uapi::FLAG_FAIL_ALLOC != 0);
            Ok((0, 0))
        }
        _ => Err(EINVAL),
    }
}
