// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "options.h"

#define DEFAULT_SIZE ((size_t)64 << 20)

static const char usage[] =
	"usage: demo [--size BYTES[K|M|G]] [--color | --no-color]\n"
	"\n"
	"Moves a malloc'ed buffer into the VRAM of the simgpu device and back,\n"
	"changes it there, and verifies every byte.\n"
	"\n"
	"  --size SIZE   buffer size (default 64M)\n"
	"  --color       draw residency maps in colour (default: on a terminal)\n"
	"  --no-color    draw them with plain characters\n";

[[noreturn, gnu::format(printf, 1, 2)]]
static void bad_usage(const char *format, ...)
{
	va_list args;

	fputs("demo: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(USAGE_EXIT_STATUS);
}

/* The number of bits that a size suffix shifts by, or -1. */
static int suffix_shift(const char *suffix)
{
	if (!*suffix)
		return 0;
	if (suffix[1])
		return -1;
	switch (toupper((unsigned char)*suffix)) {
	case 'K':
		return 10;
	case 'M':
		return 20;
	case 'G':
		return 30;
	}
	return -1;
}

static size_t parse_size(const char *text)
{
	size_t least = 2 * sysconf(_SC_PAGESIZE);
	unsigned long long number;
	char *suffix;
	int shift;

	/* strtoull() would accept blanks and signs. */
	if (!isdigit((unsigned char)*text))
		bad_usage("\"%s\" is not a size; give bytes, with K, M or G if you like, such as 64M",
			  text);
	errno = 0;
	number = strtoull(text, &suffix, 10);
	shift = suffix_shift(suffix);
	if (shift < 0)
		bad_usage("\"%s\" is not a size; only the suffixes K, M and G are known", text);
	if (errno == ERANGE || number > SIZE_MAX >> shift)
		bad_usage("the size \"%s\" is too large for this machine's addresses", text);
	number <<= shift;
	if (number < least)
		bad_usage("the size \"%s\" is too small; at least %zu bytes, so that a whole page is inside",
			  text, least);
	return number;
}

/*
 * Is stdout a terminal that somebody looks at? A serial line, which may lead to a
 * log, knows of no width.
 */
static bool on_a_screen(void)
{
	struct winsize size;

	return isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col;
}

struct options parse_options(int argc, char **argv)
{
	static const struct option known[] = {
		{ "size", required_argument, NULL, 's' },
		{ "color", no_argument, NULL, 'c' },
		{ "no-color", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct options options = { .size = DEFAULT_SIZE, .color = on_a_screen() };
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", known, NULL)) != -1) {
		switch (option) {
		case 's':
			options.size = parse_size(optarg);
			break;
		case 'c':
			options.color = true;
			break;
		case 'n':
			options.color = false;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		case ':':
			bad_usage("%s needs a value; see --help", argv[optind - 1]);
		default:
			bad_usage("the option %s is not known; see --help", argv[optind - 1]);
		}
	}
	if (optind < argc)
		bad_usage("\"%s\" is not expected; see --help", argv[optind]);
	return options;
}
