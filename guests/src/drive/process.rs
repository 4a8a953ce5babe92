//! A monitor as a process whose standard input and output are the guest's first serial port.

use crate::session::Running;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Most text kept, bytes; what comes later is dropped.
const MOST_TEXT: usize = 16 << 20;
/// Most bytes of the monitor's own messages that are shown.
const MOST_MESSAGES: usize = 4 << 10;

pub(super) struct Process {
    running: Running,
    input: Option<ChildStdin>,
    serial: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    messages: File,
    status: Option<ExitStatus>,
    directory: Scratch,
}

/// A directory that goes with its owner.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Below the system's temporary directory: what stays behind does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A directory of this process for sockets and scratch files, with a short name: a socket's path
/// has at most 108 bytes.
pub(super) fn scratch() -> Result<std::path::PathBuf, String> {
    use std::os::unix::fs::DirBuilderExt;
    let base = std::env::temp_dir();
    for n in 0..10_000 {
        let path = base.join(format!("ring3-{}-{n}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(format!("cannot create {}: {e}", path.display())),
        }
    }
    Err(format!("{} is full of scratch directories", base.display()))
}

impl Process {
    /// Starts `command`, which has its serial port on standard input and output. `directory` is
    /// removed when the process is dropped.
    pub fn start(mut command: Command, directory: std::path::PathBuf) -> Result<Self, String> {
        let directory = Scratch(directory);
        let path = directory.0.join("messages");
        let failed = |e: std::io::Error| format!("cannot run the monitor: {e}");
        let sink = File::create(&path).map_err(failed)?;
        let messages = File::open(&path).map_err(failed)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(sink)
            .spawn()
            .map_err(failed)?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let running = Running(child);
        let serial = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&serial);
        let reader = output.map(|mut output| {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut filter = Filter::default();
                while let Ok(n @ 1..) = output.read(&mut buffer) {
                    let mut text = lock(&sink);
                    if text.len() < MOST_TEXT {
                        filter.push(&buffer[..n], &mut text);
                    }
                }
            })
        });
        Ok(Self {
            running,
            input,
            serial,
            reader,
            messages,
            status: None,
            directory,
        })
    }

    /// The exit status, once it has ended and everything that it said is read.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.running.0.try_wait().ok().flatten();
            if self.status.is_some()
                && let Some(reader) = self.reader.take()
            {
                // It ends at the end of the pipe; a panic of it would be a bug of ours, which
                // shows as missing text.
                let _ = reader.join();
            }
        }
        self.status
    }

    /// Sends text to the serial port.
    pub fn send(&mut self, text: &str) -> Result<(), String> {
        let gone = || "the serial port is gone".to_owned();
        let input = self.input.as_mut().ok_or_else(gone)?;
        input
            .write_all(text.as_bytes())
            .and_then(|()| input.flush())
            .map_err(|_| gone())
    }

    /// Looks at the text on the serial port so far.
    pub fn with_serial<T>(&self, look: impl FnOnce(&str) -> T) -> T {
        look(&lock(&self.serial))
    }

    /// The scratch directory.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory.0
    }

    /// What the monitor has said so far on standard error: the end of it.
    pub fn messages(&mut self) -> String {
        use std::io::Seek;
        let mut bytes = Vec::new();
        let _ = self.messages.rewind();
        let _ = self.messages.read_to_end(&mut bytes);
        let from = bytes.len().saturating_sub(MOST_MESSAGES);
        String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
    }

    /// Ends it if it still runs: the text on the serial port, and what the monitor said.
    pub fn finish(mut self) -> (String, String) {
        drop(self.input.take());
        self.running.end();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let messages = self.messages();
        let serial = std::mem::take(&mut *lock(&self.serial));
        (serial, messages)
    }
}

fn lock(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves out carriage returns and ANSI control sequences (ECMA-48: ESC and what it introduces).
#[derive(Default)]
struct Filter {
    state: State,
    /// The beginning of a UTF-8 character.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// Within CSI: up to a byte of 40h-7Eh.
    Sequence,
    /// After ESC and an intermediate byte: one more.
    Last,
}

impl Filter {
    fn push(&mut self, bytes: &[u8], text: &mut String) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (_, 0x1b) => State::Escape,
                (State::Text, b'\r') => State::Text,
                (State::Text, _) => {
                    self.partial.push(byte);
                    State::Text
                }
                (State::Escape, b'[') => State::Sequence,
                (State::Escape, b' '..=b'/') => State::Last,
                (State::Sequence, 0x40..=0x7e) | (State::Escape | State::Last, _) => State::Text,
                (State::Sequence, _) => State::Sequence,
            };
        }
        // A character may be cut in the middle; what is no character at all is replaced.
        let whole = match std::str::from_utf8(&self.partial) {
            Ok(_) => self.partial.len(),
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            Err(_) => self.partial.len(),
        };
        let done: Vec<u8> = self.partial.drain(..whole).collect();
        text.push_str(&String::from_utf8_lossy(&done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_and_carriage_returns_are_left_out() {
        let mut filter = Filter::default();
        let mut text = String::new();
        filter.push(b"a\r\n\x1b[1;3", &mut text);
        filter.push(b"1mb\x1b(B\x1bMc\xe2\x94", &mut text);
        assert_eq!(text, "a\nbc");
        filter.push(b"\x80\xff", &mut text);
        assert_eq!(text, "a\nbc\u{2500}\u{fffd}");
    }

    #[test]
    fn what_a_process_says_before_its_end_is_read_whole() {
        let mut command = Command::new("sh");
        command.args(["-c", "read x; echo got $x; echo oops >&2; exit 3"]);
        let mut process = Process::start(command, scratch().unwrap()).unwrap();
        process.send("word\n").unwrap();
        let status = loop {
            match process.exited() {
                Some(status) => break status,
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        };
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.finish(), ("got word\n".into(), "oops".into()));
    }
}
