// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A suite that runs against the emulated GPU: through the render node of the
 * simgpu driver, on an address space that KUnit owns. Without such a device it
 * is skipped.
 *
 * The system tests do more of this from user space; here the kernel side of
 * it can be seen, as pinned pages and the end of an address space.
 */

#include <kunit/test.h>

#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_ioctl.h>

#include <uapi/drm/simgpu_drm.h>

#include "helpers.h"

/* Render nodes have the minors 128 to 191; nobody has more than a few. */
#define FIRST_MINOR	128
#define LAST_MINOR	143

/*
 * Opened by whoever loads the module: threads of the kernel, which run the
 * tests, have no file system.
 */
static struct file *device;

struct simgpu {
	/* User memory for the arguments of ioctls. */
	unsigned long arg;
	/* VRAM that was free before the test. */
	u64 free;
};

static struct file *open_device(void)
{
	for (int minor = FIRST_MINOR; minor <= LAST_MINOR; minor++) {
		struct drm_file *drm;
		struct file *file;
		char path[32];

		snprintf(path, sizeof(path), "/dev/dri/renderD%d", minor);
		file = filp_open(path, O_RDWR, 0);
		if (IS_ERR(file))
			continue;
		drm = file->private_data;
		if (!strcmp(drm->minor->dev->driver->name, "simgpu"))
			return file;
		fput(file);
	}
	return NULL;
}

static long call(struct simgpu *gpu, unsigned int cmd, void *arg)
{
	void __user *user = (void __user *)gpu->arg;
	long ret;

	if (copy_to_user(user, arg, _IOC_SIZE(cmd)))
		return -EFAULT;
	ret = drm_ioctl(device, cmd, gpu->arg);
	if (copy_from_user(arg, user, _IOC_SIZE(cmd)))
		return -EFAULT;
	return ret;
}

static struct drm_simgpu_info get_info(struct kunit *test)
{
	struct drm_simgpu_info info = {};

	KUNIT_ASSERT_EQ(test, call(test->priv, DRM_IOCTL_SIMGPU_INFO, &info), 0);
	return info;
}

static long populate(struct kunit *test, unsigned long addr, unsigned int pages,
		     u32 timeslice_ms)
{
	struct drm_simgpu_populate args = {
		.start = addr,
		.size = (u64)pages << PAGE_SHIFT,
		.timeslice_ms = timeslice_ms,
	};

	return call(test->priv, DRM_IOCTL_SIMGPU_POPULATE, &args);
}

static long evict(struct kunit *test, unsigned long addr, unsigned int pages)
{
	struct drm_simgpu_evict args = {
		.start = addr,
		.size = (u64)pages << PAGE_SHIFT,
	};

	return call(test->priv, DRM_IOCTL_SIMGPU_EVICT, &args);
}

static long vram_op(struct kunit *test, unsigned long addr, unsigned int pages,
		    u32 op, u64 *value)
{
	struct drm_simgpu_vram_op args = {
		.start = addr,
		.size = (u64)pages << PAGE_SHIFT,
		.op = op,
		.value = *value,
	};
	long ret = call(test->priv, DRM_IOCTL_SIMGPU_VRAM_OP, &args);

	*value = args.value;
	return ret;
}

static void inject(struct kunit *test, u32 what, u32 count)
{
	struct drm_simgpu_inject args = {
		.what = what,
		.count = count,
	};

	KUNIT_ASSERT_EQ(test, call(test->priv, DRM_IOCTL_SIMGPU_INJECT, &args), 0);
}

static u64 pages_at(struct kunit *test, unsigned long addr, unsigned int pages,
		    unsigned int place)
{
	struct drm_simgpu_residency args = {
		.start = addr,
		.size = (u64)pages << PAGE_SHIFT,
	};

	KUNIT_ASSERT_EQ(test, call(test->priv, DRM_IOCTL_SIMGPU_RESIDENCY, &args), 0);
	return args.counts[place];
}

/* The driver gives VRAM back from a work queue. */
static bool all_free(struct kunit *test)
{
	struct simgpu *gpu = test->priv;
	unsigned long end = jiffies + 5 * HZ;

	while (get_info(test).vram_free != gpu->free) {
		if (time_after(jiffies, end))
			return false;
		usleep_range(1000, 2000);
	}
	return true;
}

