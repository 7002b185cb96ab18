// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Many threads and processes at once, on the same memory and on their own.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "clock.h"
#include "ktap.h"
#include "procs.h"
#include "workload.h"

#define LOAD_SECONDS	5
/* How much longer a load may take if it got nowhere: the machine may be busy. */
#define PATIENCE_MS	20000

static pthread_t run_thread(void *(*run)(void *), void *arg)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, run, arg);

	check(!err, "pthread_create: %s", strerror(err));
	return thread;
}

/*
 * One buffer, in blocks. The contents of a block belong to who holds its lock;
 * populate and evict hold none, since they must not change contents.
 */
#define BLOCKS		64
#define BLOCK_SIZE	(16 * PAGE)

static struct shared {
	struct buffer buf;
	pthread_mutex_t locks[BLOCKS];
	uint64_t end;
	atomic_uint populated, evicted, gpu_ops, cpu_ops;
} shared;

/* Time is not up; on a slow machine, also as long as somebody never got through. */
static bool goes_on(void)
{
	if (now_ms() < shared.end)
		return true;
	return (!shared.populated || !shared.evicted || !shared.gpu_ops || !shared.cpu_ops) &&
	       now_ms() < shared.end + PATIENCE_MS * ktap_scale();
}

/* A random range of whole blocks. */
static size_t random_range(uint64_t *random, size_t *len)
{
	unsigned int first = random_below(random, BLOCKS);

	*len = (1 + random_below(random, BLOCKS - first)) * BLOCK_SIZE;
	return first * BLOCK_SIZE;
}

static void *populating_thread(void *seed)
{
	uint64_t random = (uintptr_t)seed;
	size_t len;

	while (goes_on()) {
		size_t offset = random_range(&random, &len);
		int err = simgpu_populate_once(gpu(), shared.buf.mem + offset, len, 0);

		check(!err || err == -EBUSY, "populate gave %s", error_name(err));
		shared.populated += !err;
	}
	return NULL;
}

static void *evicting_thread(void *seed)
{
	uint64_t random = (uintptr_t)seed;
	size_t len;

	while (goes_on()) {
		size_t offset = random_range(&random, &len);
		int err = simgpu_evict_once(gpu(), shared.buf.mem + offset, len);

		check(!err || err == -EBUSY, "evict gave %s", error_name(err));
		shared.evicted += !err;
		sleep_ms(random_below(&random, 20));
	}
	return NULL;
}

static void *gpu_thread(void *seed)
{
	uint64_t random = (uintptr_t)seed;

	while (goes_on()) {
		unsigned int block = random_below(&random, BLOCKS);
		size_t offset = block * BLOCK_SIZE;
		int err;

		pthread_mutex_lock(&shared.locks[block]);
		err = simgpu_xor(gpu(), shared.buf.mem + offset, BLOCK_SIZE, random);
		if (!err) {
			buffer_model_xor(&shared.buf, offset, BLOCK_SIZE, random);
			shared.gpu_ops++;
		}
		pthread_mutex_unlock(&shared.locks[block]);

		check(!err || err == -EFAULT, "a GPU operation gave %s", error_name(err));
		if (!err)
			continue;
		err = simgpu_populate_once(gpu(), shared.buf.mem + offset, BLOCK_SIZE, 0);
		check(!err || err == -EBUSY, "populate gave %s", error_name(err));
	}
	return NULL;
}

static void *cpu_thread(void *seed)
{
	uint64_t random = (uintptr_t)seed;

	while (goes_on()) {
		unsigned int block = random_below(&random, BLOCKS);
		size_t offset = block * BLOCK_SIZE;

		pthread_mutex_lock(&shared.locks[block]);
		buffer_verify_range(&shared.buf, offset, BLOCK_SIZE);
		if (random_below(&random, 2))
			buffer_write_range(&shared.buf, offset, BLOCK_SIZE);
		pthread_mutex_unlock(&shared.locks[block]);
		shared.cpu_ops++;
		sleep_ms(random_below(&random, 4));
	}
	return NULL;
}

