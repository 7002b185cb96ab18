#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# On Debian's unmodified kernel: our module loads, the symbols of its C ABI are
# there, and it unloads.

. /guest/lib.sh

check() {
	number=$((number + 1))
	what=$1
	shift
	if "$@"; then echo "ok $number $what"; else echo "not ok $number $what"; fi
}

exported() {
	grep -qE " __ksymtab_$1.*\[drm_pagemap\]" /proc/kallsyms
}

stock() {
	number=0
	symbols=$(cat /tests/exports)
	echo "KTAP version 1"
	echo "1..$((3 + $(echo "$symbols" | wc -w)))"
	check needs modprobe -a drm
	check insmod load drm_pagemap
	for symbol in $symbols; do
		check "exports-$symbol" exported "$symbol"
	done
	check rmmod unload drm_pagemap
}

echo "kernel: $(uname -r)"
suite stock stock
