/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef _DRM_PAGEMAP_PEEK_H_
#define _DRM_PAGEMAP_PEEK_H_

#include <linux/types.h>

struct dev_pagemap;
struct mm_struct;

/* What was seen of a range, in pages. */
struct drm_pagemap_peek {
	/* In the device memory that was asked for, and in any other. */
	unsigned long resident, elsewhere;
};

struct drm_pagemap_peek drm_pagemap_peek(struct mm_struct *mm, unsigned long start,
					 unsigned long end, const struct dev_pagemap *pgmap);
bool drm_pagemap_is_resident(struct mm_struct *mm, unsigned long start, unsigned long end,
			     const struct dev_pagemap *pgmap);

/* Addresses, in bytes; nothing if both are the same. */
struct drm_pagemap_peek_part {
	unsigned long start, end;
};

struct drm_pagemap_peek_part drm_pagemap_peek_written(struct mm_struct *mm, unsigned long start,
						      unsigned long end);

unsigned long drm_pagemap_peek_whole(struct mm_struct *mm, unsigned long start, unsigned long end);

#endif
