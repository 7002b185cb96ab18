/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The test driver as the cases see it. Each case has one open world. A request
 * that makes no sense ends the case; what the provider of drm_pagemap returned is
 * for the case to judge.
 */
#ifndef WORLD_H
#define WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.h"
#include "ktap.h"

#define PAGE	((size_t)4096)
#define KB	((size_t)1 << 10)
#define MB	((size_t)1 << 20)
#define HUGE	(2 * MB)

/* Say what happened: the table and Documentation/c-comparison.md are made of these lines. */
#define observed(...)	diag("observed: " __VA_ARGS__)

/* The ioctl alone, for requests that have no function here. */
void request(unsigned long cmd, void *args);

/* Add a GPU (CLIENT_GPU_*), with 8 MiB of VRAM. Returns its number. */
unsigned int gpu_add(unsigned int flags);
struct client_stats stats(unsigned int gpu);

/* Map zeroed memory that nobody has touched: of small pages, or 2 MiB aligned and MADV_HUGEPAGE. */
unsigned char *map(size_t len);
unsigned char *map_huge(size_t len);
/* ...in a 1 GiB area of its own, where the page tables have nothing at all. */
unsigned char *map_untouched(size_t len);

/* Write a pattern, and compare every byte with it (or with its inverse, or with 0). */
void fill(unsigned char *at, size_t len);
/* ...with small pages in an area where huge ones are allowed. */
void fill_small(unsigned char *at, size_t len);
void verify(const unsigned char *at, size_t len);
void verify_inverse(const unsigned char *at, size_t len);
void verify_zero(const unsigned char *at, size_t len);
/* How many of the bytes are wrong. */
size_t wrong_bytes(const unsigned char *at, size_t len);

/* Migrate to a GPU: all of client_migrate, or the plain case. Returns the provider's result. */
int migrate(struct client_migrate *args);
int to_gpu(unsigned int gpu, const void *at, size_t len);
/* ...must succeed. Returns the id of the allocation. */
unsigned int place(unsigned int gpu, const void *at, size_t len);
unsigned int place_with(struct client_migrate *args);
int evict(unsigned int id);
struct client_alloc_info alloc_info(unsigned int id);

/* How many pages are there (CLIENT_RAM, CLIENT_GPU(n), CLIENT_ABSENT). */
size_t pages_in(unsigned int where, const void *at, size_t len);
void check_all_in(unsigned int where, const void *at, size_t len);
/* The order of the mapping at an address. */
unsigned int order_at(const void *at);

int page_op(unsigned int verb, const void *at, uint64_t arg);
void inject(unsigned int gpu, unsigned int hook, unsigned int nth, unsigned int times, int err);
void inject_pause(unsigned int gpu, unsigned int hook, unsigned int nth, unsigned int ms);
struct client_memory memory_request(unsigned int verb);
/* From now on no 2 MiB page of RAM is free, while half of each block is. */
void fragment_memory(void);

/* Requests about pagemaps; the result is in it. */
struct client_lifetime lifetime(unsigned int verb, unsigned int gpu, unsigned int slot,
				uint64_t arg);
struct client_owner owner(unsigned int verb, unsigned int peer, unsigned int peers);

/*
 * Read (or write back) the byte at an address, in a thread of its own. @ms is not scaled.
 */
enum touch { TOUCHED, TOUCH_SIGBUS, TOUCH_STUCK };
enum touch touch(const void *at, unsigned int ms);
enum touch touch_write(void *at, unsigned int ms);
const char *touch_name(enum touch touch);

/* Wait until the counter has that value: what is given back may take a moment. */
#define wait_stat(gpu, field, value)							\
	do {										\
		uint64_t wait_end_ = now_ms() + 2000 * ktap_scale();			\
		while (stats(gpu).field != (value) && now_ms() < wait_end_)		\
			sleep_ms(5);							\
		check(stats(gpu).field == (value), #field " is %llu, not %llu",		\
		      (unsigned long long)stats(gpu).field, (unsigned long long)(value));	\
	} while (0)

void write_file(const char *path, const char *text);

/* The cases of each file. */
struct cases {
	const struct ktap_test *tests;
	size_t count;
};

extern const struct cases contract_cases, mm_cases, lifetime_cases, policy_cases, defect_cases,
	defect_peer_cases, defect_lifetime_cases;

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define CASES(name, tests_) \
	const struct cases name = { .tests = (tests_), .count = ARRAY_SIZE(tests_) }

#endif
