// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the mirror needs of the kernel and the kernel crate does not have: DMA by
 * a device that is none, for which an address is one of RAM.
 */

#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/mm.h>

#include "helpers.h"

int hmm_dmirror_helper_dma_init(struct device *dev)
{
	return dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));
}

void *hmm_dmirror_helper_dma_to_virt(struct device *dev, dma_addr_t addr)
{
	return phys_to_virt(dma_to_phys(dev, addr));
}

void hmm_dmirror_helper_copy_page(void *to, void *from)
{
	copy_page(to, from);
}
