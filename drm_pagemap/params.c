// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The module's parameters: the policy for pagemaps of C drivers. They can be
 * changed at any time, and what they say holds for the next CPU fault. Readers
 * take each by itself, without a lock.
 */

#include <linux/kernel.h>
#include <linux/kstrtox.h>
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

static struct drm_pagemap_params params = {
	.fault_window = DRM_PAGEMAP_WINDOW_ALLOCATION,
	.slice_wait = true,
};

/* How much of a value to show: not the newline, as sysfs gives it. */
static int shown(const char *val)
{
	return strcspn(val, "\n");
}

static int set_fault_window(const char *val, const struct kernel_param *kp)
{
	int window = sysfs_match_string(window_names, val);

	if (window < 0) {
		pr_err("drm_pagemap: fault_window is allocation, page or adaptive, not '%.*s'\n",
		       shown(val), val);
		return window;
	}
	WRITE_ONCE(params.fault_window, window);
	return 0;
}

static int get_fault_window(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", window_names[READ_ONCE(params.fault_window)]);
}

static const struct kernel_param_ops fault_window_ops = {
	.set = set_fault_window,
	.get = get_fault_window,
};

module_param_cb(fault_window, &fault_window_ops, NULL, 0644);
MODULE_PARM_DESC(fault_window,
		 "What a CPU fault brings home from C drivers' device memory: allocation (default), page or adaptive");

module_param_named(timeslice_sleep, params.slice_wait, bool, 0644);
MODULE_PARM_DESC(timeslice_sleep,
		 "Whether a CPU sleeps that wants a page within its time slice (default), instead of faulting again and again");

/* A number with limits. */
struct number {
	unsigned int value, min, max;
};

static int set_number(const char *val, const struct kernel_param *kp)
{
	struct number *number = kp->arg;
	unsigned int value;

	if (kstrtouint(val, 0, &value) || value < number->min || value > number->max) {
		pr_err("drm_pagemap: %s is a number from %u to %u, not '%.*s'\n", kp->name,
		       number->min, number->max, shown(val), val);
		return -EINVAL;
	}
	WRITE_ONCE(number->value, value);
	return 0;
}

static int get_number(char *buffer, const struct kernel_param *kp)
{
	struct number *number = kp->arg;

	return sysfs_emit(buffer, "%u\n", READ_ONCE(number->value));
}

static const struct kernel_param_ops number_ops = {
	.set = set_number,
	.get = get_number,
};

static struct number thrash_bounces = { .value = 3, .min = 1, .max = 1000 };
static struct number thrash_window_ms = { .value = 100, .min = 1, .max = 60000 };
static struct number thrash_pin_ms = { .value = 0, .min = 0, .max = 10000 };

module_param_cb(thrash_bounces, &number_ops, &thrash_bounces, 0644);
MODULE_PARM_DESC(thrash_bounces,
		 "So many bounces between C drivers' device memory and RAM are thrashing (default 3)");
module_param_cb(thrash_window_ms, &number_ops, &thrash_window_ms, 0644);
MODULE_PARM_DESC(thrash_window_ms,
		 "if none is later than this after the one before, in ms (default 100)");
module_param_cb(thrash_pin_ms, &number_ops, &thrash_pin_ms, 0644);
MODULE_PARM_DESC(thrash_pin_ms,
		 "For how long memory that thrashes stays where it is, in ms; 0 (default): nothing is watched");

void drm_pagemap_read_params(struct drm_pagemap_params *to)
{
	to->fault_window = READ_ONCE(params.fault_window);
	to->slice_wait = READ_ONCE(params.slice_wait);
	to->thrash_bounces = READ_ONCE(thrash_bounces.value);
	to->thrash_window_ms = READ_ONCE(thrash_window_ms.value);
	to->thrash_pin_ms = READ_ONCE(thrash_pin_ms.value);
}

enum drm_pagemap_fault_window drm_pagemap_read_fault_window(void)
{
	return READ_ONCE(params.fault_window);
}

unsigned int drm_pagemap_read_thrash_pin_ms(void)
{
	return READ_ONCE(thrash_pin_ms.value);
}