static void one_buffer_many_threads(void)
{
	static void *(*const roles[])(void *) = {
		populating_thread, evicting_thread, gpu_thread, gpu_thread, cpu_thread, cpu_thread,
	};
	const size_t count = sizeof(roles) / sizeof(*roles);
	pthread_t threads[sizeof(roles) / sizeof(*roles)];

	buffer_init(&shared.buf, BLOCKS * BLOCK_SIZE);
	for (size_t i = 0; i < BLOCKS; i++)
		pthread_mutex_init(&shared.locks[i], NULL);
	gpu();
	shared.end = load_end(LOAD_SECONDS);
	for (size_t i = 0; i < count; i++)
		threads[i] = run_thread(roles[i], (void *)(1000 * (i + 1)));
	for (size_t i = 0; i < count; i++)
		pthread_join(threads[i], NULL);

	buffer_verify(&shared.buf);
	diag("populated %u, evicted %u, GPU %u, CPU %u times", shared.populated, shared.evicted,
	     shared.gpu_ops, shared.cpu_ops);
	check(shared.populated && shared.evicted && shared.gpu_ops && shared.cpu_ops,
	      "somebody never got through");
}

/*
 * A few pages that come and go all the time, by eviction or by CPU faults: the
 * GPU must work on each exactly once or not at all, never on one that is leaving.
 */
struct coming_and_going {
	struct buffer buf;
	bool by_fault;
	atomic_uint worked;
};

static bool come_and_go_on(const struct coming_and_going *pages)
{
	return now_ms() < shared.end ||
	       (!pages->worked && now_ms() < shared.end + PATIENCE_MS * ktap_scale());
}

static void *come_and_go(void *arg)
{
	struct coming_and_going *pages = arg;
	struct buffer *buf = &pages->buf;
	uint64_t random = 0xc0e;

	while (come_and_go_on(pages)) {
		int err = simgpu_populate_once(gpu(), buf->mem, buf->size, 0);

		check(!err || err == -EBUSY, "populate gave %s", error_name(err));
		sleep_ms(random_below(&random, 4));
		if (pages->by_fault) {
			buffer_touch(buf, buf->size / 2);
		} else {
			err = simgpu_evict_once(gpu(), buf->mem, buf->size);
			check(!err || err == -EBUSY, "evict gave %s", error_name(err));
		}
	}
	return NULL;
}

static void gpu_works_while_pages_come_and_go(bool by_fault, unsigned int delay_us)
{
	struct coming_and_going pages = { .by_fault = by_fault };
	struct buffer *buf = &pages.buf;
	uint64_t random = 0x6b;
	pthread_t thread;

	buffer_init(buf, 32 * PAGE);
	/* A slow device leaves more time for mistakes. */
	if (delay_us)
		gpu_inject(SIMGPU_INJECT_DELAY, UINT32_MAX, delay_us);
	gpu();
	shared.end = load_end(LOAD_SECONDS / 2);
	thread = run_thread(come_and_go, &pages);
	while (come_and_go_on(&pages)) {
		uint64_t value = random_below(&random, 1 << 30) + 1;
		int err = simgpu_xor(gpu(), buf->mem, buf->size, value);

		check(!err || err == -EFAULT, "a GPU operation gave %s", error_name(err));
		if (err)
			continue;
		buffer_model_xor(buf, 0, buf->size, value);
		if (!(++pages.worked % 32))
			buffer_verify(buf);
	}
	pthread_join(thread, NULL);
	buffer_verify(buf);
	diag("the GPU worked %u times", pages.worked);
	check(pages.worked, "the GPU never worked");
}

static void gpu_work_against_eviction(void)
{
	gpu_works_while_pages_come_and_go(false, 0);
	gpu_works_while_pages_come_and_go(false, 3000);
}

static void gpu_work_against_faults(void)
{
	gpu_works_while_pages_come_and_go(true, 0);
	gpu_works_while_pages_come_and_go(true, 3000);
}

static void *working_thread(void *arg)
{
	worker_run(arg, shared.end);
	return NULL;
}

static void many_threads_with_their_own_buffers(void)
{
	struct worker workers[6];
	pthread_t threads[6];

	gpu();
	shared.end = load_end(LOAD_SECONDS);
	for (int i = 0; i < 6; i++) {
		workers[i] = (struct worker){ .random = i };
		buffer_init(&workers[i].buf, (256 << i) * KB);
		threads[i] = run_thread(working_thread, &workers[i]);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		check(workers[i].xors, "the GPU never worked for thread %d", i);
	}
}

static void working_process(void *arg)
{
	struct worker *worker = arg;

	gpu_close();	/* A file description of its own. */
	buffer_init(&worker->buf, 4 * MB);
	worker_run(worker, load_end(LOAD_SECONDS));
	check(worker->xors, "the GPU never worked for a process");
}

static void many_processes(void)
{
	pid_t children[6];

	for (int i = 0; i < 6; i++) {
		struct worker worker = { .random = i };

		children[i] = start(working_process, &worker);
	}
	for (int i = 0; i < 6; i++)
		reap_ok(children[i]);
}

