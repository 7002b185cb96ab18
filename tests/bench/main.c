// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * drm_pagemap_bench: runs one operation of drm_pagemap at a time, and says how long
 * the provider's calls took, and how long the driver's callbacks in them. Of
 * drm_pagemap it knows <drm/drm_pagemap.h> and <drm/drm_pagemap_util.h> alone, so that
 * it goes with any provider of them. See bench.h.
 */

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "door.h"
#include "driver.h"

/* How often a busy range is tried, as by drivers. */
#define MAX_TRIES	3

/* The memory of each GPU. */
static unsigned int vram_mb = 128;
module_param(vram_mb, uint, 0444);

/* Whether copies are made by the copy engine of the emulated GPU, as wall clock times want it. */
bool use_engine;
module_param_named(engine, use_engine, bool, 0444);

struct tally tally;

static struct gpu gpus[BENCH_GPUS];
static unsigned long is_open;
static DEFINE_MUTEX(one_at_a_time);

/* --- What is measured ------------------------------------------------------ */

static u64 measure_begin(const struct bench_op *op)
{
	atomic64_set(&tally.callback_ns, 0);
	atomic64_set(&tally.copied, 0);
	atomic64_set(&tally.cleared, 0);
	tally.free_before = tally.free_least = free_ram();
	if (use_engine)
		engine_watch();
	if (!(op->flags & BENCH_UNCOUNTED))
		marker(MARKER_BEGIN);
	return ktime_get_ns();
}

static void measure_end(struct bench_op *op, u64 begin)
{
	u64 end = ktime_get_ns();

	marker(MARKER_END);
	op->total_ns = end - begin;
	op->before_ns = op->copying_ns = op->after_ns = 0;
	if (use_engine) {
		const struct engine_times times = engine_watched();

		if (times.first) {
			op->before_ns = times.first - begin;
			op->copying_ns = times.busy;
			op->after_ns = end - times.last;
		}
	}
	op->callback_ns = atomic64_read(&tally.callback_ns);
	op->copied = atomic64_read(&tally.copied);
	op->cleared = atomic64_read(&tally.cleared);
	op->held = (tally.free_before - tally.free_least) << PAGE_SHIFT;
}

#ifdef BENCH_DOOR

static void *door_vram, *door;

static int door_open(size_t vram)
{
	/* Its copies are the CPU's, which is no match for what is timed with the engine. */
	if (use_engine)
		return 0;
	door_vram = vmalloc_huge(vram, GFP_KERNEL);
	if (!door_vram)
		return -ENOMEM;
	door = bench_door_new(door_vram, vram);
	if (!door) {
		vfree(door_vram);
		return -ENODEV;
	}
	return 0;
}

static void door_close(void)
{
	if (use_engine)
		return;
	bench_door_free(door);
	vfree(door_vram);
}

static int door_migrate(struct bench_op *op)
{
	struct mm_struct *mm = current->mm;
	void *devmem;
	u64 begin;

	if (use_engine)
		return -ENODEV;
	devmem = bench_door_alloc(door, op->end - op->start);
	if (!devmem)
		return -ENOMEM;
	op->tries = 1;
	begin = measure_begin(op);
	mmap_read_lock(mm);
	op->result = bench_door_migrate(devmem, mm, op->start, op->end);
	mmap_read_unlock(mm);
	measure_end(op, begin);
	return 0;
}

#else

static int door_open(size_t vram)
{
	return 0;
}

static void door_close(void)
{
}

static int door_migrate(struct bench_op *op)
{
	return -EOPNOTSUPP;
}

#endif

static int migrate(struct bench_op *op)
{
	const struct drm_pagemap_migrate_details details = {};
	struct mm_struct *mm = current->mm;
	struct alloc *old = NULL, *alloc;
	u64 begin;

	if (op->gpu >= BENCH_GPUS || op->end <= op->start)
		return -EINVAL;
	if (op->flags & BENCH_MISSING)
		return door_migrate(op);
	if (op->flags & BENCH_EVICT_FIRST) {
		old = alloc_get(op->id);
		if (!old)
			return -ENOENT;
	}
	alloc = alloc_new(&gpus[op->gpu], op->end - op->start);
	if (IS_ERR(alloc)) {
		if (old)
			alloc_put(old);
		return PTR_ERR(alloc);
	}

	op->tries = 0;
	begin = measure_begin(op);
	op->result = old ? drm_pagemap_evict_to_ram(&old->base) : 0;
	while (!op->result) {
		u64 excluded;

		op->tries++;
		mmap_read_lock(mm);
		op->result = drm_pagemap_migrate_to_devmem(&alloc->base, mm, op->start, op->end,
							   &details);
		mmap_read_unlock(mm);
		if (op->result != -EBUSY || !(op->flags & BENCH_RETRY) || op->tries == MAX_TRIES)
			break;
		op->result = drm_pagemap_evict_to_ram(&alloc->base);
		/* The driver's own work, as in a callback. */
		excluded = callback_begin();
		alloc_put(alloc);
		alloc = alloc_new(&gpus[op->gpu], op->end - op->start);
		if (IS_ERR(alloc))
			op->result = PTR_ERR(alloc);
		callback_end(excluded);
	}
	measure_end(op, begin);
	if (!IS_ERR(alloc)) {
		op->id = alloc->id;
		alloc_put(alloc);
	}
	if (old)
		alloc_put(old);
	return 0;
}

