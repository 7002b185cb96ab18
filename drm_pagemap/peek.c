// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A look at page tables, to tell what a range has in device memory. Counts entries
 * and follows none of them: no page is locked, referenced or read, so what is seen
 * may be over when this returns.
 *
 * The walks of the core are not for modules, but for hmm_range_fault(), which takes
 * six times as long: it locks page tables and writes an entry for each page.
 */

#include <linux/irqflags.h>
#include <linux/leafops.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pgtable.h>

#include "peek.h"

static bool is_resident(const struct dev_pagemap *pgmap, unsigned long pfn)
{
	for (int i = 0; i < pgmap->nr_range; i++)
		if (pfn >= PHYS_PFN(pgmap->ranges[i].start) &&
		    pfn <= PHYS_PFN(pgmap->ranges[i].end))
			return true;
	return false;
}

static void count(struct drm_pagemap_peek *peek, const struct dev_pagemap *pgmap,
		  softleaf_t entry, unsigned long nr)
{
	if (!softleaf_is_device_private(entry))
		return;
	if (is_resident(pgmap, softleaf_to_pfn(entry)))
		peek->resident += nr;
	else
		peek->elsewhere += nr;
}

/* The table that maps @addr has an entry for each of @nr pages from there on. */
static void count_ptes(struct drm_pagemap_peek *peek, const struct dev_pagemap *pgmap,
		       pmd_t *pmd, unsigned long addr, unsigned long nr)
{
	pte_t *ptep = pte_offset_kernel(pmd, addr);

	for (; nr; nr--, ptep++) {
		pte_t pte = ptep_get_lockless(ptep);

		if (!pte_none(pte) && !pte_present(pte))
			count(peek, pgmap, softleaf_from_pte(pte), 1);
	}
}

/* The PMD's entry for @addr; NULL if there is no table. */
static __always_inline pmd_t *pmd_of(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(pgdp_get(pgd)) || unlikely(pgd_bad(*pgd)))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(p4dp_get(p4d)) || unlikely(p4d_bad(*p4d)))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (pud_none(pudp_get(pud)) || pud_leaf(pudp_get(pud)) || unlikely(pud_bad(*pud)))
		return NULL;
	return pmd_offset(pud, addr);
}

/*
 * Looks at the pages from @start to @end.
 *
 * Under the mmap lock, which keeps all tables but those of PTEs; these are not freed
 * while interrupts are off, as get_user_pages_fast() relies on, too.
 */
struct drm_pagemap_peek drm_pagemap_peek(struct mm_struct *mm, unsigned long start,
					 unsigned long end, const struct dev_pagemap *pgmap)
{
	struct drm_pagemap_peek peek = {};
	unsigned long next;

	mmap_assert_locked(mm);
	for (unsigned long addr = start; addr < end; addr = next) {
		pmd_t *pmdp = pmd_of(mm, addr), pmd;
		unsigned long nr, flags;

		next = pmd_addr_end(addr, end);
		nr = (next - addr) >> PAGE_SHIFT;
		if (!pmdp)
			continue;
		local_irq_save(flags);
		pmd = pmdp_get_lockless(pmdp);
		if (pmd_none(pmd) || pmd_leaf(pmd))
			; /* Nothing, or RAM. */
		else if (!pmd_present(pmd))
			count(&peek, pgmap, softleaf_from_pmd(pmd), nr);
		else if (likely(!pmd_bad(pmd)))
			count_ptes(&peek, pgmap, &pmd, addr, nr);
		local_irq_restore(flags);
	}
	return peek;
}

static inline bool is_entry_resident(const struct dev_pagemap *pgmap, softleaf_t entry)
{
	return softleaf_is_device_private(entry) && is_resident(pgmap, softleaf_to_pfn(entry));
}

/* Whether all pages that the table maps, from @addr to @end, are resident. */
static inline bool are_ptes_resident(const struct dev_pagemap *pgmap, pmd_t *pmd,
				     unsigned long addr, unsigned long end)
{
	pte_t *ptep = pte_offset_kernel(pmd, addr);

	for (; addr < end; addr += PAGE_SIZE, ptep++) {
		pte_t pte = ptep_get_lockless(ptep);

		if (pte_none(pte) || pte_present(pte) ||
		    !is_entry_resident(pgmap, softleaf_from_pte(pte)))
			return false;
	}
	return true;
}

