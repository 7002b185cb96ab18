// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "ktap.h"
#include "procs.h"
#include "stuck.h"

#define REAP_SECONDS 25
#define FORK_SECONDS 10

pid_t fork_process(void)
{
	uint64_t deadline = now_ms() + FORK_SECONDS * 1000ull * ktap_scale();
	pid_t pid;

	while ((pid = fork()) < 0 && errno == ENOMEM && now_ms() < deadline)
		sleep_ms(5);
	check(pid >= 0, "fork: %s", strerror(errno));
	return pid;
}

pid_t start(void (*run)(void *), void *arg)
{
	pid_t pid = fork_process();

	if (pid)
		return pid;
	run(arg);
	_exit(0);
}

int reap(pid_t pid, unsigned int seconds)
{
	uint64_t deadline = now_ms() + seconds * 1000ull * ktap_scale();
	int status;

	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG);

		check(got >= 0 || errno == EINTR, "waitpid: %s", strerror(errno));
		if (got == pid)
			return status;
		if (now_ms() >= deadline) {
			stuck_describe(getpgrp());
			fail("a process of the test did not end within %u s",
			     seconds * ktap_scale());
		}
		sleep_ms(1);
	}
}

void reap_ok(pid_t pid)
{
	int status = reap(pid, REAP_SECONDS);

	check(!WIFSIGNALED(status), "a process of the test was killed by signal %d (%s)",
	      WTERMSIG(status), strsignal(WTERMSIG(status)));
	check(!WEXITSTATUS(status), "a process of the test exited with status %d",
	      WEXITSTATUS(status));
}

int signal_of(void (*run)(void *), void *arg)
{
	int status = reap(start(run, arg), REAP_SECONDS);

	if (WIFSIGNALED(status))
		return WTERMSIG(status);
	check(!WEXITSTATUS(status), "a process of the test exited with status %d",
	      WEXITSTATUS(status));
	return 0;
}

static void read_byte(void *address)
{
	(void)__atomic_load_n((char *)address, __ATOMIC_RELAXED);
}

static void write_byte(void *address)
{
	__atomic_store_n((char *)address, 1, __ATOMIC_RELAXED);
}

int signal_of_read(const void *address)
{
	return signal_of(read_byte, (void *)address);
}

int signal_of_write(void *address)
{
	return signal_of(write_byte, address);
}

void gate_init(struct gate *gate)
{
	check(!pipe(gate->ends), "pipe: %s", strerror(errno));
}

void gate_open(struct gate *gate)
{
	check(write(gate->ends[1], "", 1) == 1, "write to a pipe: %s", strerror(errno));
}

void gate_wait(struct gate *gate)
{
	char byte;
	ssize_t got;

	do
		got = read(gate->ends[0], &byte, 1);
	while (got < 0 && errno == EINTR);
	check(got == 1, "read from a pipe: %s", got ? strerror(errno) : "end of file");
}
