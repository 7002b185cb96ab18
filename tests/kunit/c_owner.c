// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Interconnect groups, from a C driver's side: <drm/drm_pagemap_util.h>.
 *
 * The devices of these tests sit at places of a board: two of them reach each
 * other's memory if the board says so.
 */

#include <kunit/test.h>

#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/list.h>

#include <drm/drm_pagemap_util.h>

#define NR	6

struct board {
	struct drm_pagemap_owner_list list;
	struct drm_pagemap_peer peers[NR];
	/* Bit N of links[M], and bit M of links[N]: M and N are connected. */
	unsigned long links[NR];
	/* How often each peer was asked about by the last one to join. */
	unsigned int asked[NR];
	/* Not as it should be. */
	unsigned int wrong;
	struct drm_pagemap_peer *joining;
};

/* The tests run one after the other. */
static struct board *the_board;

static int place(struct drm_pagemap_peer *peer)
{
	return peer - the_board->peers;
}

static bool connected(struct drm_pagemap_peer *one, struct drm_pagemap_peer *other)
{
	struct board *board = the_board;

	if (one != board->joining || one == other || other->list != &board->list ||
	    !mutex_is_locked(&board->list.lock))
		board->wrong++;
	board->asked[place(other)]++;
	return board->links[place(one)] & BIT(place(other));
}

static void connect(struct board *board, int one, int other)
{
	board->links[one] |= BIT(other);
	board->links[other] |= BIT(one);
}

static int join(struct board *board, int nr)
{
	memset(board->asked, 0, sizeof(board->asked));
	board->joining = &board->peers[nr];
	return drm_pagemap_acquire_owner(&board->peers[nr], &board->list, connected);
}

static void leave(struct board *board, int nr)
{
	drm_pagemap_release_owner(&board->peers[nr]);
}

static bool together(struct board *board, int one, int other)
{
	return board->peers[one].owner == board->peers[other].owner;
}

static bool listed(struct board *board, int nr)
{
	struct drm_pagemap_peer *peer;

	list_for_each_entry(peer, &board->list.peers, link)
		if (peer == &board->peers[nr])
			return true;
	return false;
}

static int c_owner_init(struct kunit *test)
{
	struct board *board = kunit_kzalloc(test, sizeof(*board), GFP_KERNEL);

	if (!board)
		return -ENOMEM;
	mutex_init(&board->list.lock);
	INIT_LIST_HEAD(&board->list.peers);
	test->priv = board;
	the_board = board;
	return 0;
}

static void c_owner_exit(struct kunit *test)
{
	struct board *board = test->priv;

	for (int i = 0; i < NR; i++)
		leave(board, i);
	KUNIT_EXPECT_TRUE(test, list_empty(&board->list.peers));
	KUNIT_EXPECT_EQ(test, board->wrong, 0);
	mutex_destroy(&board->list.lock);
	the_board = NULL;
}

/* --- The tests ------------------------------------------------------------ */

static void alone(struct kunit *test)
{
	struct board *board = test->priv;

	for (int i = 0; i < 3; i++) {
		KUNIT_ASSERT_EQ(test, join(board, i), 0);
		KUNIT_EXPECT_PTR_EQ(test, board->peers[i].list, &board->list);
		KUNIT_EXPECT_NOT_NULL(test, board->peers[i].owner);
		KUNIT_EXPECT_TRUE(test, listed(board, i));
	}
	KUNIT_EXPECT_FALSE(test, together(board, 0, 1));
	KUNIT_EXPECT_FALSE(test, together(board, 1, 2));
	KUNIT_EXPECT_FALSE(test, together(board, 0, 2));
}

/* Two groups, joined in turns, and one that is in neither. */
static void groups(struct kunit *test)
{
	struct board *board = test->priv;

	connect(board, 0, 2);
	connect(board, 0, 4);
	connect(board, 2, 4);
	connect(board, 1, 3);
	for (int i = 0; i < NR; i++)
		KUNIT_ASSERT_EQ(test, join(board, i), 0);

	KUNIT_EXPECT_TRUE(test, together(board, 0, 2));
	KUNIT_EXPECT_TRUE(test, together(board, 0, 4));
	KUNIT_EXPECT_TRUE(test, together(board, 1, 3));
	KUNIT_EXPECT_FALSE(test, together(board, 0, 1));
	KUNIT_EXPECT_FALSE(test, together(board, 0, 5));
	KUNIT_EXPECT_FALSE(test, together(board, 1, 5));
}

