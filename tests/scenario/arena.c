// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "area.h"
#include "arena.h"
#include "ktap.h"
#include "workload.h"

void arena_init(struct arena *arena, uint64_t seed)
{
	*arena = (struct arena){ .seed = seed, .random = seed };
	arena->mem = reserve(ARENA_SIZE, 0);
	arena->shadow = calloc(1, ARENA_SIZE);
	check(arena->shadow && !mprotect(arena->mem, ARENA_SIZE, PROT_READ | PROT_WRITE),
	      "no memory for an arena");
	for (size_t page = 0; page < ARENA_PAGES; page++)
		arena->pages[page] = (struct page_state){
			.mapped = true,
			.protection = PROT_READ | PROT_WRITE,
		};
}

void arena_free(struct arena *arena)
{
	munmap(arena->mem, ARENA_SIZE);
	free(arena->shadow);
}

struct span arena_span(struct arena *arena)
{
	static const unsigned int limits[] = {
		1, 1, 2, 4, 4, 8, 8, 16, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256, 512,
		ARENA_PAGES,
	};
	unsigned int limit = limits[random_below(&arena->random,
						 sizeof(limits) / sizeof(*limits))];
	struct span span = { .count = 1 + random_below(&arena->random, limit) };

	span.first = random_below(&arena->random, ARENA_PAGES - span.count + 1);
	/* A huge page needs all of it. */
	if (limit == 512)
		span = (struct span){ span.first / 512 * 512, 512 };
	return span;
}

struct span arena_usable(const struct arena *arena, struct span span, int protection)
{
	struct span usable = { span.first, 0 };

	for (size_t i = 0; i < span.count; i++) {
		const struct page_state *page = &arena->pages[span.first + i];

		if (page->mapped && (page->protection & protection) == protection) {
			if (!usable.count++)
				usable.first = span.first + i;
		} else if (usable.count) {
			break;
		}
	}
	return usable;
}

void arena_fail(const struct arena *arena, const char *format, ...)
{
	char text[200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fail("seed %" PRIu64 ", operation %lu: %s", arena->seed, arena->operations, text);
}

void arena_compare(const struct arena *arena, struct span span, const unsigned char *got,
		   const char *how)
{
	const unsigned char *expected = arena_shadow(arena, span.first);
	size_t len = span.count * PAGE, bad = 0;

	if (!memcmp(got, expected, len))
		return;
	while (bad < len - 1 && got[bad] == expected[bad])
		bad++;
	arena_fail(arena, "%s found wrong data in page %zu, byte 0x%zx: %02x, expected %02x", how,
		   span.first + bad / PAGE, bad % PAGE, got[bad], expected[bad]);
}

void arena_verify(const struct arena *arena, struct span span, const char *how)
{
	size_t end = span.first + span.count;

	for (;;) {
		struct span part = arena_usable(arena, span, PROT_READ);

		if (!part.count)
			return;
		arena_compare(arena, part, arena_at(arena, part.first), how);
		span.first = part.first + part.count;
		span.count = end - span.first;
	}
}
