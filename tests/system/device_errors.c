// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The device fails, hangs or dawdles on request: clear errors in bounded time,
 * and no byte is lost.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "procs.h"

#define SIZE		(4 * MB)
#define ALWAYS		1000000
/* How long any call may take with a device that hangs. */
#define HANG_MS		30000
#define HANG_TEST_S	100

static void populate_fails(void)
{
	struct buffer buf;

	buffer_init(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, ALWAYS, 0);
	check_result(simgpu_populate(gpu(), buf.mem, SIZE, 0), -EIO);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);

	gpu_behave();
	buffer_populate(&buf);
	buffer_xor(&buf, 0x1);
	buffer_verify(&buf);
}

/* Once: the driver may try again by itself. */
static void populate_fails_once(void)
{
	struct buffer buf;
	int err;

	buffer_init(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, 1, 0);
	err = simgpu_populate(gpu(), buf.mem, SIZE, 0);
	check(!err || err == -EIO, "populate gave %s", error_name(err));
	if (!err)
		buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	buffer_verify(&buf);
	buffer_populate(&buf);
	buffer_xor(&buf, 0x1);
	buffer_verify(&buf);
}

/* Memory that was never touched is cleared in VRAM, or copied as zero. */
static void populate_of_untouched_memory_fails(void)
{
	struct buffer buf;
	int err;

	buffer_map(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, ALWAYS, 0);
	err = simgpu_populate(gpu(), buf.mem, SIZE, 0);
	check_result(err, -EIO);
	gpu_behave();
	buffer_populate(&buf);
	buffer_checksum(&buf);
	buffer_verify(&buf);
}

static void *populating_thread(void *arg)
{
	struct buffer *buf = arg;

	return (void *)(intptr_t)simgpu_populate(gpu(), buf->mem, buf->size, 0);
}

/* Fail one descriptor in the midst of a populate that is slow enough to hit. */
static void populate_fails_half_way(void)
{
	unsigned int failed = 0;

	for (unsigned int ms = 5; ms <= 640; ms *= 2) {
		struct buffer buf;
		pthread_t thread;
		void *err;

		buffer_init(&buf, 2 * SIZE);
		gpu_inject(SIMGPU_INJECT_DELAY, ALWAYS, 20000);
		check(!pthread_create(&thread, NULL, populating_thread, &buf), "no thread");
		sleep_ms(ms);
		gpu_inject(SIMGPU_INJECT_FAIL, 1, 0);
		pthread_join(thread, &err);
		check(!err || (intptr_t)err == -EIO, "populate gave %s",
		      error_name((intptr_t)err));
		failed += !!err;
		buffer_verify(&buf);

		gpu_behave();
		buffer_populate(&buf);
		buffer_xor(&buf, ms);
		buffer_verify(&buf);
		buffer_unmap(&buf);
	}
	diag("%u of 8 populates failed", failed);
	check(failed, "no populate was slow enough to hit");
}

static void evict_fails(void)
{
	struct buffer buf;
	int err;

	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, ALWAYS, 0);
	err = simgpu_evict(gpu(), buf.mem, SIZE);
	check(err == -EIO || err == -EBUSY, "evict gave %s", error_name(err));
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);

	gpu_behave();
	buffer_checksum(&buf);
	buffer_evict(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void evict_fails_once(void)
{
	struct buffer buf;
	int err;

	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, 1, 0);
	err = simgpu_evict(gpu(), buf.mem, SIZE);
	check(!err || err == -EIO || err == -EBUSY, "evict gave %s", error_name(err));
	gpu_behave();
	buffer_evict(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void verifies(void *buf)
{
	buffer_verify(buf);
}

/* A touch that cannot be served: SIGBUS for who touched, and nothing else. */
static void expect_bus_error_or_right_data(struct buffer *buf)
{
	int signal = signal_of(verifies, buf);

	check(!signal || signal == SIGBUS, "a touch ended in signal %d (%s)", signal,
	      strsignal(signal));
}

static void fault_fails(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, ALWAYS, 0);
	check(signal_of(verifies, &buf) == SIGBUS, "a touch that cannot be served gave no SIGBUS");
	check(buffer_count(&buf, 0, SIZE, SIMGPU_PLACE_VRAM) == SIZE / PAGE,
	      "pages left VRAM without a copy");

	gpu_behave();
	buffer_checksum(&buf);
	buffer_verify(&buf);
}

static void fault_fails_once(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, 1, 0);
	expect_bus_error_or_right_data(&buf);
	gpu_behave();
	buffer_verify(&buf);
}

