// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <sys/mman.h>

#include "clock.h"
#include "gpu.h"
#include "gpu_access.h"
#include "ktap.h"

/* For how long an access may lose against others who want the VRAM. */
#define PATIENCE_MS	15000
/* Once it has lost, so long the CPU has to wait for what was brought to VRAM. */
#define TIMESLICE_MS	20

bool gpu_reaches_files(void)
{
	return false;
}

int gpu_access_resident(enum gpu_op op, void *mem, size_t len, uint64_t *value)
{
	switch (op) {
	case GPU_FILL:
		return simgpu_fill(gpu(), mem, len, *value);
	case GPU_XOR:
		return simgpu_xor(gpu(), mem, len, *value);
	default:
		return simgpu_checksum(gpu(), mem, len, value);
	}
}

/* "Try again" is for the caller, who knows what for. */
static bool may_pass(int err)
{
	return err == -EBUSY || err == -ENOSPC || err == -EINTR;
}

/*
 * What a fault of the GPU does. Pages that another process has a share in are in
 * VRAM and can't be written to: the process gets its own ones, by @own.
 */
static int fault_in(void *mem, size_t len, bool own, unsigned int timeslice_ms)
{
	int err;

	if (own && madvise(mem, len, MADV_POPULATE_WRITE))
		return errno == ENOMEM ? -EFAULT : -errno;
	err = simgpu_populate_once(gpu(), mem, len, timeslice_ms);
	return err == -ENOENT ? -EFAULT : err;
}

static int access_piece(enum gpu_op op, void *mem, size_t len, uint64_t *value)
{
	uint64_t deadline = now_ms() + PATIENCE_MS * ktap_scale();
	int err;

	for (unsigned int tries = 0;; tries++) {
		bool own = op != GPU_SUM && tries % 3 == 1;
		uint64_t in_out = *value;

		err = gpu_access_resident(op, mem, len, &in_out);
		if (err != -EFAULT) {
			*value = in_out;
			return err;
		}
		err = fault_in(mem, len, own, tries ? TIMESLICE_MS : 0);
		if (err && !may_pass(err))
			return err;
		if (now_ms() > deadline)
			return err ? err : -EFAULT;
		/* Everybody else gets a chance, and not all at the same time. */
		if (err)
			sleep_ms(tries < 20 ? tries : 20);
	}
}

int gpu_access(enum gpu_op op, void *mem, size_t len, uint64_t *value)
{
	uint64_t sum = 0;

	for (size_t done = 0; done < len; done += GPU_PIECE) {
		size_t left = len - done;
		uint64_t in_out = op == GPU_SUM ? 0 : *value;
		int err = access_piece(op, (char *)mem + done, left < GPU_PIECE ? left : GPU_PIECE,
				       &in_out);

		if (err)
			return err;
		sum += in_out;
	}
	if (op == GPU_SUM)
		*value = sum;
	return 0;
}

int gpu_prefetch(void *mem, size_t len)
{
	return simgpu_populate(gpu(), mem, len, 0);
}
