// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The cache of pagemaps and its shrinker, from a C driver's side:
 * <drm/drm_pagemap_util.h>. The pagemaps here have no pages.
 *
 * The shrinker is set to work the way an administrator does it, by writing to
 * /proc/sys/vm/drop_caches.
 */

#include <kunit/test.h>

#include <linux/delay.h>
#include <linux/device/faux.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/kref.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include <drm/drm_drv.h>
#include <drm/drm_pagemap.h>
#include <drm/drm_pagemap_util.h>

#include "helpers.h"

#define NR_CACHES	2

/* A driver with a shrinker and two caches. */
struct c_card {
	struct faux_device *faux;
	struct drm_device *drm;
	struct drm_pagemap_shrinker *shrinker;
	struct drm_pagemap_cache *cache[NR_CACHES];
	bool unplugged;

	atomic_t created;
	atomic_t destroyed;
	/* Of those, how many with is_atomic_or_reclaim. */
	atomic_t destroyed_atomic;
	/* Number of the one that was destroyed last, and of the one before. */
	int last, last_but_one;
	/* What the destroy operation puts into the first cache. */
	struct drm_pagemap *insert;
};

struct c_map {
	struct drm_pagemap base;
	struct dev_pagemap pgmap;
	struct c_card *card;
	int number;
};

static void map_destroy(struct drm_pagemap *dpagemap, bool is_atomic_or_reclaim)
{
	struct c_map *map = container_of(dpagemap, struct c_map, base);
	struct c_card *card = map->card;

	card->last_but_one = card->last;
	card->last = map->number;
	if (card->insert)
		drm_pagemap_cache_set_pagemap(card->cache[0], card->insert);
	card->insert = NULL;
	kfree(map);
	if (is_atomic_or_reclaim)
		atomic_inc(&card->destroyed_atomic);
	atomic_inc(&card->destroyed);
}

static const struct drm_pagemap_ops map_ops = {
	.destroy = map_destroy,
};

static struct drm_pagemap *new_map(struct c_card *card)
{
	struct c_map *map = kzalloc_obj(*map);

	if (!map)
		return NULL;
	map->card = card;
	if (drm_pagemap_init(&map->base, &map->pgmap, card->drm, &map_ops)) {
		kfree(map);
		return NULL;
	}
	map->number = atomic_inc_return(&card->created);
	return &map->base;
}

static const struct file_operations card_fops = {
	.owner = THIS_MODULE,
};

static const struct drm_driver card_driver = {
	.fops = &card_fops,
	.name = "drm_pagemap_kunit_cache",
	.desc = "drm_pagemap KUnit, cache",
};

static void card_unplug(struct c_card *card)
{
	if (!card->unplugged)
		drm_dev_unplug(card->drm);
	card->unplugged = true;
}

/* The device goes, and what is bound to it. */
static void card_unbind(struct c_card *card)
{
	if (card->faux)
		faux_device_destroy(card->faux);
	card->faux = NULL;
	card->shrinker = NULL;
	card->cache[0] = card->cache[1] = NULL;
}

static int card_bind(struct c_card *card)
{
	struct drm_device *drm;
	int ret;

	card->faux = faux_device_create("drm_pagemap_kunit_cache", NULL, NULL);
	if (!card->faux)
		return -ENODEV;
	drm = drm_dev_alloc(&card_driver, &card->faux->dev);
	if (IS_ERR(drm))
		return PTR_ERR(drm);
	card->drm = drm;
	card->unplugged = true;
	ret = drm_dev_register(drm, 0);
	if (ret)
		return ret;
	card->unplugged = false;

	card->shrinker = drm_pagemap_shrinker_create_devm(drm);
	if (IS_ERR(card->shrinker))
		return PTR_ERR(card->shrinker);
	for (int i = 0; i < NR_CACHES; i++) {
		card->cache[i] = drm_pagemap_cache_create_devm(card->shrinker);
		if (IS_ERR(card->cache[i]))
			return PTR_ERR(card->cache[i]);
	}
	return 0;
}

