// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Scenarios of how a process can use its memory together with the GPU: a
 * selection of all that the dimensions make. Each is a test.
 *
 *   scenarios [--seed N] [--count N] [--scenario TEXT]... [NAME...]
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cover.h"
#include "ktap.h"
#include "scenario.h"

#define DEFAULT_SEED	1
#define DEFAULT_COUNT	320
#define MAX_COUNT	20000
#define SECONDS		60
#define USAGE_STATUS	2

static uint64_t seed = DEFAULT_SEED;
static struct scenario *scenarios;
static struct ktap_test *tests;
static unsigned int count;

/* A scenario's own randomness: the same when it is run by itself. */
static uint64_t seed_of(const char *text)
{
	uint64_t hash = seed;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
	return hash;
}

static void run(void)
{
	const struct ktap_test *test = ktap_test();

	scenario_run(&scenarios[test - tests], seed_of(test->name));
}

static void say_how_to_replay(const struct ktap_test *test)
{
	diag("to replay: make test PARTS=scenario SEED=%" PRIu64 " SCENARIO=%s", seed, test->name);
}

static void make_tests(void)
{
	tests = calloc(count, sizeof(*tests));
	if (!tests)
		exit(1);
	for (unsigned int i = 0; i < count; i++) {
		char text[SCENARIO_TEXT];

		scenario_text(&scenarios[i], text);
		tests[i] = (struct ktap_test){ strdup(text), run, SECONDS };
	}
}

static void select_scenarios(void)
{
	struct coverage coverage;

	scenarios = calloc(count, sizeof(*scenarios));
	if (!scenarios)
		exit(1);
	coverage = cover(scenarios, count, seed);
	printf("# %u scenarios, seed %" PRIu64 ": %u of %u pairs of values, %u of %u triples\n",
	       count, seed, coverage.pairs, coverage.all_pairs, coverage.triples,
	       coverage.all_triples);
}

static void add_scenario(const char *text)
{
	scenarios = realloc(scenarios, (count + 1) * sizeof(*scenarios));
	if (!scenarios || !scenario_parse(&scenarios[count], text))
		exit(USAGE_STATUS);
	count++;
}

static unsigned long parse_number(const char *text, unsigned long max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (*end || end == text || value > max) {
		fprintf(stderr, "scenarios: \"%s\" is no number up to %lu\n", text, max);
		exit(USAGE_STATUS);
	}
	return value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "count", required_argument, NULL, 'c' },
		{ "scenario", required_argument, NULL, 'o' },
		{ }
	};
	unsigned int wanted = DEFAULT_COUNT;
	struct ktap_suite suite = { .after = gpu_access_after_test, .failed = say_how_to_replay };
	int option;

	if (argc == 2 && !strcmp(argv[1], EXEC_ARGUMENT))
		return 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (option) {
		case 's':
			seed = parse_number(optarg, -1UL);
			break;
		case 'c':
			wanted = parse_number(optarg, MAX_COUNT);
			break;
		case 'o':
			add_scenario(optarg);
			break;
		default:
			return USAGE_STATUS;
		}
	}
	if (!count) {
		count = wanted;
		select_scenarios();
	} else {
		printf("# seed %" PRIu64 "\n", seed);
	}
	make_tests();
	suite.tests = tests;
	suite.count = count;
	argv[optind - 1] = argv[0];
	return ktap_main(&suite, argc - optind + 1, argv + optind - 1);
}
