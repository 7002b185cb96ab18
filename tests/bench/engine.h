/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The copy engine of the emulated GPU, as the benchmark's driver uses it: one device, and
 * of it the copy ring alone. The contract is simgpu/device/REGISTERS.md.
 */
#ifndef _DRM_PAGEMAP_BENCH_ENGINE_H_
#define _DRM_PAGEMAP_BENCH_ENGINE_H_

#include <linux/types.h>

struct device;

/* As the device numbers them. */
enum engine_op {
	ENGINE_TO_VRAM = 1,	/* from a bus address to an offset of VRAM */
	ENGINE_FROM_VRAM = 2,	/* and back */
	ENGINE_VRAM = 3,	/* from offset to offset */
	ENGINE_CLEAR = 4,	/* an offset of VRAM; there is no source */
};

int engine_register(void);
void engine_unregister(void);

/* The device that copies, or NULL if there is none, and how many bytes of VRAM it has. */
struct device *engine_device(void);
u64 engine_vram_size(void);

/*
 * A batch: all of these may sleep, and none allocates memory. Between begin and end the
 * ring is the caller's. The end waits until the batch is done, while others begin theirs.
 */
void engine_begin(void);
int engine_push(enum engine_op op, u64 src, u64 dst, u64 len);
int engine_end(void);

/*
 * When the engine had work since engine_watch() was called: times of ktime_get_ns() when it got some
 * for the first time, 0 if it never did, and when it had none left; and for how long it had some. As
 * far as interrupts tell; both calls want nothing in flight.
 */
struct engine_times {
	u64 first, last, busy;
};

void engine_watch(void);
struct engine_times engine_watched(void);

#endif