/* The end of it. Each pagemap was destroyed, once; or the device stays, as somebody may still use it. */
static void card_put(struct kunit *test, struct c_card *card)
{
	if (card->drm)
		card_unplug(card);
	card_unbind(card);
	if (!card->drm)
		return;
	KUNIT_EXPECT_TRUE(test, wait_for(kref_read(&card->drm->ref) == 1));
	KUNIT_EXPECT_EQ(test, atomic_read(&card->created), atomic_read(&card->destroyed));
	if (kref_read(&card->drm->ref) == 1)
		drm_dev_put(card->drm);
	card->drm = NULL;
}

/* --- The shrinker at work ------------------------------------------------- */

/* On a mount of our own: built in, the suite runs before there is any. */
static struct vfsmount *proc;
static struct file *drop_caches;

static int write_drop_caches(const char *what)
{
	loff_t pos = 0;
	ssize_t ret = kernel_write(drop_caches, what, 1, &pos);

	return ret == 1 ? 0 : ret ?: -EIO;
}

static int shrink(void)
{
	return write_drop_caches("2");
}

static void c_cache_suite_exit(struct kunit_suite *suite)
{
	if (!IS_ERR_OR_NULL(drop_caches))
		fput(drop_caches);
	drop_caches = NULL;
	if (!IS_ERR_OR_NULL(proc))
		kern_unmount(proc);
	proc = NULL;
}

static int c_cache_suite_init(struct kunit_suite *suite)
{
	struct file_system_type *type = get_fs_type("proc");
	int ret;

	if (!type)
		return -ENODEV;
	proc = kern_mount(type);
	module_put(type->owner);
	if (IS_ERR(proc))
		return PTR_ERR(proc);

	drop_caches = file_open_root_mnt(proc, "sys/vm/drop_caches", O_WRONLY, 0);
	ret = PTR_ERR_OR_ZERO(drop_caches);
	/* Without a line in the log each time. */
	if (!ret)
		ret = write_drop_caches("4");
	/* KUnit doesn't call this where the initialization has failed. */
	if (ret)
		c_cache_suite_exit(suite);
	return ret;
}

static int c_cache_init(struct kunit *test)
{
	struct c_card *card = kunit_kzalloc(test, sizeof(*card), GFP_KERNEL);

	if (!card)
		return -ENOMEM;
	test->priv = card;
	return card_bind(card);
}

static void c_cache_exit(struct kunit *test)
{
	if (test->priv)
		card_put(test, test->priv);
}

/* --- What tests share ----------------------------------------------------- */

static struct drm_pagemap *lookup(struct c_card *card, int nr)
{
	struct drm_pagemap *dpagemap;
	int ret = drm_pagemap_cache_lock_lookup(card->cache[nr]);

	if (ret)
		return ERR_PTR(ret);
	dpagemap = drm_pagemap_get_from_cache(card->cache[nr]);
	drm_pagemap_cache_unlock_lookup(card->cache[nr]);
	return dpagemap;
}

static void insert(struct c_card *card, int nr, struct drm_pagemap *dpagemap)
{
	if (drm_pagemap_cache_lock_lookup(card->cache[nr]))
		return;
	drm_pagemap_cache_set_pagemap(card->cache[nr], dpagemap);
	drm_pagemap_cache_unlock_lookup(card->cache[nr]);
}

/* As drivers do it. */
static struct drm_pagemap *find_or_create(struct c_card *card, int nr)
{
	struct drm_pagemap *dpagemap;
	int ret = drm_pagemap_cache_lock_lookup(card->cache[nr]);

	if (ret)
		return ERR_PTR(ret);
	dpagemap = drm_pagemap_get_from_cache(card->cache[nr]);
	if (!dpagemap) {
		dpagemap = new_map(card);
		if (dpagemap)
			drm_pagemap_cache_set_pagemap(card->cache[nr], dpagemap);
	}
	drm_pagemap_cache_unlock_lookup(card->cache[nr]);
	return dpagemap ?: ERR_PTR(-ENOMEM);
}

