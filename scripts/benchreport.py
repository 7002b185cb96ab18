# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Tables, a document and a chart of what scripts/bench measured."""

import os
import re
import shutil
import subprocess

import breakdown

PROVIDERS = {"c": "C", "ours": "Rust"}
PAGE = 4096
SUFFIXES = (("G", 30), ("M", 20), ("K", 10))
OPS = {
    "migrate": "migrate",
    "fault": "CPU fault",
    "evict": "evict",
    "peer": "peer",
    "resident": "already resident",
    "untouched": "never touched",
    "half": "half resident",
    "sparse": "sparse CPU touch",
    "sequential": "sequential CPU touch",
    "ping-pong": "ping-pong",
}
KINDS = {"4k": "4 KiB", "thp": "THP", "mixed": "mixed"}
# Ours divided by C's, at most: instructions of the whole path, and of the layer's own share.
PATH_TARGETS = {"migrate": 1.0, "fault": 1.0, "evict": 1.0, "peer": 1.0, "resident": 0.1, "half": 0.55,
                "untouched": 0.5, "sparse": 0.1, "sequential": 1.1}
# The kinds that such a target is about, where it is not about all.
TARGET_KINDS = {"sparse": ("4k", "mixed")}
# The size from which on there is such a target, where it is not for all: there is little to spare in
# what a fault window brings home at once, or of a path that is allocation for the most part.
TARGET_SIZES = {"sparse": 2 << 20, "untouched": 2 << 20}
LAYER_TARGETS = {"migrate": 0.5, "fault": 0.5, "evict": 0.5, "peer": 0.5}
# Ours divided by C's, at least, in bytes a second, by processors: of a populate of this size and more.
SPEED_TARGETS = {2: 1.7, 1: 1.0}
SPEED_SIZE = 64 << 20
# What the copy engine is at in the time that an operation takes.
WHEN = {
    "before": "before its first copy",
    "copying": "it copies",
    "between": "it waits",
    "after": "after its last copy",
}
# Bytes of RAM that a populate may take, whatever its size.
HELD_TARGET = 4 << 20

PARTS = [bucket for bucket in breakdown.BUCKETS if bucket not in (breakdown.USER, breakdown.DRIVER)]


def size_of(text):
    for suffix, shift in SUFFIXES:
        if text.endswith(suffix):
            return int(text[:-1]) << shift
    return int(text)


def size_name(size):
    for suffix, shift in SUFFIXES:
        if size >> shift and not size % (1 << shift):
            return f"{size >> shift} {suffix}iB"
    return f"{size} B"


def ratio(ours, c):
    return ours / c if c else float("inf") if ours else 1.0


def _target(value, target, at_least=False):
    """["<= 0.50", "yes"], or blanks where there is no target."""
    if target is None:
        return ["", ""]
    good = round(value, 3) >= target if at_least else round(value, 3) <= target
    return [f"{'>=' if at_least else '<='} {target:.2f}", "yes" if good else "NO"]


def _path_target(row):
    """Of the whole path, or None."""
    if row["kind"] in TARGET_KINDS.get(row["op"], KINDS) and row["size"] >= TARGET_SIZES.get(row["op"], 0):
        return PATH_TARGETS.get(row["op"])
    return None


def _case(row):
    return [OPS[row["op"]], KINDS[row["kind"]], size_name(row["size"])]


def _path_table(rows):
    lines = [["op", "pages", "size", "C", "Rust", "ratio", "target", "met", "layer C", "layer Rust", "ratio", "target", "met"]]
    for row in rows:
        pages = row["size"] / PAGE
        paths = [f"{row[provider]['path'] / pages:.1f}" for provider in PROVIDERS]
        layers = [f"{row[provider]['buckets'][breakdown.LAYER] / pages:.1f}" for provider in PROVIDERS]
        lines.append([*_case(row), *paths, f"{row['path_ratio']:.3f}", *_target(row["path_ratio"], _path_target(row)),
                      *layers, f"{row['layer_ratio']:.3f}", *_target(row["layer_ratio"], LAYER_TARGETS.get(row["op"]))])
    return lines


def _part_table(rows):
    lines = [["op", "pages", "size", "", *PARTS]]
    for row in rows:
        for provider, name in PROVIDERS.items():
            lines.append([*_case(row), name,
                          *(f"{row[provider]['buckets'][part] / (row['size'] / PAGE):.1f}" for part in PARTS)])
    return lines


