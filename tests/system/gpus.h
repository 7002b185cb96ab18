/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Several GPUs in one guest. Their numbers are those of the host's requests, too.
 */
#ifndef GPUS_H
#define GPUS_H

#include <stdbool.h>
#include <stdint.h>

#include "driver.h"
#include "svm.h"

/* How many the guest has, at most. */
#define MAX_GPUS	4

/*
 * Open GPU @number, and make it an address space of this process, if it answers.
 * Returns whether it does.
 */
bool gpus_open(int number);

/* Fail unless there are @count, and all answer. */
void gpus_open_all(int count);

/* Close it; it may have gone. */
void gpus_close(int number);

/* What gpu() and vm() are from now on. */
void gpus_use(int number);

/* Where it is in sysfs. */
struct binding gpus_binding(int number);

/* The line "simgpu-KEY:" of its file in debugfs. */
uint64_t gpus_number(int number, const char *key);

#endif /* GPUS_H */
