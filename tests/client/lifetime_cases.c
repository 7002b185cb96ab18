// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Pagemaps, devices between which pages move, owners, cache and shrinker.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "world.h"

/* --- Pagemaps -------------------------------------------------------------- */

static int refs(unsigned int gpu, unsigned int slot)
{
	return lifetime(CLIENT_PAGEMAP_REFS, gpu, slot, 0).result;
}

static void pagemap_references(void)
{
	int before = lifetime(CLIENT_MODULE_REFS, 0, 0, 0).result;
	unsigned int gpu = gpu_add(0);

	check(lifetime(CLIENT_MODULE_REFS, 0, 0, 0).result > before, "the module may go");
	check(refs(gpu, 0) == 1, "%d references", refs(gpu, 0));
	lifetime(CLIENT_PAGEMAP_GET, gpu, 0, 0);
	check(refs(gpu, 0) == 2, "%d references", refs(gpu, 0));
	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	check(!stats(gpu).destroyed, "destroyed too early");
	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	wait_stat(gpu, destroyed, 1);
	/* Given back in a work item. */
	for (int i = 0; i < 100 && lifetime(CLIENT_MODULE_REFS, 0, 0, 0).result > before; i++)
		sleep_ms(10);
	check(lifetime(CLIENT_MODULE_REFS, 0, 0, 0).result == before, "module references differ");
}

static void pagemap_reinit(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);

	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	wait_stat(gpu, destroyed, 1);
	check_result(lifetime(CLIENT_PAGEMAP_REINIT, gpu, 0, 0).result, 0);
	check(refs(gpu, 0) == 1, "%d references", refs(gpu, 0));
	fill(at, 64 * KB);
	place(gpu, at, 64 * KB);
	verify(at, 64 * KB);
	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	wait_stat(gpu, destroyed, 2);
}

static void pagemap_held_by_pages(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	place(gpu, at, 64 * KB);
	check(refs(gpu, 0) > 1, "pages in VRAM have no reference");
	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	sleep_ms(50);
	check(!stats(gpu).destroyed, "destroyed under its pages");
	verify(at, 64 * KB);
	wait_stat(gpu, destroyed, 1);
}

static void pagemap_unplugged(void)
{
	unsigned int gpu = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	place(gpu, at, 64 * KB);
	lifetime(CLIENT_UNPLUG, gpu, 0, 0);
	verify(at, 64 * KB);
	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	wait_stat(gpu, destroyed, 1);
}

/* --- Between GPUs ---------------------------------------------------------- */

static void peer_of(size_t len, bool huge, unsigned int flags)
{
	unsigned int from = gpu_add(flags), to = gpu_add(flags);
	unsigned char *at = huge ? map_huge(len) : map(len);

	fill(at, len);
	place(from, at, len);
	place(to, at, len);
	check_all_in(CLIENT_GPU(to), at, len);
	check(stats(from).bytes_peer == len, "%llu bytes went over the interconnect",
	      stats(from).bytes_peer);
	check(stats(to).maps && stats(to).maps == stats(to).unmaps, "%llu maps, %llu unmaps",
	      stats(to).maps, stats(to).unmaps);
	check(!stats(to).bad_unmaps && !stats(to).stray_bytes, "bad unmaps or stray bytes");
	if (huge)
		check(order_at(at) == 9, "arrived as small pages");
	wait_stat(from, live, 0);
	verify(at, len);
	wait_stat(to, live, 0);
}

static void peer_4k(void)
{
	peer_of(PAGE, false, 0);
}

static void peer_64k(void)
{
	peer_of(64 * KB, false, 0);
}

static void peer_2m_huge(void)
{
	peer_of(HUGE, true, 0);
}

static void peer_and_ram(void)
{
	unsigned int from = gpu_add(0), to = gpu_add(0);
	unsigned char *at = map(128 * KB);

	fill(at, 32 * KB);
	fill(at + 64 * KB, 64 * KB);
	place(from, at + 16 * KB, 32 * KB);
	place(from, at + 96 * KB, 16 * KB);
	place(to, at, 128 * KB);
	check_all_in(CLIENT_GPU(to), at, 128 * KB);
	wait_stat(from, live, 0);
	verify(at, 32 * KB);
	verify_zero(at + 32 * KB, 32 * KB);
	verify(at + 64 * KB, 64 * KB);
}

