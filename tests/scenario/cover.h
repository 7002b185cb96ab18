/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A selection of scenarios, random but for a seed, that has every pair of values
 * of two dimensions in it, and then as many triples as it can.
 */
#ifndef COVER_H
#define COVER_H

#include <stdint.h>

#include "dimensions.h"

struct coverage {
	unsigned int pairs, all_pairs;
	unsigned int triples, all_triples;
};

/* Fill @list with @count scenarios; says what they cover. */
struct coverage cover(struct scenario *list, unsigned int count, uint64_t seed);

#endif /* COVER_H */
