// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Atomic operations: nothing gets lost between queues, threads and processes.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "svm.h"

#define AT(p)		((uintptr_t)(p))
#define ROUNDS		20
#define TIMES		1000
#define CPU_TIMES	200
#define TRIES		10

struct counter {
	pthread_t thread;
	unsigned int queue;
	uint64_t *word;
};

static void *gpu_counts(void *arg)
{
	struct counter *counter = arg;

	for (int i = 0; i < ROUNDS; i++)
		job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_COUNT, .queue = counter->queue,
				 .dst = AT(counter->word), .len = TIMES, .arg = 1 });
	return NULL;
}

static void *cpu_counts(void *arg)
{
	struct counter *counter = arg;

	for (int i = 0; i < CPU_TIMES; i++) {
		__atomic_fetch_add(counter->word, 1, __ATOMIC_RELAXED);
		usleep(100);
	}
	return NULL;
}

/* All queues and two threads count with one word, wherever its page is. */
static void count(uint64_t *word)
{
	struct counter counters[SIMGPU_QUEUES + 2];
	uint64_t expected = SIMGPU_QUEUES * ROUNDS * TIMES + 2 * CPU_TIMES;

	vm();
	*word = 0;
	for (unsigned int i = 0; i < SIMGPU_QUEUES + 2; i++) {
		counters[i] = (struct counter){ .queue = i, .word = word };
		check(!pthread_create(&counters[i].thread, NULL,
				      i < SIMGPU_QUEUES ? gpu_counts : cpu_counts, &counters[i]),
		      "pthread_create");
	}
	for (int i = 0; i < SIMGPU_QUEUES + 2; i++)
		pthread_join(counters[i].thread, NULL);
	check(*word == expected, "counted to %" PRIu64 " of %" PRIu64, *word, expected);
}

static void in_vram(void)
{
	uint64_t *words = map_pages(2 * MB);

	count(words + 1000);
	/*
	 * Who has fought for it may keep it for 20 ms; and where it can't move just
	 * then, the GPU uses it where it is, until a CPU comes.
	 */
	for (int i = 0; i < TRIES; i++) {
		sleep_ms(200);
		job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_COUNT, .dst = AT(words + 1000), .len = 1 });
		if (count_places((char *)words + PAGE, PAGE, SIMGPU_PLACE_VRAM))
			break;
		(void)__atomic_load_n(words + 1000, __ATOMIC_RELAXED);
	}
	expect_place((char *)words + PAGE, PAGE, SIMGPU_PLACE_VRAM);
}

/* The GPU has the page for itself until a CPU touches it, though it is in RAM. */
static void in_ram(void)
{
	uint64_t *words = map_small(2 * MB);
	struct drm_simgpu_counters before;

	svm_advise(words, 2 * MB, SIMGPU_PREFER_RAM, 0);
	memset(words, 0, 2 * MB);
	count(words + 1000);
	check(!count_places(words, 2 * MB, SIMGPU_PLACE_VRAM), "some of it is in VRAM");
	/* What is there to be written to is asked for once more, for an atomic. */
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = PAGE });
	before = svm_counters();
	job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_COUNT, .dst = AT(words), .len = 1, .arg = 1 });
	check(words[0] == 1, "counted to %" PRIu64, words[0]);
	check(svm_counters().atomic_faults > before.atomic_faults, "no page was asked for an atomic");
	/* Words of many pages, some of them never touched. */
	madvise((char *)words + MB, MB, MADV_DONTNEED);
	job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words) + MB - 8 * PAGE,
			 .len = 16 * PAGE, .arg = 7 });
	for (size_t i = 0; i < 16 * PAGE / 8; i++)
		check(words[(MB - 8 * PAGE) / 8 + i] == 7, "word %zu is wrong", i);
}

/* No page of a file can be the GPU's alone; the job says so. */
static void in_a_file(void)
{
	int file = memfd_create("atomics", MFD_CLOEXEC);
	char *mem;

	check(file >= 0 && !ftruncate(file, MB), "memfd: %s", strerror(errno));
	mem = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	check(mem != MAP_FAILED, "mmap: %s", strerror(errno));
	memset(mem, 1, MB);
	job_expect_fault((job_t){ .op = SIMGPU_JOB_ATOMIC_COUNT, .dst = AT(mem) + 16, .len = 1 },
			 -EFAULT, mem + 16, 2);
}

/* Every word, from all queues at once. */
static void all_words(void)
{
	size_t size = 5 * MB;
	uint64_t *words = map_pages(size), jobs[SIMGPU_QUEUES * 4];

	for (int i = 0; i < SIMGPU_QUEUES * 4; i++)
		jobs[i] = job_submit((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .queue = i % SIMGPU_QUEUES,
					      .dst = AT(words), .len = size, .arg = 1 << i });
	for (int i = 0; i < SIMGPU_QUEUES * 4; i++) {
		check(!job_wait(jobs[i]).error, "a job failed");
		__atomic_fetch_add(words + i * 1000, 1 << 20, __ATOMIC_RELAXED);
	}
	for (size_t i = 0; i < size / 8; i++) {
		uint64_t expected = 0xffff + (!(i % 1000) && i < SIMGPU_QUEUES * 4000 ? 1 << 20 : 0);

		check(words[i] == expected, "word %zu is %" PRIx64 ", expected %" PRIx64, i, words[i],
		      expected);
	}
}

static const struct ktap_test tests[] = {
	{ "in_vram", in_vram, 120 },
	{ "in_ram", in_ram, 120 },
	{ "in_a_file", in_a_file, 0 },
	{ "all_words", all_words, 60 },
};

KTAP_MAIN(tests, gpu_after_test)
