/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The simgpu driver's ioctls as functions.
 *
 * All return 0 or a negative errno. simgpu_populate() and simgpu_evict() try
 * again, a bounded number of times, where the UAPI says "try again"; the
 * _once variants do not.
 */
#ifndef SIMGPU_H
#define SIMGPU_H

#include <stddef.h>
#include <stdint.h>
#include <drm/simgpu_drm.h>

/* How many different SIMGPU_PLACE_* there are. */
#define SIMGPU_PLACES 4

/*
 * Open the first render node of the simgpu driver. Stores the node's path in
 * @path (if not NULL). Returns the file descriptor or -ENODEV.
 */
int simgpu_open(char *path, size_t len);

/* Any ioctl. */
int simgpu_ioctl(int fd, unsigned long request, void *arg);

int simgpu_info(int fd, struct drm_simgpu_info *info);
int simgpu_populate(int fd, void *start, size_t size, unsigned int timeslice_ms);
int simgpu_populate_once(int fd, void *start, size_t size, unsigned int timeslice_ms);
int simgpu_evict(int fd, void *start, size_t size);
int simgpu_evict_once(int fd, void *start, size_t size);
int simgpu_fill(int fd, void *start, size_t size, uint64_t value);
int simgpu_xor(int fd, void *start, size_t size, uint64_t value);
int simgpu_checksum(int fd, void *start, size_t size, uint64_t *sum);

/* @map: one SIMGPU_PLACE_* per page, or NULL. @counts: pages by place. */
int simgpu_residency(int fd, void *start, size_t size, unsigned char *map,
		     uint64_t counts[SIMGPU_PLACES]);

int simgpu_inject(int fd, unsigned int what, unsigned int count, unsigned int delay_us);

#endif /* SIMGPU_H */
