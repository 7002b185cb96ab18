// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "gpu_access.h"
#include "ktap.h"
#include "operations.h"
#include "pattern.h"
#include "procs.h"
#include "workload.h"

#define READ_WRITE	(PROT_READ | PROT_WRITE)
#define MAX_TIMESLICE	30

static uint64_t random_value(struct arena *arena)
{
	return pattern_word(0x57e55, ++arena->random);
}

/* "What" must have succeeded. */
static void expect(const struct arena *arena, bool success, const char *what)
{
	if (!success)
		arena_fail(arena, "%s: %s", what, strerror(errno));
}

/* CPU */

static void cpu_write(struct arena *arena)
{
	struct span span = arena_usable(arena, arena_span(arena), READ_WRITE);
	uint64_t value = random_value(arena);
	size_t skip = value % 1000, len;
	unsigned char *shadow = arena_shadow(arena, span.first) + skip;

	if (!span.count)
		return;
	/* All of it but the first and the last few bytes. */
	for (len = 0; skip + len + 8 + skip % 16 <= span.count * PAGE; len += 8) {
		uint64_t word = pattern_word(value, len);

		memcpy(shadow + len, &word, sizeof(word));
	}
	memcpy(arena_at(arena, span.first) + skip, shadow, len);
}

static void cpu_read(struct arena *arena)
{
	arena_verify(arena, arena_span(arena), "the CPU");
}

static void cpu_touch(struct arena *arena)
{
	struct span span = arena_usable(arena, arena_span(arena), READ_WRITE);

	for (size_t i = 0; i < span.count; i += 7) {
		arena_at(arena, span.first + i)[i]++;
		arena_shadow(arena, span.first + i)[i]++;
	}
}

/* GPU */

static void populate(struct arena *arena)
{
	struct span span = arena_span(arena);
	unsigned int timeslice = random_below(&arena->random, 4) ? 0 : MAX_TIMESLICE;
	struct span mapped = arena_usable(arena, span, 0);
	int err = simgpu_populate_once(gpu(), arena_at(arena, span.first), span.count * PAGE,
				       timeslice);

	if (err == -EBUSY || err == -ENOSPC)
		arena->refused++;
	else if (err != (mapped.count == span.count ? 0 : -ENOENT))
		arena_fail(arena, "populating gave %s", error_name(err));
}

static void evict(struct arena *arena)
{
	struct span span = arena_span(arena);
	int err = simgpu_evict_once(gpu(), arena_at(arena, span.first), span.count * PAGE);

	if (err == -EBUSY)
		arena->refused++;
	else if (err)
		arena_fail(arena, "evicting gave %s", error_name(err));
}

static void gpu_work(struct arena *arena)
{
	enum gpu_op op = random_below(&arena->random, GPU_OPS);
	int protection = op == GPU_SUM ? PROT_READ : READ_WRITE;
	struct span span = arena_usable(arena, arena_span(arena), protection);
	uint64_t value = random_value(arena), in_out = value, sum = 0;
	uint64_t *words = (uint64_t *)arena_shadow(arena, span.first);
	int err;

	if (!span.count)
		return;
	err = gpu_access(op, arena_at(arena, span.first), span.count * PAGE, &in_out);
	if (err)
		arena_fail(arena, "a GPU %s of %zu pages at %zu gave %s", gpu_op_names[op],
			   span.count, span.first, error_name(err));
	arena->gpu_bytes += span.count * PAGE;
	for (size_t i = 0; i < span.count * PAGE / 8; i++) {
		words[i] = gpu_result(op, words[i], value);
		sum += words[i];
	}
	if (op == GPU_SUM && in_out != sum)
		arena_fail(arena, "the GPU's sum of %zu pages at %zu is wrong", span.count,
			   span.first);
}

