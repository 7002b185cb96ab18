/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Load: rounds of populate, GPU work, eviction and CPU access, each verified.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdint.h>

#include "buffer.h"

/* A small random number generator: a number below @limit. */
unsigned int random_below(uint64_t *state, unsigned int limit);

/* For how long a load of so many seconds (scaled) runs, as a time of now_ms(). */
uint64_t load_end(unsigned int seconds);

struct worker {
	struct buffer buf;	/* To be set up before anything else. */
	uint64_t random;	/* State of random_below(). */
	unsigned int xors;	/* How often the GPU worked on it or on a part. */
	unsigned int full;	/* How often VRAM was full. */
	uint64_t doubtful_xor;	/* A GPU XOR that failed half-way, or 0. */
};

/*
 * One round. Full VRAM and pages that others have evicted are nothing unusual.
 * Returns 0, or the error by which the device stopped it.
 */
int worker_round(struct worker *worker);

/* Rounds until @end, which must all succeed. */
void worker_run(struct worker *worker, uint64_t end);

/*
 * Rounds until the device is gone, which must happen within @seconds (scaled).
 * Returns -ENODEV or -EIO; any other error fails the test.
 */
int worker_run_until_gone(struct worker *worker, unsigned int seconds);

/*
 * Verify the buffer when the device has stopped the worker: of a doubtful XOR,
 * each page may have got it or not.
 */
void worker_verify(struct worker *worker);

#endif /* WORKLOAD_H */