/* A pagemap in the cache, in use. */
static struct drm_pagemap *cached_map(struct kunit *test, int nr)
{
	struct drm_pagemap *dpagemap = find_or_create(test->priv, nr);

	KUNIT_ASSERT_FALSE(test, IS_ERR(dpagemap));
	return dpagemap;
}

static bool is_active(struct c_card *card, int nr)
{
	struct drm_pagemap *dpagemap =
		drm_pagemap_get_from_cache_if_active(card->cache[nr]);

	drm_pagemap_put(dpagemap);
	return dpagemap;
}

#define EXPECT_DESTROYED(test, card, nr, nr_atomic)				\
do {										\
	KUNIT_EXPECT_EQ(test, atomic_read(&(card)->destroyed), nr);		\
	KUNIT_EXPECT_EQ(test, atomic_read(&(card)->destroyed_atomic), nr_atomic);	\
} while (0)

/* Another thread, which can be sent a signal. */
struct c_thread {
	struct task_struct *task;
	void (*fn)(struct c_thread *thread);
	struct c_card *card;
	struct drm_pagemap *found;
	int ret;
	bool started, done;
};

static int thread_fn(void *data)
{
	struct c_thread *thread = data;

	allow_signal(SIGUSR1);
	WRITE_ONCE(thread->started, true);
	thread->fn(thread);
	WRITE_ONCE(thread->done, true);
	while (!kthread_should_stop())
		usleep_range(1000, 2000);
	return 0;
}

static void thread_start(struct kunit *test, struct c_thread *thread,
			 void (*fn)(struct c_thread *thread))
{
	struct task_struct *task;

	thread->fn = fn;
	thread->card = test->priv;
	task = kthread_create(thread_fn, thread, "drm_pagemap_cache");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	thread->task = task;
	wake_up_process(task);
	KUNIT_ASSERT_TRUE(test, wait_for(READ_ONCE(thread->started)));
}

static bool thread_sleeps(struct c_thread *thread)
{
	return wait_for(READ_ONCE(thread->task->__state) & TASK_INTERRUPTIBLE);
}

/* Sees to it that the thread ends: by a signal, if it must be. */
static bool thread_join(struct c_thread *thread)
{
	bool done = wait_for(READ_ONCE(thread->done));

	if (!done)
		send_sig(SIGUSR1, thread->task, 1);
	kthread_stop(thread->task);
	put_task_struct(thread->task);
	return done;
}

/*
 * A moment of drm_pagemap_put(), stretched: the last reference is gone, and the
 * layer not told yet.
 */
static void release_nothing(struct kref *ref)
{
}

static void begin_put(struct drm_pagemap *dpagemap)
{
	WARN_ON(!kref_put(&dpagemap->ref, release_nothing));
}

static void end_put(struct drm_pagemap *dpagemap)
{
	kref_init(&dpagemap->ref);
	drm_pagemap_put(dpagemap);
}

/* --- The tests ------------------------------------------------------------ */

static void empty(struct kunit *test)
{
	struct c_card *card = test->priv;

	KUNIT_EXPECT_NULL(test, lookup(card, 0));
	KUNIT_EXPECT_NULL(test, drm_pagemap_get_from_cache_if_active(card->cache[0]));
	KUNIT_EXPECT_EQ(test, shrink(), 0);
}

