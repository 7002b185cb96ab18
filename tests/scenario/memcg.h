/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A memory cgroup around the caller.
 */
#ifndef MEMCG_H
#define MEMCG_H

#include <stddef.h>

/* Enter a new one that may have so many bytes. Skips the test where there are none. */
void memcg_enter(size_t limit);

/* Take as much from it as can be taken. */
void memcg_reclaim(void);

/*
 * Leave it, when all of its other processes are gone. Fails the test if it was ever out of memory,
 * or if more than a little is left that it has to pay for.
 */
void memcg_leave(void);

#endif /* MEMCG_H */
