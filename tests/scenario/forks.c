// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Other processes that have the same pages.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ktap.h"
#include "procs.h"
#include "scenario.h"

struct family {
	struct job *job;
	struct gate go, done;
};

static void verify(void *arg)
{
	struct family *family = arg;
	struct area *area = &family->job->area;

	area_verify(area, 0, area->size);
}

static void wait_then_verify(void *arg)
{
	struct family *family = arg;

	gate_wait(&family->go);
	verify(family);
}

/* What the parent does after the fork is no matter of the child's, unless they share the memory. */
static void child_reads_after(struct family *family)
{
	struct job *job = family->job;
	struct area *area = &job->area;
	struct part part = job_middle(job);
	pid_t child;

	gate_init(&family->go);
	child = start(wait_then_verify, family);
	area_gpu(area, GPU_ADD, 0, area->size, job_value(job));
	area_write(area, part.offset + 9, part.len, job_value(job));
	gate_open(&family->go);
	reap_ok(child);
}

static void write_and_verify(void *arg)
{
	struct family *family = arg;
	struct job *job = family->job;
	struct area *area = &job->area;
	struct part part = job_middle(job);

	area_write(area, part.offset + 3, part.len, job_value(job));
	area_gpu(area, GPU_ADD, 0, area->size, job_value(job));
	area_verify(area, 0, area->size);
}

static void exec_nothing(void *arg)
{
	(void)arg;
	execl("/proc/self/exe", "scenarios", EXEC_ARGUMENT, (char *)NULL);
	fail("exec: %s", strerror(errno));
}

/* The one in the middle: its pages are in VRAM when it leaves them to its child. */
static void middle_generation(void *arg)
{
	struct family *family = arg;
	struct job *job = family->job;
	struct area *area = &job->area;

	area_gpu(area, GPU_ADD, 0, area->size, job_value(job));
	if (!fork_process()) {
		gate_wait(&family->go);
		area_evict(area, 0, area->size);
		area_verify(area, 0, area->size);
		area_gpu(area, GPU_SUM, 0, area->size, 0);
		gate_open(&family->done);
	}
	_exit(0);
}

static void parent_exits_then_evict(struct family *family)
{
	gate_init(&family->go);
	gate_init(&family->done);
	reap_ok(start(middle_generation, family));
	/* If the last one fails, there is nobody to open it. */
	close(family->done.ends[1]);
	family->done.ends[1] = -1;
	gate_open(&family->go);
	gate_wait(&family->done);
}

static void gate_close(struct gate *gate)
{
	for (int i = 0; i < 2; i++)
		if (gate->ends[i] >= 0)
			close(gate->ends[i]);
}

void job_fork(struct job *job)
{
	struct family family = { .job = job, .go = { { -1, -1 } }, .done = { { -1, -1 } } };

	switch (job->scenario->value[FORK]) {
	case FORK_READ:
		reap_ok(start(verify, &family));
		break;
	case FORK_AFTER:
		child_reads_after(&family);
		break;
	case FORK_WRITE:
		reap_ok(start(write_and_verify, &family));
		break;
	case FORK_EXEC:
		reap_ok(start(exec_nothing, &family));
		break;
	case FORK_ORPHAN:
		parent_exits_then_evict(&family);
		break;
	}
	gate_close(&family.go);
	gate_close(&family.done);
}
