//! When an address space runs directly: the decisions, without the machinery.
//!
//! A trap out of an executor costs two hand-overs between processes, and a translated program runs
//! two to eight times slower than a direct one. So direct execution pays for runs between traps that
//! last about as long, on the bare processor, as such a trap, or several times that translated.
//! What a trap costs differs much between hosts (three times as much on virtual ones), so it is
//! measured.
//!
//! All times are processor time: on a busy host, waiting for the processor is no computing.

use crate::config::Ring3Policy;

/// Least evidence for a promotion, ns.
const EVIDENCE: u64 = 1_500_000;
/// Mean translated time between kernel entries that earns a promotion, in costs of a trap.
const TRANSLATED_RUN: u64 = 5;
/// Mean direct time between traps below which a space is demoted, in costs of a trap.
const DIRECT_RUN: u64 = 1;
/// Traps that are judged together.
const JUDGED: u32 = 64;
/// Wait after the first demotion, ns; doubles with each.
const BACKOFF: u64 = 50_000_000;
/// Most doublings.
const MAX_DEMOTIONS: u32 = 6;
/// Direct execution without a demotion for so long forgives earlier ones, ns.
const FORGIVEN: u64 = 1_000_000_000;
/// Two evictions of all mappings within this time: the working set does not fit, ns.
const EVICTION_SPACING: u64 = 2_000_000_000;

/// What a trap out of an executor and the way back cost on this host.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Time, ns.
    pub trap: u64,
    /// Processor time of the executor's in it, ns.
    pub cpu: u64,
}

impl Default for Costs {
    /// Before anything was measured.
    fn default() -> Self {
        Self {
            trap: 12_000,
            cpu: 4_000,
        }
    }
}

/// How the ring-3 code that runs now behaves: kernel entries since a point in time. Begins anew
/// when the address space changes, which leaves it a [`Stint`], and when the processor was idle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    since: u64,
    entries: u64,
}

/// Time that an address space had, ns, and its kernel entries in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stint {
    /// Time, ns.
    pub time: u64,
    /// Kernel entries.
    pub entries: u64,
}

impl Stint {
    fn add(&mut self, other: Self) {
        self.time += other.time;
        self.entries += other.entries;
    }
}

impl Evidence {
    /// Begins at `now` (ns), when `entries` kernel entries had been counted in all.
    #[must_use]
    pub const fn begin(now: u64, entries: u64) -> Self {
        Self {
            since: now,
            entries,
        }
    }

    /// What was observed until now.
    #[must_use]
    pub fn stint(&self, now: u64, entries: u64) -> Stint {
        Stint {
            time: now.saturating_sub(self.since),
            entries: entries.saturating_sub(self.entries),
        }
    }
}

/// What is known of one address space.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    demotions: u32,
    not_before: u64,
    promoted_at: u64,
    traps: u32,
    misses: u32,
    judged_time: u64,
    /// Earlier stints that were too short to be judged.
    past: Stint,
    evicted_at: Option<u64>,
}

impl Record {
    /// The space gives way to another.
    pub fn leaves(&mut self, stint: Stint) {
        self.past.add(stint);
    }

    /// Judges the space by its stints up to this one. `share`: how much of the time the host really
    /// gave to this processor, of 256. None if there is too little to judge, else the time
    /// observed, ns, and whether that earns a promotion.
    pub fn judge(
        &mut self,
        now: u64,
        stint: Stint,
        share: u64,
        costs: &Costs,
    ) -> Option<(u64, bool)> {
        let mut all = self.past;
        all.add(stint);
        if all.time < EVIDENCE {
            return None;
        }
        self.past = Stint::default();
        let time = all.time * share / 256;
        let run = time / all.entries.max(1);
        let enough = (TRANSLATED_RUN * costs.trap) << self.demotions;
        let earned = now >= self.not_before && time >= EVIDENCE && run >= enough;
        Some((time, earned))
    }

    /// The space is promoted.
    pub fn promoted(&mut self, now: u64) {
        self.promoted_at = now;
        self.evicted_at = None;
        self.begin_judgement(0);
    }

    /// Judges what comes from here on. `cpu`: the executor's processor time so far, ns.
    pub fn begin_judgement(&mut self, cpu: u64) {
        self.traps = 0;
        self.misses = 0;
        self.judged_time = cpu;
    }

    /// A missing mapping stopped guest code: that happens once for each page.
    pub fn missed(&mut self) {
        self.misses += 1;
    }

    /// A trap other than a missing mapping or a kick stopped guest code. `cpu` tells the executor's
    /// processor time, ns. True if the space traps too often.
    pub fn trapped(&mut self, now: u64, costs: &Costs, cpu: impl FnOnce() -> u64) -> bool {
        self.traps += 1;
        if self.traps < JUDGED {
            return false;
        }
        let cpu = cpu();
        let overhead = u64::from(self.traps + self.misses) * costs.cpu;
        let computed = cpu
            .saturating_sub(self.judged_time)
            .saturating_sub(overhead);
        let mean = computed / u64::from(self.traps);
        self.begin_judgement(cpu);
        let enough = DIRECT_RUN * costs.trap;
        if mean >= enough && now.saturating_sub(self.promoted_at) > FORGIVEN {
            self.demotions = 0;
        }
        mean < enough
    }

