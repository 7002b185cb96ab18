#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The kernel's own HMM tests, on our device for them, or on the kernel's own (guest.hmm=test_hmm).
# Those of device-coherent memory, of which there is none, are left out; and those in /tests/unmet.

. /guest/lib.sh
modules=${hmm:-"drm_pagemap hmm_dmirror"}
reversed=
for module in $modules; do
	reversed="$module $reversed"
done
# shellcheck disable=SC2086 # words are meant
load $modules || exit

unmet() {
	grep -v '^#' /tests/unmet
}
left_out="-V hmm_device_coherent -V hmm2_device_coherent"
for name in $(unmet | cut -d ' ' -f 1); do
	left_out="$left_out -T $name"
done
# shellcheck disable=SC2086
suite hmm /tests/hmm-tests $left_out </dev/null
if [ "$(unmet | wc -l)" -gt 0 ]; then
	echo "# suite-begin hmm-unmet"
	echo "KTAP version 1"
	echo "1..$(unmet | wc -l)"
	unmet | awk '{ name = $1; $1 = ""; print "ok " NR " " name " # SKIP" $0 }'
	echo "# suite-end hmm-unmet 0"
fi
suite leaks-after-hmm sh -c ". /guest/lib.sh; unload $reversed && leaks"