/* It takes an interconnect with each one of the group; here the last, or the first, has none. */
static void not_with_all(struct kunit *test)
{
	struct board *board = test->priv;

	connect(board, 0, 1);
	connect(board, 0, 2);
	connect(board, 1, 3);
	KUNIT_ASSERT_EQ(test, join(board, 0), 0);
	KUNIT_ASSERT_EQ(test, join(board, 1), 0);
	KUNIT_EXPECT_TRUE(test, together(board, 0, 1));

	KUNIT_ASSERT_EQ(test, join(board, 2), 0);
	KUNIT_EXPECT_FALSE(test, together(board, 0, 2));
	KUNIT_ASSERT_EQ(test, join(board, 3), 0);
	KUNIT_EXPECT_FALSE(test, together(board, 1, 3));
	KUNIT_EXPECT_FALSE(test, together(board, 2, 3));
	/* The first one was enough to know. */
	KUNIT_EXPECT_EQ(test, board->asked[0], 1);
	KUNIT_EXPECT_EQ(test, board->asked[1], 0);
	KUNIT_EXPECT_EQ(test, board->asked[2], 1);
}

/* The first group that fits, in the order in which groups were founded; in the middle of the list too. */
static void order(struct kunit *test)
{
	struct board *board = test->priv;
	struct drm_pagemap_peer *peer;
	int last = -1, i = 0;
	static const int expected[] = { 0, 1, 3, 5, 2 };

	connect(board, 1, 3);
	connect(board, 2, 3);
	connect(board, 1, 5);
	connect(board, 3, 5);
	KUNIT_ASSERT_EQ(test, join(board, 0), 0);
	KUNIT_ASSERT_EQ(test, join(board, 1), 0);
	KUNIT_ASSERT_EQ(test, join(board, 2), 0);
	KUNIT_ASSERT_EQ(test, join(board, 3), 0);
	KUNIT_EXPECT_TRUE(test, together(board, 1, 3));
	KUNIT_EXPECT_FALSE(test, together(board, 2, 3));
	KUNIT_EXPECT_EQ(test, board->asked[2], 0);
	KUNIT_ASSERT_EQ(test, join(board, 5), 0);
	KUNIT_EXPECT_TRUE(test, together(board, 1, 5));

	/* Groups stay in one piece. */
	list_for_each_entry(peer, &board->list.peers, link) {
		last = place(peer);
		KUNIT_ASSERT_LT(test, i, ARRAY_SIZE(expected));
		KUNIT_EXPECT_EQ(test, last, expected[i++]);
	}
	KUNIT_EXPECT_EQ(test, i, ARRAY_SIZE(expected));
}

/* The group is there as long as anybody is in it, whoever founded it. */
static void founder_leaves(struct kunit *test)
{
	struct board *board = test->priv;
	struct drm_pagemap_owner *owner;

	connect(board, 0, 1);
	connect(board, 1, 2);
	KUNIT_ASSERT_EQ(test, join(board, 0), 0);
	KUNIT_ASSERT_EQ(test, join(board, 1), 0);
	owner = board->peers[1].owner;
	leave(board, 0);
	KUNIT_EXPECT_NULL(test, board->peers[0].owner);
	KUNIT_EXPECT_FALSE(test, listed(board, 0));
	KUNIT_EXPECT_PTR_EQ(test, board->peers[1].owner, owner);

	/* This one was in the way of nobody but 0. */
	KUNIT_ASSERT_EQ(test, join(board, 2), 0);
	KUNIT_EXPECT_PTR_EQ(test, board->peers[2].owner, owner);
	leave(board, 1);
	KUNIT_ASSERT_EQ(test, join(board, 1), 0);
	KUNIT_EXPECT_PTR_EQ(test, board->peers[1].owner, owner);
	KUNIT_ASSERT_EQ(test, join(board, 0), 0);
	KUNIT_EXPECT_FALSE(test, together(board, 0, 1));
}

