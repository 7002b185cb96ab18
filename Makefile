# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# For people; kbuild reads Kbuild. `make help` says what there is.

.DEFAULT_GOAL := modules

# These are for us and not for the makes that we start.
MAKEOVERRIDES :=
export V KUNIT_FILTER SYSTEM_FILTER CLIENT_FILTER CLIPPY INSTALL_MOD_PATH
export DRM_PAGEMAP_SIZE := $(SIZE)
export DRM_PAGEMAP_VRAM := $(VRAM)
export DRM_PAGEMAP_CPUS := $(CPUS)
kernel := $(if $(filter-out 0 n,$(DEBUG)),debug,lab)
export DRM_PAGEMAP_KERNEL := $(kernel)

ifdef KDIR

# Somebody's own kernel tree: built here, with this machine's compilers.
kbuild-llvm := $(or $(LLVM),$(shell grep -qs '^CONFIG_CC_IS_CLANG=y' $(KDIR)/.config && echo 1))
kbuild := $(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(kbuild-llvm),LLVM=$(kbuild-llvm)) \
	$(if $(O),MO=$(abspath $(O))) $(if $(V),V=$(V)) $(if $(CLIPPY),CLIPPY=$(CLIPPY))

modules modules_install clean rust-analyzer:
	$(if $(and $(O),$(filter $@,modules)),@mkdir -p $(O))
	+$(kbuild) $@

else

modules:
	@scripts/modules $(kernel)
	@echo "The modules are in $$(scripts/where modules/$(kernel))"

modules_install:
	@test -n "$(INSTALL_MOD_PATH)" || { echo "error: these modules are for the lab kernel, not for this machine's:" \
		"say where with INSTALL_MOD_PATH=, or build for a kernel of your own with KDIR=" >&2; exit 1; }
	@scripts/modules $(kernel) modules modules_install

clean:
	@scripts/clean

rust-analyzer:
	@scripts/rust-analyzer $(kernel)

endif

run shell:
	@scripts/run $(subst run,demo,$@)

test:
	@scripts/run-tests $(PARTS)

# SEED= and SCENARIO= are tests/scenario's.
export SCENARIO
export SCENARIO_SEED := $(SEED)
export SCENARIO_COUNT := $(COUNT)
stress: export STRESS_SECONDS := $(SECONDS)
stress: export STRESS_OPERATIONS := $(OPERATIONS)
stress:
	@scripts/run-tests stress

stock intree:
	@scripts/run-tests $@

# The table of Documentation/, from a run of the conformance suite on both providers.
comparison:
	@CLIENT_FILTER= scripts/run-tests client
	@cp "$$(scripts/where client/$(kernel))/c-comparison.md" Documentation/c-comparison.md

# C's layer and ours, measured.
bench:
	@scripts/bench $(if $(filter-out 0 n,$(QUICK)),--quick) $(if $(filter-out 0 n,$(CHECK)),--check) \
		$(if $(filter-out 0 n,$(UPDATE)),--record --document) $(BENCH)

performance:
	@scripts/bench --record --document $(BENCH)

rustfmt:
	@scripts/format

rustfmtcheck:
	@scripts/format --check

clippy:
	@CLIPPY=1 scripts/modules $(kernel)
	@scripts/device clippy --all-targets -- -D warnings

checkpatch:
	@scripts/checkpatch

shellcheck:
	@scripts/in-toolbox sh -c 'cd scripts && shellcheck $$(grep -lE "^#!.*(bash|/sh)$$|^# shellcheck shell" * guest/* 2>/dev/null)'

toolbox:
	@scripts/toolbox

distclean:
	@scripts/clean all

define help_text
Builds:
  modules          the kernel modules (default)
  modules_install  install them under INSTALL_MOD_PATH=
  clean            remove what was built; toolbox and kernels stay
  distclean        remove the toolbox, the kernels and all else in the cache

Runs, in QEMU:
  run              the demo: a process's pages move through the emulated GPU
  test             everything: unit tests, KUnit, system tests, the kernel's own
                   HMM tests, scenarios, the conformance suite, Debian's kernel, the
                   project in a kernel tree
  stress           random operations on memory that CPU and GPU share, every byte
                   checked against a model, for SECONDS=60; SEED= chooses which
  comparison       of these, alone: the conformance suite, on the kernel's own
                   drm_pagemap and on ours; writes Documentation/c-comparison.md
  bench            C's drm_pagemap and ours, measured side by side: a table, a JSON file
                   and a chart; with QUICK=1 a few sizes, with CHECK=1 against the
                   ratios recorded in tests/bench/recorded.json
  performance      the same, and writes those and Documentation/performance.md
  stock            of these, alone: the module on Debian's own kernel, in C's place
                   under Debian's xe.ko
  intree           of these, alone: in a kernel tree, built in and as modules;
                   scripts/intree KDIR puts the project into a tree of yours
  shell            a shell in the guest, with the modules loaded

Checks:
  clippy rustfmt rustfmtcheck checkpatch shellcheck rust-analyzer

Variables:
  KDIR=DIR         build against this kernel tree, on this machine, without the toolbox
  O=DIR            with KDIR: put what is built there instead of here
  V=1              show the commands of the kernel's build
  DEBUG=1          the debug kernel: KASAN, lockdep, kmemleak, DMA debug, ...
  SIZE=64M         of the demo's buffer
  VRAM=256M        of the emulated GPU
  CPUS=2           of the guest
  PARTS="..."      of the tests: device kunit system scenario hmm client dma stock intree bench
  BENCH="..."      options of scripts/bench, e.g. "--ops migrate --cases 2M/4k:3"
  KUNIT_FILTER=G   only KUnit tests that match this glob
  CLIENT_FILTER=G  only cases of the conformance suite that match this glob
  SYSTEM_FILTER=G  only programs of tests/system that match this glob
  SEED=1           of the scenarios and of the stress: another one, other scenarios
  SCENARIO=TEXT    only this scenario, as a failure names it
  COUNT=320        how many scenarios
  scripts/README has more.
endef
export help_text

help:
	@echo "$$help_text"

.PHONY: modules modules_install clean rust-analyzer run shell test stress comparison stock intree bench performance \
	rustfmt rustfmtcheck clippy checkpatch shellcheck toolbox distclean help
