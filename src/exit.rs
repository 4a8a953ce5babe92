//! Exit statuses of the process.

use ring3_monitor::config::Outcome;
use std::process::ExitCode;

/// Something is wrong with the files, the options or the host.
pub const ERROR: u8 = 1;
/// The guest shut down by a triple fault.
const TRIPLE_FAULT: u8 = 3;
/// The guest restarted.
const RESET: u8 = 4;
/// The user left.
const QUIT: u8 = 5;

/// The statuses, as `--help` shows them.
pub const HELP: &str = "\
Exit status:
  0      the guest powered off
  1      wrong files, a host that lacks something, or lost serial output; stderr says what
  2      wrong command line
  3      the guest shut down by a triple fault (with --no-reboot)
  4      the guest restarted (with --no-reboot)
  5      the user quit: Ctrl-A x, ring3 ctl SOCKET quit
  128+n  ended by signal n
  2v+1   the guest wrote v to the debug-exit port 0x501 (with --debug-exit; v from 0x10
         up keeps clear of the others)";

/// The same for `ring3 guests run`.
pub const GUESTS_HELP: &str = "\
Exit status:
  0      every guest passed
  1      one did not, or files or this host are at fault; stderr says what
  2      wrong command line
A guest that boots on this terminal ends as by ring3 run: ring3 run --help shows its statuses.";

/// The status for a finished run.
pub fn of(outcome: Outcome) -> ExitCode {
    ExitCode::from(match outcome {
        Outcome::PowerOff => 0,
        Outcome::TripleFault => TRIPLE_FAULT,
        Outcome::Reset => RESET,
        Outcome::Quit => QUIT,
        Outcome::DebugExit(status) => status,
        Outcome::Signal(n) => signal(n),
    })
}

/// The shell's status for a process that signal `n` ended.
pub fn signal(n: i32) -> u8 {
    128u8.wrapping_add(n.unsigned_abs() as u8 & 0x7f)
}