/* One in use is found, and not the other cache's. */
static void active(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	struct drm_pagemap *b;

	KUNIT_EXPECT_PTR_EQ(test, a->cache, card->cache[0]);
	KUNIT_EXPECT_PTR_EQ(test, lookup(card, 0), a);
	KUNIT_EXPECT_PTR_EQ(test, drm_pagemap_get_from_cache_if_active(card->cache[0]), a);
	KUNIT_EXPECT_EQ(test, kref_read(&a->ref), 3);
	KUNIT_EXPECT_NULL(test, lookup(card, 1));
	b = cached_map(test, 1);
	KUNIT_EXPECT_PTR_NE(test, a, b);

	/* Those in use are not the shrinker's. */
	KUNIT_EXPECT_EQ(test, shrink(), 0);
	EXPECT_DESTROYED(test, card, 0, 0);
	for (int i = 0; i < 3; i++)
		drm_pagemap_put(a);
	drm_pagemap_put(b);
}

/* Nobody uses it: it lets go of the device, and is found again, as it was. */
static void revived(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);

	for (int i = 0; i < 3; i++) {
		KUNIT_EXPECT_TRUE(test, wait_for(kref_read(&card->drm->ref) == 2));
		drm_pagemap_put(a);
		KUNIT_EXPECT_FALSE(test, is_active(card, 0));
		KUNIT_EXPECT_FALSE(test, list_empty(&a->shrink_link));
		KUNIT_EXPECT_TRUE(test, wait_for(kref_read(&card->drm->ref) == 1));

		KUNIT_ASSERT_PTR_EQ(test, lookup(card, 0), a);
		KUNIT_EXPECT_EQ(test, kref_read(&a->ref), 1);
		KUNIT_EXPECT_TRUE(test, list_empty(&a->shrink_link));
		KUNIT_EXPECT_TRUE(test, is_active(card, 0));
	}
	EXPECT_DESTROYED(test, card, 0, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&card->created), 1);
	drm_pagemap_put(a);
}

/* The shrinker takes what nobody uses, and only that; the next lookup finds nothing. */
static void shrunk(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	struct drm_pagemap *b = cached_map(test, 1);

	drm_pagemap_put(a);
	EXPECT_DESTROYED(test, card, 0, 0);
	KUNIT_ASSERT_EQ(test, shrink(), 0);
	EXPECT_DESTROYED(test, card, 1, 1);
	KUNIT_EXPECT_NULL(test, lookup(card, 0));
	KUNIT_EXPECT_TRUE(test, is_active(card, 1));

	a = cached_map(test, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&card->created), 3);
	drm_pagemap_put(a);
	drm_pagemap_put(b);
}

/* First what nobody used for longest. */
static void shrink_order(struct kunit *test)
{
	struct c_card *card = test->priv;

	for (int first = 0; first < NR_CACHES; first++) {
		struct drm_pagemap *maps[] = { cached_map(test, 0), cached_map(test, 1) };
		int numbers[] = {
			container_of(maps[0], struct c_map, base)->number,
			container_of(maps[1], struct c_map, base)->number,
		};

		drm_pagemap_put(maps[first]);
		drm_pagemap_put(maps[!first]);
		KUNIT_ASSERT_EQ(test, shrink(), 0);
		EXPECT_DESTROYED(test, card, 2 * (first + 1), 2 * (first + 1));
		KUNIT_EXPECT_EQ(test, card->last_but_one, numbers[first]);
		KUNIT_EXPECT_EQ(test, card->last, numbers[!first]);
	}
}

/* While one is being destroyed its place is free already, and what is put there stays. */
static void insert_from_destroy(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	struct drm_pagemap *b = new_map(card);

	KUNIT_ASSERT_NOT_NULL(test, b);
	drm_pagemap_put(a);
	KUNIT_ASSERT_EQ(test, drm_pagemap_cache_lock_lookup(card->cache[0]), 0);
	card->insert = b;
	KUNIT_EXPECT_EQ(test, shrink(), 0);
	drm_pagemap_cache_unlock_lookup(card->cache[0]);
	KUNIT_EXPECT_NULL(test, card->insert);
	EXPECT_DESTROYED(test, card, 1, 1);
	KUNIT_EXPECT_PTR_EQ(test, lookup(card, 0), b);
	drm_pagemap_put(b);
	drm_pagemap_put(b);
}

