/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The tracepoints, events/drm_pagemap/ in tracefs. trace.rs calls them.
 *
 * In all of them:
 *  - mm tells address spaces apart, and is NULL where none is known; it is only
 *    ever compared (printed as a hash, unless the trace option hash-ptr is off);
 *  - pid is the process that has it, in the initial namespace; 0: not known;
 *  - device is the number N of the DRM device's /dev/dri/cardN, -1 if it has none;
 *  - addresses and sizes are of virtual memory, in bytes and pages as they say;
 *  - ns is how long it took. The clock is read only if the event is on from
 *    beginning to end.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM drm_pagemap

#if !defined(_DRM_PAGEMAP_TRACE_H_) || defined(TRACE_HEADER_MULTI_READ)
#define _DRM_PAGEMAP_TRACE_H_

#include <linux/mm.h>
#include <linux/tracepoint.h>
#include <linux/types.h>

/* A driver had a range migrated to its device memory, or tried. */
TRACE_EVENT(drm_pagemap_migrate,
	TP_PROTO(const void *mm, int pid, unsigned long start, unsigned long nr_pages, int device,
		 unsigned long moved, unsigned long resident, int error, u64 ns),
	TP_ARGS(mm, pid, start, nr_pages, device, moved, resident, error, ns),
	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(unsigned long, start)
		__field(unsigned long, nr_pages)
		__field(unsigned long, moved)
		__field(unsigned long, resident)
		__field(u64, bytes)
		__field(u64, ns)
		__field(int, pid)
		__field(int, device)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->mm = mm;
		__entry->start = start;
		__entry->nr_pages = nr_pages;
		__entry->moved = moved;
		__entry->resident = resident;
		__entry->bytes = (u64)moved << PAGE_SHIFT;
		__entry->ns = ns;
		__entry->pid = pid;
		__entry->device = device;
		__entry->error = error;
	),
	TP_printk("mm=%p pid=%d start=0x%lx nr_pages=%lu device=%d moved=%lu resident=%lu bytes=%llu error=%d ns=%llu",
		  __entry->mm, __entry->pid, __entry->start, __entry->nr_pages, __entry->device,
		  __entry->moved, __entry->resident, __entry->bytes, __entry->error,
		  __entry->ns)
);

/*
 * A CPU touched a page in device memory. nr_pages is that of its folio, moved what
 * came home with it.
 */
TRACE_EVENT(drm_pagemap_fault,
	TP_PROTO(const void *mm, int pid, unsigned long address, unsigned long nr_pages, int device,
		 unsigned long moved, int result, u64 ns),
	TP_ARGS(mm, pid, address, nr_pages, device, moved, result, ns),
	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(unsigned long, address)
		__field(unsigned long, nr_pages)
		__field(unsigned long, moved)
		__field(u64, bytes)
		__field(u64, ns)
		__field(int, pid)
		__field(int, device)
		__field(int, result)
	),
	TP_fast_assign(
		__entry->mm = mm;
		__entry->address = address;
		__entry->nr_pages = nr_pages;
		__entry->moved = moved;
		__entry->bytes = (u64)moved << PAGE_SHIFT;
		__entry->ns = ns;
		__entry->pid = pid;
		__entry->device = device;
		__entry->result = result;
	),
	/* The numbers are those of trace.rs. */
	TP_printk("mm=%p pid=%d address=0x%lx nr_pages=%lu device=%d moved=%lu bytes=%llu result=%s ns=%llu",
		  __entry->mm, __entry->pid, __entry->address, __entry->nr_pages, __entry->device,
		  __entry->moved, __entry->bytes,
		  __print_symbolic(__entry->result, { 0, "done" }, { 1, "retry" },
				   { 2, "oom" }, { 3, "sigbus" }),
		  __entry->ns)
);

/*
 * A driver wanted an allocation back, or (allocation is NULL) all of its memory,
 * because it goes away. moved is what came home.
 */
TRACE_EVENT(drm_pagemap_evict,
	TP_PROTO(const void *allocation, const void *mm, unsigned long nr_pages, int device,
		 unsigned long moved, int error, u64 ns),
	TP_ARGS(allocation, mm, nr_pages, device, moved, error, ns),
	TP_STRUCT__entry(
		__field(const void *, allocation)
		__field(const void *, mm)
		__field(unsigned long, nr_pages)
		__field(unsigned long, moved)
		__field(u64, bytes)
		__field(u64, ns)
		__field(int, device)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->allocation = allocation;
		__entry->mm = mm;
		__entry->nr_pages = nr_pages;
		__entry->moved = moved;
		__entry->bytes = (u64)moved << PAGE_SHIFT;
		__entry->ns = ns;
		__entry->device = device;
		__entry->error = error;
	),
	TP_printk("allocation=%p mm=%p nr_pages=%lu device=%d moved=%lu bytes=%llu error=%d ns=%llu",
		  __entry->allocation, __entry->mm, __entry->nr_pages, __entry->device,
		  __entry->moved, __entry->bytes, __entry->error, __entry->ns)
);

/*
 * Pages changed place: a run of them in folios of one order, contiguous in virtual
 * memory. Places are devices by number, -1 for RAM, -2 for none: never touched, as
 * from; freed while in device memory, as to.
 *
 * Evicting and freeing know physical pages only: start is then where the page was
 * when it was touched first, and mm is whose allocation it is. Both are right unless
 * mremap() or fork() has been at work.
 */
TRACE_EVENT(drm_pagemap_move,
	TP_PROTO(const void *mm, unsigned long start, unsigned long nr_pages, unsigned int order,
		 int from, int to),
	TP_ARGS(mm, start, nr_pages, order, from, to),
	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(unsigned long, start)
		__field(unsigned long, nr_pages)
		__field(unsigned int, order)
		__field(int, from)
		__field(int, to)
	),
	TP_fast_assign(
		__entry->mm = mm;
		__entry->start = start;
		__entry->nr_pages = nr_pages;
		__entry->order = order;
		__entry->from = from;
		__entry->to = to;
	),
	TP_printk("mm=%p start=0x%lx nr_pages=%lu order=%u from=%d to=%d",
		  __entry->mm, __entry->start, __entry->nr_pages, __entry->order, __entry->from,
		  __entry->to)
);

#endif

/* Found by the include path that Kbuild gives, in and out of a kernel tree. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
