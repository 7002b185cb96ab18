/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Where the pages of a buffer are: asked of the GPU driver, cross-checked with
 * what the kernel says in /proc/self/pagemap, and drawn as a map.
 */
#ifndef DEMO_RESIDENCY_H
#define DEMO_RESIDENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simgpu.h"

struct residency {
	size_t pages;
	unsigned char *map;			/* One SIMGPU_PLACE_* per page. */
	uint64_t counts[SIMGPU_PLACES];		/* Pages by place. */
	bool has_pagemap;			/* Could pagemap be read? */
	uint64_t present, swapped;		/* Pages, by pagemap. */
};

/*
 * Take a snapshot. Returns NULL, or a sentence that says what is wrong: an
 * error, or two sources that contradict each other.
 */
const char *residency_read(struct residency *res, int fd, void *start, size_t size);

/* Print the map, its legend, and the counts. */
void residency_print(const struct residency *res, bool color);

void residency_free(struct residency *res);

#endif /* DEMO_RESIDENCY_H */
