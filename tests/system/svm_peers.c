// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Two GPUs on a link, and one without: pages go from one to another, or are used
 * where they are; and a GPU that goes away, or dies, while the other one uses its memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "control.h"
#include "driver.h"
#include "gpus.h"
#include "ktap.h"
#include "pattern.h"
#include "procs.h"
#include "svm.h"

#define AT(p)	((uintptr_t)(p))
#define SIZE	(3 * MB)
#define WORDS	(SIZE / 8)
#define PAGES	(SIZE / PAGE)

/* A and B are on the link, C is not. */
enum { A, B, C, GPUS };

static uint64_t run_on(int which, job_t job)
{
	gpus_use(which);
	job.vm_id = 0;
	return job_run(job);
}

/* Add to each word, by a GPU that needs to write to it for that; pages of RAM it needs for itself. */
static void add_on(int which, uint64_t *words, uint64_t value)
{
	run_on(which, (job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words), .len = SIZE,
			       .arg = value });
}

/* The same for 32-bit words, of which it shares those in RAM with the CPUs. */
static job_t add32(uint32_t *words, const uint32_t *what)
{
	return (job_t){ .op = SIMGPU_JOB_ADD_U32, .src = AT(words), .src2 = AT(what), .dst = AT(words),
			.len = SIZE };
}

static uint32_t *words32(uint32_t first, uint32_t step)
{
	uint32_t *words = map_small(SIZE);

	for (size_t i = 0; i < SIZE / 4; i++)
		words[i] = first + step * i;
	return words;
}

static void verify32(const uint32_t *words, uint32_t first, uint32_t step)
{
	for (size_t i = 0; i < SIZE / 4; i++)
		check(words[i] == first + step * i, "word %zu is %u, expected %u", i, words[i],
		      (uint32_t)(first + step * i));
}

static void expect_on(int which, void *start, size_t size, int place)
{
	size_t count;

	gpus_use(which);
	count = count_places(start, size, place);
	check(count == size / PAGE, "for GPU %d %zu of %zu pages are in place %d, expected all", which,
	      count, size / PAGE, place);
}

static void advise_on(int which, void *start, unsigned int prefer, unsigned int flags)
{
	gpus_use(which);
	svm_advise(start, SIZE, prefer, flags);
}

static uint64_t peer_bytes(int which)
{
	gpus_use(which);
	return svm_counters().peer_bytes;
}

/* Words of a pattern, brought to A by a job of its, which adds 1. */
static uint64_t *words_in_a(void *(*map)(size_t), uint64_t seed)
{
	uint64_t *words = map(SIZE);

	pattern_fill(words, WORDS, 0, seed);
	add_on(A, words, 1);
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
	return words;
}

/* They are the pattern, and @added. The CPU brings them home by looking. */
static void verify(const uint64_t *words, uint64_t seed, uint64_t added)
{
	for (size_t i = 0; i < WORDS; i++)
		check(words[i] == pattern_word(seed, i) + added,
		      "word %zu is %016" PRIx64 ", expected %016" PRIx64, i, words[i],
		      pattern_word(seed, i) + added);
}

/* What they should have as a checksum, worked out without a look at them. */
static uint64_t expected_checksum(uint64_t seed, uint64_t added)
{
	uint64_t *copy = malloc(SIZE), sum;

	check(copy, "no memory");
	for (size_t i = 0; i < WORDS; i++)
		copy[i] = pattern_word(seed, i) + added;
	sum = checksum(copy, SIZE);
	free(copy);
	return sum;
}

static void expect_sum(uint64_t got, uint64_t expected)
{
	check(got == expected, "the checksum is %016" PRIx64 ", expected %016" PRIx64, got, expected);
}

/* What a GPU has sent over the link, and what has come to RAM from it. */
struct moves {
	uint64_t sent, home, bytes;
};

