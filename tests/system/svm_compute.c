// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The GPU computes on the process's own memory, wherever that is: every op, with
 * page faults on both sides, its results compared with the CPU's.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ktap.h"
#include "pattern.h"
#include "buffer.h"
#include "svm.h"
#include "workload.h"

#define SIZE	(3 * MB)
#define WORDS	(SIZE / 8)
#define AT(p)	((uintptr_t)(p))

static void fill_pattern(uint64_t *words, uint64_t seed)
{
	pattern_fill(words, WORDS, 0, seed);
}

static void expect_word(const char *what, size_t index, uint64_t got, uint64_t expected)
{
	check(got == expected, "%s: word %zu is %016" PRIx64 ", expected %016" PRIx64, what, index,
	      got, expected);
}

static void op_fill(void)
{
	uint64_t *dst = map_pages(SIZE);

	dst[WORDS - 1] = 1;
	/* All but the ends, which are not aligned to pages. */
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(dst + 3), .len = SIZE - 48, .arg = 77 });
	for (size_t i = 0; i < WORDS; i++)
		expect_word("fill", i, dst[i], i < 3 || i == WORDS - 2 ? 0 :
			    i == WORDS - 1 ? 1 : i == WORDS - 3 ? 0 : 77);
}

static void op_copy(void)
{
	uint64_t *src = map_pages(SIZE), *dst = map_pages(SIZE);

	fill_pattern(src, 1);
	/* Bytes, with source and destination at different places of a page. */
	job_run((job_t){ .op = SIMGPU_JOB_COPY, .src = AT(src) + 3, .dst = AT(dst) + 501,
			 .len = SIZE - 777 });
	check(!memcmp((char *)src + 3, (char *)dst + 501, SIZE - 777), "copy: not the same");
	check(!((char *)dst)[500] && !((char *)dst)[501 + SIZE - 777], "copy: too much");
}

static void op_add(void)
{
	uint32_t *a = map_pages(SIZE), *b = map_pages(SIZE), *sum = map_pages(SIZE);
	float *x = map_pages(SIZE), *y = map_pages(SIZE), *z = map_pages(SIZE);
	size_t n = SIZE / 4;

	fill_pattern((uint64_t *)a, 2);
	fill_pattern((uint64_t *)b, 3);
	for (size_t i = 0; i < n; i++) {
		x[i] = i * 0.25f;
		y[i] = -3.5f * i;
	}
	job_run((job_t){ .op = SIMGPU_JOB_ADD_U32, .src = AT(a), .src2 = AT(b), .dst = AT(sum),
			 .len = SIZE });
	job_run((job_t){ .op = SIMGPU_JOB_ADD_F32, .src = AT(x), .src2 = AT(y), .dst = AT(z),
			 .len = SIZE });
	for (size_t i = 0; i < n; i++) {
		expect_word("add u32", i, sum[i], (uint32_t)(a[i] + b[i]));
		check(z[i] == x[i] + y[i], "add f32: element %zu is %f, not %f", i, z[i],
		      x[i] + y[i]);
	}
	/* In place. */
	job_run((job_t){ .op = SIMGPU_JOB_ADD_U32, .src = AT(a), .src2 = AT(a), .dst = AT(sum),
			 .len = SIZE });
	for (size_t i = 0; i < n; i++)
		expect_word("add twice", i, sum[i], 2 * a[i]);
}

static void op_sums(void)
{
	uint64_t *src = map_pages(SIZE), *out = map_pages(PAGE);
	uint64_t sum = 0, strided = 0, stride = 5 * PAGE + 8, n = SIZE / stride;

	fill_pattern(src, 4);
	for (size_t i = 0; i < WORDS; i++)
		sum += src[i];
	for (size_t i = 0; i < n; i++)
		strided += src[i * stride / 8];
	expect_word("reduce", 0, job_run((job_t){ .op = SIMGPU_JOB_REDUCE, .src = AT(src), .len = SIZE,
						  .flags = SIMGPU_SUBMIT_STORE, .dst = AT(out + 5) }), sum);
	expect_word("reduce, stored", 0, out[5], sum);
	expect_word("checksum", 0, job_run((job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(src),
						    .len = SIZE }), checksum(src, SIZE));
	expect_word("strided read", 0, job_run((job_t){ .op = SIMGPU_JOB_STRIDED_READ, .src = AT(src),
							.len = n, .stride = stride }), strided);
}

