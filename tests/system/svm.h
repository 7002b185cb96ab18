/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Jobs of the GPU on the process's own addresses. What is not said to return an
 * error fails the test on one.
 */
#ifndef SVM_H
#define SVM_H

#include <stddef.h>
#include <stdint.h>

#include "gpu.h"

/* Make, and destroy, the process's address space; others are made by vm_create(). */
uint32_t vm(void);
uint32_t vm_create(void);
void vm_destroy(uint32_t vm_id);

/* From now on the process's is this one, of the file that gpu() is. */
void vm_use(uint32_t vm_id);

/* The file is closed, so it is gone. */
void vm_forget(void);

/* A job: .op, .queue, and what the op needs; the address space is vm() unless .vm_id says. */
#define job_t struct drm_simgpu_submit

/* Submit it; job_try() returns 0 or a negative errno and job_submit() waits for room. */
int job_try(job_t *job);
uint64_t job_submit(job_t job);

/* Wait for its end, whatever that is; a minute (scaled) is too long. */
struct drm_simgpu_wait job_wait(uint64_t number);

/* Submit and wait; job_run() returns the result of one that must end well. */
struct drm_simgpu_wait job_outcome(job_t job);
uint64_t job_run(job_t job);

/* Insist that a job ends so, with an error at an address. */
void job_expect_fault(job_t job, int error, const void *address, unsigned int access);

void svm_advise(void *start, size_t size, unsigned int prefer, unsigned int flags);
void svm_prefetch(void *start, size_t size, unsigned int place);
struct drm_simgpu_counters svm_counters(void);

/* Map memory; as huge pages, or as anything but those. */
void *map_pages(size_t size);
void *map_huge(size_t size);
void *map_small(size_t size);

/* How many pages are in @place; and all are, or the test fails. */
size_t count_places(void *start, size_t size, int place);
void expect_place(void *start, size_t size, int place);

/* The checksum of SIMGPU_JOB_CHECKSUM. */
uint64_t checksum(const uint64_t *words, size_t size);

#endif /* SVM_H */
