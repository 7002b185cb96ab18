// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What reading the C layer found, one case or more for each item: migration.
 *
 * A case says what it observed and then checks what would be right. Where a driver
 * may depend on what C does, C's behaviour is right here (16, 17, 19).
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "clock.h"
#include "procs.h"
#include "world.h"

/* --- 1, 2: holes and huge pages -------------------------------------------- */

static void first_touch(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map_huge(HUGE);
	int ret = to_gpu(gpu, at, HUGE);
	size_t there = pages_in(CLIENT_GPU(gpu), at, HUGE);

	observed("%s, with %zu of 512 pages in VRAM", error_name(ret), there);
	check_result(ret, 0);
	check(there == 512 && order_at(at) == 9, "%zu pages, order %u", there, order_at(at));
	verify_zero(at, HUGE);
}

static void huge_and_holes(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map_huge(2 * HUGE);
	size_t there;
	int ret;

	/* A huge page, and page tables with some pages and some holes. */
	fill(at, HUGE);
	fill_small(at + HUGE, 16 * KB);
	ret = to_gpu(gpu, at, 2 * HUGE);
	there = pages_in(CLIENT_GPU(gpu), at, 2 * HUGE);
	observed("%s, with %zu of 1024 pages in VRAM", error_name(ret), there);
	check_result(ret, 0);
	check(there == 1024, "%zu pages", there);
	verify(at, HUGE + 16 * KB);
	verify_zero(at + HUGE + 16 * KB, HUGE - 16 * KB);
}

static void untouched_4m(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map_untouched(2 * HUGE);
	int ret = to_gpu(gpu, at, 2 * HUGE);
	size_t there = pages_in(CLIENT_GPU(gpu), at, 2 * HUGE);

	observed("%s, with %zu of 1024 pages in VRAM", error_name(ret), there);
	check_result(ret, 0);
	check(there == 1024, "%zu pages", there);
	verify_zero(at, 2 * HUGE);
}

/* --- 3, 4: no 2 MiB page is free ------------------------------------------- */

static unsigned int where(const void *at)
{
	return pages_in(CLIENT_RAM, at, PAGE) ? CLIENT_RAM : CLIENT_ABSENT;
}

static void evict_fragmented(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map_huge(HUGE);
	int ret;

	fill(at, HUGE);
	id = place(gpu, at, HUGE);
	fragment_memory();
	ret = evict(id);
	check(order_at(at) == 0 || CLIENT_RAM != where(at), "a 2 MiB page was free: nothing was tested");
	observed("%s after %llu copies, %llu KiB in all", error_name(ret), stats(gpu).copies_out,
		 stats(gpu).bytes_out / 1024);
	check_result(ret, 0);
	check_all_in(CLIENT_RAM, at, HUGE);
	verify(at, HUGE);
	check(stats(gpu).bytes_out <= HUGE, "%llu bytes copied", stats(gpu).bytes_out);
}

static void fault_fragmented(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map_huge(HUGE);
	enum touch got;

	fill(at, HUGE);
	place(gpu, at, HUGE);
	fragment_memory();
	got = touch(at + MB, 5000);
	check(order_at(at) == 0 || CLIENT_RAM != where(at), "a 2 MiB page was free: nothing was tested");
	observed("a reader %s, after %llu copies, %llu KiB in all", touch_name(got),
		 stats(gpu).copies_out, stats(gpu).bytes_out / 1024);
	check(got == TOUCHED, "a reader %s", touch_name(got));
	verify(at, HUGE);
	/* One page more is fair: the way to a split may be to try and migrate one page. */
	check(stats(gpu).bytes_out <= HUGE + PAGE, "%llu bytes copied", stats(gpu).bytes_out);
}

/* --- 5: an mm that is gone ------------------------------------------------- */

struct orphan {
	unsigned int gpu, id;
	unsigned char *at;
	struct gate gone, ready;
};

static void orphan_evicts(struct orphan *orphan)
{
	int ret;

	/* The parent is gone, and its mm with it. */
	gate_wait(&orphan->gone);
	sleep_ms(100);
	ret = evict(orphan->id);
	observed("%s, with %zu of 16 pages in RAM", error_name(ret),
		 pages_in(CLIENT_RAM, orphan->at, 64 * KB));
	check_result(ret, 0);
	check_all_in(CLIENT_RAM, orphan->at, 64 * KB);
	verify(orphan->at, 64 * KB);
}

