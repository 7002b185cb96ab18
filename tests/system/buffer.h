/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A private anonymous mapping together with a model of what it must contain.
 *
 * Every operation fails the test if it fails. Offsets and lengths are bytes,
 * multiples of the page size; offset and length of the _range variants are
 * within the buffer.
 */
#ifndef BUFFER_H
#define BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu.h"

#define KB ((size_t)1 << 10)
#define MB ((size_t)1 << 20)

/* What a page contains: every word is pattern_word() ^ mask, or just mask. */
struct page_model {
	bool patterned;
	uint64_t mask;
};

struct buffer {
	unsigned char *mem;
	size_t size;
	uint64_t seed;
	struct page_model *model;
};

/* Map it: never touched, all zero. @offset: distance from a 2 MiB boundary. */
void buffer_map(struct buffer *buf, size_t size);
void buffer_map_at(struct buffer *buf, size_t size, size_t offset);
/* The model of a mapping that the test made itself. */
void buffer_adopt(struct buffer *buf, void *mem, size_t size);
/* Map it and fill it with a pattern by the CPU. */
void buffer_init(struct buffer *buf, size_t size);
void buffer_unmap(struct buffer *buf);

/*
 * CPU: write a new pattern; verify every byte; read one byte; does one page match
 * its model; and the model of memory that has become zero.
 */
void buffer_write_range(struct buffer *buf, size_t offset, size_t len);
void buffer_verify_range(const struct buffer *buf, size_t offset, size_t len);
void buffer_touch(const struct buffer *buf, size_t offset);
bool buffer_page_matches(const struct buffer *buf, size_t offset);
void buffer_model_zero(struct buffer *buf, size_t offset, size_t len);

/* GPU. */
void buffer_populate_range(struct buffer *buf, size_t offset, size_t len);
void buffer_evict_range(struct buffer *buf, size_t offset, size_t len);
void buffer_xor_range(struct buffer *buf, size_t offset, size_t len, uint64_t value);
void buffer_fill_range(struct buffer *buf, size_t offset, size_t len, uint64_t value);
void buffer_checksum_range(struct buffer *buf, size_t offset, size_t len);

/* The model alone, for a GPU XOR that the test has done itself. */
void buffer_model_xor(struct buffer *buf, size_t offset, size_t len, uint64_t value);

/* How many pages are in @place; or insist that all are. */
size_t buffer_count(const struct buffer *buf, size_t offset, size_t len, int place);
void buffer_expect_range(const struct buffer *buf, size_t offset, size_t len, int place);

static inline void buffer_write(struct buffer *buf)
{
	buffer_write_range(buf, 0, buf->size);
}

static inline void buffer_verify(const struct buffer *buf)
{
	buffer_verify_range(buf, 0, buf->size);
}

static inline void buffer_populate(struct buffer *buf)
{
	buffer_populate_range(buf, 0, buf->size);
}

static inline void buffer_evict(struct buffer *buf)
{
	buffer_evict_range(buf, 0, buf->size);
}

static inline void buffer_xor(struct buffer *buf, uint64_t value)
{
	buffer_xor_range(buf, 0, buf->size, value);
}

static inline void buffer_checksum(struct buffer *buf)
{
	buffer_checksum_range(buf, 0, buf->size);
}

static inline void buffer_expect(const struct buffer *buf, int place)
{
	buffer_expect_range(buf, 0, buf->size, place);
}

/* Fill, populate, and let the GPU change it: contents that exist in VRAM only. */
static inline void buffer_init_in_vram(struct buffer *buf, size_t size)
{
	buffer_init(buf, size);
	buffer_populate(buf);
	buffer_xor(buf, 0x5eed5eed5eed5eed);
	buffer_expect(buf, SIMGPU_PLACE_VRAM);
}

#endif /* BUFFER_H */
