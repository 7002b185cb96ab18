// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "pattern.h"

void pattern_fill(uint64_t *words, size_t count, uint64_t first, uint64_t seed)
{
	for (size_t i = 0; i < count; i++)
		words[i] = pattern_word(seed, first + i);
}

size_t pattern_check(const uint64_t *words, size_t count, uint64_t first, uint64_t seed,
		     uint64_t mask)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (words[i] != (pattern_word(seed, first + i) ^ mask))
			break;
	return i;
}

uint64_t pattern_sum(size_t count, uint64_t first, uint64_t seed, uint64_t mask)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += pattern_word(seed, first + i) ^ mask;
	return sum;
}
