// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "clock.h"
#include "world.h"

#define VRAM_PAGES	2048

static int world_fd(void)
{
	static int fd = -1;

	if (fd < 0) {
		fd = open("/dev/drm_pagemap_client", O_RDWR | O_CLOEXEC);
		check(fd >= 0, "/dev/drm_pagemap_client: %s", strerror(errno));
	}
	return fd;
}

void request(unsigned long cmd, void *args)
{
	check(!ioctl(world_fd(), cmd, args), "ioctl %lu: %s", cmd & 0xff, strerror(errno));
}

unsigned int gpu_add(unsigned int flags)
{
	struct client_add_gpu args = { .flags = flags, .vram_pages = VRAM_PAGES };

	request(CLIENT_IOC_ADD_GPU, &args);
	check(!args.result, "no GPU: %s", error_name(args.result));
	return args.gpu;
}

struct client_stats stats(unsigned int gpu)
{
	struct client_stats args = { .gpu = gpu };

	request(CLIENT_IOC_STATS, &args);
	return args;
}

/* --- Memory ---------------------------------------------------------------- */

static unsigned char *map_aligned(size_t len, size_t align, int advice)
{
	/* Nothing else comes next to it, so it is one area of its own. */
	size_t whole = len + 2 * align;
	unsigned char *area = mmap(NULL, whole, PROT_NONE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char *at;

	check(area != MAP_FAILED, "mmap: %s", strerror(errno));
	at = (unsigned char *)(((uintptr_t)area + align) & ~(align - 1));
	check(!mprotect(at, len, PROT_READ | PROT_WRITE), "mprotect: %s", strerror(errno));
	check(!madvise(at, len, advice), "madvise: %s", strerror(errno));
	return at;
}

unsigned char *map(size_t len)
{
	return map_aligned(len, HUGE, MADV_NOHUGEPAGE);
}

unsigned char *map_huge(size_t len)
{
	return map_aligned(len, HUGE, MADV_HUGEPAGE);
}

unsigned char *map_untouched(size_t len)
{
	return map_aligned(len, (size_t)1 << 30, MADV_HUGEPAGE);
}

/* Different for each byte of a page and for each page. */
static unsigned char pattern(const unsigned char *at)
{
	uintptr_t address = (uintptr_t)at;

	return address * 31 + (address >> 12) * 7 + (address >> 21) * 13 + 1;
}

void fill(unsigned char *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		at[i] = pattern(at + i);
}

void fill_small(unsigned char *at, size_t len)
{
	check(!prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "prctl: %s", strerror(errno));
	fill(at, len);
	check(!prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), "prctl: %s", strerror(errno));
}

static size_t compare(const unsigned char *at, size_t len, unsigned char invert, bool zero,
		      size_t *first)
{
	size_t wrong = 0;

	for (size_t i = 0; i < len; i++)
		if (at[i] != (zero ? 0 : (unsigned char)(pattern(at + i) ^ invert)) && !wrong++)
			*first = i;
	return wrong;
}

static void verify_as(const unsigned char *at, size_t len, unsigned char invert, bool zero)
{
	size_t first = 0;
	size_t wrong = compare(at, len, invert, zero, &first);

	check(!wrong, "%zu of %zu bytes are wrong, the first is at 0x%zx: 0x%02x", wrong, len,
	      first, at[first]);
}

void verify(const unsigned char *at, size_t len)
{
	verify_as(at, len, 0, false);
}

void verify_inverse(const unsigned char *at, size_t len)
{
	verify_as(at, len, 0xff, false);
}

void verify_zero(const unsigned char *at, size_t len)
{
	verify_as(at, len, 0, true);
}

size_t wrong_bytes(const unsigned char *at, size_t len)
{
	size_t first;

	return compare(at, len, 0, false, &first);
}

/* --- Migration ------------------------------------------------------------- */

int migrate(struct client_migrate *args)
{
	request(CLIENT_IOC_MIGRATE, args);
	return args->result;
}

int to_gpu(unsigned int gpu, const void *at, size_t len)
{
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + len,
	};

	return migrate(&args);
}

unsigned int place_with(struct client_migrate *args)
{
	int ret = migrate(args);

	check(!ret, "migrating 0x%llx bytes to GPU %u gave %s",
	      (unsigned long long)(args->end - args->start), args->gpu, error_name(ret));
	return args->id;
}

unsigned int place(unsigned int gpu, const void *at, size_t len)
{
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + len,
	};

	return place_with(&args);
}

int evict(unsigned int id)
{
	struct client_evict args = { .id = id };

	request(CLIENT_IOC_EVICT, &args);
	return args.result;
}

struct client_alloc_info alloc_info(unsigned int id)
{
	struct client_alloc_info args = { .id = id };

	request(CLIENT_IOC_ALLOC, &args);
	return args;
}

/* --- Pages ----------------------------------------------------------------- */

static uint16_t *states_of(const void *at, size_t len)
{
	uint16_t *states = calloc(len / PAGE, sizeof(*states));
	struct client_residency args = {
		.start = (uintptr_t)at, .end = (uintptr_t)at + len, .states = (uintptr_t)states,
	};

	check(states, "no memory");
	request(CLIENT_IOC_RESIDENCY, &args);
	return states;
}

