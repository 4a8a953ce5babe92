//! The quick run: a sample of all forms, random programs, and the golden cases, on all engines.

use ring3_conformance::coverage::DIMENSIONS;
use ring3_conformance::native::Native;
use ring3_conformance::runner::{self, Options};
use ring3_conformance::{engines, golden, report};
use std::path::Path;
use std::time::Duration;

/// The program that serves translated engines.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ring3-conformance");

#[test]
fn sampled_forms_and_programs_agree_with_the_host() {
    let options = Options {
        seed: 20_261_121,
        cases: 2,
        only: None,
        step: 1,
        keep: 1,
        shrinking: Duration::from_secs(10),
        rounds: 4,
        stop_at_first: false,
    };
    let mut oracle = Native::new().unwrap();
    let mut engines = engines::list("all", Path::new(PROGRAM)).unwrap();
    let mut results = runner::run(&options, &mut oracle, &mut engines);
    runner::run_programs(&options, 60, &mut oracle, &mut engines, &mut results);
    let ended = results.forms.values().filter(|f| f.ended > 0).count();
    assert!(
        ended * 2 > results.forms.len(),
        "{ended} of {} forms ran",
        results.forms.len()
    );
    let lost: Vec<&String> = results
        .forms
        .iter()
        .filter(|(_, f)| f.lost > 0)
        .map(|(name, _)| name)
        .collect();
    assert!(lost.is_empty(), "the host did not finish {lost:?}");
    let programs = &results.forms[runner::PROGRAMS];
    assert_eq!(programs.ended, programs.cases, "a program did not end");
    let missed: Vec<&str> = DIMENSIONS
        .into_iter()
        .filter(|d| !results.dimensions.contains_key(d))
        .collect();
    assert!(missed.is_empty(), "never exercised: {missed:?}");
    assert!(
        results.diverging.is_empty(),
        "{}",
        report::render(&results, options.seed, false)
    );
}

#[test]
fn golden_cases_agree_with_the_host() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let cases = golden::load(&directory).unwrap();
    let mut oracle = Native::new().unwrap();
    let mut engines = engines::list("all", Path::new(PROGRAM)).unwrap();
    let failures = golden::replay(&cases, false, &mut oracle, &mut engines).unwrap();
    let text: Vec<String> = failures.iter().map(report::render_failure).collect();
    assert!(failures.is_empty(), "{}", text.join("\n"));
}
