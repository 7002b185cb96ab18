/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The module's parameters, for Rust.
 */
#ifndef _DRM_PAGEMAP_PARAMS_H_
#define _DRM_PAGEMAP_PARAMS_H_

#include <linux/types.h>

enum drm_pagemap_fault_window {
	DRM_PAGEMAP_WINDOW_ALLOCATION,
	DRM_PAGEMAP_WINDOW_PAGE,
	DRM_PAGEMAP_WINDOW_ADAPTIVE,
};

struct drm_pagemap_params {
	enum drm_pagemap_fault_window fault_window;
	bool slice_wait;
	unsigned int thrash_bounces;
	unsigned int thrash_window_ms;
	unsigned int thrash_pin_ms;
};

/* What they say now, each by itself. */
void drm_pagemap_read_params(struct drm_pagemap_params *params);
enum drm_pagemap_fault_window drm_pagemap_read_fault_window(void);
unsigned int drm_pagemap_read_thrash_pin_ms(void);

#endif