    /// All mappings were evicted because there are too many. True if that happens too often.
    pub fn evicted(&mut self, now: u64) -> bool {
        let often = self
            .evicted_at
            .is_some_and(|then| now.saturating_sub(then) < EVICTION_SPACING);
        self.evicted_at = Some(now);
        often
    }

    /// The space is demoted: it must earn the next promotion harder.
    pub fn demoted(&mut self, now: u64) {
        self.not_before = now + (BACKOFF << self.demotions);
        self.demotions = (self.demotions + 1).min(MAX_DEMOTIONS);
    }
}

/// Whether spaces are demoted for trapping under this policy.
#[must_use]
pub const fn demotes(policy: Ring3Policy) -> bool {
    matches!(policy, Ring3Policy::Auto)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const COSTS: Costs = Costs {
        trap: 12_000,
        cpu: 4_000,
    };

    /// Judges `record` by one stint.
    fn earns(mut record: Record, now: u64, time: u64, entries: u64, share: u64) -> Option<bool> {
        let judged = record.judge(now, Stint { time, entries }, share, &COSTS);
        judged.map(|(_, earned)| earned)
    }

    #[test]
    fn computing_for_a_tick_is_enough() {
        let new = Record::default();
        assert_eq!(earns(new, 12 * MS, 2 * MS, 0, 256), Some(true));
        assert_eq!(earns(new, 12 * MS, 2 * MS, 10, 256), Some(true));
        assert_eq!(earns(new, 12 * MS, MS, 0, 256), None, "too early");
        let busy = earns(new, 12 * MS, 2 * MS, 10, 64);
        assert_eq!(busy, Some(false), "the host ran something else");
        let often = earns(new, 12 * MS, 2 * MS, 40, 256);
        assert_eq!(often, Some(false), "too many entries");
    }

    #[test]
    fn short_stints_add_up() {
        let mut record = Record::default();
        let stint = |entries| Stint {
            time: 400_000,
            entries,
        };
        (0..3).for_each(|_| record.leaves(stint(4)));
        assert_eq!(earns(record, MS, 400_000, 4, 256), Some(true));
        assert_eq!(earns(record, MS, 400_000, 40, 256), Some(false));
        assert!(record.judge(MS, stint(4), 256, &COSTS).is_some());
        assert_eq!(earns(record, MS, 400_000, 4, 256), None, "they count once");
    }

    #[test]
    fn demotion_needs_many_short_runs() {
        let mut record = Record::default();
        record.promoted(0);
        for i in 0..63 {
            assert!(!record.trapped(i, &COSTS, || unreachable!("not judged yet")));
        }
        assert!(record.trapped(64, &COSTS, || 64 * 10_000));
        let mut cpu = 64 * 10_000;
        for i in 0..640 {
            cpu += 60_000;
            assert!(!record.trapped(i, &COSTS, || cpu));
        }
    }

    #[test]
    fn quiet_stretches_count_for_the_space() {
        let mut record = Record::default();
        record.promoted(0);
        assert!((0..64).all(|i| !record.trapped(i, &COSTS, || 10 * MS + 64 * 10_000)));
    }

    #[test]
    fn mapping_a_working_set_is_no_computing() {
        let mut record = Record::default();
        record.promoted(0);
        (0..1000).for_each(|_| record.missed());
        let cpu = 1000 * COSTS.cpu + 64 * 10_000;
        assert!((0..64).any(|i| record.trapped(i, &COSTS, || cpu)));
    }

    #[test]
    fn each_demotion_makes_the_next_promotion_harder() {
        let mut record = Record::default();
        record.demoted(0);
        let backoff = earns(record, 49 * MS, 49 * MS, 0, 256);
        assert_eq!(backoff, Some(false), "backoff");
        assert_eq!(earns(record, 51 * MS, 51 * MS, 0, 256), Some(true));
        assert_eq!(earns(record, 51 * MS, 51 * MS, 400, 256), Some(true));
        assert_eq!(earns(record, 51 * MS, 51 * MS, 450, 256), Some(false));
        (0..20).for_each(|_| record.demoted(0));
        let at_last = earns(record, 4_000 * MS, 4_000 * MS, 0, 256);
        assert_eq!(at_last, Some(true), "bounded");
    }

    #[test]
    fn a_good_second_forgives() {
        let mut record = Record::default();
        record.demoted(0);
        record.promoted(100 * MS);
        for _ in 0..64 {
            assert!(!record.trapped(1_200 * MS, &COSTS, || 64 * 100_000));
        }
        assert_eq!(record.demotions, 0);
    }

    #[test]
    fn evictions_in_a_row_demote() {
        let mut record = Record::default();
        record.promoted(0);
        assert!(!record.evicted(MS));
        assert!(!record.evicted(3_000 * MS));
        assert!(record.evicted(3_100 * MS));
    }
}