/* One that is in no cache is destroyed at once, also where sleeping is not allowed. */
static void not_cached(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = new_map(card);
	unsigned long flags;

	KUNIT_ASSERT_NOT_NULL(test, a);
	local_irq_save(flags);
	drm_pagemap_put(a);
	local_irq_restore(flags);
	EXPECT_DESTROYED(test, card, 1, 1);
}

/* The last reference may go where sleeping is not allowed. */
static void put_atomic(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	unsigned long flags;

	local_irq_save(flags);
	drm_pagemap_put(a);
	KUNIT_EXPECT_TRUE(test, irqs_disabled());
	local_irq_restore(flags);
	EXPECT_DESTROYED(test, card, 0, 0);
	KUNIT_EXPECT_PTR_EQ(test, lookup(card, 0), a);
	KUNIT_EXPECT_FALSE(test, irqs_disabled());
	drm_pagemap_put(a);
}

/* Two in one cache is a driver's mistake. The second one counts; the first goes when nobody uses it. */
static void set_twice(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	struct drm_pagemap *b = new_map(card);
	struct drm_pagemap *c = new_map(card);
	struct kunit_suppressed_warning *quiet;

	KUNIT_ASSERT_NOT_NULL(test, b);
	KUNIT_ASSERT_NOT_NULL(test, c);
	quiet = drm_pagemap_kunit_suppress_warnings(test);
	insert(card, 0, b);
	drm_pagemap_kunit_unsuppress_warnings(test, quiet);
	KUNIT_EXPECT_PTR_EQ(test, drm_pagemap_get_from_cache_if_active(card->cache[0]), b);
	drm_pagemap_put(a);
	EXPECT_DESTROYED(test, card, 1, 1);
	KUNIT_EXPECT_TRUE(test, is_active(card, 0));

	/* Nobody uses what is in the cache. */
	drm_pagemap_put(b);
	drm_pagemap_put(b);
	EXPECT_DESTROYED(test, card, 1, 1);
	quiet = drm_pagemap_kunit_suppress_warnings(test);
	insert(card, 0, c);
	drm_pagemap_kunit_unsuppress_warnings(test, quiet);
	EXPECT_DESTROYED(test, card, 2, 1);
	KUNIT_EXPECT_EQ(test, shrink(), 0);
	KUNIT_EXPECT_PTR_EQ(test, lookup(card, 0), c);
	drm_pagemap_put(c);
	drm_pagemap_put(c);
}

/* --- Waiting -------------------------------------------------------------- */

static void lock_it(struct c_thread *thread)
{
	thread->ret = drm_pagemap_cache_lock_lookup(thread->card->cache[0]);
	if (!thread->ret)
		drm_pagemap_cache_unlock_lookup(thread->card->cache[0]);
}

/* A signal ends the wait for the lock. */
static void lock_interrupted(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct c_thread thread = {}, other = {};

	KUNIT_ASSERT_EQ(test, drm_pagemap_cache_lock_lookup(card->cache[0]), 0);
	thread_start(test, &thread, lock_it);
	KUNIT_EXPECT_TRUE(test, thread_sleeps(&thread));
	KUNIT_EXPECT_FALSE(test, READ_ONCE(thread.done));
	send_sig(SIGUSR1, thread.task, 1);
	KUNIT_EXPECT_TRUE(test, thread_join(&thread));
	KUNIT_EXPECT_EQ(test, thread.ret, -EINTR);

	thread_start(test, &other, lock_it);
	KUNIT_EXPECT_TRUE(test, thread_sleeps(&other));
	drm_pagemap_cache_unlock_lookup(card->cache[0]);
	KUNIT_EXPECT_TRUE(test, thread_join(&other));
	KUNIT_EXPECT_EQ(test, other.ret, 0);
}

static void find_it(struct c_thread *thread)
{
	thread->found = lookup(thread->card, 0);
}

