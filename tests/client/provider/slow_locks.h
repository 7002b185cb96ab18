/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Included before the kernel's drm_pagemap_util.c: taking a spinlock takes longer when
 * the module's parameter lock_delay_us says so. A processor may be held up before a
 * lock for any time, by interrupts say, so nothing can happen that could not happen
 * without it; but a window of some instructions is open long enough to be hit.
 */
#ifndef _DRM_PAGEMAP_CLIENT_SLOW_LOCKS_H_
#define _DRM_PAGEMAP_CLIENT_SLOW_LOCKS_H_

#include <linux/delay.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>

extern unsigned int drm_pagemap_lock_delay_us;

static __always_inline void drm_pagemap_slow_lock(spinlock_t *lock)
{
	unsigned int us = READ_ONCE(drm_pagemap_lock_delay_us);

	mdelay(us / 1000);
	udelay(us % 1000);
	spin_lock(lock);
}

#define spin_lock(lock)	drm_pagemap_slow_lock(lock)

#endif
