# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Sorts the instructions that tests/bench/plugin counted by the functions of the guest's kernel."""

import bisect
import re

# What a path is made of. The first match counts; what none matches is core mm. A function is
# in one bucket whoever calls it: of a layer's buffer, what is as large as pages and comes
# zeroed is page allocation, for example.
LAYER, MEMORY, ALLOCATION, DMA, DRIVER, CORE, USER = (
    "layer", "memory of the layer", "page allocation", "DMA mapping", "driver callbacks", "core mm", "user")
BUCKETS = (USER, CORE, ALLOCATION, DMA, MEMORY, LAYER, DRIVER)
_PATTERNS = (
    (LAYER, re.compile(r"_R|rust_")),
    (DMA, re.compile(r"_*(debug_)?dma_|_*iommu_|swiotlb_|is_swiotlb|_*trace_dma|arch_sync_dma|phys_to_dma")),
    (MEMORY, re.compile(
        r"k[vz]*(m|c|re)?alloc|kfree|kvfree|_+kv?malloc|_*kmem_cache|_*kvmalloc|_*k[v]?realloc|_*vmalloc|vfree|"
        r"_*slab_|_+slab|memset|_*vmap_|vunmap|alloc_vmap|free_vmap|_*refill_sheaf|_*pcs_|alloc_from_pcs|"
        r"_*sheaf_|barn_|deactivate_slab|new_slab|allocate_slab|free_large_kmalloc|remove_vm_area|find_vmap|purge_")),
    (ALLOCATION, re.compile(
        r"_*alloc_(frozen_)?pages|_*folio_alloc|vma_alloc|_*alloc_page|get_page_from_freelist|_*rmqueue|"
        r"free_(frozen|unref)|_*free_(frozen|unref|one|page|tail)|_*free_pages|free_pcppages|post_alloc_hook|"
        r"prep_|_*zone_watermark|policy_node|_*get_pfnblock|_*folios?_put|_*mem_cgroup_(charge|uncharge)|"
        r"charge_memcg|_*try_charge|_*uncharge|_*compact|clear_(huge_)?page|nr_free|decay_pcp|_*next_zones|"
        r"expand$|split_page|alloc_anon|refill_stock|drain_stock|_*add_to_free|_*find_buddy|page_counter|"
        r"_*get_vma_policy|zone_statistics")),
)


# What the layer does, by function, with what is inlined in it; for ours, by the module of Rust that the
# function is of. The first match counts. In front of it is what is executed about as often as there
# are pages, whatever the function: the loops over them.
LOOPS, OPERATION = "each page", "operation"
_GROUPS = (
    ("policy", re.compile(r".*(6policy|drm_pagemap_read_(fault|thrash)|get_devmem_timeslice)")),
    ("DMA", re.compile(r".*(3dma|6mapper|8dma_page|12peer_mapping|_dma_|map_system_pages|unmap_pages)")),
    ("guard of folios", re.compile(r".*(9zap_guard|finalize_guarded|folio_(revive|give_back|end_revival|get|put))")),
    (OPERATION, re.compile(r".*7migrate|drm_pagemap_(migrate|evict|is_resident)")),
    ("arrays, folios", re.compile(r".*(9migration|5steps|5tally|4pool|9vma_range|11zone_device|5folio|"
                                  r"helper_(locked_ram|zone_device|clear_head)|cpages|skip_retired|get_devmem_page)")),
    ("allocation's data", re.compile(r".*(3zdd|7dev_ops|15dpagemap_devmem|8dpagemap|zdd|folio_free|drm_pagemap_put|"
                                     r"refcount|atomic|krealloc)")),
    ("other", re.compile("")),
)
LAYER_GROUPS = (LOOPS, *(name for name, _ in _GROUPS))


def group_of(symbol, count, pages):
    """What an instruction of the layer, executed `count` times for as many pages, is for."""
    # Loops may be unrolled, by eight at most.
    if pages > 1 and count >= max(4, pages / 8):
        return LOOPS
    return next(name for name, pattern in _GROUPS if pattern.match(symbol))


def bucket_of(symbol, module):
    # What is Rust in the driver is mostly instances of the layer's generic functions.
    if module == "drm_pagemap_bench" and not symbol.startswith(("_R", "bench_door_migrate")):
        return DRIVER
    if module:
        return LAYER
    for bucket, pattern in _PATTERNS:
        if pattern.match(symbol):
            return bucket
    return CORE


class Symbols:
    """Functions by address: the kernel's from its System.map, the modules' from the guest."""

    def __init__(self, system_map, guest_lines):
        entries = {}
        with open(system_map, encoding="ascii") as file:
            for line in file:
                address, kind, name = line.split()
                if kind in "tTwW":
                    entries[int(address, 16)] = (name, "")
        for line in guest_lines:
            address, _, name, module = line.split()
            entries[int(address, 16)] = (name, module.strip("[]"))
        self.addresses = sorted(entries)
        self.names = [entries[address] for address in self.addresses]

    def at(self, address):
        return self.names[bisect.bisect_right(self.addresses, address) - 1]


def read(path, symbols, pages):
    """{case number: {"path": n, "callbacks": n, "buckets": {...}, "layer": {...}, "functions": [[bucket, name, n], ...]}}

    `pages` has the number of pages of each case; "layer" is by group.
    """
    cases = {}
    case = functions = nr_pages = None
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("case "):
                words = line.split()
                case = {"path": int(words[3]), "callbacks": int(words[5])}
                functions = case["functions"] = {}
                case["layer"] = dict.fromkeys(LAYER_GROUPS, 0)
                nr_pages = pages[len(cases)]
                cases[int(words[1])] = case
                continue
            address, count = line.split()
            name = symbols.at(int(address, 16)) if address != "0" else ("user space", None)
            functions[name] = functions.get(name, 0) + int(count)
            if name[1] is not None and bucket_of(*name) == LAYER:
                case["layer"][group_of(name[0], int(count), nr_pages)] += int(count)
    for case in cases.values():
        buckets = dict.fromkeys(BUCKETS, 0)
        listed = []
        for (name, module), count in case["functions"].items():
            bucket = USER if module is None else bucket_of(name, module)
            buckets[bucket] += count
            listed.append([bucket, name, count])
        case["buckets"] = buckets
        case["functions"] = sorted(listed, key=lambda entry: -entry[2])
    return cases
