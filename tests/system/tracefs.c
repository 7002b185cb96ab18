// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ktap.h"
#include "tracefs.h"

#define TRACING	"/sys/kernel/tracing/"
#define EVENTS	TRACING "events/drm_pagemap/enable"

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

void trace_start(void)
{
	if (access(EVENTS, W_OK))
		skip("the kernel has no " EVENTS);
	check_ok(put(EVENTS, "0"));
	check_ok(put(TRACING "buffer_size_kb", "8192"));
	check_ok(put(TRACING "options/hash-ptr", "0"));
	check_ok(put(TRACING "tracing_on", "1"));
	check_ok(put(TRACING "trace", ""));
	check_ok(put(EVENTS, "1"));
}

void trace_stop(void)
{
	check_ok(put(EVENTS, "0"));
}

void trace_reset(void)
{
	if (access(EVENTS, W_OK))
		return;
	trace_stop();
	check_ok(put(TRACING "options/hash-ptr", "1"));
	check_ok(put(TRACING "trace", ""));
}

/* "task-pid [cpu] flags time: name: fields" */
static bool parse(char *line, struct trace_event *event)
{
	char *name = strstr(line, ": drm_pagemap_"), *fields;

	if (!name)
		return false;
	name += 2;
	fields = strchr(name, ':');
	check(fields && (size_t)(fields - name) < sizeof(event->name) &&
	      strlen(fields + 1) < sizeof(event->fields), "what line of the trace is this: %s",
	      line);
	*fields = '\0';
	snprintf(event->name, sizeof(event->name), "%s", name);
	snprintf(event->fields, sizeof(event->fields), "%s", fields + 1);
	return true;
}

struct trace trace_read(void)
{
	FILE *file = fopen(TRACING "trace", "re");
	struct trace trace = { };
	unsigned long kept, all;
	bool counted = false;
	char line[1024];

	check(file, "opening the trace gave %s", error_name(-errno));
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "# entries-in-buffer/entries-written: %lu/%lu", &kept, &all) == 2) {
			check(kept == all, "only %lu of %lu entries of the trace are left", kept,
			      all);
			counted = true;
		}
		if (line[0] == '#')
			continue;
		trace.events = realloc(trace.events, (trace.count + 1) * sizeof(*trace.events));
		check(trace.events, "out of memory");
		trace.count += parse(line, &trace.events[trace.count]);
	}
	fclose(file);
	check(counted, "the trace doesn't say how much of it there is");
	return trace;
}

void trace_free(struct trace *trace)
{
	free(trace->events);
	*trace = (struct trace){ };
}

static const char *value(const struct trace_event *event, const char *field)
{
	char key[40];
	const char *at;

	snprintf(key, sizeof(key), " %s=", field);
	at = strstr(event->fields, key);
	check(at, "%s has no %s:%s", event->name, field, event->fields);
	return at + strlen(key);
}

int64_t trace_number(const struct trace_event *event, const char *field)
{
	const char *from = value(event, field);
	bool hex = !strncmp(from, "0x", 2) || !strcmp(field, "mm");
	char *end;
	int64_t number = hex ? (int64_t)strtoull(from, &end, 16) : strtoll(from, &end, 10);

	check(end > from && (*end == ' ' || !*end), "%s: %s is no number:%s", event->name, field,
	      event->fields);
	return number;
}

bool trace_has(const struct trace_event *event, const char *field, const char *word)
{
	const char *from = value(event, field);

	return strcspn(from, " ") == strlen(word) && !strncmp(from, word, strlen(word));
}

bool trace_is(const struct trace_event *event, const char *name)
{
	return !strcmp(event->name, name);
}

size_t trace_count(const struct trace *trace, const char *name)
{
	size_t count = 0;

	for (size_t i = 0; i < trace->count; i++)
		count += trace_is(&trace->events[i], name);
	return count;
}

int64_t trace_sum(const struct trace *trace, const char *name, const char *field)
{
	int64_t sum = 0;

	for (size_t i = 0; i < trace->count; i++)
		if (trace_is(&trace->events[i], name))
			sum += trace_number(&trace->events[i], field);
	return sum;
}
