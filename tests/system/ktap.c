// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "ktap.h"
#include "stuck.h"

#define DEFAULT_SECONDS	30
/* How long killed processes may take to go. */
#define REAP_SECONDS	10
#define USAGE_STATUS	2

enum verdict { UNDECIDED, PASSED, FAILED, SKIPPED };

/* What all processes share: the outcome of the test at hand, and the number. */
static struct shared {
	atomic_int verdict;
	char reason[300];
	atomic_ulong number;
} *shared;

static const struct ktap_test *current;

const struct ktap_test *ktap_test(void)
{
	return current;
}

atomic_ulong *ktap_shared_number(void)
{
	return &shared->number;
}

unsigned int ktap_scale(void)
{
	const char *text = getenv("SIMGPU_TEST_SCALE");
	int scale = text ? atoi(text) : 1;

	return scale > 0 ? scale : 1;
}

/* Only the first verdict counts, so that a reason is never overwritten. */
static void decide(enum verdict verdict, const char *where, const char *format, va_list args)
{
	int undecided = UNDECIDED;
	char reason[sizeof(shared->reason)];
	int len = snprintf(reason, sizeof(reason), "%s", where);

	vsnprintf(reason + len, sizeof(reason) - len, format, args);
	for (char *c = reason; *c; c++)
		if (*c == '\n' || *c == '#')
			*c = ' ';
	if (atomic_compare_exchange_strong(&shared->verdict, &undecided, verdict))
		memcpy(shared->reason, reason, sizeof(reason));
}

void ktap_fail(const char *file, int line, const char *format, ...)
{
	char where[100];
	va_list args;

	snprintf(where, sizeof(where), "%s:%d: ", file, line);
	va_start(args, format);
	decide(FAILED, where, format, args);
	va_end(args);
	_exit(1);
}

/* A failure that the runner itself found. */
[[gnu::format(printf, 1, 2)]]
static void note_failure(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	decide(FAILED, "", format, args);
	va_end(args);
}

void skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	decide(SKIPPED, "", format, args);
	va_end(args);
	_exit(0);
}

const char *error_name(int err)
{
	const char *name = err < 0 ? strerrorname_np(-err) : NULL;

	return err == 0 ? "success" : name ? name : "an unknown error";
}

void ktap_check_result(const char *file, int line, const char *what, int got, int expected)
{
	if (got != expected)
		ktap_fail(file, line, "%s gave %s (%d), expected %s", what, error_name(got), got,
			  error_name(expected));
}

void diag(const char *format, ...)
{
	char line[400] = "# ";
	va_list args;
	size_t len;

	va_start(args, format);
	vsnprintf(line + 2, sizeof(line) - 3, format, args);
	va_end(args);
	len = strcspn(line, "\n");
	line[len++] = '\n';
	/* One write, so that lines of several processes do not mix. */
	if (write(STDOUT_FILENO, line, len) < 0)
		_exit(1);
}

static pid_t start_child(void (*run)(void))
{
	pid_t runner = getpid();
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		note_failure("fork: %s", strerror(errno));
		return -1;
	}
	if (pid) {
		/* Both sides do it, so that it is done for either. */
		setpgid(pid, pid);
		return pid;
	}

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != runner)
		_exit(1);
	run();
	_exit(0);
}

/* Wait for @pid (or, if negative, for all of that process group). */
static bool wait_until(pid_t pid, uint64_t deadline, int *status)
{
	unsigned int pause = 1;

	while (now_ms() < deadline) {
		pid_t got = waitpid(pid, status, WNOHANG);

		if (got < 0 && errno == ECHILD)
			return true;
		if (got > 0 && pid > 0)
			return true;
		if (!got) {
			sleep_ms(pause);
			if (pause < 20)
				pause++;
		}
	}
	return false;
}

/* Kill what is left of the test's process group, and wait until it is gone. */
static void clean_up(pid_t group)
{
	int status;

	kill(-group, SIGKILL);
	if (wait_until(-group, now_ms() + REAP_SECONDS * 1000 * ktap_scale(), &status))
		return;
	note_failure("some process cannot be killed");
	stuck_describe(group);
}

static void run_phase(void (*run)(void), unsigned int seconds)
{
	pid_t pid = start_child(run);
	int status = 0;

	if (pid < 0)
		return;
	if (!wait_until(pid, now_ms() + seconds * 1000ull, &status)) {
		note_failure("hung: still running after %u s", seconds);
		stuck_describe(pid);
	} else if (WIFSIGNALED(status)) {
		note_failure("killed by signal %d (%s)", WTERMSIG(status),
			     strsignal(WTERMSIG(status)));
	} else if (WEXITSTATUS(status)) {
		note_failure("exited with status %d", WEXITSTATUS(status));
	}
	clean_up(pid);
}

static enum verdict run_test(const struct ktap_suite *suite, const struct ktap_test *test)
{
	unsigned int seconds = (test->seconds ? test->seconds : DEFAULT_SECONDS) * ktap_scale();

	current = test;
	shared->verdict = UNDECIDED;
	shared->reason[0] = '\0';
	run_phase(test->run, seconds);
	/* Whatever the outcome: it also puts things right for the next test. */
	if (suite->after)
		run_phase(suite->after, DEFAULT_SECONDS * ktap_scale());
	if (shared->verdict == UNDECIDED)
		shared->verdict = PASSED;
	return shared->verdict;
}

static void report(size_t number, const char *name, enum verdict verdict, uint64_t ms)
{
	/* Before the result line, where KTAP wants what belongs to a test. */
	if (ms >= 1000)
		printf("# %s took %.1f s\n", name, ms / 1e3);
	if (verdict == PASSED)
		printf("ok %zu %s\n", number, name);
	else if (verdict == SKIPPED)
		printf("ok %zu %s # SKIP %s\n", number, name, shared->reason);
	else
		printf("not ok %zu %s # %s\n", number, name, shared->reason);
	fflush(stdout);
}

static bool selected(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (argv[i][0] == '=' ? !strcmp(name, argv[i] + 1) : !!strstr(name, argv[i]))
			return true;
	return argc <= 1;
}

int ktap_main(const struct ktap_suite *suite, int argc, char **argv)
{
	size_t totals[SKIPPED + 1] = { 0 };
	size_t planned = 0, number = 0;

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (size_t i = 0; i < suite->count; i++)
			puts(suite->tests[i].name);
		return 0;
	}
	for (size_t i = 0; i < suite->count; i++)
		planned += selected(suite->tests[i].name, argc, argv);
	if (!planned) {
		fprintf(stderr, "%s: no test has such a name; --list names them\n", argv[0]);
		return USAGE_STATUS;
	}

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	/* Orphans of a test become our children, so that we can wait for them. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);

	printf("KTAP version 1\n1..%zu\n", planned);
	for (size_t i = 0; i < suite->count; i++) {
		const struct ktap_test *test = &suite->tests[i];
		uint64_t start = now_ms();
		enum verdict verdict;

		if (!selected(test->name, argc, argv))
			continue;
		verdict = run_test(suite, test);
		totals[verdict]++;
		if (verdict == FAILED && suite->failed)
			suite->failed(test);
		report(++number, test->name, verdict, now_ms() - start);
	}
	printf("# Totals: pass:%zu fail:%zu skip:%zu\n", totals[PASSED], totals[FAILED],
	       totals[SKIPPED]);
	return totals[FAILED] ? 1 : 0;
}
