// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What a process does with its memory while it is in device memory: unmap, move,
 * protect, fork, exit; and from many threads at once.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "procs.h"
#include "world.h"

static unsigned char *in_vram(unsigned int gpu, size_t len, bool huge)
{
	unsigned char *at = huge ? map_huge(len) : map(len);

	fill(at, len);
	place(gpu, at, len);
	check_all_in(CLIENT_GPU(gpu), at, len);
	return at;
}

static void unmap_all(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, 64 * KB, false);

	check(!munmap(at, 64 * KB), "munmap");
	wait_stat(gpu, live, 0);
	check(!stats(gpu).copies_out, "copied for nobody");
}

static void unmap_all_huge(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, HUGE, true);

	check(!munmap(at, HUGE), "munmap");
	wait_stat(gpu, live, 0);
	check(!stats(gpu).copies_out, "copied for nobody");
}

static void unmap_part_of(size_t len, bool huge)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, len, huge);

	check(!munmap(at + len / 4, len / 2), "munmap");
	verify(at, len / 4);
	verify(at + len / 4 * 3, len / 4);
	wait_stat(gpu, live, 0);
	check(!stats(gpu).stray_bytes, "stray bytes");
}

static void unmap_part(void)
{
	unmap_part_of(64 * KB, false);
}

static void unmap_part_huge(void)
{
	unmap_part_of(HUGE, true);
}

static void dont_need(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, 64 * KB, false);

	check(!madvise(at, 64 * KB, MADV_DONTNEED), "madvise");
	wait_stat(gpu, live, 0);
	verify_zero(at, 64 * KB);
}

static void dont_need_part_huge(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, HUGE, true);

	check(!madvise(at + MB, 64 * KB, MADV_DONTNEED), "madvise");
	verify(at, MB);
	verify_zero(at + MB, 64 * KB);
	verify(at + MB + 64 * KB, MB - 64 * KB);
	wait_stat(gpu, live, 0);
}

static size_t wrong_moved(const unsigned char *to, const unsigned char *from, size_t len)
{
	unsigned char *copy = map(len);
	size_t wrong = 0;

	/* The pattern is of the old address. */
	munmap(copy, len);
	copy = mmap((void *)from, len, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	check(copy == from, "mmap");
	fill(copy, len);
	for (size_t i = 0; i < len; i++)
		wrong += to[i] != copy[i];
	return wrong;
}

static void move_of(size_t len, bool huge, size_t offset)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, len, huge);
	unsigned char *to = map(2 * len) + offset;
	size_t wrong;

	check(mremap(at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap: %s",
	      strerror(errno));
	wrong = wrong_moved(to, at, len);
	check(!wrong, "%zu bytes are wrong", wrong);
	wait_stat(gpu, live, 0);
}

static void move(void)
{
	move_of(64 * KB, false, 0);
}

static void move_huge(void)
{
	move_of(HUGE, true, 0);
}

static void move_huge_unaligned(void)
{
	move_of(HUGE, true, 64 * KB);
}

static void move_part_huge(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, HUGE, true);
	unsigned char *to = map(MB);
	size_t wrong;

	check(mremap(at, MB, MB, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
	verify(at + MB, MB);
	wrong = wrong_moved(to, at, MB);
	check(!wrong, "%zu bytes are wrong", wrong);
	wait_stat(gpu, live, 0);
}

static void read_only_of(size_t len, bool huge)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, len, huge);

	check(!mprotect(at, len / 2, PROT_READ), "mprotect");
	verify(at, len);
	check(signal_of_write(at) == 11, "writing was allowed");
	check(!mprotect(at, len / 2, PROT_READ | PROT_WRITE), "mprotect");
	fill(at, len);
	verify(at, len);
}

static void read_only(void)
{
	read_only_of(64 * KB, false);
}

static void read_only_part_huge(void)
{
	read_only_of(HUGE, true);
}

