//! The guest suite: many guests under this monitor and its peer, and the table of their results.

use crate::GuestError;
use crate::cache::Cache;
use crate::drive::{self, Monitor, Outcome, Picture, different_pixels};
use crate::image::{Image, Refresh, prepare};
use crate::recipe::{Recipe, Runs};
use crate::step::{Same, Screenshot};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Lines of the serial port that are shown of a failure.
const TAIL: usize = 25;

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Guests, `NAME/FLAVOUR`.
    pub names: Vec<String>,
    /// This monitor.
    pub subject: Monitor,
    /// What it is compared with.
    pub peer: Option<Monitor>,
    /// How often each runs; monitors take turns.
    pub repeat: u32,
    /// Where pictures go.
    pub screenshots: Option<PathBuf>,
    /// Memory instead of the recipes'.
    pub memory: Option<String>,
    /// Whether to print when each step was done.
    pub times: bool,
}

/// The guests that a suite has, `NAME/FLAVOUR`.
///
/// # Errors
/// [`GuestError::BadRecipe`].
pub fn members(only_quick: bool) -> Result<Vec<String>, GuestError> {
    let mut names = Vec::new();
    for recipe in Recipe::all()? {
        for flavour in &recipe.flavours {
            let wanted = match flavour.runs {
                Runs::Quick => true,
                Runs::Full => !only_quick,
                Runs::ByHand => false,
            };
            if wanted {
                names.push(format!("{}/{}", recipe.name, flavour.name));
            }
        }
    }
    Ok(names)
}

/// The results of one guest.
#[derive(Default)]
struct Row {
    runs: u32,
    passed: u32,
    subject: Vec<f64>,
    peer: Vec<f64>,
    peer_failed: bool,
    complaints: Vec<String>,
    times: String,
}

impl Suite {
    /// Runs all guests, and writes the table to `out` row by row, and what failed after it; true
    /// if everything passed.
    ///
    /// # Errors
    /// [`GuestError`] when pictures or the table cannot be written. A guest that cannot be
    /// fetched has failed.
    pub fn run(&self, out: &mut dyn Write) -> Result<bool, GuestError> {
        let table = GuestError::file("write", "the table");
        let width = self.names.iter().map(String::len).max().unwrap_or(0).max(5);
        let peer = if self.peer.is_some() { "QEMU s" } else { "" };
        let ratio = if self.peer.is_some() { "ratio" } else { "" };
        writeln!(
            out,
            "| {:width$} | result | ring3 s | {peer:>6} | {ratio:>5} |\n|{:-<w$}|--------|--------:|-------:|------:|",
            "guest",
            "",
            w = width + 2
        )
        .and_then(|()| out.flush())
        .map_err(table)?;
        let mut complaints = Vec::new();
        let mut passed = 0;
        for name in &self.names {
            let row = self.guest(name)?;
            let number = |values: &[f64]| median(values).map(|s| format!("{s:.2}"));
            let ratio = match (median(&row.peer), median(&row.subject)) {
                (Some(peer), Some(subject)) if subject > 0.0 => format!("{:.2}", peer / subject),
                _ => String::new(),
            };
            let result = match (row.passed, row.runs) {
                (passed, runs) if passed == runs && row.complaints.is_empty() => "ok".to_owned(),
                (passed, runs) => format!("{passed}/{runs}"),
            };
            let peer = if row.peer_failed {
                "FAILED".to_owned()
            } else {
                number(&row.peer).unwrap_or_default()
            };
            writeln!(
                out,
                "| {name:width$} | {result:<6} | {:>7} | {peer:>6} | {ratio:>5} |",
                number(&row.subject).unwrap_or_default()
            )
            .and_then(|()| out.flush())
            .map_err(GuestError::file("write", "the table"))?;
            if self.times {
                out.write_all(row.times.as_bytes())
                    .map_err(GuestError::file("write", "the table"))?;
            }
            if row.complaints.is_empty() {
                passed += 1;
            }
            complaints.extend(row.complaints);
        }
        let mut text = format!("\n{passed} of {} passed\n", self.names.len());
        for complaint in &complaints {
            text.push_str(&format!("\n{complaint}\n"));
        }
        out.write_all(text.as_bytes())
            .map_err(GuestError::file("write", "the table"))?;
        Ok(complaints.is_empty())
    }

    fn guest(&self, name: &str) -> Result<Row, GuestError> {
        let mut row = Row::default();
        let mut image = match prepare(&Cache::default_root()?, name, Refresh::IfMissing) {
            Ok(image) => image,
            Err(error) => {
                row.runs = 1;
                row.complaints.push(format!("{name}: {}", chain(&error)));
                return Ok(row);
            }
        };
        if let Some(memory) = &self.memory {
            image.boot.memory.clone_from(memory);
        }
        for _ in 0..self.repeat.max(1) {
            self.round(&image, &mut row)?;
        }
        Ok(row)
    }

