/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef MARK_H
#define MARK_H

/*
 * Tell whoever records a trace of the kernel (scripts/timeline draws it) that a
 * phase begins, or that the last one is over. Does nothing where there is no trace.
 */
void mark_phase(const char *name);
void mark_end(void);

#endif /* MARK_H */
