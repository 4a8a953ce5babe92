//! The loop: translate, link, invalidate, check; failures are shrunk and printed.

use crate::input::{Generator, Input, Kind};
use crate::shrink::{failure, shrink, text_of};
use crate::subject::{Made, Subject};
use ring3_conformance::rng::Rng;
use ring3_translator::cache::UnitId;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What a run covered.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Inputs by kind.
    pub inputs: BTreeMap<Kind, u64>,
    /// Different modes.
    pub modes: usize,
    /// Units made.
    pub units: u64,
    /// Guest instructions.
    pub instructions: u64,
    /// Host instructions checked at least once.
    pub host_instructions: u64,
    /// Units checked again after links were made and taken back.
    pub rechecked: u64,
    /// Most host bytes of a unit.
    pub largest: usize,
    /// Most memory that the process has had so far, MiB.
    pub memory: u64,
}

/// Cache of a run: small, so that it is flushed often.
const CACHE: usize = 2 << 20;
/// Most memory that the process may ever have, MiB: four times what long runs need.
const MOST_MEMORY: u64 = 48;
/// Inputs between two rounds of linking and checking the whole cache.
const ROUND: u64 = 64;

/// Runs until `inputs` are done or `end` has come.
/// # Errors
/// The first failure: seed, shrunk input, what is wrong.
pub fn run(seed: u64, inputs: u64, end: Option<Instant>) -> Result<Report, String> {
    let mut report = Report::default();
    let mut modes = std::collections::HashSet::new();
    let mut generator = Generator::default();
    let mut subject = Subject::new(CACHE)?;
    let mut rng = Rng::new(seed);
    let mut units: Vec<UnitId> = Vec::new();
    for n in 0..inputs {
        if end.is_some_and(|e| Instant::now() >= e) {
            break;
        }
        let input = generator.make(&mut rng);
        *report.inputs.entry(input.kind).or_default() += 1;
        modes.insert(input.mode.0);
        let flushes = subject.translator.stats().flushes;
        let result = catch_unwind(AssertUnwindSafe(|| subject.translate(&input)))
            .unwrap_or_else(|panic| Err(format!("panic: {}", text_of(panic.as_ref()))));
        if subject.translator.stats().flushes != flushes {
            units.clear();
        }
        match result {
            Ok(made) => note(&mut report, &mut units, made),
            Err(why) => return Err(render(seed, n, &input, &why)),
        }
        if n % ROUND == ROUND - 1 {
            disturb(&mut subject, &units, &mut rng);
            for id in subject.translator.units() {
                subject
                    .check(id)
                    .map_err(|why| format!("seed {seed}, after input {n}, a linked unit: {why}"))?;
                report.rechecked += 1;
            }
            report.memory = peak_memory();
            if report.memory > MOST_MEMORY {
                return Err(format!(
                    "seed {seed}, input {n}: {} MiB of memory in use, {MOST_MEMORY} allowed",
                    report.memory
                ));
            }
            if report.units % 5 == 0 {
                subject.translator.flush(&mut subject.state);
                units.clear();
            }
        }
    }
    report.modes = modes.len();
    Ok(report)
}

/// The process's largest resident set so far, MiB, by /proc.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

fn note(report: &mut Report, units: &mut Vec<UnitId>, made: Option<(UnitId, Made)>) {
    if let Some((id, made)) = made {
        report.units += 1;
        report.instructions += made.instructions as u64;
        report.host_instructions += made.host_instructions as u64;
        report.largest = report.largest.max(made.host_bytes);
        if !made.once {
            units.push(id);
        }
    }
}

/// Links units to each other, directly and by the jump cache, drops some, unlinks some.
fn disturb(subject: &mut Subject, units: &[UnitId], rng: &mut Rng) {
    let Subject { translator, state } = subject;
    if units.is_empty() {
        return;
    }
    for _ in 0..3 * ROUND {
        let from = translator.emitted(rng.pick(units));
        let Some(link) = from.links.clone().next() else {
            continue;
        };
        let link = link + rng.below(from.links.len() as u32);
        if rng.chance(10) {
            translator.link_by_cache(link, from.mode.table());
        } else {
            // As the run loop does: units of one mode.
            let first = rng.below(units.len() as u32) as usize;
            let mut candidates = units[first..].iter().chain(&units[..first]);
            if let Some(to) = candidates.find(|u| translator.mode_of(**u) == from.mode) {
                translator.link(link, *to);
            }
        }
    }
    for _ in 0..rng.below(20) {
        translator.invalidate(state, u64::from(rng.below(64 << 12)) & !63, 64);
    }
    if rng.below(4) < 2 {
        translator.unlink_cross_pages();
    }
}

fn render(seed: u64, n: u64, input: &Input, why: &str) -> String {
    let small = if failure(input).is_some() {
        shrink(input)
    } else {
        input.clone() // it needs what was there before
    };
    let again = failure(&small).unwrap_or_else(|| format!("only after what came before: {why}"));
    format!("seed {seed}, input {n}\n{why}\nshrunk: {small}{again}")
}

/// The report as text.
#[must_use]
pub fn text(r: &Report) -> String {
    let kinds: Vec<String> = r
        .inputs
        .iter()
        .map(|(k, n)| format!("{n} {}", format!("{k:?}").to_lowercase()))
        .collect();
    format!(
        "inputs: {}\nmodes: {}\nunits: {}, guest instructions: {}, host instructions: {}\n\
         units checked again among links: {}\nlargest unit: {} bytes, most memory: {} MiB\n",
        kinds.join(", "),
        r.modes,
        r.units,
        r.instructions,
        r.host_instructions,
        r.rechecked,
        r.largest,
        r.memory
    )
}
