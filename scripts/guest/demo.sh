#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The demo: modules in, a process's pages through the GPU, modules out.

. /guest/lib.sh
load drm_pagemap simgpu || exit
demo --size "${size:-64M}" ${color:+--color} || exit
unload simgpu drm_pagemap && leaks || exit