/* As drivers' error paths do it; a peer that never joined too. C lets go of a freed owner here. */
static void release_twice(struct kunit *test)
{
	struct board *board = test->priv;

	connect(board, 0, 1);
	KUNIT_ASSERT_EQ(test, join(board, 0), 0);
	KUNIT_ASSERT_EQ(test, join(board, 1), 0);
	for (int i = 0; i < 3; i++)
		leave(board, 0);
	leave(board, 5);
	KUNIT_EXPECT_NULL(test, board->peers[0].list);
	KUNIT_EXPECT_FALSE(test, listed(board, 0));
	KUNIT_EXPECT_TRUE(test, listed(board, 1));
	KUNIT_EXPECT_NOT_NULL(test, board->peers[1].owner);

	KUNIT_ASSERT_EQ(test, join(board, 0), 0);
	KUNIT_EXPECT_TRUE(test, together(board, 0, 1));
}

/* Who is in the list already can't join it again. */
static void join_twice(struct kunit *test)
{
	struct board *board = test->priv;
	struct drm_pagemap_owner *owner;

	KUNIT_ASSERT_EQ(test, join(board, 0), 0);
	owner = board->peers[0].owner;
	KUNIT_ASSERT_EQ(test, join(board, 1), 0);
	KUNIT_EXPECT_EQ(test, join(board, 0), -EBUSY);
	KUNIT_EXPECT_PTR_EQ(test, board->peers[0].owner, owner);
	leave(board, 0);
	KUNIT_EXPECT_FALSE(test, listed(board, 0));
	KUNIT_EXPECT_EQ(test, join(board, 0), 0);
}

/* What a peer holds before it joins does not matter. */
static void garbage(struct kunit *test)
{
	struct board *board = test->priv;

	memset(&board->peers[0], 0x5a, sizeof(board->peers[0]));
	KUNIT_ASSERT_EQ(test, join(board, 0), 0);
	KUNIT_EXPECT_EQ(test, (unsigned long)board->peers[0].private, 0x5a5a5a5a5a5a5a5aUL);
	leave(board, 0);
	KUNIT_EXPECT_NULL(test, board->peers[0].list);
}

struct leaver {
	struct drm_pagemap_peer *peer;
	struct completion begun;
};

static int leaver(void *data)
{
	struct leaver *leaver = data;

	complete(&leaver->begun);
	drm_pagemap_release_owner(leaver->peer);
	while (!kthread_should_stop())
		usleep_range(1000, 2000);
	return 0;
}

/* Two release the same peer at the same time. */
static void release_by_two(struct kunit *test)
{
	struct board *board = test->priv;
	struct leaver leavers[2] = { { .peer = &board->peers[0] }, { .peer = &board->peers[0] } };
	struct task_struct *threads[2];

	for (int round = 0; round < 20; round++) {
		KUNIT_ASSERT_EQ(test, join(board, 0), 0);
		/* Both see that it has joined, and wait for the lock. */
		mutex_lock(&board->list.lock);
		for (int i = 0; i < 2; i++) {
			init_completion(&leavers[i].begun);
			threads[i] = kthread_run(leaver, &leavers[i], "leaver");
		}
		/* One that is stopped before it has begun never does. */
		for (int i = 0; i < 2; i++)
			if (!IS_ERR(threads[i]))
				wait_for_completion(&leavers[i].begun);
		usleep_range(2000, 4000);
		mutex_unlock(&board->list.lock);
		for (int i = 0; i < 2; i++)
			if (!IS_ERR(threads[i]))
				kthread_stop(threads[i]);
			else
				KUNIT_FAIL(test, "no thread");
		KUNIT_EXPECT_FALSE(test, listed(board, 0));
	}
}

static struct kunit_case c_owner_cases[] = {
	KUNIT_CASE(alone),
	KUNIT_CASE(groups),
	KUNIT_CASE(not_with_all),
	KUNIT_CASE(order),
	KUNIT_CASE(founder_leaves),
	KUNIT_CASE(release_twice),
	KUNIT_CASE(join_twice),
	KUNIT_CASE(garbage),
	KUNIT_CASE(release_by_two),
	{}
};

static struct kunit_suite c_owner_suite = {
	.name = "drm_pagemap_c_owner",
	.init = c_owner_init,
	.exit = c_owner_exit,
	.test_cases = c_owner_cases,
};

kunit_test_suite(c_owner_suite);