static int evict(struct bench_op *op)
{
	struct alloc *alloc = alloc_get(op->id);
	u64 begin;

	if (!alloc)
		return -ENOENT;
	begin = measure_begin(op);
	op->result = drm_pagemap_evict_to_ram(&alloc->base);
	measure_end(op, begin);
	alloc_put(alloc);
	return 0;
}

/* The page fault of a kernel access to user memory is that of a user's own. */
static int touch(struct bench_op *op)
{
	u64 begin;
	u8 byte;

	if (!op->stride)
		return -EINVAL;
	op->result = 0;
	begin = measure_begin(op);
	for (u64 at = op->start; at < op->end && !op->result; at += op->stride)
		op->result = get_user(byte, (u8 __user *)at);
	measure_end(op, begin);
	return 0;
}

static long bench_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *user = (void __user *)arg;
	struct bench_op op;
	int ret;

	if (cmd != BENCH_IOC_OP)
		return -ENOTTY;
	if (copy_from_user(&op, user, sizeof(op)))
		return -EFAULT;
	ret = mutex_lock_interruptible(&one_at_a_time);
	if (ret)
		return ret;
	switch (op.verb) {
	case BENCH_MIGRATE:
		ret = migrate(&op);
		break;
	case BENCH_EVICT:
		ret = evict(&op);
		break;
	case BENCH_TOUCH:
		ret = touch(&op);
		break;
	case BENCH_REPEAT:
		marker(MARKER_REPEAT);
		break;
	case BENCH_CASE:
		marker(MARKER_CASE);
		break;
	default:
		ret = -EINVAL;
	}
	mutex_unlock(&one_at_a_time);
	if (!ret && copy_to_user(user, &op, sizeof(op)))
		ret = -EFAULT;
	return ret;
}

/* --- The device node ------------------------------------------------------- */

static void fini_gpus(unsigned int count)
{
	while (count--)
		gpu_fini(&gpus[count]);
}

/* There are GPUs only while it is open: a pagemap holds a reference on this module. */
static int bench_open(struct inode *inode, struct file *file)
{
	size_t vram = (size_t)vram_mb << 20;
	unsigned int count = 0;
	int ret;

	if (test_and_set_bit(0, &is_open))
		return -EBUSY;
	ret = vram_init(BENCH_GPUS * vram);
	while (!ret && count < BENCH_GPUS) {
		ret = gpu_init(&gpus[count], count, vram);
		count++;
	}
	if (!ret)
		ret = door_open(vram);
	if (ret) {
		fini_gpus(count);
		vram_fini();
		clear_bit(0, &is_open);
	}
	return ret;
}

static int bench_release(struct inode *inode, struct file *file)
{
	door_close();
	fini_gpus(BENCH_GPUS);
	vram_fini();
	clear_bit(0, &is_open);
	return 0;
}

static const struct file_operations bench_fops = {
	.owner = THIS_MODULE,
	.open = bench_open,
	.release = bench_release,
	.unlocked_ioctl = bench_ioctl,
};

static struct miscdevice bench_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "drm_pagemap_bench",
	.fops = &bench_fops,
};

static int __init bench_init(void)
{
	int ret = use_engine ? engine_register() : 0;

	if (ret)
		return ret;
	ret = misc_register(&bench_misc);
	if (ret && use_engine)
		engine_unregister();
	return ret;
}

static void __exit bench_exit(void)
{
	misc_deregister(&bench_misc);
	if (use_engine)
		engine_unregister();
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_DESCRIPTION("Benchmark driver of drm_pagemap, in C");
MODULE_LICENSE("Dual MIT/GPL");
