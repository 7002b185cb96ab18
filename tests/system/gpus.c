// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "gpus.h"
#include "ktap.h"

#define DEVICES	"/sys/bus/pci/devices"
#define WAIT_MS	10000

static struct {
	int fd;
	uint32_t vm;
} gpus[MAX_GPUS] = { [0 ... MAX_GPUS - 1] = { .fd = -1 } };

/* In the order of their addresses, which is that of the host's numbers. */
static bool address_of(int number, char *address, size_t size)
{
	struct dirent **entries;
	bool found = false;
	int count = scandir(DEVICES, &entries, NULL, alphasort);

	check(count >= 0, DEVICES ": %s", strerror(errno));
	for (int i = 0; i < count; i++) {
		if (driver_is_for(entries[i]->d_name) && !number--) {
			snprintf(address, size, "%.63s", entries[i]->d_name);
			found = true;
		}
		free(entries[i]);
	}
	free(entries);
	return found;
}

struct binding gpus_binding(int number)
{
	struct binding binding = { .driver = "/sys/bus/pci/drivers/" DRIVER };

	check(address_of(number, binding.device, sizeof(binding.device)), "there is no GPU %d",
	      number);
	return binding;
}

/* Its render node, which may take a moment to appear. */
static int open_node(const char *address)
{
	uint64_t end = now_ms() + WAIT_MS * ktap_scale();
	int fd = -1;

	do {
		char path[400];
		struct dirent *entry;
		DIR *dir;

		snprintf(path, sizeof(path), DEVICES "/%s/drm", address);
		dir = opendir(path);
		while (dir && fd < 0 && (entry = readdir(dir))) {
			if (strncmp(entry->d_name, "renderD", 7))
				continue;
			snprintf(path, sizeof(path), "/dev/dri/%s", entry->d_name);
			fd = open(path, O_RDWR | O_CLOEXEC);
		}
		if (dir)
			closedir(dir);
		if (fd < 0)
			sleep_ms(10);
	} while (fd < 0 && now_ms() < end);
	return fd;
}

bool gpus_open(int number)
{
	struct drm_simgpu_vm_create args = {};
	struct drm_simgpu_info info;
	char address[64];

	if (!address_of(number, address, sizeof(address)))
		return false;
	gpus[number].fd = open_node(address);
	if (gpus[number].fd < 0)
		return false;
	if (simgpu_info(gpus[number].fd, &info) ||
	    simgpu_ioctl(gpus[number].fd, DRM_IOCTL_SIMGPU_VM_CREATE, &args)) {
		gpus_close(number);
		return false;
	}
	gpus[number].vm = args.vm_id;
	return true;
}

void gpus_open_all(int count)
{
	for (int number = 0; number < count; number++)
		check(gpus_open(number), "GPU %d can't be opened", number);
}

void gpus_close(int number)
{
	close(gpus[number].fd);
	gpus[number].fd = -1;
}

void gpus_use(int number)
{
	check(gpus[number].fd >= 0, "a bug of the test: GPU %d is not open", number);
	gpu_use(gpus[number].fd);
	vm_use(gpus[number].vm);
}

uint64_t gpus_number(int number, const char *key)
{
	char path[200], line[200], wanted[80];
	uint64_t value = 0;
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/debug/" DRIVER "-%s/device",
		 gpus_binding(number).device);
	snprintf(wanted, sizeof(wanted), DRIVER "-%s:", key);
	file = fopen(path, "re");
	check(file, "%s: %s", path, strerror(errno));
	while (!found && fgets(line, sizeof(line), file)) {
		found = !strncmp(line, wanted, strlen(wanted));
		if (found)
			value = strtoull(line + strlen(wanted), NULL, 0);
	}
	fclose(file);
	check(found, "there is no %s in %s", wanted, path);
	return value;
}
