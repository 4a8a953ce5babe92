//! The mutation check: a suite that misses a deliberate mistake is too weak.
//!
//! For each mistake of [`Mutation::ALL`] this runs the parts of the ordinary suite that are most
//! likely to meet it (`plan.rs`), and the rest of it if they do not. It prints which case noticed.
//! All parts run without a mistake first: what fails then would prove nothing.

mod part;
mod plan;

use anyhow::{Context, Result};
use clap::Parser;
use part::{Part, Verdict};
use ring3_conformance::{engines, worker};
use ring3_translator::mutation::Mutation;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Breaks one thing at a time and expects the suite to notice.
#[derive(Parser)]
struct Arguments {
    /// Only mistakes whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Do not run the parts without a mistake first.
    #[arg(long)]
    no_baseline: bool,
    /// Serve cases on standard input with this engine.
    #[arg(long, hide = true)]
    worker: Option<String>,
    /// Run one table of the system suite, print the first row that fails.
    #[arg(long, hide = true)]
    table: Option<String>,
    /// Boot this kernel as a tiny guest.
    #[arg(long, hide = true)]
    tiny: Option<PathBuf>,
    /// Where its serial port goes.
    #[arg(long, hide = true, default_value = "/dev/null")]
    serial: PathBuf,
    /// The mistake of a part that runs in a process of its own.
    #[arg(long, hide = true)]
    mutation: Option<String>,
}

fn main() -> ExitCode {
    match work(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ring3-mutation: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn work(a: &Arguments) -> Result<ExitCode> {
    let mistake = match &a.mutation {
        Some(name) => Some(Mutation::named(name).context("no such mutation")?),
        None => None,
    };
    if let Some(name) = &a.worker {
        worker::serve(engines::direct(name)?.as_mut())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(table) = &a.table {
        return part::run_table_here(table, mistake);
    }
    if let Some(kernel) = &a.tiny {
        return part::run_tiny_here(kernel, &a.serial, mistake);
    }
    let wanted = |m: &Mutation| {
        a.only
            .as_ref()
            .is_none_or(|part| format!("{m:?}").contains(part))
    };
    let list: Vec<(Mutation, &str)> = Mutation::ALL
        .iter()
        .copied()
        .filter(|(m, _)| wanted(m))
        .collect();
    let begin = Instant::now();
    if !a.no_baseline {
        baseline(&list)?;
    }
    let mut survivors = Vec::new();
    println!("{:<20} {:<62} caught by", "mutation", "what it breaks");
    for (mutation, what) in &list {
        let caught = check(*mutation)?;
        println!(
            "{:<20} {what:<62} {}",
            format!("{mutation:?}"),
            caught.as_deref().unwrap_or("NOTHING")
        );
        if caught.is_none() {
            survivors.push(*mutation);
        }
    }
    println!(
        "{} mutations, {} caught, {} survived; {:.0} s",
        list.len(),
        list.len() - survivors.len(),
        survivors.len(),
        begin.elapsed().as_secs_f64()
    );
    Ok(if survivors.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("survivors: {survivors:?}");
        ExitCode::FAILURE
    })
}

/// The parts pass without a mistake.
fn baseline(list: &[(Mutation, &str)]) -> Result<()> {
    let mut parts: Vec<Part> = Vec::new();
    for part in list
        .iter()
        .flat_map(|(m, _)| plan::first(*m))
        .chain(plan::rest())
    {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    for part in &parts {
        if let Verdict::Noticed(case) = part.run(None)? {
            anyhow::bail!("{part} fails without any mistake: {case}");
        }
    }
    println!("{} parts pass without a mistake", parts.len());
    Ok(())
}

/// Which part and case notice a mistake.
fn check(mutation: Mutation) -> Result<Option<String>> {
    let first = plan::first(mutation);
    let rest = plan::rest().into_iter().filter(|p| !first.contains(p));
    for part in first.iter().cloned().chain(rest) {
        if let Verdict::Noticed(case) = part.run(Some(mutation))? {
            return Ok(Some(format!("{part}: {case}")));
        }
    }
    Ok(None)
}
