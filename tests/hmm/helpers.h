/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef _HMM_DMIRROR_HELPERS_H_
#define _HMM_DMIRROR_HELPERS_H_

#include <linux/types.h>

struct device;

int hmm_dmirror_helper_dma_init(struct device *dev);
void *hmm_dmirror_helper_dma_to_virt(struct device *dev, dma_addr_t addr);
void hmm_dmirror_helper_copy_page(void *to, void *from);

#endif
