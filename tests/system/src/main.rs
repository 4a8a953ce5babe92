//! Runs the tables and prints how they went.

use clap::{Parser, ValueEnum};
use ring3_system_conformance::machine::Runner;
use ring3_system_conformance::report::run_table;
use ring3_system_conformance::{deviation::Deviation, tables};
use std::collections::BTreeMap;
use std::process::ExitCode;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Engine {
    Bt,
    Step,
    Qemu,
}

/// System conformance: what the manuals say, row by row, under ring3 and QEMU.
#[derive(Debug, Parser)]
struct Options {
    /// What runs the tables; all three by default.
    #[arg(long, value_enum)]
    engine: Vec<Engine>,
    /// Only these tables.
    #[arg(long)]
    table: Vec<String>,
    /// Only rows whose name contains this.
    #[arg(long)]
    row: Option<String>,
    /// Failures printed for each table and engine.
    #[arg(long, default_value_t = 20)]
    most: usize,
    /// List the tables and rows.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match work(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ring3-system-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn work(options: &Options) -> anyhow::Result<bool> {
    let runners: Vec<Runner> = if options.engine.is_empty() {
        vec![Runner::Bt, Runner::Step, Runner::Qemu]
    } else {
        let runner = |e: &Engine| match e {
            Engine::Bt => Runner::Bt,
            Engine::Step => Runner::Step,
            Engine::Qemu => Runner::Qemu,
        };
        options.engine.iter().map(runner).collect()
    };
    let mut all_well = true;
    let mut deviations: BTreeMap<Deviation, usize> = BTreeMap::new();
    let mut total = 0;
    for mut table in tables::all() {
        if !options.table.is_empty() && !options.table.iter().any(|t| t == table.name) {
            continue;
        }
        if let Some(part) = &options.row {
            table.rows.retain(|r| r.name.contains(part.as_str()));
        }
        total += table.rows.len();
        println!(
            "{:<18} {:>5} rows  {}",
            table.name,
            table.rows.len(),
            table.source
        );
        if options.list {
            for row in &table.rows {
                println!("    {}", row.name);
            }
            continue;
        }
        for &runner in &runners {
            let outcome = run_table(&table, runner)?;
            let known: usize = outcome.deviations.values().sum();
            let bad = outcome.failed.len() + outcome.no_deviation.len();
            all_well &= bad == 0;
            println!(
                "    {:<5} {:>5} passed{}{}",
                runner.name(),
                outcome.passed,
                if known > 0 {
                    format!(", {known} known deviations")
                } else {
                    String::new()
                },
                if bad > 0 {
                    format!(", {bad} FAILED")
                } else {
                    String::new()
                },
            );
            for (name, text) in outcome.failed.iter().take(options.most) {
                println!("        {name}: {text}");
            }
            for (name, deviation) in outcome.no_deviation.iter().take(options.most) {
                println!("        {name}: does not deviate ({deviation})");
            }
            for (deviation, count) in outcome.deviations {
                *deviations.entry(deviation).or_default() += count;
            }
        }
    }
    println!("{total} rows");
    if !deviations.is_empty() {
        println!("QEMU deviates from the manual:");
        for (deviation, count) in deviations {
            println!(
                "    {:<24} {count:>4} rows  {}",
                deviation.name, deviation.what
            );
        }
    }
    Ok(all_well)
}