/* A lookup waits for one that is going, and revives it. */
static void waits_for_idle(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	struct c_thread thread = {};

	begin_put(a);
	KUNIT_EXPECT_FALSE(test, is_active(card, 0));
	thread_start(test, &thread, find_it);
	KUNIT_EXPECT_TRUE(test, thread_sleeps(&thread));
	KUNIT_EXPECT_FALSE(test, READ_ONCE(thread.done));
	/* Not the shrinker's yet. */
	KUNIT_EXPECT_EQ(test, shrink(), 0);
	EXPECT_DESTROYED(test, card, 0, 0);
	end_put(a);
	KUNIT_EXPECT_TRUE(test, thread_join(&thread));
	KUNIT_ASSERT_PTR_EQ(test, thread.found, a);
	drm_pagemap_put(a);
}

/* A signal ends this wait too; the pagemap is left alone. */
static void wait_interrupted(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	struct c_thread thread = {};

	begin_put(a);
	thread_start(test, &thread, find_it);
	KUNIT_EXPECT_TRUE(test, thread_sleeps(&thread));
	send_sig(SIGUSR1, thread.task, 1);
	KUNIT_EXPECT_TRUE(test, thread_join(&thread));
	KUNIT_EXPECT_EQ(test, PTR_ERR(thread.found), -ERESTARTSYS);
	end_put(a);
	EXPECT_DESTROYED(test, card, 0, 0);
	KUNIT_EXPECT_PTR_EQ(test, lookup(card, 0), a);
	drm_pagemap_put(a);
}

/* --- Unplug and unbind ---------------------------------------------------- */

static void find_it_plugged(struct c_thread *thread)
{
	int idx;

	thread->ret = drm_dev_enter(thread->card->drm, &idx) ? 0 : -ENODEV;
	if (thread->ret)
		return;
	thread->found = lookup(thread->card, 0);
	drm_dev_exit(idx);
}

static void unplug_it(struct c_thread *thread)
{
	card_unplug(thread->card);
}

/*
 * A lookup, in a section that unplug waits for, waits for a pagemap that then
 * can't become idle, because the device is being unplugged. With C's cache
 * neither ever ends.
 */
static void unplug_while_waiting(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	struct c_thread finder = {}, unplugger = {};

	begin_put(a);
	thread_start(test, &finder, find_it_plugged);
	KUNIT_EXPECT_TRUE(test, thread_sleeps(&finder));
	thread_start(test, &unplugger, unplug_it);
	KUNIT_EXPECT_TRUE(test, wait_for(drm_dev_is_unplugged(card->drm)));
	KUNIT_EXPECT_FALSE(test, READ_ONCE(unplugger.done));

	end_put(a);
	KUNIT_EXPECT_TRUE(test, thread_join(&finder));
	KUNIT_EXPECT_EQ(test, finder.ret, 0);
	KUNIT_EXPECT_NULL(test, finder.found);
	KUNIT_EXPECT_TRUE(test, thread_join(&unplugger));
	EXPECT_DESTROYED(test, card, 1, 1);
}

/* After unplug nothing is kept for later. */
static void unplug_active(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);

	card_unplug(card);
	KUNIT_EXPECT_TRUE(test, is_active(card, 0));
	EXPECT_DESTROYED(test, card, 0, 0);
	drm_pagemap_put(a);
	EXPECT_DESTROYED(test, card, 1, 1);
	KUNIT_EXPECT_FALSE(test, is_active(card, 0));
	KUNIT_EXPECT_NULL(test, lookup(card, 0));
	card_unbind(card);
	EXPECT_DESTROYED(test, card, 1, 1);
}

/* What is idle goes with the cache, where it may sleep. */
static void unplug_idle(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);

	drm_pagemap_put(a);
	card_unplug(card);
	EXPECT_DESTROYED(test, card, 0, 0);
	card_unbind(card);
	EXPECT_DESTROYED(test, card, 1, 0);
}

