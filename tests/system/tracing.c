// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the tracepoints say is what has happened: it is compared with where the
 * pages are, with the driver's counters and with the clock.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "ktap.h"
#include "tracefs.h"

#define MIGRATE	"drm_pagemap_migrate"
#define FAULT	"drm_pagemap_fault"
#define EVICT	"drm_pagemap_evict"
#define MOVE	"drm_pagemap_move"

/* Places that are no device's. */
#define RAM	(-1)
#define NOWHERE	(-2)

/* Not a whole number of the driver's 2 MiB parts, nor at the start of one. */
#define PAGES	((size_t)1300)
#define OFFSET	(24 * PAGE)

/* The number of the device that migrations went to, if it is a plausible one. */
static int64_t device_of(const struct trace *trace)
{
	int64_t device = -1;

	for (size_t i = 0; i < trace->count; i++) {
		if (!trace_is(&trace->events[i], MIGRATE))
			continue;
		device = trace_number(&trace->events[i], "device");
		check(device >= 0 && device < 64, "migrated to the device %lld", (long long)device);
	}
	check(device >= 0, "no migration was seen");
	return device;
}

/* Each page of the buffer moved once, and nothing else did, @from one place @to another. */
static void expect_moves(const struct trace *trace, const struct buffer *buf, int64_t from,
			 int64_t to)
{
	size_t pages = buf->size / PAGE;
	unsigned char *seen = calloc(pages, 1);

	for (size_t i = 0; i < trace->count; i++) {
		const struct trace_event *event = &trace->events[i];
		uint64_t start, first, count, order;

		if (!trace_is(event, MOVE))
			continue;
		start = trace_number(event, "start");
		count = trace_number(event, "nr_pages");
		order = trace_number(event, "order");
		first = (start - (uintptr_t)buf->mem) / PAGE;
		check(trace_number(event, "from") == from && trace_number(event, "to") == to,
		      "expected a move from %lld to %lld:%s", (long long)from, (long long)to,
		      event->fields);
		check(count && start % (PAGE << order) == 0 && count % (1 << order) == 0,
		      "not whole folios:%s", event->fields);
		check(start >= (uintptr_t)buf->mem && first + count <= pages,
		      "outside of the buffer at %p:%s", buf->mem, event->fields);
		for (size_t page = first; page < first + count; page++)
			check(!seen[page]++, "page %zu has moved twice", page);
	}
	for (size_t page = 0; page < pages; page++)
		check(seen[page], "no event for page %zu", page);
	free(seen);
}

/* @name, alone of the three operations, moved @pages pages, in no time to speak of. */
static void expect_operation(const struct trace *trace, const char *name, size_t pages,
			     uint64_t us)
{
	static const char *const operations[] = { MIGRATE, FAULT, EVICT };

	for (int i = 0; i < 3; i++)
		check(!strcmp(operations[i], name) || !trace_count(trace, operations[i]),
		      "%s was seen, beside %s", operations[i], name);
	check(trace_count(trace, name), "no %s was seen", name);
	check(trace_sum(trace, name, "moved") == (int64_t)pages, "%s: %lld pages moved, not %zu",
	      name, (long long)trace_sum(trace, name, "moved"), pages);
	check(trace_sum(trace, name, "bytes") == (int64_t)(pages * PAGE), "%s: %lld bytes", name,
	      (long long)trace_sum(trace, name, "bytes"));
	for (size_t i = 0; i < trace->count; i++) {
		const struct trace_event *event = &trace->events[i];

		if (trace_is(event, name))
			check(trace_number(event, "ns") > 0, "took no time:%s", event->fields);
	}
	check(trace_sum(trace, name, "ns") <= (int64_t)us * 1000,
	      "%s: took %lld ns, of %llu us that went by", name,
	      (long long)trace_sum(trace, name, "ns"), (unsigned long long)us);
}

