# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# How demo and tests start a guest. Needs lib.sh and $here, and the toolbox.
# shellcheck disable=SC2154 # those variables

# guest RUN KERNEL MODE [FILE=SOURCE...] -- [VM-OPTION...]
guest() {
	local run=$1 kernel=$2 mode=$3 image files=()
	shift 3
	while [[ $1 != -- ]]; do
		files+=("$1")
		shift
	done
	shift
	image=$cache/guest/$run.cpio
	"$here/initramfs" "$image" "$kernel" "${files[@]}"
	"$here/vm" "$run" --kernel "$cache/kernel/$kernel/arch/x86/boot/bzImage" --initrd "$image" \
		--append "guest.mode=$mode ${append:-}" --vram "${DRM_PAGEMAP_VRAM:-256M}" \
		--cpus "${DRM_PAGEMAP_CPUS:-2}" --memory "${DRM_PAGEMAP_MEMORY:-2G}" "$@"
}

# How much slower than the lab kernel under TCG this kernel is.
slowness() {
	case $1 in
	debug) echo 6 ;;
	*) echo 1 ;;
	esac
}
