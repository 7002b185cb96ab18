// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "simgpu.h"
#include "svm.h"

#define WAIT_MS	60000

/* A child of the process has none, though it inherits these. */
static pid_t vm_owner;
static uint32_t vm_own;

uint32_t vm_create(void)
{
	struct drm_simgpu_vm_create args = {};

	check_ok(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_VM_CREATE, &args));
	return args.vm_id;
}

void vm_destroy(uint32_t vm_id)
{
	struct drm_simgpu_vm_destroy args = { .vm_id = vm_id };

	check_ok(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_VM_DESTROY, &args));
	if (vm_owner == getpid() && vm_id == vm_own)
		vm_owner = 0;
}

void vm_use(uint32_t vm_id)
{
	vm_own = vm_id;
	vm_owner = getpid();
}

void vm_forget(void)
{
	vm_owner = 0;
}

uint32_t vm(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&lock);
	if (vm_owner != getpid()) {
		vm_own = vm_create();
		vm_owner = getpid();
	}
	pthread_mutex_unlock(&lock);
	return vm_own;
}

int job_try(job_t *job)
{
	return simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_SUBMIT, job);
}

uint64_t job_submit(job_t job)
{
	uint64_t end = now_ms() + WAIT_MS * ktap_scale();
	int err;

	if (!job.vm_id)
		job.vm_id = vm();
	while ((err = job_try(&job)) == -EAGAIN && now_ms() < end)
		sleep_ms(1);
	check(!err, "submitting a job gave %s", error_name(err));
	return job.job;
}

struct drm_simgpu_wait job_wait(uint64_t number)
{
	uint64_t end = now_ms() + WAIT_MS * ktap_scale();
	struct drm_simgpu_wait args = { .job = number };
	int err;

	do {
		args.timeout_ms = 1000;
		err = simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_WAIT, &args);
	} while ((err == -EINTR || err == -ETIME) && now_ms() < end);
	check(!err, "waiting for a job gave %s", error_name(err));
	return args;
}

struct drm_simgpu_wait job_outcome(job_t job)
{
	return job_wait(job_submit(job));
}

uint64_t job_run(job_t job)
{
	struct drm_simgpu_wait outcome = job_outcome(job);

	check(!outcome.error, "a job with op %u ended with %s, address %#llx, access %u", job.op,
	      error_name(outcome.error), outcome.fault_address, outcome.fault_access);
	return outcome.result;
}

void job_expect_fault(job_t job, int error, const void *address, unsigned int access)
{
	struct drm_simgpu_wait outcome = job_outcome(job);

	check(outcome.error == error && outcome.fault_address == (uintptr_t)address &&
	      outcome.fault_access == access,
	      "a job ended with %s, address %#llx, access %u, expected %s, %p, %u",
	      error_name(outcome.error), outcome.fault_address, outcome.fault_access,
	      error_name(error), address, access);
}

void svm_advise(void *start, size_t size, unsigned int prefer, unsigned int flags)
{
	struct drm_simgpu_advise args = {
		.start = (uintptr_t)start,
		.size = size,
		.vm_id = vm(),
		.flags = flags,
		.prefer = prefer,
	};

	check_ok(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_ADVISE, &args));
}

void svm_prefetch(void *start, size_t size, unsigned int place)
{
	struct drm_simgpu_prefetch args = {
		.start = (uintptr_t)start,
		.size = size,
		.vm_id = vm(),
		.place = place,
	};

	check_ok(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_PREFETCH, &args));
}

struct drm_simgpu_counters svm_counters(void)
{
	struct drm_simgpu_counters args = {};

	check_ok(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_COUNTERS, &args));
	return args;
}

static void *map_advised(size_t size, int advice)
{
	struct buffer buf;

	buffer_map_at(&buf, size, 0);
	/* A kernel without huge pages refuses; then all are small. */
	if (advice)
		madvise(buf.mem, size, advice);
	return buf.mem;
}

void *map_pages(size_t size)
{
	return map_advised(size, 0);
}

void *map_huge(size_t size)
{
	return map_advised(size, MADV_HUGEPAGE);
}

void *map_small(size_t size)
{
	return map_advised(size, MADV_NOHUGEPAGE);
}

size_t count_places(void *start, size_t size, int place)
{
	uint64_t counts[SIMGPU_PLACES];

	check_ok(simgpu_residency(gpu(), start, size, NULL, counts));
	return counts[place];
}

void expect_place(void *start, size_t size, int place)
{
	size_t count = count_places(start, size, place);

	check(count == size / PAGE, "%zu of %zu pages are in place %d, expected all", count,
	      size / PAGE, place);
}

uint64_t checksum(const uint64_t *words, size_t size)
{
	uint64_t sum = 0xcbf29ce484222325;

	for (size_t i = 0; i < size / 8; i++)
		sum = (sum ^ words[i]) * 0x100000001b3;
	return sum;
}