/* --- Processes ------------------------------------------------------------- */

struct memory_of {
	unsigned char *at;
	size_t len;
};

static void verify_in_child(void *arg)
{
	struct memory_of *memory = arg;

	verify(memory->at, memory->len);
	fill(memory->at, PAGE);
	memset(memory->at, 0, PAGE);
}

static void fork_of(size_t len, bool huge)
{
	unsigned int gpu = gpu_add(0);
	struct memory_of memory = { .at = in_vram(gpu, len, huge), .len = len };

	/* What the child writes is not the parent's. */
	reap_ok(start(verify_in_child, &memory));
	verify(memory.at, len);
	wait_stat(gpu, live, 0);
}

static void fork_child_reads(void)
{
	fork_of(64 * KB, false);
}

static void fork_child_reads_huge(void)
{
	fork_of(HUGE, true);
}

static void parent_first(void)
{
	unsigned int gpu = gpu_add(0);
	struct memory_of memory = { .at = in_vram(gpu, 64 * KB, false), .len = 64 * KB };
	struct gate gate;
	pid_t pid;

	gate_init(&gate);
	pid = fork();
	check(pid >= 0, "fork");
	if (!pid) {
		gate_wait(&gate);
		verify(memory.at, memory.len);
		_exit(0);
	}
	verify(memory.at, memory.len);
	fill(memory.at, memory.len);
	memset(memory.at, 1, memory.len);
	gate_open(&gate);
	reap_ok(pid);
	wait_stat(gpu, live, 0);
}

static void evict_shared(void)
{
	unsigned int gpu = gpu_add(0);
	struct memory_of memory = { .at = map(64 * KB), .len = 64 * KB };
	struct gate gate;
	unsigned int id;
	pid_t pid;

	gate_init(&gate);
	fill(memory.at, memory.len);
	id = place(gpu, memory.at, memory.len);
	pid = fork();
	check(pid >= 0, "fork");
	if (!pid) {
		gate_wait(&gate);
		verify(memory.at, memory.len);
		_exit(0);
	}
	check_result(evict(id), 0);
	verify(memory.at, memory.len);
	gate_open(&gate);
	reap_ok(pid);
}

static unsigned int shared_gpu;

static void exit_with_vram(void *arg)
{
	bool huge = arg;

	in_vram(shared_gpu, huge ? HUGE : 64 * KB, huge);
	_exit(0);
}

static void exit_in_vram(void)
{
	shared_gpu = gpu_add(0);
	reap_ok(start(exit_with_vram, NULL));
	wait_stat(shared_gpu, live, 0);
	reap_ok(start(exit_with_vram, (void *)1));
	wait_stat(shared_gpu, live, 0);
	check(!stats(shared_gpu).copies_out, "copied for nobody");
}

static void kernel_reads(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, 16 * KB, false);
	unsigned char *other = map(16 * KB);
	int ends[2];

	check(!pipe(ends), "pipe");
	check(write(ends[1], at, 16 * KB) == (ssize_t)(16 * KB), "write: %s", strerror(errno));
	for (size_t done = 0; done < 16 * KB;) {
		ssize_t got = read(ends[0], other + done, 16 * KB - done);

		check(got > 0, "read");
		done += got;
	}
	check(!memcmp(at, other, 16 * KB), "the kernel read other bytes");
}

static void kernel_writes(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = in_vram(gpu, 16 * KB, false);
	unsigned char *other = map(16 * KB);
	int ends[2];

	check(!pipe(ends), "pipe");
	memset(other, 0x5a, 16 * KB);
	check(write(ends[1], other, 16 * KB) == (ssize_t)(16 * KB), "write");
	for (size_t done = 0; done < 16 * KB;) {
		ssize_t got = read(ends[0], at + done, 16 * KB - done);

		check(got > 0, "read: %s", strerror(errno));
		done += got;
	}
	check(!memcmp(at, other, 16 * KB), "the kernel wrote other bytes");
}

