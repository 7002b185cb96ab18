// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * VRAM, and the copies in and out of it: by the CPU, and then it is a buffer in RAM; or
 * by the copy engine of the emulated GPU, whose VRAM it is then.
 */

#include <linux/dma-direct.h>
#include <linux/vmalloc.h>

#include "driver.h"

/* By the CPU. */
static u8 *buffer;

/* Room for all GPUs: offsets of VRAM are up to @size. */
int vram_init(size_t size)
{
	if (use_engine) {
		if (!engine_device()) {
			pr_err("drm_pagemap_bench: there is no emulated GPU\n");
			return -ENODEV;
		}
		if (engine_vram_size() < size) {
			pr_err("drm_pagemap_bench: %zu MiB of VRAM are needed, %llu MiB are there\n",
			       size >> 20, engine_vram_size() >> 20);
			return -ENOSPC;
		}
		return 0;
	}
	buffer = vmalloc_huge(size, GFP_KERNEL);
	return buffer ? 0 : -ENOMEM;
}

void vram_fini(void)
{
	vfree(buffer);
	buffer = NULL;
}

/*
 * By words, not by memcpy(), whose "rep movsb" counts an instruction for each byte: then
 * the copies, which are not measured, would be most of what the instruction regime runs.
 */
void copy_pages(void *dst, const void *src, u64 len)
{
	for (u64 at = 0; at < len; at += PAGE_SIZE)
		copy_page(dst + at, (void *)src + at);
}

void zero_pages(void *dst, u64 len)
{
	memset64(dst, 0, len / sizeof(u64));
}

static void *ram(struct device *dev, u64 addr)
{
	return phys_to_virt(dma_to_phys(dev, addr));
}

static void by_cpu(struct device *dev, enum engine_op op, u64 src, u64 dst, u64 len)
{
	switch (op) {
	case ENGINE_TO_VRAM:
		copy_pages(buffer + dst, ram(dev, src), len);
		break;
	case ENGINE_FROM_VRAM:
		copy_pages(ram(dev, dst), buffer + src, len);
		break;
	case ENGINE_VRAM:
		copy_pages(buffer + dst, buffer + src, len);
		break;
	case ENGINE_CLEAR:
		zero_pages(buffer + dst, len);
		break;
	}
}

static void flush(struct copies *copies)
{
	if (!copies->len || copies->ret)
		return;
	if (use_engine)
		copies->ret = engine_push(copies->op, copies->src, copies->dst, copies->len);
	else
		by_cpu(copies->dev, copies->op, copies->src, copies->dst, copies->len);
	if (copies->op == ENGINE_CLEAR)
		atomic64_add(copies->len, &tally.cleared);
	else
		atomic64_add(copies->len, &tally.copied);
}

/* @dev is the one that the bus addresses are for. */
void copies_begin(struct copies *copies, struct device *dev)
{
	*copies = (struct copies) { .dev = dev };
	if (use_engine)
		engine_begin();
}

/* What goes on where the last one ended is one copy with it. */
void copies_add(struct copies *copies, enum engine_op op, u64 src, u64 dst, u64 len)
{
	if (copies->len && op == copies->op && dst == copies->dst + copies->len &&
	    (op == ENGINE_CLEAR || src == copies->src + copies->len)) {
		copies->len += len;
		return;
	}
	flush(copies);
	copies->op = op;
	copies->src = src;
	copies->dst = dst;
	copies->len = len;
}

/* All of them are done then. */
int copies_end(struct copies *copies)
{
	int ret;

	flush(copies);
	if (!use_engine)
		return 0;
	ret = engine_end();
	return copies->ret ?: ret;
}
