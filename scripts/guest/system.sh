#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The system tests, in the order of /tests/order. The last one takes the
# device away for good.

. /guest/lib.sh
export SIMGPU_MODULES=/modules SIMGPU_CONTROL=/dev/ttyS1
load drm_pagemap simgpu || exit
while read -r program; do
	suite "system $program" "/tests/$program" </dev/null
done </tests/order
suite leaks-after-system sh -c '. /guest/lib.sh; unload simgpu drm_pagemap && leaks'
