// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The translation look-aside buffer of one address space.
//!
//! It caches for real: a page that the driver takes away without a word stays
//! in use here, as it would on hardware.

use crate::page_table::{Leaf, LARGE, SMALL};

/// How many pages of each size it holds.
pub const SMALL_PAGES: usize = 256;
pub const LARGE_PAGES: usize = 64;

/// The buffer: pages by the low bits of their number.
#[derive(Debug, Default)]
pub struct Tlb {
    small: Half,
    large: Half,
}

/// Pages of one size: the page's number, and what it is. Empty until first used.
type Half = Vec<Option<(u64, Leaf)>>;

impl Tlb {
    /// The page of `va`, if it is cached.
    pub fn look_up(&self, va: u64) -> Option<Leaf> {
        find(&self.large, va / LARGE).or_else(|| find(&self.small, va / SMALL))
    }

    /// Caches the page of `va`; it displaces another one, maybe.
    pub fn insert(&mut self, va: u64, leaf: Leaf) {
        // Otherwise a page of the other size could be found first.
        self.invalidate(va, va);
        let (half, pages) = match leaf.size {
            LARGE => (&mut self.large, LARGE_PAGES),
            _ => (&mut self.small, SMALL_PAGES),
        };
        if half.is_empty() {
            half.resize(pages, None);
        }
        let page = va / leaf.size;
        half[page as usize % pages] = Some((page, leaf));
    }

    /// Forgets the pages that touch `first ..= last`. Returns how many.
    pub fn invalidate(&mut self, first: u64, last: u64) -> u64 {
        forget(&mut self.small, first / SMALL, last / SMALL)
            + forget(&mut self.large, first / LARGE, last / LARGE)
    }

    /// Forgets everything. Returns how many pages that was.
    pub fn clear(&mut self) -> u64 {
        self.invalidate(0, u64::MAX)
    }
}

fn find(half: &Half, page: u64) -> Option<Leaf> {
    let slot = half.get(page as usize % half.len().max(1))?;
    slot.and_then(|(number, leaf)| (number == page).then_some(leaf))
}

fn forget(half: &mut Half, first: u64, last: u64) -> u64 {
    let pages = half.len() as u64;
    if pages == 0 {
        return 0;
    }
    let mut count = 0;
    let mut look = |slot: &mut Option<(u64, Leaf)>| {
        if matches!(slot, Some((page, _)) if (first..=last).contains(page)) {
            *slot = None;
            count += 1;
        }
    };
    if last - first < pages {
        (first..=last).for_each(|page| look(&mut half[(page % pages) as usize]));
    } else {
        half.iter_mut().for_each(look);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page_table::Place;

    fn leaf(at: u64, size: u64) -> Leaf {
        Leaf {
            place: Place::Ram(at),
            write: true,
            atomic: false,
            size,
        }
    }

    #[test]
    fn finds_what_was_put_in_until_told_otherwise() {
        let mut tlb = Tlb::default();
        assert_eq!(tlb.look_up(0), None);
        assert_eq!(tlb.clear(), 0);
        tlb.insert(0x1234, leaf(1, SMALL));
        tlb.insert(5 * LARGE + 77, leaf(2, LARGE));
        assert_eq!(tlb.look_up(0x1fff), Some(leaf(1, SMALL)));
        assert_eq!(tlb.look_up(0x2000), None);
        assert_eq!(tlb.look_up(6 * LARGE - 1), Some(leaf(2, LARGE)));
        assert_eq!(tlb.invalidate(0x2000, 5 * LARGE - 1), 0);
        assert_eq!(tlb.invalidate(0x1fff, 0x1fff), 1);
        assert_eq!(tlb.look_up(0x1234), None);
        assert_eq!(tlb.invalidate(5 * LARGE + SMALL, 5 * LARGE + SMALL), 1);
        assert_eq!(tlb.look_up(5 * LARGE), None);
    }

    #[test]
    fn it_is_bounded() {
        let mut tlb = Tlb::default();
        for page in 0..10_000 {
            tlb.insert(page * SMALL, leaf(page, SMALL));
            tlb.insert((1 << 40) + page * LARGE, leaf(page, LARGE));
        }
        let cached = |tlb: &Tlb| {
            (0..10_000u64)
                .filter(|page| tlb.look_up(page * SMALL).is_some())
                .count()
        };
        assert_eq!(cached(&tlb), SMALL_PAGES);
        assert_eq!(tlb.clear(), (SMALL_PAGES + LARGE_PAGES) as u64);
        assert_eq!(cached(&tlb), 0);
    }

    #[test]
    fn the_newer_size_wins() {
        let mut tlb = Tlb::default();
        tlb.insert(LARGE + SMALL, leaf(1, SMALL));
        tlb.insert(LARGE + SMALL, leaf(2, LARGE));
        assert_eq!(tlb.look_up(LARGE + SMALL), Some(leaf(2, LARGE)));
        tlb.insert(LARGE + SMALL, leaf(3, SMALL));
        assert_eq!(tlb.look_up(LARGE + SMALL), Some(leaf(3, SMALL)));
        assert_eq!(tlb.look_up(LARGE), None, "the whole large page went");
        assert_eq!(tlb.invalidate(0, LARGE * 1000), 1, "a wide range");
    }
}
