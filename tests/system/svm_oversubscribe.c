// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * More memory than there is VRAM: what was used the longest time ago makes room.
 */
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "procs.h"
#include "svm.h"

#define AT(p)	((uintptr_t)(p))
#define STEP	(16 * MB)

static void expect_sum(uint64_t *words, size_t size, uint64_t value)
{
	uint64_t sum = job_run((job_t){ .op = SIMGPU_JOB_REDUCE, .src = AT(words), .len = size });

	check(sum == value * (size / 8), "the sum is %" PRIx64 ", expected %" PRIx64, sum,
	      value * (size / 8));
}

/* All of it, twice: what comes home has to come back. */
static void work_on(uint64_t *words, size_t size, uint64_t value)
{
	for (size_t done = 0; done < size; done += STEP)
		job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words) + done, .len = STEP,
				 .arg = value });
	job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words), .len = size, .arg = 1 });
	expect_sum(words, size, value + 1);
	for (size_t i = 0; i < size / 8; i += PAGE / 8 + 1)
		check(words[i] == value + 1, "word %zu is %" PRIx64 ", expected %" PRIx64, i, words[i],
		      value + 1);
}

static void four_times_vram(void)
{
	size_t size = 4 * gpu_info().vram_size;
	uint64_t begun = now_ms(), evicted = gpu_info().evicted;
	uint64_t *words = map_huge(size);

	work_on(words, size, 41);
	evicted = gpu_info().evicted - evicted;
	diag("%zu MiB through %" PRIu64 " MiB of VRAM, %" PRIu64 " MiB evicted, in %u ms", size / MB,
	     (uint64_t)gpu_info().vram_size / MB, (uint64_t)(evicted * PAGE / MB),
	     (unsigned int)(now_ms() - begun));
	check(evicted * PAGE > size, "only %" PRIu64 " pages were evicted", evicted);
}

static void small_pages(void)
{
	size_t size = gpu_info().vram_size * 5 / 4;

	work_on(map_small(size), size / STEP * STEP, 23);
}

static void competes(void *arg)
{
	size_t size = gpu_info().vram_size * 3 / 4;

	gpu_close();
	work_on(map_huge(size), size / STEP * STEP, *(int *)arg);
}

/* Each would fit alone. Nobody starves, or sees what is the other's. */
static void two_processes(void)
{
	int values[] = { 3, 1000 };
	pid_t pids[2];

	for (int i = 0; i < 2; i++)
		pids[i] = start(competes, &values[i]);
	for (int i = 0; i < 2; i++) {
		int status = reap(pids[i], 150);

		check(WIFEXITED(status) && !WEXITSTATUS(status), "process %d ended with %#x", i, status);
	}
}

/* What was filled last is there, what was filled first is not. */
static void oldest_goes_first(void)
{
	size_t vram = gpu_info().vram_size, part = vram / 4 / STEP * STEP;
	char *parts[6];

	for (int i = 0; i < 6; i++) {
		parts[i] = map_huge(part);
		job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(parts[i]), .len = part, .arg = i });
	}
	expect_place(parts[5], part, SIMGPU_PLACE_VRAM);
	expect_place(parts[4], part, SIMGPU_PLACE_VRAM);
	expect_place(parts[0], part, SIMGPU_PLACE_RAM);
	for (int i = 0; i < 6; i++)
		expect_sum((uint64_t *)parts[i], part, i);
}

/*
 * What is used all the time stays, though it was there first: jobs on it find their pages mapped,
 * and make no faults. What others come and go by is not its business.
 */
static void used_stays(void)
{
	size_t vram = gpu_info().vram_size, part = vram / 8 / (2 * MB) * (2 * MB);
	uint64_t *used = map_huge(part), faults, evicted = gpu_info().evicted;
	char *idle[16];

	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(used), .len = part, .arg = 5 });
	faults = 0;
	for (int i = 0; i < 16; i++) {
		uint64_t before;

		idle[i] = map_huge(part);
		job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(idle[i]), .len = part, .arg = i });
		before = svm_counters().gpu_faults;
		expect_sum(used, part, 5);
		faults += svm_counters().gpu_faults - before;
	}
	evicted = gpu_info().evicted - evicted;
	diag("%zu MiB used, %zu MiB idle, %zu MiB of VRAM: %" PRIu64 " pages evicted, %" PRIu64 " faults of what is used",
	     part / MB, 16 * part / MB, vram / MB, evicted, faults);
	expect_place(used, part, SIMGPU_PLACE_VRAM);
	check(!faults, "%" PRIu64 " faults of what is used all the time", faults);
	expect_place(idle[0], part, SIMGPU_PLACE_RAM);
	check(evicted >= 8 * part / PAGE, "only %" PRIu64 " pages were evicted", evicted);
	for (int i = 0; i < 16; i++)
		expect_sum((uint64_t *)idle[i], part, i);
}

static const struct ktap_test tests[] = {
	{ "four_times_vram", four_times_vram, 300 },
	{ "small_pages", small_pages, 200 },
	{ "two_processes", two_processes, 200 },
	{ "oldest_goes_first", oldest_goes_first, 60 },
	{ "used_stays", used_stays, 120 },
};

KTAP_MAIN(tests, gpu_after_test)