def _floor_table(rows):
    """Of targets that are not met: what the ratio would be if the layer cost nothing at all."""
    lines = [["op", "pages", "size", "ratio", "target", "core mm", "page allocation", "DMA mapping", "left for the layer",
              "the layer takes", "without any layer"]]
    for row in rows:
        target, whole = _path_target(row), row["c"]["path"]
        if target is None or round(row["path_ratio"], 3) <= target:
            continue
        others = [row["ours"]["buckets"][part] for part in PARTS if part not in (breakdown.MEMORY, breakdown.LAYER)]
        layer = row["ours"]["path"] - sum(others)
        lines.append([*_case(row), f"{row['path_ratio']:.3f}", f"<= {target:.2f}",
                      *(f"{ratio(part, whole):.3f}" for part in others),
                      f"{max(0, target - ratio(sum(others), whole)):.3f}", f"{ratio(layer, whole):.3f}",
                      f"{ratio(sum(others), whole):.3f}"])
    return lines


def _layer_table(rows):
    """Of targets of the layer's own share that are not met: what it does in a whole operation."""
    used = [group for group in breakdown.LAYER_GROUPS if any(row["ours"]["layer"][group] for row in rows)]
    lines = [["op", "pages", "size", "C: each page", "C: the rest", "half of both", "Rust", *used, "ratio", "C, all parts but core mm",
              "Rust", "ratio"]]
    for row in rows:
        target = LAYER_TARGETS.get(row["op"])
        if target is None or round(row["layer_ratio"], 3) <= target:
            continue
        c, ours = row["c"]["layer"], row["ours"]["layer"]
        wide = [sum(row[provider]["buckets"][part] for part in PARTS if part != breakdown.CORE) for provider in PROVIDERS]
        lines.append([*_case(row), str(c[breakdown.LOOPS]), str(sum(c.values()) - c[breakdown.LOOPS]),
                      f"{target * sum(c.values()):.0f}", str(sum(ours.values())), *(str(ours[group]) for group in used),
                      f"{row['layer_ratio']:.3f}", *map(str, wide), f"{ratio(wide[1], wide[0]):.3f}"])
    return lines


def _speed_target(row):
    """Of the wall clock, or None."""
    return SPEED_TARGETS[row["cpus"]] if row["op"] == "migrate" and row["size"] >= SPEED_SIZE else None


def _wall_table(rows):
    lines = [["op", "pages", "size", "vCPUs", "C MB/s", "quartiles", "Rust MB/s", "quartiles", "ratio", "target", "met",
              "copy MB/s", "bound"]]
    for row in rows:
        wanted = _speed_target(row)
        figures = []
        for provider in PROVIDERS:
            one = row[provider]
            figures += [f"{one['median']:.0f}", f"{one['low']:.0f}-{one['high']:.0f}"]
        lines.append([*_case(row), str(row["cpus"]), *figures, f"{row['ratio']:.2f}", *_target(row["ratio"], wanted, True),
                      f"{row['copy']:.0f}", f"{row['bound']:.2f}"])
    return lines


def _when_table(rows):
    """What the time of the wall clock is made of."""
    lines = [["op", "pages", "size", "vCPUs", "", "us", *WHEN.values(), "us for the target", "beside its copies"]]
    for row in rows:
        target = _speed_target(row)
        for provider, name in PROVIDERS.items():
            one, wanted = row[provider], ["", ""]
            if target is not None and row["ratio"] < target and provider == "ours":
                us = row["size"] / row["c"]["median"] / target
                wanted = [f"{us:.0f}", f"{us - one['when']['copying'] / 1000:.0f}"]
            lines.append([*_case(row), str(row["cpus"]), name, f"{row['size'] / one['median']:.0f}",
                          *(f"{one['when'][what] / 1000:.0f}" for what in WHEN), *wanted])
    return lines


def _held_table(rows):
    """The memory that a populate takes meanwhile."""
    lines = [["pages", "size", "vCPUs", "C KiB", "Rust KiB", "target", "met"]]
    for row in rows:
        if row["op"] == "migrate":
            held = [row[provider]["held"] for provider in PROVIDERS]
            lines.append([*_case(row)[1:], str(row.get("cpus", 1)), *(str(bytes_ >> 10) for bytes_ in held),
                          f"<= {HELD_TARGET >> 10}", "yes" if held[1] <= HELD_TARGET else "NO"])
    return lines


