//! Makes a failing case small: fewer instructions, plainer state, as long as it still fails.

use crate::case::{Case, Stop};
use crate::compare::{Difference, Rules, differences};
use crate::engine::Engine;
use crate::generate::unit;
use crate::runner;
use crate::vector::Vector;
use std::time::{Duration, Instant};

/// Most candidate runs for one case.
const MOST_RUNS: u32 = 300;
/// Longest search (candidates that hang cost the most).
const LONGEST: Duration = Duration::from_secs(10);

/// Runs `case` on both engines; the differences, or none if the oracle cannot run it.
pub fn check(
    case: &Case,
    oracle: &mut dyn Engine,
    engine: &mut dyn Engine,
    rules: Rules,
) -> Vec<Difference> {
    let expected = runner::expectation(case, oracle, engine);
    if matches!(expected.stop, Stop::Lost(_)) {
        return Vec::new();
    }
    let got = engine.run(case);
    differences(case, &expected, &got, rules)
}

/// The smallest failing case found, with its differences. If `case` does not fail when it runs
/// alone, it comes back unchanged without differences.
pub fn shrink(
    case: &Case,
    oracle: &mut dyn Engine,
    engine: &mut dyn Engine,
    rules: Rules,
) -> (Case, Vec<Difference>) {
    let mut best = case.clone();
    let mut why = check(&best, oracle, engine, rules);
    if why.is_empty() {
        return (best, why);
    }
    let deadline = Instant::now() + LONGEST;
    // Programs are followed by their own rules.
    let is_unit = case.pieces.len() <= 12;
    if !is_unit {
        let mut size = case.pieces.len() / 2;
        while size > 0 {
            for from in (0..best.pieces.len()).step_by(size).rev() {
                let mut candidate = best.clone();
                let to = (from + size).min(candidate.pieces.len());
                candidate.pieces[from..to]
                    .iter_mut()
                    .for_each(|p| p.fill(0x90));
                if candidate == best || Instant::now() > deadline {
                    continue;
                }
                let result = check(&candidate, oracle, engine, rules);
                if !result.is_empty() {
                    (best, why) = (candidate, result);
                }
            }
            size /= 2;
        }
    }
    let mut runs = 0;
    loop {
        let before = runs;
        let mut improved = false;
        for mut candidate in candidates(&best) {
            if is_unit && unit::follow_flags(&mut candidate).is_err() {
                continue; // it would use an undefined flag
            }
            if runs >= MOST_RUNS || Instant::now() > deadline {
                return (best, why);
            }
            runs += 1;
            let result = check(&candidate, oracle, engine, rules);
            if !result.is_empty() {
                best = candidate;
                why = result;
                improved = true;
                break;
            }
        }
        if !improved || runs == before {
            return (best, why);
        }
    }
}

/// Simpler cases, boldest first. Each differs from `case`, so the search ends.
fn candidates(case: &Case) -> Vec<Case> {
    let mut list = Vec::new();
    let mut add = |change: &dyn Fn(&mut Case)| {
        let mut c = case.clone();
        change(&mut c);
        if c != *case {
            list.push(c);
        }
    };
    for n in (0..case.pieces.len()).rev() {
        // NOPs keep all addresses; then the ends can go.
        add(&|c| c.pieces[n].fill(0x90));
    }
    let nop = |p: &Vec<u8>| p.iter().all(|b| *b == 0x90);
    if case.pieces.len() > 1 && case.pieces.last().is_some_and(nop) {
        add(&|c| {
            c.pieces.pop();
        });
    }
    if case.pieces.len() > 1 && nop(&case.pieces[0]) {
        add(&|c| {
            let len = c.pieces.remove(0).len() as u32;
            c.code_at += len;
            c.regs.eip += len;
        });
    }
    add(&|c| c.vector = Vector::default());
    add(&|c| c.fill = 0);
    add(&|c| c.patches.clear());
    add(&|c| c.regs.eflags = 0x202);
    add(&|c| c.regs.eflags &= !0x8d5);
    for n in 0..case.patches.len() {
        add(&|c| {
            c.patches.remove(n);
        });
    }
    for n in [0, 1, 2, 3, 5, 6, 7] {
        add(&|c| c.regs.gpr[n] = 0);
    }
    for n in 0..8 {
        add(&|c| c.vector.zmm[n] = [0; 64]);
        add(&|c| c.vector.st[n] = [0; 10]);
        add(&|c| c.vector.k[n] = 0);
    }
    add(&|c| c.vector.mxcsr = 0x1f80);
    add(&|c| (c.vector.fcw, c.vector.fsw, c.vector.ftw) = (0x37f, 0, 0));
    for n in [0, 3, 4, 5] {
        let usual = if case.width == crate::case::Width::Code32 {
            crate::layout::SEL_DATA32
        } else {
            crate::layout::SEL_DATA16
        };
        add(&|c| c.regs.seg[n] = usual);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Outcome;
    use crate::generate::{forms, unit};
    use crate::rng::Rng;

    /// Pretends that code bytes are the whole machine; the broken one mishandles 0x9f (LAHF).
    struct Toy {
        broken: bool,
    }

    impl Engine for Toy {
        fn name(&self) -> String {
            "toy".into()
        }
        fn accepts_user_only(&self) -> bool {
            true
        }
        fn accepts(&self, _: &Case) -> bool {
            true
        }
        fn components(&self) -> u64 {
            7
        }
        fn run_batch(&mut self, cases: &[Case]) -> Vec<Outcome> {
            let run = |c: &Case| {
                let mut o = Outcome::lost("");
                o.stop = Stop::End;
                o.regs = c.regs;
                let hit = c.pieces.iter().any(|p| p == &[0x9f]);
                o.regs.gpr[0] = u32::from(self.broken && hit);
                o
            };
            cases.iter().map(run).collect()
        }
    }

    #[test]
    fn only_the_guilty_instruction_remains() {
        let form = forms::table().0[0];
        let mut rng = Rng::new(5);
        let case = loop {
            let c = unit::make(form, &mut rng).unwrap();
            if c.pieces.len() > 3 && c.pieces.iter().any(|p| p == &[0x9f]) {
                break c;
            }
        };
        let rules = Rules {
            components: 7,
            same_cpl: true,
        };
        let (small, why) = shrink(
            &case,
            &mut Toy { broken: false },
            &mut Toy { broken: true },
            rules,
        );
        assert!(!why.is_empty());
        assert!(
            small
                .pieces
                .iter()
                .all(|p| p == &[0x9f] || p.iter().all(|b| *b == 0x90)),
            "{:?}",
            small.pieces
        );
        assert_eq!(small.vector, Vector::default());
    }
}
