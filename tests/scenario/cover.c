// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <string.h>

#include "cover.h"
#include "workload.h"

/* Of so many random scenarios, the one that adds most is taken. */
#define CANDIDATES 24

/* All values of all dimensions have a number of their own. */
#define VALUES (DIMENSIONS * MAX_VALUES)

static unsigned int number(const struct scenario *scenario, int dimension)
{
	return dimension * MAX_VALUES + scenario->value[dimension];
}

struct seen {
	bool pairs[VALUES][VALUES];
	bool triples[VALUES][VALUES][VALUES];
	struct coverage coverage;
};

/* What @scenario has that was not seen before: pairs count much more. With @mark, it is seen now. */
static unsigned int news(struct seen *seen, const struct scenario *scenario, bool mark)
{
	unsigned int pairs = 0, triples = 0;

	for (int a = 0; a < DIMENSIONS; a++) {
		for (int b = a + 1; b < DIMENSIONS; b++) {
			bool *pair = &seen->pairs[number(scenario, a)][number(scenario, b)];

			pairs += !*pair;
			*pair |= mark;
			for (int c = b + 1; c < DIMENSIONS; c++) {
				bool *triple = &seen->triples[number(scenario, a)]
							     [number(scenario, b)]
							     [number(scenario, c)];

				triples += !*triple;
				*triple |= mark;
			}
		}
	}
	if (mark) {
		seen->coverage.pairs += pairs;
		seen->coverage.triples += triples;
	}
	return pairs * 1000 + triples;
}

static void count_all(struct coverage *coverage)
{
	for (int a = 0; a < DIMENSIONS; a++)
		for (int b = a + 1; b < DIMENSIONS; b++) {
			unsigned int pairs = dimension_count(a) * dimension_count(b);

			coverage->all_pairs += pairs;
			for (int c = b + 1; c < DIMENSIONS; c++)
				coverage->all_triples += pairs * dimension_count(c);
		}
}

/* Put a pair into @scenario that was not seen yet, if there is one. */
static void put_new_pair(const struct seen *seen, struct scenario *scenario)
{
	for (int a = 0; a < DIMENSIONS; a++)
		for (int b = a + 1; b < DIMENSIONS; b++)
			for (unsigned int i = 0; i < dimension_count(a); i++)
				for (unsigned int j = 0; j < dimension_count(b); j++) {
					if (seen->pairs[a * MAX_VALUES + i][b * MAX_VALUES + j])
						continue;
					scenario->value[a] = i;
					scenario->value[b] = j;
					return;
				}
}

struct coverage cover(struct scenario *list, unsigned int count, uint64_t seed)
{
	static struct seen seen;

	memset(&seen, 0, sizeof(seen));
	count_all(&seen.coverage);
	for (unsigned int i = 0; i < count; i++) {
		unsigned int best = 0;

		for (int candidate = 0; candidate < CANDIDATES; candidate++) {
			struct scenario scenario;
			unsigned int worth;

			for (int d = 0; d < DIMENSIONS; d++)
				scenario.value[d] = random_below(&seed, dimension_count(d));
			put_new_pair(&seen, &scenario);
			worth = news(&seen, &scenario, false);
			if (candidate && worth <= best)
				continue;
			best = worth;
			list[i] = scenario;
		}
		news(&seen, &list[i], true);
	}
	return seen.coverage;
}