static u64 word(u64 seed, size_t i)
{
	return (seed + i) * 0x9e3779b97f4a7c15ULL;
}

static unsigned long map(struct kunit *test, unsigned int pages)
{
	unsigned long addr = drm_pagemap_kunit_mmap(0, (size_t)pages << PAGE_SHIFT,
						    DRM_PAGEMAP_KUNIT_MAP_PRIVATE);

	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(addr));
	return addr;
}

static void fill(struct kunit *test, unsigned long addr, unsigned int pages, u64 seed)
{
	u64 *page = kunit_kmalloc(test, PAGE_SIZE, GFP_KERNEL);
	size_t n = 0;

	KUNIT_ASSERT_NOT_NULL(test, page);
	for (unsigned int i = 0; i < pages; i++) {
		for (int j = 0; j < PAGE_SIZE / sizeof(u64); j++)
			page[j] = word(seed, n++);
		KUNIT_ASSERT_EQ(test, 0,
				copy_to_user((void __user *)(addr + i * PAGE_SIZE),
					     page, PAGE_SIZE));
	}
	kunit_kfree(test, page);
}

/* Every word is what was filled in, xor flip. */
static void expect(struct kunit *test, unsigned long addr, unsigned int pages,
		   u64 seed, u64 flip)
{
	u64 *page = kunit_kmalloc(test, PAGE_SIZE, GFP_KERNEL);
	size_t n = 0, wrong = 0;

	KUNIT_ASSERT_NOT_NULL(test, page);
	for (unsigned int i = 0; i < pages; i++) {
		KUNIT_ASSERT_EQ(test, 0,
				copy_from_user(page,
					       (void __user *)(addr + i * PAGE_SIZE),
					       PAGE_SIZE));
		for (int j = 0; j < PAGE_SIZE / sizeof(u64); j++)
			wrong += page[j] != (word(seed, n++) ^ flip);
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	kunit_kfree(test, page);
}

static int simgpu_suite_init(struct kunit_suite *suite)
{
	device = open_device();
	return 0;
}

static void simgpu_suite_exit(struct kunit_suite *suite)
{
	if (device)
		fput(device);
	device = NULL;
}

static int simgpu_init(struct kunit *test)
{
	struct simgpu *gpu;
	int ret;

	if (!device)
		kunit_skip(test, "there is no simgpu device");

	gpu = kunit_kzalloc(test, sizeof(*gpu), GFP_KERNEL);
	if (!gpu)
		return -ENOMEM;
	test->priv = gpu;

	ret = kunit_attach_mm();
	if (ret)
		return ret;
	gpu->arg = map(test, 1);
	gpu->free = get_info(test).vram_free;
	return 0;
}

/* --- The tests ------------------------------------------------------------ */

static void info(struct kunit *test)
{
	struct drm_simgpu_info info = get_info(test);

	KUNIT_EXPECT_GT(test, info.vram_size, 0);
	KUNIT_EXPECT_LE(test, info.vram_free, info.vram_size);
	info.flags = 1;
	KUNIT_EXPECT_EQ(test, call(test->priv, DRM_IOCTL_SIMGPU_INFO, &info), -EINVAL);
}

/* Into VRAM, changed there, and home by a fault or by an eviction. */
static void round_trip(struct kunit *test, unsigned int pages, bool by_eviction)
{
	unsigned long addr = map(test, pages);
	u64 flip = 0x123456789abcdef0ULL;

	fill(test, addr, pages, 1);
	KUNIT_ASSERT_EQ(test, populate(test, addr, pages, 0), 0);
	KUNIT_EXPECT_EQ(test, pages_at(test, addr, pages, SIMGPU_PLACE_VRAM), pages);
	KUNIT_EXPECT_LE(test, get_info(test).vram_free,
			((struct simgpu *)test->priv)->free - pages * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, vram_op(test, addr, pages, SIMGPU_OP_XOR, &flip), 0);

	if (by_eviction) {
		KUNIT_EXPECT_EQ(test, evict(test, addr, pages), 0);
		KUNIT_EXPECT_EQ(test, pages_at(test, addr, pages, SIMGPU_PLACE_RAM), pages);
	}
	expect(test, addr, pages, 1, 0x123456789abcdef0ULL);
	KUNIT_EXPECT_EQ(test, pages_at(test, addr, pages, SIMGPU_PLACE_RAM), pages);
	KUNIT_EXPECT_TRUE(test, all_free(test));
}

static void fault_one_page(struct kunit *test)
{
	round_trip(test, 1, false);
}

static void fault_many_pages(struct kunit *test)
{
	round_trip(test, 777, false);
}

static void evict_one_page(struct kunit *test)
{
	round_trip(test, 1, true);
}

static void evict_many_pages(struct kunit *test)
{
	round_trip(test, 777, true);
}

/* What the device sees is what was written; and zero where nothing was. */
static void checksum(struct kunit *test)
{
	unsigned long addr = map(test, 20);
	u64 sum = 0, value = 0;

	fill(test, addr, 10, 1);
	for (size_t i = 0; i < 10 * PAGE_SIZE / sizeof(u64); i++)
		sum += word(1, i);

	KUNIT_ASSERT_EQ(test, populate(test, addr, 20, 0), 0);
	KUNIT_EXPECT_EQ(test, vram_op(test, addr, 10, SIMGPU_OP_CHECKSUM, &value), 0);
	KUNIT_EXPECT_EQ(test, value, sum);
	value = 0;
	KUNIT_EXPECT_EQ(test, vram_op(test, addr + 10 * PAGE_SIZE, 10,
				      SIMGPU_OP_CHECKSUM, &value), 0);
	KUNIT_EXPECT_EQ(test, value, 0);
	expect(test, addr, 10, 1, 0);

	/* They are home, or some of them: the device does not work on those. */
	KUNIT_EXPECT_EQ(test, vram_op(test, addr, 10, SIMGPU_OP_CHECKSUM, &value),
			-EFAULT);
}

static void populate_twice(struct kunit *test)
{
	unsigned long addr = map(test, 64);

	fill(test, addr, 64, 1);
	for (int i = 0; i < 3; i++)
		KUNIT_EXPECT_EQ(test, populate(test, addr, 64, 0), 0);
	KUNIT_EXPECT_EQ(test, pages_at(test, addr, 64, SIMGPU_PLACE_VRAM), 64);
	expect(test, addr, 64, 1, 0);
	KUNIT_EXPECT_TRUE(test, all_free(test));
}

static void bad_ranges(struct kunit *test)
{
	unsigned long shared = drm_pagemap_kunit_mmap(0, 4 * PAGE_SIZE,
						      DRM_PAGEMAP_KUNIT_MAP_SHARED);
	unsigned long addr = map(test, 4);

	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(shared));
	KUNIT_EXPECT_EQ(test, populate(test, shared, 4, 0), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, populate(test, addr + 8, 1, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, populate(test, addr, 0, 0), -EINVAL);
	KUNIT_ASSERT_EQ(test, drm_pagemap_kunit_munmap(addr, 4 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, populate(test, addr, 4, 0), -ENOENT);
	KUNIT_EXPECT_TRUE(test, all_free(test));
}

/* A page that another device does DMA to stays. */
static void pinned(struct kunit *test)
{
	unsigned long addr = map(test, 16);
	struct page *page;

	fill(test, addr, 16, 1);
	KUNIT_ASSERT_EQ(test, drm_pagemap_kunit_pin_page(addr + 5 * PAGE_SIZE, &page), 0);
	KUNIT_EXPECT_EQ(test, populate(test, addr, 16, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, pages_at(test, addr + 5 * PAGE_SIZE, 1, SIMGPU_PLACE_RAM), 1);
	expect(test, addr, 16, 1, 0);
	drm_pagemap_kunit_unpin_page(page);

	KUNIT_EXPECT_EQ(test, populate(test, addr, 16, 0), 0);
	expect(test, addr, 16, 1, 0);
}

/* Pinning a page brings it home: no other device can reach VRAM. */
static void pin_brings_home(struct kunit *test)
{
	unsigned long addr = map(test, 16);
	struct page *page;

	fill(test, addr, 16, 1);
	KUNIT_ASSERT_EQ(test, populate(test, addr, 16, 0), 0);
	KUNIT_ASSERT_EQ(test, drm_pagemap_kunit_pin_page(addr + 5 * PAGE_SIZE, &page), 0);
	KUNIT_EXPECT_EQ(test, pages_at(test, addr + 5 * PAGE_SIZE, 1, SIMGPU_PLACE_RAM), 1);
	drm_pagemap_kunit_unpin_page(page);
	expect(test, addr, 16, 1, 0);
}

static void timeslice(struct kunit *test)
{
	unsigned long addr = map(test, 16);
	u64 before = get_jiffies_64();

	fill(test, addr, 16, 1);
	KUNIT_ASSERT_EQ(test, populate(test, addr, 16, 200), 0);
	expect(test, addr, 16, 1, 0);
	KUNIT_EXPECT_GE(test, get_jiffies_64(), before + msecs_to_jiffies(200));
}

/* The copy engine reports an error: the data stays where it is. */
static void copy_error(struct kunit *test)
{
	unsigned long addr = map(test, 16);
	u8 byte;

	fill(test, addr, 16, 1);
	inject(test, SIMGPU_INJECT_FAIL, 1);
	KUNIT_EXPECT_EQ(test, populate(test, addr, 16, 0), -EIO);
	inject(test, SIMGPU_INJECT_FAIL, 0);
	KUNIT_EXPECT_EQ(test, pages_at(test, addr, 16, SIMGPU_PLACE_RAM), 16);
	KUNIT_EXPECT_TRUE(test, all_free(test));

	KUNIT_ASSERT_EQ(test, populate(test, addr, 16, 0), 0);
	inject(test, SIMGPU_INJECT_FAIL, 1000000);
	KUNIT_EXPECT_EQ(test, copy_from_user(&byte, (void __user *)addr, 1), 1);
	KUNIT_EXPECT_EQ(test, evict(test, addr, 16), -EIO);
	inject(test, SIMGPU_INJECT_FAIL, 0);
	KUNIT_EXPECT_EQ(test, pages_at(test, addr, 16, SIMGPU_PLACE_VRAM), 16);
	expect(test, addr, 16, 1, 0);
}

static void unmap(struct kunit *test)
{
	unsigned long addr = map(test, 64);

	fill(test, addr, 64, 1);
	KUNIT_ASSERT_EQ(test, populate(test, addr, 64, 0), 0);
	KUNIT_ASSERT_EQ(test, drm_pagemap_kunit_munmap(addr + 16 * PAGE_SIZE,
						       48 * PAGE_SIZE), 0);
	expect(test, addr, 16, 1, 0);
	KUNIT_EXPECT_TRUE(test, all_free(test));
}

/* The address space goes while its pages are in VRAM. */
static void address_space_ends(struct kunit *test)
{
	struct simgpu *gpu = test->priv;
	unsigned long addr = map(test, 600);

	fill(test, addr, 600, 1);
	KUNIT_ASSERT_EQ(test, populate(test, addr, 600, 5000), 0);
	KUNIT_EXPECT_LT(test, get_info(test).vram_free, gpu->free);
	drm_pagemap_kunit_mm_put(drm_pagemap_kunit_mm_detach());

	/* Another one, to ask from. */
	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	gpu->arg = map(test, 1);
	KUNIT_EXPECT_TRUE(test, all_free(test));
}

static struct kunit_case simgpu_cases[] = {
	KUNIT_CASE(info),
	KUNIT_CASE(fault_one_page),
	KUNIT_CASE(fault_many_pages),
	KUNIT_CASE(evict_one_page),
	KUNIT_CASE(evict_many_pages),
	KUNIT_CASE(checksum),
	KUNIT_CASE(populate_twice),
	KUNIT_CASE(bad_ranges),
	KUNIT_CASE(pinned),
	KUNIT_CASE(pin_brings_home),
	KUNIT_CASE(timeslice),
	KUNIT_CASE(copy_error),
	KUNIT_CASE(unmap),
	KUNIT_CASE(address_space_ends),
	{}
};

static struct kunit_suite simgpu_suite = {
	.name = "drm_pagemap_simgpu",
	.suite_init = simgpu_suite_init,
	.suite_exit = simgpu_suite_exit,
	.init = simgpu_init,
	.test_cases = simgpu_cases,
};

kunit_test_suite(simgpu_suite);
