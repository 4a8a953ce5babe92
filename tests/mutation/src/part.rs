//! Parts of the suite, run with or without a mistake.

use anyhow::{Context, Result};
use ring3_conformance::engine::Engine;
use ring3_conformance::engines;
use ring3_conformance::native::Native;
use ring3_conformance::runner::{self, Options, Results};
use ring3_guests::cache::Cache;
use ring3_guests::{Refresh, prepare, session};
use ring3_monitor::board::StopHandle;
use ring3_monitor::config::{
    BootSource, EngineKind, LinuxFiles, MachineConfig, Outcome, Ring3Policy, SerialSpec,
};
use ring3_monitor::machine::Machine;
use ring3_system_conformance::machine::Runner;
use ring3_system_conformance::report::run_table;
use ring3_system_conformance::tables;
use ring3_translator::mutation::Mutation;
use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The seed of everything random here.
const SEED: u64 = 20_261_121;
/// Cases of each form.
const CASES: u32 = 60;
/// A table that takes longer hangs.
const TABLE_LIMIT: Duration = Duration::from_secs(150);

/// Rows of a table, about.
const ROWS: usize = 4000;

/// A tiny guest fails if it fails once and so many times again.
const RETRIES: u32 = 2;

/// A part of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Instruction forms whose name contains this, on these engines.
    Forms(&'static str, &'static str),
    /// So many random programs on these engines.
    Programs(u32, &'static str),
    /// A table of the system suite.
    Table(&'static str),
    /// A tiny guest.
    Tiny(&'static str),
}

/// How a part went.
pub enum Verdict {
    /// All as it should be.
    Passed,
    /// This case was not.
    Noticed(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forms(only, _) => write!(f, "instructions {only:?}"),
            Self::Programs(..) => write!(f, "random programs"),
            Self::Table(name) => write!(f, "table {name}"),
            Self::Tiny(name) => write!(f, "guest {name}"),
        }
    }
}

impl Part {
    /// Runs it, with a mistake or without.
    ///
    /// # Errors
    /// If it cannot be run at all.
    pub fn run(&self, mistake: Option<Mutation>) -> Result<Verdict> {
        match self {
            Self::Forms(only, names) => conformance(Some(only), 0, names, mistake),
            Self::Programs(count, names) => conformance(None, *count, names, mistake),
            Self::Table(name) => table(name, mistake),
            Self::Tiny(name) => {
                // On a loaded machine a guest that waits for timers may fail by itself.
                let mut verdict = tiny(name, mistake)?;
                for _ in 0..RETRIES {
                    if matches!(verdict, Verdict::Noticed(_)) {
                        verdict = tiny(name, mistake)?;
                    }
                }
                Ok(verdict)
            }
        }
    }
}

fn conformance(
    only: Option<&str>,
    programs: u32,
    names: &str,
    mistake: Option<Mutation>,
) -> Result<Verdict> {
    let names: Vec<String> = names
        .split(',')
        .map(|n| mistake.map_or_else(|| n.to_owned(), |m| format!("{n}+{m:?}")))
        .collect();
    let mut engines: Vec<Box<dyn Engine>> =
        engines::list(&names.join(","), &std::env::current_exe()?)?;
    let mut oracle = Native::new()?;
    let options = Options {
        seed: SEED,
        cases: CASES,
        only: only.map(str::to_owned),
        step: 1,
        keep: 1,
        shrinking: Duration::ZERO,
        rounds: 2,
        stop_at_first: true,
    };
    let mut results = Results::default();
    if only.is_some() {
        results = runner::run(&options, &mut oracle, &mut engines);
        anyhow::ensure!(!results.forms.is_empty(), "no form is called {only:?}");
    }
    runner::run_programs(&options, programs, &mut oracle, &mut engines, &mut results);
    Ok(match results.diverging.keys().next() {
        Some((engine, form)) => {
            let base = engine.split('+').next().unwrap_or(engine);
            Verdict::Noticed(format!("{form}, {base}"))
        }
        None => Verdict::Passed,
    })
}

fn this() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

fn with_mistake(command: &mut Command, mistake: Option<Mutation>) {
    if let Some(m) = mistake {
        command.args(["--mutation", &format!("{m:?}")]);
    }
}

fn table(name: &str, mistake: Option<Mutation>) -> Result<Verdict> {
    let output = tempfile::NamedTempFile::new()?;
    let mut command = this()?;
    command
        .args(["--table", name])
        .stdout(output.reopen()?)
        .stderr(output.reopen()?);
    with_mistake(&mut command, mistake);
    let mut child = command.spawn()?;
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begin.elapsed() > TABLE_LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(Verdict::Noticed("no end".into()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = std::fs::read_to_string(output.path()).unwrap_or_default();
    let first = said.lines().next().unwrap_or_default().to_owned();
    Ok(match status.code() {
        Some(0) => Verdict::Passed,
        Some(1) => Verdict::Noticed(first),
        Some(code) => Verdict::Noticed(format!("it could not be run, status {code}: {first}")),
        None => Verdict::Noticed(format!("the monitor died: {status}")),
    })
}

/// In a process of its own: runs a table, prints the first row that fails.
///
/// # Errors
/// If it cannot be run.
pub fn run_table_here(name: &str, mistake: Option<Mutation>) -> Result<ExitCode> {
    let table = tables::all()
        .into_iter()
        .find(|t| t.name == name)
        .with_context(|| format!("no table is called {name}"))?
        .sample(ROWS);
    let runner = mistake.map_or(Runner::Bt, Runner::Mutant);
    let outcome = run_table(&table, runner)?;
    Ok(match outcome.failed.first() {
        Some((row, _)) => {
            println!("{row} ({} rows fail)", outcome.failed.len());
            ExitCode::from(1)
        }
        None => ExitCode::SUCCESS,
    })
}

fn tiny(name: &str, mistake: Option<Mutation>) -> Result<Verdict> {
    let root = Cache::default_root()?;
    let image = prepare(&root, name, Refresh::IfMissing)?;
    let kernel = image.kernel.as_ref().context("a tiny guest is a kernel")?;
    let directory = tempfile::tempdir()?;
    let serial = directory.path().join("serial");
    let mut command = this()?;
    command
        .arg("--tiny")
        .arg(kernel)
        .arg("--serial")
        .arg(&serial);
    with_mistake(&mut command, mistake);
    let limit = Duration::from_secs(image.proof.timeout_seconds);
    let transcript = match session::run(command, &serial, limit) {
        Ok(transcript) => transcript,
        Err(session::SessionError::Timeout { .. }) => return Ok(Verdict::Noticed("no end".into())),
        Err(other) => return Err(other.into()),
    };
    let missing = transcript.missing(&image.proof);
    let failed = transcript.lines.iter().find(|l| l.text.starts_with("FAIL"));
    Ok(match (failed, missing.first()) {
        (Some(line), _) => Verdict::Noticed(line.text.clone()),
        (None, Some(what)) => Verdict::Noticed(what.clone()),
        (None, None) => Verdict::Passed,
    })
}

/// In a process of its own: boots a tiny guest; the exit status is what it asks for.
///
/// # Errors
/// If it cannot be run.
pub fn run_tiny_here(kernel: &Path, serial: &Path, mistake: Option<Mutation>) -> Result<ExitCode> {
    let config = MachineConfig {
        memory: 64 << 20,
        boot: BootSource::Linux(LinuxFiles {
            kernel: kernel.to_owned(),
            initrd: None,
            cmdline: String::new(),
        }),
        drives: Vec::new(),
        snapshot: false,
        debug_log: None,
        control: None,
        serial: vec![SerialSpec::File(serial.to_owned())],
        parallel: None,
        engine: EngineKind::Bt,
        ring3: Ring3Policy::default(),
        stats: None,
        no_reboot: true,
        debug_exit: true,
        stop: Arc::new(StopHandle::new()?),
    };
    let mut machine = Machine::new(config)?;
    if let Some(m) = mistake {
        machine.mutate(m);
    }
    Ok(match machine.run()? {
        Outcome::DebugExit(value) => ExitCode::from(value),
        _ => ExitCode::from(3),
    })
}
