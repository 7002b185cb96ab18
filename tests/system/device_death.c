// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The device process is killed under load: errors in bounded time, no hang, and
 * what was in RAM is intact. Runs last: the device does not come back.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "driver.h"
#include "ktap.h"
#include "procs.h"
#include "workload.h"

#define SIZE		(4 * MB)
#define WORKERS		4
/* How soon everybody must have noticed. */
#define NOTICE_SECONDS	60
/* How long one call may take. */
#define CALL_MS		30000

static void works_until_gone(void *arg)
{
	struct worker *worker = arg;

	gpu_close();
	buffer_init(&worker->buf, SIZE);
	worker_run_until_gone(worker, NOTICE_SECONDS);
}

/* Ended by an error of an ioctl, or by touching what was in VRAM. */
static void expect_proper_end(pid_t pid)
{
	int status = reap(pid, NOTICE_SECONDS);

	check(!WIFSIGNALED(status) || WTERMSIG(status) == SIGBUS,
	      "a process was killed by signal %d (%s)", WTERMSIG(status),
	      strsignal(WTERMSIG(status)));
	check(WIFSIGNALED(status) || !WEXITSTATUS(status), "a process exited with status %d",
	      WEXITSTATUS(status));
}

static void expect_gone(const char *what, int err, uint64_t *begun)
{
	uint64_t ms = now_ms() - *begun;

	check(err == -ENODEV || err == -EIO, "%s gave %s with the device gone", what,
	      error_name(err));
	check(ms < CALL_MS * ktap_scale(), "%s took %u ms", what, (unsigned int)ms);
	*begun = now_ms();
}

static void expect_every_ioctl_fails(struct buffer *in_ram, struct buffer *in_vram)
{
	uint64_t counts[SIMGPU_PLACES], sum, begun = now_ms();
	struct drm_simgpu_info info;
	int fd = gpu();

	expect_gone("populate", simgpu_populate(fd, in_ram->mem, SIZE, 0), &begun);
	expect_gone("evict", simgpu_evict(fd, in_vram->mem, SIZE), &begun);
	expect_gone("a GPU write", simgpu_xor(fd, in_vram->mem, SIZE, 1), &begun);
	expect_gone("a checksum", simgpu_checksum(fd, in_vram->mem, SIZE, &sum), &begun);
	expect_gone("residency", simgpu_residency(fd, in_ram->mem, SIZE, NULL, counts), &begun);
	expect_gone("info", simgpu_info(fd, &info), &begun);
	expect_gone("inject", simgpu_inject(fd, SIMGPU_INJECT_FAIL, 0, 0), &begun);
}

static void kill_under_load(int control, int number, struct buffer *in_ram, struct buffer *in_vram)
{
	pid_t workers[WORKERS];
	uint64_t begun;

	for (int i = 0; i < WORKERS; i++) {
		struct worker worker = { .random = i };

		workers[i] = start(works_until_gone, &worker);
	}
	/* After the forks: these pages are nobody else's. */
	buffer_init(in_ram, SIZE);
	buffer_init_in_vram(in_vram, SIZE);
	sleep_ms(1000);
	for (int i = 0; i < WORKERS; i++)
		check(!waitpid(workers[i], NULL, WNOHANG), "a process ended too early");
	buffer_expect(in_vram, SIMGPU_PLACE_VRAM);

	control_ask(control, "kill-device", number);
	for (int i = 0; i < WORKERS; i++)
		expect_proper_end(workers[i]);

	expect_every_ioctl_fails(in_ram, in_vram);
	begun = now_ms();
	check(signal_of_read(in_vram->mem) == SIGBUS, "touching lost data gave no SIGBUS");
	check(signal_of_write(in_vram->mem + SIZE / 2) == SIGBUS,
	      "writing to lost data gave no SIGBUS");
	check(now_ms() - begun < CALL_MS * ktap_scale(), "SIGBUS took %u ms",
	      (unsigned int)(now_ms() - begun));
	buffer_verify(in_ram);
	buffer_write(in_ram);
	buffer_verify(in_ram);
}

static void open_after_death(void)
{
	int fd = simgpu_open(NULL, 0);

	if (fd >= 0) {
		struct drm_simgpu_info info;
		uint64_t begun = now_ms();
		struct buffer buf;

		buffer_init(&buf, SIZE);
		expect_gone("info", simgpu_info(fd, &info), &begun);
		expect_gone("populate", simgpu_populate(fd, buf.mem, SIZE, 0), &begun);
		buffer_verify(&buf);
		close(fd);
	}
	check(fd >= 0 || fd == -ENODEV, "open gave %s", error_name(fd));
}

/* The driver can go while a process has lost pages. What is left of those is the library's. */
static void unload_with_lost_pages(const struct binding *binding, struct buffer *lost)
{
	driver_unbind(binding);
	check(signal_of_read(lost->mem) == SIGBUS, "touching lost data gave no SIGBUS any more");
	if (!module_is_loaded(DRIVER)) {
		diag("%s is not loaded as a module, and so not unloaded", DRIVER);
		return;
	}
	gpu_close();
	module_unload_soon(DRIVER);
	check(!module_is_loaded(DRIVER), "unloaded, but in /proc/modules");
	if (module_is_loaded(LIBRARY))
		check_result(module_unload(LIBRARY), -EWOULDBLOCK);
	check(signal_of_read(lost->mem) == SIGBUS, "without a driver lost data gave no SIGBUS");
	check(signal_of_write(lost->mem + SIZE - PAGE) == SIGBUS, "writing to it gave no SIGBUS");
}

static void killed_under_load(void)
{
	struct binding binding = driver_binding();
	int control = control_open(), number = control_device_number(binding.device);
	struct buffer in_ram, in_vram;

	kill_under_load(control, number < 0 ? 0 : number, &in_ram, &in_vram);
	open_after_death();
	unload_with_lost_pages(&binding, &in_vram);
	buffer_verify(&in_ram);
}

/* Nobody has lost pages any more. */
static void library_goes(void)
{
	if (module_is_loaded(DRIVER) || !module_is_loaded(LIBRARY))
		skip("the device was not killed, or %s is not loaded as a module", LIBRARY);
	module_unload_soon(LIBRARY);
}

static const struct ktap_test tests[] = {
	{ "killed_under_load", killed_under_load, 240 },
	{ "library_goes", library_goes, 60 },
};

KTAP_MAIN(tests, NULL)
