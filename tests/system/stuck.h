/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What processes that hang are doing.
 */
#ifndef STUCK_H
#define STUCK_H

#include <sys/types.h>

/* Print, as KTAP diagnostics, the kernel stacks of a process group's threads. */
void stuck_describe(pid_t group);

#endif /* STUCK_H */
