#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Cases of the conformance suite, in the order of /tests/cases, each a suite of
# its own. The kernel's log gets a mark for each, so that a report has a case it
# belongs to. After a case that left the kernel in doubt no more are run: the host
# goes on with them in a fresh guest (scripts/conformance).

. /guest/lib.sh

# Parameters of our drm_pagemap; C's has none.
policy() {
	cat /sys/module/drm_pagemap/parameters/* 2>/dev/null
}

# Why this guest can't be trusted any more; nothing if it can.
doubt() {
	[ "$(cat /sys/kernel/warn_count)" = "$warnings" ] || echo "the kernel warned"
	[ "$(cat /proc/sys/kernel/tainted)" = "$taint" ] || echo "the kernel is tainted"
	[ "$(cat /sys/module/drm_pagemap_client/parameters/lost 2>/dev/null)" = 0 ] ||
		echo "device memory was left in use"
	[ "$(policy)" = "$parameters" ] || echo "the module's parameters were left changed"
	! pidof conformance >/dev/null || echo "a process can't be killed"
}

load drm_pagemap || exit
insmod /modules/drm_pagemap_client.ko ${coherent:+coherent="$coherent"} || exit
# The driver provokes one warning while it loads.
parameters=$(policy)
warnings=$(cat /sys/kernel/warn_count) taint=$(cat /proc/sys/kernel/tainted)
echo "# loaded $(cat /sys/module/drm_pagemap/coresize) $(cat /sys/module/drm_pagemap_client/coresize)"
while read -r case; do
	echo "conformance: begin $case" >/dev/kmsg
	suite "client $case" /tests/conformance "=$case" </dev/null
	echo "conformance: end $case" >/dev/kmsg
	why=$(doubt)
	[ -z "$why" ] || {
		echo "# doubt $case $why"
		exit
	}
done </tests/cases
echo "conformance: begin unload" >/dev/kmsg
suite "client unload" sh -c '. /guest/lib.sh; unload drm_pagemap_client drm_pagemap && leaks'
