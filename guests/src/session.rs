//! Running a guest under any monitor and reading what it says on its serial port.

use crate::image::Image;
use crate::recipe::{DriveKind, Proof};
use regex::Regex;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often the serial file is looked at: the precision of [`Line::at`].
const POLL: Duration = Duration::from_millis(5);
/// How long a monitor may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// A guest that prints without end is stopped here, bytes.
const MOST_OUTPUT: usize = 16 << 20;

/// A line on the serial port.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was complete, since the monitor was started.
    pub at: Duration,
    /// Its text without the line end.
    pub text: String,
}

/// What a finished run left behind.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// All lines; the last one may be incomplete.
    pub lines: Vec<Line>,
    /// The monitor's exit status.
    pub status: ExitStatus,
    /// From start to exit of the monitor.
    pub elapsed: Duration,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The monitor could not be started or its output not read.
    #[error("cannot run the monitor")]
    Io(#[from] std::io::Error),
    /// It ran longer than allowed and was ended.
    #[error("no end after {seconds} s; last lines on the serial port:\n{tail}")]
    Timeout {
        /// The limit.
        seconds: u64,
        /// What the guest said last.
        tail: String,
    },
    /// It printed more than a guest has to say.
    #[error("more than {MOST_OUTPUT} bytes of output; last lines on the serial port:\n{tail}")]
    Chatter {
        /// What the guest said last.
        tail: String,
    },
}

/// The command line that boots `image` under `ring3`, its serial port into the file `serial`.
#[must_use]
pub fn ring3_command(ring3: &Path, image: &Image, serial: &Path) -> Command {
    let mut command = ring3_machine(ring3, image);
    command
        .arg("--serial")
        .arg(format!("file:{}", serial.display()));
    command
}

/// The command line that boots `image` under QEMU's translator, likewise.
#[must_use]
pub fn qemu_command(image: &Image, serial: &Path) -> Command {
    let mut command = qemu_machine(image);
    command
        .arg("-serial")
        .arg(format!("file:{}", serial.display()));
    command
}

/// The command line that boots `image` under `ring3`, without its serial port. What the guest
/// writes to its drives is dropped, unless [`Image::keep_writes`] says otherwise.
#[must_use]
pub fn ring3_machine(ring3: &Path, image: &Image) -> Command {
    let mut command = Command::new(ring3);
    command.arg("run").args(["--memory", &image.boot.memory]);
    if let Some(kernel) = &image.kernel {
        command.arg("--kernel").arg(kernel);
        if let Some(initrd) = &image.initrd {
            command.arg("--initrd").arg(initrd);
        }
        command.args(["--append", &image.boot.append]);
        if image.boot.firmware {
            command.args(["--firmware", "seabios"]);
        }
    }
    for (kind, medium) in &image.drives {
        let option = match kind {
            DriveKind::Floppy => "--floppy",
            DriveKind::Disk => "--disk",
            DriveKind::Cdrom => "--cdrom",
        };
        command.arg(option).arg(medium);
    }
    if !image.drives.is_empty() && !image.keep_writes {
        command.arg("--snapshot");
    }
    if let Some(order) = image.boot.order {
        command.args(["--boot", order.letter()]);
    }
    if image.boot.debug_exit {
        command.arg("--debug-exit");
    }
    if !image.boot.reboot {
        command.arg("--no-reboot");
    }
    command
}

/// The command line that boots `image` under QEMU's translator, likewise.
#[must_use]
pub fn qemu_machine(image: &Image) -> Command {
    let mut command = Command::new("qemu-system-i386");
    command.args(["-accel", "tcg", "-display", "none", "-nodefaults"]);
    command.args(["-vga", "std", "-m", &image.boot.memory]);
    if let Some(kernel) = &image.kernel {
        command.arg("-kernel").arg(kernel);
        if let Some(initrd) = &image.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if !image.boot.append.is_empty() {
            command.args(["-append", &image.boot.append]);
        }
    }
    let mut places = [0_u8, 2, 0];
    for (kind, medium) in &image.drives {
        let (bus, options, place) = match kind {
            DriveKind::Disk => ("ide", "", 0),
            DriveKind::Cdrom => ("ide", ",media=cdrom", 1),
            DriveKind::Floppy => ("floppy", "", 2),
        };
        command.arg("-drive").arg(format!(
            "file={},format=raw,if={bus},index={}{options}",
            medium.display().to_string().replace(',', ",,"),
            places[place]
        ));
        places[place] += 1;
    }
    if !image.drives.is_empty() && !image.keep_writes {
        command.arg("-snapshot");
    }
    if let Some(order) = image.boot.order {
        command.args(["-boot", order.letter()]);
    }
    if image.boot.debug_exit {
        command.args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"]);
    }
    if !image.boot.reboot {
        command.arg("-no-reboot");
    }
    command
}