/* Whether all pages from @start to @end are resident in @pgmap; locked as above. */
bool drm_pagemap_is_resident(struct mm_struct *mm, unsigned long start, unsigned long end,
			     const struct dev_pagemap *pgmap)
{
	bool resident = true;
	unsigned long next;

	mmap_assert_locked(mm);
	for (unsigned long addr = start; resident && addr < end; addr = next) {
		pmd_t *pmdp = pmd_of(mm, addr), pmd;
		unsigned long flags;

		if (!pmdp)
			return false;
		next = pmd_addr_end(addr, end);
		local_irq_save(flags);
		pmd = pmdp_get_lockless(pmdp);
		if (pmd_none(pmd) || pmd_leaf(pmd))
			resident = false;
		else if (!pmd_present(pmd))
			resident = is_entry_resident(pgmap, softleaf_from_pmd(pmd));
		else
			resident = likely(!pmd_bad(pmd)) &&
				   are_ptes_resident(pgmap, &pmd, addr, next);
		local_irq_restore(flags);
	}
	return resident;
}

/* Whether @pmd is a table of PTEs. */
static inline bool is_table(pmd_t pmd)
{
	return !pmd_none(pmd) && pmd_present(pmd) && !pmd_leaf(pmd);
}

/* Whether @pte maps a page that belongs to the process alone, in RAM or in a device. */
static bool is_own_page(pte_t pte)
{
	unsigned long pfn;

	if (pte_none(pte))
		return false;
	if (!pte_present(pte))
		return softleaf_is_device_private(softleaf_from_pte(pte));
	pfn = pte_pfn(pte);
	return !is_zero_pfn(pfn) && pfn_valid(pfn) && folio_test_anon(page_folio(pfn_to_page(pfn)));
}

/* From @addr on, up to @end, where the first entry is that is not as @own says. */
static unsigned long skip_ptes(pmd_t *pmd, unsigned long addr, unsigned long end, bool own)
{
	pte_t *ptep = pte_offset_kernel(pmd, addr);

	while (addr < end && is_own_page(ptep_get_lockless(ptep)) == own) {
		addr += PAGE_SIZE;
		ptep++;
	}
	return addr;
}

/*
 * The first pages from @start to @end that a private mapping of a file has copies of,
 * as they were written to, and that are in one table of PTEs; locked as above.
 */
struct drm_pagemap_peek_part drm_pagemap_peek_written(struct mm_struct *mm, unsigned long start,
						      unsigned long end)
{
	struct drm_pagemap_peek_part part = { end, end };
	unsigned long next;

	mmap_assert_locked(mm);
	for (unsigned long addr = start; addr < end && part.start == end; addr = next) {
		pmd_t *pmdp = pmd_of(mm, addr), pmd;
		unsigned long flags;

		next = pmd_addr_end(addr, end);
		if (!pmdp)
			continue;
		local_irq_save(flags);
		pmd = pmdp_get_lockless(pmdp);
		/* A large folio is one of the file's. */
		if (is_table(pmd) && likely(!pmd_bad(pmd))) {
			addr = skip_ptes(&pmd, addr, next, false);
			if (addr < next) {
				part.start = addr;
				part.end = skip_ptes(&pmd, addr, next, true);
			}
		}
		local_irq_restore(flags);
	}
	return part;
}

/*
 * How far, from @start to @end, both of which begin a PMD, no table of PTEs maps the
 * pages, but large folios, or nothing; of that, there is a table of PMDs, which stays
 * while the mmap lock is held.
 */
unsigned long drm_pagemap_peek_whole(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	pmd_t *pmdp = NULL;

	mmap_assert_locked(mm);
	for (unsigned long addr = start; addr < end; addr += PMD_SIZE, pmdp++) {
		pmd_t pmd;

		if (!pmdp || !(addr & ~PUD_MASK))
			pmdp = pmd_of(mm, addr);
		if (!pmdp)
			return addr;
		pmd = pmdp_get_lockless(pmdp);
		if (is_table(pmd))
			return addr;
	}
	return end;
}
