/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Loading, unloading, binding and unbinding the driver.
 *
 * Modules are loaded from $SIMGPU_MODULES (default /modules).
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <limits.h>
#include <stdbool.h>

#define DRIVER	"simgpu"	/* The modules' names... */
#define LIBRARY	"drm_pagemap"	/* ...and what the driver stands on. */

bool module_is_loaded(const char *name);

/* Skip the test unless @name is a loaded module that could be loaded again. */
void need_reloadable_module(const char *name);

/* Return 0 or a negative errno; do not wait. */
int module_load(const char *name);
int module_unload(const char *name);

/* Unload it; its last user may need some time to let go of it. */
void module_unload_soon(const char *name);

/* Where the device is in sysfs. */
struct binding {
	char device[64];	/* Its PCI address. */
	char driver[PATH_MAX];	/* Directory of the driver. */
};

/* Whether the PCI device at @address is one for the driver. */
bool driver_is_for(const char *address);

struct binding driver_binding(void);
void driver_unbind(const struct binding *binding);
void driver_bind(const struct binding *binding);

/* Have the PCI core reset the device; skips the test where it can't. */
void driver_reset_device(const struct binding *binding);

/* Bind the driver to every device that a failed test left without it. */
void driver_bind_all(void);

/* Wait until the device can be opened, and open it. */
void driver_wait_for_device(void);

#endif /* DRIVER_H */