static struct moves moves_of(int which)
{
	return (struct moves){
		.sent = gpus_number(which, "pages-sent"),
		.home = gpus_number(which, "pages-faulted") + gpus_number(which, "pages-evicted"),
		.bytes = peer_bytes(which),
	};
}

static void expect_moves(int which, struct moves before, uint64_t sent, uint64_t home)
{
	struct moves now = moves_of(which);

	check(now.sent - before.sent == sent && now.home - before.home == home,
	      "GPU %d has sent %" PRIu64 " pages to the other one and %" PRIu64 " home, expected %" PRIu64
	      " and %" PRIu64, which, now.sent - before.sent, now.home - before.home, sent, home);
}

static void links(void)
{
	check(gpus_number(A, "link-number") == 0 && gpus_number(A, "link-peers") == 1 << 1,
	      "A is %" PRIu64 " and sees %" PRIx64, gpus_number(A, "link-number"),
	      gpus_number(A, "link-peers"));
	check(gpus_number(B, "link-number") == 1 && gpus_number(B, "link-peers") == 1 << 0,
	      "B is %" PRIu64 " and sees %" PRIx64, gpus_number(B, "link-number"),
	      gpus_number(B, "link-peers"));
	check(!gpus_number(C, "link-peers"), "C sees %" PRIx64, gpus_number(C, "link-peers"));
}

/* RAM, A, B, RAM. */
static void around_in(void *(*map)(size_t), uint64_t seed)
{
	uint64_t *words = words_in_a(map, seed);
	struct moves a = moves_of(A), b = moves_of(B);

	expect_on(B, words, SIZE, SIMGPU_PLACE_OTHER);
	add_on(B, words, 2);
	expect_on(B, words, SIZE, SIMGPU_PLACE_VRAM);
	expect_on(A, words, SIZE, SIMGPU_PLACE_OTHER);
	expect_moves(A, a, PAGES, 0);
	check(moves_of(A).bytes - a.bytes == SIZE && moves_of(B).bytes == b.bytes,
	      "%" PRIu64 " bytes went over the link by A, %" PRIu64 " by B", moves_of(A).bytes - a.bytes,
	      moves_of(B).bytes - b.bytes);
	verify(words, seed, 3);
	expect_on(B, words, SIZE, SIMGPU_PLACE_RAM);
	expect_moves(A, a, PAGES, 0);
	expect_moves(B, b, 0, PAGES);
	munmap(words, SIZE);
}

static void around(void)
{
	gpus_open_all(GPUS);
	links();
	around_in(map_small, 1);
	around_in(map_huge, 2);
}

/* The same by request, and some of it only; and what is partly here and partly there. */
static void requested(void)
{
	uint64_t *words;
	struct moves a, b;
	size_t half = SIZE / 2 & -PAGE;

	gpus_open_all(GPUS);
	words = words_in_a(map_small, 3);
	a = moves_of(A);
	b = moves_of(B);
	gpus_use(B);
	svm_prefetch(words, half, SIMGPU_PLACE_VRAM);
	expect_on(B, words, half, SIMGPU_PLACE_VRAM);
	expect_on(A, (char *)words + half, SIZE - half, SIMGPU_PLACE_VRAM);
	expect_moves(A, a, half / PAGE, 0);
	/* All or nothing: all of it, from two GPUs, by way of RAM where it must be. */
	gpus_use(B);
	check_ok(simgpu_populate(gpu(), words, SIZE, 0));
	expect_on(B, words, SIZE, SIMGPU_PLACE_VRAM);
	/* From the other one, straight to RAM. */
	gpus_use(A);
	b = moves_of(B);
	gpus_use(A);
	svm_prefetch(words, SIZE, SIMGPU_PLACE_RAM);
	expect_on(A, words, SIZE, SIMGPU_PLACE_RAM);
	expect_moves(B, b, 0, PAGES);
	/* And round again, by all or nothing. */
	gpus_use(A);
	check_ok(simgpu_populate(gpu(), words, SIZE, 0));
	a = moves_of(A);
	gpus_use(B);
	check_ok(simgpu_populate(gpu(), words, SIZE, 0));
	expect_on(B, words, SIZE, SIMGPU_PLACE_VRAM);
	expect_moves(A, a, PAGES, 0);
	verify(words, 3, 1);
}

