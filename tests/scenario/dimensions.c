// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <stdio.h>
#include <string.h>

#include "dimensions.h"

const struct dimension_info dimensions[DIMENSIONS] = {
	[ALLOC] = { "allocation", { "malloc", "mmap", "huge", "mlock", "file", "shmem" } },
	[LIFE] = { "life", { "free", "new", "race", "busy", "hole", "mremap", "dontunmap" } },
	[ACCESS] = { "access", {
		"once", "twice", "many", "stride", "gpu-cpu", "cpu-gpu", "faults" } },
	[FORK] = { "fork", { "nofork", "read", "after", "write", "exec", "orphan" } },
	[ADVICE] = { "madvise", { "noadvice", "dontneed", "madvfree", "cold" } },
	[TASKS] = { "tasks", { "one", "threads", "processes" } },
	[PREFETCH] = { "prefetch", { "demand", "prefetch" } },
	[PRESSURE] = { "pressure", { "calm", "evict", "vram", "memcg" } },
	[SIZE] = { "size", { "16k", "64k", "512k", "2m64k" } },
};

unsigned int dimension_count(enum dimension dimension)
{
	unsigned int count = 0;

	while (dimensions[dimension].values[count])
		count++;
	return count;
}

void scenario_text(const struct scenario *scenario, char text[SCENARIO_TEXT])
{
	size_t len = 0;

	for (int i = 0; i < DIMENSIONS; i++)
		len += snprintf(text + len, SCENARIO_TEXT - len, "%s%s", i ? "/" : "",
				dimensions[i].values[scenario->value[i]]);
}

static bool parse_value(struct scenario *scenario, enum dimension dimension, const char *word)
{
	const struct dimension_info *info = &dimensions[dimension];

	for (unsigned int i = 0; info->values[i]; i++)
		if (word && !strcmp(word, info->values[i])) {
			scenario->value[dimension] = i;
			return true;
		}
	fprintf(stderr, "a scenario's %s is one of:", info->name);
	for (unsigned int i = 0; info->values[i]; i++)
		fprintf(stderr, " %s", info->values[i]);
	fprintf(stderr, "; not \"%s\"\n", word ? word : "");
	return false;
}

bool scenario_parse(struct scenario *scenario, const char *text)
{
	char copy[SCENARIO_TEXT];
	char *rest = copy;

	snprintf(copy, sizeof(copy), "%s", text);
	for (int i = 0; i < DIMENSIONS; i++)
		if (!parse_value(scenario, i, strsep(&rest, "/")))
			return false;
	if (rest)
		fprintf(stderr, "too much for a scenario: \"%s\"\n", rest);
	return !rest;
}
