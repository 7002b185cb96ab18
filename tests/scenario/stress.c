// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Random operations on memory that CPU and GPU share, with a model that knows
 * every byte: by one thread, by threads of one process, by processes.
 *
 *   stress [--seconds N] [--seed N] [--operations N]
 *
 * The first test does the same every time for a seed; --operations ends it there.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "gpu_access.h"
#include "ktap.h"
#include "operations.h"
#include "pattern.h"
#include "procs.h"
#include "workload.h"

#define DEFAULT_SECONDS	9
#define DEFAULT_SEED	1
#define PROCESSES	3
#define THREADS		3
#define VERIFY_EACH	200
#define USAGE_STATUS	2

static uint64_t seed = DEFAULT_SEED;
static unsigned long seconds = DEFAULT_SECONDS, limit = -1UL;

/* What all that took part have done, in memory that all have. */
static struct totals {
	atomic_ulong operations, refused, gpu_bytes;
} *totals;

static void work(uint64_t own_seed, bool limited)
{
	const struct span all = { 0, ARENA_PAGES };
	uint64_t end = load_end(seconds) - seconds * 2000 * ktap_scale() / 3;
	struct arena *arena = malloc(sizeof(*arena));

	check(arena, "no memory");
	arena_init(arena, own_seed);
	while (now_ms() < end && !(limited && arena->operations >= limit)) {
		operate(arena);
		if (arena->operations % VERIFY_EACH == 0)
			arena_verify(arena, all, "the CPU");
	}
	arena_verify(arena, all, "the CPU");
	totals->operations += arena->operations;
	totals->refused += arena->refused;
	totals->gpu_bytes += arena->gpu_bytes;
	arena_free(arena);
	free(arena);
}

static void tell(const char *who)
{
	/* Mismatches end the test, and there is no such line. */
	diag("stress: %s, seed %" PRIu64 ": %lu operations, the GPU worked on %lu MiB, %lu times no room or pages in use, 0 mismatches",
	     who, seed, totals->operations, totals->gpu_bytes >> 20, totals->refused);
	check(totals->operations && totals->gpu_bytes, "nothing was done");
}

static void *thread_works(void *arg)
{
	work(pattern_word(seed, (uintptr_t)arg), false);
	return NULL;
}

static void process_works(void *arg)
{
	pthread_t threads[THREADS];

	gpu_close();
	gpu();	/* Opened once, for all threads. */
	for (uintptr_t i = 0; i < THREADS; i++) {
		int err = pthread_create(&threads[i], NULL, thread_works,
					 (void *)((uintptr_t)arg + i));

		check(!err, "pthread_create: %s", strerror(err));
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void prepare(void)
{
	totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	check(totals != MAP_FAILED, "mmap: %s", strerror(errno));
}

static void one_thread(void)
{
	prepare();
	work(seed, true);
	tell("one thread");
}

static void threads(void)
{
	prepare();
	process_works((void *)100);
	tell("threads");
}

static void processes(void)
{
	pid_t children[PROCESSES];

	prepare();
	for (uintptr_t i = 0; i < PROCESSES; i++)
		children[i] = start(process_works, (void *)(1000 + i * THREADS));
	for (int i = 0; i < PROCESSES; i++) {
		/* reap_ok() has less patience than this takes. */
		int status = reap(children[i], seconds + 60);

		check(!status, "a process ended with wait status 0x%x", status);
	}
	tell("processes");
}

static void say_how_to_replay(const struct ktap_test *test)
{
	diag("to replay: make stress SEED=%" PRIu64 " SECONDS=%lu (%s)", seed, seconds, test->name);
}

static unsigned long parse_number(const char *text, unsigned long max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (*end || end == text || value > max) {
		fprintf(stderr, "stress: \"%s\" is no number up to %lu\n", text, max);
		exit(USAGE_STATUS);
	}
	return value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 's' },
		{ "operations", required_argument, NULL, 'o' },
		{ }
	};
	static struct ktap_test tests[] = {
		{ "one_thread", one_thread, 0 },
		{ "threads", threads, 0 },
		{ "processes", processes, 0 },
	};
	const struct ktap_suite suite = {
		.tests = tests,
		.count = sizeof(tests) / sizeof(*tests),
		.after = gpu_access_after_test,
		.failed = say_how_to_replay,
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (option) {
		case 't':
			seconds = parse_number(optarg, 1000000);
			break;
		case 's':
			seed = parse_number(optarg, -1UL);
			break;
		case 'o':
			limit = parse_number(optarg, -1UL);
			break;
		default:
			return USAGE_STATUS;
		}
	}
	for (size_t i = 0; i < suite.count; i++)
		tests[i].seconds = seconds + 90;
	argv[optind - 1] = argv[0];
	return ktap_main(&suite, argc - optind + 1, argv + optind - 1);
}
