// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What reading the C layer found: cache, shrinker, owners, modules.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "world.h"

/* Only C's provider, as it is built here, has such a knob: see provider/slow_locks.h. */
#define LOCK_DELAY	"/sys/module/drm_pagemap/parameters/lock_delay_us"

static void slow_locks(const char *us)
{
	if (!access(LOCK_DELAY, W_OK))
		write_file(LOCK_DELAY, us);
}

static atomic_bool stop;

static void *shrink_on(void *arg)
{
	(void)arg;
	while (!stop)
		write_file("/proc/sys/vm/drop_caches", "2");
	return NULL;
}

/* 20. The shrinker forgets a pagemap that was put into the cache meanwhile. */
static void shrinker_race(void)
{
	unsigned int gpu = gpu_add(CLIENT_GPU_CACHE);
	uint64_t end = now_ms() + 3000;
	unsigned int rounds = 0, lost = 0;
	pthread_t thread;

	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	slow_locks("200");
	check(!pthread_create(&thread, NULL, shrink_on, NULL), "no thread");
	while (now_ms() < end && !lost) {
		struct client_lifetime got = lifetime(CLIENT_CACHE_LOOKUP_LOOP, gpu, 0, 20);

		check(got.result >= 0, "%s", error_name(got.result));
		lost += got.result;
		rounds += 20;
	}
	stop = true;
	pthread_join(thread, NULL);
	slow_locks("0");
	observed("in %u lookups that raced with the shrinker, %u pagemaps were lost; %llu were shrunk",
		 rounds, lost, stats(gpu).destroyed);
	check(stats(gpu).destroyed > 0, "the shrinker did nothing");
	check(!lost, "%u pagemaps in use were lost from the cache", lost);
}

static struct {
	unsigned int gpu;
	uint64_t wait_ms;
	struct client_lifetime got;
	atomic_bool done;
} lookup;

static void *look_up(void *arg)
{
	(void)arg;
	lookup.got = lifetime(CLIENT_CACHE_LOOKUP, lookup.gpu, 0, lookup.wait_ms);
	lookup.done = true;
	return NULL;
}

static void *shrink_once(void *arg)
{
	(void)arg;
	write_file("/proc/sys/vm/drop_caches", "2");
	stop = true;
	return NULL;
}

/* 21. The device goes, and its cache, while the shrinker is at that cache's lock. */
static void cache_freed_in_scan(void)
{
	unsigned int gpu = gpu_add(CLIENT_GPU_CACHE);
	pthread_t thread;

	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	/* The shrinker is on its way to the second lock, the cache's, when the device goes. */
	slow_locks("2000000");
	check(!pthread_create(&thread, NULL, shrink_once, NULL), "no thread");
	for (int i = 0; i < 6000 && lifetime(CLIENT_PAGEMAP_LISTED, gpu, 0, 0).result; i++)
		sleep_ms(1);
	check(!lifetime(CLIENT_PAGEMAP_LISTED, gpu, 0, 0).result, "the shrinker does nothing");
	slow_locks("0");
	lifetime(CLIENT_REMOVE, gpu, 0, 0);
	pthread_join(thread, NULL);
	observed("shrinker and removal both end");
	wait_stat(gpu, destroyed, 1);
}

static void *unplug(void *arg)
{
	(void)arg;
	lifetime(CLIENT_UNPLUG, lookup.gpu, 0, 0);
	stop = true;
	return NULL;
}

static bool within(atomic_bool *flag, unsigned int ms)
{
	uint64_t end = now_ms() + ms * ktap_scale();

	while (!*flag && now_ms() < end)
		sleep_ms(10);
	return *flag;
}

/* 22. A lookup that holds off the unplug waits for a pagemap that died of the unplug. */
static void lookup_and_unplug(void)
{
	pthread_t looker, unplugger;
	bool looked, unplugged;

	lookup.gpu = gpu_add(CLIENT_GPU_CACHE);
	lookup.wait_ms = 600;
	check(!pthread_create(&looker, NULL, look_up, NULL), "no thread");
	sleep_ms(200);
	check(!pthread_create(&unplugger, NULL, unplug, NULL), "no thread");
	sleep_ms(200);
	/* The device is unplugged, and the lookup has not looked yet. */
	lifetime(CLIENT_PAGEMAP_PUT, lookup.gpu, 0, 0);
	looked = within(&lookup.done, 4000);
	unplugged = within(&stop, 1000);
	observed("the lookup %s (%s), the unplug %s", looked ? "ended" : "waits for ever",
		 looked ? error_name(lookup.got.result) : "-", unplugged ? "ended" : "waits for it");
	check(looked && unplugged, "deadlock");
}

/* 23. */
static void release_twice(void)
{
	struct client_owner first = owner(CLIENT_OWNER_ACQUIRE, 0, 0);
	struct client_owner second = owner(CLIENT_OWNER_ACQUIRE, 1, 1);

	check(first.owner && first.owner == second.owner, "not one owner");
	owner(CLIENT_OWNER_RELEASE, 1, 0);
	owner(CLIENT_OWNER_RELEASE, 1, 0);
	second = owner(CLIENT_OWNER_ACQUIRE, 1, 1);
	observed("the second release does nothing");
	check(second.owner == first.owner, "the group was lost");
}

/* 24. The pagemap of a module that is about to go. */
static void module_goes(void)
{
	static const char parameter[] = "/sys/module/drm_pagemap_client/parameters/init_at_exit";
	int fd;

	write_file(parameter, "1");
	check(!syscall(SYS_delete_module, "drm_pagemap_client", O_NONBLOCK), "unloading: %s",
	      strerror(errno));
	fd = open("/modules/drm_pagemap_client.ko", O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && !syscall(SYS_finit_module, fd, "", 0), "loading: %s", strerror(errno));
	close(fd);
	observed("the module is gone and back");
}

static const struct ktap_test tests[] = {
	{ "defect_20_shrinker_race", shrinker_race, 20 },
	{ "defect_21_cache_freed_in_scan", cache_freed_in_scan, 15 },
	{ "defect_22_lookup_and_unplug", lookup_and_unplug, 15 },
	{ "defect_23_release_twice", release_twice, 10 },
	{ "defect_24_module_goes", module_goes, 10 },
};

CASES(defect_lifetime_cases, tests);
