// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "buffer.h"
#include "ktap.h"
#include "pattern.h"

#define PAGE_WORDS	(PAGE / sizeof(uint64_t))
#define HUGE		(2 * MB)

static void *map(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(mem != MAP_FAILED, "mmap of %zu bytes: %s", size, strerror(errno));
	return mem;
}

void buffer_adopt(struct buffer *buf, void *mem, size_t size)
{
	static uint64_t seed = 0x1234;

	*buf = (struct buffer){ .mem = mem, .size = size, .seed = seed++ << 32 };
	buf->model = calloc(size / PAGE, sizeof(*buf->model));
	check(buf->model, "no memory for a buffer's model");
}

void buffer_map(struct buffer *buf, size_t size)
{
	buffer_adopt(buf, map(size), size);
}

void buffer_map_at(struct buffer *buf, size_t size, size_t offset)
{
	size_t spare = 2 * HUGE + size;
	unsigned char *all = map(spare);
	unsigned char *mem;

	mem = (unsigned char *)(((uintptr_t)all + HUGE - 1) & -HUGE) + offset % HUGE;
	if (mem > all)
		munmap(all, mem - all);
	munmap(mem + size, all + spare - (mem + size));
	buffer_adopt(buf, mem, size);
}

void buffer_init(struct buffer *buf, size_t size)
{
	buffer_map(buf, size);
	buffer_write(buf);
}

void buffer_unmap(struct buffer *buf)
{
	munmap(buf->mem, buf->size);
	free(buf->model);
}

static void check_range(const struct buffer *buf, size_t offset, size_t len)
{
	check(!(offset % PAGE) && !(len % PAGE) && offset <= buf->size &&
	      len <= buf->size - offset, "a bug of the test: bad range");
}

static uint64_t *page_words(const struct buffer *buf, size_t page)
{
	return (uint64_t *)(buf->mem + page * PAGE);
}

void buffer_write_range(struct buffer *buf, size_t offset, size_t len)
{
	check_range(buf, offset, len);
	for (size_t page = offset / PAGE; page < (offset + len) / PAGE; page++) {
		pattern_fill(page_words(buf, page), PAGE_WORDS, page * PAGE_WORDS, buf->seed);
		buf->model[page] = (struct page_model){ .patterned = true };
	}
}

static uint64_t expected_word(const struct buffer *buf, size_t page, size_t word)
{
	const struct page_model *model = &buf->model[page];

	return model->mask ^
	       (model->patterned ? pattern_word(buf->seed, page * PAGE_WORDS + word) : 0);
}

static size_t good_words(const struct buffer *buf, size_t page)
{
	const struct page_model *model = &buf->model[page];
	const uint64_t *words = page_words(buf, page);
	size_t i;

	if (model->patterned)
		return pattern_check(words, PAGE_WORDS, page * PAGE_WORDS, buf->seed, model->mask);
	for (i = 0; i < PAGE_WORDS; i++)
		if (words[i] != model->mask)
			break;
	return i;
}

void buffer_touch(const struct buffer *buf, size_t offset)
{
	(void)__atomic_load_n(buf->mem + offset, __ATOMIC_RELAXED);
}

bool buffer_page_matches(const struct buffer *buf, size_t offset)
{
	check_range(buf, offset, PAGE);
	return good_words(buf, offset / PAGE) == PAGE_WORDS;
}

void buffer_verify_range(const struct buffer *buf, size_t offset, size_t len)
{
	check_range(buf, offset, len);
	for (size_t page = offset / PAGE; page < (offset + len) / PAGE; page++) {
		size_t good = good_words(buf, page);

		if (good == PAGE_WORDS)
			continue;
		fail("wrong data in page %zu of %zu, byte 0x%zx: %016" PRIx64 ", expected %016"
		     PRIx64, page, buf->size / PAGE, good * 8, page_words(buf, page)[good],
		     expected_word(buf, page, good));
	}
}

void buffer_model_zero(struct buffer *buf, size_t offset, size_t len)
{
	check_range(buf, offset, len);
	memset(buf->model + offset / PAGE, 0, len / PAGE * sizeof(*buf->model));
}

void buffer_populate_range(struct buffer *buf, size_t offset, size_t len)
{
	check_range(buf, offset, len);
	check_ok(simgpu_populate(gpu(), buf->mem + offset, len, 0));
}

void buffer_evict_range(struct buffer *buf, size_t offset, size_t len)
{
	check_range(buf, offset, len);
	check_ok(simgpu_evict(gpu(), buf->mem + offset, len));
}

void buffer_model_xor(struct buffer *buf, size_t offset, size_t len, uint64_t value)
{
	check_range(buf, offset, len);
	for (size_t page = offset / PAGE; page < (offset + len) / PAGE; page++)
		buf->model[page].mask ^= value;
}

void buffer_xor_range(struct buffer *buf, size_t offset, size_t len, uint64_t value)
{
	check_range(buf, offset, len);
	check_ok(simgpu_xor(gpu(), buf->mem + offset, len, value));
	buffer_model_xor(buf, offset, len, value);
}

void buffer_fill_range(struct buffer *buf, size_t offset, size_t len, uint64_t value)
{
	check_range(buf, offset, len);
	check_ok(simgpu_fill(gpu(), buf->mem + offset, len, value));
	for (size_t page = offset / PAGE; page < (offset + len) / PAGE; page++)
		buf->model[page] = (struct page_model){ .mask = value };
}

static uint64_t page_sum(const struct buffer *buf, size_t page)
{
	const struct page_model *model = &buf->model[page];

	if (model->patterned)
		return pattern_sum(PAGE_WORDS, page * PAGE_WORDS, buf->seed, model->mask);
	return model->mask * PAGE_WORDS;
}

void buffer_checksum_range(struct buffer *buf, size_t offset, size_t len)
{
	uint64_t expected = 0, sum;

	check_range(buf, offset, len);
	for (size_t page = offset / PAGE; page < (offset + len) / PAGE; page++)
		expected += page_sum(buf, page);
	check_ok(simgpu_checksum(gpu(), buf->mem + offset, len, &sum));
	check(sum == expected, "the GPU's checksum is %016" PRIx64 ", expected %016" PRIx64, sum,
	      expected);
}

size_t buffer_count(const struct buffer *buf, size_t offset, size_t len, int place)
{
	uint64_t counts[SIMGPU_PLACES];

	check_range(buf, offset, len);
	check_ok(simgpu_residency(gpu(), buf->mem + offset, len, NULL, counts));
	return counts[place];
}

void buffer_expect_range(const struct buffer *buf, size_t offset, size_t len, int place)
{
	static const char *const names[SIMGPU_PLACES] = { "absent", "RAM", "VRAM", "elsewhere" };
	size_t count = buffer_count(buf, offset, len, place);

	check(count == len / PAGE, "%zu of %zu pages are %s, expected all", count, len / PAGE,
	      names[place]);
}
