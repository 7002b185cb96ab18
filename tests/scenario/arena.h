/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A stretch of addresses, and a model of it: of each page whether it is mapped
 * and how, of each byte what it must be. It belongs to one thread.
 */
#ifndef ARENA_H
#define ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu.h"

#define ARENA_PAGES	1024
#define ARENA_SIZE	(ARENA_PAGES * PAGE)

struct page_state {
	bool mapped, locked;
	int protection;		/* PROT_*. */
};

struct arena {
	unsigned char *mem;
	unsigned char *shadow;
	struct page_state pages[ARENA_PAGES];
	uint64_t seed;
	uint64_t random;	/* State of random_below(). */
	unsigned long operations;
	unsigned long refused;	/* Of the GPU: no room, or pages that are in use. */
	unsigned long gpu_bytes;
};

/* Pages from @first on. */
struct span {
	size_t first, count;
};

/* All mapped, never touched. */
void arena_init(struct arena *arena, uint64_t seed);
void arena_free(struct arena *arena);

static inline unsigned char *arena_at(const struct arena *arena, size_t page)
{
	return arena->mem + page * PAGE;
}

static inline unsigned char *arena_shadow(const struct arena *arena, size_t page)
{
	return arena->shadow + page * PAGE;
}

/* A random span: often small, sometimes large. */
struct span arena_span(struct arena *arena);

/* Of @span, the first pages that are all mapped, with all of @protection; maybe none. */
struct span arena_usable(const struct arena *arena, struct span span, int protection);

/* Compare what can be read. @how: what is compared, in words. */
void arena_verify(const struct arena *arena, struct span span, const char *how);
void arena_compare(const struct arena *arena, struct span span, const unsigned char *got,
		   const char *how);

/* The test fails, with all that it takes to do it again. */
[[noreturn, gnu::format(printf, 2, 3)]]
void arena_fail(const struct arena *arena, const char *format, ...);

#endif /* ARENA_H */