static void parent_exits(void *arg)
{
	struct orphan *orphan = arg;
	pid_t pid;

	orphan->at = map(64 * KB);
	fill(orphan->at, 64 * KB);
	orphan->id = place(orphan->gpu, orphan->at, 64 * KB);
	pid = fork();
	check(pid >= 0, "fork");
	if (!pid) {
		orphan_evicts(orphan);
		gate_open(&orphan->ready);
		_exit(0);
	}
}

static void dead_mm(void)
{
	struct orphan orphan = { .gpu = gpu_add(0) };

	gate_init(&orphan.gone);
	gate_init(&orphan.ready);
	reap_ok(start(parent_exits, &orphan));
	gate_open(&orphan.gone);
	gate_wait(&orphan.ready);
	wait_stat(orphan.gpu, live, 0);
}

/* --- 6, 7: the neighbours' failures ---------------------------------------- */

static void bad_neighbour(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	enum touch got, bad;

	fill(at, 64 * KB);
	place(gpu, at, 64 * KB);
	page_op(CLIENT_PAGE_BAD, at + 40 * KB, 0);
	got = touch(at, 5000);
	bad = touch(at + 40 * KB, 5000);
	observed("a reader of a good page %s, of the bad one %s", touch_name(got), touch_name(bad));
	check(got == TOUCHED, "a reader of a good page %s", touch_name(got));
	verify(at, 40 * KB);
	verify(at + 44 * KB, 20 * KB);
	check(bad == TOUCH_SIGBUS, "a reader of the bad page %s", touch_name(bad));
}

static void dma_neighbour(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	enum touch got;

	fill(at, 64 * KB);
	place(gpu, at, 64 * KB);
	inject(gpu, CLIENT_HOOK_DMA, 8, 1, EFAULT);
	got = touch(at, 5000);
	observed("a reader %s", touch_name(got));
	check(got == TOUCHED, "a reader %s", touch_name(got));
	verify(at, 64 * KB);
	check(!stats(gpu).dma_live, "DMA mappings are left");
}

/* The machine runs with swiotlb=force: one mapping is 256 KiB at most. */
static void dma_cap_in(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map_huge(HUGE);
	int ret;

	fill(at, HUGE);
	ret = to_gpu(gpu, at, HUGE);
	observed("%s, %llu mappings", error_name(ret), stats(gpu).dma_maps);
	check_result(ret, 0);
	check(stats(gpu).dma_maps > 1, "one mapping was enough: is this with swiotlb=force?");
	page_op(CLIENT_PAGE_INVERT, at, HUGE);
	verify_inverse(at, HUGE);
	check(!stats(gpu).dma_live, "DMA mappings are left");
}

static void dma_cap_home(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map_huge(HUGE);
	enum touch got;
	int ret;

	/* A hole needs no mapping, so it gets there in any case. */
	ret = to_gpu(gpu, at, HUGE);
	check(pages_in(CLIENT_GPU(gpu), at, HUGE) == 512, "not there: %s", error_name(ret));
	got = touch(at, 5000);
	observed("a reader %s", touch_name(got));
	check(got == TOUCHED, "a reader %s", touch_name(got));
	verify_zero(at, HUGE);
	fill(at, HUGE);
	id = place(gpu, at, HUGE);
	check_result(evict(id), 0);
	verify(at, HUGE);
}

/* --- 10, 11: references and completions ------------------------------------ */

static void unsupported(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.flags = CLIENT_NO_COPY_IN,
	};
	int ret = migrate(&args);
	struct client_alloc_info info = alloc_info(args.id);

	observed("%s, reference %s, detached %s", error_name(ret),
		 info.released ? "consumed" : "kept", info.detached ? "completed" : "not completed");
	check_result(ret, -EOPNOTSUPP);
	check(info.released == 1, "released %u times", info.released);
	check(info.detached, "detached is not completed");
}

