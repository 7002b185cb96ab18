// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What door_rust.rs leaves to C: memory.
 */

#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>

#include "door.h"
#include "driver.h"

int bench_door_dma(struct device *dev)
{
	return dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));
}

void bench_door_copy(struct device *dev, void *vram, u64 offset, u64 addr, u64 len, int mode)
{
	void *ram = mode == 2 ? NULL : phys_to_virt(dma_to_phys(dev, addr));
	u64 begin;

	/* As in gpu.c: no other task of the provider's may run meanwhile. */
	preempt_disable();
	begin = callback_begin();
	if (mode == 0)
		copy_pages(vram + offset, ram, len);
	else if (mode == 1)
		copy_pages(ram, vram + offset, len);
	else
		zero_pages(vram + offset, len);
	atomic64_add(len, mode == 2 ? &tally.cleared : &tally.copied);
	callback_end(begin);
	preempt_enable();
}
