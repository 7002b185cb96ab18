// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The policy for C drivers, by drm_pagemap's module parameters. The kernel's own
 * has none: skipped there. A case leaves them as they were; the guest sees to it
 * that no other case runs if one does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "procs.h"
#include "world.h"

#define PARAMETERS	"/sys/module/drm_pagemap/parameters/"

static const struct {
	const char *name, *value;
} defaults[] = {
	{ "fault_window", "allocation" },
	{ "timeslice_sleep", "Y" },
	{ "thrash_bounces", "3" },
	{ "thrash_window_ms", "100" },
	{ "thrash_pin_ms", "0" },
};

static void need_policy(void)
{
	if (access(PARAMETERS "fault_window", F_OK))
		skip("this provider has no policy");
}

static const char *get(const char *name)
{
	static char value[64];
	char path[100];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0, "%s: %s", path, strerror(errno));
	len = read(fd, value, sizeof(value) - 1);
	check(len > 0, "%s: %s", path, strerror(errno));
	close(fd);
	value[len] = 0;
	value[strcspn(value, "\n")] = 0;
	return value;
}

/* Returns 0 or a negative errno. */
static int set(const char *name, const char *value)
{
	char path[100];
	int fd, ret = 0;

	snprintf(path, sizeof(path), PARAMETERS "%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	check(fd >= 0, "%s: %s", path, strerror(errno));
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static void set_ok(const char *name, const char *value)
{
	need_policy();
	check(!set(name, value), "%s=%s: %s", name, value, strerror(errno));
	check(!strcmp(get(name), value), "%s is %s, not %s", name, get(name), value);
}

static void restore(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(defaults); i++)
		set_ok(defaults[i].name, defaults[i].value);
}

static void default_values(void)
{
	need_policy();
	for (size_t i = 0; i < ARRAY_SIZE(defaults); i++)
		check(!strcmp(get(defaults[i].name), defaults[i].value), "%s is %s",
		      defaults[i].name, get(defaults[i].name));
}

static void bad_values(void)
{
	static const struct {
		const char *name, *value;
	} bad[] = {
		{ "fault_window", "pages" },
		{ "fault_window", "1" },
		{ "fault_window", "allocation page" },
		{ "timeslice_sleep", "perhaps" },
		{ "thrash_bounces", "0" },
		{ "thrash_bounces", "1001" },
		{ "thrash_bounces", "many" },
		{ "thrash_window_ms", "0" },
		{ "thrash_window_ms", "-1" },
		{ "thrash_window_ms", "60001" },
		{ "thrash_pin_ms", "10001" },
		{ "thrash_pin_ms", "1.5" },
		{ "thrash_pin_ms", "99999999999" },
	};

	need_policy();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check(set(bad[i].name, bad[i].value) == -EINVAL, "%s=%s was taken", bad[i].name,
		      bad[i].value);
	default_values();
	/* With and without a newline. */
	set_ok("fault_window", "page");
	check(!set("fault_window", "adaptive\n"), "a newline");
	check(!strcmp(get("fault_window"), "adaptive"), "it is %s", get("fault_window"));
	restore();
}

/* Memory that only the device's work makes right; each byte is the inverse of the pattern. */
static unsigned char *worked_on(unsigned int gpu, unsigned char *at, size_t len)
{
	fill(at, len);
	place(gpu, at, len);
	check(page_op(CLIENT_PAGE_INVERT, at, len) == (int)(len / PAGE), "not all there");
	return at;
}

static void peek(const unsigned char *at)
{
	unsigned char byte = *at;

	/* It is wanted for nothing, and read all the same. */
	asm volatile("" : : "r"(byte));
}

/* Reads a byte; returns how many pages came home. */
static size_t read_byte(const unsigned char *at, const unsigned char *all, size_t len)
{
	size_t before = pages_in(CLIENT_RAM, all, len);

	peek(at);
	return pages_in(CLIENT_RAM, all, len) - before;
}

static void window_page(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at;

	set_ok("fault_window", "page");
	at = worked_on(gpu, map(64 * KB), 64 * KB);
	for (size_t i = 0; i < 64 * KB; i += 3 * PAGE)
		check(read_byte(at + i, at, 64 * KB) == 1, "not a page");
	verify_inverse(at, 64 * KB);
	wait_stat(gpu, live, 0);
	check(stats(gpu).copies_out == 16, "%llu copies", stats(gpu).copies_out);
	restore();
}

static void window_adaptive(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *room = map(2 * HUGE);
	unsigned char *at = (void *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));

	set_ok("fault_window", "adaptive");
	worked_on(gpu, at, HUGE);
	check(read_byte(at + MB, at, HUGE) == 16, "not 64 KiB");
	verify_inverse(at, HUGE);
	wait_stat(gpu, live, 0);
	check(stats(gpu).copies_out <= 10, "%llu copies", stats(gpu).copies_out);
	check(stats(gpu).bytes_out == HUGE, "%llu bytes", stats(gpu).bytes_out);
	restore();
}