static void error_detaches(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
	};
	struct client_alloc_info info;
	int ret;

	check(!munmap(at, 64 * KB), "munmap");
	ret = migrate(&args);
	info = alloc_info(args.id);
	observed("%s, reference %s, detached %s", error_name(ret),
		 info.released ? "consumed" : "kept", info.detached ? "completed" : "not completed");
	check(ret < 0 && info.released == 1, "%s, released %u times", error_name(ret),
	      info.released);
	check(info.detached, "detached is not completed");
}

static void no_release_op(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.flags = CLIENT_NO_RELEASE,
	};
	int ret;

	check(!munmap(at, 64 * KB), "munmap");
	ret = migrate(&args);
	observed("%s", error_name(ret));
	check_result(ret, -ENOENT);
}

static void passing_reference(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(64 * KB);
	uint64_t begin;
	int ret;

	fill(at, 64 * KB);
	id = place(gpu, at, 64 * KB);
	/* Nobody maps that page any more, and somebody is still at it. */
	page_op(CLIENT_PAGE_HOLD, at + 20 * KB, 30);
	check(!madvise(at + 20 * KB, PAGE, MADV_DONTNEED), "madvise");
	begin = now_ms();
	ret = evict(id);
	observed("%s after %llu ms, the reference was there for 30 ms", error_name(ret),
		 (unsigned long long)(now_ms() - begin));
	check_result(ret, 0);
	verify(at, 20 * KB);
	verify_zero(at + 20 * KB, PAGE);
}

/* --- 12, 13: faults that come again ---------------------------------------- */

static uint64_t cpu_ms(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000ull +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static void timeslice_spins(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(PAGE);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + PAGE, .timeslice_ms = 500,
	};
	uint64_t begin, cpu;
	enum touch got;

	fill(at, PAGE);
	place_with(&args);
	begin = now_ms();
	cpu = cpu_ms();
	got = touch(at, 5000);
	cpu = cpu_ms() - cpu;
	observed("a reader %s after %llu ms, of which it kept a processor busy for %llu ms",
		 touch_name(got), (unsigned long long)(now_ms() - begin), (unsigned long long)cpu);
	check(got == TOUCHED, "a reader %s", touch_name(got));
	check(cpu < 250, "a processor was busy for %llu ms", (unsigned long long)cpu);
}

static void timeslice_truncated(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(PAGE);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + PAGE,
		.timeslice_ms = 1ull << 32,
	};
	enum touch got;

	fill(at, PAGE);
	place_with(&args);
	got = touch(at, 500);
	observed("of a time slice of 2^32 ms, a reader %s within 500 ms", touch_name(got));
	check(got == TOUCH_STUCK, "a reader %s", touch_name(got));
}

static void pinned(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(PAGE);
	uint64_t cpu;
	enum touch got;

	fill(at, PAGE);
	place(gpu, at, PAGE);
	page_op(CLIENT_PAGE_HOLD, at, 0);
	cpu = cpu_ms();
	got = touch(at, 1000);
	cpu = cpu_ms() - cpu;
	observed("a reader %s; a processor was busy for %llu of 1000 ms", touch_name(got),
		 (unsigned long long)cpu);
	/* It can't come home, so there is no reading it; but the machine has better to do. */
	check(got != TOUCHED && cpu < 700, "a reader %s, and a processor was busy for %llu ms",
	      touch_name(got), (unsigned long long)cpu);
	page_op(CLIENT_PAGE_RELEASE, at, 0);
	check(got == TOUCH_SIGBUS || touch(at, 5000) == TOUCHED, "nor when it is free again");
}

/* --- 14: arguments --------------------------------------------------------- */

static void unaligned(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at + PAGE - 1, .end = (uintptr_t)at + 2 * PAGE,
		.size = 2 * PAGE,
	};
	int ret;

	fill(at, 64 * KB);
	ret = migrate(&args);
	observed("%s, with %zu pages in VRAM", error_name(ret),
		 pages_in(CLIENT_GPU(gpu), at, 64 * KB));
	check_result(ret, -EINVAL);
	check_all_in(CLIENT_RAM, at, 64 * KB);
	verify(at, 64 * KB);
}

