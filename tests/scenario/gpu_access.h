/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * How the GPU gets at a process's memory. All of it is here, so that the
 * scenarios need not know.
 *
 * Jobs use the process's own addresses. What can be moved goes to VRAM by that;
 * what can't, as the pages of files, is used where it is. A child after fork()
 * opens the device anew.
 */
#ifndef GPU_ACCESS_H
#define GPU_ACCESS_H

#include <stddef.h>
#include <stdint.h>

/* Atomics need memory that is private and anonymous. */
enum gpu_op { GPU_FILL, GPU_ADD, GPU_ATOMIC, GPU_SUM, GPU_OPS };

extern const char *const gpu_op_names[GPU_OPS];

/* What an op that writes makes of a 64-bit word. */
uint64_t gpu_result(enum gpu_op op, uint64_t word, uint64_t value);

/*
 * Let the GPU work on @len bytes (whole pages), wherever they are. @value: the
 * pattern, or receives the sum. Returns 0 or -EFAULT: some of it is not mapped,
 * or not for this. All else fails the test.
 */
int gpu_access(enum gpu_op op, void *mem, size_t len, uint64_t *value);

/* ...and says how many bytes were worked on, which for -EFAULT are those before the first that can't. */
int gpu_access_done(enum gpu_op op, void *mem, size_t len, uint64_t *value, size_t *done);

/* Bring it to VRAM before it is used there, as far as that is possible. 0 or a negative errno. */
int gpu_prefetch(void *mem, size_t len);

/*
 * For the end of a test: all VRAM must be free, but for what has to come home first. A fault of the
 * GPU brings what is around the address to VRAM, so pages of the heap, which a test shares with the
 * program that starts it, may have been left there.
 */
void gpu_access_after_test(void);

#endif /* GPU_ACCESS_H */
