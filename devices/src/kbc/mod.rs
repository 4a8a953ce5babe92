//! The 8042 keyboard controller with a keyboard and a mouse, and port 92h.
//!
//! IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller";
//! PIIX3 datasheet (290550), 2.5.4 and 2.5.5.3 (port 92h). Bytes of the devices arrive at a
//! bounded rate as over their serial lines, so that each makes its own interrupt edge; answers of
//! the controller itself arrive at once. The password and serial clock diagnostics are left out.

mod keyboard;
mod mouse;
mod port92;
mod scancode;
mod spec;

pub use keyboard::Leds;
pub use mouse::Buttons;
pub use port92::Port92;
pub use scancode::Key;

use crate::bus::{BytePorts, Nanos, OPEN_BUS, Timed};
use keyboard::Keyboard;
use mouse::Mouse;
use spec::{command, command_byte, output_port, status};

/// Offset of the data port (60h).
pub const DATA: u16 = 0;
/// Offset of the status and command port (64h).
pub const COMMAND: u16 = 4;

/// Nanoseconds between the read of one device byte and the arrival of the next. The serial lines
/// need about a millisecond; a shorter gap keeps drivers that poll fast and still makes edges.
const BYTE_GAP: Nanos = 250_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Controller,
    Keyboard,
    Aux,
}

/// The controller with its two devices: offset 0 is port 60h, offset 4 port 64h.
#[derive(Clone, Debug)]
pub struct Kbc {
    ram: [u8; 32],
    output: Option<(u8, Source)>,
    last_data: u8,
    /// No device byte arrives before this time.
    ready_at: Nanos,
    /// The controller command that waits for its data byte.
    pending: Option<u8>,
    wrote_command: bool,
    self_tested: bool,
    a20: bool,
    reset_request: bool,
    /// A break prefix of scan set 2 is being translated.
    break_prefix: bool,
    keyboard: Keyboard,
    mouse: Mouse,
    now: Nanos,
}

impl Default for Kbc {
    fn default() -> Self {
        Self::new()
    }
}

impl Kbc {
    /// The state after power-on: both devices attached and enabled at the controller, A20 open,
    /// translation on, interrupts off.
    #[must_use]
    pub fn new() -> Self {
        let mut ram = [0; 32];
        ram[0] = command_byte::TRANSLATE;
        Self {
            ram,
            output: None,
            last_data: 0,
            ready_at: 0,
            pending: None,
            wrote_command: false,
            self_tested: false,
            a20: true,
            reset_request: false,
            break_prefix: false,
            keyboard: Keyboard::new(),
            mouse: Mouse::new(),
            now: 0,
        }
    }

    /// The keyboard interrupt (IRQ 1).
    #[must_use]
    pub fn irq(&self) -> bool {
        self.enabled(command_byte::KEYBOARD_INTERRUPT)
            && self.output.is_some_and(|(_, source)| source != Source::Aux)
    }

    /// The mouse interrupt (IRQ 12).
    #[must_use]
    pub fn aux_irq(&self) -> bool {
        self.enabled(command_byte::AUX_INTERRUPT)
            && self.output.is_some_and(|(_, source)| source == Source::Aux)
    }

    /// The A20 gate: whether address line 20 passes.
    #[must_use]
    pub fn a20(&self) -> bool {
        self.a20
    }

    /// Whether the guest pulsed the processor's reset line since the last call.
    pub fn take_reset_request(&mut self) -> bool {
        std::mem::take(&mut self.reset_request)
    }

    /// The keyboard's indicator lights.
    #[must_use]
    pub fn leds(&self) -> Leds {
        self.keyboard.leds()
    }

    /// A key goes down or up. The keyboard repeats a held key itself, so a host's repeats of
    /// `down` are ignored. False if the keyboard's buffer was full and the event is lost.
    pub fn key_event(&mut self, now: Nanos, key: Key, down: bool) -> bool {
        self.advance(now);
        let taken = self.keyboard.key_event(self.now, key, down);
        self.refill();
        taken
    }

    /// The key that is held repeats no more, for a host that types and may be late with the release.
    pub fn stop_repeat(&mut self) {
        self.keyboard.stop_repeat();
    }

    /// The mouse moves by `dx` to the right, `dy` down and `dz` wheel clicks towards the user,
    /// with the given buttons held.
    pub fn mouse_event(&mut self, now: Nanos, dx: i32, dy: i32, dz: i32, buttons: Buttons) {
        self.advance(now);
        self.mouse.event(dx, dy, dz, buttons);
        self.refill();
    }

    const fn enabled(&self, bit: u8) -> bool {
        self.ram[0] & bit != 0
    }

    /// Moves the next device byte into the free output buffer, if its time has come.
    fn refill(&mut self) {
        if self.output.is_some() || self.now < self.ready_at {
            return;
        }
        if !self.enabled(command_byte::KEYBOARD_DISABLED) {
            while let Some(byte) = self.keyboard.take_byte() {
                if let Some(byte) = self.translate(byte) {
                    self.output = Some((byte, Source::Keyboard));
                    return;
                }
            }
        }
        if !self.enabled(command_byte::AUX_DISABLED)
            && let Some(byte) = self.mouse.take_byte()
        {
            self.output = Some((byte, Source::Aux));
        }
    }