/* B computes on A's memory, where it is. */
static void stays_in(void *(*map)(size_t), uint64_t seed)
{
	uint64_t *words = words_in_a(map, seed), borrowed, bytes;
	uint32_t *more = map_pages(SIZE), *result = map_pages(SIZE);
	struct drm_simgpu_counters before, after;
	struct moves a = moves_of(A);

	borrowed = gpus_number(B, "pages-borrowed");
	bytes = peer_bytes(B);
	advise_on(B, words, SIMGPU_PREFER_STAY, 0);
	gpus_use(B);
	before = svm_counters();
	expect_sum(run_on(B, (job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words), .len = SIZE }),
		   expected_checksum(seed, 1));
	after = svm_counters();
	check(gpus_number(B, "pages-borrowed") - borrowed == PAGES && gpus_number(A, "pages-lent") == PAGES,
	      "B has mapped %" PRIu64 " pages of A, which has lent %" PRIu64 ", expected %zu",
	      gpus_number(B, "pages-borrowed") - borrowed, gpus_number(A, "pages-lent"), PAGES);
	check(peer_bytes(B) - bytes == SIZE, "B has read %" PRIu64 " bytes over the link",
	      peer_bytes(B) - bytes);
	if (map == map_huge)
		diag("%llu huge entries and %llu small ones for %zu pages", after.huge_leaves - before.huge_leaves,
		     after.small_leaves - before.small_leaves, PAGES);
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);

	/* A result of its own, from A's memory and its own. */
	for (size_t i = 0; i < SIZE / 4; i++)
		more[i] = i;
	run_on(B, (job_t){ .op = SIMGPU_JOB_ADD_U32, .src = AT(words), .src2 = AT(more), .dst = AT(result),
			   .len = SIZE });
	expect_on(B, more, SIZE, SIMGPU_PLACE_VRAM);
	expect_on(B, result, SIZE, SIMGPU_PLACE_VRAM);
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);

	/* It may also write there, and A sees it at once. */
	add_on(B, words, 5);
	expect_sum(run_on(A, (job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words), .len = SIZE }),
		   expected_checksum(seed, 6));
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
	expect_moves(A, a, 0, 0);

	verify(words, seed, 6);
	expect_moves(A, a, 0, PAGES);
	check(!gpus_number(A, "pages-lent"), "%" PRIu64 " pages are lent that have gone home",
	      gpus_number(A, "pages-lent"));
	for (size_t i = 0; i < SIZE / 4; i++) {
		uint64_t word = pattern_word(seed, i / 2) + 1;
		uint32_t expected = (i % 2 ? word >> 32 : word) + i;

		check(result[i] == expected, "element %zu of the sum is %x, expected %x", i, result[i],
		      expected);
	}
	/* Where it is now is RAM. */
	expect_sum(run_on(B, (job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words), .len = SIZE }),
		   expected_checksum(seed, 6));
	expect_on(B, words, SIZE, SIMGPU_PLACE_RAM);
	munmap(words, SIZE);
}

static void stays(void)
{
	gpus_open_all(GPUS);
	stays_in(map_small, 4);
	stays_in(map_huge, 5);
}

