// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The device goes away while jobs run on all queues: unplugged in good order,
 * its process killed, or reset. What is lost is what had to be, and what comes
 * next works.
 *
 * The host unplugs and plugs, see control.h; the device is in a hot-plug slot.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "control.h"
#include "driver.h"
#include "ktap.h"
#include "procs.h"
#include "simgpu.h"
#include "svm.h"

#define AT(p)		((uintptr_t)(p))
#define SIZE		(4 * MB)
#define DEPTH		4
#define SECRET		0x5ec2e7
/* How soon everybody must have noticed. */
#define NOTICE_SECONDS	60
#define PLUG_SECONDS	150
#define RESETS		4

/* What the workers tell. */
static struct load {
	atomic_uint jobs[SIMGPU_QUEUES], lost[SIMGPU_QUEUES];
	atomic_ullong ended[SIMGPU_QUEUES];
	atomic_bool stop;
} *load;

static pid_t workers[SIMGPU_QUEUES];

static void wait_until(bool (*is_so)(const void *), const void *arg, unsigned int seconds,
		       const char *what)
{
	uint64_t end = now_ms() + seconds * 1000ull * ktap_scale();

	while (!is_so(arg)) {
		check(now_ms() < end, "%s: not after %u s", what, seconds * ktap_scale());
		sleep_ms(10);
	}
}

/* In order, so one job at the most is done by half. */
static void check_words(const uint64_t *words, unsigned int least, unsigned int most)
{
	uint64_t low = ~0ull, high = 0;

	for (size_t i = 0; i < SIZE / 8; i++) {
		low = words[i] < low ? words[i] : low;
		high = words[i] > high ? words[i] : high;
	}
	check(low >= least && high <= most, "%u to %u jobs added %" PRIu64 " to %" PRIu64, least,
	      most, low, high);
}

static int try_to_wait(uint64_t number)
{
	struct drm_simgpu_wait args = { .job = number, .timeout_ms = SIMGPU_WAIT_FOREVER };
	int err = simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_WAIT, &args);

	return err ? err : args.error;
}

/*
 * Keeps one queue busy, with several jobs in it, until the device is gone. If it
 * is only reset, the jobs of that moment fail, and the next ones don't.
 */
static void work_on_queue(void *arg)
{
	unsigned int queue = *(unsigned int *)arg, first = 0, count = 0, failed = 0, sent = 0;
	uint64_t *words = map_pages(SIZE), numbers[DEPTH];
	int err = 0;

	gpu_close();
	vm();
	while (!load->stop || count) {
		while (count < DEPTH && !load->stop) {
			job_t job = { .vm_id = vm(), .queue = queue, .op = SIMGPU_JOB_ATOMIC_ADD,
				      .dst = AT(words), .len = SIZE, .arg = 1 };

			err = job_try(&job);
			if (err)
				break;
			numbers[(first + count++) % DEPTH] = job.job;
			sent++;
		}
		check(!err || err == -ENODEV || err == -EAGAIN, "submitting gave %s", error_name(err));
		if (!count && err == -EAGAIN) {
			sleep_ms(1);
			continue;
		}
		if (!count)
			break;
		err = try_to_wait(numbers[first]);
		first = (first + 1) % DEPTH;
		count--;
		check(!err || err == -ENODEV || err == -EIO, "a job ended with %s", error_name(err));
		if (err == -ENODEV)
			break;
		failed += !!err;
		load->lost[queue] += !!err;
		load->jobs[queue] += !err;
		err = 0;
	}
	load->ended[queue] = now_ms();
	/* For the others it is no better. */
	while (err == -ENODEV && count--) {
		check(try_to_wait(numbers[first]) == -ENODEV, "a job outlived the device");
		first = (first + 1) % DEPTH;
	}
	if (err == -ENODEV)
		load->lost[queue]++;
	check(err == -ENODEV || load->stop, "the work ended with %s", error_name(err));
	check_words(words, load->jobs[queue], sent);
	check(failed <= sent - load->jobs[queue], "more jobs failed than there were");
	/* Nobody writes any more. */
	if (err == -ENODEV) {
		uint64_t sum = checksum(words, SIZE);

		sleep_ms(50);
		check(checksum(words, SIZE) == sum, "a job wrote after its end");
	}
}

static bool all_work(const void *arg)
{
	const unsigned int *jobs = arg;

	for (int queue = 0; queue < SIMGPU_QUEUES; queue++)
		if (load->jobs[queue] < *jobs)
			return false;
	return true;
}

static void wait_for_jobs(void)
{
	unsigned int least = -1u;

	for (int queue = 0; queue < SIMGPU_QUEUES; queue++)
		least = load->jobs[queue] < least ? load->jobs[queue] : least;
	least += 2;
	wait_until(all_work, &least, NOTICE_SECONDS, "all queues have done jobs");
}