    /// Translates a byte of scan set 2 to set 1; the break prefix yields nothing by itself.
    fn translate(&mut self, byte: u8) -> Option<u8> {
        if !self.enabled(command_byte::TRANSLATE) {
            return Some(byte);
        }
        if byte == scancode::BREAK_PREFIX {
            self.break_prefix = true;
            return None;
        }
        let release = if std::mem::take(&mut self.break_prefix) {
            0x80
        } else {
            0
        };
        Some(scancode::translate(byte) | release)
    }

    /// An answer of the controller itself takes the output buffer at once.
    fn reply(&mut self, byte: u8) {
        self.output = Some((byte, Source::Controller));
    }

    fn write_output_port(&mut self, value: u8) {
        self.a20 = value & output_port::A20 != 0;
        if value & output_port::RESET_N == 0 {
            self.reset_request = true;
        }
    }

    fn read_output_port(&self) -> u8 {
        output_port::RESET_N
            | if self.a20 { output_port::A20 } else { 0 }
            | if self.irq() {
                output_port::KEYBOARD_OBF
            } else {
                0
            }
            | if self.aux_irq() {
                output_port::AUX_OBF
            } else {
                0
            }
    }

    fn write_command(&mut self, value: u8) {
        self.wrote_command = true;
        self.pending = None;
        match value {
            command::READ_RAM..=command::READ_RAM_LAST => {
                self.reply(self.ram[usize::from(value & 0x1f)]);
            }
            command::WRITE_RAM..=command::WRITE_RAM_LAST
            | command::WRITE_OUTPUT_PORT
            | command::WRITE_KEYBOARD_OUTPUT
            | command::WRITE_AUX_OUTPUT
            | command::WRITE_AUX => self.pending = Some(value),
            // No password is set.
            command::PASSWORD_TEST => self.reply(0xf1),
            command::DISABLE_AUX => self.ram[0] |= command_byte::AUX_DISABLED,
            command::ENABLE_AUX => self.ram[0] &= !command_byte::AUX_DISABLED,
            command::TEST_AUX | command::TEST_KEYBOARD => self.reply(0),
            command::SELF_TEST => {
                self.self_tested = true;
                self.ram[0] |= command_byte::SYS;
                self.reply(0x55);
            }
            command::DISABLE_KEYBOARD => self.ram[0] |= command_byte::KEYBOARD_DISABLED,
            command::ENABLE_KEYBOARD => self.ram[0] &= !command_byte::KEYBOARD_DISABLED,
            // Keyboard lock open, no manufacturing jumper, colour display.
            command::READ_INPUT_PORT => self.reply(0x80),
            command::READ_OUTPUT_PORT => self.reply(self.read_output_port()),
            command::A20_OFF => self.a20 = false,
            command::A20_ON => self.a20 = true,
            command::READ_TEST_INPUTS => self.reply(0),
            command::PULSE..=0xff if value & output_port::RESET_N == 0 => {
                self.reset_request = true;
            }
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        self.wrote_command = false;
        match self.pending.take() {
            Some(to @ command::WRITE_RAM..=command::WRITE_RAM_LAST) => {
                self.ram[usize::from(to & 0x1f)] = value;
            }
            Some(command::WRITE_OUTPUT_PORT) => self.write_output_port(value),
            Some(command::WRITE_KEYBOARD_OUTPUT) => self.output = Some((value, Source::Keyboard)),
            Some(command::WRITE_AUX_OUTPUT) => self.output = Some((value, Source::Aux)),
            Some(command::WRITE_AUX) => {
                self.ram[0] &= !command_byte::AUX_DISABLED;
                self.mouse.write(value);
            }
            _ => {
                // A byte for the keyboard also starts its clock again.
                self.ram[0] &= !command_byte::KEYBOARD_DISABLED;
                self.keyboard.write(value);
            }
        }
    }

    fn read_data(&mut self) -> u8 {
        if let Some((byte, source)) = self.output.take() {
            self.last_data = byte;
            if source != Source::Controller {
                self.ready_at = self.now.saturating_add(BYTE_GAP);
            }
        }
        self.last_data
    }

    fn read_status(&self) -> u8 {
        let sys = self.enabled(command_byte::SYS) || self.self_tested;
        status::UNLOCKED
            | if sys { status::SYS } else { 0 }
            | if self.wrote_command { status::A2 } else { 0 }
            | match self.output {
                None => 0,
                Some((_, Source::Aux)) => status::OBF | status::AUX_OBF,
                Some(_) => status::OBF,
            }
    }
}

impl Timed for Kbc {
    fn next_deadline(&self) -> Option<Nanos> {
        let waiting = (!self.enabled(command_byte::KEYBOARD_DISABLED) && self.keyboard.has_byte())
            || (!self.enabled(command_byte::AUX_DISABLED) && self.mouse.has_byte());
        let arrival = (self.output.is_none() && waiting).then_some(self.ready_at);
        [arrival, self.keyboard.next_repeat()]
            .into_iter()
            .flatten()
            .min()
    }

    fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        self.keyboard.advance(self.now);
        self.refill();
    }
}

impl BytePorts for Kbc {
    fn read_byte(&mut self, now: Nanos, offset: u16) -> u8 {
        self.advance(now);
        match offset {
            DATA => self.read_data(),
            COMMAND => self.read_status(),
            _ => OPEN_BUS,
        }
    }

    fn write_byte(&mut self, now: Nanos, offset: u16, value: u8) {
        self.advance(now);
        match offset {
            DATA => self.write_data(value),
            COMMAND => self.write_command(value),
            _ => {}
        }
        self.refill();
    }
}

#[cfg(test)]
mod tests;
