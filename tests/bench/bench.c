// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Runs the operations of drm_pagemap on memory of its own, through drm_pagemap_bench.ko,
 * and prints what each took: for each case a line of JSON. Each repeat has fresh
 * memory with a pattern in it, which must be there at the end.
 *
 *   bench [--ops migrate,fault,...] SIZE/KIND[+KIND...][/OP[,OP...]]:REPEATS ...
 *
 * e.g. 2M/4k+thp:10, or 1G/4k/migrate,fault:1 for these operations alone, of those of --ops. Of a size that a kind or an operation can't have, there is no case.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench.h"

#define PAGE	4096ul
#define BLOCK	(2ul << 20)
#define PUD	(1ul << 30)
#define MAX_REPEATS	100

static int driver;

enum kind { SMALL, THP, MIXED, NR_KINDS };
static const char *const kind_names[NR_KINDS] = { "4k", "thp", "mixed" };

/* --- The driver ------------------------------------------------------------ */

/* What a sample takes in all its operations. */
struct sample {
	uint64_t total_ns, callback_ns, before_ns, copying_ns, after_ns, copied, cleared, held;
	unsigned int tries;
};

static void mark(uint32_t verb)
{
	struct bench_op op = { .verb = verb };

	if (ioctl(driver, BENCH_IOC_OP, &op))
		err(1, "mark");
}

static void run(struct bench_op *op, struct sample *sample)
{
	if (!sample)
		op->flags |= BENCH_UNCOUNTED;
	if (ioctl(driver, BENCH_IOC_OP, op))
		err(1, "operation %u", op->verb);
	if (op->result)
		errx(1, "operation %u: %s", op->verb, strerror(-op->result));
	if (!sample)
		return;
	sample->total_ns += op->total_ns;
	sample->callback_ns += op->callback_ns;
	sample->before_ns += op->before_ns;
	sample->copying_ns += op->copying_ns;
	sample->after_ns += op->after_ns;
	sample->copied += op->copied;
	sample->cleared += op->cleared;
	sample->tries += op->tries;
	if (op->held > sample->held)
		sample->held = op->held;
}

/* --- Memory ---------------------------------------------------------------- */

struct memory {
	char *map, *start;
	size_t size, map_size;
	uint64_t seed;
};

static uint64_t word(const struct memory *memory, size_t page, size_t i)
{
	return (memory->seed + page) * 0x9e3779b97f4a7c15ull + i;
}

/* All of each page's cache lines. */
static void fill(struct memory *memory, size_t from, size_t to)
{
	for (size_t at = from; at < to; at += 64)
		*(uint64_t *)(memory->start + at) = word(memory, at / PAGE, at % PAGE);
}

static void verify(const struct memory *memory, bool untouched)
{
	for (size_t at = 0; at < memory->size; at += 64) {
		uint64_t want = untouched ? 0 : word(memory, at / PAGE, at % PAGE);
		uint64_t is = *(uint64_t *)(memory->start + at);

		if (is != want)
			errx(1, "wrong data at %#zx of %#zx bytes: %#lx, not %#lx", at, memory->size, is, want);
	}
}

static size_t huge_bytes(const struct memory *memory)
{
	char line[256];
	size_t kib, total = 0;
	uintptr_t start, end;
	bool ours = false;
	FILE *file = fopen("/proc/self/smaps", "r");

	if (!file)
		err(1, "/proc/self/smaps");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start < (uintptr_t)memory->start + memory->size && end > (uintptr_t)memory->start;
		else if (ours && sscanf(line, "AnonHugePages: %zu kB", &kib) == 1)
			total += kib << 10;
	}
	fclose(file);
	return total;
}

