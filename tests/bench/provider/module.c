// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What makes a module of the kernel's drm_pagemap.c and drm_pagemap_util.c, which are
 * part of a larger one in the kernel.
 */

#include <linux/module.h>

MODULE_DESCRIPTION("The kernel's drm_pagemap in C, for comparison");
MODULE_LICENSE("GPL");
