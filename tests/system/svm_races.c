// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The address space changes while the GPU works in it: fork, munmap, mremap,
 * mprotect, madvise. What the GPU may not have any more it must not write to.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "procs.h"
#include "svm.h"
#include "workload.h"

#define AT(p)	((uintptr_t)(p))
#define SIZE	(4 * MB)
#define WORDS	(SIZE / 8)
#define SECONDS	2
/* What the GPU writes, and nobody else. */
#define GPU	0x6767676767676767
/* How many words a canary has. */
#define CANARY	(MB / 8)

static atomic_bool stop;

struct filler {
	pthread_t thread;
	unsigned int queue;
	uint64_t *words;
	unsigned long jobs, faults;
};

/* Fill the same addresses again and again, whatever is there. */
static void *fill(void *arg)
{
	struct filler *filler = arg;

	while (!stop) {
		struct drm_simgpu_wait outcome =
			job_outcome((job_t){ .op = SIMGPU_JOB_FILL, .queue = filler->queue,
					     .dst = AT(filler->words), .len = SIZE, .arg = GPU });

		check(!outcome.error || outcome.error == -EFAULT, "a job ended with %s",
		      error_name(outcome.error));
		filler->jobs++;
		filler->faults += !!outcome.error;
	}
	return NULL;
}

/* Memory that others give back comes here: it must not change by itself. */
static void canary(uint64_t *random)
{
	uint64_t *words = map_small(MB), value = random_below(random, 1 << 30);

	for (size_t i = 0; i < CANARY; i++)
		words[i] = value + i;
	usleep(500);
	for (size_t i = 0; i < CANARY; i++)
		check(words[i] == value + i, "word %zu of somebody else's memory became %" PRIx64, i,
		      words[i]);
	munmap(words, MB);
}

/* Do @change, which gets the words and a page of them, while two queues fill them. */
static void race(void (*change)(uint64_t *words, size_t page), bool may_fault)
{
	uint64_t *words = map_pages(SIZE), end = load_end(SECONDS), random = 7;
	struct filler fillers[2];
	unsigned int rounds = 0;
	unsigned long faults = 0;

	vm();
	for (unsigned int i = 0; i < 2; i++) {
		fillers[i] = (struct filler){ .queue = i, .words = words };
		check(!pthread_create(&fillers[i].thread, NULL, fill, &fillers[i]), "pthread_create");
	}
	while (now_ms() < end) {
		change(words, random_below(&random, SIZE / PAGE - 64));
		canary(&random);
		rounds++;
	}
	stop = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(fillers[i].thread, NULL);
		faults += fillers[i].faults;
		check(fillers[i].jobs, "queue %d did nothing", i);
	}
	diag("%u changes, %lu and %lu jobs, %lu of which ended with EFAULT", rounds, fillers[0].jobs,
	     fillers[1].jobs, faults);
	check(may_fault || !faults, "%lu jobs ended with EFAULT", faults);
	/* Nothing is left of the past. */
	check(mmap(words, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	      words, "mmap: %s", strerror(errno));
	for (size_t i = 0; i < WORDS; i += 64)
		check(!words[i], "new memory is not zero");
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE, .arg = 1 });
	for (size_t i = 0; i < WORDS; i++)
		check(words[i] == 1, "word %zu is wrong", i);
}

static void expect_gpus_or_zero(uint64_t *words, size_t n)
{
	for (size_t i = 0; i < n; i += 16)
		check(!words[i] || words[i] == GPU, "word %zu is %" PRIx64, i, words[i]);
}

static void unmap_and_map(uint64_t *words, size_t page)
{
	char *start = (char *)words + page * PAGE;

	check(!munmap(start, 64 * PAGE), "munmap: %s", strerror(errno));
	usleep(1000);
	check(mmap(start, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		   -1, 0) == start, "mmap: %s", strerror(errno));
	expect_gpus_or_zero((uint64_t *)start, 64 * PAGE / 8);
}

static void race_munmap(void)
{
	race(unmap_and_map, true);
}

/* What was moved away is not at the jobs' addresses any more: it stays as it is. */
static void move_away(uint64_t *words, size_t page)
{
	char *start = (char *)words + page * PAGE;
	uint64_t *moved = mremap(start, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
				 map_small(64 * PAGE));

	check(moved != MAP_FAILED, "mremap: %s", strerror(errno));
	for (size_t i = 0; i < 64 * PAGE / 8; i++)
		moved[i] = i;
	usleep(1000);
	for (size_t i = 0; i < 64 * PAGE / 8; i++)
		check(moved[i] == i, "word %zu that was moved away became %" PRIx64, i, moved[i]);
	check(mremap(moved, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, start) == start,
	      "mremap: %s", strerror(errno));
}

static void race_mremap(void)
{
	race(move_away, true);
}

/* As long as it can't be written to, it does not change. */
static void protect(uint64_t *words, size_t page)
{
	uint64_t *start = words + page * PAGE / 8;

	start[5] = 5;
	check(!mprotect(start, 64 * PAGE, PROT_READ), "mprotect: %s", strerror(errno));
	for (int i = 0; i < 3; i++) {
		uint64_t before = start[5];

		usleep(500);
		check(start[5] == before, "a read-only page changed from %" PRIx64 " to %" PRIx64, before,
		      start[5]);
	}
	check(!mprotect(start, 64 * PAGE, PROT_READ | PROT_WRITE), "mprotect: %s", strerror(errno));
}

static void race_mprotect(void)
{
	race(protect, true);
}

static void discard(uint64_t *words, size_t page)
{
	char *start = (char *)words + page * PAGE;

	check(!madvise(start, 64 * PAGE, MADV_DONTNEED), "madvise: %s", strerror(errno));
	expect_gpus_or_zero((uint64_t *)start, 64 * PAGE / 8);
}

static void race_discard(void)
{
	race(discard, false);
}

static void child_watches(void *arg)
{
	uint64_t *words = arg, sum = 0, again = 0;

	/* It is a copy: the parent's GPU does not write to it. */
	for (size_t i = 0; i < WORDS; i += 32)
		sum += words[i];
	usleep(2000);
	for (size_t i = 0; i < WORDS; i += 32)
		again += words[i];
	check(sum == again, "a child's memory changed");
	words[0] = 12345;
}

static void fork_once(uint64_t *words, size_t page)
{
	(void)page;
	words[1] = 1;
	reap_ok(start(child_watches, words));
	check(words[0] != 12345, "what a child wrote came to its parent");
}

static void race_fork(void)
{
	race(fork_once, false);
}

/* Adds that come exactly once, though pages are copied by forks and moved by the CPU. */
static void fork_and_count(void)
{
	uint64_t *words = map_pages(SIZE);
	int jobs = 12;

	vm();
	memset(words, 0, SIZE);
	for (int i = 0; i < jobs; i++) {
		uint64_t job = job_submit((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words),
						   .len = SIZE, .arg = 1 });

		reap_ok(start(child_watches, words));
		check(!job_wait(job).error, "a job failed");
	}
	for (size_t i = 0; i < WORDS; i++)
		check(words[i] == (uint64_t)jobs, "word %zu is %" PRIu64 ", expected %d", i, words[i],
		      jobs);
}

static const struct ktap_test tests[] = {
	{ "race_munmap", race_munmap, 30 },
	{ "race_mremap", race_mremap, 30 },
	{ "race_mprotect", race_mprotect, 30 },
	{ "race_discard", race_discard, 30 },
	{ "race_fork", race_fork, 30 },
	{ "fork_and_count", fork_and_count, 30 },
};

KTAP_MAIN(tests, gpu_after_test)
