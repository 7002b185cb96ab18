#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Only shows that the guest comes up.

uname -r