def _plain(lines):
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) if number < 3 else cell.rjust(width)
                               for number, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)


def _markdown(lines):
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest])


TITLES = (
    ("Instructions per 4 KiB page", "Without the driver's callbacks, which copy; and what the layer itself takes of that."),
    ("What the paths are made of", "The same instructions, by the functions that they are in."),
    ("What bounds the targets that are not met", "As shares of C's path: what the layer does not decide, what that leaves of"
     " the target for the layer and the memory it takes, what these take, and what the ratio would be without them."),
    ("What bounds the layer's share", "Where its target is not met: instructions of one whole operation. *Each page* is what"
     " is executed about as often as there are pages; the rest once in a call, or for a large folio. It is by the"
     " functions that it is in, with what the compiler has put into them: the operation's own looks up the area, the"
     " pagemap and its policy, and plans. Half of what C's layer takes would have to do for all of that. C's layer leaves"
     " some of it to others, as arrays that come zeroed, and a DMA mapping for each page: the last columns are of the layer"
     " with page allocation, DMA mapping and the memory that it takes."),
    ("Wall clock", "MB/s: medians, and the quartiles around them. All copies are made by the copy engine of the emulated GPU,"
     " which the driver waits for by interrupt. Peers are two halves of one device's VRAM, between which it copies."
     " `copy` is that alone, of all bytes at once, as C's layer has it made; with `bound`, the ratio, all of the rest"
     " would be hidden behind it."),
    ("What the wall clock's time is made of", "Microseconds, by what the copy engine is at, as far as its interrupts tell the"
     " driver: medians, each of its own, so a row's need not add up. Where a target is not met, the time that would meet"
     " it, and what that leaves beside its copies: to collect the first chunk, before which there is nothing to copy, and"
     " for what is to be done after the last one. Of a single huge page that is what the rows of 2 MiB show."),
    ("Memory held during a populate", "What is less of free RAM in a copy than before, at the most."),
)


def _tables(result):
    rows, wall = result["instructions"], result["wall"]
    for (title, words), lines in zip(TITLES, (_path_table(rows), _part_table(rows), _floor_table(rows), _layer_table(rows),
                                             _wall_table(wall), _when_table(wall), _held_table(wall or rows))):
        if len(lines) > 1:
            yield title, words, lines


def text(result, functions=0):
    out = []
    for title, words, lines in _tables(result):
        out.append(f"{title}. {words}\n{_plain(lines)}\n")
    for row in result["instructions"] if functions else ():
        for provider, name in PROVIDERS.items():
            out.append(f"{' '.join(_case(row))}, {name}, per page:")
            for bucket, function, count in row[provider]["functions"][:functions]:
                out.append(f"{count / (row['size'] / PAGE):12.1f}  {bucket:20} {function}")
    return "\n".join(out)


