/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The device under test, as the tests see it: calls that must succeed.
 */
#ifndef GPU_H
#define GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simgpu.h"

#define PAGE ((size_t)4096)

/* The process's file descriptor of the device, opened on first use. */
int gpu(void);

/* From now on it is this one, which is not closed. For guests with several. */
void gpu_use(int fd);

/* Close it, for tests that need nobody to have it open. */
void gpu_close(void);

struct drm_simgpu_info gpu_info(void);

/* Wait, a few seconds at the most, until @size bytes of VRAM are free. */
bool gpu_wait_for_free(uint64_t size);

/*
 * ...and fail the test unless all of it gets free. What it leaked is not held
 * against the tests that follow.
 */
void gpu_expect_all_free(void);

/* The suites' after-hook: no misbehaviour is left, and no VRAM is leaked. */
void gpu_after_test(void);

/* Make the device misbehave; gpu_behave() ends that. */
void gpu_inject(unsigned int what, unsigned int count, unsigned int delay_us);
void gpu_behave(void);

#endif /* GPU_H */