static void op_chase(void)
{
	size_t n = SIZE / PAGE;
	char *mem = map_pages(SIZE);
	size_t *order = calloc(n, sizeof(*order));
	uint64_t random = 5;
	struct drm_simgpu_wait outcome;

	for (size_t i = 0; i < n; i++)
		order[i] = i;
	for (size_t i = n - 1; i; i--) {
		size_t j = random_below(&random, i + 1), t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
	for (size_t i = 0; i + 1 < n; i++)
		*(char **)(mem + order[i] * PAGE + 16) = mem + order[i + 1] * PAGE + 16;
	outcome = job_outcome((job_t){ .op = SIMGPU_JOB_CHASE, .src = AT(mem + order[0] * PAGE + 16),
				       .len = 1ull << 30 });
	check(!outcome.error && !outcome.result && outcome.done == n,
	      "chase: %s, %#llx after %llu reads of %zu", error_name(outcome.error),
	      outcome.result, outcome.done, n);
	outcome = job_outcome((job_t){ .op = SIMGPU_JOB_CHASE, .src = AT(mem + order[0] * PAGE + 16),
				       .len = 9 });
	check(!outcome.error && outcome.result == AT(mem + order[9] * PAGE + 16) && outcome.done == 9,
	      "chase: not where it should be after 9 reads");
	free(order);
}

/* What was never touched by anyone. */
static void never_touched(void)
{
	uint64_t *words = map_pages(SIZE);

	expect_word("reduce", 0, job_run((job_t){ .op = SIMGPU_JOB_REDUCE, .src = AT(words),
						  .len = SIZE }), 0);
	for (size_t i = 0; i < WORDS; i += 100)
		expect_word("never touched", i, words[i], 0);
}

/* To and fro: whoever uses a page gets it, and all that the other has done to it. */
static void faults_on_both_sides(void)
{
	uint64_t *words = map_pages(SIZE), before = svm_counters().gpu_faults;

	fill_pattern(words, 6);
	for (int round = 0; round < 8; round++) {
		expect_word("checksum", round, job_run((job_t){ .op = SIMGPU_JOB_CHECKSUM,
								.src = AT(words), .len = SIZE }),
			    checksum(words, SIZE));
		job_run((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .dst = AT(words), .len = SIZE, .arg = 1 });
		/* Later, what bounces may stay in RAM for a while. */
		if (!round)
			expect_place(words, SIZE, SIMGPU_PLACE_VRAM);
		for (size_t i = round; i < WORDS; i += 511)
			words[i] += round;
		expect_place(words, PAGE, SIMGPU_PLACE_RAM);
	}
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t expected = pattern_word(6, i) + 8;

		for (int round = 0; round < 8; round++)
			if (i >= (size_t)round && !((i - round) % 511))
				expected += round;
		expect_word("both sides", i, words[i], expected);
	}
	check(svm_counters().gpu_faults > before, "there were no page faults");
}

static void huge_leaves(void)
{
	size_t size = 8 * MB;
	uint64_t *words = map_huge(size);
	struct drm_simgpu_counters before, after;

	for (int prefer = SIMGPU_PREFER_VRAM; prefer <= SIMGPU_PREFER_RAM; prefer++) {
		svm_advise(words, size, prefer, 0);
		memset(words, 1, size);
		before = svm_counters();
		job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = size, .arg = 2 });
		after = svm_counters();
		expect_place(words, size, prefer == SIMGPU_PREFER_RAM ? SIMGPU_PLACE_RAM : SIMGPU_PLACE_VRAM);
		if (prefer == SIMGPU_PREFER_RAM || after.huge_leaves != before.huge_leaves)
			check(after.huge_leaves - before.huge_leaves >= 4 &&
			      after.small_leaves == before.small_leaves,
			      "huge pages (preferred place %d) were mapped by %llu huge entries and %llu small ones",
			      prefer, after.huge_leaves - before.huge_leaves,
			      after.small_leaves - before.small_leaves);
		for (size_t i = 0; i < size / 8; i++)
			expect_word("huge", i, words[i], 2);
	}
}

