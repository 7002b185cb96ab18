// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Fork, copy-on-write, exec and exit while pages are in VRAM.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "procs.h"

#define SIZE (4 * MB)

/* Given to this program's own main(): open nothing, wait for stdin to end. */
#define IDLE_ARGUMENT "--idle"

static void child_verifies(void *buf)
{
	buffer_verify(buf);
}

static void child_writes(void *buf)
{
	buffer_write_range(buf, 0, SIZE / 2);
	buffer_verify(buf);
}

static void after_fork_child_reads(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	reap_ok(start(child_verifies, &buf));
	buffer_verify(&buf);
}

static void after_fork_child_writes(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	reap_ok(start(child_writes, &buf));
	buffer_verify(&buf);
}

/* The two sides of a fork, and gates to keep them in step. */
struct pair {
	struct buffer buf;
	struct gate child_may_go;
};

static void pair_init(struct pair *pair)
{
	gate_init(&pair->child_may_go);
	buffer_init_in_vram(&pair->buf, SIZE);
}

static void child_waits_then_verifies(void *arg)
{
	struct pair *pair = arg;

	gate_wait(&pair->child_may_go);
	buffer_verify(&pair->buf);
}

static void after_fork_parent_writes(void)
{
	struct pair pair;
	pid_t child;

	pair_init(&pair);
	child = start(child_waits_then_verifies, &pair);
	buffer_write_range(&pair.buf, MB, MB);
	buffer_verify(&pair.buf);
	gate_open(&pair.child_may_go);
	reap_ok(child);
	buffer_verify(&pair.buf);
}

static void child_writes_at_once(void *arg)
{
	struct pair *pair = arg;

	gate_wait(&pair->child_may_go);
	buffer_write(&pair->buf);
	buffer_verify(&pair->buf);
}

static void both_write_at_once(void)
{
	struct pair pair;
	pid_t child;

	pair_init(&pair);
	child = start(child_writes_at_once, &pair);
	gate_open(&pair.child_may_go);
	pair.buf.seed ^= 1;	/* Not what the child writes. */
	buffer_write(&pair.buf);
	buffer_verify(&pair.buf);
	reap_ok(child);
	buffer_verify(&pair.buf);
}

static void evicted_while_shared(void)
{
	struct pair pair;
	pid_t child;

	pair_init(&pair);
	child = start(child_waits_then_verifies, &pair);
	buffer_evict(&pair.buf);
	buffer_expect(&pair.buf, SIMGPU_PLACE_RAM);
	gate_open(&pair.child_may_go);
	reap_ok(child);
	buffer_write(&pair.buf);
	buffer_verify(&pair.buf);
}

/*
 * A GPU write is a write: the other process must not see it. The driver may
 * refuse it, since the page is not the caller's alone.
 */
static void gpu_writes_are_private(void)
{
	struct pair pair;
	pid_t child;
	int err;

	pair_init(&pair);
	child = start(child_waits_then_verifies, &pair);
	err = simgpu_xor(gpu(), pair.buf.mem, SIZE, 0xbad);
	check(!err || err == -EFAULT, "a GPU write to shared pages gave %s", error_name(err));
	if (!err)
		buffer_model_xor(&pair.buf, 0, SIZE, 0xbad);
	gate_open(&pair.child_may_go);
	reap_ok(child);
	buffer_verify(&pair.buf);
}

static void child_populates(void *arg)
{
	struct buffer *buf = arg;

	gpu_close();
	buffer_populate(buf);
	buffer_checksum(buf);
	buffer_verify(buf);
	buffer_write(buf);
	buffer_populate(buf);
	buffer_xor(buf, 0xc41d);
	buffer_verify(buf);
}

/* Pages in RAM that both share; the child brings them to VRAM. */
static void shared_pages_to_vram(void)
{
	struct buffer buf;

	buffer_init(&buf, SIZE);
	reap_ok(start(child_populates, &buf));
	buffer_populate(&buf);
	buffer_checksum(&buf);
	buffer_verify(&buf);
}

static void child_uses_its_own_memory(void *arg)
{
	struct buffer *parents = arg, own;

	/* Through the inherited file descriptor. */
	buffer_init(&own, SIZE);
	buffer_populate(&own);
	buffer_expect(&own, SIMGPU_PLACE_VRAM);
	buffer_xor(&own, 0xd1ff);
	buffer_verify(&own);
	buffer_expect(parents, SIMGPU_PLACE_RAM);
}

