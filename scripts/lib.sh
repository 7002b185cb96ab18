# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# What every script here shares: where things are, how to talk, how to lock.
# shellcheck disable=SC2034 # variables are for those who include this

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${DRM_PAGEMAP_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/drm_pagemap}
mkdir -p "$cache/logs"
cache=$(cd "$cache" && pwd -P)
jobs=${DRM_PAGEMAP_JOBS:-$(($(nproc) + 1))}

# The clock that all steps of one make share.
: "${DRM_PAGEMAP_START:=$(date +%s)}"
export DRM_PAGEMAP_START DRM_PAGEMAP_CACHE="$cache"

# say "kernel: compiling": one line, with the time since the start.
say() {
	local t=$(($(date +%s) - DRM_PAGEMAP_START))
	printf '[%02d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*" >&2
}

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

inside() {
	[[ -n ${DRM_PAGEMAP_INSIDE:-} ]]
}

# need_space 8 "the toolbox": stops early instead of on a full disk.
need_space() {
	local free
	free=$(df --output=avail -k "$cache" | tail -n 1)
	((free >= $1 * 1024 * 1024)) ||
		die "$2 needs about $1 GiB in $cache, but only $((free / 1024 / 1024)) GiB are free." \
			"Make room, or set DRM_PAGEMAP_CACHE to a folder on a larger disk."
}

# hold NAME: one process at a time past this point; says so when it must wait.
hold() {
	exec {hold_fd}>"$cache/.lock-$1"
	if ! flock -n "$hold_fd"; then
		say "$1: waiting for another make in the same cache"
		flock "$hold_fd"
	fi
}

release() {
	exec {hold_fd}>&-
}

# logged NAME CMD...: output goes to logs/NAME.log, its end is shown on failure.
logged() {
	local log=$cache/logs/$1.log
	shift
	if ! "$@" >"$log" 2>&1 </dev/null; then
		tail -n 25 "$log" >&2
		die "this failed: $* (whole log: $log)"
	fi
}

# made WHAT NAME PATTERN CMD...: like logged, for a build: says whether anything
# was built at all, by the first line that matches PATTERN, and shows warnings.
made() {
	local what=$1 log=$cache/logs/$2.log pattern=$3
	shift 3
	if ! "$@" 2>&1 </dev/null | tee "$log" | {
		if grep -qE "$pattern"; then
			say "$what: building"
			cat >/dev/null
		else
			say "$what: reused"
		fi
	}; then
		grep -n -m 20 -E -A 4 '(^|[ :])(error|Error)\b' "$log" >&2 || tail -n 25 "$log" >&2
		die "$what: the build failed (whole log: $log)"
	fi
	grep -E -A 5 '(^|[ :])warning:' "$log" >&2 || true
}