static void memory_new(struct memory *memory, enum kind kind, size_t size, bool untouched)
{
	static uint64_t seed;
	/* C's layer brings home what is aligned as an allocation is large. */
	size_t align = size > BLOCK ? size : BLOCK, huge = 0;

	memory->size = size;
	memory->map_size = size + align;
	memory->seed = ++seed << 32;
	memory->map = mmap(NULL, memory->map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory->map == MAP_FAILED)
		err(1, "mmap");
	memory->start = (char *)(((uintptr_t)memory->map + align - 1) & ~(align - 1));
	if (madvise(memory->map, memory->map_size, kind == SMALL ? MADV_NOHUGEPAGE : MADV_HUGEPAGE))
		err(1, "madvise");
	if (untouched) {
		/*
		 * C's layer never gets a range of which not even a table of PMDs is there: it reports
		 * -EBUSY each time. What is discarded leaves the table behind.
		 */
		if (size >= PUD) {
			memory->start[0] = 1;
			if (madvise(memory->start, BLOCK, MADV_DONTNEED))
				err(1, "madvise");
		}
		return;
	}
	if (kind == MIXED) {
		/* One mapping, so the advice is the same for all of it. */
		for (size_t at = 0; at < size; at += 2 * BLOCK)
			memory->start[at] = 1;
		if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
			err(1, "prctl");
	}
	fill(memory, 0, size);
	if (kind == MIXED && prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0))
		err(1, "prctl");
	if (kind != SMALL)
		huge = kind == THP ? size : (size / BLOCK + 1) / 2 * BLOCK;
	if (huge_bytes(memory) != huge)
		errx(1, "%zu KiB are in huge pages, not %zu", huge_bytes(memory) >> 10, huge >> 10);
}

static void memory_free(struct memory *memory)
{
	munmap(memory->map, memory->map_size);
}

/* --- Operations ------------------------------------------------------------ */

static uint32_t migrate(struct memory *memory, uint32_t gpu, size_t from, size_t to, struct sample *sample)
{
	struct bench_op op = {
		.verb = BENCH_MIGRATE,
		.gpu = gpu,
		.start = (uintptr_t)memory->start + from,
		.end = (uintptr_t)memory->start + to,
		.flags = BENCH_RETRY,
	};

	run(&op, sample);
	return op.id;
}

static void touch(struct memory *memory, size_t from, size_t to, size_t stride, struct sample *sample)
{
	struct bench_op op = {
		.verb = BENCH_TOUCH,
		.start = (uintptr_t)memory->start + from,
		.end = (uintptr_t)memory->start + to,
		.stride = stride,
	};

	run(&op, sample);
}

static void op_migrate(struct memory *memory, struct sample *sample)
{
	migrate(memory, 0, 0, memory->size, sample);
}

static void op_fault(struct memory *memory, struct sample *sample)
{
	migrate(memory, 0, 0, memory->size, NULL);
	touch(memory, 0, 1, 1, sample);
}

static void op_evict(struct memory *memory, struct sample *sample)
{
	struct bench_op op = { .verb = BENCH_EVICT };

	op.id = migrate(memory, 0, 0, memory->size, NULL);
	run(&op, sample);
}

static void op_peer(struct memory *memory, struct sample *sample)
{
	migrate(memory, 0, 0, memory->size, NULL);
	migrate(memory, 1, 0, memory->size, sample);
}

static void op_resident(struct memory *memory, struct sample *sample)
{
	migrate(memory, 0, 0, memory->size, NULL);
	migrate(memory, 0, 0, memory->size, sample);
}

/* The second half is wanted, which has to be like the first one: only that where it can be asked for, else all anew. */
static void op_half(struct memory *memory, struct sample *sample)
{
	struct bench_op op = {
		.verb = BENCH_MIGRATE,
		.start = (uintptr_t)memory->start,
		.end = (uintptr_t)memory->start + memory->size / 2,
		.flags = BENCH_MISSING | BENCH_UNCOUNTED,
	};

	if (!ioctl(driver, BENCH_IOC_OP, &op)) {
		if (op.result)
			errx(1, "half: %s", strerror(-op.result));
		op.flags = BENCH_MISSING;
	} else if (errno == EOPNOTSUPP) {
		op.id = migrate(memory, 0, 0, memory->size / 2, NULL);
		op.flags = BENCH_RETRY | BENCH_EVICT_FIRST;
	} else {
		err(1, "half");
	}
	op.end = (uintptr_t)memory->start + memory->size;
	run(&op, sample);
}

static void op_sequential(struct memory *memory, struct sample *sample)
{
	migrate(memory, 0, 0, memory->size, NULL);
	touch(memory, 0, memory->size, PAGE, sample);
}

static void op_ping_pong(struct memory *memory, struct sample *sample)
{
	for (int i = 0; i < 4; i++) {
		migrate(memory, 0, 0, memory->size, sample);
		touch(memory, 0, 1, 1, sample);
	}
}

