/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Marks for the QEMU plugin in plugin/: an instruction that does nothing, which a
 * processor passes by and a compiler never makes: a NOP with a memory operand whose
 * displacement is ours. So the plugin needs no addresses of the guest.
 */
#ifndef _DRM_PAGEMAP_BENCH_MARKER_H_
#define _DRM_PAGEMAP_BENCH_MARKER_H_

/* The first bytes of the instruction; the mark is the last one. */
#define MARKER_BYTES	0x0f, 0x1f, 0x84, 0x00, 0x42, 0x50, 0x44
#define MARKER_SIZE	8

#define MARKER_BEGIN		0x01	/* what is measured begins */
#define MARKER_END		0x02
#define MARKER_CALLBACK		0x03	/* and leaves out what is between these two */
#define MARKER_CALLBACK_END	0x04
#define MARKER_REPEAT		0x05	/* all since the last REPEAT was one sample */
#define MARKER_CASE		0x06	/* samples from here on are of the next case */

#define marker_string(...)	#__VA_ARGS__
#define marker_bytes(...)	marker_string(__VA_ARGS__)
#define marker(mark)	asm volatile(".byte " marker_bytes(MARKER_BYTES, mark) : : : "memory")

#endif