/* All events that know it are of this process, and of one address space. */
static void expect_process(const struct trace *trace)
{
	int64_t mm = 0;

	for (size_t i = 0; i < trace->count; i++) {
		const struct trace_event *event = &trace->events[i];

		if (trace_is(event, MIGRATE) || trace_is(event, FAULT))
			check(trace_number(event, "pid") == getpid(), "this is process %d:%s",
			      getpid(), event->fields);
		if (!mm)
			mm = trace_number(event, "mm");
		check(mm && trace_number(event, "mm") == mm, "the address space was %llx:%s",
		      (unsigned long long)mm, event->fields);
	}
}

struct step {
	struct trace trace;
	struct drm_simgpu_info before;
	uint64_t began;
	uint64_t us;
};

static void begin(struct step *step)
{
	step->before = gpu_info();
	trace_start();
	step->began = now_us();
}

static void end(struct step *step)
{
	step->us = now_us() - step->began + 1;
	trace_stop();
	step->trace = trace_read();
	expect_process(&step->trace);
}

static void to_vram_and_back_by_faults(void)
{
	struct buffer buf;
	struct step step;
	int64_t device;

	buffer_map_at(&buf, PAGES * PAGE, OFFSET);
	buffer_write(&buf);

	begin(&step);
	buffer_populate(&buf);
	end(&step);
	buffer_expect(&buf, SIMGPU_PLACE_VRAM);
	check(gpu_info().populated - step.before.populated == PAGES, "the driver counts otherwise");
	expect_operation(&step.trace, MIGRATE, PAGES, step.us);
	check(trace_sum(&step.trace, MIGRATE, "nr_pages") == (int64_t)PAGES, "asked for otherwise");
	check(!trace_sum(&step.trace, MIGRATE, "error"), "a migration that worked has an error");
	device = device_of(&step.trace);
	expect_moves(&step.trace, &buf, RAM, device);
	trace_free(&step.trace);

	begin(&step);
	buffer_verify(&buf);
	end(&step);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	check(gpu_info().faulted - step.before.faulted == PAGES, "the driver counts otherwise");
	expect_operation(&step.trace, FAULT, PAGES, step.us);
	expect_moves(&step.trace, &buf, device, RAM);
	for (size_t i = 0; i < step.trace.count; i++) {
		const struct trace_event *event = &step.trace.events[i];
		uint64_t address;

		if (!trace_is(event, FAULT))
			continue;
		address = trace_number(event, "address");
		check(address - (uintptr_t)buf.mem < buf.size && address % PAGE == 0 &&
		      trace_number(event, "device") == device && trace_has(event, "result", "done"),
		      "what fault is this:%s", event->fields);
	}
	trace_free(&step.trace);
}

/* Has a buffer in VRAM, and returns of which device. */
static int64_t in_vram(struct buffer *buf)
{
	struct step step;
	int64_t device;

	buffer_map_at(buf, PAGES * PAGE, OFFSET);
	buffer_write(buf);
	begin(&step);
	buffer_populate(buf);
	end(&step);
	device = device_of(&step.trace);
	trace_free(&step.trace);
	return device;
}

static void back_by_eviction(void)
{
	struct buffer buf;
	struct step step;
	int64_t device;

	device = in_vram(&buf);

	begin(&step);
	buffer_evict(&buf);
	end(&step);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	check(gpu_info().evicted - step.before.evicted == PAGES, "the driver counts otherwise");
	expect_operation(&step.trace, EVICT, PAGES, step.us);
	check(trace_sum(&step.trace, EVICT, "nr_pages") >= (int64_t)PAGES, "smaller allocations");
	check(!trace_sum(&step.trace, EVICT, "error"), "an eviction that worked has an error");
	expect_moves(&step.trace, &buf, device, RAM);
	trace_free(&step.trace);
	buffer_verify(&buf);
}

static void never_touched(void)
{
	struct buffer buf;
	struct step step;

	buffer_map_at(&buf, PAGES * PAGE, OFFSET);
	begin(&step);
	buffer_populate(&buf);
	end(&step);
	expect_operation(&step.trace, MIGRATE, PAGES, step.us);
	expect_moves(&step.trace, &buf, NOWHERE, device_of(&step.trace));
	trace_free(&step.trace);
}