/* The device goes, its pagemap is still in use, and destroyed when it isn't. */
static void unbind_active(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);

	card_unplug(card);
	card_unbind(card);
	EXPECT_DESTROYED(test, card, 0, 0);
	KUNIT_EXPECT_EQ(test, shrink(), 0);
	drm_pagemap_put(a);
	EXPECT_DESTROYED(test, card, 1, 1);
}

/* The same without unplug, as when a probe fails: C looks at the cache that was freed. */
static void unbind_without_unplug(struct kunit *test)
{
	struct c_card *card = test->priv;
	struct drm_pagemap *a = cached_map(test, 0);
	struct drm_pagemap *b = cached_map(test, 1);

	drm_pagemap_put(b);
	card_unbind(card);
	EXPECT_DESTROYED(test, card, 1, 0);
	drm_pagemap_put(a);
	EXPECT_DESTROYED(test, card, 2, 1);
}

/* --- Races ---------------------------------------------------------------- */

static void shrink_all_the_time(struct c_thread *thread)
{
	while (!kthread_should_stop() && !thread->ret)
		thread->ret = shrink();
}

/* What a lookup finds or makes while the shrinker runs is in the cache as long as it is in use. */
static void shrink_and_look_up(struct kunit *test)
{
	unsigned long end = jiffies + HZ;
	struct c_card *card = test->priv;
	struct c_thread thread = {};
	unsigned int lost = 0, found = 0, failed = 0;

	thread_start(test, &thread, shrink_all_the_time);
	while (time_before(jiffies, end)) {
		struct drm_pagemap *a = find_or_create(card, found & 1);

		if (IS_ERR(a)) {
			failed++;
			break;
		}
		lost += !is_active(card, found & 1);
		drm_pagemap_put(a);
		found++;
		cond_resched();
	}
	kthread_stop(thread.task);
	put_task_struct(thread.task);
	kunit_info(test, "%u lookups, %d pagemaps\n", found, atomic_read(&card->created));
	KUNIT_EXPECT_EQ(test, thread.ret, 0);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, lost, 0);
	KUNIT_EXPECT_GT(test, found, 1);
	KUNIT_EXPECT_GT(test, atomic_read(&card->destroyed_atomic), 1);
}

/* Devices with an idle pagemap come and go while the shrinker runs. */
static void shrink_and_unbind(struct kunit *test)
{
	unsigned long end = jiffies + HZ;
	struct c_card *card = test->priv;
	struct c_thread thread = {};
	int rounds = 0, ret = 0;

	thread_start(test, &thread, shrink_all_the_time);
	do {
		struct drm_pagemap *a = find_or_create(card, 0);

		ret = PTR_ERR_OR_ZERO(a);
		if (ret)
			break;
		drm_pagemap_put(a);
		/* Unplug takes its time, and leaves the shrinker enough of it. */
		if (rounds & 1)
			card_unbind(card);
		card_put(test, card);
		ret = card_bind(card);
		rounds++;
	} while (!ret && time_before(jiffies, end));
	kthread_stop(thread.task);
	put_task_struct(thread.task);
	kunit_info(test, "%d devices, %d pagemaps taken by the shrinker\n", rounds,
		   atomic_read(&card->destroyed_atomic));
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, thread.ret, 0);
	KUNIT_EXPECT_GT(test, rounds, 1);
}

/* --- Allocations fail ----------------------------------------------------- */

/* More than anything here makes. */
#define MOST_ALLOCATIONS	1000

static void need_injection(struct kunit *test)
{
	if (!drm_pagemap_kunit_can_fail_alloc())
		kunit_skip(test, "no fault injection, or not set up: see tests/kunit/helpers.c");
}

static void report_failed(struct kunit *test, const char *what, unsigned int number)
{
	KUNIT_EXPECT_GT(test, number, 0);
	KUNIT_EXPECT_LT(test, number, MOST_ALLOCATIONS);
	pr_info("%s: failed each of %u allocations in turn\n", what, number);
}