static void inherited_fd_means_the_callers_memory(void)
{
	struct buffer buf;

	buffer_init(&buf, SIZE);
	gpu();
	reap_ok(start(child_uses_its_own_memory, &buf));
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

/*
 * Three generations: the middle one populates, forks and exits; its child is
 * left with the pages in VRAM.
 */
struct orphan {
	struct pair pair;
	struct gate done;
	void (*last)(void *buf);	/* What the child does then. */
};

static void middle_generation(void *arg)
{
	struct orphan *orphan = arg;

	buffer_init_in_vram(&orphan->pair.buf, SIZE);
	if (!fork()) {
		gate_wait(&orphan->pair.child_may_go);
		orphan->last(&orphan->pair.buf);
		gate_open(&orphan->done);
	}
	_exit(0);
}

static void run_orphan(void (*last)(void *buf))
{
	struct orphan orphan = { .last = last };

	gate_init(&orphan.pair.child_may_go);
	gate_init(&orphan.done);
	reap_ok(start(middle_generation, &orphan));
	/* If the child fails, this gate gives "end of file". */
	close(orphan.done.ends[1]);
	gate_open(&orphan.pair.child_may_go);
	gate_wait(&orphan.done);
}

static void parent_exits_child_touches(void)
{
	run_orphan(child_verifies);
}

static void evicts(void *arg)
{
	struct buffer *buf = arg;

	buffer_evict(buf);
	buffer_expect(buf, SIMGPU_PLACE_RAM);
	buffer_verify(buf);
}

static void parent_exits_child_evicts(void)
{
	run_orphan(evicts);
}

static void parent_exits_child_populates(void)
{
	run_orphan(child_populates);
}

static void populates_and_waits(void *arg)
{
	struct gate *ready = arg;
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	gate_open(ready);
	pause();
}

static void exit_frees_vram(void)
{
	struct buffer buf;
	struct gate ready;
	pid_t child;

	gate_init(&ready);
	child = start(populates_and_waits, &ready);
	gate_wait(&ready);
	check(gpu_info().vram_free + SIZE <= gpu_info().vram_size,
	      "the pages of another process are not counted");
	kill(child, SIGKILL);
	check(WIFSIGNALED(reap(child, 10)), "the child was not killed");
	gpu_expect_all_free();

	/* A shared page lives on until both are gone. */
	buffer_init_in_vram(&buf, SIZE);
	reap_ok(start(child_writes, &buf));
	buffer_unmap(&buf);
	gpu_expect_all_free();
}

struct exec_case {
	struct gate ready;
	int stdin_ends[2];
};

static void populates_and_execs(void *arg)
{
	struct exec_case *exec_case = arg;
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	dup2(exec_case->stdin_ends[0], STDIN_FILENO);
	close(exec_case->stdin_ends[1]);
	gate_open(&exec_case->ready);
	execl("/proc/self/exe", "fork", IDLE_ARGUMENT, (char *)NULL);
	fail("exec: %s", strerror(errno));
}

static void exec_frees_vram(void)
{
	struct exec_case exec_case;
	pid_t child;

	gate_init(&exec_case.ready);
	check(!pipe(exec_case.stdin_ends), "pipe: %s", strerror(errno));
	child = start(populates_and_execs, &exec_case);
	gate_wait(&exec_case.ready);
	gpu_expect_all_free();
	check(!waitpid(child, NULL, WNOHANG), "the child is gone: nothing was tested");
	close(exec_case.stdin_ends[1]);
	reap_ok(child);
}

static void goes_round_and_round(void *arg)
{
	struct buffer *buf = arg;

	buffer_write(buf);	/* Its own pages now, no longer the parent's. */
	for (;;) {
		buffer_populate(buf);
		buffer_xor(buf, 0x11);
		buffer_evict(buf);
	}
}

/* Killed at any point of the way, a process leaves nothing behind. */
static void killed_at_work(void)
{
	for (unsigned int i = 0; i < 8; i++) {
		struct buffer buf;
		pid_t child;

		buffer_init(&buf, SIZE);
		child = start(goes_round_and_round, &buf);
		sleep_ms(20 + 37 * i);
		kill(child, SIGKILL);
		check(WIFSIGNALED(reap(child, 10)), "the child ended before it was killed");
		buffer_verify(&buf);
		buffer_unmap(&buf);
		gpu_expect_all_free();
	}
}

static const struct ktap_test tests[] = {
	{ "after_fork_child_reads", after_fork_child_reads, 0 },
	{ "after_fork_child_writes", after_fork_child_writes, 0 },
	{ "after_fork_parent_writes", after_fork_parent_writes, 0 },
	{ "both_write_at_once", both_write_at_once, 0 },
	{ "evicted_while_shared", evicted_while_shared, 0 },
	{ "gpu_writes_are_private", gpu_writes_are_private, 0 },
	{ "shared_pages_to_vram", shared_pages_to_vram, 0 },
	{ "inherited_fd_means_the_callers_memory", inherited_fd_means_the_callers_memory, 0 },
	{ "parent_exits_child_touches", parent_exits_child_touches, 0 },
	{ "parent_exits_child_evicts", parent_exits_child_evicts, 0 },
	{ "parent_exits_child_populates", parent_exits_child_populates, 0 },
	{ "exit_frees_vram", exit_frees_vram, 0 },
	{ "exec_frees_vram", exec_frees_vram, 0 },
	{ "killed_at_work", killed_at_work, 60 },
};

int main(int argc, char **argv)
{
	const struct ktap_suite suite = {
		.tests = tests,
		.count = sizeof(tests) / sizeof(*tests),
		.after = gpu_after_test,
	};
	char byte;

	if (argc == 2 && !strcmp(argv[1], IDLE_ARGUMENT))
		return read(STDIN_FILENO, &byte, 1) < 0;
	return ktap_main(&suite, argc, argv);
}