static const struct operation {
	const char *name;
	void (*run)(struct memory *memory, struct sample *sample);
	bool untouched;
	/* The least size, and how much more that is for mixed pages. */
	size_t least, mixed;
} operations[] = {
	{ .name = "migrate", .run = op_migrate },
	{ .name = "fault", .run = op_fault },
	{ .name = "evict", .run = op_evict },
	{ .name = "peer", .run = op_peer },
	{ .name = "resident", .run = op_resident },
	{ .name = "untouched", .run = op_migrate, .untouched = true },
	{ .name = "half", .run = op_half, .least = 2 * PAGE, .mixed = 2 * BLOCK / PAGE },
	{ .name = "sparse", .run = op_fault, .least = 2 * PAGE },
	{ .name = "sequential", .run = op_sequential, .least = 2 * PAGE },
	{ .name = "ping-pong", .run = op_ping_pong },
};

/* --- Cases ----------------------------------------------------------------- */

static void one_case(const struct operation *operation, enum kind kind, size_t size, unsigned int repeats)
{
	static struct sample samples[MAX_REPEATS];
	uint64_t held = UINT64_MAX;

	mark(BENCH_CASE);
	memset(samples, 0, sizeof(samples));
	for (unsigned int i = 0; i < repeats; i++) {
		struct memory memory;

		memory_new(&memory, kind, size, operation->untouched);
		operation->run(&memory, &samples[i]);
		mark(BENCH_REPEAT);
		verify(&memory, operation->untouched);
		memory_free(&memory);
		if (samples[i].held < held)
			held = samples[i].held;
	}
	printf("{\"op\": \"%s\", \"kind\": \"%s\", \"size\": %zu, ", operation->name, kind_names[kind], size);
	printf("\"copied\": %lu, \"cleared\": %lu, ", samples[0].copied, samples[0].cleared);
	printf("\"tries\": %u, \"held\": %lu, \"samples\": [", samples[0].tries, held);
	for (unsigned int i = 0; i < repeats; i++)
		printf("%s[%lu, %lu, %lu, %lu, %lu]", i ? ", " : "", samples[i].total_ns, samples[i].callback_ns,
		       samples[i].before_ns, samples[i].copying_ns, samples[i].after_ns);
	printf("]}\n");
	fflush(stdout);
}

static bool listed(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (; list; list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL)
		if (!strncmp(list, name, length) && (list[length] == ',' || !list[length]))
			return true;
	return false;
}

/* SIZE/KINDS[/OPS]:REPEATS */
static void cases(char *text, const char *ops)
{
	const char *whole = strdup(text), *only = ops;
	char *kinds, *end;
	size_t size = strtoul(text, &end, 10);
	unsigned long repeats;

	size <<= *end == 'G' ? 30 : *end == 'M' ? 20 : *end == 'K' ? 10 : 0;
	kinds = strchr(text, '/');
	end = strchr(text, ':');
	repeats = end ? strtoul(end + 1, NULL, 10) : 0;
	if (!size || size % PAGE || !kinds || !repeats || repeats > MAX_REPEATS)
		errx(2, "'%s' is not SIZE/KINDS[/OPS]:REPEATS, with up to %u repeats", whole, MAX_REPEATS);
	*end = 0;
	end = strchr(++kinds, '/');
	if (end) {
		*end = 0;
		only = end + 1;
	}
	for (enum kind kind = 0; kind < NR_KINDS; kind++) {
		if (!strstr(kinds, kind_names[kind]))
			continue;
		if (kind != SMALL && size % (kind == THP ? BLOCK : 2 * BLOCK))
			errx(2, "'%s': that size has no %s pages", whole, kind_names[kind]);
		for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++)
			if (listed(ops, operations[i].name) && listed(only, operations[i].name) &&
			    size >= operations[i].least * (kind == MIXED ? operations[i].mixed : 1))
				one_case(&operations[i], kind, size, repeats);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "ops", required_argument, NULL, 'o' },
		{},
	};
	const char *ops = "migrate,fault,evict";
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option != 'o')
			return 2;
		ops = optarg;
	}
	driver = open("/dev/drm_pagemap_bench", O_RDWR | O_CLOEXEC);
	if (driver < 0)
		err(1, "/dev/drm_pagemap_bench");
	for (int i = optind; i < argc; i++)
		cases(argv[i], ops);
	return 0;
}