static void empty_range(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at + PAGE, .end = (uintptr_t)at + PAGE, .size = PAGE,
	};
	int ret, backwards;

	fill(at, 64 * KB);
	ret = migrate(&args);
	args.end = (uintptr_t)at;
	backwards = migrate(&args);
	observed("empty: %s, backwards: %s", error_name(ret), error_name(backwards));
	check_result(ret, -EINVAL);
	check_result(backwards, -EINVAL);
	check(stats(gpu).live == 0, "%llu allocations are left", stats(gpu).live);
	verify(at, 64 * KB);
}

static void odd_size(void)
{
	unsigned int gpu = gpu_add(0);
	/* At 16 KiB from a 2 MiB boundary: 3 pages that no power of two fits. */
	unsigned char *at = map(64 * KB) + 16 * KB;
	size_t home;

	fill(at, 3 * PAGE);
	place(gpu, at, 3 * PAGE);
	check(touch(at, 5000) == TOUCHED, "not read");
	home = pages_in(CLIENT_RAM, at, 3 * PAGE);
	observed("of an allocation of 12 KiB, one touch brought home %zu of 3 pages", home);
	verify(at, 3 * PAGE);
	wait_stat(gpu, live, 0);
	check(home == 3, "%zu pages came home", home);
}

static void scattered_huge(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map_huge(HUGE);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + HUGE,
		.layout = CLIENT_SCATTERED,
	};
	int ret;

	fill(at, HUGE);
	ret = migrate(&args);
	observed("%s, %llu KiB written to VRAM of nobody", error_name(ret),
		 stats(gpu).stray_bytes / 1024);
	check(!stats(gpu).stray_bytes, "%llu stray bytes", stats(gpu).stray_bytes);
	verify(at, HUGE);
}

/* --- 16, 17, 19: kept as they are ------------------------------------------ */

static void not_anonymous(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = mmap(NULL, 64 * KB, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int ret;

	check(at != MAP_FAILED, "mmap");
	fill(at, 64 * KB);
	ret = to_gpu(gpu, at, 64 * KB);
	observed("%s", error_name(ret));
	check_result(ret, -EBUSY);
	check(stats(gpu).live == 0, "%llu allocations are left", stats(gpu).live);
	verify(at, 64 * KB);
}

static void defragment(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = gpu, .start = (uintptr_t)at, .end = (uintptr_t)at + 64 * KB,
		.layout = CLIENT_SCATTERED,
	};
	struct client_stats before, after;
	int ret;

	fill(at, 64 * KB);
	place_with(&args);
	args.layout = CLIENT_CONTIGUOUS;
	args.flags = CLIENT_SAME_PAGEMAP;
	before = stats(gpu);
	ret = migrate(&args);
	after = stats(gpu);
	observed("%s, %llu bytes moved", error_name(ret), after.bytes_peer - before.bytes_peer);
	check_result(ret, 0);
	check(after.bytes_peer == before.bytes_peer, "%llu bytes moved",
	      after.bytes_peer - before.bytes_peer);
	verify(at, 64 * KB);
}

static void one_unmovable(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);
	size_t there;
	int ret;

	fill(at, 64 * KB);
	page_op(CLIENT_PAGE_HOLD, at + 20 * KB, 0);
	ret = to_gpu(gpu, at, 64 * KB);
	there = pages_in(CLIENT_GPU(gpu), at, 64 * KB);
	observed("%s, with %zu of 16 pages in VRAM", error_name(ret), there);
	page_op(CLIENT_PAGE_RELEASE, at, 0);
	check_result(ret, -EBUSY);
	check(!there, "%zu pages are there", there);
	verify(at, 64 * KB);
}

/* --- 18: RAM of the wrong kind --------------------------------------------- */

static const char *yes_no(bool yes)
{
	return yes ? "yes" : "no";
}

static void movable_after_fault(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(PAGE);
	struct client_memory seen;
	bool movable;

	fill(at, PAGE);
	place(gpu, at, PAGE);
	memory_request(CLIENT_MEMORY_WATCH);
	check(touch(at, 5000) == TOUCHED, "not read");
	seen = memory_request(CLIENT_MEMORY_WATCH);
	check(seen.gfp_4k, "no allocation was seen");
	movable = seen.gfp_4k & seen.bits_movable;
	observed("the page that came home is movable: %s", yes_no(movable));
	check(movable, "not movable");
}

