// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the ioctls of shared virtual memory refuse, and how.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "procs.h"
#include "simgpu.h"
#include "svm.h"

#define AT(p)	((uintptr_t)(p))

/* Set one field of valid arguments to something else. */
#define with(NAME, type, valid_, field, value, expected)				\
	do {									\
		struct drm_simgpu_##type args_ = (valid_);			\
		args_.field = (value);						\
		check_result(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_##NAME, &args_), expected);	\
	} while (0)

static void flags_and_padding(void)
{
	struct drm_simgpu_vm_create create = {};
	struct drm_simgpu_vm_destroy destroy = { .vm_id = vm() };
	struct drm_simgpu_submit submit = { .vm_id = vm() };
	struct drm_simgpu_wait wait = { .job = job_submit((job_t){}) };
	struct drm_simgpu_advise advise = { .vm_id = vm(), .start = PAGE, .size = PAGE };
	struct drm_simgpu_prefetch prefetch = { .vm_id = vm(), .start = AT(map_pages(PAGE)),
						.size = PAGE, .place = SIMGPU_PLACE_VRAM };
	struct drm_simgpu_counters counters = {};

	for (int bit = 0; bit < 32; bit++) {
		uint32_t flag = 1u << bit;

		with(VM_CREATE, vm_create, create, flags, flag, -EINVAL);
		with(VM_DESTROY, vm_destroy, destroy, pad, flag, -EINVAL);
		with(SUBMIT, submit, submit, flags, flag, bit ? -EINVAL : 0);
		with(WAIT, wait, wait, flags, flag, -EINVAL);
		with(ADVISE, advise, advise, flags, flag, bit ? -EINVAL : 0);
		with(PREFETCH, prefetch, prefetch, flags, flag, -EINVAL);
		with(PREFETCH, prefetch, prefetch, pad, flag, -EINVAL);
		with(COUNTERS, counters, counters, flags, flag, -EINVAL);
		with(COUNTERS, counters, counters, pad, flag, -EINVAL);
	}
	/* As they are, they are good. */
	with(SUBMIT, submit, submit, flags, 0, 0);
	with(ADVISE, advise, advise, flags, 0, 0);
	with(PREFETCH, prefetch, prefetch, flags, 0, 0);
	with(WAIT, wait, wait, timeout_ms, 10000 * ktap_scale(), 0);
	with(VM_DESTROY, vm_destroy, destroy, pad, 0, 0);
}

static void bad_values(void)
{
	struct drm_simgpu_submit submit = { .vm_id = vm() };
	struct drm_simgpu_advise advise = { .vm_id = vm(), .start = PAGE, .size = PAGE };
	struct drm_simgpu_prefetch prefetch = { .vm_id = vm(), .start = AT(map_pages(PAGE)),
						.size = PAGE, .place = SIMGPU_PLACE_VRAM };

	with(SUBMIT, submit, submit, op, SIMGPU_JOB_CHASE + 1, -EINVAL);
	with(SUBMIT, submit, submit, op, 0xffffffff, -EINVAL);
	with(SUBMIT, submit, submit, queue, SIMGPU_QUEUES, -EINVAL);
	with(SUBMIT, submit, submit, queue, 0xffffffff, -EINVAL);
	with(SUBMIT, submit, submit, vm_id, 0, -ENOENT);
	with(SUBMIT, submit, submit, vm_id, 0xffffffff, -ENOENT);
	with(ADVISE, advise, advise, prefer, SIMGPU_PREFER_STAY + 1, -EINVAL);
	with(ADVISE, advise, advise, timeslice_ms, 10001, -EINVAL);
	with(ADVISE, advise, advise, start, 1, -EINVAL);
	with(ADVISE, advise, advise, size, 0, -EINVAL);
	with(ADVISE, advise, advise, size, -PAGE, -EINVAL);
	with(ADVISE, advise, advise, vm_id, 60, -ENOENT);
	with(PREFETCH, prefetch, prefetch, place, SIMGPU_PLACE_NONE, -EINVAL);
	with(PREFETCH, prefetch, prefetch, place, SIMGPU_PLACE_OTHER, -EINVAL);
	with(PREFETCH, prefetch, prefetch, start, 1, -EINVAL);
	with(PREFETCH, prefetch, prefetch, start, PAGE, -EFAULT);
	with(PREFETCH, prefetch, prefetch, size, 0, -EINVAL);
	with(PREFETCH, prefetch, prefetch, vm_id, 60, -ENOENT);
}

/* The device looks at the rest, and the job says what it found. */
static void bad_jobs(void)
{
	uintptr_t mem = AT(map_pages(MB));

	static const job_t jobs[] = {
		{ .op = SIMGPU_JOB_FILL, .dst = 8, .len = 0 },
		{ .op = SIMGPU_JOB_FILL, .dst = 8, .len = 9 },
		{ .op = SIMGPU_JOB_FILL, .dst = 8, .len = 1ull << 40 },
		{ .op = SIMGPU_JOB_FILL, .dst = 4, .len = 8 },
		{ .op = SIMGPU_JOB_FILL, .dst = 1ull << 48, .len = 8 },
		{ .op = SIMGPU_JOB_FILL, .dst = -8, .len = 16 },
		{ .op = SIMGPU_JOB_ADD_U32, .src = 2, .src2 = 4, .dst = 4, .len = 4 },
		{ .op = SIMGPU_JOB_STRIDED_READ, .src = 8, .len = 2, .stride = 4 },
	};

	for (size_t i = 0; i < sizeof(jobs) / sizeof(*jobs); i++) {
		struct drm_simgpu_wait outcome = job_outcome(jobs[i]);

		check(outcome.error == -EINVAL, "job %zu ended with %s, expected EINVAL", i,
		      error_name(outcome.error));
	}
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = mem, .len = MB, .arg = 1 });
}

