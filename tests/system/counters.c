// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the driver counts in debugfs is what was moved, and for whom.
 */
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "driver.h"
#include "ktap.h"

#define FOLDER	"/sys/kernel/debug/" DRIVER "-*/"
#define PAGES	((size_t)1300)

/* The whole of a file in the driver's folder in debugfs. */
static char *contents(const char *name)
{
	static char text[16384];
	char pattern[200];
	glob_t found;
	FILE *file;
	size_t len;

	snprintf(pattern, sizeof(pattern), FOLDER "%s", name);
	check(!glob(pattern, 0, NULL, &found), "there is no %s", pattern);
	check(found.gl_pathc == 1, "there are %zu of %s", found.gl_pathc, pattern);
	file = fopen(found.gl_pathv[0], "re");
	check(file, "opening %s gave %s", found.gl_pathv[0], error_name(-errno));
	len = fread(text, 1, sizeof(text) - 1, file);
	check(!ferror(file), "reading %s gave %s", found.gl_pathv[0], error_name(-errno));
	text[len] = '\0';
	fclose(file);
	globfree(&found);
	return text;
}

/* What a line "KEY:\tNUMBER" in @text says, up to an empty line. */
static uint64_t number(const char *text, const char *key)
{
	const char *end = strstr(text, "\n\n"), *at = text;
	size_t len = strlen(key);

	for (; at && *at && (!end || at <= end); at = strchr(at, '\n'), at += !!at)
		if (!strncmp(at, key, len) && at[len] == ':')
			return strtoull(at + len + 1, NULL, 10);
	fail("there is no %s in: %s", key, text);
}

/* The client that is this process, or NULL. There must not be two. */
static const char *client_of(const char *text, pid_t pid)
{
	const char *found = NULL;

	for (const char *at = text; at && *at; at = strstr(at, "\n\n"), at = at ? at + 2 : NULL) {
		check(!strncmp(at, "drm-driver:\t" DRIVER "\n", strlen("drm-driver:\t" DRIVER "\n")),
		      "a client begins with: %s", at);
		if (number(at, DRIVER "-pid") != (uint64_t)pid)
			continue;
		check(!found, "process %d is there twice: %s", pid, text);
		found = at;
	}
	return found;
}

static void device(void)
{
	struct drm_simgpu_info before = gpu_info(), now;
	struct buffer buf;
	const char *text;

	text = contents("device");
	check(number(text, DRIVER "-vram-size") == before.vram_size >> 10, "VRAM: %s", text);
	check(number(text, DRIVER "-vram-free") == before.vram_free >> 10, "VRAM: %s", text);
	check(number(text, DRIVER "-allocations") == 0, "nothing is allocated, but: %s", text);

	buffer_init(&buf, PAGES * PAGE);
	buffer_populate(&buf);
	text = contents("device");
	check(number(text, DRIVER "-vram-free") == (before.vram_free - buf.size) >> 10,
	      "%zu KiB are in use: %s", buf.size >> 10, text);
	check(number(text, DRIVER "-allocations") > 0, "a buffer is allocated, but: %s", text);
	check(number(text, DRIVER "-pages-populated") == before.populated + PAGES, "%zu pages: %s",
	      PAGES, text);

	buffer_verify(&buf);
	buffer_populate(&buf);
	buffer_evict(&buf);
	text = contents("device");
	check(number(text, DRIVER "-pages-populated") == before.populated + 2 * PAGES &&
	      number(text, DRIVER "-pages-faulted") == before.faulted + PAGES &&
	      number(text, DRIVER "-pages-evicted") == before.evicted + PAGES,
	      "twice there, once back by each way, are %zu pages each: %s", PAGES, text);
	check(number(text, DRIVER "-vram-free") == before.vram_free >> 10 &&
	      number(text, DRIVER "-allocations") == 0, "all is free again, but: %s", text);

	now = gpu_info();
	check(now.populated == before.populated + 2 * PAGES && now.faulted == before.faulted + PAGES &&
	      now.evicted == before.evicted + PAGES, "the ioctl says otherwise");
	buffer_unmap(&buf);
}

static void expect_vram(pid_t pid, size_t size)
{
	const char *text = contents("clients"), *mine = client_of(text, pid);

	check(mine, "process %d is not among: %s", pid, text);
	check(number(mine, "drm-client-id") > 0, "client: %s", mine);
	check(number(mine, "drm-resident-vram") == size >> 10 &&
	      number(mine, "drm-total-vram") == size >> 10, "%zu KiB should be of process %d: %s",
	      size >> 10, pid, text);
	check(!!number(mine, DRIVER "-allocations") == !!size, "client: %s", mine);
}

static void clients(void)
{
	pid_t pid = getpid(), child;
	struct buffer buf;
	int status;

	check(!client_of(contents("clients"), pid), "here before it was opened: %s",
	      contents("clients"));
	gpu();
	expect_vram(pid, 0);
	buffer_init_in_vram(&buf, PAGES * PAGE);
	expect_vram(pid, buf.size);

	/* Another process, with a file and memory of its own. */
	child = fork();
	check(child >= 0, "fork gave %s", error_name(-errno));
	if (!child) {
		struct buffer other;

		gpu_close();
		gpu();
		buffer_init_in_vram(&other, 3 * PAGE);
		expect_vram(getpid(), other.size);
		expect_vram(pid, PAGES * PAGE);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child && !status, "the child failed");
	check(!client_of(contents("clients"), child), "the child is gone, but: %s",
	      contents("clients"));

	buffer_verify(&buf);
	expect_vram(pid, 0);
	gpu_close();
	check(!client_of(contents("clients"), pid), "closed, but: %s", contents("clients"));
}

static const struct ktap_test tests[] = {
	{ .name = "device", .run = device },
	{ .name = "clients", .run = clients },
};

KTAP_MAIN(tests, gpu_after_test)
