//! A machine of this monitor, by its control socket: a line of JSON for each request and answer.

use super::Machine;
use super::process::{Process, scratch};
use crate::step::Removable;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Most bytes of a picture.
const MOST_BYTES: u64 = 256 << 20;

pub(super) struct Ring3(BufReader<UnixStream>);

/// Starts the machine and connects to it. One that has already ended with the status `end` is gone,
/// but not a failure: some guests take less time than it takes to find the socket.
pub(super) fn start(
    mut command: Command,
    deadline: Instant,
    end: Option<i32>,
) -> Result<(Process, Ring3), String> {
    let directory = scratch()?;
    let socket = directory.join("control");
    command.args(["--serial", "stdio", "--control"]);
    command.arg(format!("unix:{}", socket.display()));
    let process = Process::start(command, directory)?;
    let (process, stream) = connect(process, &socket, deadline, end)?;
    Ok((process, Ring3(BufReader::new(stream))))
}

/// Connects to the socket that a starting monitor opens; to nobody, if it has already ended with the
/// status `end`.
pub(super) fn connect(
    mut process: Process,
    socket: &Path,
    deadline: Instant,
    end: Option<i32>,
) -> Result<(Process, UnixStream), String> {
    loop {
        let exited = process.exited();
        if let Ok(stream) = UnixStream::connect(socket) {
            return Ok((process, stream));
        }
        if let Some(status) = exited {
            if end.is_some() && status.code() == end {
                let (stream, _) = UnixStream::pair().map_err(|e| format!("no sockets: {e}"))?;
                return Ok((process, stream));
            }
            let (_, messages) = process.finish();
            return Err(format!("the monitor did not start ({status}): {messages}"));
        }
        if Instant::now() > deadline {
            return Err("the monitor opened no control socket".into());
        }
        sleep(Duration::from_millis(2));
    }
}

impl Ring3 {
    fn ask(&mut self, request: &Value) -> Result<(Option<String>, Vec<u8>), String> {
        let gone = |_| "the machine is gone".to_owned();
        let line = format!("{request}\n");
        self.0.get_mut().write_all(line.as_bytes()).map_err(gone)?;
        let mut line = String::new();
        self.0.read_line(&mut line).map_err(gone)?;
        if line.is_empty() {
            return Err("the machine is gone".into());
        }
        let answer: Value =
            serde_json::from_str(&line).map_err(|e| format!("a strange answer: {e}"))?;
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_owned());
        }
        let length = answer["bytes"].as_u64().unwrap_or(0).min(MOST_BYTES);
        let mut bytes = Vec::new();
        let part = self.0.by_ref().take(length);
        let n = { part }.read_to_end(&mut bytes).map_err(gone)?;
        if n as u64 != length {
            return Err("the machine is gone".into());
        }
        Ok((answer["text"].as_str().map(String::from), bytes))
    }

    fn tell(&mut self, request: &Value) -> Result<(), String> {
        self.ask(request).map(|_| ())
    }
}

impl Machine for Ring3 {
    fn screen(&mut self) -> Result<Option<String>, String> {
        match self.ask(&json!({ "command": "screen-text" })) {
            Ok((text, _)) => Ok(Some(text.unwrap_or_default())),
            Err(e) if e.contains("graphics") => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn png(&mut self) -> Result<Vec<u8>, String> {
        Ok(self.ask(&json!({ "command": "screenshot" }))?.1)
    }

    fn press(&mut self, chord: &str) -> Result<(), String> {
        self.tell(&json!({ "command": "sendkey", "keys": [chord] }))
    }

    fn type_text(&mut self, text: &str) -> Result<(), String> {
        self.tell(&json!({ "command": "type", "text": text }))
    }

    fn insert(&mut self, drive: Removable, medium: Option<&Path>) -> Result<(), String> {
        let command = match drive {
            Removable::Cdrom => "cdrom",
            Removable::Floppy => "floppy",
        };
        self.tell(&json!({ "command": command, "path": medium }))
    }

    fn power_button(&mut self) -> Result<(), String> {
        self.tell(&json!({ "command": "powerdown" }))
    }

    fn reset(&mut self) -> Result<(), String> {
        self.tell(&json!({ "command": "reset" }))
    }

    fn quit(&mut self) -> Result<(), String> {
        self.tell(&json!({ "command": "quit" }))
    }
}
