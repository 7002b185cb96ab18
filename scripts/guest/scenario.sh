#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# tests/scenario: guest.programs says which ("scenarios stress", with commas), the other
# variables what of it and for how long.

. /guest/lib.sh
: "${programs:?}" "${seed:=}" "${scenario:=}" "${count:=}" "${seconds:=}" "${operations:=}"
load drm_pagemap simgpu || exit
mkdir -p /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control

for program in $(echo "$programs" | tr , ' '); do
	# shellcheck disable=SC2086 # words are meant
	case $program in
	scenarios) suite "scenario scenarios" scenarios ${seed:+--seed $seed} ${scenario:+--scenario $scenario} ${count:+--count $count} ;;
	stress) suite "scenario stress" stress ${seed:+--seed $seed} ${seconds:+--seconds $seconds} ${operations:+--operations $operations} ;;
	esac </dev/null
done
suite leaks-after-scenario sh -c '. /guest/lib.sh; unload simgpu drm_pagemap && leaks'
