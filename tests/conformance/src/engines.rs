//! The engines by name.

use crate::engine::Engine;
use crate::interpret::Interpreter;
use crate::native::{Native, NativeError};
use crate::translated::Translated;
use ring3_monitor::rig::Form;
use std::io;

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

/// The engine called `name`.
///
/// # Errors
/// [`EngineError`] if there is none or it cannot start.
pub fn named(name: &str) -> Result<Box<dyn Engine>, EngineError> {
    match name {
        "native" => Ok(Box::new(Native::new()?)),
        "window" => Ok(Box::new(Translated::new(Form::Window)?)),
        "soft" => Ok(Box::new(Translated::new(Form::Soft)?)),
        "step" => Ok(Box::new(Translated::new(Form::Step)?)),
        "interpreter" => Ok(Box::new(Interpreter::new())),
        _ => Err(EngineError::Unknown(name.into())),
    }
}

/// All engines that are compared by default. A second native process is among them: it proves
/// that the oracle is deterministic and that no state leaks between cases.
///
/// # Errors
/// [`EngineError`] if one cannot start.
pub fn all() -> Result<Vec<Box<dyn Engine>>, EngineError> {
    ["native", "interpreter", "window", "soft", "step"].into_iter().map(named).collect()
}