static void gpu_work_fails(void)
{
	struct buffer buf;
	uint64_t sum;

	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, ALWAYS, 0);
	check_result(simgpu_xor(gpu(), buf.mem, SIZE, 0x1), -EIO);
	check_result(simgpu_fill(gpu(), buf.mem, SIZE, 0x1), -EIO);
	check_result(simgpu_checksum(gpu(), buf.mem, SIZE, &sum), -EIO);
	gpu_behave();
	buffer_checksum(&buf);	/* Each descriptor failed: nothing has changed. */
	buffer_xor(&buf, 0x2);
	buffer_verify(&buf);
}

/* Who leaves with pages in VRAM needs no copy, so no device that works. */
static void exit_with_a_failing_device(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_FAIL, ALWAYS, 0);
	buffer_unmap(&buf);
	gpu_expect_all_free();
}

static void check_time(uint64_t begun)
{
	check(now_ms() - begun < HANG_MS * ktap_scale(), "a call took %u ms",
	      (unsigned int)(now_ms() - begun));
}

static void populate_hangs(void)
{
	struct buffer buf;
	uint64_t begun;

	buffer_init(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_HANG, 1, 0);
	begun = now_ms();
	check_result(simgpu_populate(gpu(), buf.mem, SIZE, 0), -EIO);
	check_time(begun);
	diag("the hang took %u ms", (unsigned int)(now_ms() - begun));
	buffer_verify(&buf);

	buffer_populate(&buf);	/* The driver has reset the device. */
	buffer_xor(&buf, 0x1);
	buffer_verify(&buf);
}

static void evict_hangs(void)
{
	struct buffer buf;
	uint64_t begun;
	int err;

	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_HANG, 1, 0);
	begun = now_ms();
	err = simgpu_evict_once(gpu(), buf.mem, SIZE);
	check(!err || err == -EIO || err == -EBUSY, "evict gave %s", error_name(err));
	check_time(begun);
	buffer_evict(&buf);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_verify(&buf);
}

static void fault_hangs(void)
{
	struct buffer buf;

	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_HANG, 1, 0);
	expect_bus_error_or_right_data(&buf);
	buffer_verify(&buf);
	buffer_populate(&buf);
	buffer_verify(&buf);
}

static void gpu_work_hangs(void)
{
	struct buffer buf, other;
	uint64_t begun, sum;

	buffer_init_in_vram(&other, SIZE);
	buffer_init_in_vram(&buf, SIZE);
	gpu_inject(SIMGPU_INJECT_HANG, 1, 0);
	begun = now_ms();
	check_result(simgpu_checksum(gpu(), buf.mem, SIZE, &sum), -EIO);
	check_time(begun);
	buffer_checksum(&buf);
	buffer_verify(&buf);
	buffer_verify(&other);	/* VRAM has survived the reset. */
}

static void slow_device(void)
{
	const unsigned int delay_ms = 300;
	struct buffer buf;
	uint64_t begun;

	buffer_init(&buf, SIZE);
	begun = now_ms();
	gpu_inject(SIMGPU_INJECT_DELAY, 1, delay_ms * 1000);
	buffer_populate(&buf);
	check(now_ms() - begun >= delay_ms, "nothing was delayed");
	gpu_inject(SIMGPU_INJECT_DELAY, 1, delay_ms * 1000);
	buffer_xor(&buf, 0x510);
	gpu_inject(SIMGPU_INJECT_DELAY, 1, delay_ms * 1000);
	begun = now_ms();
	buffer_verify(&buf);
	check(now_ms() - begun >= delay_ms, "nothing was delayed");

	buffer_populate(&buf);
	gpu_inject(SIMGPU_INJECT_DELAY, 20, 10000);
	buffer_evict(&buf);
	buffer_verify(&buf);
}

static const struct ktap_test tests[] = {
	{ "populate_fails", populate_fails, 0 },
	{ "populate_fails_once", populate_fails_once, 0 },
	{ "populate_of_untouched_memory_fails", populate_of_untouched_memory_fails, 0 },
	{ "populate_fails_half_way", populate_fails_half_way, 60 },
	{ "evict_fails", evict_fails, 0 },
	{ "evict_fails_once", evict_fails_once, 0 },
	{ "fault_fails", fault_fails, 0 },
	{ "fault_fails_once", fault_fails_once, 0 },
	{ "gpu_work_fails", gpu_work_fails, 0 },
	{ "exit_with_a_failing_device", exit_with_a_failing_device, 0 },
	{ "populate_hangs", populate_hangs, HANG_TEST_S },
	{ "evict_hangs", evict_hangs, HANG_TEST_S },
	{ "fault_hangs", fault_hangs, HANG_TEST_S },
	{ "gpu_work_hangs", gpu_work_hangs, HANG_TEST_S },
	{ "slow_device", slow_device, 0 },
};

KTAP_MAIN(tests, gpu_after_test)
