//! Which units have bytes in which physical page, and what becomes of them when it is written.

use super::links::NO_LINK;
use super::{NO_RECENT, Translator, Unit, recent_slot};
use crate::addr::PAGE_SIZE;
use crate::mutation::Mutation;
use crate::state::GuestState;
use crate::unit::UnitId;

/// The units that have bytes in a physical page.
#[derive(Default)]
pub(super) struct PageUnits {
    /// Where: a bit for each 64 bytes. Units that are gone may have left theirs.
    pub(super) lines: u64,
    pub(super) list: Vec<UnitId>,
}

/// A bit for each 64 bytes of a page that `len` bytes (at least one) at `offset` touch.
fn lines(offset: u64, len: u64) -> u64 {
    let last = ((offset + len - 1).min(PAGE_SIZE - 1)) / 64;
    (u64::MAX << (offset / 64)) & (u64::MAX >> (63 - last))
}

/// The lines of a unit in the page of `phys`, one of its two.
pub(super) fn unit_lines(u: &Unit, phys: u64) -> u64 {
    let offset = u.key.phys & (PAGE_SIZE - 1);
    let mut all = 0;
    if phys / PAGE_SIZE == u.key.phys / PAGE_SIZE {
        all |= lines(offset, u64::from(u.len));
    }
    if u.second_page
        .is_some_and(|page| page == phys & !(PAGE_SIZE - 1))
    {
        all |= lines(0, offset + u64::from(u.len) - PAGE_SIZE);
    }
    all
}

/// Most adapted sites that are remembered: a guest can make one of each of its bytes.
const MAX_ADAPTED: usize = 1 << 20;

impl Translator {
    /// Whether translations exist for the physical page of `phys`.
    #[must_use]
    pub fn page_has_code(&self, phys: u64) -> bool {
        self.by_page
            .get(&(phys / PAGE_SIZE))
            .is_some_and(|units| !units.list.is_empty())
    }

    /// Drops the units that overlap `len` bytes at `phys` (within one page); true if any was.
    pub fn invalidate(&mut self, st: &mut GuestState, phys: u64, len: u64) -> bool {
        if self.broken(Mutation::StaleUnits) {
            return false;
        }
        let page = phys / PAGE_SIZE;
        let Some(units) = self.by_page.get_mut(&page) else {
            return false;
        };
        // Data beside code: the usual case.
        if units.lines & lines(phys & (PAGE_SIZE - 1), len) == 0 {
            return false;
        }
        let mut list = core::mem::take(&mut units.list);
        let mut any = false;
        list.retain(|&id| {
            let u = &self.units[id.0 as usize];
            if !u.alive {
                return false;
            }
            if unit_overlaps(u, phys, len) {
                self.kill(st, id);
                any = true;
                false
            } else {
                true
            }
        });
        if list.is_empty() {
            self.by_page.remove(&page);
        } else {
            let lines = list
                .iter()
                .map(|id| unit_lines(&self.units[id.0 as usize], phys))
                .fold(0, |all, lines| all | lines);
            self.by_page.insert(page, PageUnits { lines, list });
        }
        any
    }

    fn kill(&mut self, st: &mut GuestState, id: UnitId) {
        let u = &mut self.units[id.0 as usize];
        u.alive = false;
        self.stats.invalidated += 1;
        let key = u.key;
        let links = u.links.clone();
        let entry = u.indirect;
        while self.units[id.0 as usize].incoming != NO_LINK {
            let link = self.units[id.0 as usize].incoming;
            self.unlink(link, !self.broken(Mutation::StaleLinks));
        }
        // Its own jumps must find their targets anew: the code that follows may be new as well.
        for link in links {
            self.unlink(link, true);
        }
        if self.by_key.get(&key) == Some(&id) {
            self.by_key.remove(&key);
        }
        let recent = &mut self.recent[recent_slot(&key)];
        if recent.unit == id.0 {
            *recent = NO_RECENT;
        }
        let address = self.memory.address(entry as usize);
        for table in 0..2 {
            let slot = &mut st.jump_cache[table][(key.eip & 0xffff) as usize];
            if *slot == address && !self.broken(Mutation::StaleJumpCache) {
                *slot = self.stubs.jump_miss;
            }
        }
    }

    /// Makes the instruction at `phys` use the adapted form from now on; drops its translations.
    pub fn adapt(&mut self, st: &mut GuestState, phys: u64) {
        if self.adapted.len() >= MAX_ADAPTED {
            self.adapted.clear(); // those that matter come back
        }
        if self.adapted.insert(phys) {
            self.stats.adapted += 1;
        }
        self.invalidate(st, phys, 1);
    }
}

fn unit_overlaps(u: &Unit, phys: u64, len: u64) -> bool {
    let first_page_end = (u.key.phys | (PAGE_SIZE - 1)) + 1;
    let end = u.key.phys + u64::from(u.len);
    let in_first = phys < end.min(first_page_end) && u.key.phys < phys + len;
    let in_second = u.second_page.is_some_and(|page| {
        let tail = end.saturating_sub(first_page_end);
        phys < page + tail && page < phys + len
    });
    in_first || in_second
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn lines_are_those_that_the_bytes_touch() {
        assert_eq!(lines(0, 1), 1);
        assert_eq!(lines(63, 1), 1);
        assert_eq!(lines(63, 2), 3);
        assert_eq!(lines(64, 64), 2);
        assert_eq!(lines(4095, 1), 1 << 63);
        assert_eq!(lines(4090, 15), 1 << 63);
        assert_eq!(lines(0, 4096), u64::MAX);
    }
}