/* A process for each queue; returns when all are at it. */
static void start_load(void)
{
	static unsigned int queues[SIMGPU_QUEUES];

	load = mmap(NULL, sizeof(*load), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(load != MAP_FAILED, "mmap: %s", strerror(errno));
	for (unsigned int queue = 0; queue < SIMGPU_QUEUES; queue++) {
		queues[queue] = queue;
		workers[queue] = start(work_on_queue, &queues[queue]);
	}
}

static void end_load(bool by_bus_error)
{
	for (int queue = 0; queue < SIMGPU_QUEUES; queue++) {
		int status = reap(workers[queue], NOTICE_SECONDS);

		if (by_bus_error)
			check(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS,
			      "worker %d ended with %#x", queue, status);
		else
			check(!status, "worker %d ended with %#x", queue, status);
	}
}

static void describe_load(const char *what, uint64_t begun)
{
	unsigned int jobs = 0, lost = 0;
	uint64_t last = 0;

	for (int queue = 0; queue < SIMGPU_QUEUES; queue++) {
		jobs += load->jobs[queue];
		lost += load->lost[queue];
		last = load->ended[queue] > last ? load->ended[queue] : last;
	}
	diag("%s: %u jobs done, %u failed; the last who waited knew after %u ms", what, jobs, lost,
	     (unsigned int)(last > begun ? last - begun : 0));
}

/* What only VRAM has: the GPU has made it of what was there. */
static uint64_t *make_secret(size_t size)
{
	uint64_t *words = map_pages(size);

	for (size_t i = 0; i < size / 8; i++)
		words[i] = i;
	job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words), .len = size, .arg = SECRET });
	expect_place(words, size, SIMGPU_PLACE_VRAM);
	return words;
}

static void check_secret(const uint64_t *words, size_t first, size_t end)
{
	for (size_t i = first / 8; i < end / 8; i++)
		check(words[i] == i + SECRET, "word %zu is %" PRIx64, i, words[i]);
}

static size_t pages_in_vram(void)
{
	struct drm_simgpu_info info = gpu_info();

	return (info.vram_size - info.vram_free) / PAGE;
}

static void works(void)
{
	uint64_t *words = map_pages(SIZE);

	for (unsigned int queue = 0; queue < SIMGPU_QUEUES; queue++)
		job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .queue = queue, .dst = AT(words),
				 .len = SIZE, .arg = 1 });
	expect_place(words, SIZE, SIMGPU_PLACE_VRAM);
	check_words(words, SIMGPU_QUEUES, SIMGPU_QUEUES);
	munmap(words, SIZE);
}

static bool is_device_gone(const void *arg)
{
	const struct binding *binding = arg;
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", binding->device);
	return access(path, F_OK);
}

static bool gives_enodev(const void *arg)
{
	struct drm_simgpu_info info;

	(void)arg;
	return simgpu_info(gpu(), &info) == -ENODEV;
}

static bool can_be_opened(const void *arg)
{
	int fd = simgpu_open(NULL, 0);

	(void)arg;
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* The number of the device, if the host can unplug it. */
static int need_hot_plug(const char *device)
{
	int number = control_device_number(device);

	if (number < 0)
		skip("the device is in no hot-plug slot (scripts/vm --slots)");
	/*
	 * pciehp takes the core's rescan lock below its reset_lock; the core
	 * probes drivers, and so pciehp's, by work that it waits for with the
	 * rescan lock held. All such work is one class.
	 */
	if (ktap_scale() > 1)
		skip("lockdep reports the locks of PCI hot-plug itself");
	return number;
}

static void pull_out(const struct binding *binding, int number)
{
	control_ask_once("unplug-device", number);
	wait_until(is_device_gone, binding, PLUG_SECONDS, "the device is unplugged");
}

/* A new one, which knows nothing of the old one. */
static void put_new_in(void)
{
	struct drm_simgpu_info info;
	uint64_t begun = now_ms();

	/* The host chooses the slot. */
	control_ask_once("plug-device", 0);
	wait_until(can_be_opened, NULL, PLUG_SECONDS, "a new device is there");
	diag("a new device is there after %u ms", (unsigned int)(now_ms() - begun));
	info = gpu_info();
	check(info.vram_free == info.vram_size && !info.populated, "the new device is not new");
	works();
}

static void expect_gone(void)
{
	uint64_t *words = map_pages(PAGE);

	check_result(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_VM_CREATE, &(struct drm_simgpu_vm_create){}),
		     -ENODEV);
	check_result(job_try(&(job_t){ .vm_id = 1, .op = SIMGPU_JOB_NOP }), -ENODEV);
	check_result(try_to_wait(1), -ENODEV);
	check_result(simgpu_populate(gpu(), words, PAGE, 0), -ENODEV);
}

