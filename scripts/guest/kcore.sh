# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Reads the running kernel's memory, through /proc/kcore: an ELF file with a
# segment for each range of addresses.

# Lines of three hexadecimal numbers: offset in the file, first address, length.
segments() {
	od -An -v -t x8 -w56 -j "$(od -An -t u8 -j 32 -N 8 /proc/kcore | tr -d ' ')" \
		-N $((56 * $(od -An -t u2 -j 56 -N 2 /proc/kcore))) /proc/kcore |
		awk '$1 ~ /00000001$/ { print "0x" $2, "0x" $3, "0x" $6 }'
}

# call_target ADDRESS: where the call goes whose four bytes of distance are there.
call_target() {
	segments | while read -r offset start length; do
		if [ $(($1 - start)) -ge 0 ] && [ $(($1 - start)) -lt $((length)) ]; then
			printf '%x\n' $(($1 + 4 + $(dd if=/proc/kcore bs=1 skip=$((offset + $1 - start)) count=4 2>/dev/null |
				od -An -t d4)))
			break
		fi
	done
}
