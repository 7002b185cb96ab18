// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Engines that fail, hang or are late: jobs end, in good time, with an error or
 * the right answer, and the next ones work.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "simgpu.h"
#include "svm.h"

#define AT(p)	((uintptr_t)(p))
#define SIZE	(2 * MB)
/* The driver's time-out is 5 seconds. */
#define SOON_MS	20000

static void works(void)
{
	uint64_t *words = map_pages(SIZE);

	for (unsigned int queue = 0; queue < SIMGPU_QUEUES; queue++)
		job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .queue = queue, .dst = AT(words),
				 .len = SIZE, .arg = 1 });
	check(words[0] == SIMGPU_QUEUES && words[SIZE / 8 - 1] == SIMGPU_QUEUES, "wrong words");
}

static void soon(uint64_t begun)
{
	check(now_ms() - begun < SOON_MS * ktap_scale(), "that took %u ms",
	      (unsigned int)(now_ms() - begun));
}

static void queue_fails(void)
{
	struct drm_simgpu_wait outcome;

	works();
	gpu_inject(SIMGPU_INJECT_QUEUE0 + 0x100 + SIMGPU_INJECT_FAIL, 1, 0);
	outcome = job_outcome((job_t){ .op = SIMGPU_JOB_FILL, .queue = 1, .dst = AT(map_pages(SIZE)),
				       .len = SIZE });
	check(outcome.error == -EIO, "an injected failure gave %s", error_name(outcome.error));
	works();
}

static void queue_hangs(void)
{
	uint64_t jobs[3], *words = map_pages(SIZE), begun = now_ms();

	gpu_inject(SIMGPU_INJECT_QUEUE0 + SIMGPU_INJECT_HANG, 1, 0);
	for (int i = 0; i < 3; i++)
		jobs[i] = job_submit((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE });
	/* Others go on. */
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .queue = 2, .dst = AT(words), .len = SIZE });
	for (int i = 0; i < 3; i++) {
		struct drm_simgpu_wait outcome = job_wait(jobs[i]);

		check(outcome.error == -EIO, "job %d of a hanging queue ended with %s", i,
		      error_name(outcome.error));
	}
	soon(begun);
	works();
}

static void mmu_hangs(void)
{
	uint64_t *words = map_pages(SIZE), begun = now_ms();

	works();
	gpu_inject(SIMGPU_INJECT_MMU + SIMGPU_INJECT_HANG, 1, 0);
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE, .arg = 1 });
	check(words[5] == 1, "not filled");
	soon(begun);
	works();
}

/* A late acknowledge: until then nobody gets the page. */
static void mmu_is_late(void)
{
	uint64_t *words = map_pages(SIZE), begun;

	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE, .arg = 1 });
	gpu_inject(SIMGPU_INJECT_MMU + SIMGPU_INJECT_DELAY, 1, 300000);
	begun = now_ms();
	check(words[0] == 1, "not filled");
	check(now_ms() - begun >= 300, "the CPU did not wait for the MMU, but %u ms",
	      (unsigned int)(now_ms() - begun));
}

static void mmu_fails(void)
{
	uint64_t *words = map_pages(SIZE);

	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE, .arg = 1 });
	gpu_inject(SIMGPU_INJECT_MMU + SIMGPU_INJECT_FAIL, 1, 0);
	for (size_t i = 0; i < SIZE / 8; i++)
		words[i]++;
	for (size_t i = 0; i < SIZE / 8; i++)
		check(words[i] == 2, "word %zu is wrong", i);
	works();
}

