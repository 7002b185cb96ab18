# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# What the guest's scripts share.

# suite NAME CMD...: runs one test suite between the marks that ktap.py looks for.
suite() {
	local name=$1
	shift
	echo "# suite-begin $name"
	"$@"
	echo "# suite-end $name $?"
}

# load MODULE...: in this order; says which one does not load.
load() {
	local module
	for module; do
		insmod "/modules/$module.ko" || {
			echo "the module $module does not load"
			return 1
		}
	done
}

# Last user first. A device-private page may take a moment to come home.
unload() {
	local module
	for module; do
		for try in 1 2 3 4 5 6 7 8 9 10; do
			grep -q "^$module " /proc/modules || break
			rmmod "$module" 2>/dev/null && break
			[ "$try" = 10 ] && {
				rmmod "$module"
				echo "the module $module does not unload; in use:"
				cat /proc/modules
				return 1
			}
			sleep 1
		done
	done
}

# On a debug kernel, looks for leaked memory. Twice: the first scan can see a
# stale pointer or an object in the making, and kmemleak reports only what is
# at least 5 s old.
leaks() {
	[ -e /sys/kernel/debug/kmemleak ] || return 0
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	sleep 1
	echo scan >/sys/kernel/debug/kmemleak
	if [ -s /sys/kernel/debug/kmemleak ] || grep -q . /sys/kernel/debug/kmemleak; then
		cat /sys/kernel/debug/kmemleak
		return 1
	fi
}