static void waiting(void)
{
	struct drm_simgpu_wait wait = { .job = 12345 };
	uint64_t job, begun;
	int err = 0;

	vm();
	check_result(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_WAIT, &wait), -ENOENT);
	gpu_inject(SIMGPU_INJECT_QUEUE0 + SIMGPU_INJECT_DELAY, 1, 500000);
	job = job_submit((job_t){});
	wait.job = job;
	check_result(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_WAIT, &wait), -ETIME);
	begun = now_ms();
	wait.timeout_ms = 50;
	check_result(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_WAIT, &wait), -ETIME);
	check(now_ms() - begun >= 50, "waited for %u ms instead of 50", (unsigned int)(now_ms() - begun));
	wait.timeout_ms = SIMGPU_WAIT_FOREVER;
	check_ok(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_WAIT, &wait));
	check_result(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_WAIT, &wait), -ENOENT);

	/* A queue takes so many jobs and no more; all of them end. */
	gpu_inject(SIMGPU_INJECT_QUEUE0 + SIMGPU_INJECT_DELAY, 1, 500000);
	for (int i = 0; i < 1000 && !err; i++) {
		job_t args = { .vm_id = vm() };

		err = job_try(&args);
		if (!err)
			job = args.job;
	}
	check(err == -EAGAIN, "a full queue gave %s", error_name(err));
	check(!job_wait(job).error, "the last job failed");
}

static void in_child(void *arg)
{
	job_t job = { .vm_id = *(uint32_t *)arg };
	struct drm_simgpu_prefetch prefetch = { .vm_id = job.vm_id, .start = AT(map_pages(PAGE)),
						.size = PAGE, .place = SIMGPU_PLACE_VRAM };

	check_result(job_try(&job), -EPERM);
	check_result(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_PREFETCH, &prefetch), -EPERM);
	/* One of its own, by the same file, is no other's. */
	job_run((job_t){ .vm_id = vm(), .op = SIMGPU_JOB_FILL, .dst = AT(map_pages(PAGE)), .len = PAGE });
}

static void another_process(void)
{
	uint32_t own = vm();
	uint64_t *words = map_pages(MB);

	words[0] = 1;
	reap_ok(start(in_child, &own));
	check(job_run((job_t){ .op = SIMGPU_JOB_REDUCE, .src = AT(words), .len = MB }) == 1,
	      "a wrong sum");
}

/* As many as there are, again and again; one that is gone leaves no trace. */
static void many_address_spaces(void)
{
	uint64_t *words = map_pages(4 * MB);

	for (int round = 0; round < 3; round++) {
		struct drm_simgpu_vm_create args = {};
		uint32_t ids[100];
		int n = 0, err;

		while (!(err = simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_VM_CREATE, &args)) && n < 100)
			ids[n++] = args.vm_id;
		check(err == -ENOSPC && n > 8, "after %d address spaces: %s", n, error_name(err));
		for (int i = 0; i < n; i++)
			job_run((job_t){ .vm_id = ids[i], .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words),
					 .len = 4 * MB, .arg = 1 });
		for (int i = 0; i < n; i++)
			vm_destroy(ids[i]);
		check(words[0] == words[MB / 2 - 1], "the words differ");
	}
}

static void sleeps(void *arg)
{
	(void)arg;
	gpu_close();
	job_submit((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(map_pages(16 * MB)), .len = 16 * MB });
	for (;;)
		pause();
}

/* Jobs of who is gone are gone; those of others behind them are done. */
static void killed_with_jobs(void)
{
	uint64_t *words = map_pages(MB), job;
	pid_t pids[4];

	vm();
	for (int i = 0; i < 4; i++)
		pids[i] = start(sleeps, NULL);
	sleep_ms(30);
	job = job_submit((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = MB, .arg = 3 });
	for (int i = 0; i < 4; i++) {
		kill(pids[i], SIGKILL);
		reap(pids[i], 30);
	}
	check(!job_wait(job).error, "a job failed with those of others");
	check(words[MB / 8 - 1] == 3, "not filled");
}

static void destroyed_with_jobs(void)
{
	uint64_t *words = map_pages(16 * MB), jobs[8];
	uint32_t id = vm_create();
	struct drm_simgpu_wait outcome = {};
	int cancelled = 0;

	for (int i = 0; i < 8; i++)
		jobs[i] = job_submit((job_t){ .vm_id = id, .queue = i % 2, .op = SIMGPU_JOB_ATOMIC_ADD,
					      .dst = AT(words), .len = 16 * MB, .arg = 1 });
	vm_destroy(id);
	for (int i = 0; i < 8; i++) {
		outcome = job_wait(jobs[i]);
		check(!outcome.error || outcome.error == -ECANCELED, "a job ended with %s",
		      error_name(outcome.error));
		cancelled += outcome.error == -ECANCELED;
	}
	check(cancelled, "no job was cancelled");
	check(words[0] <= 8, "%llu jobs added", (unsigned long long)words[0]);
}

static const struct ktap_test tests[] = {
	{ "flags_and_padding", flags_and_padding, 0 },
	{ "bad_values", bad_values, 0 },
	{ "bad_jobs", bad_jobs, 0 },
	{ "waiting", waiting, 0 },
	{ "another_process", another_process, 0 },
	{ "many_address_spaces", many_address_spaces, 120 },
	{ "killed_with_jobs", killed_with_jobs, 60 },
	{ "destroyed_with_jobs", destroyed_with_jobs, 60 },
};

KTAP_MAIN(tests, gpu_after_test)
