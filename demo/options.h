/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The demo's command line.
 */
#ifndef DEMO_OPTIONS_H
#define DEMO_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#define USAGE_EXIT_STATUS 2

struct options {
	size_t size;	/* Bytes to malloc. */
	bool color;	/* Draw maps with coloured blocks. */
};

/*
 * Parse the command line. Prints one sentence to stderr and exits with
 * USAGE_EXIT_STATUS on bad input; prints the usage and exits 0 on --help.
 */
struct options parse_options(int argc, char **argv);

#endif /* DEMO_OPTIONS_H */
