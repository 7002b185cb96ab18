// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Unloading and unbinding the driver, idle and busy.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "driver.h"
#include "ktap.h"
#include "procs.h"
#include "workload.h"

#define SIZE (4 * MB)

static void expect_refused(const char *module)
{
	int err = module_unload(module);

	check(err == -EWOULDBLOCK || err == -EBUSY, "unloading %s while busy gave %s", module,
	      error_name(err));
}

/* A whole round trip, with a fresh file descriptor. */
static void expect_working(void)
{
	struct buffer buf;

	driver_wait_for_device();
	buffer_init_in_vram(&buf, SIZE);
	buffer_verify(&buf);
	buffer_populate(&buf);
	buffer_evict(&buf);
	buffer_verify(&buf);
	buffer_unmap(&buf);
}

static void refused_while_open(void)
{
	struct buffer buf;

	need_reloadable_module(DRIVER);
	gpu();
	expect_refused(DRIVER);
	buffer_init_in_vram(&buf, SIZE);
	expect_refused(DRIVER);
	buffer_checksum(&buf);
	buffer_verify(&buf);
	expect_working();
}

/* Nobody has it open, but pages are in VRAM: refused, or they come home first. */
static void pages_in_vram(void)
{
	struct buffer buf;
	int err;

	need_reloadable_module(DRIVER);
	buffer_init_in_vram(&buf, SIZE);
	gpu_close();
	err = module_unload(DRIVER);
	check(!err || err == -EWOULDBLOCK || err == -EBUSY, "unloading gave %s", error_name(err));
	diag("unloading with pages in VRAM gave %s", error_name(err));
	buffer_verify(&buf);
	if (!err)
		check_ok(module_load(DRIVER));
	expect_working();
}

static void unload_and_load(void)
{
	need_reloadable_module(DRIVER);
	for (int i = 0; i < 3; i++) {
		expect_working();
		gpu_close();
		module_unload_soon(DRIVER);
		check(!module_is_loaded(DRIVER), "unloaded, but in /proc/modules");
		check(simgpu_open(NULL, 0) == -ENODEV, "unloaded, but a device node works");
		check_ok(module_load(DRIVER));
	}
	expect_working();
}

static void unload_and_load_all(void)
{
	need_reloadable_module(LIBRARY);
	need_reloadable_module(DRIVER);
	expect_refused(LIBRARY);
	expect_working();
	gpu_close();
	module_unload_soon(DRIVER);
	module_unload_soon(LIBRARY);
	check_ok(module_load(LIBRARY));
	check_ok(module_load(DRIVER));
	expect_working();
}

/* Every ioctl on a device that is gone. */
static void expect_gone(int fd, struct buffer *buf)
{
	uint64_t counts[SIMGPU_PLACES], sum;
	struct drm_simgpu_info info;

	check_result(simgpu_info(fd, &info), -ENODEV);
	check_result(simgpu_populate(fd, buf->mem, buf->size, 0), -ENODEV);
	check_result(simgpu_evict(fd, buf->mem, buf->size), -ENODEV);
	check_result(simgpu_checksum(fd, buf->mem, buf->size, &sum), -ENODEV);
	check_result(simgpu_residency(fd, buf->mem, buf->size, NULL, counts), -ENODEV);
	check_result(simgpu_inject(fd, SIMGPU_INJECT_FAIL, 0, 0), -ENODEV);
}

static void unbind_brings_pages_home(void)
{
	struct binding binding = driver_binding();
	struct buffer buf;
	int old;

	buffer_init_in_vram(&buf, SIZE);
	old = dup(gpu());
	driver_unbind(&binding);
	expect_gone(old, &buf);
	buffer_verify(&buf);

	driver_bind(&binding);
	driver_wait_for_device();
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	buffer_populate(&buf);
	buffer_xor(&buf, 0xb1d);
	expect_gone(old, &buf);	/* It stays gone for who had it open before. */
	buffer_verify(&buf);
	close(old);
	expect_working();
}

static void verifies_when_told(void *arg)
{
	struct {
		struct buffer buf;
		struct gate gate;
	} *both = arg;

	gate_wait(&both->gate);
	buffer_verify(&both->buf);
}

/* The pages of processes that share them after a fork come home as well. */
static void unbind_with_shared_pages(void)
{
	struct binding binding = driver_binding();
	struct {
		struct buffer buf;
		struct gate gate;
	} both;
	pid_t child;

	gate_init(&both.gate);
	buffer_init_in_vram(&both.buf, SIZE);
	child = start(verifies_when_told, &both);
	driver_unbind(&binding);
	gate_open(&both.gate);
	reap_ok(child);
	buffer_verify(&both.buf);
	driver_bind(&binding);
	expect_working();
}

/* How many workers have the device open by themselves; shared with them. */
static _Atomic unsigned int *opened;

static void works_until_gone(void *arg)
{
	struct worker *worker = arg;

	gpu_close();
	gpu();
	(*opened)++;
	buffer_init(&worker->buf, SIZE);
	worker_run_until_gone(worker, 20);
	worker_verify(worker);
}

static void unbind_under_load(void)
{
	struct binding binding = driver_binding();

	opened = mmap(NULL, sizeof(*opened), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	check(opened != MAP_FAILED, "mmap: %s", strerror(errno));
	for (int round = 0; round < 3; round++) {
		pid_t children[4];

		*opened = 0;

		for (int i = 0; i < 4; i++) {
			struct worker worker = { .random = 10 * round + i };

			children[i] = start(works_until_gone, &worker);
		}
		/* One that fails to open it ends, and is found out below. */
		for (int ms = 0; *opened < 4 && ms < 10000; ms++)
			sleep_ms(1);
		sleep_ms(300 + 200 * round);
		driver_unbind(&binding);
		for (int i = 0; i < 4; i++)
			reap_ok(children[i]);
		driver_bind(&binding);
		expect_working();
	}
}

/* Whatever the test did: the device is there for the next one. */
static void restore(void)
{
	if (!module_is_loaded(LIBRARY))
		module_load(LIBRARY);
	if (!module_is_loaded(DRIVER))
		module_load(DRIVER);
	driver_bind_all();
	driver_wait_for_device();
	gpu_after_test();
}

static const struct ktap_test tests[] = {
	{ "refused_while_open", refused_while_open, 0 },
	{ "pages_in_vram", pages_in_vram, 0 },
	{ "unload_and_load", unload_and_load, 60 },
	{ "unload_and_load_all", unload_and_load_all, 60 },
	{ "unbind_brings_pages_home", unbind_brings_pages_home, 60 },
	{ "unbind_with_shared_pages", unbind_with_shared_pages, 60 },
	{ "unbind_under_load", unbind_under_load, 90 },
};

KTAP_MAIN(tests, restore)
