//! The PS/2 mouse: two, three or five buttons and a wheel.
//!
//! IBM PS/2 Technical Reference, "Mouse"; the wheel and five-button extensions are Microsoft's
//! IntelliMouse protocols, which the sample rate sequences 200-100-80 and 200-200-80 select.

use super::spec::answer;
use std::collections::VecDeque;

bitflags::bitflags! {
    /// Mouse buttons.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Buttons: u8 {
        /// Left.
        const LEFT = 1;
        /// Right.
        const RIGHT = 2;
        /// Middle.
        const MIDDLE = 4;
        /// First side button.
        const SIDE = 8;
        /// Second side button.
        const EXTRA = 16;
    }
}

mod command {
    pub const SCALING_1: u8 = 0xe6;
    pub const SCALING_2: u8 = 0xe7;
    pub const SET_RESOLUTION: u8 = 0xe8;
    pub const STATUS: u8 = 0xe9;
    pub const STREAM_MODE: u8 = 0xea;
    pub const READ_DATA: u8 = 0xeb;
    pub const RESET_WRAP: u8 = 0xec;
    pub const SET_WRAP: u8 = 0xee;
    pub const REMOTE_MODE: u8 = 0xf0;
    pub const IDENTIFY: u8 = 0xf2;
    pub const SET_RATE: u8 = 0xf3;
    pub const ENABLE: u8 = 0xf4;
    pub const DISABLE: u8 = 0xf5;
    pub const DEFAULTS: u8 = 0xf6;
    pub const RESEND: u8 = 0xfe;
    pub const RESET: u8 = 0xff;
}

/// Device identities.
const PLAIN: u8 = 0;
const WHEEL: u8 = 3;
const FIVE_BUTTONS: u8 = 4;

const QUEUE: usize = 16;

/// The mouse's state.
#[derive(Clone, Debug)]
pub struct Mouse {
    id: u8,
    reporting: bool,
    remote: bool,
    wrap: bool,
    scaling_2: bool,
    resolution: u8,
    rate: u8,
    /// The last two sample rates, for the extension sequences.
    rates: [u8; 2],
    pending: Option<u8>,
    queue: VecDeque<u8>,
    last_sent: u8,
    dx: i32,
    dy: i32,
    dz: i32,
    buttons: Buttons,
    reported: Buttons,
}

impl Mouse {
    pub fn new() -> Self {
        Self {
            id: PLAIN,
            reporting: false,
            remote: false,
            wrap: false,
            scaling_2: false,
            resolution: 2,
            rate: 100,
            rates: [0; 2],
            pending: None,
            queue: VecDeque::new(),
            last_sent: 0,
            dx: 0,
            dy: 0,
            dz: 0,
            buttons: Buttons::empty(),
            reported: Buttons::empty(),
        }
    }

    pub fn has_byte(&self) -> bool {
        !self.queue.is_empty() || self.wants_packet()
    }

    pub fn take_byte(&mut self) -> Option<u8> {
        if self.queue.is_empty() && self.wants_packet() {
            self.queue_packet();
        }
        let byte = self.queue.pop_front()?;
        self.last_sent = byte;
        Some(byte)
    }

    pub fn event(&mut self, dx: i32, dy: i32, dz: i32, buttons: Buttons) {
        self.dx = self.dx.saturating_add(dx);
        // The mouse counts upwards.
        self.dy = self.dy.saturating_sub(dy);
        self.dz = self.dz.saturating_add(dz);
        self.buttons = buttons;
    }

    fn wants_packet(&self) -> bool {
        let moved = self.dx != 0 || self.dy != 0 || (self.dz != 0 && self.id != PLAIN);
        self.reporting
            && !self.remote
            && !self.wrap
            && self.pending.is_none()
            && (moved || self.buttons != self.reported)
    }