/* The copy engine's recovery is a reset of everything. */
static void copy_engine_hangs(void)
{
	uint64_t *words = map_pages(SIZE), *other = map_pages(8 * SIZE), begun, jobs[8];
	struct drm_simgpu_wait outcome;
	int lost = 0;

	works();
	memset(words, 1, SIZE);
	for (int i = 0; i < 8; i++)
		jobs[i] = job_submit((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .queue = 1 + i % 2,
					      .dst = AT(other), .len = 8 * SIZE, .arg = 1 });
	gpu_inject(SIMGPU_INJECT_HANG, 1, 0);
	begun = now_ms();
	/* It can't come to VRAM by this, but the GPU may use it in RAM. */
	outcome = job_outcome((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words), .len = SIZE,
				       .arg = 1 });
	check(!outcome.error || outcome.error == -EIO || outcome.error == -EFAULT,
	      "a job ended with %s", error_name(outcome.error));
	soon(begun);
	for (int i = 0; i < 8; i++) {
		outcome = job_wait(jobs[i]);
		check(!outcome.error || outcome.error == -EIO || outcome.error == -EFAULT,
		      "another job ended with %s", error_name(outcome.error));
		lost += !!outcome.error;
	}
	gpu_behave();
	diag("%d of 8 jobs were lost", lost);
	for (size_t i = 0; i < SIZE / 8; i++)
		check(words[i] - 0x0101010101010101 <= 1, "word %zu is wrong", i);
	for (size_t i = 0; i < 8 * SIZE / 8; i++)
		check(other[i] <= 8 && (lost || other[i] == 8), "word %zu is wrong", i);
	works();
}

/*
 * To clear an interrupt takes effect late, and while it is under way the device sends no other one.
 * So faults that come meanwhile are told of by no interrupt: the driver must find them. The first
 * one is cancelled, as a replay would make the others come again.
 */
static void clears_are_late(void)
{
	/* How often a queue reads before it faults: all but the first do while its fault is told of. */
	static const unsigned int reads[SIMGPU_QUEUES] = { 1, 400000, 600000, 800000 };
	char *results = map_pages(SIMGPU_QUEUES * SIZE);
	uint64_t *source = map_pages(PAGE), jobs[SIMGPU_QUEUES];

	source[0] = 1;
	check(!munmap(results, SIZE), "munmap: %s", strerror(errno));
	job_run((job_t){ .op = SIMGPU_JOB_STRIDED_READ, .src = AT(source), .len = 1 });
	gpu_inject(SIMGPU_INJECT_IRQ + SIMGPU_INJECT_DELAY, 1, 300000);
	/* The first to fault comes last: it would delay the others. */
	for (int queue = SIMGPU_QUEUES - 1; queue >= 0; queue--)
		jobs[queue] = job_submit((job_t){ .op = SIMGPU_JOB_STRIDED_READ, .queue = queue,
						  .flags = SIMGPU_SUBMIT_STORE, .src = AT(source),
						  .dst = AT(results + queue * SIZE),
						  .len = reads[queue] });
	sleep_ms(50);
	gpu_inject(SIMGPU_INJECT_IRQ + SIMGPU_INJECT_DELAY, 0, 0);
	for (int queue = 0; queue < SIMGPU_QUEUES; queue++) {
		struct drm_simgpu_wait outcome = job_wait(jobs[queue]);

		check(outcome.error == (queue ? 0 : -EFAULT) && outcome.result == reads[queue],
		      "job %d ended with %s, %llu reads", queue, error_name(outcome.error),
		      outcome.result);
	}
}

static const struct ktap_test tests[] = {
	{ "clears_are_late", clears_are_late, 0 },
	{ "queue_fails", queue_fails, 0 },
	{ "queue_hangs", queue_hangs, 60 },
	{ "mmu_hangs", mmu_hangs, 60 },
	{ "mmu_is_late", mmu_is_late, 0 },
	{ "mmu_fails", mmu_fails, 60 },
	{ "copy_engine_hangs", copy_engine_hangs, 90 },
};

static void after(void)
{
	gpu_inject(SIMGPU_INJECT_MMU + SIMGPU_INJECT_FAIL, 0, 0);
	gpu_inject(SIMGPU_INJECT_IRQ + SIMGPU_INJECT_DELAY, 0, 0);
	for (int queue = 0; queue < SIMGPU_QUEUES; queue++)
		gpu_inject(SIMGPU_INJECT_QUEUE0 + 0x100 * queue + SIMGPU_INJECT_FAIL, 0, 0);
	gpu_after_test();
}

KTAP_MAIN(tests, after)
