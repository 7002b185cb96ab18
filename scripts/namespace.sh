# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# A private mount and process namespace: mounts made there never reach the
# host, and everything started there dies with it. Needs lib.sh.

ns_options=(--mount --propagation private --pid --fork --kill-child)
((EUID == 0)) || ns_options+=(--user --map-root-user --map-auto)

# Whether this machine lets us; the reason is in $why_not otherwise.
# shellcheck disable=SC2034 # it is for those who include this
can_namespace() {
	local said
	said=$(unshare "${ns_options[@]}" true 2>&1) && return
	if ((EUID == 0)); then
		why_not="this machine does not allow mount namespaces even for root ($said). Is this a container without CAP_SYS_ADMIN, or a chroot? Run this on the machine itself, or in a privileged container."
	else
		why_not="without root this needs user namespaces with a range of user ids, which do not work here ($said). As root, once: apt-get install uidmap, a line for $(id -un) in /etc/subuid and in /etc/subgid, and sysctl kernel.unprivileged_userns_clone=1 where that setting exists. Or run this as root."
	fi
	return 1
}

# in_namespace CMD...: runs it there. It is killed when this shell goes, however that goes.
in_namespace() {
	local pid status=0
	setpriv --pdeathsig KILL unshare "${ns_options[@]}" "$@" <&0 &
	pid=$!
	# shellcheck disable=SC2064 # this pid, now
	trap "kill -KILL $pid 2>/dev/null; exit 130" INT TERM HUP
	wait "$pid" || status=$?
	trap - INT TERM HUP
	return "$status"
}
