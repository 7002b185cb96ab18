// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "residency.h"

#define COLUMNS	64
#define ROWS	4

/* Bits of a /proc/self/pagemap entry. Pages in VRAM are shown as swapped. */
#define PAGEMAP_PRESENT	(UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED	(UINT64_C(1) << 62)

static const struct look {
	char all, most;		/* A cell of such pages only, and one of mostly these. */
	const char *colour;	/* Terminal background. */
	const char *name;
} looks[SIMGPU_PLACES] = {
	[SIMGPU_PLACE_NONE] = { '.', ',', "100", "not present" },
	[SIMGPU_PLACE_RAM] = { 'R', 'r', "44", "RAM" },
	[SIMGPU_PLACE_VRAM] = { 'V', 'v', "42", "VRAM" },
	[SIMGPU_PLACE_OTHER] = { '?', '?', "41", "other" },
};

static const char *check_map(const struct residency *res)
{
	uint64_t counts[SIMGPU_PLACES] = { 0 };

	for (size_t i = 0; i < res->pages; i++) {
		if (res->map[i] >= SIMGPU_PLACES)
			return "the driver's residency map holds an unknown value";
		counts[res->map[i]]++;
	}
	if (memcmp(counts, res->counts, sizeof(counts)))
		return "the driver's residency map and its page counts differ";
	return NULL;
}

static void read_pagemap(struct residency *res, uintptr_t start, long page_size)
{
	uint64_t entries[512];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	for (size_t done = 0; fd >= 0 && done < res->pages;) {
		size_t want = res->pages - done;
		ssize_t got;

		if (want > sizeof(entries) / sizeof(*entries))
			want = sizeof(entries) / sizeof(*entries);
		got = pread(fd, entries, want * sizeof(*entries),
			    (start / page_size + done) * sizeof(*entries));
		if (got <= 0 || got % sizeof(*entries))
			break;
		got /= sizeof(*entries);
		for (ssize_t i = 0; i < got; i++) {
			res->present += !!(entries[i] & PAGEMAP_PRESENT);
			res->swapped += !!(entries[i] & PAGEMAP_SWAPPED);
		}
		done += got;
		res->has_pagemap = done == res->pages;
	}
	if (fd >= 0)
		close(fd);
}

static const char *check_pagemap(const struct residency *res)
{
	if (!res->has_pagemap)
		return NULL;
	if (res->present != res->counts[SIMGPU_PLACE_RAM])
		return "the driver and /proc/self/pagemap disagree about the pages in RAM";
	if (res->swapped != res->counts[SIMGPU_PLACE_VRAM] + res->counts[SIMGPU_PLACE_OTHER])
		return "the driver and /proc/self/pagemap disagree about the pages in VRAM";
	return NULL;
}

const char *residency_read(struct residency *res, int fd, void *start, size_t size)
{
	long page_size = sysconf(_SC_PAGESIZE);
	const char *wrong;
	int err;

	*res = (struct residency){ .pages = size / page_size };
	res->map = malloc(res->pages);
	if (!res->map)
		return "there is no memory for the residency map";
	err = simgpu_residency(fd, start, size, res->map, res->counts);
	if (err) {
		static char sentence[100];

		snprintf(sentence, sizeof(sentence), "asking where the pages are failed: %s",
			 strerror(-err));
		return sentence;
	}
	read_pagemap(res, (uintptr_t)start, page_size);
	wrong = check_map(res);
	return wrong ? wrong : check_pagemap(res);
}

static void print_cell(const unsigned char *map, size_t pages, bool color)
{
	size_t counts[SIMGPU_PLACES] = { 0 };
	int most = 0;
	char mark;

	for (size_t i = 0; i < pages; i++)
		counts[map[i]]++;
	for (int place = 1; place < SIMGPU_PLACES; place++)
		if (counts[place] > counts[most])
			most = place;
	mark = counts[most] == pages ? looks[most].all : looks[most].most;
	if (!color)
		putchar(mark);
	else	/* A plain block; a mixed one shows its mark. */
		printf("\033[%sm%c", looks[most].colour, counts[most] == pages ? ' ' : mark);
}

static void print_map(const struct residency *res, bool color)
{
	size_t per_cell = (res->pages + COLUMNS * ROWS - 1) / (COLUMNS * ROWS);
	size_t done = 0;

	while (done < res->pages) {
		fputs("    ", stdout);
		for (int column = 0; column < COLUMNS && done < res->pages; column++) {
			size_t pages = res->pages - done;

			if (pages > per_cell)
				pages = per_cell;
			print_cell(res->map + done, pages, color);
			done += pages;
		}
		puts(color ? "\033[0m" : "");
	}

	fputs("    ", stdout);
	for (int place = 0; place < SIMGPU_PLACES; place++) {
		if (color)
			printf("\033[%sm \033[0m %s  ", looks[place].colour, looks[place].name);
		else
			printf("%c %s  ", looks[place].all, looks[place].name);
	}
	printf("(one cell: %zu page%s)\n", per_cell, per_cell == 1 ? "" : "s");
}

void residency_print(const struct residency *res, bool color)
{
	print_map(res, color);
	fputs("    pages:", stdout);
	for (int place = 0; place < SIMGPU_PLACES; place++)
		printf(" %" PRIu64 " %s%s", res->counts[place], looks[place].name,
		       place + 1 < SIMGPU_PLACES ? "," : "");
	if (res->has_pagemap)
		printf("; pagemap: %" PRIu64 " present, %" PRIu64 " swapped\n", res->present,
		       res->swapped);
	else
		puts("; no /proc/self/pagemap to compare with");
}

void residency_free(struct residency *res)
{
	free(res->map);
	res->map = NULL;
}