    fn round(&self, image: &Image, row: &mut Row) -> Result<(), GuestError> {
        let subject = drive::run(&self.subject, image);
        self.keep(image, "ring3", &subject.pictures)?;
        row.times.push_str(&times("ring3", &subject));
        row.runs += 1;
        match report(&image.name, "ring3", &subject) {
            None => {
                row.passed += 1;
                row.subject.push(subject.seconds);
            }
            Some(complaint) => row.complaints.push(complaint),
        }
        let Some(peer) = &self.peer else {
            return Ok(());
        };
        let peer = drive::run(peer, image);
        self.keep(image, "qemu", &peer.pictures)?;
        row.times.push_str(&times("QEMU", &peer));
        match report(&image.name, "QEMU", &peer) {
            None => row.peer.push(peer.seconds),
            Some(complaint) => {
                row.peer_failed = true;
                row.complaints.push(complaint);
            }
        }
        if subject.failure.is_none() && peer.failure.is_none() {
            let pairs = subject.pictures.iter().zip(&peer.pictures);
            let differences = pairs.filter_map(|((shot, a), (_, b))| difference(shot, a, b));
            row.complaints
                .extend(differences.map(|d| format!("{}: {d}", image.name)));
        }
        Ok(())
    }

    fn keep(
        &self,
        image: &Image,
        monitor: &str,
        pictures: &[(Screenshot, Picture)],
    ) -> Result<(), GuestError> {
        let Some(directory) = &self.screenshots else {
            return Ok(());
        };
        fs::create_dir_all(directory).map_err(GuestError::file("create", directory))?;
        for (shot, picture) in pictures {
            let stem = format!("{}-{}", image.name.replace('/', "-"), shot.name);
            let write = |extension: &str, bytes: &[u8]| {
                let path = directory.join(format!("{stem}.{monitor}.{extension}"));
                fs::write(&path, bytes).map_err(GuestError::file("write", path))
            };
            write("png", &picture.png)?;
            if let Some(text) = &picture.text {
                write("txt", text.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// How two pictures differ that should not.
fn difference(shot: &Screenshot, ours: &Picture, theirs: &Picture) -> Option<String> {
    let name = &shot.name;
    match shot.same {
        Same::Nothing => None,
        Same::Text if ours.text == theirs.text => None,
        Same::Text => Some(format!(
            "picture {name} has another text than under QEMU:\n{}\ninstead of\n{}",
            indented(ours.text.as_deref().unwrap_or("graphics")),
            indented(theirs.text.as_deref().unwrap_or("graphics"))
        )),
        Same::Pixels => match different_pixels(ours, theirs) {
            Some(0) => None,
            Some(n) => Some(format!("picture {name}: {n} pixels differ from QEMU's")),
            None => Some(format!("picture {name} has another size than under QEMU")),
        },
    }
}

/// When each step was done, and what it cost.
fn times(monitor: &str, outcome: &Outcome) -> String {
    let all: Vec<String> = outcome
        .step_seconds
        .iter()
        .map(|s| format!("{s:.2}"))
        .collect();
    format!(
        "  {monitor:>5}: steps at {}; processor {:.2}\n",
        all.join(" "),
        outcome.cpu_seconds
    )
}

/// What there is to say of a run that failed.
fn report(name: &str, monitor: &str, outcome: &Outcome) -> Option<String> {
    let reason = outcome.failure.as_ref()?;
    let mut text = format!("{name} under {monitor}: {reason}");
    if let Some(screen) = &outcome.screen {
        text.push_str(&format!("\nlast screen:\n{}", indented(screen)));
    }
    let lines: Vec<&str> = outcome.serial.lines().collect();
    if !lines.is_empty() {
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        text.push_str(&format!("\nend of the serial port:\n{}", indented(&tail)));
    }
    if !outcome.messages.is_empty() {
        text.push_str(&format!(
            "\nthe monitor said:\n{}",
            indented(&outcome.messages)
        ));
    }
    Some(text)
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|l| format!("    | {l}")).collect();
    lines.join("\n")
}

/// An error and what it is due to, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 0 => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        _ => Some(sorted[middle]),
    }
}

/// Whether QEMU is installed.
#[must_use]
pub fn qemu_is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|p: PathBuf| Path::new(&p).join("qemu-system-i386").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_run_is_part_of_the_full_one() {
        let all = members(false).unwrap();
        let quick = members(true).unwrap();
        assert!(quick.len() < all.len());
        assert!(quick.iter().all(|name| all.contains(name)));
        assert!(!all.contains(&"debian-686/shell".to_owned()));
    }

    #[test]
    fn a_failure_is_told_with_the_last_screen_and_the_end_of_the_serial_port() {
        let mut outcome = Outcome {
            failure: Some("step 2: no".into()),
            screen: Some("grub> ls".into()),
            serial: (0..100).map(|n| format!("line {n}\n")).collect(),
            messages: "oops".into(),
            ..Outcome::default()
        };
        let text = report("a/b", "ring3", &outcome).unwrap();
        assert!(text.starts_with("a/b under ring3: step 2: no\n"), "{text}");
        assert!(text.contains("| grub> ls") && text.contains("| oops"));
        assert!(text.contains("| line 99") && !text.contains("| line 50\n"));
        outcome.failure = None;
        assert!(report("a/b", "ring3", &outcome).is_none());
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }
}
