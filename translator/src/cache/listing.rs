//! The cache seen from outside: what was emitted, for listings and the emission checker.

use super::{Translator, UnitId};
use crate::mode::Mode;
use crate::mutation::Mutation;
use crate::unit::Emitted;

impl Translator {
    /// Makes a mistake on purpose from now on.
    #[cfg(feature = "mutation")]
    pub fn mutate(&mut self, mutation: Mutation) {
        self.mutation = Some(mutation);
    }

    #[cfg(feature = "mutation")]
    pub(super) fn broken(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
    #[cfg(not(feature = "mutation"))]
    #[inline(always)]
    pub(super) const fn broken(&self, _: Mutation) -> bool {
        false
    }

    /// The host code of a unit and what belongs to it, for listings and checks.
    #[must_use]
    pub fn emitted(&self, unit: UnitId) -> Emitted {
        let u = &self.units[unit.0 as usize];
        let end = u.start + u.size;
        let marks = self.marks.partition_point(|m| m.0 < u.start);
        Emitted {
            base: self.memory.address(u.start as usize),
            code: self.memory.read(u.start as usize, u.size as usize),
            hot: u.hot,
            body: u.body - u.start,
            mode: u.key.mode,
            sites: u.sites.clone(),
            links: u.links.clone(),
            exits: self.links[u.links.start as usize..u.links.end as usize]
                .iter()
                .map(|l| l.stub - u.start)
                .collect(),
            marks: self.marks[marks..]
                .iter()
                .take_while(|m| m.0 <= end)
                .map(|m| (m.0 - u.start, m.1))
                .collect(),
        }
    }

    /// What a unit was translated for.
    #[must_use]
    pub fn mode_of(&self, unit: UnitId) -> Mode {
        self.units[unit.0 as usize].key.mode
    }

    /// Every unit in the cache, those that were dropped included.
    pub fn units(&self) -> impl Iterator<Item = UnitId> + use<> {
        (0..self.units.len() as u32).map(UnitId)
    }

    /// What the unit was translated for whose entry for direct jumps is at a host address.
    #[must_use]
    pub fn mode_of_body(&self, host: u64) -> Option<Mode> {
        let offset = host.wrapping_sub(self.memory.address(0));
        let next = self.units.partition_point(|u| u64::from(u.body) <= offset);
        let unit = self.units.get(next.checked_sub(1)?)?;
        (u64::from(unit.body) == offset).then_some(unit.key.mode)
    }

    /// Bytes of the cache from a host address on; fewer at its end, none outside.
    #[must_use]
    pub fn read(&self, host: u64, len: usize) -> Vec<u8> {
        usize::try_from(host.wrapping_sub(self.memory.address(0)))
            .ok()
            .filter(|&at| at < self.memory.size())
            .map_or_else(Vec::new, |at| self.memory.read(at, len))
    }
}