def machine(cache, kernel):
    """What was measured on, and with."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    with open(os.path.join(cache, "kernel", kernel, "include/config/kernel.release"), encoding="utf-8") as file:
        release = file.read().strip()
    accel = [name for name in os.listdir(cache) if name.startswith("accel-")]
    how = "not probed"
    if accel:
        with open(os.path.join(cache, accel[0]), encoding="utf-8") as file:
            how = file.read().strip()

    def first_line(*command):
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]

    return {"processor": model[1] if model else "unknown", "processors": os.cpu_count(), "accelerator": how,
            "kernel": release, "qemu": first_line("qemu-system-x86_64", "--version"),
            "rustc": first_line("rustc", "--version"), "clang": first_line("clang", "--version")}


def chart(result, path):
    """Instructions by part, ratios, and bytes a second."""
    os.environ.setdefault("MPLCONFIGDIR", "/run/matplotlib")
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, wall = result["instructions"], [row for row in result["wall"] if row["op"] == "migrate"]
    sizes = {row["size"] for row in rows}
    shown = min(sizes, key=lambda size: abs(size - (2 << 20)))
    figure, axes = pyplot.subplots(3 if wall else 2, 1, figsize=(11, 14 if wall else 9.5), layout="constrained")

    bars = [row for row in rows if row["size"] == shown and row["kind"] == "4k" and row["op"] != "ping-pong"]
    left = {"c": -0.2, "ours": 0.2}
    for provider, name in PROVIDERS.items():
        base = [0.0] * len(bars)
        for number, part in enumerate(PARTS):
            heights = [row[provider]["buckets"][part] / (row["size"] / PAGE) for row in bars]
            axes[0].bar([x + left[provider] for x in range(len(bars))], heights, 0.36, base, color=f"C{number}",
                        alpha=0.6 if provider == "c" else 1.0, label=f"{part}, {name}")
            base = [a + b for a, b in zip(base, heights)]
    axes[0].set_xticks(range(len(bars)), [OPS[row["op"]] for row in bars], rotation=15)
    axes[0].set_ylabel("instructions a page")
    axes[0].set_title(f"{size_name(shown)} of 4 KiB pages: C left, Rust right")
    axes[0].legend(ncols=2, fontsize="small")

    groups = [row for row in rows if _path_target(row) is not None]
    series = sorted({(row["size"], row["kind"]) for row in groups})
    names = [op for op in PATH_TARGETS if any(row["op"] == op for row in groups)]
    for number, (size, kind) in enumerate(series):
        points = {row["op"]: row["path_ratio"] for row in groups if (row["size"], row["kind"]) == (size, kind)}
        width = 0.8 / len(series)
        axes[1].bar([names.index(op) - 0.4 + (number + 0.5) * width for op in points], list(points.values()), width,
                    label=f"{size_name(size)}, {KINDS[kind]}")
    for x, op in enumerate(names):
        axes[1].plot([x - 0.4, x + 0.4], [PATH_TARGETS[op]] * 2, color="black", linewidth=2,
                     label="target" if not x else None)
    axes[1].set_xticks(range(len(names)), [OPS[op] for op in names], rotation=15)
    axes[1].set_ylabel("instructions, Rust / C")
    axes[1].set_title("Whole path, as a ratio; less is better")
    axes[1].legend(ncols=2, fontsize="small")

    if wall:
        names = [f"{size_name(row['size'])}\n{KINDS[row['kind']]}\n{row['cpus']} vCPUs" for row in wall]
        for provider, name in PROVIDERS.items():
            medians = [row[provider]["median"] for row in wall]
            spread = [[row[provider]["median"] - row[provider]["low"] for row in wall],
                      [row[provider]["high"] - row[provider]["median"] for row in wall]]
            axes[2].bar([x + left[provider] for x in range(len(wall))], medians, 0.36, yerr=spread, capsize=3, label=name)
        axes[2].set_xticks(range(len(wall)), names)
        axes[2].set_ylabel("MB/s")
        axes[2].set_title("Populate, wall clock: medians and quartiles")
        axes[2].legend()
    figure.savefig(path, dpi=100, metadata={"Software": None})


def document(result, path, chart_path):
    """Writes Documentation/performance.md, or what is to be like it, and the chart beside it."""
    facts = result["machine"]
    picture = os.path.splitext(path)[0] + ".png"
    lines = [
        "<!-- SPDX-License-Identifier: GPL-2.0-only OR MIT -->",
        "",
        "# The C layer and ours, measured",
        "",
        "The kernel's own `drm_pagemap.c` and this module, under the same driver, `tests/bench/`, and the same",
        "kernel. Regenerated by",
        "",
        "    make performance",
        "",
        f"This is from {facts['processors']} processors of the kind {facts['processor']}, accelerator for the wall"
        f" clock: {facts['accelerator']}. Linux {facts['kernel']}; {facts['qemu']}; {facts['rustc']}; {facts['clang']}.",
        "",
        "*Instructions* are those that a guest executes, under `-icount shift=0,sleep=off` with one processor: the",
        "least of all repeats, counted by its clock and by a plugin of QEMU, which have to agree. `4 KiB`, `THP` and",
        "`mixed` (every second 2 MiB) are the pages that the memory is in at the start. Each repeat verifies the data.",
        "",
        f"![chart]({os.path.basename(picture)})",
    ]
    for title, words, table in _tables(result):
        lines += ["", f"## {title}", "", words, "", _markdown(table)]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    shutil.copyfile(chart_path, picture)