static void unplug_under_load(void)
{
	struct binding binding = driver_binding();
	int number = need_hot_plug(binding.device);
	uint64_t *secret, begun, cut_off;
	size_t pages;

	start_load();
	secret = make_secret(2 * SIZE);
	wait_for_jobs();
	pages = pages_in_vram();
	begun = now_ms();
	control_ask_once("unplug-device", number);
	/* The kernel waits for 5 seconds, in case somebody has second thoughts. */
	wait_until(gives_enodev, NULL, PLUG_SECONDS, "the device is going");
	cut_off = now_ms();
	wait_until(is_device_gone, &binding, PLUG_SECONDS, "the device is unplugged");
	diag("%zu pages were in VRAM; the device was cut off after %u ms, and gone %u ms later", pages,
	     (unsigned int)(cut_off - begun), (unsigned int)(now_ms() - cut_off));
	expect_gone();
	end_load(false);
	describe_load("unplugged", cut_off);
	check_secret(secret, 0, 2 * SIZE);
	gpu_close();
	vm_forget();
	put_new_in();
}

/* Somebody who has nothing to do with the GPU. */
static void *live(void *arg)
{
	static uint64_t words[MB / 8];
	atomic_ulong *rounds = arg;

	for (uint64_t n = 0;; n++) {
		for (size_t i = 0; i < MB / 8; i++)
			words[i] = i ^ n;
		for (size_t i = 0; i < MB / 8; i++)
			check(words[i] == (i ^ n), "memory of somebody else has changed");
		++*rounds;
		sleep_ms(1);
	}
	return NULL;
}

static void live_in_a_process(void *arg)
{
	gpu_close();
	live(arg);
}

struct waiter {
	pthread_t thread;
	uint64_t job;
	int error;
};

static void *wait_for_job(void *arg)
{
	struct waiter *waiter = arg;

	waiter->error = try_to_wait(waiter->job);
	return NULL;
}

static void expect_lost(uint64_t *words, size_t size)
{
	for (size_t at = 0; at < size; at += size / 4)
		check(signal_of_read((char *)words + at) == SIGBUS, "reading byte %zu gave no SIGBUS", at);
	check(signal_of_write((char *)words + size / 2) == SIGBUS, "writing gave no SIGBUS");
}

static void kill_under_load(void)
{
	struct binding binding = driver_binding();
	atomic_ulong *rounds = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int file = memfd_create("shared", MFD_CLOEXEC);
	uint64_t *secret, *mixed, *shared, *counter = map_pages(PAGE), begun, before;
	struct buffer in_ram;
	struct waiter waiter;
	int number = need_hot_plug(binding.device);
	pid_t other;

	need_reloadable_module(DRIVER);
	check(rounds != MAP_FAILED && file >= 0 && !ftruncate(file, SIZE), "no memory");
	start_load();
	other = start(live_in_a_process, rounds);
	buffer_init(&in_ram, SIZE);
	secret = make_secret(SIZE);
	mixed = make_secret(SIZE);
	svm_prefetch(mixed, SIZE / 2, SIMGPU_PLACE_RAM);
	expect_place(mixed, SIZE / 2, SIMGPU_PLACE_RAM);
	expect_place((char *)mixed + SIZE / 2, SIZE / 2, SIMGPU_PLACE_VRAM);
	/* The GPU has written to it, but where it was. */
	shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	check(shared != MAP_FAILED, "mmap: %s", strerror(errno));
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(shared), .len = SIZE, .arg = 77 });
	wait_for_jobs();
	/* One that would last for minutes, and somebody who waits for it. */
	waiter.job = job_submit((job_t){ .op = SIMGPU_JOB_ATOMIC_COUNT, .queue = 1, .dst = AT(counter),
					 .len = 1ull << 36, .arg = 1 });
	check(!pthread_create(&waiter.thread, NULL, wait_for_job, &waiter), "pthread_create");
	sleep_ms(200);

	begun = now_ms();
	control_ask_once("kill-device", number);
	pthread_join(waiter.thread, NULL);
	check(waiter.error == -ENODEV, "who waited was told %s", error_name(waiter.error));
	diag("%zu pages of the test were in VRAM, who waited knew after %u ms",
	     (2 * SIZE - SIZE / 2) / PAGE, (unsigned int)(now_ms() - begun));
	/* What they worked on was there. */
	end_load(true);
	describe_load("killed", begun);
	expect_gone();
	expect_lost(secret, SIZE);
	expect_lost(mixed + SIZE / 2 / 8, SIZE / 2);
	/* All else is as it was. */
	check_secret(mixed, 0, SIZE / 2);
	for (size_t i = 0; i < SIZE / 8; i++)
		check(shared[i] == 77, "word %zu of the file is %" PRIx64, i, shared[i]);
	buffer_verify(&in_ram);
	buffer_write(&in_ram);
	buffer_verify(&in_ram);
	/* A place that was lost can be used for something new. */
	check(!madvise(secret, SIZE / 2, MADV_DONTNEED), "madvise: %s", strerror(errno));
	for (size_t i = 0; i < SIZE / 2 / 8; i++)
		check(!secret[i], "new memory is not zero");

	/* Whoever has lost pages, the device can be taken out, and the driver go, and come again. */
	gpu_close();
	vm_forget();
	pull_out(&binding, number);
	begun = now_ms();
	module_unload_soon(DRIVER);
	diag("unloaded in %u ms", (unsigned int)(now_ms() - begun));
	expect_lost(secret + SIZE / 2 / 8, SIZE / 2);
	check_result(module_unload(LIBRARY), -EWOULDBLOCK);
	check_ok(module_load(DRIVER));
	put_new_in();
	expect_lost(secret + SIZE / 2 / 8, SIZE / 2);
	check_secret(mixed, 0, SIZE / 2);
	/* The library is needed for those pages only. */
	munmap(secret, SIZE);
	munmap(mixed, SIZE);
	munmap(counter, PAGE);
	gpu_close();
	vm_forget();
	module_unload_soon(DRIVER);
	module_unload_soon(LIBRARY);
	check_ok(module_load(LIBRARY));
	check_ok(module_load(DRIVER));
	wait_until(can_be_opened, NULL, PLUG_SECONDS, "the new device is there again");
	works();
	buffer_verify(&in_ram);
	before = *rounds;
	sleep_ms(200);
	check(*rounds > before, "somebody else stands still");
	kill(other, SIGKILL);
	reap(other, NOTICE_SECONDS);
}

