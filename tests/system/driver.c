// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "clock.h"
#include "driver.h"
#include "gpu.h"
#include "ktap.h"

#define WAIT_MS 10000

bool module_is_loaded(const char *name)
{
	char line[512], loaded[65];
	FILE *modules = fopen("/proc/modules", "r");
	bool found = false;

	check(modules, "/proc/modules: %s", strerror(errno));
	while (!found && fgets(line, sizeof(line), modules))
		found = sscanf(line, "%64s", loaded) == 1 && !strcmp(loaded, name);
	fclose(modules);
	return found;
}

static void module_path(char *path, size_t size, const char *name)
{
	const char *dir = getenv("SIMGPU_MODULES");

	snprintf(path, size, "%s/%s.ko", dir ? dir : "/modules", name);
}

void need_reloadable_module(const char *name)
{
	char path[PATH_MAX];

	if (!module_is_loaded(name))
		skip("%s is not loaded as a module", name);
	module_path(path, sizeof(path), name);
	if (access(path, R_OK))
		skip("there is no %s to load again (SIMGPU_MODULES)", path);
}

int module_load(const char *name)
{
	char path[PATH_MAX];
	int file, err;

	module_path(path, sizeof(path), name);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -errno;
	err = syscall(SYS_finit_module, file, "", 0) ? -errno : 0;
	close(file);
	return err;
}

int module_unload(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? -errno : 0;
}

void module_unload_soon(const char *name)
{
	uint64_t end = now_ms() + WAIT_MS * ktap_scale();
	int err;

	while ((err = module_unload(name)) == -EAGAIN || err == -EBUSY) {
		check(now_ms() < end, "%s is still busy after %u ms", name,
		      WAIT_MS * ktap_scale());
		sleep_ms(20);
	}
	check(!err, "unloading %s gave %s", name, error_name(err));
}

/* How its modalias begins: vendor and device number. */
#define MODALIAS "pci:v00001B36d00005347"

bool driver_is_for(const char *address)
{
	char path[PATH_MAX], alias[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/modalias", address);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(alias, sizeof(alias), file))
		alias[0] = 0;
	fclose(file);
	return !strncmp(alias, MODALIAS, strlen(MODALIAS));
}

struct binding driver_binding(void)
{
	char path[128], real[PATH_MAX];
	struct binding binding;
	struct stat stat;

	check(!fstat(gpu(), &stat), "fstat: %s", strerror(errno));
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/device", major(stat.st_rdev),
		 minor(stat.st_rdev));
	check(realpath(path, real), "%s: %s", path, strerror(errno));
	snprintf(binding.device, sizeof(binding.device), "%s", strrchr(real, '/') + 1);
	strcat(path, "/driver");
	check(realpath(path, binding.driver), "%s: %s", path, strerror(errno));
	return binding;
}

static void write_attribute(const struct binding *binding, const char *attribute)
{
	size_t len = strlen(binding->device);
	char path[PATH_MAX + 16];
	ssize_t written;
	int file;

	snprintf(path, sizeof(path), "%s/%s", binding->driver, attribute);
	file = open(path, O_WRONLY | O_CLOEXEC);
	check(file >= 0, "%s: %s", path, strerror(errno));
	written = write(file, binding->device, len);
	check(written == (ssize_t)len, "writing %s to %s: %s", binding->device, path,
	      strerror(errno));
	close(file);
}

void driver_unbind(const struct binding *binding)
{
	write_attribute(binding, "unbind");
}

void driver_bind(const struct binding *binding)
{
	write_attribute(binding, "bind");
}

void driver_reset_device(const struct binding *binding)
{
	char path[128];
	int file;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", binding->device);
	file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0)
		skip("the device can't be reset: %s: %s (scripts/vm --slots)", path, strerror(errno));
	check(write(file, "1", 1) == 1, "%s: %s", path, strerror(errno));
	close(file);
}

void driver_bind_all(void)
{
	static const char devices[] = "/sys/bus/pci/devices";
	struct binding binding = { .driver = "/sys/bus/pci/drivers/" DRIVER };
	struct dirent *entry;
	DIR *dir = opendir(devices);

	check(dir, "%s: %s", devices, strerror(errno));
	while ((entry = readdir(dir))) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/%s/driver", devices, entry->d_name);
		if (!driver_is_for(entry->d_name) || !access(path, F_OK))
			continue;
		snprintf(binding.device, sizeof(binding.device), "%.63s", entry->d_name);
		driver_bind(&binding);
	}
	closedir(dir);
}

void driver_wait_for_device(void)
{
	uint64_t end = now_ms() + WAIT_MS * ktap_scale();
	int fd;

	while ((fd = simgpu_open(NULL, 0)) < 0 && now_ms() < end)
		sleep_ms(10);
	if (fd >= 0)
		close(fd);
	gpu_close();
	gpu();
}
