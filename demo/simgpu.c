// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "simgpu.h"

#define DRI_DIR		"/dev/dri"
#define RENDER_PREFIX	"renderD"
#define DRIVER_NAME	"simgpu"

/* "Try again", but not for ever: up to about two seconds. */
#define MAX_TRIES	100
#define TRY_AGAIN_MS	20

static int is_simgpu(int fd)
{
	char name[32] = "";
	struct drm_version version = { .name = name, .name_len = sizeof(name) - 1 };

	return !simgpu_ioctl(fd, DRM_IOCTL_VERSION, &version) && !strcmp(name, DRIVER_NAME);
}

int simgpu_open(char *path, size_t len)
{
	struct dirent *entry;
	char node[300];
	int found = -ENODEV;
	DIR *dir = opendir(DRI_DIR);

	if (!dir)
		return -ENODEV;
	while (found < 0 && (entry = readdir(dir))) {
		int fd;

		if (strncmp(entry->d_name, RENDER_PREFIX, strlen(RENDER_PREFIX)))
			continue;
		snprintf(node, sizeof(node), DRI_DIR "/%s", entry->d_name);
		fd = open(node, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (is_simgpu(fd))
			found = fd;
		else
			close(fd);
	}
	closedir(dir);
	if (found >= 0 && path)
		snprintf(path, len, "%s", node);
	return found;
}

int simgpu_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

int simgpu_info(int fd, struct drm_simgpu_info *info)
{
	memset(info, 0, sizeof(*info));
	return simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_INFO, info);
}

static int try_again(int fd, unsigned long request, void *arg)
{
	int err;

	for (int i = 0; i < MAX_TRIES; i++) {
		err = simgpu_ioctl(fd, request, arg);
		if (err != -EBUSY && err != -EINTR)
			break;
		if (err == -EBUSY)
			sleep_ms(TRY_AGAIN_MS);
	}
	return err;
}

static struct drm_simgpu_populate populate_args(void *start, size_t size,
						unsigned int timeslice_ms)
{
	return (struct drm_simgpu_populate) {
		.start = (uintptr_t)start,
		.size = size,
		.timeslice_ms = timeslice_ms,
	};
}

int simgpu_populate(int fd, void *start, size_t size, unsigned int timeslice_ms)
{
	struct drm_simgpu_populate args = populate_args(start, size, timeslice_ms);

	return try_again(fd, DRM_IOCTL_SIMGPU_POPULATE, &args);
}

int simgpu_populate_once(int fd, void *start, size_t size, unsigned int timeslice_ms)
{
	struct drm_simgpu_populate args = populate_args(start, size, timeslice_ms);

	return simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_POPULATE, &args);
}

int simgpu_evict(int fd, void *start, size_t size)
{
	struct drm_simgpu_evict args = { .start = (uintptr_t)start, .size = size };

	return try_again(fd, DRM_IOCTL_SIMGPU_EVICT, &args);
}

int simgpu_evict_once(int fd, void *start, size_t size)
{
	struct drm_simgpu_evict args = { .start = (uintptr_t)start, .size = size };

	return simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_EVICT, &args);
}

static int vram_op(int fd, unsigned int op, void *start, size_t size, uint64_t *value)
{
	struct drm_simgpu_vram_op args = {
		.start = (uintptr_t)start,
		.size = size,
		.op = op,
		.value = *value,
	};
	int err = simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_VRAM_OP, &args);

	*value = args.value;
	return err;
}

int simgpu_fill(int fd, void *start, size_t size, uint64_t value)
{
	return vram_op(fd, SIMGPU_OP_FILL, start, size, &value);
}

int simgpu_xor(int fd, void *start, size_t size, uint64_t value)
{
	return vram_op(fd, SIMGPU_OP_XOR, start, size, &value);
}

int simgpu_checksum(int fd, void *start, size_t size, uint64_t *sum)
{
	*sum = 0;
	return vram_op(fd, SIMGPU_OP_CHECKSUM, start, size, sum);
}

int simgpu_residency(int fd, void *start, size_t size, unsigned char *map,
		     uint64_t counts[SIMGPU_PLACES])
{
	struct drm_simgpu_residency args = {
		.start = (uintptr_t)start,
		.size = size,
		.map_ptr = (uintptr_t)map,
	};
	int err = simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_RESIDENCY, &args);

	for (int place = 0; place < SIMGPU_PLACES; place++)
		counts[place] = args.counts[place];
	return err;
}

int simgpu_inject(int fd, unsigned int what, unsigned int count, unsigned int delay_us)
{
	struct drm_simgpu_inject args = {
		.what = what,
		.count = count,
		.delay_us = delay_us,
	};

	return simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_INJECT, &args);
}
