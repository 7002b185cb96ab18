// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What a test is made of.
//!
//! A KUnit assertion that fails ends the thread without running destructors. So the tests here are
//! functions that return an [`Outcome`]: a check that fails is an error, which `?` hands up, and
//! all that the test holds is dropped on the way. Every error knows the line it arose in.

use crate::{
    ffi,
    gpu::{
        Gpu,
        VRAM_PAGES, //
    },
};
use core::panic::Location;
use drm_pagemap::Policy;
use kernel::{
    alloc::AllocError,
    bindings,
    error::to_result,
    fmt,
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    str::CString, //
};

/// Why a test is over before its end.
pub(crate) struct Failure {
    at: &'static Location<'static>,
    what: Option<CString>,
    skip: bool,
}

impl Failure {
    /// A check that failed.
    #[track_caller]
    pub(crate) fn new(what: fmt::Arguments<'_>) -> Self {
        Self {
            at: Location::caller(),
            what: CString::try_from_fmt(what).ok(),
            skip: false,
        }
    }

    /// Something that a test needs is not there.
    #[track_caller]
    pub(crate) fn skip(why: fmt::Arguments<'_>) -> Self {
        Self {
            skip: true,
            ..Self::new(why)
        }
    }
}

impl From<Error> for Failure {
    #[track_caller]
    fn from(err: Error) -> Self {
        Self::new(fmt!("unexpected error {:?}", err))
    }
}

impl From<AllocError> for Failure {
    #[track_caller]
    fn from(_: AllocError) -> Self {
        Self::new(fmt!("out of memory"))
    }
}

/// What a test returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Fails the test unless the condition is true.
macro_rules! check {
    ($cond:expr $(,)?) => {
        if !$cond {
            return Err($crate::harness::Failure::new(kernel::prelude::fmt!(
                "expected `{}`",
                stringify!($cond)
            )));
        }
    };
}

/// Fails the test unless both are equal.
macro_rules! check_eq {
    ($actual:expr, $expected:expr $(,)?) => {
        match (&$actual, &$expected) {
            (actual, expected) => {
                if *actual != *expected {
                    return Err($crate::harness::Failure::new(kernel::prelude::fmt!(
                        "`{}`: expected {:?}, got {:?}",
                        stringify!($actual),
                        expected,
                        actual
                    )));
                }
            }
        }
    };
}

/// Fails the test unless the result is the error.
macro_rules! check_err {
    ($result:expr, $expected:expr $(,)?) => {
        match (($result).err(), $expected) {
            (Some(actual), expected) if actual == expected => (),
            (Some(actual), expected) => {
                return Err($crate::harness::Failure::new(kernel::prelude::fmt!(
                    "`{}`: expected {:?}, got {:?}",
                    stringify!($result),
                    expected,
                    actual
                )))
            }
            (None, expected) => {
                return Err($crate::harness::Failure::new(kernel::prelude::fmt!(
                    "`{}`: expected {:?}, but it succeeded",
                    stringify!($result),
                    expected
                )))
            }
        }
    };
}

/// A running test, with an address space of its own.
pub(crate) struct Test {
    raw: *mut bindings::kunit,
    attached: bool,
}

impl Test {
    /// # Safety
    ///
    /// `raw` must be the test that the current thread runs.
    unsafe fn new(raw: *mut bindings::kunit) -> Self {
        Self {
            raw,
            attached: false,
        }
    }

    /// The test's address space.
    pub(crate) fn mm(&self) -> &MmWithUser {
        // SAFETY: Tests run with an address space attached; leaving it takes a `&mut self`.
        unsafe { MmWithUser::from_raw((*bindings::get_current()).mm) }
    }

    /// Enters a new address space.
    pub(crate) fn enter_mm(&mut self) -> Result {
        // SAFETY: No requirements.
        to_result(unsafe { ffi::drm_pagemap_kunit_mm_attach() })?;
        self.attached = true;
        Ok(())
    }

    /// Leaves the address space, which ends, unless somebody else uses it: as when a process exits.
    pub(crate) fn end_mm(&mut self) {
        if core::mem::take(&mut self.attached) {
            // SAFETY: The reference that `enter_mm` made is given up; no borrow of it is alive.
            unsafe { ffi::drm_pagemap_kunit_mm_put(ffi::drm_pagemap_kunit_mm_detach()) };
        }
    }

    /// Leaves the address space, but keeps it: as if another process's driver worked on it.
    pub(crate) fn step_out(&mut self) -> SteppedOut {
        self.attached = false;
        // SAFETY: No borrow of the address space is alive.
        SteppedOut(unsafe { ffi::drm_pagemap_kunit_mm_detach() })
    }

    /// Enters an address space that the test has [stepped out](Self::step_out) of.
    pub(crate) fn step_in(&mut self, mm: SteppedOut) {
        let mm = core::mem::ManuallyDrop::new(mm);

        self.end_mm();
        // SAFETY: The reference goes to the task.
        unsafe { ffi::drm_pagemap_kunit_mm_use(mm.0) };
        self.attached = true;
    }

