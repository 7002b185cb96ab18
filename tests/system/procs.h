/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Processes inside a test: start them, keep them in step, wait for them with a
 * deadline.
 */
#ifndef PROCS_H
#define PROCS_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * fork(). The kernel lets it fail with ENOMEM if it comes to a page of RAM that a device has for
 * itself, for atomic operations, and that somebody else has locked just then. So that is tried again.
 */
pid_t fork_process(void);

/* Run @run in a forked child, which then exits with status 0. */
pid_t start(void (*run)(void *), void *arg);

/* Wait for the end; more than @seconds (scaled) fail the test. Returns the wait status. */
int reap(pid_t pid, unsigned int seconds);

/* ...and fail the test unless it exited with status 0. */
void reap_ok(pid_t pid);

/* The signal that ends a child which runs @run, or 0 if it exits with status 0. */
int signal_of(void (*run)(void *), void *arg);

/* ...that reads, or writes, the byte at @address. */
int signal_of_read(const void *address);
int signal_of_write(void *address);

/* A gate: gate_wait() returns once per gate_open(), across fork. */
struct gate {
	int ends[2];
};

void gate_init(struct gate *gate);
void gate_open(struct gate *gate);
void gate_wait(struct gate *gate);

#endif /* PROCS_H */
