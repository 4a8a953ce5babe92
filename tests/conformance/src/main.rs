//! Runs the instruction conformance suite and prints its report.

use anyhow::{Context, Result};
use clap::Parser;

use ring3_conformance::native::Native;
use ring3_conformance::runner::{self, Options};
use ring3_conformance::{engines, golden, report, worker};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Compares translated instructions with the host processor.
#[derive(Parser)]
struct Arguments {
    /// A few cases for each form.
    #[arg(long)]
    quick: bool,
    /// Many cases for each form.
    #[arg(long, conflicts_with = "quick")]
    long: bool,
    /// Cases for each form, instead of what --quick and --long say.
    #[arg(long)]
    cases: Option<u32>,
    /// Random programs, instead of what --quick and --long say (none with --only).
    #[arg(long)]
    programs: Option<u32>,
    /// Times that the main part of a program runs, at most, instead of what --quick and --long say.
    #[arg(long)]
    rounds: Option<u32>,
    /// Seed of everything random; by default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Only forms whose name contains this (for instance `Shl_rm32`, `@16`).
    #[arg(long)]
    only: Option<String>,
    /// Engines to compare with the host, comma-separated.
    #[arg(long, default_value = "all")]
    engines: String,
    /// Failing cases to keep for each mnemonic and engine.
    #[arg(long, default_value_t = 1)]
    keep: usize,
    /// Seconds for shrinking in all.
    #[arg(long, default_value_t = 60)]
    shrinking: u64,
    /// Write each kept failing case to this directory as a golden test.
    #[arg(long)]
    save: Option<PathBuf>,
    /// End at the first difference, without shrinking it. The exit status is 1 then, else 0.
    #[arg(long)]
    stop_at_first: bool,
    /// Every n-th form only.
    #[arg(long, default_value_t = 1)]
    step: usize,
    /// Run the golden cases of this directory first.
    #[arg(long)]
    golden: Option<PathBuf>,
    /// The program that serves translated engines, instead of this one: another build of it.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Serve cases on standard input with this engine (what isolates an engine uses).
    #[arg(long, hide = true)]
    worker: Option<String>,
    /// List every form that is not covered.
    #[arg(long)]
    verbose: bool,
}

fn main() -> Result<ExitCode> {
    let a = Arguments::parse();
    if let Some(name) = &a.worker {
        worker::serve(engines::direct(name)?.as_mut())?;
        return Ok(ExitCode::SUCCESS);
    }
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.as_nanos() as u64);
    let cases = a.cases.unwrap_or(if a.quick {
        3
    } else if a.long {
        100
    } else {
        30
    });
    let usual = if a.only.is_some() {
        0
    } else {
        if a.long {
            600
        } else {
            cases.saturating_mul(10)
        }
    };
    let programs = a.programs.unwrap_or(usual);
    let options = Options {
        seed: a.seed.unwrap_or(clock & 0xffff_ffff),
        cases,
        only: a.only,
        step: a.step,
        rounds: a.rounds.unwrap_or(if a.long { 60 } else { 4 }).max(1),
        keep: a.keep,
        shrinking: Duration::from_secs(a.shrinking),
        stop_at_first: a.stop_at_first,
    };
    println!("seed {}", options.seed);
    let mut oracle = Native::new()?;
    let program = match a.program {
        Some(path) => path,
        None => std::env::current_exe()?,
    };
    let mut engines = engines::list(&a.engines, &program)?;
    let begin = Instant::now();
    let mut old = Vec::new();
    if let Some(directory) = &a.golden {
        let cases = golden::load(directory)?;
        old = golden::replay(&cases, a.stop_at_first, &mut oracle, &mut engines)?;
        println!(
            "golden cases: {}, of these {} differ",
            cases.len(),
            old.len()
        );
        for failure in &old {
            print!("{}", report::render_failure(failure));
        }
        if a.stop_at_first && !old.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut results = runner::run(&options, &mut oracle, &mut engines);
    runner::run_programs(&options, programs, &mut oracle, &mut engines, &mut results);
    print!("{}", report::render(&results, options.seed, a.verbose));
    println!("{:.1} s", begin.elapsed().as_secs_f64());
    if let Some(directory) = &a.save {
        for (n, failure) in results.failures.iter().enumerate() {
            let name = failure.form.replace(['/', '@'], "_");
            let path = directory.join(format!("{name}_{}_{n}.txt", failure.engine));
            std::fs::write(&path, report::render_failure(failure))
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(if results.diverging.is_empty() && old.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