    /// Holds the mmap lock of the test's address space for writing, until the result is dropped.
    pub(crate) fn lock_mmap_for_writing(&self) -> MmapWriteLock<'_> {
        // SAFETY: A valid address space.
        unsafe { ffi::drm_pagemap_kunit_mmap_write_lock(self.mm().as_raw()) };
        MmapWriteLock(self.mm())
    }

    /// Keeps warnings, which what `f` does shall cause, out of the log.
    pub(crate) fn without_warnings<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: This is the test that the thread runs.
        let handle = unsafe { ffi::drm_pagemap_kunit_suppress_warnings(self.raw) };
        let result = f();

        // SAFETY: As above.
        unsafe { ffi::drm_pagemap_kunit_unsuppress_warnings(self.raw, handle) };
        result
    }

    fn report(&self, outcome: Outcome) {
        let Err(failure) = outcome else {
            return;
        };
        let what = failure
            .what
            .as_deref()
            .unwrap_or(c"(no memory for the message)");

        if failure.skip {
            // SAFETY: A valid test and string.
            unsafe { ffi::drm_pagemap_kunit_skip(self.raw, what.as_char_ptr()) };
            return;
        }
        let file = CString::try_from_fmt(fmt!("{}", failure.at.file())).ok();
        let file = file.as_deref().unwrap_or(c"?");

        // SAFETY: A valid test and strings.
        unsafe {
            ffi::drm_pagemap_kunit_fail(
                self.raw,
                file.as_char_ptr(),
                failure.at.line(),
                what.as_char_ptr(),
            )
        };
    }
}

/// The mmap lock, held for writing.
pub(crate) struct MmapWriteLock<'a>(&'a MmWithUser);

impl Drop for MmapWriteLock<'_> {
    fn drop(&mut self) {
        // SAFETY: The lock is ours.
        unsafe { ffi::drm_pagemap_kunit_mmap_write_unlock(self.0.as_raw()) };
    }
}

/// An address space that the test is out of.
pub(crate) struct SteppedOut(*mut bindings::mm_struct);

impl SteppedOut {
    /// The address space.
    pub(crate) fn mm(&self) -> &Mm {
        // SAFETY: A reference on it is ours.
        unsafe { Mm::from_raw(self.0) }
    }
}

impl Drop for SteppedOut {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { ffi::drm_pagemap_kunit_mm_put(self.0) };
    }
}

/// Runs a test that needs no device.
///
/// # Safety
///
/// `raw` must be the test that the current thread runs.
pub(crate) unsafe fn alone(raw: *mut bindings::kunit, body: fn(&mut Test) -> Outcome) {
    // SAFETY: Promised by the caller.
    let mut test = unsafe { Test::new(raw) };
    let outcome = test
        .enter_mm()
        .map_err(Failure::from)
        .and_then(|()| body(&mut test));

    test.end_mm();
    test.report(outcome);
}

/// Runs a test with a mock GPU, and checks that nothing is left of it in the device when its
/// address space is gone.
///
/// # Safety
///
/// `raw` must be the test that the current thread runs.
pub(crate) unsafe fn with_gpu(raw: *mut bindings::kunit, body: fn(&mut Test, &Gpu) -> Outcome) {
    // SAFETY: Promised by the caller.
    unsafe { with_gpu_as(raw, Policy::new(), body) };
}

/// The same with a mock GPU that has a policy.
///
/// # Safety
///
/// `raw` must be the test that the current thread runs.
pub(crate) unsafe fn with_gpu_as(
    raw: *mut bindings::kunit,
    policy: Policy,
    body: fn(&mut Test, &Gpu) -> Outcome,
) {
    // SAFETY: Promised by the caller.
    let mut test = unsafe { Test::new(raw) };
    let gpu = match Gpu::with_policy(VRAM_PAGES, policy) {
        Ok(gpu) => gpu,
        Err(err) => return test.report(Err(err.into())),
    };
    let outcome = test
        .enter_mm()
        .map_err(Failure::from)
        .and_then(|()| body(&mut test, &gpu));

    test.end_mm();
    test.report(outcome);
    test.report(gpu.finish());
}

/// Registers a KUnit suite of the tests named, each run by the given function. One per module.
macro_rules! suite {
    ($suite:ident, $run:path, [$($test:ident),+ $(,)?] $(,)?) => {
        #[doc(hidden)]
        mod suite {
            mod cases {
                $(
                    /// # Safety
                    ///
                    /// Called by KUnit with the test that the thread runs.
                    pub(super) unsafe extern "C" fn $test(raw: *mut kernel::bindings::kunit) {
                        // SAFETY: Promised by the caller.
                        unsafe { $run(raw, super::super::$test) };
                    }
                )+
            }

            const LEN: usize = [$(stringify!($test)),+].len() + 1;

            static mut CASES: [kernel::bindings::kunit_case; LEN] = [
                $(kernel::kunit::kunit_case(
                    kernel::c_str!(stringify!($test)),
                    cases::$test,
                ),)+
                pin_init::zeroed(),
            ];
            kernel::kunit_unsafe_test_suite!($suite, CASES);
        }
    };
}

pub(crate) use {
    check,
    check_eq,
    check_err,
    suite, //
};
