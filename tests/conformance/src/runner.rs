//! Runs forms on the oracle and the engines, and keeps what the report needs.

use crate::case::{Case, Outcome, Privilege, Stop, Width};
use crate::compare::{Difference, Rules, differences};
use crate::coverage::{self, Exercised};
use crate::engine::Engine;
use crate::generate::forms::{self, Excluded, Form};
use crate::generate::unit;
use crate::guest;
use crate::layout;
use crate::program;
use crate::report;
use crate::rng::Rng;
use crate::shrink;
use ring3_monitor::cpu::cpuid::CpuModel;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of everything random.
    pub seed: u64,
    /// Cases for each form.
    pub cases: u32,
    /// Only forms whose name contains this, ignoring case.
    pub only: Option<String>,
    /// Run only every n-th form (1: all).
    pub step: usize,
    /// Failing cases to shrink and keep for each mnemonic and engine.
    pub keep: usize,
    /// Time for shrinking in all; later failures are kept as they are.
    pub shrinking: Duration,
    /// A program's main part runs up to this many times.
    pub rounds: u32,
    /// Run nothing more once anything differs, and shrink nothing.
    pub stop_at_first: bool,
}

impl Options {
    /// True if the run is over before its end.
    #[must_use]
    pub fn stopped(&self, results: &Results) -> bool {
        self.stop_at_first && !results.diverging.is_empty()
    }
}

/// Counts for one form.
#[derive(Clone, Debug, Default)]
pub struct FormCount {
    /// Cases that ran on the oracle.
    pub cases: u32,
    /// Of these, cases that reached their end.
    pub ended: u32,
    /// #UD on the oracle.
    pub undefined: u32,
    /// Other exceptions on the oracle.
    pub trapped: u32,
    /// Cases that the oracle lost.
    pub lost: u32,
    /// Why no case could be made, if none could.
    pub unmade: Option<String>,
}

impl FormCount {
    /// True if the host does not know the form: it only ever raised #UD (or a fault on fetching
    /// code that runs into a missing page, which comes first).
    #[must_use]
    pub fn only_undefined(&self) -> bool {
        self.cases > 0 && self.ended == 0 && self.undefined > self.trapped
    }
}

/// A divergence.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The form (or "program").
    pub form: String,
    /// Which engine.
    pub engine: String,
    /// The case, shrunk.
    pub case: Case,
    /// What differs.
    pub differences: Vec<Difference>,
    /// What the oracle did.
    pub expected: Outcome,
}

/// Everything that a run found.
#[derive(Default)]
pub struct Results {
    /// Per form.
    pub forms: BTreeMap<String, FormCount>,
    /// Encodings left out.
    pub excluded: Vec<Excluded>,
    /// Kept failures.
    pub failures: Vec<Failure>,
    /// Number of diverging cases by engine and form.
    pub diverging: BTreeMap<(String, String), u32>,
    /// The same by family (mnemonic).
    pub families: BTreeMap<(String, String), u32>,
    /// Time spent on shrinking.
    pub shrink_time: Duration,
    /// Cases compared by engine.
    pub compared: BTreeMap<String, u64>,
    /// What the cases exercise, see [`coverage::DIMENSIONS`].
    pub dimensions: BTreeMap<&'static str, Exercised>,
    /// Random programs in 16- and 32-bit code.
    pub programs: [u64; 2],
    /// Checkpoints that they passed on the oracle.
    pub checkpoints: u64,
    /// Cases with an instruction that the virtual processor does not offer.
    pub absent: u64,
    /// Cases that an engine could not run, by engine and reason.
    pub not_run: BTreeMap<(String, String), u64>,
}

/// Cases collected before they run.
const CHUNK: usize = 64;

