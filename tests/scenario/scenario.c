// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "memcg.h"
#include "pattern.h"
#include "procs.h"
#include "scenario.h"
#include "workload.h"

#define TASKS_MANY	2
#define NEW_ROUNDS	2
#define MANY		5
#define STRIDE		(3 * PAGE)
#define STRIDES		5

static const size_t sizes[] = { 16 * KB, 64 * KB, 512 * KB, 2 * MB + 64 * KB };

struct part job_part(struct job *job)
{
	size_t pages = job->area.size / PAGE;
	size_t first = random_below(&job->random, pages);
	size_t count = 1 + random_below(&job->random, pages - first);

	return (struct part){ first * PAGE, count * PAGE };
}

struct part job_middle(const struct job *job)
{
	size_t third = job->area.size / PAGE / 3 * PAGE;

	return (struct part){ third, third };
}

uint64_t job_value(struct job *job)
{
	return pattern_word(0x7a1e, ++job->random);
}

static void gpu_and_cpu_many_times(struct job *job)
{
	for (int i = 0; i < MANY; i++) {
		struct part part = job_part(job);

		switch (random_below(&job->random, 4)) {
		case 0:
			area_gpu(&job->area, GPU_ADD, part.offset, part.len, job_value(job));
			break;
		case 1:
			area_gpu(&job->area, GPU_FILL, part.offset, part.len, job_value(job));
			break;
		case 2:
			area_gpu(&job->area, GPU_SUM, part.offset, part.len, 0);
			break;
		case 3:
			area_write(&job->area, part.offset, part.len, job_value(job));
			break;
		}
	}
}

static void stride(struct job *job)
{
	size_t step = job->area.size / STRIDES / PAGE * PAGE;

	if (step < STRIDE)
		step = STRIDE;
	for (size_t at = 0; at + 2 * PAGE < job->area.size; at += step) {
		area_gpu(&job->area, GPU_ADD, at, PAGE, job_value(job));
		area_write(&job->area, at + PAGE, 100, job_value(job));
	}
}

struct toucher {
	const struct area *area;
	uint64_t random;
	atomic_bool end;
};

static void *touch(void *arg)
{
	struct toucher *toucher = arg;

	while (!toucher->end) {
		size_t at = random_below(&toucher->random, toucher->area->size);

		(void)__atomic_load_n(toucher->area->mem + at, __ATOMIC_RELAXED);
		sleep_ms(5);
	}
	return NULL;
}

/* CPU faults while the GPU is at it. */
static void gpu_while_cpu_faults(struct job *job)
{
	struct toucher toucher = { .area = &job->area, .random = job->random };
	pthread_t thread;

	check(!pthread_create(&thread, NULL, touch, &toucher), "no thread can be started");
	for (int i = 0; i < 2; i++)
		area_gpu(&job->area, GPU_ADD, 0, job->area.size, job_value(job));
	toucher.end = true;
	pthread_join(thread, NULL);
}

void job_access(struct job *job)
{
	struct area *area = &job->area;

	switch (job->scenario->value[ACCESS]) {
	case ACCESS_ONCE:
		area_gpu(area, GPU_ADD, 0, area->size, job_value(job));
		break;
	case ACCESS_TWICE:
		area_gpu(area, GPU_ADD, 0, area->size, job_value(job));
		area_verify(area, 0, area->size);
		area_gpu(area, GPU_ADD, 0, area->size, job_value(job));
		break;
	case ACCESS_MANY:
		gpu_and_cpu_many_times(job);
		break;
	case ACCESS_STRIDE:
		stride(job);
		break;
	case ACCESS_GPU_CPU:
		area_gpu(area, GPU_FILL, 0, area->size / 2 & -PAGE, job_value(job));
		area_verify(area, 0, area->size);
		area_write(area, PAGE + 5, area->size / 2, job_value(job));
		break;
	case ACCESS_CPU_GPU:
		area_write(area, 0, area->size, job_value(job));
		area_gpu(area, GPU_SUM, 0, area->size, 0);
		break;
	case ACCESS_FAULTS:
		gpu_while_cpu_faults(job);
		break;
	}
}

void job_pressure(struct job *job)
{
	struct part part = job_part(job);

	switch (job->scenario->value[PRESSURE]) {
	case PRESSURE_EVICT:
		area_evict(&job->area, part.offset, part.len);
		break;
	case PRESSURE_MEMCG:
		memcg_reclaim();
		break;
	}
}

static void advise(struct job *job)
{
	static const int advices[] = {
		[ADVICE_DONTNEED] = MADV_DONTNEED,
		[ADVICE_FREE] = MADV_FREE,
		[ADVICE_COLD] = MADV_COLD,
	};
	unsigned int advice = job->scenario->value[ADVICE];
	struct part part = job_middle(job);

	if (advice == ADVICE_NONE)
		return;
	area_advise(&job->area, part.offset, part.len, advices[advice]);
	if (advice != ADVICE_FREE)
		return;
	/* The GPU's writes make it be needed again, as much as the CPU's. */
	if (random_below(&job->random, 2)) {
		area_gpu(&job->area, GPU_FILL, part.offset, part.len, job_value(job));
		job_pressure(job);
		area_verify(&job->area, part.offset, part.len);
	} else {
		job_pressure(job);
		area_settle(&job->area, part.offset, part.len);
	}
}

