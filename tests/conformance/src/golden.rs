//! Golden cases: failing cases of the past, kept as text and run again for ever.

use crate::case::{Case, Stop};
use crate::engine::Engine;
use crate::runner::{self, Failure};
use crate::{compare, shrink, text};
use std::path::{Path, PathBuf};

/// Why a directory of golden cases cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The directory or a file cannot be read.
    #[error("{}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// A file is not a case.
    #[error("{}", .0.display())]
    Parse(PathBuf, #[source] text::TextError),
    /// The host cannot run a case.
    #[error("{}: the host does not run it: {}", .0.display(), .1)]
    Lost(PathBuf, String),
}

/// One file.
pub struct Golden {
    /// Where it was read from.
    pub path: PathBuf,
    /// The case.
    pub case: Case,
}

/// Every `*.txt` of a directory, in the order of their names.
///
/// # Errors
/// [`GoldenError`] if one cannot be read or is not a case.
pub fn load(directory: &Path) -> Result<Vec<Golden>, GoldenError> {
    let unreadable = |e| GoldenError::Read(directory.to_path_buf(), e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text =
                std::fs::read_to_string(&path).map_err(|e| GoldenError::Read(path.clone(), e))?;
            match text::parse(&text) {
                Ok(case) => Ok(Golden { path, case }),
                Err(e) => Err(GoldenError::Parse(path, e)),
            }
        })
        .collect()
}

/// Runs golden cases on the oracle and every engine that can run them; the divergences.
///
/// # Errors
/// [`GoldenError::Lost`] if the oracle cannot run one.
pub fn replay(
    cases: &[Golden],
    stop_at_first: bool,
    oracle: &mut dyn Engine,
    engines: &mut [Box<dyn Engine>],
) -> Result<Vec<Failure>, GoldenError> {
    let mut failures = Vec::new();
    for golden in cases {
        let expected = oracle.run(&golden.case);
        if matches!(expected.stop, Stop::Lost(_)) {
            let why = compare::describe(&expected.stop);
            return Err(GoldenError::Lost(golden.path.clone(), why));
        }
        for engine in engines.iter_mut() {
            let engine = engine.as_mut();
            if !runner::comparable(&golden.case, engine) {
                continue;
            }
            let rules = runner::rules(oracle, engine);
            let differences = shrink::check(&golden.case, oracle, engine, rules);
            if differences.is_empty() {
                continue;
            }
            failures.push(Failure {
                form: golden.path.display().to_string(),
                engine: engine.name(),
                case: golden.case.clone(),
                differences,
                expected: expected.clone(),
            });
            if stop_at_first {
                return Ok(failures);
            }
        }
    }
    Ok(failures)
}