/* All CPUs fault the same page, again and again. */
#define FAULTERS 4

static struct {
	struct buffer buf;
	pthread_barrier_t barrier;
} same_page;

static void *faulting_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++) {
		pthread_barrier_wait(&same_page.barrier);	/* Populated. */
		buffer_verify_range(&same_page.buf, i % 16 * PAGE, PAGE);
		pthread_barrier_wait(&same_page.barrier);	/* All have seen it. */
	}
	return NULL;
}

static void many_faults_on_one_page(void)
{
	pthread_t threads[FAULTERS];

	buffer_init(&same_page.buf, 16 * PAGE);
	pthread_barrier_init(&same_page.barrier, NULL, FAULTERS + 1);
	for (int i = 0; i < FAULTERS; i++)
		threads[i] = run_thread(faulting_thread, NULL);
	for (int i = 0; i < 100; i++) {
		buffer_populate(&same_page.buf);
		buffer_xor(&same_page.buf, i + 1);
		pthread_barrier_wait(&same_page.barrier);
		pthread_barrier_wait(&same_page.barrier);
	}
	for (int i = 0; i < FAULTERS; i++)
		pthread_join(threads[i], NULL);
	buffer_verify(&same_page.buf);
}

static void *populate_whatever_is_there(void *arg)
{
	struct buffer *buf = arg;

	while (now_ms() < shared.end) {
		int err = simgpu_populate_once(gpu(), buf->mem, buf->size, 0);

		check(!err || err == -EBUSY || err == -ENOENT, "populate gave %s",
		      error_name(err));
		shared.populated += !err;
	}
	return NULL;
}

/* The mapping goes away, and another takes its place, under populate's feet. */
static void unmapped_while_populating(void)
{
	struct buffer buf;
	pthread_t thread;

	buffer_init(&buf, 2 * MB);
	gpu();
	shared.end = load_end(LOAD_SECONDS);
	thread = run_thread(populate_whatever_is_there, &buf);
	while (now_ms() < shared.end) {
		size_t offset = 100 * PAGE;
		void *mem;

		check(!munmap(buf.mem + offset, MB), "munmap: %s", strerror(errno));
		sleep_ms(3);
		mem = mmap(buf.mem + offset, MB, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		check(mem == buf.mem + offset, "mmap: %s", strerror(errno));
		buffer_model_zero(&buf, offset, MB);
		buffer_verify_range(&buf, offset, MB);
		buffer_write_range(&buf, offset, MB);
		sleep_ms(10);
		buffer_verify(&buf);
	}
	pthread_join(thread, NULL);
	buffer_verify(&buf);
	check(shared.populated, "populate never got through");
}

static void on_signal(int number)
{
	(void)number;
}

/* Signals may interrupt a populate, but not harm it. */
static void interrupted_by_signals(void)
{
	struct itimerval often = { { 0, 2000 }, { 0, 2000 } }, never = { 0 };
	struct sigaction action = { .sa_handler = on_signal };
	unsigned int interrupted = 0;
	struct buffer buf;
	uint64_t end;

	buffer_init(&buf, 8 * MB);
	end = load_end(LOAD_SECONDS / 2);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	while (now_ms() < end) {
		int err = simgpu_populate_once(gpu(), buf.mem, buf.size, 0);

		check(!err || err == -EINTR || err == -EBUSY, "populate gave %s", error_name(err));
		interrupted += err == -EINTR;
		err = simgpu_evict_once(gpu(), buf.mem, buf.size);
		check(!err || err == -EINTR || err == -EBUSY, "evict gave %s", error_name(err));
		buffer_verify(&buf);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	diag("%u populates were interrupted", interrupted);
	buffer_populate(&buf);
	buffer_xor(&buf, 0x516);
	buffer_verify(&buf);
}

static const struct ktap_test tests[] = {
	{ "one_buffer_many_threads", one_buffer_many_threads, 60 },
	{ "gpu_work_against_eviction", gpu_work_against_eviction, 60 },
	{ "gpu_work_against_faults", gpu_work_against_faults, 60 },
	{ "many_threads_with_their_own_buffers", many_threads_with_their_own_buffers, 60 },
	{ "many_processes", many_processes, 60 },
	{ "many_faults_on_one_page", many_faults_on_one_page, 60 },
	{ "unmapped_while_populating", unmapped_while_populating, 60 },
	{ "interrupted_by_signals", interrupted_by_signals, 60 },
};

KTAP_MAIN(tests, gpu_after_test)