/* What is read stays, what is written to comes; and the other way round with RAM preferred. */
static void advised(void)
{
	uint64_t *words;
	struct moves a;

	gpus_open_all(GPUS);
	words = words_in_a(map_small, 6);
	a = moves_of(A);
	advise_on(B, words, SIMGPU_PREFER_DEFAULT, SIMGPU_ADVISE_READ_MOSTLY);
	expect_sum(run_on(B, (job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words), .len = SIZE }),
		   expected_checksum(6, 1));
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
	expect_moves(A, a, 0, 0);
	add_on(B, words, 1);
	expect_on(B, words, SIZE, SIMGPU_PLACE_VRAM);
	expect_moves(A, a, PAGES, 0);
	advise_on(A, words, SIMGPU_PREFER_RAM, 0);
	a = moves_of(B);
	expect_sum(run_on(A, (job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words), .len = SIZE }),
		   expected_checksum(6, 2));
	expect_on(A, words, SIZE, SIMGPU_PLACE_RAM);
	expect_moves(B, a, 0, PAGES);
	verify(words, 6, 2);
}

/*
 * Two that use the same memory all the time, one after the other, don't do nothing but move it: one
 * of them uses it where it is.
 */
static void fought_for(void)
{
	enum { ROUNDS = 64 };
	uint64_t *words, borrowed, added = 1;
	unsigned int rounds = 0;

	gpus_open_all(GPUS);
	words = words_in_a(map_small, 22);
	borrowed = gpus_number(A, "pages-borrowed") + gpus_number(B, "pages-borrowed");
	do {
		add_on(B, words, 1);
		add_on(A, words, 1);
		added += 2;
		rounds++;
	} while (gpus_number(A, "pages-borrowed") + gpus_number(B, "pages-borrowed") == borrowed &&
		 rounds < ROUNDS);
	check(rounds < ROUNDS, "in %u rounds the memory was always moved", rounds);
	diag("in round %u it was not moved", rounds);
	verify(words, 22, added);
}

/* One after the other, and the CPU. */
static void in_turn(void)
{
	uint32_t *ones;

	gpus_open_all(GPUS);
	ones = words32(1, 0);
	for (unsigned int prefer = SIMGPU_PREFER_DEFAULT; prefer <= SIMGPU_PREFER_STAY; prefer++) {
		uint32_t *words = words32(5, 3), added = 0;

		advise_on(B, words, prefer, 0);
		for (int round = 0; round < 6; round++) {
			run_on(round % 2 ? A : B, add32(words, ones));
			run_on(round % 2 ? B : A, add32(words, ones));
			added += 2;
			if (round % 3 == 2) {
				for (size_t i = 0; i < SIZE / 4; i++)
					words[i]++;
				added++;
			}
		}
		verify32(words, 5 + added, 3);
		munmap(words, SIZE);
	}
}

/* Both at the same time: no addition is lost, wherever the pages are. */
static void at_once(void)
{
	static const unsigned int places[] = { SIMGPU_PREFER_DEFAULT, SIMGPU_PREFER_STAY };
	enum { JOBS = 4, QUEUES = 2 };

	gpus_open_all(GPUS);
	for (int p = 0; p < 2; p++) {
		unsigned int prefer = places[p];
		uint64_t *words = words_in_a(map_small, 8), jobs[2][JOBS], begun = now_ms();

		advise_on(B, words, prefer, 0);
		for (int i = 0; i < JOBS; i++) {
			for (int which = A; which <= B; which++) {
				gpus_use(which);
				jobs[which][i] = job_submit((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD,
								     .queue = i % QUEUES, .dst = AT(words),
								     .len = SIZE, .arg = 1 });
			}
		}
		for (int which = A; which <= B; which++) {
			gpus_use(which);
			for (int i = 0; i < JOBS; i++)
				check(!job_wait(jobs[which][i]).error, "a job of GPU %d failed", which);
		}
		diag("with preferred place %u: %u ms", prefer, (unsigned int)(now_ms() - begun));
		if (prefer == SIMGPU_PREFER_STAY)
			expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
		verify(words, 8, 1 + 2 * JOBS);
		munmap(words, SIZE);
	}
}

