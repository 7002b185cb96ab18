#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Modules that were built in the kernel's tree: the kernel's own GPU SVM stands
# on our drm_pagemap, as its C code was left out; then all KUnit suites.

. /guest/lib.sh

gpusvm() {
	load drm_pagemap drm_gpusvm_helper || return
	grep -q '^drm_pagemap [0-9]* [0-9]* drm_gpusvm_helper,' /proc/modules || {
		echo "drm_gpusvm_helper does not use drm_pagemap:"
		cat /proc/modules
		return 1
	}
	unload drm_gpusvm_helper drm_pagemap
}

suite gpusvm gpusvm
. /guest/kunit.sh
