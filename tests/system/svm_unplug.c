// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The device is taken away while jobs run: all pages are home, new work gets
 * ENODEV; and it can be used again when it is back.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "driver.h"
#include "ktap.h"
#include "procs.h"
#include "simgpu.h"
#include "svm.h"

#define AT(p)	((uintptr_t)(p))
#define SIZE	(8 * MB)
#define WORKERS	4

/* Adds until the device is gone; then every word has got each add or not. */
static void adds_until_gone(void *arg)
{
	uint64_t *words = map_pages(SIZE), end = now_ms() + 60000 * ktap_scale(), least = ~0ull, most = 0;
	unsigned int jobs = 0;
	int fd, err;

	gpu_close();
	fd = gpu();
	vm();
	for (;;) {
		job_t job = { .vm_id = vm(), .queue = *(int *)arg, .op = SIMGPU_JOB_ATOMIC_ADD,
			      .dst = AT(words), .len = SIZE, .arg = 1 };
		struct drm_simgpu_wait wait = { .timeout_ms = SIMGPU_WAIT_FOREVER };

		err = simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_SUBMIT, &job);
		if (err)
			break;
		wait.job = job.job;
		err = simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_WAIT, &wait);
		if (err)
			break;
		if (wait.error) {
			err = wait.error;
			jobs++;
			break;
		}
		check(now_ms() < end, "the device is still there");
		jobs++;
	}
	check(err == -ENODEV || err == -ECANCELED, "the work ended with %s", error_name(err));
	for (size_t i = 0; i < SIZE / 8; i++) {
		least = words[i] < least ? words[i] : least;
		most = words[i] > most ? words[i] : most;
	}
	/* The job whose end was not seen may have been done, or not, or a part of it. */
	check(most <= jobs + 1 && least + 1 >= jobs, "%u jobs added %" PRIu64 " to %" PRIu64, jobs, least,
	      most);
	check_result(simgpu_ioctl(fd, DRM_IOCTL_SIMGPU_VM_CREATE, &(struct drm_simgpu_vm_create){}),
		     -ENODEV);
}

static void works_again(void)
{
	uint64_t *words = map_pages(SIZE);

	driver_wait_for_device();
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE, .arg = 9 });
	expect_place(words, SIZE, SIMGPU_PLACE_VRAM);
	for (size_t i = 0; i < SIZE / 8; i++)
		check(words[i] == 9, "word %zu is wrong", i);
}

static void write_to(const char *path, const char *what)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	check(file >= 0, "%s: %s", path, strerror(errno));
	check(write(file, what, strlen(what)) == (ssize_t)strlen(what), "%s: %s", path, strerror(errno));
	close(file);
}

static void take_away(void (*away)(const struct binding *), void (*back)(const struct binding *))
{
	struct binding binding = driver_binding();
	int queues[WORKERS];
	uint64_t *words = map_pages(SIZE), begun;
	pid_t pids[WORKERS];

	for (int i = 0; i < WORKERS; i++) {
		queues[i] = i % SIMGPU_QUEUES;
		pids[i] = start(adds_until_gone, &queues[i]);
	}
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE, .arg = 7 });
	sleep_ms(500);
	expect_place(words, SIZE, SIMGPU_PLACE_VRAM);
	begun = now_ms();
	away(&binding);
	diag("taken away in %u ms", (unsigned int)(now_ms() - begun));
	for (size_t i = 0; i < SIZE / 8; i++)
		check(words[i] == 7, "word %zu is wrong", i);
	check_result(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_SUBMIT, &(job_t){ .vm_id = 1 }), -ENODEV);
	for (int i = 0; i < WORKERS; i++) {
		int status = reap(pids[i], 60);

		check(WIFEXITED(status) && !WEXITSTATUS(status), "worker %d ended with %#x", i, status);
	}
	gpu_close();
	vm_forget();
	back(&binding);
	works_again();
}

static void unbound(void)
{
	take_away(driver_unbind, driver_bind);
}

static void remove_device(const struct binding *binding)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", binding->device);
	write_to(path, "1");
}

static void bring_back(const struct binding *binding)
{
	(void)binding;
	write_to("/sys/bus/pci/rescan", "1");
}

static void removed(void)
{
	take_away(remove_device, bring_back);
}

static void after(void)
{
	write_to("/sys/bus/pci/rescan", "1");
	driver_bind_all();
	gpu_after_test();
}

static const struct ktap_test tests[] = {
	{ "unbound", unbound, 120 },
	{ "removed", removed, 120 },
};

KTAP_MAIN(tests, after)
