// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The module's parameters: the policy for pagemaps of C drivers. They can be
 * changed at any time, and what they say holds for the next CPU fault. Readers
 * take each by itself, without a lock.
 */

#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "params.h"

static const char * const window_names[] = {
	[DRM_PAGEMAP_WINDOW_ALLOCATION] = "allocation",
	[DRM_PAGEMAP_WINDOW_PAGE] = "page",
	[DRM_PAGEMAP_WINDOW_ADAPTIVE] = "adaptive",
};

static int fault_window = DRM_PAGEMAP_WINDOW_ALLOCATION;

enum drm_pagemap_fault_window drm_pagemap_param_fault_window(void)
{
	return READ_ONCE(fault_window);
}

static int set_fault_window(const char *val, const struct kernel_param *kp)
{
	int window = sysfs_match_string(window_names, val);

	if (window < 0) {
		pr_err("drm_pagemap: fault_window is allocation, page or adaptive, not '%.*s'\n",
		       (int)strcspn(val, "\n"), val);
		return window;
	}
	WRITE_ONCE(fault_window, window);
	return 0;
}

static int get_fault_window(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", window_names[READ_ONCE(fault_window)]);
}

static const struct kernel_param_ops fault_window_ops = {
	.set = set_fault_window,
	.get = get_fault_window,
};

module_param_cb(fault_window, &fault_window_ops, NULL, 0644);
MODULE_PARM_DESC(fault_window,
		 "What a CPU fault brings home from C drivers' device memory: allocation (default), page or adaptive");