/* Memory that never moves: the GPU uses it where it is. */
static void files_and_shared_memory(void)
{
	int file = memfd_create("svm", MFD_CLOEXEC);
	uint64_t *shared, *private;

	check(file >= 0 && !ftruncate(file, SIZE), "memfd: %s", strerror(errno));
	shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	check(shared != MAP_FAILED && private != MAP_FAILED, "mmap: %s", strerror(errno));
	fill_pattern(shared, 7);
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(private), .len = SIZE / 2, .arg = 5 });
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(shared), .len = SIZE / 4, .arg = 6 });
	expect_place(shared, SIZE, SIMGPU_PLACE_RAM);
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t file_word = i < WORDS / 4 ? 6 : pattern_word(7, i);

		expect_word("shared", i, shared[i], file_word);
		expect_word("private", i, private[i], i < WORDS / 2 ? 5 : file_word);
	}
	expect_word("checksum", 0, job_run((job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(private),
						    .len = SIZE }), checksum(private, SIZE));
	/* Behind the end of the file there is nothing, though it is mapped. */
	check(!ftruncate(file, PAGE), "ftruncate: %s", strerror(errno));
	job_run((job_t){ .op = SIMGPU_JOB_REDUCE, .src = AT(shared), .len = PAGE });
	job_expect_fault((job_t){ .op = SIMGPU_JOB_REDUCE, .src = AT(shared), .len = 2 * PAGE },
			 -EFAULT, (char *)shared + PAGE, 0);
}

/* What the process may not do, its jobs may not, and they say where. */
static void what_is_not_allowed(void)
{
	char *mem = map_pages(SIZE);
	struct drm_simgpu_wait outcome;

	memset(mem, 1, SIZE);
	check(!mprotect(mem + 4 * PAGE, PAGE, PROT_READ), "mprotect: %s", strerror(errno));
	check(!munmap(mem + 8 * PAGE, PAGE), "munmap: %s", strerror(errno));
	check(!mprotect(mem + 12 * PAGE, PAGE, PROT_NONE), "mprotect: %s", strerror(errno));
	job_expect_fault((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(mem + 64), .len = MB, .arg = 3 },
			 -EFAULT, mem + 4 * PAGE, 1);
	job_expect_fault((job_t){ .op = SIMGPU_JOB_REDUCE, .src = AT(mem), .len = MB }, -EFAULT,
			 mem + 8 * PAGE, 0);
	job_expect_fault((job_t){ .op = SIMGPU_JOB_REDUCE, .src = AT(mem + 9 * PAGE), .len = MB },
			 -EFAULT, mem + 12 * PAGE, 0);
	job_expect_fault((job_t){ .op = SIMGPU_JOB_ATOMIC_COUNT, .dst = AT(mem + 4 * PAGE), .len = 1 },
			 -EFAULT, mem + 4 * PAGE, 2);
	job_expect_fault((job_t){ .op = SIMGPU_JOB_REDUCE, .src = PAGE, .len = 8 }, -EFAULT,
			 (void *)PAGE, 0);
	/* ...and what was done before the fault was. */
	outcome = job_outcome((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(mem), .len = MB, .arg = 4 });
	check(outcome.done == 4 * PAGE, "%llu bytes were filled before the fault", outcome.done);
	expect_word("filled", 0, *(uint64_t *)(mem + 4 * PAGE - 8), 4);
	expect_word("not filled", 0, *(uint64_t *)(mem + 4 * PAGE), 0x0101010101010101);
	/* The rights change: the job that could not can now. */
	check(!mprotect(mem + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE), "mprotect: %s", strerror(errno));
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(mem), .len = 8 * PAGE, .arg = 5 });
	expect_word("filled at last", 0, *(uint64_t *)(mem + 4 * PAGE), 5);
	check(!mprotect(mem, PAGE, PROT_READ), "mprotect: %s", strerror(errno));
	job_expect_fault((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(mem), .len = 8, .arg = 6 }, -EFAULT,
			 mem, 1);
}

