/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The module's parameters, for Rust: what they say now.
 */
#ifndef _DRM_PAGEMAP_PARAMS_H_
#define _DRM_PAGEMAP_PARAMS_H_

enum drm_pagemap_fault_window {
	DRM_PAGEMAP_WINDOW_ALLOCATION,
	DRM_PAGEMAP_WINDOW_PAGE,
	DRM_PAGEMAP_WINDOW_ADAPTIVE,
};

enum drm_pagemap_fault_window drm_pagemap_param_fault_window(void);

#endif