static void child_keeps(void *arg)
{
	struct gate **gates = ((void **)arg)[0];
	const uint32_t *words = ((void **)arg)[1];

	gate_open(gates[0]);
	gate_wait(gates[1]);
	verify32(words, 9 + 1, 5);
}

/* Pages of A's that a fork has shared: B writes to its process's own. */
static void forked(void)
{
	struct gate begun, done, *gates[] = { &begun, &done };
	uint32_t *words, *ones;
	void *args[2];
	pid_t child;

	gpus_open_all(GPUS);
	ones = words32(1, 0);
	words = words32(9, 5);
	run_on(A, add32(words, ones));
	advise_on(B, words, SIMGPU_PREFER_STAY, 0);
	run_on(B, (job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words), .len = SIZE });
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
	gate_init(&begun);
	gate_init(&done);
	args[0] = gates;
	args[1] = words;
	child = start(child_keeps, args);
	gate_wait(&begun);
	run_on(B, add32(words, ones));
	gate_open(&done);
	reap_ok(child);
	verify32(words, 9 + 2, 5);
}

/* C has no link: what it gets from A, and A from it, goes by RAM. */
static void not_linked(void)
{
	uint64_t *words;
	struct moves a, c;

	gpus_open_all(GPUS);
	words = words_in_a(map_small, 10);
	a = moves_of(A);
	add_on(C, words, 1);
	expect_on(C, words, SIZE, SIMGPU_PLACE_VRAM);
	expect_moves(A, a, 0, PAGES);
	c = moves_of(C);
	add_on(A, words, 1);
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
	expect_moves(C, c, 0, PAGES);
	check(moves_of(A).bytes == a.bytes && moves_of(C).bytes == c.bytes,
	      "bytes went over a link that is not there");
	/* All or nothing. */
	gpus_use(C);
	check_ok(simgpu_populate(gpu(), words, SIZE, 0));
	expect_on(C, words, SIZE, SIMGPU_PLACE_VRAM);
	add_on(A, words, 1);
	/* C can't use it where it is; but in RAM. */
	advise_on(C, words, SIMGPU_PREFER_STAY, 0);
	expect_sum(run_on(C, (job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words), .len = SIZE }),
		   expected_checksum(10, 4));
	expect_on(C, words, SIZE, SIMGPU_PLACE_RAM);
	expect_moves(A, a, 0, 3 * PAGES);
	verify(words, 10, 4);
}

/* B has @words, which A has mapped: by what is in A's page tables, and by copies in both directions. */
static void expect_linked_still(uint64_t *words)
{
	add_on(A, words, 1);
	expect_on(B, words, SIZE, SIMGPU_PLACE_VRAM);
	advise_on(A, words, SIMGPU_PREFER_DEFAULT, 0);
	add_on(A, words, 1);
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
	add_on(B, words, 1);
	expect_on(B, words, SIZE, SIMGPU_PLACE_VRAM);
}

/* A reset lets go of the peers, who must be found again. */
static void engine_reset(void)
{
	uint64_t *words, *own, begun;

	gpus_open_all(GPUS);
	words = words_in_a(map_small, 11);
	add_on(B, words, 1);
	advise_on(A, words, SIMGPU_PREFER_STAY, 0);
	add_on(A, words, 1);
	expect_on(B, words, SIZE, SIMGPU_PLACE_VRAM);
	own = words_in_a(map_small, 12);
	gpus_use(A);
	gpu_inject(SIMGPU_INJECT_HANG, 1, 0);
	begun = now_ms();
	check_result(simgpu_xor(gpu(), own, PAGE, 0), -EIO);
	diag("reset after %u ms", (unsigned int)(now_ms() - begun));
	links();
	expect_linked_still(words);
	verify(words, 11, 6);
	verify(own, 12, 1);
}