static void peers_two_sources(void)
{
	unsigned int a = gpu_add(0), b = gpu_add(0), to = gpu_add(0);
	unsigned char *at = map(128 * KB);

	fill(at, 128 * KB);
	for (size_t i = 0; i < 128 * KB; i += 32 * KB) {
		place(a, at + i, 8 * KB);
		place(b, at + i + 8 * KB, 8 * KB);
	}
	place(to, at, 128 * KB);
	check_all_in(CLIENT_GPU(to), at, 128 * KB);
	verify(at, 128 * KB);
	check(stats(to).maps == stats(to).unmaps, "maps and unmaps differ");
}

static void peer_without_interconnect(void)
{
	unsigned int from = gpu_add(CLIENT_GPU_ALONE), to = gpu_add(CLIENT_GPU_ALONE);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	place(from, at, 64 * KB);
	check_result(to_gpu(to, at, 64 * KB), -EBUSY);
	check_all_in(CLIENT_GPU(from), at, 64 * KB);
	verify(at, 64 * KB);
}

static void peer_copy_fails(void)
{
	unsigned int from = gpu_add(0), to = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	place(from, at, 64 * KB);
	inject(from, CLIENT_HOOK_COPY_OUT, 1, 1, EIO);
	check_result(to_gpu(to, at, 64 * KB), -EIO);
	check_all_in(CLIENT_GPU(from), at, 64 * KB);
	check(stats(to).live == 0, "the new allocation is alive");
	check(stats(to).maps == stats(to).unmaps, "%llu maps, %llu unmaps", stats(to).maps,
	      stats(to).unmaps);
	verify(at, 64 * KB);
}

static void peer_map_fails(void)
{
	unsigned int from = gpu_add(0), to = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	place(from, at, 64 * KB);
	inject(to, CLIENT_HOOK_MAP, 5, 1, EIO);
	check_result(to_gpu(to, at, 64 * KB), -EFAULT);
	check_all_in(CLIENT_GPU(from), at, 64 * KB);
	check(stats(to).maps == stats(to).unmaps, "%llu maps, %llu unmaps", stats(to).maps,
	      stats(to).unmaps);
	verify(at, 64 * KB);
}

static void peer_ping_pong(void)
{
	unsigned int a = gpu_add(0), b = gpu_add(0);
	unsigned char *at = map(64 * KB);

	fill(at, 64 * KB);
	for (int i = 0; i < 50; i++)
		place(i % 2 ? a : b, at, 64 * KB);
	verify(at, 64 * KB);
	wait_stat(a, live, 0);
	wait_stat(b, live, 0);
}

/* --- Owners ---------------------------------------------------------------- */

static uint64_t join(unsigned int peer, unsigned int peers)
{
	struct client_owner got = owner(CLIENT_OWNER_ACQUIRE, peer, peers);

	check_result(got.result, 0);
	check(got.owner, "no owner");
	return got.owner;
}

static void owners_alone(void)
{
	uint64_t a = join(0, 0), b = join(1, 0), c = join(2, 0);

	check(a != b && b != c && a != c, "peers without interconnect share an owner");
}

static void owners_shared(void)
{
	uint64_t a = join(0, 0), b = join(1, 1 << 0), c = join(2, 3);

	check(a == b && b == c, "peers with an interconnect have owners of their own");
}

static void owners_partial(void)
{
	uint64_t a = join(0, 0), b = join(1, 1 << 0);
	/* Reaches the first of them only. */
	uint64_t c = join(2, 1 << 0);
	/* Reaches the last. */
	uint64_t d = join(3, 1 << 2);

	check(a == b, "two peers with an interconnect");
	check(c != a, "an owner is shared with a peer that is out of reach");
	check(d == c, "did not join the second group");
}

static void owners_leave(void)
{
	uint64_t a = join(0, 0), b = join(1, 1 << 0), c;

	check(a == b, "two peers with an interconnect");
	check(!owner(CLIENT_OWNER_RELEASE, 0, 0).owner, "still an owner");
	c = join(2, 1 << 1);
	check(c == b, "the group was lost with its first member");
	owner(CLIENT_OWNER_RELEASE, 1, 0);
	owner(CLIENT_OWNER_RELEASE, 2, 0);
	join(0, 7);
}

/* --- Cache and shrinker ---------------------------------------------------- */

