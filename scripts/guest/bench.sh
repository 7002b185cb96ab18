#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The benchmark, by turns: $turns is "c,ours,ours+window,...". Each provider's modules are
# in /modules with its name before theirs, and each turn's arguments of the program in
# /tests/arguments.TURN. With +window ours is loaded with the parameter $window, if it
# has it. With $engine=1 the emulated GPU makes the copies. Prints "# turn TURN" before
# the lines of each, and after them the addresses of the modules' functions.

# shellcheck disable=SC2154 # $turns, $window, $vram_mb and $engine come from the kernel's command line

. /guest/lib.sh

for turn in $(echo "$turns" | tr , ' '); do
	provider=${turn%+window}
	option=
	if [ "$turn" != "$provider" ]; then
		if grep -q "parm=${window%%=*}:" "/modules/$provider-drm_pagemap.ko"; then
			option=$window
		else
			echo "# drm_pagemap.ko has no parameter ${window%%=*}"
		fi
	fi
	insmod "/modules/$provider-drm_pagemap.ko" ${option:+"$option"} || exit
	insmod "/modules/$provider-drm_pagemap_bench.ko" vram_mb="$vram_mb" engine="$engine" || exit
	echo "# turn $turn"
	# shellcheck disable=SC2046 # several words
	/tests/bench $(cat "/tests/arguments.$turn") || exit
	sed -n '/ [tT] .*\[drm_pagemap/s/^/# symbol /p' /proc/kallsyms
	unload drm_pagemap_bench drm_pagemap || exit
done
