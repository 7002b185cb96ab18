#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# All KUnit suites: each *_kunit.ko runs its suites while it loads, and debugfs
# has the results, free of other console lines.

. /guest/lib.sh

# The kernel has some suites of its own, which ran when it booted.
of_kernel=$(ls /sys/kernel/debug/kunit)
is_of_kernel() {
	echo "$of_kernel" | grep -qx "$1"
}

# Where the kernel has fault injection, suites may fail any allocation of their
# own task, silently.
for attribute in ignore-gfp-wait=N ignore-gfp-highmem=N min-order=0 verbose=0; do
	for point in failslab fail_page_alloc; do
		file=/sys/kernel/debug/$point/${attribute%=*}
		[ ! -e "$file" ] || echo "${attribute#*=}" >"$file"
	done
done

load drm_pagemap simgpu || exit
for module in /modules/*_kunit.ko; do
	name=${module##*/}
	name=${name%.ko}
	load "$name" || exit
	for results in /sys/kernel/debug/kunit/*/results; do
		kunit=${results%/results}
		kunit=${kunit##*/}
		[ ! -e "$results" ] || is_of_kernel "$kunit" || suite "kunit $kunit" cat "$results"
	done
	unload "$name" || exit
done
suite leaks-after-kunit sh -c '. /guest/lib.sh; unload simgpu drm_pagemap && leaks'
