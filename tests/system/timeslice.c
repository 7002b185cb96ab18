// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A timeslice keeps pages in VRAM against CPU faults, for that long and no longer.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "procs.h"

#define SIZE		(64 * KB)
#define SLICE_MS	500
#define LONGEST_MS	10000
/* How much of the slice may have passed by the time that populate returns. */
#define EARLY_MS	150
/* How long after the slice a fault may take. */
#define LATE_MS		4000

static void init_with_slice(struct buffer *buf, unsigned int ms)
{
	buffer_init(buf, SIZE);
	check_ok(simgpu_populate(gpu(), buf->mem, SIZE, ms));
}

static unsigned int touch_ms(const struct buffer *buf)
{
	uint64_t begun = now_ms();

	buffer_touch(buf, 0);
	return now_ms() - begun;
}

static void touch_waits_for_the_slice(void)
{
	struct buffer buf, free;
	unsigned int ms, free_ms;

	buffer_init_in_vram(&free, SIZE);
	free_ms = touch_ms(&free);

	init_with_slice(&buf, SLICE_MS);
	ms = touch_ms(&buf);
	check(ms >= SLICE_MS - EARLY_MS, "the page came home after %u ms of a slice of %u ms", ms,
	      SLICE_MS);
	check(ms <= SLICE_MS + LATE_MS * ktap_scale(), "a touch took %u ms, the slice %u ms", ms,
	      SLICE_MS);
	check(free_ms < ms, "without a slice it took %u ms, with one %u ms", free_ms, ms);
	buffer_verify(&buf);
}

static void slice_ends_by_itself(void)
{
	struct buffer buf;
	unsigned int ms;

	init_with_slice(&buf, SLICE_MS);
	sleep_ms(SLICE_MS + 50);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	ms = touch_ms(&buf);
	check(ms < SLICE_MS, "a touch after the slice took %u ms", ms);
	buffer_verify(&buf);
}

/* Evicted and populated anew without a slice: no wait. */
static void a_slice_ends_with_its_pages(void)
{
	struct buffer buf;

	init_with_slice(&buf, LONGEST_MS);
	buffer_evict(&buf);
	buffer_populate(&buf);
	check(touch_ms(&buf) < LONGEST_MS / 2, "the slice outlived its pages");
	buffer_verify(&buf);
}

static void *touch_in_thread(void *buf)
{
	buffer_verify(buf);
	return NULL;
}

/* While a fault waits, the pages are still there for the GPU. */
static void gpu_works_during_the_slice(void)
{
	struct buffer buf;
	pthread_t thread;
	uint64_t begun;

	init_with_slice(&buf, 2 * SLICE_MS);
	begun = now_ms();
	buffer_xor(&buf, 0x715);
	buffer_checksum(&buf);
	check(!pthread_create(&thread, NULL, touch_in_thread, &buf), "no thread");
	while (now_ms() - begun < SLICE_MS) {
		size_t count = buffer_count(&buf, 0, SIZE, SIMGPU_PLACE_VRAM);

		/* Only a count that was taken within the slice says something. */
		check(count == SIZE / PAGE || now_ms() - begun >= SLICE_MS,
		      "%zu pages have left VRAM within the slice", SIZE / PAGE - count);
		sleep_ms(10);
	}
	check(!pthread_join(thread, NULL), "pthread_join failed");
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
}

static void eviction_does_not_wait(void)
{
	struct buffer buf;
	uint64_t begun;

	init_with_slice(&buf, LONGEST_MS);
	begun = now_ms();
	buffer_evict(&buf);
	check(now_ms() - begun < LONGEST_MS * 8 / 10, "eviction waited for the slice");
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void touches(void *buf)
{
	buffer_verify(buf);
}

static void killed_while_waiting(void)
{
	struct buffer buf;
	uint64_t begun;
	pid_t child;

	init_with_slice(&buf, LONGEST_MS);
	begun = now_ms();
	child = start(touches, &buf);
	sleep_ms(200);
	check(!waitpid(child, NULL, WNOHANG), "the child did not wait for the slice");
	kill(child, SIGKILL);
	check(WIFSIGNALED(reap(child, 5)), "the child was not killed");
	check(now_ms() - begun < LONGEST_MS * 8 / 10, "a killed process waited for the slice");
	buffer_evict(&buf);
	buffer_verify(&buf);
}

static void exit_does_not_wait(void)
{
	struct buffer buf;
	uint64_t begun = now_ms();

	init_with_slice(&buf, LONGEST_MS);
	buffer_unmap(&buf);
	gpu_expect_all_free();
	check(now_ms() - begun < LONGEST_MS * 8 / 10, "unmapping waited for the slice");
}

/* The kernel's own accesses wait too, and get it right. */
static void system_call_within_the_slice(void)
{
	unsigned char part[4 * KB];
	struct buffer buf;
	uint64_t begun;
	int ends[2];

	init_with_slice(&buf, SLICE_MS);
	buffer_xor(&buf, 0x55);
	begun = now_ms();
	check(!pipe(ends), "pipe: %s", strerror(errno));
	check(write(ends[1], buf.mem, sizeof(part)) == sizeof(part), "write to a pipe: %s",
	      strerror(errno));
	check(now_ms() - begun < SLICE_MS + LATE_MS * ktap_scale(), "write() hung");
	check(read(ends[0], part, sizeof(part)) == sizeof(part), "read from a pipe: %s",
	      strerror(errno));
	buffer_verify(&buf);
	check(!memcmp(part, buf.mem, sizeof(part)), "write() sent wrong data");
}

static const struct ktap_test tests[] = {
	{ "touch_waits_for_the_slice", touch_waits_for_the_slice, 0 },
	{ "slice_ends_by_itself", slice_ends_by_itself, 0 },
	{ "a_slice_ends_with_its_pages", a_slice_ends_with_its_pages, 0 },
	{ "gpu_works_during_the_slice", gpu_works_during_the_slice, 0 },
	{ "eviction_does_not_wait", eviction_does_not_wait, 0 },
	{ "killed_while_waiting", killed_while_waiting, 0 },
	{ "exit_does_not_wait", exit_does_not_wait, 0 },
	{ "system_call_within_the_slice", system_call_within_the_slice, 0 },
};

KTAP_MAIN(tests, gpu_after_test)
