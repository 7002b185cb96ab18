// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A TCG plugin of QEMU that counts the instructions which the guest executes between
 * two marks (../marker.h), for each address apart.
 *
 *   -plugin libcount.so,out=FILE
 *
 * Writes, for each case, the sample with the fewest instructions:
 *
 *   case NUMBER path COUNT callbacks COUNT samples COUNT
 *   ADDRESS COUNT		(hexadecimal; 0 stands for all of user space)
 *   ...
 *
 * What is between a CALLBACK and its end is in "callbacks" and in no address. For
 * guests with one processor.
 */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../marker.h"
#include "qemu.h"

EXPORTED int qemu_plugin_version = PLUGIN_INTERFACE;

/* How many addresses there is room for: some times what a small kernel executes. */
#define SLOTS	(1u << 21)

static uint64_t addresses[SLOTS];
static uint32_t used[SLOTS], nr_used;
static struct qemu_plugin_scoreboard *board;

/* The sample that is being taken, and the best one of this case. */
static uint64_t sample[SLOTS], sample_path, sample_callbacks;
static struct best {
	uint64_t path, callbacks;
	uint32_t nr;
	struct {
		uint64_t address, count;
	} *entries;
} best;
static unsigned int nr_case, nr_samples;

static enum { NOTHING, PATH, CALLBACK } phase;
static unsigned int depth;
static FILE *out;

/* The slot of an address; slot 0 is of user space. */
static uint32_t slot_of(uint64_t address)
{
	uint32_t at;

	if (!(address >> 63))
		return 0;
	at = 1 + (address * 0x9e3779b97f4a7c15ull >> 32) % (SLOTS - 1);
	while (addresses[at] && addresses[at] != address)
		at = at == SLOTS - 1 ? 1 : at + 1;
	if (!addresses[at]) {
		if (nr_used > SLOTS / 4 * 3) {
			fprintf(stderr, "count: no room for so many addresses\n");
			abort();
		}
		addresses[at] = address;
		used[nr_used++] = at;
	}
	return at;
}

/* Takes what was counted since the last call to the phase that ends. */
static void collect(void)
{
	uint64_t *live = qemu_plugin_scoreboard_find(board, 0);

	for (uint32_t i = 0; i < nr_used; i++) {
		uint32_t at = used[i];

		if (!live[at])
			continue;
		if (phase == PATH) {
			sample[at] += live[at];
			sample_path += live[at];
		} else if (phase == CALLBACK) {
			sample_callbacks += live[at];
		}
		live[at] = 0;
	}
}

static void end_sample(void)
{
	nr_samples++;
	if (!best.entries || sample_path < best.path) {
		uint32_t nr = 0;

		free(best.entries);
		best.entries = calloc(nr_used, sizeof(*best.entries));
		if (!best.entries)
			abort();
		for (uint32_t i = 0; i < nr_used; i++)
			if (sample[used[i]]) {
				best.entries[nr].address = addresses[used[i]];
				best.entries[nr++].count = sample[used[i]];
			}
		best.nr = nr;
		best.path = sample_path;
		best.callbacks = sample_callbacks;
	}
	for (uint32_t i = 0; i < nr_used; i++)
		sample[used[i]] = 0;
	sample_path = sample_callbacks = 0;
}

static void end_case(void)
{
	if (best.entries) {
		fprintf(out, "case %u path %lu callbacks %lu samples %u\n", nr_case, best.path,
			best.callbacks, nr_samples);
		for (uint32_t i = 0; i < best.nr; i++)
			fprintf(out, "%lx %lu\n", best.entries[i].address, best.entries[i].count);
		fflush(out);
		free(best.entries);
	}
	best = (struct best){};
	nr_samples = 0;
}

static void marked(unsigned int vcpu, void *data)
{
	collect();
	switch ((uintptr_t)data) {
	case MARKER_BEGIN:
		phase = PATH;
		depth = 0;
		break;
	case MARKER_END:
		phase = NOTHING;
		break;
	case MARKER_CALLBACK:
		if (phase != NOTHING) {
			depth++;
			phase = CALLBACK;
		}
		break;
	case MARKER_CALLBACK_END:
		if (phase != NOTHING && !--depth)
			phase = PATH;
		break;
	case MARKER_REPEAT:
		end_sample();
		break;
	case MARKER_CASE:
		end_case();
		nr_case++;
		break;
	}
}

static void translated(struct qemu_plugin_tb *tb, void *data)
{
	size_t count = qemu_plugin_tb_n_insns(tb);

	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint32_t slot = slot_of(qemu_plugin_insn_vaddr(insn));
		struct counter counter = { board, slot * sizeof(uint64_t) };
		uint64_t bytes;

		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, INLINE_ADD_U64, counter, 1);
		if (qemu_plugin_insn_size(insn) == sizeof(bytes) &&
		    qemu_plugin_insn_data(insn, &bytes, sizeof(bytes)) == sizeof(bytes) &&
		    bytes == MARKER(bytes >> 56))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS,
							       (void *)(uintptr_t)(bytes >> 56));
	}
}

static void ended(void *data)
{
	end_case();
	fclose(out);
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
	if (!out) {
		fprintf(stderr, "count: out=FILE is missing, or can't be written\n");
		return -1;
	}
	/* User space has a slot from the start. */
	used[nr_used++] = 0;
	board = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
	return 0;
}
