//! The engines by name.

use crate::engine::Engine;
use crate::guest;
use crate::interpret::Interpreter;
use crate::native::{Native, NativeError};
use crate::translated::Translated;
use crate::vector::XsaveLayout;
use crate::worker::{Facts, Isolated};
use ring3_monitor::cpu::cpuid::CpuModel;
use ring3_monitor::rig::Form;
use std::io;
use std::path::Path;

/// Why there is no such engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The host cannot run it.
    #[error(transparent)]
    Native(#[from] NativeError),
    /// The virtual processor cannot start.
    #[error("the virtual processor")]
    Rig(#[from] io::Error),
    /// No engine has this name.
    #[error("unknown engine {0} (known: native, interpreter, window, soft, step)")]
    Unknown(String),
}

/// The engines that are compared by default. A second native process is among them: it proves
/// that the oracle is deterministic and that no state leaks between cases.
pub const DEFAULT: [&str; 5] = ["native", "interpreter", "window", "soft", "step"];

fn form(name: &str) -> Option<(&'static str, Form)> {
    match name {
        "window" => Some(("window", Form::Window)),
        "soft" => Some(("soft", Form::Soft)),
        "step" => Some(("step", Form::Step)),
        _ => None,
    }
}

/// The engine `name` that makes the mistake after the plus sign, in this process.
#[cfg(feature = "mutation")]
fn mutant(name: &str) -> Option<Result<Box<dyn Engine>, EngineError>> {
    use ring3_translator::mutation::Mutation;
    let (base, mistake) = name.split_once('+')?;
    let (_, form) = form(base)?;
    let mutation = Mutation::named(mistake)?;
    Some(match Translated::new(form) {
        Ok(mut engine) => {
            engine.mutate(mutation);
            Ok(Box::new(engine))
        }
        Err(e) => Err(e.into()),
    })
}

/// The engine called `name` in this process.
///
/// # Errors
/// [`EngineError`] if there is none or it cannot start.
pub fn direct(name: &str) -> Result<Box<dyn Engine>, EngineError> {
    #[cfg(feature = "mutation")]
    if let Some(engine) = mutant(name) {
        return engine;
    }
    match (name, form(name)) {
        ("native", _) => Ok(Box::new(Native::new()?)),
        ("interpreter", _) => Ok(Box::new(Interpreter::new())),
        (_, Some((_, form))) => Ok(Box::new(Translated::new(form)?)),
        _ => Err(EngineError::Unknown(name.into())),
    }
}

/// The engine called `name`; translated engines run in workers that `program` serves.
///
/// # Errors
/// [`EngineError`] if there is none or it cannot start.
pub fn named(name: &str, program: &Path) -> Result<Box<dyn Engine>, EngineError> {
    let base = name.split('+').next().unwrap_or(name);
    let Some((_, form)) = form(base) else {
        return direct(name);
    };
    let model = CpuModel::host_default();
    let facts = Facts {
        name: name.to_owned(),
        user_only: form != Form::Window,
        components: model.xcr0_bits() & XsaveLayout::host().features,
        accepts: Box::new(move |case| guest::offers(&model, case)),
    };
    Ok(Box::new(Isolated::new(program.into(), facts)))
}

/// Several engines, by names separated by commas, or `all`.
///
/// # Errors
/// [`EngineError`] if one does not exist or cannot start.
pub fn list(names: &str, program: &Path) -> Result<Vec<Box<dyn Engine>>, EngineError> {
    match names {
        "all" => DEFAULT.into_iter().map(|n| named(n, program)).collect(),
        names => names.split(',').map(|n| named(n, program)).collect(),
    }
}
