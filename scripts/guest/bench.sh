#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The benchmark, on each of $providers in turn ("c,ours,c,ours"), with what /tests/arguments
# holds. Each provider's modules are in /modules with its name before theirs. Prints
# "# provider NAME" before the lines of each, and after them the addresses of its functions.

# shellcheck disable=SC2154 # $providers and $vram_mb come from the kernel's command line

. /guest/lib.sh

for provider in $(echo "$providers" | tr , ' '); do
	insmod "/modules/$provider-drm_pagemap.ko" || exit
	insmod "/modules/$provider-drm_pagemap_bench.ko" vram_mb="$vram_mb" || exit
	echo "# provider $provider"
	# shellcheck disable=SC2046 # several words
	/tests/bench $(cat /tests/arguments) || exit
	sed -n '/\ [tT] .*\[drm_pagemap/s/^/# symbol /p' /proc/kallsyms
	unload drm_pagemap_bench drm_pagemap || exit
done