/// Runs every form.
pub fn run(options: &Options, oracle: &mut dyn Engine, engines: &mut [Box<dyn Engine>]) -> Results {
    let (forms, excluded) = forms::table();
    let wanted = |f: &&Form| match &options.only {
        Some(part) => f.name().to_lowercase().contains(&part.to_lowercase()),
        None => true,
    };
    let mut results = Results {
        excluded,
        ..Results::default()
    };
    let mut queue = Vec::new();
    for form in forms.iter().filter(wanted).step_by(options.step.max(1)) {
        if options.stopped(&results) {
            return results;
        }
        let mut rng = Rng::derived(options.seed, form.salt());
        for _ in 0..options.cases {
            let other = rng
                .chance(20)
                .then(|| forms[rng.below(forms.len() as u32) as usize])
                .filter(|other| other.width == form.width);
            let case =
                unit::make_pair(*form, other, &mut rng).or_else(|_| unit::make(*form, &mut rng));
            match case {
                Ok(case) => queue.push((form.name(), case)),
                Err(reason) => {
                    let count = results.forms.entry(form.name()).or_default();
                    count.unmade = Some(reason);
                    break;
                }
            }
            if queue.len() >= CHUNK {
                run_chunk(&queue, options, oracle, engines, &mut results);
                queue.clear();
            }
        }
    }
    run_chunk(&queue, options, oracle, engines, &mut results);
    results
}

/// Runs `count` random programs.
pub fn run_programs(
    options: &Options,
    count: u32,
    oracle: &mut dyn Engine,
    engines: &mut [Box<dyn Engine>],
    results: &mut Results,
) {
    let mut rng = Rng::derived(options.seed, 0x70726f67);
    let mut queue = Vec::new();
    for n in 0..count {
        if options.stopped(results) {
            return;
        }
        let bytes = 200 + rng.below(program::MOST_BYTES as u32 - 200) as usize;
        let rounds = 1 + rng.below(options.rounds);
        let case = program::make(rng.u64(), bytes, rounds);
        queue.push((PROGRAMS.to_string(), case));
        if queue.len() == 16 || n + 1 == count {
            run_chunk(&queue, options, oracle, engines, results);
            queue.clear();
        }
    }
}

/// The name under which programs are counted.
pub const PROGRAMS: &str = "(random programs)";

/// The comparison rules for a case on an engine.
#[must_use]
pub fn rules(oracle: &dyn Engine, engine: &dyn Engine) -> Rules {
    Rules {
        components: oracle.components() & engine.components(),
        same_cpl: engine.accepts_user_only(),
    }
}

/// True if the engine's outcome of the case can be compared with the oracle's.
#[must_use]
pub fn comparable(case: &Case, engine: &dyn Engine) -> bool {
    case.privilege == Privilege::Any || engine.accepts_user_only()
}

/// What an engine without some of the case's instructions must do: `stand_in` is the case with UD2
/// in the place of the first of them, `outcome` what the oracle did with it.
fn without(case: &Case, stand_in: &Case, mut outcome: Outcome) -> Outcome {
    let bytes = stand_in.code().into_iter().zip(case.code());
    for (n, (replaced, own)) in bytes.enumerate() {
        let at = layout::offset_of(case.code_at + n as u32);
        if let Some(byte) = at.and_then(|at| outcome.memory.get_mut(at))
            && *byte == replaced
        {
            *byte = own;
        }
    }
    outcome
}

/// What the oracle expects of `engine`.
pub fn expectation(case: &Case, oracle: &mut dyn Engine, engine: &dyn Engine) -> Outcome {
    let stand_in = if engine.accepts(case) {
        None
    } else {
        guest::stand_in(&CpuModel::host_default(), case)
    };
    match stand_in {
        None => oracle.run(case),
        Some(other) => {
            let outcome = oracle.run(&other);
            without(case, &other, outcome)
        }
    }
}

