//! Direct jumps between units: patched when their target is known, undone when it goes.

use super::Translator;
use crate::asm::CodeBuf;
use crate::mode::Mode;
use crate::prelude::jump_by_cache;
use crate::unit::UnitId;

/// No link, in a list of links.
pub(super) const NO_LINK: u32 = u32::MAX;

/// A patchable jump in the cache.
pub(super) struct Link {
    pub(super) from: UnitId,
    /// Offset of the rel32 field.
    pub(super) field: u32,
    /// Offset of the stub that exits.
    pub(super) stub: u32,
    pub(super) target_eip: u32,
    /// It goes to another page.
    pub(super) cross: bool,
    /// Linked to this unit now.
    pub(super) to: Option<UnitId>,
    /// Its neighbours among the links to that unit; [`NO_LINK`] for none.
    pub(super) next: u32,
    pub(super) previous: u32,
}

impl Translator {
    /// The target EIP and the mode of a link; None if its unit is gone.
    #[must_use]
    pub fn link_target(&self, link: u32) -> Option<(u32, Mode)> {
        let l = self.links.get(link as usize)?;
        let from = self.units.get(l.from.0 as usize)?;
        from.alive.then_some((l.target_eip, from.key.mode))
    }

    /// Patches a link to jump straight to `to`.
    pub fn link(&mut self, link: u32, to: UnitId) {
        let Some(l) = self.links.get_mut(link as usize) else {
            return;
        };
        if l.to.is_some()
            || !self.units[l.from.0 as usize].alive
            || !self.units[to.0 as usize].alive
        {
            return;
        }
        let target = &mut self.units[to.0 as usize];
        l.to = Some(to);
        l.previous = NO_LINK;
        l.next = core::mem::replace(&mut target.incoming, link);
        let (rel, field, next) = (target.body.wrapping_sub(l.field + 4), l.field, l.next);
        if l.cross {
            self.cross_links.push(link);
        }
        if next != NO_LINK {
            self.links[next as usize].previous = link;
        }
        self.memory.write(field as usize, &rel.to_le_bytes());
        self.stats.links += 1;
    }

    /// Patches a link to go through the jump cache: for targets that must be looked up each time.
    pub fn link_by_cache(&mut self, link: u32, table: usize) {
        // Otherwise the jump would lie behind a unit for one use and be overwritten with it.
        self.forget_once();
        let Some(l) = self.links.get(link as usize) else {
            return;
        };
        let (field, eip, start) = (l.field, l.target_eip, self.used as u32);
        let mut buf = CodeBuf::default();
        jump_by_cache(&mut buf, table, eip, false);
        buf.finish(0, &mut self.finished);
        if self.memory.write(start as usize, &self.finished) {
            self.used = (self.used + self.finished.len()).next_multiple_of(16);
            self.memory
                .write(field as usize, &start.wrapping_sub(field + 4).to_le_bytes());
        }
    }

    /// Makes a linked jump leave the cache again. `patch`: false if its unit keeps jumping.
    pub(super) fn unlink(&mut self, link: u32, patch: bool) {
        let l = &mut self.links[link as usize];
        let Some(to) = l.to.take() else {
            return;
        };
        let (rel, field) = (l.stub.wrapping_sub(l.field + 4), l.field);
        let (next, previous) = (l.next, l.previous);
        if patch {
            self.memory.write(field as usize, &rel.to_le_bytes());
        }
        match previous {
            NO_LINK => self.units[to.0 as usize].incoming = next,
            _ => self.links[previous as usize].next = next,
        }
        if next != NO_LINK {
            self.links[next as usize].previous = previous;
        }
    }

    /// Unlinks every jump between pages (their mapping may have changed).
    pub fn unlink_cross_pages(&mut self) {
        while let Some(link) = self.cross_links.pop() {
            self.unlink(link, true);
        }
    }
}