/// Runs a monitor whose serial port goes to the file `serial` (emptied first) until it exits.
///
/// # Errors
/// [`SessionError`]; the monitor has ended in every case.
pub fn run(
    mut command: Command,
    serial: &Path,
    timeout: Duration,
) -> Result<Transcript, SessionError> {
    File::create(serial)?;
    let mut file = File::open(serial)?;
    let start = Instant::now();
    let mut child = Running(command.stdin(Stdio::null()).spawn()?);
    let mut lines: Vec<Line> = Vec::new();
    let mut pending = Vec::new();
    let mut total = 0;
    loop {
        // Look at the status first: what was written before the exit is then surely read.
        let status = child.0.try_wait()?;
        let mut fresh = Vec::new();
        total += file.read_to_end(&mut fresh)?;
        let at = start.elapsed();
        pending.extend_from_slice(&fresh);
        while let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let text = String::from_utf8_lossy(&pending[..end])
                .trim_end_matches('\r')
                .to_string();
            lines.push(Line { at, text });
            pending.drain(..=end);
        }
        if let Some(status) = status {
            if !pending.is_empty() {
                lines.push(Line {
                    at,
                    text: String::from_utf8_lossy(&pending).into_owned(),
                });
            }
            return Ok(Transcript {
                lines,
                status,
                elapsed: at,
            });
        }
        let tail = || {
            let from = lines.len().saturating_sub(25);
            let mut text: String = lines[from..]
                .iter()
                .map(|l| format!("| {}\n", l.text))
                .collect();
            text.push_str(&format!("| {}", String::from_utf8_lossy(&pending)));
            text
        };
        if at > timeout {
            return Err(SessionError::Timeout {
                seconds: timeout.as_secs(),
                tail: tail(),
            });
        }
        if total > MOST_OUTPUT {
            return Err(SessionError::Chatter { tail: tail() });
        }
        sleep(POLL);
    }
}

/// A child that does not outlive its owner.
pub(crate) struct Running(pub Child);

impl Running {
    /// Ends it if it still runs.
    pub fn end(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Ok(id) = i32::try_from(self.0.id()) {
            // Not reaped yet, so the id is still this child's.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(id),
                nix::sys::signal::Signal::SIGTERM,
            );
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(POLL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Transcript {
    /// The value of the line `R3:<name>:<value>`.
    #[must_use]
    pub fn result(&self, name: &str) -> Option<&str> {
        self.marked("R3", name).map(|(value, _)| value)
    }

    /// When, since the monitor was started, the line `R3:<name>:` came.
    #[must_use]
    pub fn result_at(&self, name: &str) -> Option<Duration> {
        self.marked("R3", name).map(|(_, line)| line.at)
    }

    /// The guest's own measure `T3:<name>:<centiseconds>`.
    #[must_use]
    pub fn guest_time(&self, name: &str) -> Option<Duration> {
        self.marked("T3", name)?
            .0
            .parse()
            .ok()
            .map(|cs: u64| Duration::from_millis(cs * 10))
    }

    fn marked(&self, kind: &str, name: &str) -> Option<(&str, &Line)> {
        let mark = format!("{kind}:{name}:");
        self.lines.iter().find_map(|l| {
            l.text
                .find(&mark)
                .map(|at| (l.text[at + mark.len()..].trim(), l))
        })
    }

    /// Everything on the serial port.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().map(|l| format!("{}\n", l.text)).collect()
    }

    /// What the proof misses; empty when the run succeeded.
    #[must_use]
    pub fn missing(&self, proof: &Proof) -> Vec<String> {
        let any = |pattern: &String| {
            Regex::new(pattern)
                .is_ok_and(|regex| self.lines.iter().any(|line| regex.is_match(&line.text)))
        };
        let mut all: Vec<String> = proof
            .serial
            .iter()
            .filter(|p| !any(p))
            .map(|p| format!("no line matches {p}"))
            .collect();
        all.extend(
            proof
                .never
                .iter()
                .filter(|p| any(p))
                .map(|p| format!("a line matches {p}")),
        );
        if let Some(expected) = proof.exit_status
            && self.status.code() != Some(expected)
        {
            all.push(format!("{}, expected exit status {expected}", self.status));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, serial: &Path) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).env("SERIAL", serial);
        command
    }

    #[test]
    fn results_and_times_are_read_from_marked_lines() {
        let dir = tempfile::tempdir().unwrap();
        let serial = dir.path().join("serial");
        let script = "printf '[  0.1] x R3:sum:12 \\r\\nT3:sum:150\\r\\nlast' >> $SERIAL; exit 3";
        let transcript = run(shell(script, &serial), &serial, Duration::from_secs(10)).unwrap();
        assert_eq!(transcript.result("sum"), Some("12"));
        assert_eq!(
            transcript.guest_time("sum"),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(transcript.result("none"), None);
        assert_eq!(transcript.lines.last().unwrap().text, "last");
        let proof = |serial: &[&str], exit_status| Proof {
            serial: serial.iter().map(|s| (*s).to_string()).collect(),
            never: vec!["x.*R3".into()],
            exit_status: Some(exit_status),
            timeout_seconds: 1,
        };
        assert_eq!(
            transcript.missing(&proof(&["R3:sum:1[0-9]"], 3)),
            ["a line matches x.*R3"]
        );
        assert_eq!(transcript.missing(&proof(&["R3:sum:2"], 0)).len(), 3);
    }

    #[test]
    fn a_guest_that_hangs_is_ended_and_its_last_words_shown() {
        let dir = tempfile::tempdir().unwrap();
        let serial = dir.path().join("serial");
        let command = shell("echo stuck >> $SERIAL; exec sleep 100", &serial);
        let start = Instant::now();
        let error = run(command, &serial, Duration::from_millis(300))
            .unwrap_err()
            .to_string();
        assert!(error.contains("| stuck"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