/* --- At once --------------------------------------------------------------- */

#define CROWD	4

static struct {
	unsigned char *at;
	unsigned int gpu;
	atomic_bool stop;
	atomic_uint id, wrong;
} crowd;

static void *read_on(void *arg)
{
	size_t offset = (uintptr_t)arg * PAGE;

	while (!crowd.stop) {
		if (wrong_bytes(crowd.at + offset % (64 * KB), PAGE))
			crowd.wrong++;
		else
			offset += 3 * PAGE;
		/* A migration needs a moment without anybody. */
		usleep(300);
	}
	return NULL;
}

static void *evict_on(void *arg)
{
	(void)arg;
	while (!crowd.stop) {
		evict(crowd.id);
		usleep(1000);
	}
	return NULL;
}

static void crowd_of(size_t len, bool huge)
{
	pthread_t threads[CROWD];
	uint64_t end = now_ms() + 1500;
	unsigned int there = 0, rounds = 0;

	crowd.gpu = gpu_add(0);
	crowd.at = huge ? map_huge(len) : map(len);
	fill(crowd.at, len);
	crowd.id = place(crowd.gpu, crowd.at, len);
	for (uintptr_t i = 0; i < CROWD; i++)
		check(!pthread_create(&threads[i], NULL, i ? read_on : evict_on, (void *)i),
		      "no thread");
	while (now_ms() < end || (!there && now_ms() < end + 4000 * ktap_scale())) {
		struct client_migrate args = {
			.gpu = crowd.gpu, .start = (uintptr_t)crowd.at,
			.end = (uintptr_t)crowd.at + len,
		};
		int ret = migrate(&args);

		check(!ret || ret == -EBUSY || ret == -ENOSPC, "migrating gave %s", error_name(ret));
		rounds++;
		there += !ret;
		if (!ret)
			crowd.id = args.id;
		/* Else readers and migration may hold each other off for ever. */
		sleep_ms(1);
	}
	crowd.stop = true;
	for (int i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	diag("%u of %u migrations succeeded", there, rounds);
	check(!crowd.wrong, "%u pages were wrong for a reader", crowd.wrong);
	check(there, "no migration succeeded");
	verify(crowd.at, len);
	wait_stat(crowd.gpu, live, 0);
	check(!stats(crowd.gpu).dma_live, "DMA mappings are left");
}

static void crowd_small(void)
{
	crowd_of(64 * KB, false);
}

static void crowd_huge(void)
{
	crowd_of(HUGE, true);
}

static const struct ktap_test tests[] = {
	{ "unmap_all", unmap_all, 10 },
	{ "unmap_all_huge", unmap_all_huge, 10 },
	{ "unmap_part", unmap_part, 10 },
	{ "unmap_part_huge", unmap_part_huge, 10 },
	{ "dont_need", dont_need, 10 },
	{ "dont_need_part_huge", dont_need_part_huge, 10 },
	{ "move", move, 10 },
	{ "move_huge", move_huge, 10 },
	{ "move_huge_unaligned", move_huge_unaligned, 10 },
	{ "move_part_huge", move_part_huge, 10 },
	{ "read_only", read_only, 10 },
	{ "read_only_part_huge", read_only_part_huge, 10 },
	{ "fork_child_reads", fork_child_reads, 10 },
	{ "fork_child_reads_huge", fork_child_reads_huge, 10 },
	{ "fork_parent_writes_first", parent_first, 10 },
	{ "fork_evict", evict_shared, 10 },
	{ "exit_in_vram", exit_in_vram, 10 },
	{ "kernel_reads", kernel_reads, 10 },
	{ "kernel_writes", kernel_writes, 10 },
	{ "crowd_small", crowd_small, 20 },
	{ "crowd_huge", crowd_huge, 20 },
};

CASES(mm_cases, tests);
