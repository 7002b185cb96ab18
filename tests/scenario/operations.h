/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Random operations on an arena. Which ones, and on what, depends on the
 * arena's seed alone.
 */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include "arena.h"

/* One. Anything that the model does not expect fails the test. */
void operate(struct arena *arena);

#endif /* OPERATIONS_H */
