//! Words to the user while a machine runs and the terminal may be in raw mode.

use std::io::{self, IsTerminal, Write};

/// Tells the user of something that needs no answer, in one line.
pub(crate) fn notice(text: &str) {
    print(&format!("ring3: {text}\n"));
}

/// Writes lines to stderr. Whoever closed it does not want to know.
pub(crate) fn print(lines: &str) {
    let mut stderr = io::stderr();
    let _ = if stderr.is_terminal() {
        stderr.write_all(lines.replace('\n', "\r\n").as_bytes())
    } else {
        stderr.write_all(lines.as_bytes())
    };
}