/* What the process itself may not do, the GPU may not do for it: it gets as far as that. */
static void gpu_trespass(struct arena *arena)
{
	struct span span = arena_span(arena);
	struct span allowed = arena_usable(arena, span, READ_WRITE);
	uint64_t *words = (uint64_t *)arena_shadow(arena, span.first);
	uint64_t value = random_value(arena);
	size_t done;
	int err;

	if (allowed.count == span.count)
		return;
	if (allowed.first != span.first)
		allowed.count = 0;
	err = gpu_access_done(GPU_FILL, arena_at(arena, span.first), span.count * PAGE, &value, &done);
	if (err != -EFAULT || done != allowed.count * PAGE)
		arena_fail(arena, "a GPU write of %zu pages of which %zu are allowed did %zu, %s",
			   span.count, allowed.count, done / PAGE, error_name(err));
	for (size_t i = 0; i < done / 8; i++)
		words[i] = value;
}

/* Mappings */

static void become_zero(struct arena *arena, struct span span, bool mapped, int protection)
{
	memset(arena_shadow(arena, span.first), 0, span.count * PAGE);
	for (size_t i = 0; i < span.count; i++)
		arena->pages[span.first + i] = (struct page_state){
			.mapped = mapped,
			.protection = protection,
		};
}

static void unmap(struct arena *arena)
{
	struct span span = arena_span(arena);

	/* Nobody else's mapping may come to lie there: not munmap(). */
	expect(arena, mmap(arena_at(arena, span.first), span.count * PAGE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) !=
	       MAP_FAILED, "mmap");
	become_zero(arena, span, true, PROT_NONE);
}

