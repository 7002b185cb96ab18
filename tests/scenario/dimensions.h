/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The dimensions that scenarios are made of, and their names.
 *
 * In text, a scenario is one value of each dimension, in order, with slashes:
 * "mmap/hole/twice/after/none/threads/prefetch/vram/512k".
 */
#ifndef DIMENSIONS_H
#define DIMENSIONS_H

#include <stdbool.h>

enum dimension { ALLOC, LIFE, ACCESS, FORK, ADVICE, TASKS, PREFETCH, PRESSURE, SIZE, DIMENSIONS };

/* The kinds of ALLOC are enum kind (area.h). */
enum life { LIFE_FREE, LIFE_NEW, LIFE_RACE, LIFE_BUSY, LIFE_HOLE, LIFE_MREMAP, LIFE_DONTUNMAP };
enum access {
	ACCESS_ONCE, ACCESS_TWICE, ACCESS_MANY, ACCESS_STRIDE, ACCESS_GPU_CPU, ACCESS_CPU_GPU,
	ACCESS_FAULTS,
};
enum fork {
	FORK_NONE, FORK_READ, FORK_AFTER, FORK_WRITE, FORK_EXEC, FORK_ORPHAN,
};
enum advice { ADVICE_NONE, ADVICE_DONTNEED, ADVICE_FREE, ADVICE_COLD };
enum tasks { TASKS_ONE, TASKS_THREADS, TASKS_PROCESSES };
enum prefetch { PREFETCH_NONE, PREFETCH_ALL };
enum pressure { PRESSURE_NONE, PRESSURE_EVICT, PRESSURE_VRAM, PRESSURE_MEMCG };

#define MAX_VALUES 8
#define SCENARIO_TEXT 120

struct dimension_info {
	const char *name;
	const char *values[MAX_VALUES + 1];	/* Up to a NULL. */
};

extern const struct dimension_info dimensions[DIMENSIONS];

struct scenario {
	unsigned char value[DIMENSIONS];
};

unsigned int dimension_count(enum dimension dimension);

void scenario_text(const struct scenario *scenario, char text[SCENARIO_TEXT]);

/* Complains on stderr if @text is none. */
bool scenario_parse(struct scenario *scenario, const char *text);

#endif /* DIMENSIONS_H */
