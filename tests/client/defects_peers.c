// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What reading the C layer found: memory of other devices.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "world.h"

/*
 * 8. A source that was migrated to another device, and that somebody still has a
 * reference on, is no use to an eviction.
 */
static void source_retires(void)
{
	unsigned int from = gpu_add(0), to = gpu_add(0);
	unsigned char *at = map(64 * KB);
	struct client_migrate args = {
		.gpu = from, .start = (uintptr_t)at, .end = (uintptr_t)at + 32 * KB,
	};
	uint64_t stale;
	int ret;

	/* Pages in VRAM and holes: for the holes, notifiers are called again at the end. */
	fill(at, 32 * KB);
	place_with(&args);
	page_op(CLIENT_PAGE_HOLD_AT_NOTIFIER, at, 2);
	place(to, at, 64 * KB);
	check_all_in(CLIENT_GPU(to), at, 64 * KB);
	check(!alloc_info(args.id).released, "nobody held the source: nothing was tested");
	stale = stats(from).copies_out;
	ret = evict(args.id);
	stale = stats(from).copies_out - stale;
	observed("evicting what has left gave %s and copied %llu times from the stale page",
		 error_name(ret), (unsigned long long)stale);
	check(!stale, "copied a stale page");
	page_op(CLIENT_PAGE_RELEASE, at, 0);
	verify(at, 32 * KB);
	verify_zero(at + 32 * KB, 32 * KB);
	wait_stat(from, live, 0);
}

/* 9. Pages that were mapped for DMA are unmapped by another op. */
static void coherent_source(void)
{
	unsigned int from = gpu_add(CLIENT_GPU_COHERENT), to = gpu_add(0);
	unsigned char *at = map(64 * KB);
	int ret;

	fill(at, 64 * KB);
	place(from, at, 64 * KB);
	/* The CPU reads it where it is. */
	verify(at, 64 * KB);
	check(!stats(from).copies_out, "it is not coherent memory");
	ret = to_gpu(to, at, 64 * KB);
	observed("%s, %llu DMA mappings left, %llu unmaps of what was never mapped",
		 error_name(ret), stats(to).dma_live, stats(from).bad_unmaps);
	check_result(ret, 0);
	check(!stats(to).dma_live, "%llu DMA mappings are left", stats(to).dma_live);
	check(!stats(from).bad_unmaps, "%llu unmaps of what was never mapped",
	      stats(from).bad_unmaps);
	verify(at, 64 * KB);
}

static void no_unmap_op(void)
{
	unsigned int from = gpu_add(0), to = gpu_add(CLIENT_GPU_NO_UNMAP);
	unsigned char *at = map(64 * KB);
	int ret;

	fill(at, 64 * KB);
	place(from, at, 64 * KB);
	ret = to_gpu(to, at, 64 * KB);
	observed("%s", error_name(ret));
	check_result(ret, 0);
	verify(at, 64 * KB);
}

static void no_map_op(void)
{
	unsigned int from = gpu_add(0), to = gpu_add(CLIENT_GPU_NO_MAP);
	unsigned char *at = map(64 * KB);
	int ret;

	fill(at, 64 * KB);
	place(from, at, 64 * KB);
	ret = to_gpu(to, at, 64 * KB);
	observed("%s", error_name(ret));
	/* There is no way from here to there. */
	check(ret < 0, "migrated without a mapping");
	check_all_in(CLIENT_GPU(from), at, 64 * KB);
	verify(at, 64 * KB);
}

/* 15. Address 0 of the interconnect is an address. */
static void address_zero(void)
{
	unsigned int from = gpu_add(0), to = gpu_add(CLIENT_GPU_BUS_ZERO);
	unsigned char *at = map(64 * KB);
	int ret;

	fill(at, 64 * KB);
	place(from, at, 64 * KB);
	ret = to_gpu(to, at, 64 * KB);
	observed("%s, %llu mappings, %llu of them unmapped", error_name(ret), stats(to).maps,
		 stats(to).unmaps);
	check_result(ret, 0);
	check(stats(to).maps == stats(to).unmaps, "%llu maps, %llu unmaps", stats(to).maps,
	      stats(to).unmaps);
	verify(at, 64 * KB);
}

static const struct ktap_test tests[] = {
	{ "defect_08_source_retires", source_retires, 10 },
	{ "defect_09_coherent_source", coherent_source, 10 },
	{ "defect_09_no_unmap_op", no_unmap_op, 10 },
	{ "defect_09_no_map_op", no_map_op, 10 },
	{ "defect_15_address_zero", address_zero, 10 },
};

CASES(defect_peer_cases, tests);
