// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Makes the tracepoints of trace.h, and what their callers in trace.rs ask for
 * when one of them is on.
 */

#include <linux/mm_types.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>

#include <drm/drm_device.h>
#include <drm/drm_file.h>

#include "helpers.h"

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "trace.h"

/*
 * The process whose address space it is. A worker may act for it; who that does is
 * known only where the kernel keeps the owners of address spaces, for memory
 * cgroups.
 */
int drm_pagemap_helper_trace_pid(const struct mm_struct *mm)
{
	int pid = 0;

	if (current->mm == mm)
		return task_tgid_nr(current);
#ifdef CONFIG_MEMCG
	scoped_guard(rcu) {
		struct task_struct *owner = rcu_dereference(mm->owner);

		if (owner)
			pid = task_tgid_nr(owner);
	}
#endif
	return pid;
}

int drm_pagemap_helper_trace_device(const struct drm_device *drm)
{
	return drm->primary ? drm->primary->index : -1;
}