/* By the PCI core, without a word to the driver. */
static void reset_from_outside(void)
{
	struct binding a;
	uint64_t *words;

	gpus_open_all(GPUS);
	a = gpus_binding(A);
	words = words_in_a(map_small, 22);
	add_on(B, words, 1);
	advise_on(A, words, SIMGPU_PREFER_STAY, 0);
	add_on(A, words, 1);
	driver_reset_device(&a);
	expect_linked_still(words);
	links();
	verify(words, 22, 6);
}

static void write_to(const char *path)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	check(file >= 0 && write(file, "1", 1) == 1, "%s: %s", path, strerror(errno));
	close(file);
}

static void remove_device(const struct binding *binding)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", binding->device);
	write_to(path);
}

static void bring_back(const struct binding *binding)
{
	(void)binding;
	write_to("/sys/bus/pci/rescan");
}

/* A goes while B's jobs are at its memory: they go on, on the same data. */
static void taken_away(void (*away)(const struct binding *), void (*back)(const struct binding *))
{
	enum { JOBS = 60 };
	uint32_t *words, *ones;
	uint64_t jobs[JOBS], *own;
	struct binding binding;

	gpus_open_all(GPUS);
	binding = gpus_binding(A);
	own = map_small(SIZE);
	pattern_fill(own, WORDS, 0, 14);
	add_on(B, own, 1);
	ones = words32(1, 0);
	words = words32(13, 7);
	run_on(A, add32(words, ones));
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
	advise_on(B, words, SIMGPU_PREFER_STAY, 0);
	run_on(B, add32(words, ones));
	expect_on(A, words, SIZE, SIMGPU_PLACE_VRAM);
	check(gpus_number(A, "pages-lent") == PAGES, "%" PRIu64 " pages of A are lent",
	      gpus_number(A, "pages-lent"));
	gpus_use(B);
	for (int i = 0; i < JOBS; i++)
		jobs[i] = job_submit(add32(words, ones));
	away(&binding);
	for (int i = 0; i < JOBS; i++) {
		struct drm_simgpu_wait outcome = job_wait(jobs[i]);

		check(!outcome.error, "job %d ended with %s at %#llx", i, error_name(outcome.error),
		      outcome.fault_address);
	}
	expect_on(B, words, SIZE, SIMGPU_PLACE_RAM);
	expect_on(B, own, SIZE, SIMGPU_PLACE_VRAM);
	verify32(words, 13 + 2 + JOBS, 7);
	verify(own, 14, 1);
	gpus_close(A);
	back(&binding);
	check(gpus_open(A), "A does not come back");
	links();
	around_in(map_small, 15);
	stays_in(map_small, 16);
}

static void unbound(void)
{
	taken_away(driver_unbind, driver_bind);
}

static void removed(void)
{
	taken_away(remove_device, bring_back);
}

static void expect_lost(int which, uint64_t *words)
{
	gpus_use(which);
	job_expect_fault((job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words), .len = SIZE }, -EFAULT,
			 words, 0);
	job_expect_fault((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words), .len = SIZE, .arg = 1 },
			 -EFAULT, words, 2);
}