static void window_allocation(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = worked_on(gpu, map(64 * KB), 64 * KB);

	/* What holds is what the parameter says when the fault comes. */
	set_ok("fault_window", "page");
	check(read_byte(at, at, 64 * KB) == 1, "not a page");
	set_ok("fault_window", "allocation");
	check(read_byte(at + PAGE, at, 64 * KB) > 1, "still a page");
	verify_inverse(at, 64 * KB);
	wait_stat(gpu, live, 0);
	restore();
}

static void window_huge(void)
{
	static const char *const windows[] = { "page", "adaptive" };

	need_policy();
	for (int i = 0; i < 2; i++) {
		unsigned int gpu = gpu_add(0);
		unsigned char *at = map_huge(HUGE);

		set_ok("fault_window", windows[i]);
		worked_on(gpu, at, HUGE);
		check(order_at(at) == 9, "not a 2 MiB page");
		check(read_byte(at + MB, at, HUGE) == HUGE / PAGE, "%s: not whole", windows[i]);
		check(order_at(at) == 9, "%s: split", windows[i]);
		verify_inverse(at, HUGE);
		wait_stat(gpu, live, 0);
	}
	restore();
}

struct inverse {
	unsigned char *at;
	size_t len;
};

static void verify_in_child(void *arg)
{
	struct inverse *memory = arg;

	verify_inverse(memory->at, memory->len);
	memset(memory->at, 0, memory->len);
}

static void window_fork(void)
{
	static const char *const windows[] = { "page", "adaptive" };

	need_policy();
	for (int i = 0; i < 2; i++) {
		unsigned int gpu = gpu_add(0);
		struct inverse memory = { .at = map(MB), .len = MB };

		set_ok("fault_window", windows[i]);
		worked_on(gpu, memory.at, MB);
		peek(memory.at + 600 * KB);
		reap_ok(start(verify_in_child, &memory));
		verify_inverse(memory.at, MB);
		wait_stat(gpu, live, 0);
	}
	restore();
}

static void window_moved(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(MB), *to = map(2 * MB) + 20 * KB, *back;

	set_ok("fault_window", "adaptive");
	worked_on(gpu, at, MB);
	peek(at + 300 * KB);
	check(mremap(at, MB, MB, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
	for (size_t i = 0; i < MB; i += 5 * PAGE)
		peek(to + i);
	/* The pattern is of the old address. */
	back = mremap(to, MB, MB, MREMAP_MAYMOVE | MREMAP_FIXED, at);
	check(back == at, "mremap: %s", strerror(errno));
	verify_inverse(at, MB);
	wait_stat(gpu, live, 0);
	restore();
}

static void bounce(unsigned int gpu, unsigned char *at, int times)
{
	for (int i = 0; i < times; i++) {
		place(gpu, at, 64 * KB);
		peek(at);
	}
}

/* A CPU waits for memory that bounces; nothing is refused to the driver. */
static void thrash(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	uint64_t begin;

	set_ok("thrash_window_ms", "60000");
	set_ok("thrash_pin_ms", "1000");
	fill(at, 64 * KB);
	bounce(gpu, at, 3);
	begin = now_ms();
	place(gpu, at, 64 * KB);
	check(touch(at, 10000) == TOUCHED, "the reader is stuck");
	/* Jiffies are coarse. */
	check(now_ms() - begin >= 900, "it took %llu ms", (unsigned long long)(now_ms() - begin));
	verify(at, 64 * KB);
	restore();

	/* Off, the same takes no time; a pin would be of 1000 ms each. */
	begin = now_ms();
	bounce(gpu, at, 10);
	check(now_ms() - begin < 5000 * ktap_scale(), "it took %llu ms",
	      (unsigned long long)(now_ms() - begin));
	verify(at, 64 * KB);
	wait_stat(gpu, live, 0);
}

/* Without the sleep, the reader comes home as well. */
static void timeslice_refault(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(PAGE);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + PAGE, .timeslice_ms = 200,
	};
	uint64_t begin;

	set_ok("timeslice_sleep", "N");
	fill(at, PAGE);
	begin = now_ms();
	place_with(&args);
	check(touch(at, 10000) == TOUCHED, "the reader is stuck");
	check(now_ms() - begin >= 150, "it took %llu ms", (unsigned long long)(now_ms() - begin));
	verify(at, PAGE);
	restore();
}

static const struct ktap_test tests[] = {
	{ "policy_defaults", default_values, 10 },
	{ "policy_bad_values", bad_values, 10 },
	{ "policy_page", window_page, 20 },
	{ "policy_adaptive", window_adaptive, 20 },
	{ "policy_allocation", window_allocation, 20 },
	{ "policy_huge", window_huge, 20 },
	{ "policy_fork", window_fork, 20 },
	{ "policy_moved", window_moved, 20 },
	{ "policy_thrash", thrash, 30 },
	{ "policy_timeslice_refault", timeslice_refault, 20 },
};

CASES(policy_cases, tests);
