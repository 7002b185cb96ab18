// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The kernel, and other processes through it, read and write pages in VRAM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "ktap.h"
#include "procs.h"

#define SIZE		(2 * MB)
#define PIPE_PART	(32 * KB)	/* Fits into a pipe. */

/* A second copy of what @buf must contain, with @buf itself in VRAM again. */
static unsigned char *expected_copy(struct buffer *buf)
{
	unsigned char *copy = malloc(buf->size);

	check(copy, "no memory");
	buffer_verify(buf);
	memcpy(copy, buf->mem, buf->size);
	buffer_populate(buf);
	buffer_expect(buf, SIMGPU_PLACE_VRAM);
	return copy;
}

static void write_from_vram(void)
{
	unsigned char part[PIPE_PART], *copy;
	struct buffer buf;
	int ends[2];

	buffer_init_in_vram(&buf, SIZE);
	copy = expected_copy(&buf);
	check(!pipe(ends), "pipe: %s", strerror(errno));
	for (size_t offset = 0; offset < SIZE; offset += sizeof(part)) {
		check(write(ends[1], buf.mem + offset, sizeof(part)) == sizeof(part),
		      "write to a pipe: %s", strerror(errno));
		check(read(ends[0], part, sizeof(part)) == sizeof(part), "read from a pipe: %s",
		      strerror(errno));
		check(!memcmp(part, copy + offset, sizeof(part)), "write() sent wrong data");
	}
	buffer_verify(&buf);
}

static void read_into_vram(void)
{
	unsigned char part[PIPE_PART], *copy;
	/* Not aligned: the rest of the pages must keep what the GPU made of them. */
	const size_t target = 3 * PAGE + 100;
	struct buffer buf;
	int ends[2];

	buffer_init_in_vram(&buf, SIZE);
	copy = expected_copy(&buf);
	memset(part, 0x77, sizeof(part));
	memcpy(copy + target, part, sizeof(part));
	check(!pipe(ends), "pipe: %s", strerror(errno));
	check(write(ends[1], part, sizeof(part)) == sizeof(part), "write to a pipe: %s",
	      strerror(errno));
	check(read(ends[0], buf.mem + target, sizeof(part)) == sizeof(part),
	      "read from a pipe: %s", strerror(errno));
	check(!memcmp(buf.mem, copy, SIZE), "read() into VRAM went wrong");
}

static void file_io(void)
{
	unsigned char *copy;
	struct buffer buf;
	int file = memfd_create("simgpu-test", MFD_CLOEXEC);

	check(file >= 0, "memfd_create: %s", strerror(errno));
	buffer_init_in_vram(&buf, SIZE);
	copy = expected_copy(&buf);
	check(pwrite(file, buf.mem, SIZE, 0) == (ssize_t)SIZE, "pwrite: %s", strerror(errno));
	check(!memcmp(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, file, 0), copy, SIZE),
	      "pwrite() stored wrong data");

	buffer_populate(&buf);
	buffer_fill_range(&buf, 0, SIZE, 0);	/* So that stale data shows. */
	check(pread(file, buf.mem, SIZE, 0) == (ssize_t)SIZE, "pread: %s", strerror(errno));
	check(!memcmp(buf.mem, copy, SIZE), "pread() stored wrong data");
}

static void idle(void *arg)
{
	(void)arg;
	pause();
}

/* Read the buffer out of a child that shares it, by @read; compare. */
static void read_from_other(ssize_t (*read_other)(pid_t pid, void *to, const void *from,
						  size_t size))
{
	unsigned char *copy, *got = malloc(SIZE);
	struct buffer buf;
	pid_t child;

	check(got, "no memory");
	buffer_init_in_vram(&buf, SIZE);
	copy = expected_copy(&buf);
	child = start(idle, NULL);
	check(read_other(child, got, buf.mem, SIZE) == (ssize_t)SIZE,
	      "reading another process's memory: %s", strerror(errno));
	check(!memcmp(got, copy, SIZE), "reading another process's memory gave wrong data");
	kill(child, SIGKILL);
	reap(child, 10);
	buffer_verify(&buf);
}

static ssize_t by_process_vm_readv(pid_t pid, void *to, const void *from, size_t size)
{
	struct iovec local = { to, size }, remote = { (void *)from, size };

	/* Reading nothing works wherever the system call exists. */
	if (process_vm_readv(getpid(), NULL, 0, NULL, 0, 0))
		skip("the kernel has no process_vm_readv (CONFIG_CROSS_MEMORY_ATTACH)");
	return process_vm_readv(pid, &local, 1, &remote, 1, 0);
}

static void process_vm_read(void)
{
	read_from_other(by_process_vm_readv);
}

static ssize_t by_proc_mem(pid_t pid, void *to, const void *from, size_t size)
{
	char path[40];
	int file;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	file = open(path, O_RDONLY | O_CLOEXEC);
	check(file >= 0, "%s: %s", path, strerror(errno));
	return pread(file, to, size, (off_t)(uintptr_t)from);
}

