//! Steps that drive a guest: what a person would do at its screen, keyboard and drives.

use serde::Deserialize;

/// One thing to do. In a recipe: `{ wait = { screen = 'grub> $', within = 30 } }`,
/// `{ type = "ls\n" }`, `"power-button"` …
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Waits until a text is there.
    Wait(Wait),
    /// Types text on a US keyboard.
    Type(String),
    /// Presses chords one after the other, such as `ctrl-b`, `f10`, `ret`.
    Keys(Vec<String>),
    /// Sends text to the first serial port.
    Send(String),
    /// Takes a picture of the screen, and its text if it shows text.
    Screenshot(Screenshot),
    /// Inserts a part of the image into the first drive of its kind.
    Insert(Insert),
    /// Ejects the medium of the first drive of its kind.
    Eject(Removable),
    /// Presses the ACPI power button.
    PowerButton,
    /// Presses the reset button.
    Reset,
    /// Waits for so many seconds, where nothing shows that the guest is ready.
    Sleep(f64),
    /// Waits until the monitor ends by itself.
    Exit(Exit),
    /// Checks the file system in the first partition of the first hard disk, a copy, after the
    /// monitor's end: it must be clean.
    CheckFileSystem,
}

/// A text to wait for. A regular expression in which `^` and `$` match at line ends; exactly one
/// of `screen` and `serial`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// On the text screen as it is now.
    pub screen: Option<String>,
    /// On the first serial port, after what an earlier wait has matched. Carriage returns and
    /// ANSI control sequences are left out.
    pub serial: Option<String>,
    /// Seconds after which it has failed, on a slow machine.
    pub within: u64,
}

/// A picture of the screen and what must hold for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Screenshot {
    /// Its name, unique in the flavour.
    pub name: String,
    /// What must be equal under the peer.
    #[serde(default)]
    pub same: Same,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// The fewest different colours.
    pub colours: Option<usize>,
}

/// How much of a picture must be equal under the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Same {
    /// Nothing: it shows times, addresses or the processor's name.
    #[default]
    Nothing,
    /// The text.
    Text,
    /// Every pixel. The cursor must be off or stand still.
    Pixels,
}

/// What to insert where.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Insert {
    /// The drive.
    pub drive: Removable,
    /// The part.
    pub part: String,
}

/// Drives whose medium can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removable {
    /// The first floppy drive.
    Floppy,
    /// The first CD-ROM drive.
    Cdrom,
}

/// The end of the monitor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// Its exit status; 0 when the guest has switched the machine off.
    #[serde(default)]
    pub status: i32,
    /// Seconds after which it has failed, on a slow machine.
    pub within: u64,
}

impl Step {
    /// What is wrong with a step that was read from a recipe, if anything is.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Wait(wait) => {
                let pattern = match (&wait.screen, &wait.serial) {
                    (Some(pattern), None) | (None, Some(pattern)) => pattern,
                    _ => return Err("a wait has either screen or serial".into()),
                };
                regex::Regex::new(pattern)
                    .map(drop)
                    .map_err(|e| e.to_string())
            }
            Self::Sleep(seconds) if !(0.0..=600.0).contains(seconds) => {
                Err(format!("nobody sleeps {seconds} s"))
            }
            Self::Screenshot(picture) if picture.name.contains('/') || picture.name.is_empty() => {
                Err(format!("'{}' is no name for a picture", picture.name))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Steps {
        steps: Vec<Step>,
    }

    #[test]
    fn steps_read_as_they_are_written_in_recipes() {
        let text = r#"
            steps = [
                { wait = { screen = 'grub> *$', within = 30 } },
                { type = "ls\n" },
                { keys = ["ctrl-b"] },
                { screenshot = { name = "a", same = "pixels" } },
                { insert = { drive = "cdrom", part = "disc" } },
                { eject = "floppy" },
                "power-button",
                { exit = { within = 5 } },
            ]
        "#;
        let steps = toml::from_str::<Steps>(text).unwrap().steps;
        assert_eq!(steps.len(), 8);
        assert_eq!(steps[6], Step::PowerButton);
        assert!(steps.iter().all(|s| s.check().is_ok()));
    }

    #[test]
    fn a_wait_has_one_place_and_a_valid_pattern() {
        let wait = |screen: Option<&str>, serial: Option<&str>| {
            Step::Wait(Wait {
                screen: screen.map(String::from),
                serial: serial.map(String::from),
                within: 1,
            })
            .check()
        };
        assert!(wait(Some("a"), None).is_ok());
        assert!(wait(Some("a"), Some("b")).is_err());
        assert!(wait(None, None).is_err());
        assert!(wait(None, Some("(")).is_err());
    }
}
