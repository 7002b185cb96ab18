#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# For people: the modules are loaded, the rest is yours. `exit` ends the guest.

. /guest/lib.sh
load drm_pagemap simgpu
echo "Modules are in /modules, the demo is /bin/demo, tests are in /tests."
exec sh -i
