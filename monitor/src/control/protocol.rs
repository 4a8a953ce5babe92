//! What passes over the control socket: a request is one line with a JSON object, an answer is
//! one line with a JSON object and, if it says so, bytes after it.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most bytes of a request's line.
pub const MAX_LINE: u64 = 1 << 20;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The text-mode screen as text.
    ScreenText,
    /// The screen as PNG, in the bytes after the answer.
    Screenshot,
    /// What changed on the screen, as JSON ([`super::Changes`]); waits for a change.
    ScreenChanges {
        /// The generation of an earlier answer; without it, everything has changed.
        #[serde(default)]
        since: Option<u64>,
        /// How long to wait at most, in milliseconds.
        #[serde(default)]
        timeout: u32,
    },
    /// Chords, one after the other.
    Sendkey {
        /// Such as `ctrl-alt-delete`.
        keys: Vec<String>,
    },
    /// Characters, typed on a US keyboard.
    Type {
        /// What to type.
        text: String,
    },
    /// Moves the mouse.
    Mouse {
        /// To the right.
        dx: i32,
        /// Down.
        dy: i32,
        /// Wheel clicks towards the user.
        #[serde(default)]
        dz: i32,
        /// Buttons held after it: 1 left, 2 right, 4 middle.
        #[serde(default)]
        buttons: u8,
    },
    /// Inserts a disc, or ejects it.
    Cdrom {
        /// The image; `None` ejects.
        path: Option<PathBuf>,
    },
    /// Inserts a diskette, or ejects it.
    Floppy {
        /// The image; `None` ejects.
        path: Option<PathBuf>,
    },
    /// Stops the machine and its clock.
    Pause,
    /// Lets it go on.
    Resume,
    /// The reset button.
    Reset,
    /// The ACPI power button.
    Powerdown,
    /// The counters as JSON.
    Stats,
    /// Ends the run.
    Quit,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why it could not be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Bytes that follow the line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
