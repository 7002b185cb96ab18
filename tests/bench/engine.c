// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The copy engine of the emulated GPU: a ring of descriptors that it works off in order,
 * and a fence, which is the number of descriptors that are done.
 */

#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/iopoll.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/wait.h>

#include "engine.h"

#define NAME			"drm_pagemap_bench"
#define SIMGPU_DEVICE		0x5347
#define SIMGPU_ID		0x53494d47

#define REG_ID			0x000
#define REG_VRAM_SIZE_LO	0x008
#define REG_VRAM_SIZE_HI	0x00c
#define REG_CONTROL		0x010
#define   CONTROL_RESET		BIT(0)
#define REG_RING_BASE_LO	0x100
#define REG_RING_BASE_HI	0x104
#define REG_RING_ENTRIES	0x108
#define REG_RING_TAIL		0x110
#define REG_RING_ENABLE		0x114
#define REG_FENCE_LO		0x118
#define REG_FENCE_HI		0x11c
#define REG_IRQ_STATUS		0x200
#define REG_IRQ_ENABLE		0x204
#define   IRQ_FENCE		BIT(0)

#define FLAG_FENCE		BIT(0)
#define FLAG_IRQ		BIT(1)

#define ENTRIES			4096
#define RESET_US		1000000
/* No batch takes so long: then an interrupt is lost, or the device is gone. */
#define PATIENCE		(30 * HZ)

struct descriptor {
	__le32 op, flags;
	__le64 seq, src, dst, len, arg, reserved;
	__le32 status, reserved2;
};

struct fence_block {
	__le64 seq, failed, reserved[6];
};

struct engine {
	struct pci_dev *pdev;
	void __iomem *regs;
	u64 vram_size;
	struct fence_block *fence;
	wait_queue_head_t woken;
	/* Of what follows. Not held while a batch is waited for. */
	struct mutex lock;
	struct descriptor *ring;
	/* Descriptors since the start: written, and of these told to the device. */
	u64 written, told;
	/* Of what follows, which interrupts write, too. */
	spinlock_t watch_lock;
	/* Those that were told when this was last looked at; since when there is work, or 0. */
	u64 watch_told, working_since;
	struct engine_times times;
};

static struct engine *bound;

/* --- The ring -------------------------------------------------------------- */

static u64 done(void)
{
	u64 seq = le64_to_cpu(READ_ONCE(bound->fence->seq));

	/* What is done is there to see. */
	dma_rmb();
	return seq;
}

static int wait_for(u64 seq)
{
	long left = wait_event_timeout(bound->woken, done() >= seq, PATIENCE);

	/* With the last jiffy: it is done, but nobody has said so. */
	if (left <= 1) {
		dev_err(&bound->pdev->dev, "no word of descriptor %llu, %llu are done\n", seq, done());
		return -ETIMEDOUT;
	}
	if (READ_ONCE(bound->fence->failed)) {
		dev_err(&bound->pdev->dev, "%llu descriptors failed\n",
			le64_to_cpu(bound->fence->failed));
		return -EIO;
	}
	return 0;
}

/* --- When it has work ------------------------------------------------------- */

static void watch_told(struct engine *engine)
{
	u64 now = ktime_get_ns();

	guard(spinlock_irqsave)(&engine->watch_lock);
	engine->watch_told = engine->told;
	if (engine->working_since)
		return;
	engine->working_since = now;
	if (!engine->times.first)
		engine->times.first = now;
}

static void watch_done(struct engine *engine)
{
	u64 now = ktime_get_ns();

	guard(spinlock_irqsave)(&engine->watch_lock);
	if (!engine->working_since || done() < engine->watch_told)
		return;
	engine->times.busy += now - engine->working_since;
	engine->times.last = now;
	engine->working_since = 0;
}

/* Nothing is in flight; of what was, an interrupt may come yet. */
void engine_watch(void)
{
	guard(spinlock_irqsave)(&bound->watch_lock);
	bound->times = (struct engine_times) {};
	bound->working_since = 0;
}

struct engine_times engine_watched(void)
{
	watch_done(bound);
	guard(spinlock_irqsave)(&bound->watch_lock);
	return bound->times;
}

/* --- Batches ----------------------------------------------------------------- */

/* Only the last one of those that are new has a fence. */
static void tell(void)
{
	struct descriptor *last = &bound->ring[(bound->written - 1) % ENTRIES];

	if (bound->told == bound->written)
		return;
	last->flags = cpu_to_le32(FLAG_FENCE | FLAG_IRQ);
	last->seq = cpu_to_le64(bound->written);
	bound->told = bound->written;
	watch_told(bound);
	dma_wmb();
	writel(bound->written % ENTRIES, bound->regs + REG_RING_TAIL);
}

void engine_begin(void)
{
	mutex_lock(&bound->lock);
}

