#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The demo: modules in, a process's pages through the GPU, modules out. What the
# tracepoints say of it goes to the host, for scripts/timeline.

. /guest/lib.sh
size=${size:-64M}
tracing=/sys/kernel/tracing

# As large as it takes, for each processor: every page is told of by itself at most
# once, when it is freed in VRAM, in fewer than 96 bytes.
buffer_kb() {
	mb=0
	digits=${size%[KkMmGg]}
	case $digits in
	# The demo has a word to say on that.
	'' | *[!0-9]*) ;;
	*)
		case $size in
		*[Gg]) mb=$((digits * 1024)) ;;
		*[Mm]) mb=$digits ;;
		*[Kk]) mb=$((digits / 1024)) ;;
		*) mb=$((digits / 1048576)) ;;
		esac
		;;
	esac
	echo $((4096 + mb * 24))
}

record() {
	[ -d $tracing/events/drm_pagemap ] || return 0
	buffer_kb >$tracing/buffer_size_kb || {
		echo "the kernel has no memory for a trace of $size: give a smaller SIZE="
		return 1
	}
	echo mono >$tracing/trace_clock
	echo 0 >$tracing/options/hash-ptr
	for driver in drm_pagemap simgpu; do
		[ ! -d $tracing/events/$driver ] || echo 1 >$tracing/events/$driver/enable
	done
}

send() {
	[ -d $tracing/events/drm_pagemap ] || return 0
	gzip -c $tracing/trace >/dev/ttyS3
}

load drm_pagemap simgpu || exit
record || exit
demo --size "$size" ${color:+--color} || exit
send || exit
unload simgpu drm_pagemap && leaks || exit
