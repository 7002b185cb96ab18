/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Marks for the QEMU plugin in plugin/: an instruction that does nothing, which a
 * processor passes by and a compiler never makes: a NOP with a memory operand whose
 * displacement is ours. So the plugin needs no addresses of the guest.
 */
#ifndef _DRM_PAGEMAP_BENCH_MARKER_H_
#define _DRM_PAGEMAP_BENCH_MARKER_H_

/* The eight bytes of the instruction, the last of which is the mark. */
#define MARKER(mark)	(0x44504200841f0ful | (unsigned long)(mark) << 56)

#define MARKER_BEGIN		0x01	/* what is measured begins */
#define MARKER_END		0x02
#define MARKER_CALLBACK		0x03	/* and leaves out what is between these two */
#define MARKER_CALLBACK_END	0x04
#define MARKER_REPEAT		0x05	/* all since the last REPEAT was one sample */
#define MARKER_CASE		0x06	/* samples from here on are of the next case */

#ifdef __KERNEL__
static __always_inline void marker(unsigned long mark)
{
	asm volatile(".quad %c0" : : "i"(MARKER(mark)) : "memory");
}
#endif

#endif
