/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The few of QEMU's functions for TCG plugins that count.c calls, as its manual
 * describes them: Debian packages no header for them. QEMU gives them to a plugin that
 * it loads, and refuses one of a version of this interface that it doesn't know.
 */
#ifndef _DRM_PAGEMAP_BENCH_QEMU_H_
#define _DRM_PAGEMAP_BENCH_QEMU_H_

#include <stddef.h>
#include <stdint.h>

#define EXPORTED __attribute__((visibility("default")))

#define PLUGIN_INTERFACE	7

/* The plugin's own entry, which QEMU calls. */
EXPORTED int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;

/* A counter in each virtual processor's element of a scoreboard. */
struct counter {
	struct qemu_plugin_scoreboard *scoreboard;
	size_t offset;
};

/* Of an inline operation, and of a callback that reads no registers. */
enum { INLINE_ADD_U64 = 0 };
enum { NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
					   void (*translated)(struct qemu_plugin_tb *, void *),
					   void *data);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*ended)(void *), void *data);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t size);

void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*executed)(unsigned int, void *), int registers,
					    void *data);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn, int what,
							 struct counter counter, uint64_t value);

struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *scoreboard, unsigned int vcpu);

#endif
