//! A machine of QEMU, by its machine protocol (QMP) and its human monitor within that.
//!
//! QEMU gives no text screen; it is read from the VGA's registers and memory while the machine
//! is stopped, and the index registers are put back, so that the guest notices nothing.

use super::process::{Process, scratch};
use super::vga::Registers;
use super::{Machine, keyboard, ring3};
use crate::step::Removable;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// How long a key is down, and up before the next, ms: as under this monitor.
const HOLD: u32 = 12;
/// Index ports of the CRT controller, the graphics controller and the Bochs display interface.
const CRTC: u16 = 0x3d4;
const GRAPHICS: u16 = 0x3ce;
const DISPI: u16 = 0x1ce;
/// Bochs display interface: its enable register.
const DISPI_ENABLE: u32 = 4;
/// Bytes of the window that text is read from.
const WINDOW: usize = 32 << 10;

pub(super) struct Qemu {
    stream: BufReader<UnixStream>,
    directory: PathBuf,
}

/// Starts the machine and connects to it.
pub(super) fn start(mut command: Command, deadline: Instant) -> Result<(Process, Qemu), String> {
    let directory = scratch()?;
    let socket = directory.join("qmp");
    // The same ports as under this monitor: guests list them.
    command.args(["-serial", "stdio", "-serial", "null", "-serial", "null"]);
    command.args(["-serial", "null", "-parallel", "null", "-qmp"]);
    command.arg(format!("unix:{},server=on,wait=off", socket.display()));
    let process = Process::start(command, directory)?;
    let (process, stream) = ring3::connect(process, &socket, deadline, None)?;
    let directory = process.directory().to_owned();
    let mut machine = Qemu {
        stream: BufReader::new(stream),
        directory,
    };
    machine.answer()?;
    machine.tell("qmp_capabilities", &json!({}))?;
    Ok((process, machine))
}

impl Qemu {
    /// The next line that is not an event.
    fn answer(&mut self) -> Result<Value, String> {
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line);
            if !matches!(read, Ok(1..)) {
                return Err("the machine is gone".into());
            }
            let value: Value =
                serde_json::from_str(&line).map_err(|e| format!("a strange answer: {e}"))?;
            if let Some(error) = value["error"]["desc"].as_str() {
                return Err(error.to_owned());
            }
            if value.get("event").is_none() {
                return Ok(value);
            }
        }
    }

    fn tell(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let line = format!(
            "{}\n",
            json!({ "execute": command, "arguments": arguments })
        );
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|_| "the machine is gone".to_owned())?;
        Ok(self.answer()?["return"].take())
    }

    fn human(&mut self, line: &str) -> Result<String, String> {
        let answer = self.tell("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Reads a port, `size` is `b` or `h`.
    fn input(&mut self, size: char, port: u16) -> Result<u32, String> {
        let text = self.human(&format!("i/{size} {port:#x}"))?;
        text.rsplit_once("0x")
            .and_then(|(_, digits)| u32::from_str_radix(digits.trim(), 16).ok())
            .ok_or_else(|| format!("port {port:#x} reads as '{text}'"))
    }

    fn output(&mut self, size: char, port: u16, value: u32) -> Result<(), String> {
        self.human(&format!("o/{size} {port:#x} {value:#x}"))?;
        Ok(())
    }

    /// Reads indexed registers and puts the index back.
    fn indexed<const N: usize>(
        &mut self,
        size: char,
        port: u16,
        indices: [u32; N],
    ) -> Result<[u32; N], String> {
        let before = self.input(size, port)?;
        let mut values = [0; N];
        for (value, index) in values.iter_mut().zip(indices) {
            self.output(size, port, index)?;
            *value = self.input(size, port + 1)?;
        }
        self.output(size, port, before)?;
        Ok(values)
    }

    fn stopped_screen(&mut self) -> Result<Option<String>, String> {
        // The display interface's registers are 16 bits wide.
        let [enable] = self.indexed('h', DISPI, [DISPI_ENABLE])?;
        let [miscellaneous] = self.indexed('b', GRAPHICS, [6])?;
        if enable & 1 != 0 {
            return Ok(None);
        }
        let crtc = [0x01, 0x07, 0x09, 0x12, 0x0c, 0x0d, 0x13];
        let [column, overflow, scan, line, high, low, offset] =
            self.indexed('b', CRTC, crtc)?.map(|v| v as u8);
        let registers = Registers {
            miscellaneous: miscellaneous as u8,
            last_column: column,
            overflow,
            max_scan: scan,
            last_line: line,
            start: u16::from_be_bytes([high, low]),
            offset,
        };
        let Some(window) = registers.window() else {
            return Ok(None);
        };
        let file = self.directory.join("window");
        let arguments = json!({ "val": window, "size": WINDOW, "filename": file });
        self.tell("pmemsave", &arguments)?;
        let memory = std::fs::read(&file).map_err(|e| format!("no screen memory: {e}"))?;
        Ok(Some(registers.text(&memory)))
    }
}

impl Machine for Qemu {
    fn screen(&mut self) -> Result<Option<String>, String> {
        self.tell("stop", &json!({}))?;
        let text = self.stopped_screen();
        self.tell("cont", &json!({}))?;
        text
    }

    fn png(&mut self) -> Result<Vec<u8>, String> {
        let file = self.directory.join("screen.png");
        self.tell("screendump", &json!({ "filename": file, "format": "png" }))?;
        std::fs::read(&file).map_err(|e| format!("no picture: {e}"))
    }

    fn press(&mut self, chord: &str) -> Result<(), String> {
        self.keys(&keyboard::chord(chord))
    }

    fn type_text(&mut self, text: &str) -> Result<(), String> {
        for c in text.chars() {
            let keys =
                keyboard::character(c).ok_or_else(|| format!("a US keyboard cannot type '{c}'"))?;
            self.keys(&keys)?;
        }
        Ok(())
    }

    fn insert(&mut self, drive: Removable, medium: Option<&Path>) -> Result<(), String> {
        let device = match drive {
            Removable::Cdrom => "ide1-cd0",
            Removable::Floppy => "floppy0",
        };
        // QEMU has its own words for these; the human monitor lists them.
        match medium {
            Some(path) => self.human(&format!("change {device} {} raw", path.display()))?,
            None => self.human(&format!("eject -f {device}"))?,
        };
        Ok(())
    }

    fn power_button(&mut self) -> Result<(), String> {
        self.tell("system_powerdown", &json!({})).map(|_| ())
    }

    fn reset(&mut self) -> Result<(), String> {
        self.tell("system_reset", &json!({})).map(|_| ())
    }

    fn quit(&mut self) -> Result<(), String> {
        self.tell("quit", &json!({})).map(|_| ())
    }
}

impl Qemu {
    fn keys(&mut self, keys: &[String]) -> Result<(), String> {
        let keys: Vec<Value> = keys
            .iter()
            .map(|key| json!({ "type": "qcode", "data": key }))
            .collect();
        self.tell("send-key", &json!({ "keys": keys, "hold-time": HOLD }))
            .map(|_| ())
    }
}
