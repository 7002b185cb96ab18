// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ktap.h"
#include "stuck.h"

static void describe_thread(const char *pid, const char *tid)
{
	char path[600], line[200], state[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%s/task/%s/status", pid, tid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "State: %63[^\n]", state) == 1)
			break;
	if (file)
		fclose(file);
	diag("process %s thread %s: %s", pid, tid, state);

	snprintf(path, sizeof(path), "/proc/%s/task/%s/stack", pid, tid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		diag("  %.*s", (int)sizeof(line), line);
	if (file)
		fclose(file);
}

static void describe_process(const char *pid)
{
	char path[300];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]))
			describe_thread(pid, entry->d_name);
	if (dir)
		closedir(dir);
}

void stuck_describe(pid_t group)
{
	struct dirent *entry;
	DIR *dir = opendir("/proc");

	while (dir && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    getpgid(atoi(entry->d_name)) == group)
			describe_process(entry->d_name);
	if (dir)
		closedir(dir);
}
