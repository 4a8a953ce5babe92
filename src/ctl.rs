//! `ring3 ctl`: the other end of the control socket.

use crate::cli::{CtlCommand, CtlOptions};
use crate::output::print;
use anyhow::{Context, Result, bail};
use regex::Regex;
use ring3_monitor::control::Changes;
use ring3_monitor::control::protocol::{Answer, Request};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often `wait-text` looks at a screen that changes.
const LOOK: Duration = Duration::from_millis(50);
/// How long it waits for a change at once.
const WAIT: Duration = Duration::from_secs(1);

struct Connection(BufReader<UnixStream>);

impl Connection {
    fn open(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("no machine listens on {}", path.display()))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, request: &Request) -> Result<(Answer, Vec<u8>)> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.0
            .get_mut()
            .write_all(&line)
            .context("the machine is gone")?;
        let mut text = String::new();
        self.0.read_line(&mut text).context("the machine is gone")?;
        if text.is_empty() {
            bail!("the machine is gone");
        }
        let answer: Answer =
            serde_json::from_str(&text).context("cannot understand the machine")?;
        if let Some(error) = answer.error {
            bail!(error);
        }
        let mut bytes = Vec::new();
        let length = self.0.by_ref().take(answer.bytes).read_to_end(&mut bytes)?;
        if length as u64 != answer.bytes {
            bail!("the machine is gone");
        }
        Ok((answer, bytes))
    }

    fn wait_text(&mut self, regex: &Regex, limit: Duration) -> Result<String> {
        let start = Instant::now();
        let mut changes = self.changes(None, Duration::ZERO)?;
        let mut text = String::new();
        loop {
            // A picture has no text.
            if changes.graphics {
                text.clear();
            } else if changes.lines.is_none() {
                // The screen may have turned to graphics in between.
                let shown = self.ask(&Request::ScreenText);
                text = shown.ok().and_then(|s| s.0.text).unwrap_or_default();
            }
            if regex.is_match(&text) {
                return Ok(text);
            }
            let rest = limit.saturating_sub(start.elapsed());
            if rest.is_zero() {
                let seconds = limit.as_secs_f64();
                bail!("'{regex}' did not appear within {seconds} s; the screen shows:\n{text}");
            }
            // A screen that changes all the time is looked at now and then.
            std::thread::sleep(LOOK.min(rest));
            changes = self.changes(Some(changes.generation), rest.min(WAIT))?;
        }
    }

    /// What changed on the screen after a generation; waits for it.
    fn changes(&mut self, since: Option<u64>, limit: Duration) -> Result<Changes> {
        let timeout = limit.as_millis().try_into().unwrap_or(u32::MAX);
        let (answer, _) = self.ask(&Request::ScreenChanges { since, timeout })?;
        serde_json::from_str(&answer.text.unwrap_or_default())
            .context("cannot understand the machine")
    }
}

/// Runs one command.
pub fn run(options: &CtlOptions) -> Result<ExitCode> {
    let mut machine = Connection::open(&options.socket)?;
    let request = match &options.command {
        CtlCommand::ScreenText => Request::ScreenText,
        CtlCommand::Screenshot { file } => {
            let (_, bytes) = machine.ask(&Request::Screenshot)?;
            std::fs::write(file, bytes)
                .with_context(|| format!("cannot write {}", file.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        CtlCommand::WaitText { regex, timeout } => {
            let text = machine.wait_text(regex, *timeout)?;
            print(&format!("{text}\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        CtlCommand::Sendkey { keys } => Request::Sendkey { keys: keys.clone() },
        CtlCommand::Type { text } => Request::Type {
            text: unescape(text),
        },
        &CtlCommand::Mouse {
            dx,
            dy,
            buttons,
            wheel,
        } => Request::Mouse {
            dx,
            dy,
            dz: wheel,
            buttons,
        },
        CtlCommand::Cdrom { image } => Request::Cdrom {
            path: medium(image)?,
        },
        CtlCommand::Floppy { image } => Request::Floppy {
            path: medium(image)?,
        },
        CtlCommand::Pause => Request::Pause,
        CtlCommand::Resume => Request::Resume,
        CtlCommand::Reset => Request::Reset,
        CtlCommand::Powerdown => Request::Powerdown,
        CtlCommand::Stats => Request::Stats,
        CtlCommand::Quit => Request::Quit,
    };
    if let Some(text) = machine.ask(&request)?.0.text {
        print(&format!("{text}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The machine's current directory may be another one.
fn medium(image: &Path) -> Result<Option<PathBuf>> {
    if image == Path::new("eject") {
        return Ok(None);
    }
    let path = std::path::absolute(image).context("no current directory")?;
    Ok(Some(path))
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('e') => out.push('\x1b'),
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_typed_text() {
        assert_eq!(unescape(r"ls\n\t\e\\x\y\"), "ls\n\t\x1b\\x\\y\\");
    }

    #[test]
    fn media_are_named_absolutely() {
        assert_eq!(medium(Path::new("eject")).unwrap(), None);
        assert!(medium(Path::new("a.iso")).unwrap().unwrap().is_absolute());
    }
}
