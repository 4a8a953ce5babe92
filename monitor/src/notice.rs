//! One line to the user while a machine runs.

use std::io::{self, IsTerminal, Write};

/// Tells the user of something that needs no answer.
pub(crate) fn notice(text: &str) {
    let mut stderr = io::stderr();
    // The terminal may be in raw mode. Whoever closed stderr does not want to know.
    let end = if stderr.is_terminal() { "\r\n" } else { "\n" };
    let _ = write!(stderr, "ring3: {text}{end}");
}
