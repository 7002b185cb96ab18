// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What a process does to a mapping while its pages are in VRAM.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ktap.h"
#include "scenario.h"
#include "workload.h"

static pthread_t run_thread(void *(*run)(void *), void *arg)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, run, arg);

	check(!err, "pthread_create: %s", strerror(err));
	return thread;
}

/* The GPU must find nothing there, and nothing of what was. */
static void unmap_middle(struct job *job)
{
	struct part part = job_middle(job);
	struct area *area = &job->area;

	if (job->alone) {
		uint64_t sum = 0;
		size_t done;
		int err;

		check(!munmap(area->mem + part.offset, part.len), "munmap: %s", strerror(errno));
		err = gpu_prefetch(area->mem, area->size);
		check(err == -EFAULT, "prefetch across a hole gave %s", error_name(err));
		err = gpu_access_done(GPU_SUM, area->mem, area->size, &sum, &done);
		check(err == -EFAULT && done == part.offset, "a GPU sum across a hole at %#zx did %#zx, %s",
		      part.offset, done, error_name(err));
	}
	area_map_anew(area, part.offset, part.len);
}

struct unmapper {
	struct job *job;
	struct part part;
};

static void *unmap_page_by_page(void *arg)
{
	struct unmapper *unmapper = arg;
	struct area *area = &unmapper->job->area;
	size_t step = (unmapper->part.len / 24 & -PAGE) + PAGE;
	size_t end = unmapper->part.offset + unmapper->part.len;

	for (size_t at = unmapper->part.offset; at < end; at += step) {
		size_t len = end - at < step ? end - at : step;

		if (unmapper->job->alone)
			munmap(area->mem + at, len);
		area_map_anew(area, at, len);
	}
	return NULL;
}

/* Half of it goes while all of it is brought to VRAM and the GPU works on the rest. */
static void unmap_while_moving(struct job *job)
{
	struct area *area = &job->area;
	size_t half = area->size / 2 & -PAGE;
	struct unmapper unmapper = { job, { half, area->size - half } };
	pthread_t thread = run_thread(unmap_page_by_page, &unmapper);

	for (int i = 0; i < 3; i++) {
		int err = simgpu_populate_once(gpu(), area->mem, area->size, 0);

		check(!err || err == -EBUSY || err == -ENOENT || err == -ENOSPC ||
		      (err == -EOPNOTSUPP && area->file >= 0),
		      "populating what is being unmapped gave %s", error_name(err));
		area_gpu(area, GPU_ADD, 0, half, job_value(job));
	}
	pthread_join(thread, NULL);
	area_verify(area, 0, area->size);
}

struct worker_thread {
	struct area *area;
	atomic_bool end;
	atomic_uint rounds;
};

static void *work_while_it_goes(void *arg)
{
	struct worker_thread *worker = arg;

	while (!worker->end) {
		uint64_t value = 0xb5b5b5b5;

		/* It may find nothing there. */
		gpu_access(GPU_ADD, worker->area->mem, worker->area->size, &value);
		worker->rounds++;
	}
	return NULL;
}

/*
 * All of it is replaced while the GPU works on it. What it writes late must not
 * be in what is there now.
 */
static void unmap_while_busy(struct job *job)
{
	struct area *area = &job->area;
	struct worker_thread worker = { .area = area };
	unsigned int rounds = 2 + random_below(&job->random, 3);
	pthread_t thread = run_thread(work_while_it_goes, &worker);

	while (worker.rounds < rounds)
		;
	/* Not accessible while the GPU may still want it. */
	check(mmap(area->mem, area->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == area->mem, "mmap: %s", strerror(errno));
	worker.end = true;
	pthread_join(thread, NULL);
	if (area->kind == KIND_SHMEM) {
		/* The file has what the GPU made of it. */
		area_map_anew(area, 0, area->size);
		memcpy(area->shadow, area->mem, area->size);
		return;
	}
	check(!mprotect(area->mem, area->size, PROT_READ | PROT_WRITE), "mprotect: %s",
	      strerror(errno));
	for (size_t at = 0; at < area->size; at += sizeof(uint64_t))
		check(!*(uint64_t *)(area->mem + at), "the GPU wrote to memory that is new");
	area_map_anew(area, 0, area->size);
}

static void move_to(struct area *area, void *target, int flags)
{
	void *mem = mremap(area->mem, area->size, area->size, MREMAP_MAYMOVE | MREMAP_FIXED | flags,
			   target);

	check(mem == target, "mremap: %s", strerror(errno));
	area->mem = mem;
}

/* To where it lies differently in its 2 MiB; malloc's memory as realloc does it. */
static void move(struct job *job)
{
	struct area *area = &job->area;

	if (area->kind == KIND_MALLOC) {
		unsigned char *grown = realloc(area->block, area->size * 2);

		/* A page is not what realloc promises; the rest of the scenario wants it. */
		check(grown, "realloc of %zu bytes", area->size * 2);
		check(!memcmp(grown, area->shadow, area->size), "realloc lost data");
		free(grown);
		check(!posix_memalign(&area->block, PAGE, area->size), "malloc");
		area->mem = area->block;
		memcpy(area->mem, area->shadow, area->size);
		return;
	}
	move_to(area, reserve(area->size, 7 * PAGE), 0);
}

/* The old place is empty, but still there. */
static void move_and_keep(struct job *job)
{
	struct area *area = &job->area;
	struct area old = *area;

	old.shadow = malloc(old.size);
	check(old.shadow, "no memory");
	memcpy(old.shadow, area->shadow, old.size);
	move_to(area, reserve(area->size, 9 * PAGE), MREMAP_DONTUNMAP);
	area_revert(&old, 0, old.size);
	area_gpu(&old, GPU_SUM, 0, old.size, 0);
	area_verify(&old, 0, old.size);
	if (old.kind != KIND_SHMEM) {
		area_gpu(&old, GPU_FILL, 0, old.size, job_value(job));
		area_verify(&old, 0, old.size);
	}
	if (old.mem != area->block)
		munmap(old.mem, old.size);
	free(old.shadow);
}

void job_live(struct job *job)
{
	switch (job->scenario->value[LIFE]) {
	case LIFE_HOLE:
		unmap_middle(job);
		break;
	case LIFE_RACE:
		unmap_while_moving(job);
		break;
	case LIFE_BUSY:
		unmap_while_busy(job);
		break;
	case LIFE_MREMAP:
		move(job);
		break;
	case LIFE_DONTUNMAP:
		move_and_keep(job);
		break;
	}
}
