// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * An ordinary program whose malloc'ed memory visits a GPU.
 *
 * Six steps: fill in RAM; migrate to VRAM; let the GPU change the bytes there;
 * touch them with the CPU, so that page faults bring them home; once more, now
 * evicted by the driver; and free the memory while it is in VRAM. Every step
 * says where the pages are and how long it took, and every byte is verified.
 */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "mark.h"
#include "options.h"
#include "pattern.h"
#include "residency.h"
#include "simgpu.h"

#define SEED		UINT64_C(0x73696d6770750001)
#define FIRST_XOR	UINT64_C(0xa5a5f00d5a5ac0de)
#define SECOND_XOR	UINT64_C(0x0123456789abcdef)

/* For how long freed VRAM may take to come back: the kernel defers the last bit. */
#define RELEASE_MS	5000

struct demo {
	struct options options;
	int fd;
	void *allocation;	/* What malloc() gave. */
	uint64_t *words;	/* The whole pages inside it... */
	size_t size;		/* ...and their size in bytes. */
	uint64_t mask;		/* What the GPU has XORed in so far. */
	uint64_t free_before;	/* Free VRAM at the start. */
	uint64_t started;	/* When the part being timed began. */
	int steps;
};

[[noreturn, gnu::format(printf, 1, 2)]]
static void die(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("demo: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void must(int err, const char *what)
{
	if (err)
		die("%s failed: %s", what, strerror(-err));
}

static void step(struct demo *demo, const char *title)
{
	printf("\n%d. %s\n", ++demo->steps, title);
	fflush(stdout);
	mark_phase(title);
}

static void start_clock(struct demo *demo)
{
	demo->started = now_us();
}

static void stop_clock(const struct demo *demo, const char *what)
{
	uint64_t us = now_us() - demo->started;

	/* Bytes per microsecond are megabytes per second. */
	printf("    %s: %.1f ms, %.0f MB/s\n", what, us / 1e3,
	       (double)demo->size / (us ? us : 1));
	fflush(stdout);
}

static struct drm_simgpu_info info(const struct demo *demo)
{
	struct drm_simgpu_info info;

	must(simgpu_info(demo->fd, &info), "asking for the device's state");
	return info;
}

/* Show where the pages are, and insist that all are in @place. */
static void show_and_expect(const struct demo *demo, int place, const char *place_name)
{
	struct residency res;
	const char *wrong = residency_read(&res, demo->fd, demo->words, demo->size);

	if (wrong)
		die("%s", wrong);
	residency_print(&res, demo->options.color);
	if (res.counts[place] != res.pages)
		die("only %" PRIu64 " of %zu pages are in %s", res.counts[place], res.pages,
		    place_name);
	residency_free(&res);
}

static void populate(struct demo *demo)
{
	start_clock(demo);
	must(simgpu_populate(demo->fd, demo->words, demo->size, 0), "migrating to VRAM");
	stop_clock(demo, "migrated to VRAM");
}

/* XOR in VRAM; the checksum, taken in VRAM as well, must be as expected. */
static void gpu_xor(struct demo *demo, uint64_t pattern)
{
	uint64_t expected, sum;

	start_clock(demo);
	must(simgpu_xor(demo->fd, demo->words, demo->size, pattern), "the GPU's XOR");
	stop_clock(demo, "GPU XOR");
	demo->mask ^= pattern;

	start_clock(demo);
	must(simgpu_checksum(demo->fd, demo->words, demo->size, &sum), "the GPU's checksum");
	stop_clock(demo, "GPU checksum");
	expected = pattern_sum(demo->size / 8, 0, SEED, demo->mask);
	if (sum != expected)
		die("the GPU's checksum is %016" PRIx64 ", expected %016" PRIx64, sum, expected);
	printf("    checksum %016" PRIx64 ", as computed by the CPU\n", sum);
}

static void verify(struct demo *demo)
{
	size_t count = demo->size / 8, good;

	start_clock(demo);
	good = pattern_check(demo->words, count, 0, SEED, demo->mask);
	if (good != count)
		die("the word at byte %zu is %016" PRIx64 ", expected %016" PRIx64, good * 8,
		    demo->words[good], pattern_word(SEED, good) ^ demo->mask);
	stop_clock(demo, "read and verified every byte");
}

static void find_device(struct demo *demo)
{
	struct drm_simgpu_info now;
	char path[300];

	demo->fd = simgpu_open(path, sizeof(path));
	if (demo->fd < 0)
		die("there is no render node of the simgpu driver in /dev/dri");
	now = info(demo);
	demo->free_before = now.vram_free;
	printf("device: %s, VRAM %" PRIu64 " KiB, %" PRIu64 " KiB of it free\n", path,
	       (uint64_t)now.vram_size >> 10, (uint64_t)now.vram_free >> 10);
}

static void allocate(struct demo *demo)
{
	size_t page = sysconf(_SC_PAGESIZE);
	uintptr_t start, end;

	if (demo->options.size > demo->free_before + page)
		die("a buffer of %zu KiB does not fit into the %" PRIu64 " KiB of VRAM that are free; give a smaller --size",
		    demo->options.size >> 10, demo->free_before >> 10);

	/* However small: have malloc() map it, so that free() gives it back to the kernel. */
	mallopt(M_MMAP_THRESHOLD, page);
	demo->allocation = malloc(demo->options.size);
	if (!demo->allocation)
		die("malloc of %zu bytes failed", demo->options.size);

	start = ((uintptr_t)demo->allocation + page - 1) & -page;
	end = ((uintptr_t)demo->allocation + demo->options.size) & -page;
	demo->words = (uint64_t *)start;
	demo->size = end - start;
	if (demo->size > demo->free_before)
		die("the buffer does not fit into the VRAM that is free; give a smaller --size");
	printf("buffer: malloc gave %zu bytes at %p\n", demo->options.size, demo->allocation);
	printf("        pages migrate whole: using the %zu pages inside, from %p\n",
	       demo->size / page, (void *)demo->words);
}

static void release(struct demo *demo)
{
	uint64_t deadline = now_ms() + RELEASE_MS;
	struct drm_simgpu_info now;

	start_clock(demo);
	free(demo->allocation);
	while (now = info(demo), now.vram_free < demo->free_before && now_ms() < deadline)
		sleep_ms(5);
	stop_clock(demo, "freed");
	if (now.vram_free < demo->free_before)
		die("%" PRIu64 " bytes of VRAM are still allocated after the memory was freed",
		    demo->free_before - (uint64_t)now.vram_free);
	printf("    VRAM: %" PRIu64 " of %" PRIu64 " KiB free\n", (uint64_t)now.vram_free >> 10,
	       (uint64_t)now.vram_size >> 10);
	printf("    pages since the driver was bound: %" PRIu64 " to VRAM, %" PRIu64
	       " back by CPU faults, %" PRIu64 " back by eviction\n",
	       (uint64_t)now.populated, (uint64_t)now.faulted, (uint64_t)now.evicted);
}

int main(int argc, char **argv)
{
	struct demo demo = { .options = parse_options(argc, argv) };

	find_device(&demo);
	allocate(&demo);

	step(&demo, "The CPU fills the buffer in RAM");
	start_clock(&demo);
	pattern_fill(demo.words, demo.size / 8, 0, SEED);
	stop_clock(&demo, "filled");
	show_and_expect(&demo, SIMGPU_PLACE_RAM, "RAM");

	step(&demo, "The GPU driver migrates it to VRAM");
	populate(&demo);
	show_and_expect(&demo, SIMGPU_PLACE_VRAM, "VRAM");

	step(&demo, "The GPU changes every byte inside VRAM");
	gpu_xor(&demo, FIRST_XOR);
	show_and_expect(&demo, SIMGPU_PLACE_VRAM, "VRAM");

	step(&demo, "The CPU touches it: page faults bring it home");
	verify(&demo);
	show_and_expect(&demo, SIMGPU_PLACE_RAM, "RAM");

	step(&demo, "Once more, evicted by the driver without a touch");
	populate(&demo);
	gpu_xor(&demo, SECOND_XOR);
	start_clock(&demo);
	must(simgpu_evict(demo.fd, demo.words, demo.size), "the eviction");
	stop_clock(&demo, "evicted to RAM");
	show_and_expect(&demo, SIMGPU_PLACE_RAM, "RAM");
	verify(&demo);

	step(&demo, "Freed while in VRAM: all VRAM is free again");
	populate(&demo);
	show_and_expect(&demo, SIMGPU_PLACE_VRAM, "VRAM");
	release(&demo);

	mark_end();
	close(demo.fd);
	puts("\ndemo: ok");
	return 0;
}
