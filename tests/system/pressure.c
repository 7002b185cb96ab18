// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * More memory than VRAM: populate evicts others or says that there is no space,
 * and no byte is ever wrong.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "ktap.h"
#include "procs.h"
#include "workload.h"

#define PROCESSES	6
#define LOAD_SECONDS	6

/* For buffers, and for the pages that are on their way. */
static void need_ram(uint64_t size)
{
	struct sysinfo info;

	sysinfo(&info);
	if ((uint64_t)info.freeram * info.mem_unit < size)
		skip("%llu MiB of free RAM are needed", (unsigned long long)(size >> 20));
}

/* One process's share, in memory that its parent sees as well. */
static void process_under_pressure(void *arg)
{
	struct worker *worker = arg;

	gpu_close();
	buffer_init(&worker->buf, (gpu_info().vram_size / 4) & -PAGE);
	worker_run(worker, load_end(LOAD_SECONDS));
}

static void many_processes_more_than_vram(void)
{
	struct worker *workers = mmap(NULL, PROCESSES * sizeof(*workers), PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int xors = 0, full = 0;
	pid_t children[PROCESSES];

	check(workers != MAP_FAILED, "mmap: %s", strerror(errno));
	need_ram(gpu_info().vram_size * 2);
	for (int i = 0; i < PROCESSES; i++) {
		workers[i].random = i;
		children[i] = start(process_under_pressure, &workers[i]);
	}
	for (int i = 0; i < PROCESSES; i++) {
		reap_ok(children[i]);
		xors += workers[i].xors;
		full += workers[i].full;
	}
	diag("the GPU worked %u times, VRAM was full %u times", xors, full);
	check(xors, "the GPU never worked");
}

static void one_range_more_than_vram(void)
{
	uint64_t vram = gpu_info().vram_size;
	struct buffer buf;
	int err;

	need_ram(vram * 2 + 64 * MB);
	buffer_init(&buf, (vram + 8 * MB) & -PAGE);
	err = simgpu_populate(gpu(), buf.mem, buf.size, 0);
	check(err == -ENOSPC || !err, "populating more than there is gave %s", error_name(err));
	check(buffer_count(&buf, 0, buf.size, SIMGPU_PLACE_VRAM) <= vram / PAGE,
	      "more pages are in VRAM than it has");
	check_result(simgpu_xor(gpu(), buf.mem, buf.size, 1), -EFAULT);
	buffer_verify(&buf);
}

/* One who fills VRAM and leaves it so does not shut others out for ever. */
static void space_comes_back(void)
{
	uint64_t vram = gpu_info().vram_size;
	struct buffer hog, buf;
	int err;

	need_ram(vram + 128 * MB);
	buffer_map(&hog, vram & -PAGE);
	err = simgpu_populate(gpu(), hog.mem, hog.size, 0);
	check(!err || err == -ENOSPC, "filling VRAM gave %s", error_name(err));
	buffer_init(&buf, 8 * MB);
	err = simgpu_populate(gpu(), buf.mem, buf.size, 0);
	check(!err || err == -ENOSPC, "populating with full VRAM gave %s", error_name(err));
	if (!err)
		buffer_xor(&buf, 0xf011);
	buffer_verify(&buf);
	buffer_evict(&hog);
	buffer_populate(&buf);
	buffer_xor(&buf, 0xe3b);
	buffer_verify(&buf);
	/* The hog was never touched: zero, wherever it has been since. */
	buffer_verify_range(&hog, 0, 16 * MB);
}

static const struct ktap_test tests[] = {
	{ "many_processes_more_than_vram", many_processes_more_than_vram, 120 },
	{ "one_range_more_than_vram", one_range_more_than_vram, 60 },
	{ "space_comes_back", space_comes_back, 60 },
};

KTAP_MAIN(tests, gpu_after_test)
