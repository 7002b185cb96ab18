// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "gpu.h"
#include "ktap.h"

/* The kernel defers the last steps of releasing memory. */
#define RELEASE_MS 5000

static int device = -1;

int gpu(void)
{
	if (device < 0) {
		device = simgpu_open(NULL, 0);
		check(device >= 0, "no render node of the simgpu driver can be opened");
	}
	return device;
}

void gpu_use(int fd)
{
	device = fd;
}

void gpu_close(void)
{
	if (device >= 0)
		close(device);
	device = -1;
}

struct drm_simgpu_info gpu_info(void)
{
	struct drm_simgpu_info info;

	check_ok(simgpu_info(gpu(), &info));
	return info;
}

bool gpu_wait_for_free(uint64_t size)
{
	uint64_t before = 0, deadline = 0;

	for (;;) {
		uint64_t now_free = gpu_info().vram_free;

		if (now_free >= size)
			return true;
		/* As long as there is more and more, it is only slow. */
		if (!deadline || now_free > before) {
			before = now_free;
			deadline = now_ms() + RELEASE_MS * ktap_scale();
		}
		if (now_ms() >= deadline)
			return false;
		sleep_ms(2);
	}
}

static void drain_batches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	check(fd >= 0 && write(fd, "1", 1) == 1, "drop_caches: %s", strerror(errno));
	close(fd);
}

void gpu_expect_all_free(void)
{
	atomic_ulong *known = ktap_shared_number();
	uint64_t size = gpu_info().vram_size;
	size_t leaked;

	if (gpu_wait_for_free(size - *known))
		return;
	/*
	 * Of a page that was locked, the kernel has a reference until the processor on which it was
	 * unmapped has a batch of such pages (munlock_folio()), or all of them are told to let go.
	 */
	drain_batches();
	if (gpu_wait_for_free(size - *known))
		return;
	leaked = size - gpu_info().vram_free - *known;
	*known += leaked;
	fail("%zu KiB of VRAM are leaked", leaked >> 10);
}

void gpu_after_test(void)
{
	gpu_behave();
	gpu_expect_all_free();
}

void gpu_inject(unsigned int what, unsigned int count, unsigned int delay_us)
{
	check_ok(simgpu_inject(gpu(), what, count, delay_us));
}

void gpu_behave(void)
{
	gpu_inject(SIMGPU_INJECT_FAIL, 0, 0);
}