static void map_anew(struct arena *arena)
{
	struct span span = arena_span(arena);

	expect(arena, mmap(arena_at(arena, span.first), span.count * PAGE, READ_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED, "mmap");
	become_zero(arena, span, true, READ_WRITE);
}

static void move(struct arena *arena)
{
	struct span from = arena_usable(arena, arena_span(arena), 0), to;
	bool keep = !random_below(&arena->random, 3);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (keep ? MREMAP_DONTUNMAP : 0);

	to = (struct span){ random_below(&arena->random, ARENA_PAGES - from.count + 1),
			    from.count };
	if (!from.count || (from.first < to.first + to.count && to.first < from.first + from.count))
		return;
	expect(arena, mremap(arena_at(arena, from.first), from.count * PAGE, to.count * PAGE, flags,
			     arena_at(arena, to.first)) != MAP_FAILED, "mremap");
	memcpy(arena_shadow(arena, to.first), arena_shadow(arena, from.first), to.count * PAGE);
	memcpy(&arena->pages[to.first], &arena->pages[from.first],
	       to.count * sizeof(*arena->pages));
	if (keep) {
		memset(arena_shadow(arena, from.first), 0, from.count * PAGE);
		for (size_t i = 0; i < from.count; i++)
			arena->pages[from.first + i].locked = false;
	} else {
		/* Not left as a hole, see unmap(). */
		expect(arena, mmap(arena_at(arena, from.first), from.count * PAGE, READ_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
		       "mmap");
		become_zero(arena, from, true, READ_WRITE);
	}
}

static void protect(struct arena *arena)
{
	static const int protections[] = { PROT_NONE, PROT_READ, READ_WRITE, READ_WRITE };
	struct span span = arena_usable(arena, arena_span(arena), 0);
	int protection = protections[random_below(&arena->random, 4)];

	if (!span.count)
		return;
	expect(arena, !mprotect(arena_at(arena, span.first), span.count * PAGE, protection),
	       "mprotect");
	for (size_t i = 0; i < span.count; i++)
		arena->pages[span.first + i].protection = protection;
}

static void lock(struct arena *arena)
{
	struct span span = arena_usable(arena, arena_span(arena), READ_WRITE);
	bool locked = !random_below(&arena->random, 3);

	if (!span.count || span.count > 64)
		return;
	expect(arena, !(locked ? mlock : munlock)(arena_at(arena, span.first), span.count * PAGE),
	       "mlock or munlock");
	for (size_t i = 0; i < span.count; i++)
		arena->pages[span.first + i].locked = locked;
}

static bool is_locked(const struct arena *arena, struct span span)
{
	for (size_t i = 0; i < span.count; i++)
		if (arena->pages[span.first + i].locked)
			return true;
	return false;
}

static void advise(struct arena *arena)
{
	static const int advices[] = {
		MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
	};
	struct span span = arena_usable(arena, arena_span(arena), READ_WRITE);
	int advice = advices[random_below(&arena->random, 5)];
	static const unsigned char zero[PAGE];

	if (!span.count || is_locked(arena, span))
		return;
	expect(arena, !madvise(arena_at(arena, span.first), span.count * PAGE, advice), "madvise");
	if (advice == MADV_DONTNEED)
		memset(arena_shadow(arena, span.first), 0, span.count * PAGE);
	for (size_t i = 0; advice == MADV_FREE && i < span.count; i++) {
		unsigned char *page = arena_at(arena, span.first + i);

		/* Either it is gone or it is still there; from now on it stays. */
		__atomic_fetch_or(page, 0, __ATOMIC_RELAXED);
		if (!memcmp(page, zero, PAGE))
			memset(arena_shadow(arena, span.first + i), 0, PAGE);
	}
}

/* Others: the kernel, and other processes */

/* The kernel pins the pages while it copies. */
static void kernel_reads(struct arena *arena)
{
	struct span span = arena_usable(arena, arena_span(arena), PROT_READ);
	size_t len = span.count * PAGE;
	unsigned char *copy = malloc(len);
	struct iovec local = { copy, len }, remote = { arena_at(arena, span.first), len };

	if (len) {
		expect(arena, process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)len,
		       "process_vm_readv");
		arena_compare(arena, span, copy, "the kernel");
	}
	free(copy);
}

static void kernel_writes(struct arena *arena)
{
	struct span span = arena_usable(arena, arena_span(arena), READ_WRITE);
	unsigned char *shadow = arena_shadow(arena, span.first);
	uint64_t value = random_value(arena);
	struct iovec local = { shadow, span.count * PAGE };
	struct iovec remote = { arena_at(arena, span.first), span.count * PAGE };

	if (!span.count)
		return;
	for (size_t i = 0; i < span.count; i++)
		memcpy(shadow + i * PAGE + 8, &value, sizeof(value));
	expect(arena, process_vm_writev(getpid(), &local, 1, &remote, 1, 0) ==
	       (ssize_t)local.iov_len, "process_vm_writev");
}

static void child_lives(void *arg)
{
	struct arena *arena = arg;
	struct span all = { 0, ARENA_PAGES };

	cpu_write(arena);
	gpu_work(arena);
	evict(arena);
	cpu_write(arena);
	gpu_work(arena);
	arena_verify(arena, all, "a child");
}

/* What the child does and what its parent does meanwhile is no matter of the other's. */
static void fork_child(struct arena *arena)
{
	pid_t child = start(child_lives, arena);

	arena->random += 1000;
	gpu_work(arena);
	cpu_write(arena);
	reap_ok(child);
}

static const struct {
	void (*run)(struct arena *arena);
	unsigned int weight;
} operations[] = {
	{ cpu_write, 12 }, { cpu_read, 10 }, { cpu_touch, 6 },
	{ populate, 14 }, { evict, 8 }, { gpu_work, 20 }, { gpu_trespass, 3 },
	{ unmap, 2 }, { map_anew, 5 }, { move, 6 }, { protect, 5 }, { lock, 3 }, { advise, 6 },
	{ kernel_reads, 3 }, { kernel_writes, 3 }, { fork_child, 1 },
};

void operate(struct arena *arena)
{
	unsigned int total = 0, pick;
	size_t i;

	for (i = 0; i < sizeof(operations) / sizeof(*operations); i++)
		total += operations[i].weight;
	pick = random_below(&arena->random, total);
	for (i = 0; pick >= operations[i].weight; i++)
		pick -= operations[i].weight;
	arena->operations++;
	operations[i].run(arena);
}
