//! Driving a guest: boot it under a monitor, do its steps, look for its proof.
//!
//! [`Monitor`] says which monitor; the two differ only behind the `Machine` trait, so that a
//! recipe that fails under both is at fault itself.

mod copies;
mod keyboard;
mod picture;
mod process;
mod qemu;
mod ring3;
mod vga;

pub use picture::{Picture, different_pixels};

use crate::disk::check_file_system;
use crate::image::Image;
use crate::recipe::DriveKind;
use crate::session::{qemu_machine, ring3_machine};
use crate::step::{Exit, Removable, Screenshot, Step, Wait};
use copies::Copies;
use process::Process;
use regex::{Regex, RegexBuilder};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often a screen or a serial port is looked at: the precision of the seconds.
const LOOK: Duration = Duration::from_millis(40);

/// So many equal looks in a row make a screen that has settled.
const SETTLED: u32 = 4;
/// After so many looks, one that keeps changing is taken as it is.
const MOST_LOOKS: u32 = 30;

/// A monitor that guests boot under.
#[derive(Clone, Debug)]
pub enum Monitor {
    /// This one.
    Ring3 {
        /// The program.
        program: PathBuf,
        /// More options of `run`.
        options: Vec<String>,
    },
    /// QEMU's translator.
    Qemu,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From the start of the monitor to the end of the last step, or to the monitor's end.
    pub seconds: f64,
    /// Processor time of the monitor, user and system.
    pub cpu_seconds: f64,
    /// The same as `seconds` when each step was done.
    pub step_seconds: Vec<f64>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The pictures that the steps took.
    pub pictures: Vec<(Screenshot, Picture)>,
    /// The screen at the end, if it was seen and showed text.
    pub screen: Option<String>,
    /// Everything on the first serial port, without control sequences.
    pub serial: String,
    /// What the monitor itself said.
    pub messages: String,
}

/// A running machine under some monitor.
trait Machine {
    /// The text screen; `None` in graphics.
    fn screen(&mut self) -> Result<Option<String>, String>;
    /// The screen as PNG.
    fn png(&mut self) -> Result<Vec<u8>, String>;
    /// Presses a chord.
    fn press(&mut self, chord: &str) -> Result<(), String>;
    /// Types text.
    fn type_text(&mut self, text: &str) -> Result<(), String>;
    /// Inserts a medium, or ejects it.
    fn insert(&mut self, drive: Removable, medium: Option<&Path>) -> Result<(), String>;
    /// Presses the ACPI power button.
    fn power_button(&mut self) -> Result<(), String>;
    /// Presses the reset button.
    fn reset(&mut self) -> Result<(), String>;
    /// Switches the machine off.
    fn quit(&mut self) -> Result<(), String>;
}

/// Runs `image` once.
#[must_use]
pub fn run(monitor: &Monitor, image: &Image) -> Outcome {
    let mut outcome = Outcome::default();
    let copies = match Copies::of(image) {
        Ok(copies) => copies,
        Err(reason) => {
            outcome.failure = Some(reason);
            return outcome;
        }
    };
    let image = &copies.image;
    let start = Instant::now();
    let before = children_seconds();
    let mut attempt = match Attempt::start(monitor, image) {
        Ok(attempt) => attempt,
        Err(reason) => {
            outcome.failure = Some(reason);
            return outcome;
        }
    };
    let result = attempt.all_steps(start, &mut outcome);
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome.screen = attempt.machine.screen().ok().flatten();
    let result = result.and_then(|()| attempt.proof());
    if attempt.process.exited().is_none() {
        // A machine that does not obey is ended with its process.
        let _ = attempt.machine.quit();
    }
    let (serial, messages) = attempt.process.finish();
    outcome.cpu_seconds = children_seconds() - before;
    outcome.failure = result.err();
    outcome.serial = serial;
    outcome.messages = messages;
    outcome
}

/// Processor time of all processes that this one has started and that have ended.
fn children_seconds() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return 0.0;
    };
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

struct Attempt<'a> {
    image: &'a Image,
    process: Process,
    machine: Box<dyn Machine>,
    never: Vec<Regex>,
    /// How much of the serial port's text earlier waits have used up.
    used: usize,
    deadline: Instant,
}

impl<'a> Attempt<'a> {
    fn start(monitor: &Monitor, image: &'a Image) -> Result<Self, String> {
        let never = patterns(&image.proof.never)?;
        let deadline = Instant::now() + Duration::from_secs(image.proof.timeout_seconds);
        let (process, machine): (Process, Box<dyn Machine>) = match monitor {
            Monitor::Ring3 { program, options } => {
                let mut command = ring3_machine(program, image);
                command.args(options);
                let (process, machine) = ring3::start(command, deadline, image.proof.exit_status)?;
                (process, Box::new(machine))
            }
            Monitor::Qemu => {
                let (process, machine) = qemu::start(qemu_machine(image), deadline)?;
                (process, Box::new(machine))
            }
        };
        Ok(Self {
            image,
            process,
            machine,
            never,
            used: 0,
            deadline,
        })
    }

