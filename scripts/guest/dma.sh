#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The demo, with DMA mapped in the way that $way says, and proof of that way from
# the kernel's tracepoints:
#
#   plain    pages that are contiguous in RAM as one, and nothing in between
#   iova     all folios of a range linked into one range of I/O virtual addresses
#   swiotlb  each piece of a folio by itself, through a bounce buffer

# shellcheck disable=SC2154 # $way comes from the kernel's command line

. /guest/lib.sh

events=/sys/kernel/tracing/events
trace=/sys/kernel/tracing/trace

# count EVENT [PATTERN]: how often the event was seen (with that in its line).
count() {
	grep -F " $1: " $trace | grep -cE "${2:-}"
}

check() {
	number=$((number + 1))
	what=$1
	shift
	if "$@"; then echo "ok $number $what"; else echo "not ok $number $what"; fi
}

# The largest size that was mapped at once, in bytes.
largest() {
	grep -F " dma_map_phys: " $trace | sed -nE 's/.* size=([0-9]+).*/\1/p' | sort -n | tail -n 1
}

# All of the demo's memory was mapped, and not page by page.
in_runs() {
	bytes=$(grep -F " dma_map_phys: " $trace | sed -nE 's/.* size=([0-9]+).*/\1/p' |
		awk '{ n += $1 } END { print n + 0 }')
	[ "$bytes" -ge $((16 * 1024 * 1024)) ] && [ "$mapped" -lt 4096 ]
}

ways() {
	number=0
	echo "KTAP version 1"
	echo "1..4"
	check demo demo --size 16M
	# Large folios, in RAM that is given in pieces.
	[ "$way" != swiotlb ] || load drm_pagemap_kunit
	mapped=$(count dma_map_phys)
	linked=$(count map '')
	bounced=$(count swiotlb_bounced)
	echo "# $mapped mappings of up to $(largest) bytes, $linked by an IOMMU, $bounced bounced"
	case $way in
	plain)
		check mapped-in-runs in_runs
		check no-iommu [ "$linked" = 0 ]
		check not-bounced [ "$bounced" = 0 ]
		;;
	iova)
		check linked-by-iommu [ "$linked" -ge 4096 ]
		check nothing-mapped-by-page [ "$mapped" = 0 ]
		check not-bounced [ "$bounced" = 0 ]
		;;
	swiotlb)
		check bounced [ "$bounced" -ge 4096 ]
		check mapped-in-pieces [ "$(largest)" = $((256 * 1024)) ]
		check no-iommu [ "$linked" = 0 ]
		;;
	esac
}

load drm_pagemap simgpu || exit
echo 16384 >/sys/kernel/tracing/buffer_size_kb
for event in dma/dma_map_phys iommu/map swiotlb/swiotlb_bounced; do
	[ ! -e "$events/$event/enable" ] || echo 1 >"$events/$event/enable"
done
suite "dma-$way" ways
for event in dma/dma_map_phys iommu/map swiotlb/swiotlb_bounced; do
	[ ! -e "$events/$event/enable" ] || echo 0 >"$events/$event/enable"
done
if [ "$way" = swiotlb ]; then
	for results in /sys/kernel/debug/kunit/drm_pagemap_*/results; do
		kunit=${results%/results}
		suite "kunit-swiotlb ${kunit##*/}" cat "$results"
	done
	unload drm_pagemap_kunit || exit
fi
suite leaks-after-dma sh -c '. /guest/lib.sh; unload simgpu drm_pagemap && leaks'
