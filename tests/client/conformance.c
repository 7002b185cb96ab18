// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The conformance suite: what a driver in C may expect of any provider of drm_pagemap.
 *
 * "=NAME" runs one case, --list names them. scripts/conformance runs it on two
 * providers. A case called defect_NN_* is about item NN of
 * Documentation/c-comparison.md.
 */
#include <string.h>

#include "world.h"

int main(int argc, char **argv)
{
	static const struct cases *all[] = {
		&contract_cases, &mm_cases, &lifetime_cases, &policy_cases,
		&defect_cases, &defect_peer_cases, &defect_lifetime_cases,
	};
	static struct ktap_test tests[200];
	struct ktap_suite suite = { .tests = tests };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		memcpy(tests + suite.count, all[i]->tests, all[i]->count * sizeof(tests[0]));
		suite.count += all[i]->count;
	}
	return ktap_main(&suite, argc, argv);
}
