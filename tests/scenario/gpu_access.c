// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "gpu.h"
#include "gpu_access.h"
#include "ktap.h"
#include "simgpu.h"
#include "svm.h"

#define AT(p)	((uintptr_t)(p))

const char *const gpu_op_names[GPU_OPS] = { "fill", "addition", "atomic addition", "sum" };

/* The address space, for the GPU. 0: there is none yet. */
static atomic_uint vm_id;

/* What a child inherits is its parent's, who would be left with what it makes of that. */
static void forget_parents(void)
{
	vm_id = 0;
	gpu_close();
}

[[gnu::constructor]]
static void prepare(void)
{
	pthread_atfork(NULL, NULL, forget_parents);
}

static uint32_t own_vm(void)
{
	unsigned int none = 0, new;

	if (vm_id)
		return vm_id;
	new = vm_create();
	if (atomic_compare_exchange_strong(&vm_id, &none, new))
		return new;
	/* Another thread was quicker. */
	vm_destroy(new);
	return none;
}

/* Any queue will do. */
static unsigned int next_queue(void)
{
	static atomic_uint next;

	return next++ % SIMGPU_QUEUES;
}

static uint64_t submit(job_t job)
{
	job.vm_id = own_vm();
	return job_submit(job);
}

/* A thread's own memory, all words of which the GPU sets before it is used. */
static void *addend(size_t len)
{
	static _Thread_local size_t size;
	static _Thread_local void *mem;

	if (len > size) {
		if (size)
			munmap(mem, size);
		mem = map_pages(len);
		size = len;
	}
	return mem;
}

/* By 32 bits; both operands are read and written by the GPU alone. */
static struct drm_simgpu_wait add(void *mem, size_t len, uint64_t value)
{
	unsigned int queue = next_queue();
	void *other = addend(len);
	uint64_t fill = submit((job_t){ .op = SIMGPU_JOB_FILL, .queue = queue, .dst = AT(other),
					.len = len, .arg = value });
	uint64_t job = submit((job_t){ .op = SIMGPU_JOB_ADD_U32, .queue = queue, .src = AT(mem),
				       .src2 = AT(other), .dst = AT(mem), .len = len });
	struct drm_simgpu_wait filled = job_wait(fill);

	check(!filled.error, "filling a thread's own memory ended with %s", error_name(filled.error));
	return job_wait(job);
}

static struct drm_simgpu_wait run(enum gpu_op op, void *mem, size_t len, uint64_t value)
{
	job_t job = { .queue = next_queue(), .dst = AT(mem), .len = len, .arg = value };

	switch (op) {
	case GPU_FILL:
		job.op = SIMGPU_JOB_FILL;
		break;
	case GPU_ADD:
		return add(mem, len, value);
	case GPU_ATOMIC:
		job.op = SIMGPU_JOB_ATOMIC_ADD;
		break;
	default:
		job.op = SIMGPU_JOB_REDUCE;
		job.src = AT(mem);
		break;
	}
	return job_wait(submit(job));
}

uint64_t gpu_result(enum gpu_op op, uint64_t word, uint64_t value)
{
	const uint64_t high = 0xffffffff00000000;

	switch (op) {
	case GPU_FILL:
		return value;
	case GPU_ADD:
		return ((word & high) + (value & high)) | ((word + value) & ~high);
	case GPU_ATOMIC:
		return word + value;
	default:
		return word;
	}
}

int gpu_access_done(enum gpu_op op, void *mem, size_t len, uint64_t *value, size_t *done)
{
	struct drm_simgpu_wait outcome = run(op, mem, len, *value);

	check(!outcome.error || outcome.error == -EFAULT, "a GPU %s of %#zx bytes at %p ended with %s",
	      gpu_op_names[op], len, mem, error_name(outcome.error));
	if (!outcome.error)
		check(outcome.done == len, "a GPU %s of %#zx bytes did %#llx of them", gpu_op_names[op],
		      len, outcome.done);
	if (op == GPU_SUM)
		*value = outcome.result;
	*done = outcome.done;
	return outcome.error;
}

int gpu_access(enum gpu_op op, void *mem, size_t len, uint64_t *value)
{
	size_t done;

	return gpu_access_done(op, mem, len, value, &done);
}

int gpu_prefetch(void *mem, size_t len)
{
	struct drm_simgpu_prefetch args = {
		.start = AT(mem),
		.size = len,
		.vm_id = own_vm(),
		.place = SIMGPU_PLACE_VRAM,
	};

	return simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_PREFETCH, &args);
}

void gpu_access_after_test(void)
{
	uintptr_t start, end;
	char line[400];
	FILE *maps;

	maps = fopen("/proc/self/maps", "re");
	check(maps, "/proc/self/maps: %s", strerror(errno));
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " rw-p", &start, &end) == 2 &&
		    strstr(line, " rw-p "))
			check_ok(simgpu_evict(gpu(), (void *)start, end - start));
	fclose(maps);
	gpu_after_test();
}
