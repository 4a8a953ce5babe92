//! What requests do to the machine.

use super::keys::{self, KeyError};
use super::orders::{Order, Orders};
use super::picture;
use super::protocol::{Answer, Request};
use super::screen::Screen;
use crate::board::{Board, IoWaker, Kick, StopHandle, StopReason};
use crate::drives::FIRST_CD_ROM;
use crate::image::{self, OpenMode};
use ring3_devices::kbc::{Buttons, Key};
use ring3_devices::vga::Linear;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a typed key is down, and up before the next: long enough for firmware that polls.
const HOLD: Duration = Duration::from_millis(12);
/// How often a key is offered to a keyboard whose buffer is full.
const KEY_TRIES: u32 = 500;
/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running machine, as other threads reach it.
#[derive(Clone)]
pub struct Remote {
    /// The board.
    pub board: Arc<Mutex<Board>>,
    /// Makes the processor look at it.
    pub kick: Arc<dyn Kick + Send + Sync>,
    /// Makes the I/O thread look at it.
    pub io: IoWaker,
    /// What the machine's own thread is asked for.
    pub orders: Arc<Orders>,
    /// Ends the run.
    pub stop: Arc<StopHandle>,
    /// Writes to inserted images are dropped.
    pub snapshot: bool,
    /// Watches the screen.
    pub screen: Arc<Screen>,
    /// Held by who presses keys: texts of two peers must not mix.
    pub keyboard: Arc<Mutex<()>>,
}

impl Remote {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets both threads see what changed.
    fn notify(&self) {
        self.kick.kick();
        self.io.wake();
    }

    /// Ends the run.
    pub fn quit(&self) {
        self.stop.request(StopReason::Quit);
    }

    /// Presses the reset button.
    pub fn reset(&self) {
        self.board().request_reset();
        self.notify();
    }

    /// Gives the machine's thread an order and waits for its answer.
    pub(super) fn ask<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order) -> Result<T, String> {
        const SILENT: &str = "the machine does not answer";
        let (sender, receiver) = sync_channel(1);
        if !self.orders.give(order(sender)) {
            return Err(SILENT.into());
        }
        self.board().request_orders();
        self.notify();
        receiver.recv_timeout(PATIENCE).map_err(|_| SILENT.into())
    }

    /// What [`Board::picture`] says.
    pub(super) fn picture(&self) -> (u64, Option<Linear>, bool) {
        self.board().picture()
    }

    /// Carries a request out: the answer, and bytes after it.
    pub fn handle(&self, request: Request) -> (Answer, Vec<u8>) {
        let result = match request {
            Request::Screenshot => {
                let frame = self.board().screen();
                return match picture::png(&frame) {
                    Ok(bytes) => (
                        Answer {
                            bytes: bytes.len() as u64,
                            ..Answer::default()
                        },
                        bytes,
                    ),
                    Err(e) => (error(e.to_string()), Vec::new()),
                };
            }
            Request::ScreenText => self.screen_text().map(Some),
            Request::ScreenChanges { since, timeout } => {
                let limit = Duration::from_millis(timeout.into());
                let changes = self.screen.changes(self, since, limit);
                changes.and_then(|c| {
                    serde_json::to_string(&c)
                        .map(Some)
                        .map_err(|e| e.to_string())
                })
            }
            Request::Stats => self.ask(Order::Stats).map(Some),
            other => self.act(other).map(|()| None),
        };
        match result {
            Ok(text) => (
                Answer {
                    text,
                    ..Answer::default()
                },
                Vec::new(),
            ),
            Err(e) => (error(e), Vec::new()),
        }
    }

    fn act(&self, request: Request) -> Result<(), String> {
        match request {
            Request::Sendkey { keys } => {
                let chords = keys
                    .iter()
                    .map(|k| keys::chord(k))
                    .collect::<Result<Vec<_>, _>>();
                self.press_all(chords)
            }
            Request::Type { text } => {
                let chords = text
                    .chars()
                    .map(keys::character)
                    .collect::<Result<Vec<_>, _>>();
                self.press_all(chords)
            }
            Request::Mouse {
                dx,
                dy,
                dz,
                buttons,
            } => {
                self.board()
                    .mouse_event(dx, dy, dz, Buttons::from_bits_truncate(buttons));
                self.notify();
                Ok(())
            }
            Request::Cdrom { path } => self.insert(path.as_deref(), true),
            Request::Floppy { path } => self.insert(path.as_deref(), false),
            Request::Pause => self.ask(Order::Pause),
            Request::Resume => self.ask(Order::Resume),
            Request::Powerdown => {
                self.board().press_power_button();
                self.notify();
                Ok(())
            }
            // The server calls `quit` and `reset` when the peer has its answer.
            Request::Quit
            | Request::Reset
            | Request::ScreenText
            | Request::Screenshot
            | Request::ScreenChanges { .. }
            | Request::Stats => Ok(()),
        }
    }

    fn screen_text(&self) -> Result<String, String> {
        let screen = self.board().screen_text();
        let screen = screen.ok_or("the screen shows graphics: use screenshot")?;
        let mut text = screen.lines().join("\n");
        text.truncate(text.trim_end().len());
        Ok(text)
    }

    fn press_all(&self, chords: Result<Vec<Vec<Key>>, KeyError>) -> Result<(), String> {
        // Nothing is typed if part of it cannot be.
        let chords = chords.map_err(|e| e.to_string())?;
        let _alone = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        for chord in chords {
            for key in &chord {
                self.key(*key, true)?;
            }
            std::thread::sleep(HOLD);
            for key in chord.iter().rev() {
                self.key(*key, false)?;
            }
            std::thread::sleep(HOLD);
        }
        Ok(())
    }

    fn key(&self, key: Key, down: bool) -> Result<(), String> {
        for _ in 0..KEY_TRIES {
            let taken = if down {
                self.board().type_key(key)
            } else {
                self.board().key_event(key, false)
            };
            self.notify();
            if taken {
                return Ok(());
            }
            std::thread::sleep(HOLD);
        }
        Err("the guest does not read its keyboard".into())
    }

    fn insert(&self, path: Option<&Path>, disc: bool) -> Result<(), String> {
        // The image is opened without the board's lock.
        let mode = OpenMode {
            read_only: disc,
            snapshot: self.snapshot,
            ..OpenMode::default()
        };
        let medium = path.map(|p| image::open(p, mode)).transpose();
        let medium = medium.map_err(|e| chain(&e))?;
        if disc {
            let (channel, unit) = FIRST_CD_ROM;
            self.board()
                .set_cd_rom(channel, unit, medium)
                .map_err(|e| e.to_string())?;
        } else if !self.board().set_floppy(0, medium) {
            return Err("there is no floppy drive (start with --floppy)".into());
        }
        self.notify();
        Ok(())
    }
}

fn error(text: String) -> Answer {
    Answer {
        error: Some(text),
        ..Answer::default()
    }
}

/// An error with its causes, as one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    text
}