static void advice(void)
{
	uint64_t *words = map_pages(SIZE);

	fill_pattern(words, 8);
	svm_advise(words, SIZE, SIMGPU_PREFER_RAM, 0);
	job_run((job_t){ .op = SIMGPU_JOB_ADD_U32, .src = AT(words), .src2 = AT(words), .dst = AT(words),
			 .len = SIZE });
	expect_place(words, SIZE, SIMGPU_PLACE_RAM);
	svm_advise(words, SIZE, SIMGPU_PREFER_DEFAULT, SIMGPU_ADVISE_READ_MOSTLY);
	expect_word("checksum", 0, job_run((job_t){ .op = SIMGPU_JOB_CHECKSUM, .src = AT(words),
						    .len = SIZE }), checksum(words, SIZE));
	expect_place(words, SIZE, SIMGPU_PLACE_RAM);
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE, .arg = 1 });
	expect_place(words, SIZE, SIMGPU_PLACE_VRAM);

	/* A part of it, in the middle of what is otherwise looked after at once. */
	svm_prefetch(words, SIZE, SIMGPU_PLACE_RAM);
	expect_place(words, SIZE, SIMGPU_PLACE_RAM);
	svm_advise(words, SIZE, SIMGPU_PREFER_DEFAULT, 0);
	svm_advise(words + 5 * 512, 7 * PAGE, SIMGPU_PREFER_RAM, 0);
	job_run((job_t){ .op = SIMGPU_JOB_FILL, .dst = AT(words), .len = SIZE, .arg = 2 });
	check(count_places(words, SIZE, SIMGPU_PLACE_RAM) == 7, "%zu pages are in RAM, expected 7",
	      count_places(words, SIZE, SIMGPU_PLACE_RAM));
	expect_place(words + 5 * 512, 7 * PAGE, SIMGPU_PLACE_RAM);
	for (size_t i = 0; i < WORDS; i++)
		expect_word("advised", i, words[i], 2);
	svm_prefetch(words, SIZE, SIMGPU_PLACE_VRAM);
	expect_place(words, SIZE, SIMGPU_PLACE_VRAM);
}

struct lane {
	pthread_t thread;
	unsigned int queue;
	uint64_t *words;
};

static void *lane_run(void *arg)
{
	struct lane *lane = arg;

	for (unsigned int round = 0; round < 8; round++) {
		uint64_t jobs[4], *words = lane->words;

		for (int i = 0; i < 4; i++)
			jobs[i] = job_submit((job_t){ .op = SIMGPU_JOB_ATOMIC_ADD, .queue = lane->queue,
						      .dst = AT(words), .len = SIZE, .arg = i + 1 });
		for (int i = 0; i < 4; i++)
			check(!job_wait(jobs[i]).error, "a job failed");
		for (size_t i = round * 64; i < WORDS; i += 4096)
			expect_word("lane", i, words[i], (round + 1) * 10 + (uint64_t)lane->queue);
	}
	return NULL;
}

/* Four queues and four threads in one address space, each with its own memory. */
static void several_queues(void)
{
	struct lane lanes[SIMGPU_QUEUES];

	vm();
	for (unsigned int i = 0; i < SIMGPU_QUEUES; i++) {
		lanes[i] = (struct lane){ .queue = i, .words = map_pages(SIZE) };
		for (size_t j = 0; j < WORDS; j++)
			lanes[i].words[j] = i;
		check(!pthread_create(&lanes[i].thread, NULL, lane_run, &lanes[i]), "pthread_create");
	}
	for (int i = 0; i < SIMGPU_QUEUES; i++)
		pthread_join(lanes[i].thread, NULL);
	for (unsigned int i = 0; i < SIMGPU_QUEUES; i++)
		for (size_t j = 0; j < WORDS; j++)
			expect_word("lane, all", j, lanes[i].words[j], 80 + i);
}

static const struct ktap_test tests[] = {
	{ "op_fill", op_fill, 0 },
	{ "op_copy", op_copy, 0 },
	{ "op_add", op_add, 0 },
	{ "op_sums", op_sums, 0 },
	{ "op_chase", op_chase, 0 },
	{ "never_touched", never_touched, 0 },
	{ "faults_on_both_sides", faults_on_both_sides, 60 },
	{ "huge_leaves", huge_leaves, 60 },
	{ "files_and_shared_memory", files_and_shared_memory, 0 },
	{ "what_is_not_allowed", what_is_not_allowed, 0 },
	{ "advice", advice, 0 },
	{ "several_queues", several_queues, 120 },
};

KTAP_MAIN(tests, gpu_after_test)
