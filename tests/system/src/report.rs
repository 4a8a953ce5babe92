//! Comparing what was found with what was expected, and saying so.

use crate::deviation::Deviation;
use crate::image;
use crate::machine::{Runner, run};
use crate::record::{Record, complete, parse};
use crate::row::{Row, Table};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// How one table went under one runner.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rows as expected.
    pub passed: usize,
    /// Rows that were not, with what differed.
    pub failed: Vec<(String, String)>,
    /// Rows that QEMU is known to do otherwise, and did.
    pub deviations: BTreeMap<Deviation, usize>,
    /// Rows that it was said to do otherwise, and did not.
    pub no_deviation: Vec<(String, &'static str)>,
}

/// Runs a table's rows under a runner.
///
/// # Errors
/// If they cannot be run at all.
pub fn run_table(table: &Table, runner: Runner) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rows = table.rows.as_slice();
    while !rows.is_empty() {
        let (image, count) = image::build(rows)?;
        let bytes = run(runner, &image).with_context(|| format!("table {}", table.name))?;
        let records = parse(&bytes, &rows[..count])?;
        for (row, record) in rows.iter().zip(&records) {
            judge(row, Some(record), runner, &mut outcome);
        }
        rows = &rows[records.len()..];
        if records.len() < count {
            // It hung or crashed in this row; the others have not had their turn.
            judge(&rows[0], None, runner, &mut outcome);
            rows = &rows[1..];
        } else if !complete(&bytes) {
            let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(8)..]).into_owned();
            let text = format!("the kernel ended with {end:?}");
            outcome.failed.push(("(the end)".into(), text));
        }
    }
    Ok(outcome)
}

fn judge(row: &Row, record: Option<&Record>, runner: Runner, outcome: &mut Outcome) {
    let difference = match record {
        None => Some("nothing came".to_owned()),
        Some(record) => difference(row, record),
    };
    let deviation = row.deviation.filter(|_| runner == Runner::Qemu);
    match (difference, deviation) {
        (None, None) => outcome.passed += 1,
        (Some(text), None) => outcome.failed.push((row.name.clone(), text)),
        (Some(_), Some(deviation)) => *outcome.deviations.entry(deviation).or_default() += 1,
        (None, Some(deviation)) => outcome
            .no_deviation
            .push((row.name.clone(), deviation.name)),
    }
}

fn difference(row: &Row, record: &Record) -> Option<String> {
    let fields = record.fields(row);
    let mut wrong = Vec::new();
    for check in &row.checks {
        match fields.get(&check.field) {
            None => wrong.push(format!("{:?} is not there", check.field)),
            Some(value) if value & check.mask != check.value => wrong.push(format!(
                "{:?} is {:#x}, expected {:#x}{}",
                check.field,
                value & check.mask,
                check.value,
                if check.mask == u32::MAX {
                    String::new()
                } else {
                    format!(" (of {:#x})", check.mask)
                }
            )),
            Some(_) => {}
        }
    }
    if wrong.is_empty() {
        return None;
    }
    use crate::row::Field as F;
    let context: Vec<String> = [
        F::Kind,
        F::Error,
        F::Cs,
        F::Eip,
        F::Eflags,
        F::Ss,
        F::Esp,
        F::Cr2,
    ]
    .iter()
    .filter_map(|f| fields.get(f).map(|v| format!("{f:?} {v:x}")))
    .collect();
    Some(format!("{} [{}]", wrong.join("; "), context.join(" ")))
}
