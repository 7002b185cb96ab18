/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Carries out one scenario.
 */
#ifndef SCENARIO_H
#define SCENARIO_H

#include "area.h"
#include "dimensions.h"

/* What one task of a scenario works on. */
struct job {
	const struct scenario *scenario;
	struct area area;
	uint64_t random;	/* State of random_below(). */
	bool alone;		/* No other thread maps anything. */
};

/* A random part of the area, in whole pages, not empty. */
struct part {
	size_t offset, len;
};

struct part job_part(struct job *job);
/* The third in the middle. */
struct part job_middle(const struct job *job);
uint64_t job_value(struct job *job);

/* The GPU and the CPU use the memory as the scenario says. */
void job_access(struct job *job);
/* What else happens between two steps of a scenario. */
void job_pressure(struct job *job);

/* lives.c: what becomes of the mapping; forks.c: other processes. */
void job_live(struct job *job);
void job_fork(struct job *job);

/* All of it. Fails the test if a single byte is wrong. */
void scenario_run(const struct scenario *scenario, uint64_t seed);

/* What "exec" executes this very program with. */
#define EXEC_ARGUMENT "--nothing"

#endif /* SCENARIO_H */
