//! What commands print.

use anyhow::{Context, Result};
use std::io::{ErrorKind, Write, stdout};

/// Writes text to standard output. A reader that went away wants no more: that is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}
