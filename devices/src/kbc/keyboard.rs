//! The PS/2 keyboard.

use super::scancode::{Key, encode};
use super::spec::answer;
use crate::bus::Nanos;
use std::collections::VecDeque;

/// Bytes of the keyboard's own buffer.
const BUFFER: usize = 16;
const MILLISECOND: Nanos = 1_000_000;

/// The indicator lights, in the layout of command EDh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leds(pub u8);

impl Leds {
    /// Scroll Lock is lit.
    #[must_use]
    pub const fn scroll_lock(self) -> bool {
        self.0 & 1 != 0
    }
    /// Num Lock is lit.
    #[must_use]
    pub const fn num_lock(self) -> bool {
        self.0 & 2 != 0
    }
    /// Caps Lock is lit.
    #[must_use]
    pub const fn caps_lock(self) -> bool {
        self.0 & 4 != 0
    }
}

/// Keyboard commands.
mod command {
    pub const SET_LEDS: u8 = 0xed;
    pub const ECHO: u8 = 0xee;
    pub const SCAN_SET: u8 = 0xf0;
    pub const IDENTIFY: u8 = 0xf2;
    pub const SET_TYPEMATIC: u8 = 0xf3;
    pub const ENABLE: u8 = 0xf4;
    pub const DISABLE: u8 = 0xf5;
    pub const DEFAULTS: u8 = 0xf6;
    pub const ALL_TYPEMATIC: u8 = 0xf7;
    pub const ALL_MAKE_BREAK: u8 = 0xf8;
    pub const ALL: u8 = 0xfa;
    pub const KEY_TYPEMATIC: u8 = 0xfb;
    pub const KEY_MAKE: u8 = 0xfd;
    pub const RESEND: u8 = 0xfe;
    pub const RESET: u8 = 0xff;
}

/// The keyboard's state.
#[derive(Clone, Debug)]
pub struct Keyboard {
    scanning: bool,
    set: u8,
    leds: u8,
    typematic: u8,
    /// In set 3: whether all keys send break codes; else only the shifting keys do.
    set3_breaks: bool,
    /// In set 3: whether held keys repeat.
    set3_repeats: bool,
    /// The command that waits for its parameter.
    pending: Option<u8>,
    answers: VecDeque<u8>,
    keys: VecDeque<u8>,
    last_sent: u8,
    down: [bool; 256],
    /// The key that repeats, and when next.
    repeat: Option<(Key, Nanos)>,
}

impl Keyboard {
    pub fn new() -> Self {
        Self {
            scanning: true,
            set: 2,
            leds: 0,
            typematic: 0x2b,
            set3_breaks: false,
            set3_repeats: true,
            pending: None,
            answers: VecDeque::new(),
            keys: VecDeque::new(),
            last_sent: 0,
            down: [false; 256],
            repeat: None,
        }
    }

    pub fn leds(&self) -> Leds {
        Leds(self.leds)
    }

    pub fn has_byte(&self) -> bool {
        !self.answers.is_empty() || (self.pending.is_none() && !self.keys.is_empty())
    }

    /// The next byte for the controller; key codes wait while a command wants its parameter.
    pub fn take_byte(&mut self) -> Option<u8> {
        let byte = match self.answers.pop_front() {
            Some(answer) => answer,
            None if self.pending.is_some() => return None,
            None => self.keys.pop_front()?,
        };
        if byte != answer::RESEND {
            self.last_sent = byte;
        }
        Some(byte)
    }

    pub fn next_repeat(&self) -> Option<Nanos> {
        self.repeat.map(|(_, at)| at)
    }

    /// First delay and period of the typematic function.
    fn typematic_times(&self) -> (Nanos, Nanos) {
        let delay = (u64::from(self.typematic >> 5 & 3) + 1) * 250 * MILLISECOND;
        let (a, b) = (
            u64::from(self.typematic & 7),
            u32::from(self.typematic >> 3 & 3),
        );
        // period = (8 + A) * 2^B * 4.17 ms (technical reference, command F3h)
        (delay, ((8 + a) << b) * 4_170_000)
    }

    pub fn advance(&mut self, now: Nanos) {
        let Some((key, at)) = self.repeat else { return };
        if now < at {
            return;
        }
        // Repeats that no one could have seen in time are not made up for.
        self.send(key, true);
        self.repeat = Some((key, now.saturating_add(self.typematic_times().1)));
    }

