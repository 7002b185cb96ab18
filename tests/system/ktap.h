/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A small test runner that reports in KTAP.
 *
 * Each test runs in a forked child, in a process group of its own, and has a
 * time limit: a crash or a hang is a failure with a reason, never a stuck run.
 * Processes that a test leaves behind are killed.
 */
#ifndef KTAP_H
#define KTAP_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

struct ktap_test {
	const char *name;
	void (*run)(void);
	unsigned int seconds;	/* Time limit before scaling; 0: the default. */
};

struct ktap_suite {
	const struct ktap_test *tests;
	size_t count;
	/*
	 * Called in a child of its own after each test, when all the test's
	 * processes are gone. May call fail(). Can be NULL.
	 */
	void (*after)(void);
	/* Called in the runner when a test has failed, for a diag(). Can be NULL. */
	void (*failed)(const struct ktap_test *test);
};

/* The test at hand. */
const struct ktap_test *ktap_test(void);

/*
 * Command line: nothing runs all tests, else those whose name contains one of
 * the arguments, or is it, for an argument that is =NAME; --list names them. Returns the exit status: 0 if no test failed.
 */
int ktap_main(const struct ktap_suite *suite, int argc, char **argv);

#define KTAP_MAIN(tests_, after_)						\
	int main(int argc, char **argv)						\
	{									\
		const struct ktap_suite suite = {				\
			.tests = (tests_),					\
			.count = sizeof(tests_) / sizeof((tests_)[0]),		\
			.after = (after_),					\
		};								\
										\
		exit(ktap_main(&suite, argc, argv));				\
	}

/*
 * How slow the machine is, from SIMGPU_TEST_SCALE (default 1): multiplies all
 * time limits and the length of load tests.
 */
unsigned int ktap_scale(void);

/* A number, 0 at first, that all tests and hooks of this program share. */
atomic_ulong *ktap_shared_number(void);

/* End the test, from any process or thread of it. The first reason counts. */
#define fail(...) ktap_fail(__FILE_NAME__, __LINE__, __VA_ARGS__)
[[noreturn, gnu::format(printf, 3, 4)]]
void ktap_fail(const char *file, int line, const char *format, ...);
[[noreturn, gnu::format(printf, 1, 2)]]
void skip(const char *format, ...);

#define check(condition, ...)			\
	do {					\
		if (!(condition))		\
			fail(__VA_ARGS__);	\
	} while (0)

/* Check a call that returns 0 or a negative errno. */
#define check_ok(call) check_result(call, 0)
#define check_result(call, expected) \
	ktap_check_result(__FILE_NAME__, __LINE__, #call, call, expected)
void ktap_check_result(const char *file, int line, const char *what, int got, int expected);

/* The name of a negative errno, for messages. */
const char *error_name(int err);

/* Print a "# ..." line. */
[[gnu::format(printf, 1, 2)]]
void diag(const char *format, ...);

#endif /* KTAP_H */