static void proc_mem_read(void)
{
	read_from_other(by_proc_mem);
}

static void wants_to_be_traced(void *arg)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	buffer_verify(arg);
}

static void ptrace_peek_and_poke(void)
{
	unsigned char *copy;
	struct buffer buf;
	int status;
	pid_t child;
	long word;

	buffer_init_in_vram(&buf, SIZE);
	copy = expected_copy(&buf);
	child = start(wants_to_be_traced, &buf);
	check(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "the child did not stop");

	for (size_t offset = 8; offset < SIZE; offset += 17 * PAGE) {
		errno = 0;
		word = ptrace(PTRACE_PEEKDATA, child, buf.mem + offset, NULL);
		check(!errno, "PTRACE_PEEKDATA: %s", strerror(errno));
		check(!memcmp(&word, copy + offset, sizeof(word)),
		      "PTRACE_PEEKDATA gave wrong data");
	}
	/* A write breaks copy-on-write in the child alone; then put it right again. */
	check(!ptrace(PTRACE_POKEDATA, child, buf.mem + PAGE, (void *)42), "PTRACE_POKEDATA: %s",
	      strerror(errno));
	buffer_verify(&buf);
	memcpy(&word, copy + PAGE, sizeof(word));
	check(!ptrace(PTRACE_POKEDATA, child, buf.mem + PAGE, (void *)word), "PTRACE_POKEDATA: %s",
	      strerror(errno));
	check(!ptrace(PTRACE_DETACH, child, NULL, NULL), "PTRACE_DETACH: %s", strerror(errno));
	reap_ok(child);
}

static void futex_in_vram(void)
{
	struct buffer buf;
	uint32_t value;

	buffer_map(&buf, PAGE);
	buffer_populate(&buf);
	buffer_fill_range(&buf, 0, PAGE, 0x0000000700000007);
	/* The kernel must see 7, what the GPU wrote: waiting for 8 ends at once. */
	value = 8;
	check(syscall(SYS_futex, buf.mem, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, value, NULL) < 0 &&
	      errno == EAGAIN, "a futex wait gave %s", strerror(errno));
	buffer_verify(&buf);
}

/* The driver's own arguments and results may be in VRAM too. */
static void ioctl_arguments_in_vram(void)
{
	struct drm_simgpu_residency *args;
	struct buffer buf;

	buffer_map(&buf, 8 * PAGE);
	args = (void *)buf.mem;
	*args = (struct drm_simgpu_residency){ .start = (uintptr_t)buf.mem, .size = buf.size };
	buffer_populate(&buf);
	check_ok(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_RESIDENCY, args));
	check(args->counts[SIMGPU_PLACE_VRAM] + args->counts[SIMGPU_PLACE_RAM] == 8,
	      "the counts in VRAM are wrong");

	/* Populate the page that the arguments are on. */
	memset(args, 0, PAGE);
	*(struct drm_simgpu_populate *)args = (struct drm_simgpu_populate){
		.start = (uintptr_t)buf.mem,
		.size = buf.size,
	};
	check_ok(simgpu_ioctl(gpu(), DRM_IOCTL_SIMGPU_POPULATE, args));
	buffer_expect_range(&buf, PAGE, 7 * PAGE, SIMGPU_PLACE_VRAM);
}

/* The map describes the very pages that writing it brings home. */
static void residency_map_in_vram(void)
{
	uint64_t counts[SIMGPU_PLACES], seen[SIMGPU_PLACES] = { 0 };
	size_t pages = 16 * MB / PAGE;
	unsigned char *map;
	struct buffer buf;

	buffer_map(&buf, pages * PAGE);
	map = buf.mem + buf.size - pages;
	buffer_populate(&buf);
	check_ok(simgpu_residency(gpu(), buf.mem, buf.size, map, counts));
	for (size_t page = 0; page < pages; page++) {
		check(map[page] < SIMGPU_PLACES, "page %zu is in place %u", page, map[page]);
		seen[map[page]]++;
	}
	check(!memcmp(seen, counts, sizeof(seen)), "the residency counts contradict the map");
	check(!seen[SIMGPU_PLACE_NONE] && seen[SIMGPU_PLACE_VRAM], "the residency map is wrong");
	buffer_verify_range(&buf, 0, buf.size - pages);
}

static const struct ktap_test tests[] = {
	{ "write_from_vram", write_from_vram, 0 },
	{ "read_into_vram", read_into_vram, 0 },
	{ "file_io", file_io, 0 },
	{ "process_vm_read", process_vm_read, 0 },
	{ "proc_mem_read", proc_mem_read, 0 },
	{ "ptrace_peek_and_poke", ptrace_peek_and_poke, 0 },
	{ "futex_in_vram", futex_in_vram, 0 },
	{ "ioctl_arguments_in_vram", ioctl_arguments_in_vram, 0 },
	{ "residency_map_in_vram", residency_map_in_vram, 0 },
};

KTAP_MAIN(tests, gpu_after_test)
