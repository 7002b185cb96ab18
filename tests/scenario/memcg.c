// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "memcg.h"

#define ROOT "/sys/fs/cgroup"

/* The process's own, and the kernel's for it, that may stay for a while. */
#define LITTLE		(1 * MB)
#define SETTLE_MS	5000

static char folder[60];

static void path_of(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", folder, name);
}

static int put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	int err = file < 0 || write(file, text, strlen(text)) < 0 ? -errno : 0;

	if (file >= 0)
		close(file);
	return err;
}

static void get(const char *name, char *text, size_t size)
{
	char path[100];
	ssize_t len;
	int file;

	path_of(path, sizeof(path), name);
	file = open(path, O_RDONLY | O_CLOEXEC);
	len = file < 0 ? -1 : read(file, text, size - 1);
	check(len >= 0, "%s: %s", path, strerror(errno));
	text[len] = '\0';
	close(file);
}

void memcg_enter(size_t limit)
{
	char path[100], text[30];

	if (access(ROOT "/cgroup.subtree_control", W_OK))
		skip("no cgroups are mounted at " ROOT);
	snprintf(folder, sizeof(folder), ROOT "/scenario-%d", getpid());
	check(!mkdir(folder, 0755), "%s: %s", folder, strerror(errno));
	path_of(path, sizeof(path), "memory.max");
	snprintf(text, sizeof(text), "%zu", limit);
	check_ok(put(path, text));
	path_of(path, sizeof(path), "cgroup.procs");
	check_ok(put(path, "0"));
}

void memcg_reclaim(void)
{
	char path[100];
	int err;

	path_of(path, sizeof(path), "memory.reclaim");
	err = put(path, "256K");
	/* There may be nothing that can go. */
	check(!err || err == -EAGAIN || err == -EINTR, "memory.reclaim gave %s", error_name(err));
}

static void check_never_full(void)
{
	char events[400], *kills;

	get("memory.events", events, sizeof(events));
	kills = strstr(events, "oom_kill ");
	check(kills && atoi(kills + strlen("oom_kill ")) == 0, "the cgroup ran out of memory");
}

void memcg_leave(void)
{
	uint64_t deadline = now_ms() + SETTLE_MS * ktap_scale();
	char text[30];

	check_never_full();
	check_ok(put(ROOT "/cgroup.procs", "0"));
	for (;;) {
		get("memory.current", text, sizeof(text));
		if (strtoull(text, NULL, 10) <= LITTLE)
			break;
		check(now_ms() < deadline, "%s bytes are charged to a cgroup whose memory is freed",
		      text);
		memcg_reclaim();
		sleep_ms(5);
	}
	check(!rmdir(folder), "%s: %s", folder, strerror(errno));
}
