/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The kernel's trace, as far as it is of the events in events/drm_pagemap/.
 */
#ifndef TRACEFS_H
#define TRACEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One line of the trace. */
struct trace_event {
	char name[40];
	char fields[400];	/* " name=value name=value ..." */
};

/*
 * Empty the trace, and record the events from now on (or no longer). Skips the
 * test where the kernel has none. Addresses are told as they are, not as hashes.
 */
void trace_start(void);
void trace_stop(void);

/* As an after-hook: whatever a test left. */
void trace_reset(void);

/* What was recorded, all of it: fails if the kernel had to drop some. */
struct trace {
	struct trace_event *events;
	size_t count;
};

struct trace trace_read(void);
void trace_free(struct trace *trace);

/* A field's number, decimal or hexadecimal; fails if there is none. */
int64_t trace_number(const struct trace_event *event, const char *field);
bool trace_is(const struct trace_event *event, const char *name);
/* Whether the field is this word. */
bool trace_has(const struct trace_event *event, const char *field, const char *word);

/* How many of that name there are, and the sum of one of their fields. */
size_t trace_count(const struct trace *trace, const char *name);
int64_t trace_sum(const struct trace *trace, const char *name, const char *field);

#endif /* TRACEFS_H */
