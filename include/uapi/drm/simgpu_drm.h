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
 * -ENOMEM. On error a leading part of the range may already be in VRAM;
 * contents are never changed. -EINTR, a signal is pending.
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
/** The page is elsewhere: swapped out, or being migrated right now. */
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

/**
 * struct drm_simgpu_inject - Make the device misbehave, for tests.
 *
 * Needs CAP_SYS_ADMIN, else -EACCES. A @count of 0 ends the misbehaviour.
 */
struct drm_simgpu_inject {
	/** @what: One of SIMGPU_INJECT_*. */
	__u32 what;
	/** @count: How many descriptors it shall hit. */
	__u32 count;
	/** @delay_us: Microseconds, for SIMGPU_INJECT_DELAY; else 0. */
	__u32 delay_us;
	/** @flags: Must be 0. */
	__u32 flags;
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

#if defined(__cplusplus)
}
#endif

#endif /* _UAPI_SIMGPU_DRM_H_ */