    /// Movement accumulates while a packet is on its way; what one packet cannot hold stays.
    fn queue_packet(&mut self) {
        let take = |total: &mut i32, low: i32, high: i32| {
            let part = (*total).clamp(low, high);
            *total -= part;
            part
        };
        let dx = take(&mut self.dx, -256, 255);
        let dy = take(&mut self.dy, -256, 255);
        let wheel = if self.id == PLAIN {
            0
        } else {
            take(&mut self.dz, -8, 7)
        };
        if self.id == PLAIN {
            self.dz = 0;
        }
        let head = 0x08
            | self.buttons.bits() & 7
            | if dx < 0 { 0x10 } else { 0 }
            | if dy < 0 { 0x20 } else { 0 };
        self.queue.extend([head, dx as u8, dy as u8]);
        match self.id {
            WHEEL => self.queue.push_back(wheel as u8),
            FIVE_BUTTONS => {
                let side = (self.buttons & (Buttons::SIDE | Buttons::EXTRA)).bits() << 1;
                self.queue.push_back(wheel as u8 & 0x0f | side);
            }
            _ => {}
        }
        self.reported = self.buttons;
    }

    fn status(&self) -> [u8; 3] {
        let buttons = self.buttons;
        let state = u8::from(buttons.contains(Buttons::RIGHT))
            | u8::from(buttons.contains(Buttons::MIDDLE)) << 1
            | u8::from(buttons.contains(Buttons::LEFT)) << 2
            | u8::from(self.scaling_2) << 4
            | u8::from(self.reporting) << 5
            | u8::from(self.remote) << 6;
        [state, self.resolution, self.rate]
    }

    fn answer(&mut self, bytes: &[u8]) {
        if self.queue.len() < QUEUE {
            self.queue.extend(bytes);
        }
    }

    fn defaults(&mut self) {
        self.reporting = false;
        self.remote = false;
        self.scaling_2 = false;
        self.resolution = 2;
        self.rate = 100;
        self.discard_motion();
    }

    fn discard_motion(&mut self) {
        (self.dx, self.dy, self.dz) = (0, 0, 0);
        self.reported = self.buttons;
    }

    /// A byte from the controller.
    pub fn write(&mut self, byte: u8) {
        if self.wrap && byte != command::RESET && byte != command::RESET_WRAP {
            return self.answer(&[byte]);
        }
        if let Some(pending) = self.pending.take() {
            match pending {
                command::SET_RESOLUTION => self.resolution = byte & 3,
                _ => self.set_rate(byte),
            }
            return self.answer(&[answer::ACK]);
        }
        if byte == command::RESEND {
            let last = self.last_sent;
            return self.answer(&[last]);
        }
        // A command interrupts a packet that was being sent.
        self.queue.clear();
        self.queue.push_back(answer::ACK);
        match byte {
            command::SCALING_1 => self.scaling_2 = false,
            command::SCALING_2 => self.scaling_2 = true,
            command::SET_RESOLUTION | command::SET_RATE => self.pending = Some(byte),
            command::STATUS => {
                let status = self.status();
                self.answer(&status);
            }
            command::STREAM_MODE => self.remote = false,
            command::READ_DATA => self.queue_packet(),
            command::RESET_WRAP => self.wrap = false,
            command::SET_WRAP => self.wrap = true,
            command::REMOTE_MODE => self.remote = true,
            command::IDENTIFY => {
                let id = self.id;
                self.answer(&[id]);
            }
            command::ENABLE => {
                self.discard_motion();
                self.reporting = true;
            }
            command::DISABLE => self.reporting = false,
            command::DEFAULTS => self.defaults(),
            command::RESET => {
                self.defaults();
                self.wrap = false;
                self.id = PLAIN;
                self.answer(&[answer::SELF_TEST_PASSED, PLAIN]);
            }
            _ => {
                self.queue.clear();
                self.queue.push_back(answer::RESEND);
            }
        }
    }

    fn set_rate(&mut self, rate: u8) {
        match (self.rates, rate) {
            ([200, 100], 80) => self.id = WHEEL,
            ([200, 200], 80) => self.id = FIVE_BUTTONS,
            _ => {}
        }
        self.rates = [self.rates[1], rate];
        self.rate = rate;
    }
}
