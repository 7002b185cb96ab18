// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>

#include "clock.h"
#include "ktap.h"
#include "pattern.h"
#include "workload.h"

#define PART (256 * KB)

unsigned int random_below(uint64_t *state, unsigned int limit)
{
	return pattern_word(0x5261, ++*state) % limit;
}

uint64_t load_end(unsigned int seconds)
{
	return now_ms() + seconds * 1000ull * ktap_scale();
}

/* Let the GPU work on a part. Pages that are not in VRAM are nothing unusual. */
static int gpu_work_on(struct worker *worker, size_t offset, size_t len, uint64_t value)
{
	int err = simgpu_xor(gpu(), worker->buf.mem + offset, len, value);

	if (!err) {
		buffer_model_xor(&worker->buf, offset, len, value);
		worker->xors++;
	} else if (err != -EFAULT) {
		worker->doubtful_xor = value;
	}
	return err;
}

/* On all of it; if others have evicted some of that, on the parts that are left. */
static int gpu_work(struct worker *worker)
{
	uint64_t value = random_below(&worker->random, 1 << 30) + 1;
	size_t size = worker->buf.size;
	int err = gpu_work_on(worker, 0, size, value);

	if (err != -EFAULT)
		return err;
	for (size_t offset = 0; offset < size; offset += PART) {
		size_t left = size - offset;

		err = gpu_work_on(worker, offset, left < PART ? left : PART, value);
		if (err && err != -EFAULT)
			return err;
	}
	return 0;
}

int worker_round(struct worker *worker)
{
	struct buffer *buf = &worker->buf;
	int err = simgpu_populate(gpu(), buf->mem, buf->size, 0);

	if (err == -ENOSPC)
		worker->full++;
	else if (err && err != -EBUSY)
		return err;

	err = gpu_work(worker);
	if (err)
		return err;

	switch (random_below(&worker->random, 3)) {
	case 0:
		err = simgpu_evict(gpu(), buf->mem, buf->size);
		if (err && err != -EBUSY)
			return err;
		break;
	case 1:
		buffer_write_range(buf, 0, buf->size / 2 & -PAGE);
		break;
	}
	buffer_verify(buf);
	return 0;
}

void worker_run(struct worker *worker, uint64_t end)
{
	do
		check_ok(worker_round(worker));
	while (now_ms() < end);
}

int worker_run_until_gone(struct worker *worker, unsigned int seconds)
{
	uint64_t end = load_end(seconds);
	int err;

	do
		err = worker_round(worker);
	while (!err && now_ms() < end);
	check(err, "the device was still there after %u s", seconds * ktap_scale());
	check(err == -ENODEV || err == -EIO, "a device that is gone gave %s", error_name(err));
	return err;
}

void worker_verify(struct worker *worker)
{
	struct buffer *buf = &worker->buf;

	for (size_t offset = 0; worker->doubtful_xor && offset < buf->size; offset += PAGE)
		if (!buffer_page_matches(buf, offset))
			buffer_model_xor(buf, offset, PAGE, worker->doubtful_xor);
	worker->doubtful_xor = 0;
	buffer_verify(buf);
}
