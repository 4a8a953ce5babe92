//! Which guest page tables the executors' mappings were made from.

use hashbrown::HashMap;
use ring3_translator::addr::PAGE_SIZE;
use std::ops::RangeInclusive;

/// What a page table is to a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Its entries map pages.
    Leaf,
    /// Its entries are page directory entries.
    Directory,
}

/// One use of a page table by a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The space's slot.
    pub slot: usize,
    /// What its entries are.
    pub level: Level,
    /// Guest-linear page number that entry 0 begins at.
    pub base: u32,
    /// Bytes of an entry: 4, or 8 with PAE.
    pub entry: u32,
}

impl Use {
    /// Guest-linear pages that one entry covers.
    #[must_use]
    pub fn span(&self) -> u32 {
        match self.level {
            Level::Leaf => 1,
            Level::Directory => PAGE_SIZE as u32 / self.entry,
        }
    }

    /// First pages of what the entries cover that a write of `len` bytes at `pa` touches.
    pub fn touched(&self, pa: u64, len: u64) -> impl Iterator<Item = u32> + use<> {
        let offset = pa & (PAGE_SIZE - 1);
        let last = (offset + len.max(1) - 1).min(PAGE_SIZE - 1);
        let entries: RangeInclusive<u64> =
            offset / u64::from(self.entry)..=last / u64::from(self.entry);
        let (base, span) = (self.base, self.span());
        entries.map(move |i| base + i as u32 * span)
    }
}

/// The uses of every watched page table.
#[derive(Default)]
pub struct Tables(HashMap<u64, Vec<(Use, u32)>>);

impl Tables {
    /// Adds a use of the table at `pa`; true if it is its first of any kind.
    pub fn add(&mut self, pa: u64, what: Use) -> bool {
        let uses = self.0.entry(pa / PAGE_SIZE).or_default();
        let first = uses.is_empty();
        match uses.iter_mut().find(|(u, _)| *u == what) {
            Some((_, count)) => *count += 1,
            None => uses.push((what, 1)),
        }
        first
    }

    /// Takes one use back; true if the table has none left.
    pub fn remove(&mut self, pa: u64, what: Use) -> bool {
        let Some(uses) = self.0.get_mut(&(pa / PAGE_SIZE)) else {
            return false;
        };
        if let Some(at) = uses.iter().position(|(u, _)| *u == what) {
            uses[at].1 -= 1;
            if uses[at].1 == 0 {
                uses.swap_remove(at);
            }
        }
        let none = uses.is_empty();
        if none {
            self.0.remove(&(pa / PAGE_SIZE));
        }
        none
    }

    /// The uses of the table in the page of `pa`.
    #[must_use]
    pub fn uses(&self, pa: u64) -> Vec<Use> {
        let uses = self.0.get(&(pa / PAGE_SIZE));
        uses.map_or_else(Vec::new, |uses| uses.iter().map(|(u, _)| *u).collect())
    }

    /// Number of watched tables.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: Use = Use {
        slot: 1,
        level: Level::Leaf,
        base: 0x400,
        entry: 4,
    };

    #[test]
    fn writes_touch_the_entries_that_they_overlap() {
        let touched = |u: &Use, pa, len| u.touched(pa, len).collect::<Vec<_>>();
        assert_eq!(touched(&LEAF, 0x5008, 4), [0x402]);
        assert_eq!(touched(&LEAF, 0x5007, 2), [0x401, 0x402]);
        assert_eq!(touched(&LEAF, 0x5ffc, 100), [0x7ff], "ends with the page");
        assert_eq!(touched(&LEAF, 0x5000, 0x1000).len(), 1024);
        let directory = Use {
            level: Level::Directory,
            base: 0x4_0000,
            entry: 8,
            ..LEAF
        };
        assert_eq!(touched(&directory, 0x9010, 8), [0x4_0400]);
        assert_eq!(directory.span(), 512);
    }

    #[test]
    fn uses_are_counted() {
        let mut t = Tables::default();
        let other = Use { slot: 2, ..LEAF };
        assert!(t.add(0x5000, LEAF));
        assert!(!t.add(0x5123, LEAF));
        assert!(!t.add(0x5000, other));
        assert_eq!(t.uses(0x5fff), [LEAF, other]);
        assert!(!t.remove(0x5000, LEAF));
        assert!(!t.remove(0x5000, LEAF));
        assert!(t.remove(0x5000, other));
        assert_eq!(t.len(), 0);
        assert!(!t.remove(0x5000, other));
    }
}