/* What was mapped over the link, what was to come, and what C would have by way of RAM. */
static void died(void)
{
	enum { HALF = 32 };
	uint64_t *mapped, *there, *half, *own, end;
	int control = control_open(), a_file;
	struct drm_simgpu_wait outcome;
	struct drm_simgpu_info info;
	unsigned int done = 0;

	gpus_open_all(GPUS);
	mapped = words_in_a(map_small, 17);
	there = words_in_a(map_small, 18);
	/* Every second page of some is in A. */
	half = map_small(SIZE);
	pattern_fill(half, WORDS, 0, 19);
	gpus_use(A);
	for (size_t page = 0; page < HALF; page += 2)
		svm_prefetch((char *)half + page * PAGE, PAGE, SIMGPU_PLACE_VRAM);
	check(count_places(half, SIZE, SIMGPU_PLACE_VRAM) == HALF / 2, "%zu pages are in A",
	      count_places(half, SIZE, SIMGPU_PLACE_VRAM));
	own = map_pages(SIZE);
	pattern_fill(own, WORDS, 0, 20);
	add_on(B, own, 1);
	advise_on(B, mapped, SIMGPU_PREFER_STAY, 0);
	add_on(B, mapped, 1);
	expect_on(A, mapped, SIZE, SIMGPU_PLACE_VRAM);
	expect_on(A, there, SIZE, SIMGPU_PLACE_VRAM);
	gpus_use(A);
	a_file = gpu();
	gpus_use(B);
	control_ask(control, "kill-device", 0);
	end = now_ms() + 60000 * ktap_scale();
	do {
		outcome = job_outcome((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(mapped), .len = SIZE,
					       .arg = 1 });
		done++;
	} while (!outcome.error && now_ms() < end);
	check(outcome.error == -EFAULT && outcome.fault_access == 2 && outcome.fault_address - AT(mapped) < SIZE,
	      "a job on memory that is lost ended with %s, address %#llx, access %u",
	      error_name(outcome.error), outcome.fault_address, outcome.fault_access);
	diag("job %u was the first to fail", done);
	while (!simgpu_info(a_file, &info) && now_ms() < end)
		sleep_ms(20);
	check_result(simgpu_info(a_file, &info), -ENODEV);

	expect_lost(B, mapped);
	expect_lost(B, there);
	expect_lost(C, there);
	check(signal_of_read(mapped) == SIGBUS, "touching lost data gave no SIGBUS");
	gpus_use(B);
	check_result(simgpu_populate(gpu(), there, SIZE, 0), -EFAULT);
	svm_prefetch(there, SIZE, SIMGPU_PLACE_VRAM);
	expect_lost(B, there);

	/* What is beside it is not lost, nor B's own; and there may be something new in its place. */
	add_on(B, own, 1);
	expect_on(B, own, SIZE, SIMGPU_PLACE_VRAM);
	verify(own, 20, 2);
	check(munmap(mapped, SIZE) == 0, "munmap: %s", strerror(errno));
	check(mmap(mapped, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	      mapped, "mmap: %s", strerror(errno));
	pattern_fill(mapped, WORDS, 0, 21);
	add_on(B, mapped, 1);
	add_on(C, mapped, 1);
	verify(mapped, 21, 2);
	gpus_use(B);
	for (size_t page = 0; page < HALF; page++) {
		uint64_t *words = half + page * PAGE / 8;
		job_t job = { .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words), .len = PAGE, .arg = 1 };

		if (page % 2 == 0) {
			job_expect_fault(job, -EFAULT, words, 2);
			continue;
		}
		job_run(job);
		check(words[5] == pattern_word(19, page * PAGE / 8 + 5) + 1, "page %zu is wrong", page);
	}
}

static void after(void)
{
	bool open[GPUS];

	write_to("/sys/bus/pci/rescan");
	driver_bind_all();
	for (int which = A; which < GPUS; which++)
		open[which] = gpus_open(which);
	for (int which = A; which < GPUS; which++) {
		if (open[which]) {
			gpus_use(which);
			gpu_after_test();
		}
	}
}

static const struct ktap_test tests[] = {
	{ "around", around, 60 },
	{ "requested", requested, 60 },
	{ "stays", stays, 60 },
	{ "advised", advised, 60 },
	{ "fought_for", fought_for, 60 },
	{ "in_turn", in_turn, 60 },
	{ "at_once", at_once, 60 },
	{ "forked", forked, 60 },
	{ "not_linked", not_linked, 60 },
	{ "engine_reset", engine_reset, 60 },
	{ "reset_from_outside", reset_from_outside, 60 },
	{ "unbound", unbound, 90 },
	{ "removed", removed, 90 },
	{ "died", died, 120 },
};

KTAP_MAIN(tests, after)