size_t pages_in(unsigned int where, const void *at, size_t len)
{
	uint16_t *states = states_of(at, len);
	size_t pages = 0;

	for (size_t i = 0; i < len / PAGE; i++)
		pages += CLIENT_WHERE(states[i]) == where;
	free(states);
	return pages;
}

/* A page may be on the move just now: core mm compacts memory that a case has fragmented. */
void check_all_in(unsigned int where, const void *at, size_t len)
{
	size_t pages = pages_in(where, at, len);
	const char *name = where == CLIENT_RAM ? "RAM" : where == CLIENT_ABSENT ? "no place" : "VRAM";

	for (int tries = 0; tries < 10 && where == CLIENT_RAM && pages != len / PAGE; tries++) {
		sleep_ms(20);
		pages = pages_in(where, at, len);
	}
	check(pages == len / PAGE, "%zu of %zu pages are in %s", pages, len / PAGE, name);
}

unsigned int order_at(const void *at)
{
	uint16_t *states = states_of((void *)((uintptr_t)at & ~(PAGE - 1)), PAGE);
	unsigned int order = CLIENT_ORDER(states[0]);

	free(states);
	return order;
}

int page_op(unsigned int verb, const void *at, uint64_t arg)
{
	struct client_page args = { .verb = verb, .addr = (uintptr_t)at, .arg = arg };

	request(CLIENT_IOC_PAGE, &args);
	return args.result;
}

static void inject_any(unsigned int gpu, unsigned int hook, unsigned int nth, unsigned int times,
		       unsigned int err, unsigned int ms)
{
	struct client_inject args = {
		.gpu = gpu, .hook = hook, .nth = nth, .times = times, .err = err, .pause_ms = ms,
	};

	request(CLIENT_IOC_INJECT, &args);
}

void inject(unsigned int gpu, unsigned int hook, unsigned int nth, unsigned int times, int err)
{
	inject_any(gpu, hook, nth, times, err, 0);
}

void inject_pause(unsigned int gpu, unsigned int hook, unsigned int nth, unsigned int ms)
{
	inject_any(gpu, hook, nth, 1, 0, ms);
}

struct client_memory memory_request(unsigned int verb)
{
	struct client_memory args = { .verb = verb };

	request(CLIENT_IOC_MEMORY, &args);
	check(!args.result, "the driver gave %s to verb %u", error_name(args.result), verb);
	return args;
}

void fragment_memory(void)
{
	cpu_set_t all, one;

	/* Each processor has free pages of its own, which others don't get. */
	check(!sched_getaffinity(0, sizeof(all), &all), "sched_getaffinity");
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		check(!sched_setaffinity(0, sizeof(one), &one), "sched_setaffinity");
		memory_request(CLIENT_MEMORY_FRAGMENT);
	}
	check(!sched_setaffinity(0, sizeof(all), &all), "sched_setaffinity");
}

struct client_lifetime lifetime(unsigned int verb, unsigned int gpu, unsigned int slot,
				uint64_t arg)
{
	struct client_lifetime args = { .verb = verb, .gpu = gpu, .slot = slot, .arg = arg };

	request(CLIENT_IOC_LIFETIME, &args);
	return args;
}

struct client_owner owner(unsigned int verb, unsigned int peer, unsigned int peers)
{
	struct client_owner args = { .verb = verb, .peer = peer, .peers = peers };

	request(CLIENT_IOC_OWNER, &args);
	return args;
}

/* --- Touching -------------------------------------------------------------- */

static __thread sigjmp_buf bus_jump;

struct toucher {
	unsigned char *at;
	bool write;
	enum touch result;
};

static void on_sigbus(int number)
{
	siglongjmp(bus_jump, number);
}

static void *run_toucher(void *arg)
{
	struct toucher *toucher = arg;
	unsigned char byte;

	if (sigsetjmp(bus_jump, 1)) {
		toucher->result = TOUCH_SIGBUS;
		return NULL;
	}
	byte = __atomic_load_n(toucher->at, __ATOMIC_RELAXED);
	if (toucher->write)
		__atomic_store_n(toucher->at, byte, __ATOMIC_RELAXED);
	toucher->result = TOUCHED;
	return NULL;
}

static enum touch touch_as(const void *at, bool write, unsigned int ms)
{
	struct toucher *toucher = calloc(1, sizeof(*toucher));
	struct sigaction action = { .sa_handler = on_sigbus };
	struct timespec until;
	pthread_t thread;

	check(toucher, "no memory");
	toucher->at = (unsigned char *)at;
	toucher->write = write;
	sigaction(SIGBUS, &action, NULL);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	check(!pthread_create(&thread, NULL, run_toucher, toucher), "no thread");
	/* A thread that is stuck, and what it uses, stay until the process ends. */
	if (pthread_timedjoin_np(thread, NULL, &until))
		return TOUCH_STUCK;
	return toucher->result;
}

enum touch touch(const void *at, unsigned int ms)
{
	return touch_as(at, false, ms);
}

enum touch touch_write(void *at, unsigned int ms)
{
	return touch_as(at, true, ms);
}

const char *touch_name(enum touch touch)
{
	switch (touch) {
	case TOUCHED:
		return "reads it";
	case TOUCH_SIGBUS:
		return "gets SIGBUS";
	case TOUCH_STUCK:
		return "is stuck at it";
	}
	return "?";
}

void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	check(fd >= 0, "%s: %s", path, strerror(errno));
	check(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path,
	      strerror(errno));
	close(fd);
}
