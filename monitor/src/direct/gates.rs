//! Pages that guest code calls to enter its kernel: those that hold its SYSENTER.
//!
//! In an executor SYSENTER is #UD. On hosts that are virtual machines themselves, #UD can cost as
//! much again as the hand-over, since it leaves the outer machine first; a page fault does not. So
//! such a page is mapped without the right to execute: the call into it stops guest code, and the
//! translator goes on there and into the guest's kernel. After the return from the kernel, the rest
//! of the page runs translated too.

/// Pages at most; more are no pattern.
const MOST: usize = 4;
/// Calls without a kernel entry, in excess of those with one, that make a page ordinary again.
const PATIENCE: u32 = 32;

#[derive(Clone, Copy, Debug)]
struct Gate {
    page: u32,
    /// Kernel entries when it was last called.
    entries: u64,
    excess: u32,
    /// It has other code that is called more often; it stays executable.
    ordinary: bool,
}

/// The gates of one address space.
#[derive(Clone, Debug, Default)]
pub struct Gates(Vec<Gate>);

impl Gates {
    /// True if page number `page` is not to be executed in the executor.
    #[must_use]
    pub fn contains(&self, page: u32) -> bool {
        self.0.iter().any(|g| g.page == page && !g.ordinary)
    }

    /// SYSENTER has stopped guest code in `page`. True if the page is a gate from now on.
    pub fn add(&mut self, page: u32) -> bool {
        let new = self.0.len() < MOST && self.0.iter().all(|g| g.page != page);
        if new {
            self.0.push(Gate {
                page,
                entries: 0,
                excess: 0,
                ordinary: false,
            });
        }
        new
    }

    /// Guest code has called `page`, `entries` kernel entries after the machine's start. False if the
    /// page is an ordinary one from now on.
    pub fn called(&mut self, page: u32, entries: u64) -> bool {
        let Some(gate) = self.0.iter_mut().find(|g| g.page == page) else {
            return false;
        };
        if entries == gate.entries {
            gate.excess += 1;
        } else {
            gate.excess = gate.excess.saturating_sub(1);
        }
        gate.entries = entries;
        gate.ordinary = gate.excess > PATIENCE;
        !gate.ordinary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_with_other_busy_code_become_ordinary() {
        let mut gates = Gates::default();
        assert!(gates.add(7));
        assert!(!gates.add(7));
        assert!((1..1000).all(|entries| gates.called(7, entries)));
        assert!(gates.contains(7));
        assert!((0..PATIENCE).all(|_| gates.called(7, 999)));
        assert!(!gates.called(7, 999));
        assert!(!gates.contains(7));
        assert!(!gates.add(7), "once and for all");
    }

    #[test]
    fn there_are_few() {
        let mut gates = Gates::default();
        assert_eq!((0..100).filter(|&page| gates.add(page)).count(), MOST);
    }
}
