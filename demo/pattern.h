/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Contents that give away any byte in the wrong place: each 64-bit word is a
 * hash of its index and a seed, optionally XORed with a mask as the GPU does.
 */
#ifndef SIMGPU_PATTERN_H
#define SIMGPU_PATTERN_H

#include <stddef.h>
#include <stdint.h>

/* The word at @index. */
static inline uint64_t pattern_word(uint64_t seed, uint64_t index)
{
	uint64_t x = seed + index * 0x9e3779b97f4a7c15;

	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93;
	return x ^ x >> 32;
}

/* Write @count words, the first of which has index @first. */
void pattern_fill(uint64_t *words, size_t count, uint64_t first, uint64_t seed);

/*
 * Compare @count words with the pattern XOR @mask. Returns how many leading
 * words are right: @count if all are.
 */
size_t pattern_check(const uint64_t *words, size_t count, uint64_t first, uint64_t seed,
		     uint64_t mask);

/* What the GPU's checksum of these words must be. */
uint64_t pattern_sum(size_t count, uint64_t first, uint64_t seed, uint64_t mask);

#endif /* SIMGPU_PATTERN_H */
