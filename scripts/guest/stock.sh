#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# On Debian's unmodified kernel: our module loads by itself, the symbols of its C
# ABI are there, and it unloads. Then Debian's xe.ko is loaded, with our layer in
# C's place, and what it is linked to is ours. scripts/stock-root has made /tests.

. /guest/lib.sh
. /guest/kcore.sh

check() {
	number=$((number + 1))
	what=$1
	shift
	if "$@"; then echo "ok $number $what"; else echo "not ok $number $what"; fi
}

debian_kernel() {
	[ "$(uname -rv)" = "$(cat /tests/version)" ] || {
		echo "# running: $(uname -rv)"
		return 1
	}
}

debian_modules() {
	if [ ! -s /tests/md5sums ] || ! (cd / && md5sum -c /tests/md5sums) >/tmp/md5sums 2>&1; then
		sed -n '/: OK$/!s/^/# /p' /tmp/md5sums
		return 1
	fi
}

# Lines of kallsyms for the names that the tests ask for.
symbols() {
	cat /tests/exports /tests/links | tr ' ' '\n' | awk '
		FNR == NR { wanted[$1] = wanted["__ksymtab_" $1] = 1; next }
		$3 in wanted' - /proc/kallsyms >/tmp/symbols
}

# has MODULE NAME: this one, and no other.
has() {
	awk -v name="$2" -v module="[$1]" '$3 == name { if ($4 == module) ours++; else { others++; print "# " $0 } }
		END { exit !(ours == 1 && !others) }' /tmp/symbols
}

exported() {
	has drm_pagemap "__ksymtab_$1" && has drm_pagemap "$1"
}

loaded() {
	if ! modprobe "$1" || [ ! -d "/sys/module/$1" ]; then
		dmesg | tail -n 30 | sed 's/^/# /'
		return 1
	fi
}

# from_file MODULE: what is loaded is the file that we think.
from_file() {
	cmp "/tests/build-id/$1" "/sys/module/$1/notes/.note.gnu.build-id"
}

holds() {
	[ -e "/sys/module/$1/holders/$2" ] || {
		echo "# holders of $1:" "/sys/module/$1/holders"/*
		return 1
	}
}

# linked USER SYMBOL OWNER: what the loaded user imports, the owner alone has.
linked() {
	holds "$3" "$1" && has "$3" "$2"
}

# calls USER: in its memory, each call of our layer goes to where kallsyms has ours.
calls() {
	grep "^$1 " /tests/calls >/tmp/calls || return
	while read -r user symbol offset; do
		target=$(call_target $(($(cat "/sys/module/$user/sections/.text") + 0x$offset)))
		[ "$(awk -v name="$symbol" '$3 == name { print $1, $4 }' /tmp/symbols)" = "$target [drm_pagemap]" ] || {
			echo "# $user calls at .text+0x$offset, for $symbol: $target"
			return 1
		}
	done </tmp/calls
}

all_gone() {
	modprobe -r xe
	! sed 's/^/# /' /proc/modules | grep .
}

stock() {
	number=0
	# Who must be linked to whom.
	awk '{ print $3, $1 }' /tests/links | sort -u >/tmp/holders
	files=$(ls /tests/build-id)
	users=$(cut -d ' ' -f 1 /tests/calls | sort -u)
	echo "KTAP version 1"
	echo "1..$((6 + $(cat /tests/exports /tests/links /tmp/holders | wc -l) + $(echo "$files" "$users" | wc -w)))"
	check debian-kernel debian_kernel
	check debian-modules debian_modules

	check load loaded drm_pagemap
	symbols
	while read -r symbol; do
		check "exports-$symbol" exported "$symbol"
	done </tests/exports
	check unload unload drm_pagemap

	check load-xe loaded xe
	symbols
	for module in $files; do
		check "file-$module" from_file "$module"
	done
	while read -r module user; do
		check "holder-$module-$user" holds "$module" "$user"
	done </tmp/holders
	while read -r user symbol module; do
		check "link-$user-$symbol" linked "$user" "$symbol" "$module"
	done </tests/links
	for user in $users; do
		check "calls-of-$user" calls "$user"
	done
	check unload-xe all_gone
}

echo "kernel: $(uname -r)"
suite stock stock
