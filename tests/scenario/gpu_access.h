/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * How the GPU gets at a process's memory. All of it is here, so that the
 * scenarios need not know.
 *
 * Today the GPU works on VRAM alone: an access of memory that is elsewhere
 * brings it there first, as the fault of a GPU would. All return 0 or a
 * negative errno.
 */
#ifndef GPU_ACCESS_H
#define GPU_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gpu_op { GPU_FILL, GPU_XOR, GPU_SUM };

/* At most so many bytes of an access are done or refused as a whole. */
#define GPU_PIECE ((size_t)1 << 20)

/* Whether the GPU can work on memory that is not private and anonymous. */
bool gpu_reaches_files(void);

/* What access and prefetch of memory that it can't reach give. */
#define GPU_UNREACHABLE (-EOPNOTSUPP)

/*
 * Let the GPU work on @len bytes (whole pages), wherever they are. @value: the
 * pattern, or receives the sum. -EFAULT: some of it is not mapped, or not for
 * this; GPU_UNREACHABLE.
 */
int gpu_access(enum gpu_op op, void *mem, size_t len, uint64_t *value);

/* ...only if it need not be brought anywhere for that; else -EFAULT. */
int gpu_access_resident(enum gpu_op op, void *mem, size_t len, uint64_t *value);

/* Bring it to VRAM before it is used there. */
int gpu_prefetch(void *mem, size_t len);

#endif /* GPU_ACCESS_H */