static void shrink(void)
{
	write_file("/proc/sys/vm/drop_caches", "2");
}

static struct client_lifetime look_up(unsigned int gpu)
{
	struct client_lifetime got = lifetime(CLIENT_CACHE_LOOKUP, gpu, 0, 0);

	check_result(got.result, 0);
	return got;
}

static void cache_active(void)
{
	unsigned int gpu = gpu_add(CLIENT_GPU_CACHE);
	struct client_lifetime got = look_up(gpu);

	check(!got.arg && !got.slot, "made another one");
	check(refs(gpu, 0) == 2, "%d references", refs(gpu, 0));
	got = lifetime(CLIENT_CACHE_IF_ACTIVE, gpu, 0, 0);
	check(!got.result && !got.slot, "not found");
	shrink();
	check(!stats(gpu).destroyed, "the shrinker took one that is in use");
}

static void cache_inactive_comes_back(void)
{
	unsigned int gpu = gpu_add(CLIENT_GPU_CACHE);
	unsigned char *at = map(64 * KB);
	struct client_lifetime got;

	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	got = lifetime(CLIENT_CACHE_IF_ACTIVE, gpu, 0, 0);
	check(got.result == -ENOENT, "an inactive one was found");
	got = look_up(gpu);
	check(!got.arg && !got.slot, "made another one");
	check(refs(gpu, 0) == 1 && !stats(gpu).destroyed, "not the old one");
	shrink();
	check(!stats(gpu).destroyed, "the shrinker took one that is in use again");
	fill(at, 64 * KB);
	place(gpu, at, 64 * KB);
	verify(at, 64 * KB);
}

static void cache_shrunk(void)
{
	unsigned int gpu = gpu_add(CLIENT_GPU_CACHE);
	struct client_lifetime got;

	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	check(!stats(gpu).destroyed, "destroyed, and not cached");
	shrink();
	wait_stat(gpu, destroyed, 1);
	got = look_up(gpu);
	check(got.arg && got.slot, "not a new one");
	got = lifetime(CLIENT_CACHE_IF_ACTIVE, gpu, 0, 0);
	check(!got.result && got.slot, "the new one is not in the cache");
}

static void cache_goes_with_device(void)
{
	unsigned int gpu = gpu_add(CLIENT_GPU_CACHE);

	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	check(!stats(gpu).destroyed, "destroyed, and not cached");
	lifetime(CLIENT_REMOVE, gpu, 0, 0);
	wait_stat(gpu, destroyed, 1);
}

static void cache_device_goes_first(void)
{
	unsigned int gpu = gpu_add(CLIENT_GPU_CACHE);

	lifetime(CLIENT_REMOVE, gpu, 0, 0);
	check(!stats(gpu).destroyed, "destroyed while it is in use");
	lifetime(CLIENT_PAGEMAP_PUT, gpu, 0, 0);
	wait_stat(gpu, destroyed, 1);
}

static const struct ktap_test tests[] = {
	{ "pagemap_references", pagemap_references, 10 },
	{ "pagemap_reinit", pagemap_reinit, 10 },
	{ "pagemap_held_by_pages", pagemap_held_by_pages, 10 },
	{ "pagemap_unplugged", pagemap_unplugged, 10 },
	{ "peer_4k", peer_4k, 10 },
	{ "peer_64k", peer_64k, 10 },
	{ "peer_2m_huge", peer_2m_huge, 10 },
	{ "peer_and_ram", peer_and_ram, 10 },
	{ "peers_two_sources", peers_two_sources, 10 },
	{ "peer_without_interconnect", peer_without_interconnect, 10 },
	{ "peer_copy_fails", peer_copy_fails, 10 },
	{ "peer_map_fails", peer_map_fails, 10 },
	{ "peer_ping_pong", peer_ping_pong, 10 },
	{ "owners_alone", owners_alone, 10 },
	{ "owners_shared", owners_shared, 10 },
	{ "owners_partial", owners_partial, 10 },
	{ "owners_leave", owners_leave, 10 },
	{ "cache_active", cache_active, 10 },
	{ "cache_inactive_comes_back", cache_inactive_comes_back, 10 },
	{ "cache_shrunk", cache_shrunk, 10 },
	{ "cache_goes_with_device", cache_goes_with_device, 10 },
	{ "cache_device_goes_first", cache_device_goes_first, 10 },
};

CASES(lifetime_cases, tests);