int engine_push(enum engine_op op, u64 src, u64 dst, u64 len)
{
	/* A ring that is full would look like an empty one. */
	while (bound->written - done() >= ENTRIES - 1) {
		u64 seq = bound->written - ENTRIES / 2;
		int ret;

		tell();
		mutex_unlock(&bound->lock);
		ret = wait_for(seq);
		mutex_lock(&bound->lock);
		if (ret)
			return ret;
	}
	bound->ring[bound->written++ % ENTRIES] = (struct descriptor) {
		.op = cpu_to_le32(op),
		.src = cpu_to_le64(src),
		.dst = cpu_to_le64(dst),
		.len = cpu_to_le64(len),
	};
	return 0;
}

int engine_end(void)
{
	u64 seq = bound->written;

	tell();
	mutex_unlock(&bound->lock);
	return wait_for(seq);
}

/* The device sends no further interrupt before it is cleared; then the fence is looked at. */
static irqreturn_t fence_interrupt(int irq, void *data)
{
	struct engine *engine = data;

	writel(IRQ_FENCE, engine->regs + REG_IRQ_STATUS);
	/* Until the write has arrived, the device sends nothing for a batch that ends. */
	readl(engine->regs + REG_IRQ_STATUS);
	watch_done(engine);
	wake_up_all(&engine->woken);
	return IRQ_HANDLED;
}

struct device *engine_device(void)
{
	return bound ? &bound->pdev->dev : NULL;
}

u64 engine_vram_size(void)
{
	return bound->vram_size;
}

/* --- The device ------------------------------------------------------------ */

static int reset(struct engine *engine)
{
	u32 control;

	writel(CONTROL_RESET, engine->regs + REG_CONTROL);
	return readl_poll_timeout(engine->regs + REG_CONTROL, control, !(control & CONTROL_RESET),
				  1000, RESET_US);
}

static int start(struct engine *engine)
{
	struct device *dev = &engine->pdev->dev;
	dma_addr_t ring, fence;

	engine->ring = dmam_alloc_coherent(dev, ENTRIES * sizeof(*engine->ring), &ring, GFP_KERNEL);
	engine->fence = dmam_alloc_coherent(dev, sizeof(*engine->fence), &fence, GFP_KERNEL);
	if (!engine->ring || !engine->fence)
		return -ENOMEM;
	writel(lower_32_bits(ring), engine->regs + REG_RING_BASE_LO);
	writel(upper_32_bits(ring), engine->regs + REG_RING_BASE_HI);
	writel(ENTRIES, engine->regs + REG_RING_ENTRIES);
	writel(lower_32_bits(fence), engine->regs + REG_FENCE_LO);
	writel(upper_32_bits(fence), engine->regs + REG_FENCE_HI);
	writel(IRQ_FENCE, engine->regs + REG_IRQ_ENABLE);
	writel(1, engine->regs + REG_RING_ENABLE);
	return 0;
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct engine *new;
	int ret;

	if (bound)
		return -EBUSY;
	new = devm_kzalloc(dev, sizeof(*new), GFP_KERNEL);
	if (!new)
		return -ENOMEM;
	new->pdev = pdev;
	mutex_init(&new->lock);
	spin_lock_init(&new->watch_lock);
	init_waitqueue_head(&new->woken);
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	new->regs = pcim_iomap_region(pdev, 0, NAME);
	if (IS_ERR(new->regs))
		return PTR_ERR(new->regs);
	if (readl(new->regs + REG_ID) != SIMGPU_ID)
		return -ENODEV;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	ret = reset(new);
	if (ret)
		return ret;
	new->vram_size = readl(new->regs + REG_VRAM_SIZE_LO) |
			 (u64)readl(new->regs + REG_VRAM_SIZE_HI) << 32;
	pci_set_master(pdev);

	ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSIX);
	if (ret < 0)
		return ret;
	ret = request_irq(pci_irq_vector(pdev, 0), fence_interrupt, 0, NAME, new);
	if (ret)
		goto free_vectors;
	ret = start(new);
	if (ret)
		goto free_irq;
	bound = new;
	return 0;

free_irq:
	free_irq(pci_irq_vector(pdev, 0), new);
free_vectors:
	pci_free_irq_vectors(pdev);
	return ret;
}

/* Nothing is in flight: the device node is closed. */
static void remove(struct pci_dev *pdev)
{
	reset(bound);
	free_irq(pci_irq_vector(pdev, 0), bound);
	pci_free_irq_vectors(pdev);
	bound = NULL;
}

static const struct pci_device_id ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT, SIMGPU_DEVICE) },
	{}
};

/* It is neither bound by others' wish nor unbound: the GPUs are on it while they are open. */
static struct pci_driver engine_driver = {
	.name = NAME,
	.id_table = ids,
	.probe = probe,
	.remove = remove,
	.driver.suppress_bind_attrs = true,
};

int engine_register(void)
{
	return pci_register_driver(&engine_driver);
}

void engine_unregister(void)
{
	pci_unregister_driver(&engine_driver);
}