/// Runs named cases on the oracle and every engine, and records the differences.
pub fn run_chunk(
    queue: &[(String, Case)],
    options: &Options,
    oracle: &mut dyn Engine,
    engines: &mut [Box<dyn Engine>],
    results: &mut Results,
) {
    if queue.is_empty() || options.stopped(results) {
        return;
    }
    let cases: Vec<Case> = queue.iter().map(|(_, c)| c.clone()).collect();
    let expected = oracle.run_batch(&cases);
    for ((name, case), outcome) in queue.iter().zip(&expected) {
        if name == PROGRAMS {
            let n = usize::from(case.width == Width::Code32);
            results.programs[n] += 1;
            results.checkpoints += u64::from(program::checkpoints(&outcome.memory));
        } else {
            let mut seen = coverage::of(case, outcome);
            seen.sort_unstable();
            seen.dedup();
            for dimension in seen {
                results.dimensions.entry(dimension).or_default().count(name);
            }
        }
        let count = results.forms.entry(name.clone()).or_default();
        count.cases += 1;
        match outcome.stop {
            Stop::End => count.ended += 1,
            Stop::Trap { vector: 6, .. } => count.undefined += 1,
            Stop::Trap { .. } => count.trapped += 1,
            Stop::Lost(_) | Stop::Skipped(_) => count.lost += 1,
        }
    }
    let model = CpuModel::host_default();
    let stand_ins: Vec<Option<Case>> = cases
        .iter()
        .map(|c| guest::stand_in(&model, c).filter(|_| !guest::offers(&model, c)))
        .collect();
    let absent: Vec<Case> = stand_ins.iter().flatten().cloned().collect();
    results.absent += absent.len() as u64;
    let mut undefined = oracle.run_batch(&absent).into_iter();
    let undefined: Vec<Option<Outcome>> = cases
        .iter()
        .zip(&stand_ins)
        .map(|(case, other)| Some(without(case, other.as_ref()?, undefined.next()?)))
        .collect();
    for engine in engines.iter_mut() {
        if options.stopped(results) {
            return;
        }
        let engine = engine.as_mut();
        let rules = rules(oracle, engine);
        let expected: Vec<&Outcome> = (0..cases.len())
            .map(|n| match &undefined[n] {
                Some(outcome) if !engine.accepts(&cases[n]) => outcome,
                _ => &expected[n],
            })
            .collect();
        let runnable = |n: &usize| {
            !matches!(expected[*n].stop, Stop::Lost(_)) && comparable(&cases[*n], engine)
        };
        let chosen: Vec<usize> = (0..cases.len()).filter(runnable).collect();
        let batch: Vec<Case> = chosen.iter().map(|n| cases[*n].clone()).collect();
        let got = engine.run_batch(&batch);
        for (n, got) in chosen.into_iter().zip(got) {
            let name = &queue[n].0;
            let differences = differences(&cases[n], expected[n], &got, rules);
            if let Stop::Lost(why) | Stop::Skipped(why) = &got.stop {
                *results
                    .not_run
                    .entry((engine.name(), why.clone()))
                    .or_default() += 1;
            }
            if matches!(got.stop, Stop::Skipped(_)) {
                continue;
            }
            *results.compared.entry(engine.name()).or_default() += 1;
            if differences.is_empty() {
                continue;
            }
            *results
                .diverging
                .entry((engine.name(), name.clone()))
                .or_default() += 1;
            let seen = results
                .families
                .entry((engine.name(), report::family(name)))
                .or_default();
            *seen += 1;
            if *seen as usize <= options.keep {
                let begin = Instant::now();
                let shrinks = !options.stop_at_first && results.shrink_time < options.shrinking;
                let (mut case, mut why) = if shrinks {
                    shrink::shrink(&cases[n], oracle, engine, rules)
                } else {
                    (cases[n].clone(), differences.clone())
                };
                results.shrink_time += begin.elapsed();
                if why.is_empty() {
                    case.title = format!(
                        "{} (only in a batch: state leaks between cases)",
                        case.title
                    );
                    why = differences;
                }
                let expected = expectation(&case, oracle, engine);
                results.failures.push(Failure {
                    form: name.clone(),
                    engine: engine.name(),
                    case,
                    differences: why,
                    expected,
                });
            }
        }
    }
}