static void movable_after_evict(void)
{
	unsigned int gpu = gpu_add(0), id;
	unsigned char *at = map(PAGE);
	struct client_memory seen;
	bool movable;

	fill(at, PAGE);
	id = place(gpu, at, PAGE);
	memory_request(CLIENT_MEMORY_WATCH);
	check_result(evict(id), 0);
	seen = memory_request(CLIENT_MEMORY_WATCH);
	check(seen.gfp_4k, "no allocation was seen");
	movable = seen.gfp_4k & seen.bits_movable;
	observed("the page that came home is movable: %s", yes_no(movable));
	check(movable, "not movable");
}

static void huge_follows_policy(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map_huge(HUGE);
	struct client_memory first, home;
	uint64_t want, got;

	/* What the kernel itself does for this area is the policy (transparent_hugepage/defrag). */
	write_file("/sys/kernel/mm/transparent_hugepage/defrag", "never");
	memory_request(CLIENT_MEMORY_WATCH);
	fill(at, HUGE);
	first = memory_request(CLIENT_MEMORY_WATCH);
	check(first.gfp_2m, "no 2 MiB page was allocated");
	place(gpu, at, HUGE);
	memory_request(CLIENT_MEMORY_WATCH);
	check(touch(at, 5000) == TOUCHED, "not read");
	home = memory_request(CLIENT_MEMORY_WATCH);
	write_file("/sys/kernel/mm/transparent_hugepage/defrag", "madvise");
	check(home.gfp_2m, "no 2 MiB page came home");
	want = first.gfp_2m & (first.bits_movable | first.bits_reclaim);
	got = home.gfp_2m & (first.bits_movable | first.bits_reclaim);
	observed("with defrag=never the kernel does not reclaim for 2 MiB pages; the way home does: %s; movable: %s",
		 yes_no(got & first.bits_reclaim), yes_no(got & first.bits_movable));
	check(want == got, "flags 0x%llx, not 0x%llx", (unsigned long long)got,
	      (unsigned long long)want);
}

static const struct ktap_test tests[] = {
	{ "defect_01_first_touch_2m", first_touch, 10 },
	{ "defect_02_huge_and_holes", huge_and_holes, 10 },
	{ "defect_02_untouched_4m", untouched_4m, 10 },
	{ "defect_03_evict_fragmented", evict_fragmented, 20 },
	{ "defect_04_fault_fragmented", fault_fragmented, 20 },
	{ "defect_05_dead_mm", dead_mm, 10 },
	{ "defect_06_bad_neighbour", bad_neighbour, 10 },
	{ "defect_06_dma_neighbour", dma_neighbour, 10 },
	{ "defect_07_dma_cap_in", dma_cap_in, 10 },
	{ "defect_07_dma_cap_home", dma_cap_home, 10 },
	{ "defect_10_unsupported", unsupported, 10 },
	{ "defect_10_error_detaches", error_detaches, 10 },
	{ "defect_10_no_release_op", no_release_op, 10 },
	{ "defect_11_passing_reference", passing_reference, 10 },
	{ "defect_12_timeslice_spins", timeslice_spins, 10 },
	{ "defect_12_timeslice_truncated", timeslice_truncated, 10 },
	{ "defect_13_pinned", pinned, 10 },
	{ "defect_14_unaligned", unaligned, 10 },
	{ "defect_14_empty", empty_range, 10 },
	{ "defect_14_odd_size", odd_size, 10 },
	{ "defect_14_scattered_huge", scattered_huge, 10 },
	{ "defect_16_not_anonymous", not_anonymous, 10 },
	{ "defect_17_defragment", defragment, 10 },
	{ "defect_18_movable_after_fault", movable_after_fault, 10 },
	{ "defect_18_movable_after_evict", movable_after_evict, 10 },
	{ "defect_18_huge_policy", huge_follows_policy, 10 },
	{ "defect_19_one_unmovable", one_unmovable, 10 },
};

CASES(defect_cases, tests);