/* Reset. */

/* Data that is in VRAM stays there. */
static void reset_while_idle(void)
{
	struct binding binding = driver_binding();
	uint64_t *secret = make_secret(SIZE);

	driver_reset_device(&binding);
	expect_place(secret, SIZE, SIMGPU_PLACE_VRAM);
	job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(secret), .len = SIZE, .arg = 0 });
	expect_place(secret, SIZE, SIMGPU_PLACE_VRAM);
	check_secret(secret, 0, SIZE);
	driver_reset_device(&binding);
	check_secret(secret, 0, SIZE);
	works();
}

static void reset_while_jobs_run(void)
{
	struct binding binding = driver_binding();
	uint64_t *secret, begun, took, longest = 0;

	start_load();
	secret = make_secret(SIZE);
	for (int i = 0; i < RESETS; i++) {
		wait_for_jobs();
		begun = now_ms();
		driver_reset_device(&binding);
		works();
		took = now_ms() - begun;
		longest = took > longest ? took : longest;
	}
	wait_for_jobs();
	load->stop = true;
	end_load(false);
	describe_load("reset", -1ull);
	diag("%d resets, and a job on each queue %u ms later at most", RESETS, (unsigned int)longest);
	expect_place(secret, SIZE, SIMGPU_PLACE_VRAM);
	check_secret(secret, 0, SIZE);
}

struct mover {
	atomic_uint rounds;
	atomic_bool stop;
};

/* To VRAM and back. A reset doesn't show. */
static void *move(void *arg)
{
	struct mover *mover = arg;
	uint64_t *words = map_pages(SIZE);

	for (uint64_t n = 0; !mover->stop; n++) {
		for (size_t i = 0; i < SIZE / 8; i++)
			words[i] = i + n;
		svm_prefetch(words, SIZE, SIMGPU_PLACE_VRAM);
		for (size_t i = 0; i < SIZE / 8; i++)
			check(words[i] == i + n, "word %zu is %" PRIx64, i, words[i]);
		mover->rounds++;
	}
	return NULL;
}

static bool has_moved(const void *arg)
{
	return ((const struct mover *)arg)->rounds >= 3;
}

static void reset_while_pages_move(void)
{
	struct binding binding = driver_binding();
	struct mover mover = {};
	pthread_t thread;

	vm();
	check(!pthread_create(&thread, NULL, move, &mover), "pthread_create");
	for (int i = 0; i < RESETS; i++) {
		mover.rounds = 0;
		driver_reset_device(&binding);
		wait_until(has_moved, &mover, NOTICE_SECONDS, "pages move");
	}
	mover.stop = true;
	pthread_join(thread, NULL);
	works();
}

static const struct ktap_test tests[] = {
	{ "reset_while_idle", reset_while_idle, 60 },
	{ "reset_while_jobs_run", reset_while_jobs_run, 150 },
	{ "reset_while_pages_move", reset_while_pages_move, 150 },
	{ "unplug_under_load", unplug_under_load, 360 },
	{ "kill_under_load", kill_under_load, 400 },
};

KTAP_MAIN(tests, gpu_after_test)
