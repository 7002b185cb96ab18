// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The ioctls of shared virtual memory: what user space says is checked here.

use crate::{
    advice::{
        Hint,
        Prefer, //
    },
    evict::{
        evict_range,
        send_home_from_peers, //
    },
    file::File,
    ioctl::{
        must_be_zero,
        number,
        Call,
        Ioctl,
        MAX_TIMESLICE_MS, //
    },
    range,
    uapi::{
        self,
        drm_simgpu_advise,
        drm_simgpu_counters,
        drm_simgpu_prefetch,
        drm_simgpu_submit,
        drm_simgpu_vm_create,
        drm_simgpu_vm_destroy,
        drm_simgpu_wait, //
    },
    wakeups::CHECK_MS, //
};
use kernel::{
    drm::ioctl::{
        IOW,
        IOWR, //
    },
    error::code::ETIME,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

impl Ioctl for drm_simgpu_vm_create {
    const COMMAND: u32 = IOWR::<Self>(number(uapi::DRM_SIMGPU_VM_CREATE));
    const NAME: &'static CStr = c"SIMGPU_VM_CREATE";

    fn run(&mut self, call: &Call<'_>) -> Result {
        must_be_zero(&[self.flags])?;

        self.vm_id = call.file.create(&call.data.svm, call.mm)?;
        Ok(())
    }
}

impl Ioctl for drm_simgpu_vm_destroy {
    const COMMAND: u32 = IOW::<Self>(number(uapi::DRM_SIMGPU_VM_DESTROY));
    const NAME: &'static CStr = c"SIMGPU_VM_DESTROY";

    fn run(&mut self, call: &Call<'_>) -> Result {
        must_be_zero(&[self.pad])?;

        call.file.destroy(self.vm_id)
    }
}

impl Ioctl for drm_simgpu_submit {
    const COMMAND: u32 = IOWR::<Self>(number(uapi::DRM_SIMGPU_SUBMIT));
    const NAME: &'static CStr = c"SIMGPU_SUBMIT";

    fn run(&mut self, call: &Call<'_>) -> Result {
        must_be_zero(&[self.flags & !uapi::SIMGPU_SUBMIT_STORE])?;
        if self.op > uapi::SIMGPU_JOB_CHASE {
            return Err(EINVAL);
        }
        let space = call.file.space(self.vm_id, call.mm)?;

        self.job = call.file.add_job(|| call.data.svm.submit(self, &space))?;
        Ok(())
    }
}

impl Ioctl for drm_simgpu_wait {
    const COMMAND: u32 = IOWR::<Self>(number(uapi::DRM_SIMGPU_WAIT));
    const NAME: &'static CStr = c"SIMGPU_WAIT";

    fn run(&mut self, call: &Call<'_>) -> Result {
        must_be_zero(&[self.flags])?;

        call.file.job(self.job).map(|_| ())
    }

    fn wait(&mut self, file: &File) -> Result {
        let job = file.job(self.job)?;
        let begun: Instant<Monotonic> = Instant::now();

        let outcome = loop {
            let waited = begun.elapsed().as_millis();
            let rest = if self.timeout_ms == uapi::SIMGPU_WAIT_FOREVER {
                CHECK_MS
            } else {
                let rest = i64::from(self.timeout_ms) - waited;

                rest.clamp(0, CHECK_MS.into()) as u32
            };

            if let Some(outcome) = job.wait(rest)? {
                break outcome;
            }
            job.queue.check();
            if rest == 0 {
                break job.outcome().ok_or(ETIME)?;
            }
        };

        file.forget(self.job)?;
        self.error = outcome.error;
        self.fault_access = outcome.fault_access;
        self.fault_address = outcome.fault_address;
        self.done = outcome.done;
        self.result = outcome.result;
        Ok(())
    }
}

impl Ioctl for drm_simgpu_advise {
    const COMMAND: u32 = IOW::<Self>(number(uapi::DRM_SIMGPU_ADVISE));
    const NAME: &'static CStr = c"SIMGPU_ADVISE";

    fn run(&mut self, call: &Call<'_>) -> Result {
        must_be_zero(&[self.flags & !uapi::SIMGPU_ADVISE_READ_MOSTLY])?;
        if self.timeslice_ms > MAX_TIMESLICE_MS {
            return Err(EINVAL);
        }
        let hint = Hint {
            prefer: match self.prefer {
                uapi::SIMGPU_PREFER_DEFAULT | uapi::SIMGPU_PREFER_VRAM => Prefer::Vram,
                uapi::SIMGPU_PREFER_RAM => Prefer::Ram,
                uapi::SIMGPU_PREFER_STAY => Prefer::Stay,
                _ => return Err(EINVAL),
            },
            read_mostly: self.flags & uapi::SIMGPU_ADVISE_READ_MOSTLY != 0,
            timeslice_ms: self.timeslice_ms,
        };
        let range = range::checked(call.mm, self.start, self.size)?;

        call.file.space(self.vm_id, call.mm)?.advise(range, hint)
    }
}

impl Ioctl for drm_simgpu_prefetch {
    const COMMAND: u32 = IOW::<Self>(number(uapi::DRM_SIMGPU_PREFETCH));
    const NAME: &'static CStr = c"SIMGPU_PREFETCH";

    fn run(&mut self, call: &Call<'_>) -> Result {
        must_be_zero(&[self.flags, self.pad])?;
        let range = range::checked(call.mm, self.start, self.size)?;
        let space = call.file.space(self.vm_id, call.mm)?;

        match self.place {
            uapi::SIMGPU_PLACE_RAM => {
                evict_range(&call.data.pagemap, call.mm, &range)?;
                send_home_from_peers(&call.data.pagemap, call.mm, &range)?;
                Ok(())
            }
            uapi::SIMGPU_PLACE_VRAM => space.prefetch(call.mm, range),
            _ => Err(EINVAL),
        }
    }
}

impl Ioctl for drm_simgpu_counters {
    const COMMAND: u32 = IOWR::<Self>(number(uapi::DRM_SIMGPU_COUNTERS));
    const NAME: &'static CStr = c"SIMGPU_COUNTERS";

    fn run(&mut self, call: &Call<'_>) -> Result {
        must_be_zero(&[self.flags, self.pad])?;

        *self = call.data.svm.counters()?;
        Ok(())
    }
}