    pub fn key_event(&mut self, now: Nanos, key: Key, down: bool) -> bool {
        let was = std::mem::replace(&mut self.down[key.index()], down);
        if was == down {
            return true;
        }
        if down {
            let repeats =
                self.scanning && key != Key::PAUSE && (self.set != 3 || self.set3_repeats);
            let at = now.saturating_add(self.typematic_times().0);
            self.repeat = repeats.then_some((key, at));
        } else if self.repeat.is_some_and(|(held, _)| held == key) {
            self.repeat = None;
        }
        let taken = self.send(key, down);
        if !taken {
            // What the guest will not hear of has not happened: the host may try again.
            self.down[key.index()] = was;
            self.repeat = None;
        }
        taken
    }

    /// The key that is held repeats no more.
    pub fn stop_repeat(&mut self) {
        self.repeat = None;
    }

    /// Whether a released key sends its break code.
    fn sends_break(&self, key: Key) -> bool {
        const SHIFTING: [u16; 5] = [0x1d, 0x2a, 0x36, 0x38, 0x3a];
        self.set != 3
            || self.set3_breaks
            || SHIFTING
                .iter()
                .any(|code| Key::from_set1(*code) == Some(key))
    }

    fn send(&mut self, key: Key, down: bool) -> bool {
        if !self.scanning || (!down && !self.sends_break(key)) {
            return true;
        }
        let bytes = encode(key, down, self.set);
        if self.keys.len() + bytes.len() < BUFFER {
            self.keys.extend(bytes);
            return true;
        }
        // One place is kept for the overrun code, sent once.
        let overrun = if self.set == 1 { 0xff } else { 0x00 };
        if self.keys.back() != Some(&overrun) && self.keys.len() < BUFFER {
            self.keys.push_back(overrun);
        }
        false
    }

    fn defaults(&mut self) {
        self.typematic = 0x2b;
        self.set = 2;
        self.set3_breaks = false;
        self.set3_repeats = true;
        self.keys.clear();
        self.repeat = None;
    }

    fn answer(&mut self, bytes: &[u8]) {
        // A guest that never reads cannot make the queue grow.
        if self.answers.len() < BUFFER {
            self.answers.extend(bytes);
        }
    }

    /// A byte from the controller.
    pub fn write(&mut self, byte: u8) {
        if let Some(pending) = self.pending.take()
            && byte < command::SET_LEDS
        {
            return self.parameter(pending, byte);
        }
        match byte {
            command::ECHO => self.answer(&[answer::ECHO]),
            command::IDENTIFY => self.answer(&[answer::ACK, 0xab, 0x83]),
            command::SET_LEDS | command::SCAN_SET | command::SET_TYPEMATIC => {
                self.answer(&[answer::ACK]);
                self.pending = Some(byte);
            }
            command::ENABLE => {
                self.keys.clear();
                self.scanning = true;
                self.answer(&[answer::ACK]);
            }
            command::DISABLE | command::DEFAULTS => {
                self.defaults();
                self.scanning = byte == command::DEFAULTS;
                self.answer(&[answer::ACK]);
            }
            command::ALL_TYPEMATIC..=command::ALL => {
                self.set3_repeats = matches!(byte, command::ALL_TYPEMATIC | command::ALL);
                self.set3_breaks = matches!(byte, command::ALL_MAKE_BREAK | command::ALL);
                self.answer(&[answer::ACK]);
            }
            command::KEY_TYPEMATIC..=command::KEY_MAKE => {
                self.answer(&[answer::ACK]);
                self.pending = Some(byte);
            }
            command::RESEND => {
                let last = self.last_sent;
                self.answer(&[last]);
            }
            command::RESET => {
                self.defaults();
                self.scanning = true;
                self.leds = 0;
                self.answers.clear();
                self.answer(&[answer::ACK, answer::SELF_TEST_PASSED]);
            }
            _ => self.answer(&[answer::RESEND]),
        }
    }

    fn parameter(&mut self, command: u8, value: u8) {
        match command {
            command::SET_LEDS => self.leds = value & 7,
            command::SET_TYPEMATIC => self.typematic = value & 0x7f,
            command::SCAN_SET if value == 0 => {
                let set = self.set;
                return self.answer(&[answer::ACK, set]);
            }
            command::SCAN_SET if value <= 3 => {
                self.set = value;
                self.keys.clear();
            }
            command::SCAN_SET => return self.answer(&[answer::RESEND]),
            // Per-key settings of set 3 are acknowledged and keep the common setting.
            _ => {}
        }
        self.answer(&[answer::ACK]);
    }
}
