/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * simgpu: the emulated GPU that shares a process's address space.
 *
 * All ioctls are on a render node (or the primary node) of the simgpu driver.
 *
 * Rules that hold for every ioctl here:
 *  - unknown bits in @flags and non-zero @pad fields give -EINVAL;
 *  - @start and @size are bytes of the caller's own address space; both must
 *    be multiples of the page size, @size must not be 0 and @start + @size
 *    must neither wrap nor leave the user address space, else -EINVAL;
 *  - -ENODEV: the device is gone (unplugged, or it stopped answering at all);
 *  - -EIO: the device reported an error or did not finish in time.
 */
#ifndef _UAPI_SIMGPU_DRM_H_
#define _UAPI_SIMGPU_DRM_H_

#include "drm.h"

#if defined(__cplusplus)
extern "C" {
#endif

#define DRM_SIMGPU_INFO		0x00
#define DRM_SIMGPU_POPULATE	0x01
#define DRM_SIMGPU_EVICT	0x02
#define DRM_SIMGPU_VRAM_OP	0x03
#define DRM_SIMGPU_RESIDENCY	0x04
#define DRM_SIMGPU_INJECT	0x05
#define DRM_SIMGPU_VM_CREATE	0x06
#define DRM_SIMGPU_VM_DESTROY	0x07
#define DRM_SIMGPU_SUBMIT	0x08
#define DRM_SIMGPU_WAIT		0x09
#define DRM_SIMGPU_ADVISE	0x0a
#define DRM_SIMGPU_PREFETCH	0x0b
#define DRM_SIMGPU_COUNTERS	0x0c

/**
 * struct drm_simgpu_info - What the device is and how full it is.
 */
struct drm_simgpu_info {
	/** @vram_size: Size of the VRAM in bytes. */
	__u64 vram_size;
	/** @vram_free: Bytes of VRAM not allocated now. */
	__u64 vram_free;
	/** @populated: Pages migrated to VRAM since the driver was bound. */
	__u64 populated;
	/** @evicted: Pages brought back by eviction since then. */
	__u64 evicted;
	/** @faulted: Pages brought back by CPU faults since then. */
	__u64 faulted;
	/** @flags: Must be 0. */
	__u32 flags;
	/** @pad: Must be 0. */
	__u32 pad;
};

/**
 * struct drm_simgpu_populate - Migrate a range of the caller's memory to VRAM.
 *
 * The range must be covered by private anonymous mappings. Never touched
 * pages are populated too: they read as zero.
 *
 * Errors: -ENOENT, a part of the range is not mapped; -EOPNOTSUPP, a part of
 * it is not private anonymous memory; -ENOSPC, VRAM is full and nothing could be
 * evicted; -EBUSY, pages are pinned or in use by someone else, try again;
 * -ENOMEM; -EFAULT, a page was lost with another device; -EINTR, a signal is
 * pending. On error a leading part of the range may already be in VRAM;
 * contents are never changed.
 */
struct drm_simgpu_populate {
	/** @start: First byte. */
	__u64 start;
	/** @size: Length in bytes. */
	__u64 size;
	/**
	 * @timeslice_ms: For how many milliseconds the pages shall stay in
	 * VRAM before a CPU fault may bring them home. At most 10000.
	 */
	__u32 timeslice_ms;
	/** @flags: Must be 0. */
	__u32 flags;
};

/**
 * struct drm_simgpu_evict - Bring a range back to RAM without a CPU touch.
 *
 * All VRAM allocations of the caller's address space that overlap the range
 * are evicted whole. Evicting what is not in VRAM succeeds. -EBUSY: some page could
 * not be migrated, try again.
 */
struct drm_simgpu_evict {
	/** @start: First byte. */
	__u64 start;
	/** @size: Length in bytes. */
	__u64 size;
	/** @flags: Must be 0. */
	__u32 flags;
	/** @pad: Must be 0. */
	__u32 pad;
};

/** Fill the range with a pattern. */
#define SIMGPU_OP_FILL		0
/** Exclusive-or the range with a pattern. */
#define SIMGPU_OP_XOR		1
/** Sum the range's 64-bit little-endian words, modulo 2^64, into @value. */
#define SIMGPU_OP_CHECKSUM	2

/**
 * struct drm_simgpu_vram_op - Let the GPU work on a range inside VRAM.
 *
 * -EFAULT: some page of the range is not in this device's VRAM (nothing was
 * changed then; populate first). Each page is worked on exactly once.
 */
struct drm_simgpu_vram_op {
	/** @start: First byte. */
	__u64 start;
	/** @size: Length in bytes. */
	__u64 size;
	/** @op: One of SIMGPU_OP_*; others give -EINVAL. */
	__u32 op;
	/** @flags: Must be 0. */
	__u32 flags;
	/**
	 * @value: In: the 64-bit pattern for FILL and XOR (0 for CHECKSUM).
	 * Out: the sum for CHECKSUM.
	 */
	__u64 value;
};

/** Nothing is mapped at this address, or it was never touched. */
#define SIMGPU_PLACE_NONE	0
/** The page is in RAM. */
#define SIMGPU_PLACE_RAM	1
/** The page is in this device's VRAM. */
#define SIMGPU_PLACE_VRAM	2
/** The page is in the VRAM of another device that this one has a link to. */
#define SIMGPU_PLACE_OTHER	3

/**
 * struct drm_simgpu_residency - Where the pages of a range are just now.
 */
struct drm_simgpu_residency {
	/** @start: First byte. */
	__u64 start;
	/** @size: Length in bytes. */
	__u64 size;
	/**
	 * @map_ptr: User pointer to @size / page size bytes that receive one
	 * SIMGPU_PLACE_* each, or 0 for the counts alone.
	 */
	__u64 map_ptr;
	/** @counts: Out: number of pages in each SIMGPU_PLACE_*. */
	__u64 counts[4];
	/** @flags: Must be 0. */
	__u32 flags;
	/** @pad: Must be 0. */
	__u32 pad;
};

/** Report an error for each of the next @count descriptors. */
#define SIMGPU_INJECT_FAIL	1
/** Never finish: swallow the next @count descriptors. */
#define SIMGPU_INJECT_HANG	2
/** Wait @delay_us microseconds before each of the next @count descriptors. */
#define SIMGPU_INJECT_DELAY	3

/* What one of the above is added to, for another engine than the copy engine. */

/** The MMU. */
#define SIMGPU_INJECT_MMU	0x100
/** Compute queue 0; others: SIMGPU_INJECT_QUEUE0 + 0x100 * queue. */
#define SIMGPU_INJECT_QUEUE0	0x200
/** The interrupts: to clear one takes effect late; SIMGPU_INJECT_DELAY alone. */
#define SIMGPU_INJECT_IRQ	0x600

/**
 * struct drm_simgpu_inject - Make the device misbehave, for tests.
 *
 * Needs CAP_SYS_ADMIN, else -EACCES. A @count of 0 ends the misbehaviour.
 */
struct drm_simgpu_inject {
	/** @what: One of SIMGPU_INJECT_*, and which engine. */
	__u32 what;
	/** @count: How many descriptors it shall hit; of interrupts all, if it isn't 0. */
	__u32 count;
	/** @delay_us: Microseconds, for SIMGPU_INJECT_DELAY; else 0. */
	__u32 delay_us;
	/** @flags: Must be 0. */
	__u32 flags;
};

/**
 * struct drm_simgpu_vm_create - Let the GPU use the caller's address space.
 *
 * From now on jobs can use every address that the process can use itself. It
 * ends with DRM_SIMGPU_VM_DESTROY, or when the file is closed; and it is that of
 * the calling process alone: a child that inherits the file has to make its own.
 *
 * Errors: -ENOSPC, there are too many address spaces on the device; -ENOMEM.
 */
struct drm_simgpu_vm_create {
	/** @flags: Must be 0. */
	__u32 flags;
	/** @vm_id: Out: its number, for this file; never 0. */
	__u32 vm_id;
};

/**
 * struct drm_simgpu_vm_destroy - Take an address space from the GPU.
 *
 * Jobs that use it fail with -ECANCELED. -ENOENT: this file has no such address space.
 */
struct drm_simgpu_vm_destroy {
	/** @vm_id: Its number. */
	__u32 vm_id;
	/** @pad: Must be 0. */
	__u32 pad;
};

/** Nothing. */
#define SIMGPU_JOB_NOP		0
/** Every 8-byte word of @dst = @arg; @len bytes. */
#define SIMGPU_JOB_FILL		1
/** @len bytes from @src to @dst. */
#define SIMGPU_JOB_COPY		2
/** 32-bit words: @dst[i] = @src[i] + @src2[i]; @len bytes. */
#define SIMGPU_JOB_ADD_U32	3
/** The same for single precision. */
#define SIMGPU_JOB_ADD_F32	4
/** Every 8-byte word of @dst += @arg, atomically; @len bytes. */
#define SIMGPU_JOB_ATOMIC_ADD	5
/** The 8-byte word at @dst += @arg, atomically, @len times. */
#define SIMGPU_JOB_ATOMIC_COUNT	6
/** Result: the sum of the 8-byte words of @src; @len bytes. */
#define SIMGPU_JOB_REDUCE	7
/** Result: a checksum of the 8-byte words of @src; @len bytes. */
#define SIMGPU_JOB_CHECKSUM	8
/** Result: the sum of @len 8-byte words, @stride bytes apart, from @src on. */
#define SIMGPU_JOB_STRIDED_READ	9
/** Follows @len pointers from @src on, or up to NULL; result: the last. */
#define SIMGPU_JOB_CHASE	10

/** Write the result to the 8-byte word at @dst, too. */
#define SIMGPU_SUBMIT_STORE	(1 << 0)

/** How many queues there are. Those of one queue run in order. */
#define SIMGPU_QUEUES		4

/**
 * struct drm_simgpu_submit - Give the GPU a job.
 *
 * Addresses are the process's own; what is there need not be anywhere in
 * particular. Returns at once. simgpu/device/REGISTERS.md has the ops in detail.
 *
 * Errors: -EINVAL, there is no such op or queue; -ENOENT, there is no such
 * address space in this file; -EPERM, it is that of another process; -EAGAIN, the
 * queue is full, or too many jobs were not waited for.
 */
struct drm_simgpu_submit {
	/** @vm_id: The address space. */
	__u32 vm_id;
	/** @queue: 0 .. SIMGPU_QUEUES - 1. */
	__u32 queue;
	/** @op: One of SIMGPU_JOB_*. */
	__u32 op;
	/** @flags: SIMGPU_SUBMIT_*. */
	__u32 flags;
	/** @src: Address. */
	__u64 src;
	/** @src2: Address. */
	__u64 src2;
	/** @dst: Address. */
	__u64 dst;
	/** @len: Bytes, or a count. */
	__u64 len;
	/** @arg: A value. */
	__u64 arg;
	/** @stride: Bytes. */
	__u64 stride;
	/** @job: Out: the job's number, for this file. */
	__u64 job;
};

/** Wait for ever. */
#define SIMGPU_WAIT_FOREVER	0xffffffffU

/**
 * struct drm_simgpu_wait - Wait for a job.
 *
 * After success the job's number is not valid any more.
 *
 * Errors: -ENOENT, there is no such job in this file; -ETIME, it has not ended
 * yet; -EINTR, a signal is pending. What became of the job is in @error.
 */
struct drm_simgpu_wait {
	/** @job: The job's number. */
	__u64 job;
	/** @timeout_ms: For how many milliseconds. */
	__u32 timeout_ms;
	/** @flags: Must be 0. */
	__u32 flags;
	/**
	 * @error: Out: 0; or -EFAULT, the process can't use @fault_address in
	 * this way, or it was lost with another device; -EINVAL, a length or
	 * address is none that the op can have; -ECANCELED, the address space
	 * was destroyed; -EIO, the device failed, or was reset; -ENODEV, it is
	 * gone, in whatever way.
	 */
	__s32 error;
	/** @fault_access: Out: 0 for reading, 1 for writing, 2 for an atomic. */
	__u32 fault_access;
	/** @fault_address: Out: the first address that could not be used, or 0. */
	__u64 fault_address;
	/** @done: Out: how much of the length was done. */
	__u64 done;
	/** @result: Out: the result of an op that has one. */
	__u64 result;
};

/** What nobody said anything about: as SIMGPU_PREFER_VRAM. */
#define SIMGPU_PREFER_DEFAULT	0
/** Pages that the GPU uses go to its VRAM. */
#define SIMGPU_PREFER_VRAM	1
/** They go to RAM, or stay there, where the GPU uses them. */
#define SIMGPU_PREFER_RAM	2
/**
 * They stay where they are, and the GPU uses them there: in RAM, in its VRAM, or,
 * over the link, in the VRAM of another device that it has a link to.
 */
#define SIMGPU_PREFER_STAY	3

/** Pages that the GPU only reads stay where they are. */
#define SIMGPU_ADVISE_READ_MOSTLY	(1 << 0)

/**
 * struct drm_simgpu_advise - Say how the GPU will use a range.
 *
 * It is advice for addresses, mapped or not, and replaces what was said before.
 * Nothing moves before the GPU uses it the next time. What is not private anonymous memory never moves.
 *
 * Errors: as of DRM_SIMGPU_SUBMIT for @vm_id; -EINVAL; -ENOMEM.
 */
struct drm_simgpu_advise {
	/** @start: First byte. */
	__u64 start;
	/** @size: Length in bytes. */
	__u64 size;
	/** @vm_id: The address space. */
	__u32 vm_id;
	/** @flags: SIMGPU_ADVISE_*. */
	__u32 flags;
	/** @prefer: One of SIMGPU_PREFER_*. */
	__u32 prefer;
	/**
	 * @timeslice_ms: For how many milliseconds pages that went to VRAM stay
	 * there, whatever the CPU does. At most 10000.
	 */
	__u32 timeslice_ms;
};

/**
 * struct drm_simgpu_prefetch - Move a range before it is used.
 *
 * Best effort: pages that can't be moved, or for which there is no room, stay.
 *
 * Errors: as of DRM_SIMGPU_SUBMIT for @vm_id; -EINVAL, @place is none of the
 * two; -EFAULT or -EPERM, a part of the range is not mapped or not readable;
 * -EINTR; -EBUSY, to RAM only: some page could not be moved.
 */
struct drm_simgpu_prefetch {
	/** @start: First byte. */
	__u64 start;
	/** @size: Length in bytes. */
	__u64 size;
	/** @vm_id: The address space. */
	__u32 vm_id;
	/** @place: SIMGPU_PLACE_RAM or SIMGPU_PLACE_VRAM. */
	__u32 place;
	/** @flags: Must be 0. */
	__u32 flags;
	/** @pad: Must be 0. */
	__u32 pad;
};

/**
 * struct drm_simgpu_counters - What the compute side has done.
 *
 * Of all processes. What the device itself counts begins anew when it is reset.
 */
struct drm_simgpu_counters {
	/** @gpu_faults: Page faults of jobs that were served. */
	__u64 gpu_faults;
	/** @cancelled: Those that could not be, so the job failed. */
	__u64 cancelled;
	/** @invalidations: Ranges that the device was made to forget. */
	__u64 invalidations;
	/** @small_leaves: Entries of 4 KiB that were written. */
	__u64 small_leaves;
	/** @huge_leaves: Entries of 2 MiB that were written. */
	__u64 huge_leaves;
	/** @tlb_hits: Of the device: accesses whose page it knew. */
	__u64 tlb_hits;
	/** @tlb_misses: Of the device: those for which it had to look. */
	__u64 tlb_misses;
	/** @atomic_faults: Of the device: faults of atomics. */
	__u64 atomic_faults;
	/** @job_bytes: Of the device: bytes that jobs read and wrote. */
	__u64 job_bytes;
	/** @peer_bytes: Of the device: bytes of peers' VRAM. */
	__u64 peer_bytes;
	/** @jobs_done: Of the device: jobs that ended well. */
	__u64 jobs_done;
	/** @jobs_failed: Of the device: jobs that failed. */
	__u64 jobs_failed;
	/** @flags: Must be 0. */
	__u32 flags;
	/** @pad: Must be 0. */
	__u32 pad;
};

#define DRM_IOCTL_SIMGPU_INFO \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_SIMGPU_INFO, struct drm_simgpu_info)
#define DRM_IOCTL_SIMGPU_POPULATE \
	DRM_IOW(DRM_COMMAND_BASE + DRM_SIMGPU_POPULATE, struct drm_simgpu_populate)
#define DRM_IOCTL_SIMGPU_EVICT \
	DRM_IOW(DRM_COMMAND_BASE + DRM_SIMGPU_EVICT, struct drm_simgpu_evict)
#define DRM_IOCTL_SIMGPU_VRAM_OP \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_SIMGPU_VRAM_OP, struct drm_simgpu_vram_op)
#define DRM_IOCTL_SIMGPU_RESIDENCY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_SIMGPU_RESIDENCY, struct drm_simgpu_residency)
#define DRM_IOCTL_SIMGPU_INJECT \
	DRM_IOW(DRM_COMMAND_BASE + DRM_SIMGPU_INJECT, struct drm_simgpu_inject)
#define DRM_IOCTL_SIMGPU_VM_CREATE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_SIMGPU_VM_CREATE, struct drm_simgpu_vm_create)
#define DRM_IOCTL_SIMGPU_VM_DESTROY \
	DRM_IOW(DRM_COMMAND_BASE + DRM_SIMGPU_VM_DESTROY, struct drm_simgpu_vm_destroy)
#define DRM_IOCTL_SIMGPU_SUBMIT \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_SIMGPU_SUBMIT, struct drm_simgpu_submit)
#define DRM_IOCTL_SIMGPU_WAIT \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_SIMGPU_WAIT, struct drm_simgpu_wait)
#define DRM_IOCTL_SIMGPU_ADVISE \
	DRM_IOW(DRM_COMMAND_BASE + DRM_SIMGPU_ADVISE, struct drm_simgpu_advise)
#define DRM_IOCTL_SIMGPU_PREFETCH \
	DRM_IOW(DRM_COMMAND_BASE + DRM_SIMGPU_PREFETCH, struct drm_simgpu_prefetch)
#define DRM_IOCTL_SIMGPU_COUNTERS \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_SIMGPU_COUNTERS, struct drm_simgpu_counters)

#if defined(__cplusplus)
}
#endif

#endif /* _UAPI_SIMGPU_DRM_H_ */
