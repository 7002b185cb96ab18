# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Finds what must not be in a guest's kernel log. `guestlog.py FILE` prints it, and fails."""

import re
import sys

# At the start of a message, where the kernel's own reports put them.
_HEADS = re.compile(
    r"(WARNING|BUG|Oops|general protection|kernel BUG|Kernel panic|Unable to handle|"
    r"INFO: possible|INFO: task|INFO: rcu|rcu: INFO|unreferenced object|DMA-API: .*(error|warning|leak|"
    r"device driver|exceeded|mapping|cpu touching)|Call Trace|page:.*dumped because|"
    r"Internal error|stack segment|double fault|"
    r"refcount_t:|list_(add|del) corruption|ODEBUG:|slab error|rust_kernel: panicked)"
)
# Anywhere in a message.
_PHRASES = re.compile(
    r"KASAN:|UBSAN:|KFENCE:|KMSAN:|KCSAN:|Bad page|hung task|blocked for more than|"
    r"possible recursive locking|circular locking|inconsistent lock state|suspicious RCU|"
    r"possible irq lock inversion|lock held when returning|bad unlock balance|"
    r"sleeping function called from invalid context|scheduling while atomic|"
    r"suspected memory leaks|new suspected memory leak|soft lockup|hard LOCKUP|"
    r"stuck for|self-detected stall|detected stalls|page allocation failure|"
    r"unregister_netdevice: waiting|panicked at"
)
# "[   12.345678] " and, with PRINTK_CALLER, "[  T123] ".
_STAMP = re.compile(r"^(\[ *\d+\.\d+\] ?)?(\[ *[TC]\d+\] ?)?")


def report(lines, context=30):
    """The first report in the log with what follows it, or an empty list."""
    for number, line in enumerate(lines):
        message = _STAMP.sub("", line, count=1).lstrip()
        if _HEADS.match(message) or _PHRASES.search(message):
            return lines[number:number + context]
    return []


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        found = report(log.read().splitlines())
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))
