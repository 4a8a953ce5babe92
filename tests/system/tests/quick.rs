//! A sample of every table under both engines. `make conformance` runs all rows, and QEMU.

use ring3_system_conformance::machine::Runner;
use ring3_system_conformance::report::run_table;
use ring3_system_conformance::tables;

/// Rows of a table that run here.
const SAMPLE: usize = 400;

fn passes(runner: Runner) {
    let mut failed = Vec::new();
    for table in tables::all() {
        let table = table.sample(SAMPLE);
        assert!(!table.rows.is_empty(), "{} has no rows", table.name);
        let outcome = run_table(&table, runner).unwrap_or_else(|e| panic!("{e:#}"));
        assert_eq!(outcome.passed + outcome.failed.len(), table.rows.len());
        for (name, text) in outcome.failed {
            failed.push(format!("{} {}: {name}: {text}", runner.name(), table.name));
        }
    }
    let shown: Vec<&str> = failed.iter().take(20).map(String::as_str).collect();
    assert!(
        failed.is_empty(),
        "{} rows failed:\n{}",
        failed.len(),
        shown.join("\n")
    );
}

#[test]
fn the_translator_does_what_the_manual_says() {
    passes(Runner::Bt);
}

#[test]
fn single_instructions_do_what_the_manual_says() {
    passes(Runner::Step);
}

/// A row that expects nothing could not fail.
#[test]
fn every_row_expects_something_and_has_a_name_of_its_own() {
    for table in tables::all() {
        let mut names = std::collections::BTreeSet::new();
        for row in &table.rows {
            assert!(
                !row.checks.is_empty(),
                "{}: {} expects nothing",
                table.name,
                row.name
            );
            assert!(
                names.insert(row.name.clone()),
                "{}: {} twice",
                table.name,
                row.name
            );
        }
    }
}