/* What is there before the GPU sees it: something everywhere, or in a part, or nowhere. */
static void write_first(struct job *job)
{
	switch (random_below(&job->random, 3)) {
	case 0:
		area_write(&job->area, 0, job->area.size, job_value(job));
		break;
	case 1:
		area_write(&job->area, job->area.size / 4, job->area.size / 2, job_value(job));
		break;
	}
}

static void run_once(struct job *job)
{
	const unsigned char *value = job->scenario->value;
	size_t offset = random_below(&job->random, 2) * 5 * PAGE;
	struct area *area = &job->area;

	/* A huge page needs to begin where one can. */
	area_init(area, value[ALLOC], sizes[value[SIZE]],
		  value[ALLOC] == KIND_HUGE ? 0 : offset);
	write_first(job);
	if (value[PREFETCH] == PREFETCH_ALL)
		area_prefetch(area, 0, area->size);
	job_access(job);
	job_pressure(job);
	advise(job);
	job_live(job);
	area_verify(area, 0, area->size);
	job_fork(job);
	job_pressure(job);
	job_access(job);
	area_gpu(area, GPU_SUM, 0, area->size, 0);
	area_verify(area, 0, area->size);
	area_free(area);
}

static void run_job(void *arg)
{
	struct job *job = arg;
	int rounds = job->scenario->value[LIFE] == LIFE_NEW ? NEW_ROUNDS : 1;

	for (int i = 0; i < rounds; i++)
		run_once(job);
}

static void *run_job_in_thread(void *job)
{
	run_job(job);
	return NULL;
}

struct run {
	const struct scenario *scenario;
	uint64_t seed;
};

static void run_tasks(void *arg)
{
	const struct run *run = arg;
	const struct scenario *scenario = run->scenario;
	unsigned int count = scenario->value[TASKS] == TASKS_ONE ? 1 : TASKS_MANY;
	struct job jobs[TASKS_MANY] = { 0 };
	pthread_t threads[TASKS_MANY];
	pid_t children[TASKS_MANY];

	for (unsigned int i = 0; i < count; i++) {
		jobs[i].scenario = scenario;
		jobs[i].random = pattern_word(run->seed, i);
		jobs[i].alone = scenario->value[TASKS] != TASKS_THREADS;
	}
	switch (scenario->value[TASKS]) {
	case TASKS_ONE:
		run_job(&jobs[0]);
		break;
	case TASKS_THREADS:
		gpu();	/* Opened once, for all. */
		for (unsigned int i = 0; i < count; i++)
			check(!pthread_create(&threads[i], NULL, run_job_in_thread, &jobs[i]),
			      "no thread can be started");
		for (unsigned int i = 0; i < count; i++)
			pthread_join(threads[i], NULL);
		break;
	case TASKS_PROCESSES:
		for (unsigned int i = 0; i < count; i++)
			children[i] = start(run_job, &jobs[i]);
		for (unsigned int i = 0; i < count; i++)
			reap_ok(children[i]);
		break;
	}
}

/* Somebody who wants most of the VRAM, again and again. */
static void hog(void *arg)
{
	struct gate *ready = arg;
	struct buffer buf;
	int err;

	gpu_close();
	buffer_map(&buf, gpu_info().vram_size / 4 * 3 & -PAGE);
	for (;;) {
		err = simgpu_populate_once(gpu(), buf.mem, buf.size, 0);
		check(!err || err == -ENOSPC || err == -EBUSY, "filling VRAM gave %s",
		      error_name(err));
		if (ready) {
			gate_open(ready);
			ready = NULL;
		}
		sleep_ms(30);
	}
}

static pid_t start_hog(void)
{
	struct gate ready;
	pid_t child;

	gate_init(&ready);
	child = start(hog, &ready);
	gate_wait(&ready);
	return child;
}

void scenario_run(const struct scenario *scenario, uint64_t seed)
{
	unsigned int pressure = scenario->value[PRESSURE];
	struct run run = { scenario, seed };
	pid_t hog_pid = 0;

	if (pressure == PRESSURE_MEMCG) {
		/* Tasks, copies and what must be in them, and all that again in children. */
		memcg_enter(TASKS_MANY * sizes[scenario->value[SIZE]] * 8 + 12 * MB);
		/* A process of its own, so that all of its memory is freed in the end. */
		reap_ok(start(run_tasks, &run));
		memcg_leave();
		return;
	}
	if (pressure == PRESSURE_VRAM)
		hog_pid = start_hog();
	run_tasks(&run);
	if (hog_pid) {
		kill(hog_pid, SIGKILL);
		reap(hog_pid, 20);
	}
}