/* Each allocation of a shrinker and of its cache. What was made goes with the device. */
static void creation_fails(struct kunit *test)
{
	struct c_card *card = test->priv;
	unsigned int nth;

	need_injection(test);
	for (nth = 1; nth < MOST_ALLOCATIONS; nth++) {
		struct drm_pagemap_shrinker *shrinker;
		struct drm_pagemap_cache *cache = NULL;
		bool reached;

		drm_pagemap_kunit_fail_nth(nth);
		shrinker = drm_pagemap_shrinker_create_devm(card->drm);
		if (!IS_ERR(shrinker))
			cache = drm_pagemap_cache_create_devm(shrinker);
		reached = !drm_pagemap_kunit_fail_left();
		drm_pagemap_kunit_fail_nth(0);

		if (IS_ERR(shrinker))
			KUNIT_EXPECT_EQ(test, PTR_ERR(shrinker), -ENOMEM);
		else if (IS_ERR(cache))
			KUNIT_EXPECT_EQ(test, PTR_ERR(cache), -ENOMEM);
		if (!reached)
			break;
	}
	report_failed(test, "create cache", nth - 1);
}

/* Each allocation of bringing a pagemap back to life: then it is destroyed, and the cache is empty. */
static void revival_fails(struct kunit *test)
{
	struct c_card *card = test->priv;
	unsigned int nth;

	need_injection(test);
	for (nth = 1; nth < MOST_ALLOCATIONS; nth++) {
		struct drm_pagemap *dpagemap;
		bool reached;

		drm_pagemap_put(cached_map(test, 0));
		drm_pagemap_kunit_fail_nth(nth);
		dpagemap = lookup(card, 0);
		reached = !drm_pagemap_kunit_fail_left();
		drm_pagemap_kunit_fail_nth(0);

		if (!reached) {
			KUNIT_EXPECT_FALSE(test, IS_ERR_OR_NULL(dpagemap));
			if (!IS_ERR_OR_NULL(dpagemap))
				drm_pagemap_put(dpagemap);
			break;
		}
		if (IS_ERR(dpagemap)) {
			KUNIT_EXPECT_EQ(test, PTR_ERR(dpagemap), -ENOMEM);
			KUNIT_EXPECT_EQ(test, atomic_read(&card->created),
					atomic_read(&card->destroyed));
			KUNIT_EXPECT_NULL(test, lookup(card, 0));
		} else {
			drm_pagemap_put(dpagemap);
		}
	}
	report_failed(test, "revive pagemap", nth - 1);
}

static struct kunit_case c_cache_cases[] = {
	KUNIT_CASE(empty),
	KUNIT_CASE(active),
	KUNIT_CASE(revived),
	KUNIT_CASE(shrunk),
	KUNIT_CASE(shrink_order),
	KUNIT_CASE(insert_from_destroy),
	KUNIT_CASE(not_cached),
	KUNIT_CASE(put_atomic),
	KUNIT_CASE(set_twice),
	KUNIT_CASE(lock_interrupted),
	KUNIT_CASE(waits_for_idle),
	KUNIT_CASE(wait_interrupted),
	KUNIT_CASE(unplug_while_waiting),
	KUNIT_CASE(unplug_active),
	KUNIT_CASE(unplug_idle),
	KUNIT_CASE(unbind_active),
	KUNIT_CASE(unbind_without_unplug),
	KUNIT_CASE(shrink_and_look_up),
	KUNIT_CASE(shrink_and_unbind),
	KUNIT_CASE(creation_fails),
	KUNIT_CASE(revival_fails),
	{}
};

static struct kunit_suite c_cache_suite = {
	.name = "drm_pagemap_c_cache",
	.suite_init = c_cache_suite_init,
	.suite_exit = c_cache_suite_exit,
	.init = c_cache_init,
	.exit = c_cache_exit,
	.test_cases = c_cache_cases,
};

kunit_test_suite(c_cache_suite);
