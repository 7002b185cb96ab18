#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""ktap.py KUNIT_TOOLS OUT TALLY [SUITE...]: judges what a guest printed.

OUT holds suites between "# suite-begin NAME" and "# suite-end NAME STATUS".
Each is read by the kernel's own KTAP parser (KUNIT_TOOLS is the kernel's
tools/testing/kunit). Prints a line for each suite and for each test that
failed or was skipped, and adds "PASSED FAILED SKIPPED" to the file TALLY. A
SUITE that is named and absent has failed; "kunit*5" stands for five suites
whose names start with "kunit".
"""

import sys


def suites(lines):
    """Pairs of name and (status or None, lines)."""
    name, body = None, []
    for line in lines:
        if line.startswith("# suite-begin "):
            if name:
                yield name, None, body
            name, body = line.split(" ", 2)[2], []
        elif name and line.startswith(f"# suite-end {name} "):
            yield name, int(line.rsplit(" ", 1)[1]), body
            name = None
        elif name:
            body.append(line)
    if name:
        yield name, None, body


def leaves(test, path=()):
    """All test cases, with the names that lead to each."""
    path = (*path, test.name) if test.name not in ("", "main") else path
    if not test.subtests:
        yield path, test
    for subtest in test.subtests:
        yield from leaves(subtest, path)


class Judge:
    def __init__(self, parser, printer):
        self.parser = parser
        self.printer = printer
        self.passed = self.failed = self.skipped = 0

    def fail(self, name, why=()):
        self.failed += 1
        print(f"FAILED   {name}")
        for line in list(why)[-20:]:
            print(f"         {line}")

    def plain(self, name, status, body):
        """A suite that prints no KTAP is one test."""
        if status == 0 and not name.startswith(("kunit", "system", "scenario")):
            self.passed += 1
            print(f"{name}: 1 passed, 0 failed, 0 skipped")
        else:
            self.fail(f"{name}: status {status}, and no test results", body)

    def suite(self, name, status, body):
        # Or TAP, which the kernel's selftests print.
        if not any("TAP version" in line for line in body):
            self.plain(name, status, body)
            return
        result = self.parser.parse_run_tests(body, self.printer)
        states = self.parser.TestStatus
        before = self.failed
        counts = result.counts
        for path, test in leaves(result):
            full = ": ".join((name, *path))
            if test.status == states.SKIPPED:
                print(f"skipped  {full}: {test.skip_reason or 'no reason given'}")
            elif test.status != states.SUCCESS:
                self.fail(full, test.log)
        self.passed += counts.passed
        self.skipped += counts.skipped
        # What no test case shows: a plan that was not fulfilled, a suite that
        # failed as a whole, a program that died after its tests.
        if self.failed == before and (counts.failed or counts.crashed or counts.errors):
            self.fail(f"{name}: incomplete results", body)
        if self.failed == before and status != 0:
            ending = "never ended" if status is None else f"ended with status {status}"
            self.fail(f"{name}: {ending}", body)
        print(f"{name}: {counts.passed} passed, {self.failed - before} failed, {counts.skipped} skipped")


def main():
    tools, out, tally, *expected = sys.argv[1:]
    sys.path.insert(0, tools)
    sys.dont_write_bytecode = True
    # pylint: disable=import-outside-toplevel,import-error
    import kunit_parser
    import kunit_printer

    judge = Judge(kunit_parser, kunit_printer.Printer(print=False))
    with open(out, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    seen = []
    for name, status, body in suites(lines):
        seen.append(name)
        judge.suite(name, status, body)
    for name in expected:
        prefix, star, number = name.partition("*")
        if star:
            missing = int(number) - sum(one.startswith(prefix) for one in seen)
            for _ in range(missing):
                judge.fail(f"{prefix}: a suite did not run")
        elif name not in seen:
            judge.fail(f"{name}: did not run")
    with open(tally, "a", encoding="utf-8") as file:
        print(judge.passed, judge.failed, judge.skipped, file=file)


if __name__ == "__main__":
    main()