static void freed_in_vram(void)
{
	struct buffer buf;
	struct step step;
	int64_t device;

	device = in_vram(&buf);

	begin(&step);
	check(!munmap(buf.mem, buf.size), "unmapping");
	end(&step);
	expect_moves(&step.trace, &buf, device, NOWHERE);
	for (size_t i = 0; i < step.trace.count; i++)
		check(trace_is(&step.trace.events[i], MOVE), "%s when freed",
		      step.trace.events[i].name);
	trace_free(&step.trace);
}

/* Large folios move as such. Where the kernel gives none, this says nothing. */
static void large_folios(void)
{
	struct buffer buf;
	struct step step;
	size_t large = 0;

	buffer_map_at(&buf, 4 * MB, 0);
	check(!madvise(buf.mem, buf.size, MADV_HUGEPAGE), "madvise gave %s", error_name(-errno));
	buffer_write(&buf);
	begin(&step);
	buffer_populate(&buf);
	end(&step);
	expect_operation(&step.trace, MIGRATE, buf.size / PAGE, step.us);
	expect_moves(&step.trace, &buf, RAM, device_of(&step.trace));
	for (size_t i = 0; i < step.trace.count; i++)
		if (trace_is(&step.trace.events[i], MOVE) &&
		    trace_number(&step.trace.events[i], "order") == 9)
			large += trace_number(&step.trace.events[i], "nr_pages");
	trace_free(&step.trace);
	if (!large)
		skip("no huge page was to be had");
	diag("%zu of %zu pages moved in huge folios", large, buf.size / PAGE);
}

static void what_fails(void)
{
	struct buffer buf;
	struct step step;
	int err;

	buffer_init(&buf, 64 * PAGE);
	begin(&step);
	gpu_inject(SIMGPU_INJECT_FAIL, 1, 0);
	err = simgpu_populate_once(gpu(), buf.mem, buf.size, 0);
	end(&step);
	gpu_behave();
	check_result(err, -EIO);
	buffer_expect(&buf, SIMGPU_PLACE_RAM);
	check(!trace_count(&step.trace, MOVE), "pages are said to have moved");
	expect_operation(&step.trace, MIGRATE, 0, step.us);
	check(trace_count(&step.trace, MIGRATE) == 1 &&
	      trace_sum(&step.trace, MIGRATE, "error") == -EIO,
	      "the error of %zu migrations was %lld", trace_count(&step.trace, MIGRATE),
	      (long long)trace_sum(&step.trace, MIGRATE, "error"));
	trace_free(&step.trace);
}

static void how_long(void)
{
	static const unsigned int us = 60000;
	struct buffer buf;
	struct step step;

	buffer_init(&buf, 4 * PAGE);
	begin(&step);
	gpu_inject(SIMGPU_INJECT_DELAY, 1, us);
	buffer_populate(&buf);
	end(&step);
	gpu_behave();
	expect_operation(&step.trace, MIGRATE, 4, step.us);
	check(trace_sum(&step.trace, MIGRATE, "ns") >= us * INT64_C(1000),
	      "%u us in the device are %lld ns", us,
	      (long long)trace_sum(&step.trace, MIGRATE, "ns"));
	trace_free(&step.trace);
}

static void recording_off(void)
{
	struct buffer buf;
	struct trace trace;

	buffer_init(&buf, PAGES * PAGE);
	trace_start();
	trace_stop();
	buffer_populate(&buf);
	buffer_verify(&buf);
	buffer_populate(&buf);
	buffer_evict(&buf);
	buffer_unmap(&buf);
	trace = trace_read();
	check(!trace.count, "%zu events, though they are off", trace.count);
	trace_free(&trace);
}

static void after(void)
{
	trace_reset();
	gpu_after_test();
}

static const struct ktap_test tests[] = {
	{ .name = "to_vram_and_back_by_faults", .run = to_vram_and_back_by_faults },
	{ .name = "back_by_eviction", .run = back_by_eviction },
	{ .name = "never_touched", .run = never_touched },
	{ .name = "freed_in_vram", .run = freed_in_vram },
	{ .name = "large_folios", .run = large_folios },
	{ .name = "what_fails", .run = what_fails },
	{ .name = "how_long", .run = how_long },
	{ .name = "recording_off", .run = recording_off },
};

KTAP_MAIN(tests, after)