    fn all_steps(&mut self, start: Instant, outcome: &mut Outcome) -> Result<(), String> {
        let image = self.image;
        for (n, step) in image.steps.iter().enumerate() {
            self.step(step, outcome)
                .map_err(|e| format!("step {}: {e}", n + 1))?;
            outcome.step_seconds.push(start.elapsed().as_secs_f64());
        }
        if let Some(status) = image.proof.exit_status {
            let within = image.proof.timeout_seconds;
            self.exit(&Exit { status, within })?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, outcome: &mut Outcome) -> Result<(), String> {
        match step {
            Step::Wait(wait) => self.wait(wait),
            Step::Type(text) => self.machine.type_text(text),
            Step::Keys(chords) => chords.iter().try_for_each(|c| self.machine.press(c)),
            Step::Send(text) => self.process.send(text),
            Step::Screenshot(shot) => {
                let text = self.settled_screen()?;
                let picture = Picture::new(self.machine.png()?, text)?;
                let checked = picture.check(shot);
                outcome.pictures.push((shot.clone(), picture));
                checked
            }
            Step::Insert(insert) => {
                let medium = self.image.parts.get(&insert.part);
                let medium = medium.ok_or_else(|| format!("there is no part {}", insert.part))?;
                self.machine.insert(insert.drive, Some(medium))
            }
            Step::Eject(drive) => self.machine.insert(*drive, None),
            Step::PowerButton => self.machine.power_button(),
            Step::Reset => self.machine.reset(),
            Step::Sleep(seconds) => {
                sleep(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
                Ok(())
            }
            Step::Exit(exit) => self.exit(exit),
            Step::CheckFileSystem => self.check_file_system(),
        }
    }

    fn wait(&mut self, wait: &Wait) -> Result<(), String> {
        let (pattern, on_screen) = match (&wait.screen, &wait.serial) {
            (Some(pattern), _) => (pattern, true),
            (None, Some(pattern)) => (pattern, false),
            (None, None) => return Err("a wait for nothing".into()),
        };
        let regex = regex(pattern)?;
        let limit = self.limit(wait.within);
        loop {
            // Look at the exit first: what was said before it is then surely read.
            let exited = self.process.exited();
            let (found, forbidden) = if on_screen {
                let screen = match self.machine.screen() {
                    Ok(text) => text.unwrap_or_default(),
                    Err(_) if exited.is_some() => String::new(),
                    Err(e) => return Err(e),
                };
                (regex.is_match(&screen), self.forbidden(&screen))
            } else {
                let (end, forbidden) = self.process.with_serial(|text| {
                    let rest = text.get(self.used..).unwrap_or_default();
                    let end = regex.find(rest).map(|m| self.used + m.end());
                    (end, self.forbidden(rest))
                });
                self.used = end.unwrap_or(self.used);
                (end.is_some(), forbidden)
            };
            if let Some(pattern) = forbidden {
                return Err(format!("'{pattern}' appeared"));
            }
            if found {
                return Ok(());
            }
            let place = if on_screen { "screen" } else { "serial port" };
            if let Some(status) = exited {
                return Err(format!(
                    "the monitor ended ({status}) before '{pattern}' was on the {place}"
                ));
            }
            if Instant::now() > limit {
                return Err(format!(
                    "'{pattern}' was not on the {place} within {} s",
                    wait.within
                ));
            }
            sleep(LOOK);
        }
    }

    /// The screen's text when it has stopped changing, or has not for a while.
    fn settled_screen(&mut self) -> Result<Option<String>, String> {
        let mut text = self.machine.screen()?;
        let mut equal = 0;
        for _ in 0..MOST_LOOKS {
            sleep(LOOK);
            let next = self.machine.screen()?;
            equal = if next == text { equal + 1 } else { 0 };
            text = next;
            if equal == SETTLED {
                break;
            }
        }
        Ok(text)
    }

    fn exit(&mut self, exit: &Exit) -> Result<(), String> {
        let limit = self.limit(exit.within);
        loop {
            if let Some(status) = self.process.exited() {
                return match status.code() {
                    Some(code) if code == exit.status => Ok(()),
                    _ => Err(format!("{status}, expected {}", exit.status)),
                };
            }
            if Instant::now() > limit {
                return Err(format!("no end within {} s", exit.within));
            }
            sleep(LOOK / 8);
        }
    }

    fn check_file_system(&mut self) -> Result<(), String> {
        if self.process.exited().is_none() {
            return Err("the guest still uses its file system".into());
        }
        let mut drives = self.image.drives.iter();
        match drives.find(|(kind, _)| *kind == DriveKind::Disk) {
            Some((_, disk)) if self.image.keep_writes => {
                check_file_system(disk).map_err(|e| e.to_string())
            }
            _ => Err("there is no disk that the guest has written to".into()),
        }
    }

    fn limit(&self, seconds: u64) -> Instant {
        (Instant::now() + Duration::from_secs(seconds)).min(self.deadline)
    }

    fn forbidden(&self, text: &str) -> Option<String> {
        let found = self.never.iter().find(|r| r.is_match(text));
        found.map(|r| r.as_str().to_owned())
    }

    /// What must hold for the serial port at the end.
    fn proof(&self) -> Result<(), String> {
        let wanted = patterns(&self.image.proof.serial)?;
        self.process.with_serial(|text| {
            if let Some(pattern) = self.forbidden(text) {
                return Err(format!("'{pattern}' appeared"));
            }
            match wanted.iter().find(|r| !r.is_match(text)) {
                Some(r) => Err(format!("'{r}' was not on the serial port")),
                None => Ok(()),
            }
        })
    }
}

fn regex(pattern: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    builder.multi_line(true).build().map_err(|e| e.to_string())
}

fn patterns(all: &[String]) -> Result<Vec<Regex>, String> {
    all.iter().map(|p| regex(p)).collect()
}
