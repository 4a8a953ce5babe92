//! The board's side of the serial and parallel ports: output is collected for a short while, so
//! that a guest that prints character by character does not wake the I/O thread for each one.

use super::Board;
use super::wiring::{SERIAL_SLOTS, Slot};
use ring3_devices::parallel;

/// How long output may wait for more, in ns.
const LINGER_NS: u64 = 500_000;
/// The same for the debug console.
const DEBUG_LINGER_NS: u64 = 20_000_000;
/// Bytes that are not made to wait.
const BATCH: u32 = 4096;

/// A port that has a host side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPort {
    /// A serial port; 0 is COM1.
    Serial(usize),
    /// The parallel port, LPT1.
    Parallel,
}

impl HostPort {
    /// The port that a write to a chip's register sends a byte by.
    fn written(slot: Slot, offset: u16) -> Option<Self> {
        if slot == Slot::Parallel {
            return (offset == parallel::CONTROL).then_some(Self::Parallel);
        }
        let port = SERIAL_SLOTS.iter().position(|&s| s == slot)?;
        (offset == 0).then_some(Self::Serial(port))
    }

    fn slot(self) -> Option<Slot> {
        match self {
            Self::Serial(port) => SERIAL_SLOTS.get(port).copied(),
            Self::Parallel => Some(Slot::Parallel),
        }
    }
}

/// When a port's output is due at the host.
#[derive(Clone, Debug, Default)]
pub(super) struct Outlet {
    due: Option<u64>,
    written: u32,
    /// The host takes no more for now: no deadline until it has.
    blocked: bool,
    /// Output of a UART that a reset has replaced.
    kept: Vec<u8>,
}

/// One for each [`HostPort`].
#[derive(Clone, Debug, Default)]
pub(super) struct Outlets {
    pub serial: [Outlet; SERIAL_SLOTS.len()],
    pub parallel: Outlet,
}

impl Outlets {
    fn at(&mut self, port: HostPort) -> Option<&mut Outlet> {
        match port {
            HostPort::Serial(port) => self.serial.get_mut(port),
            HostPort::Parallel => Some(&mut self.parallel),
        }
    }

    /// When output is due at the host, in VM-clock ns.
    fn deadline(&self) -> Option<u64> {
        let outlets = self.serial.iter().chain([&self.parallel]);
        let due = outlets.filter(|outlet| !outlet.blocked);
        due.filter_map(|outlet| outlet.due).min()
    }
}

impl Outlet {
    /// Keeps output across a reset.
    pub fn keep(&mut self, mut output: Vec<u8>) {
        self.kept.append(&mut output);
    }
}

impl Board {
    /// The ports that have a host side.
    pub fn host_ports(&self) -> impl Iterator<Item = HostPort> + use<> {
        let serial = (0..self.chips.uarts.len()).map(HostPort::Serial);
        serial.chain([HostPort::Parallel])
    }

    /// Appends what the guest sent on `port` to `to`, at most once per batch.
    pub fn take_output(&mut self, port: HostPort, to: &mut Vec<u8>) {
        let (Some(outlet), Some(slot)) = (self.outlets.at(port), port.slot()) else {
            return;
        };
        let blocked = outlet.blocked;
        let outlet = std::mem::replace(
            outlet,
            Outlet {
                blocked,
                ..Outlet::default()
            },
        );
        to.extend(outlet.kept);
        match port {
            HostPort::Serial(port) => {
                if let Some(uart) = self.chips.uarts.get_mut(port) {
                    uart.take_output(to);
                }
            }
            HostPort::Parallel => self.chips.parallel.take_output(to),
        }
        // Room in the buffer may have made the transmitter ready: its interrupt follows.
        self.after_change(slot);
    }

    /// Tells the board whether the host side of `port` takes output now. While it does not,
    /// output stays in the chip, which then reports busy.
    pub fn set_blocked(&mut self, port: HostPort, blocked: bool) {
        if let Some(outlet) = self.outlets.at(port) {
            outlet.blocked = blocked;
        }
    }

    /// Gives input to the guest on `port`; returns how many bytes were taken. Nobody reads what a
    /// printer says.
    pub fn give_input(&mut self, port: HostPort, bytes: &[u8]) -> usize {
        let HostPort::Serial(port) = port else {
            return bytes.len();
        };
        let Some(uart) = self.chips.uarts.get_mut(port) else {
            return 0;
        };
        let taken = uart.push_input(bytes);
        self.after_change(SERIAL_SLOTS[port]);
        taken
    }

    /// Moves what the debug console (port 0xE9) collected to the end of `to`.
    pub fn debug_output(&mut self, to: &mut Vec<u8>) {
        self.chips.debug_console.take_output(to);
        self.debug_due = None;
    }

    /// Notes that the guest wrote to a chip whose output goes to the host.
    pub(super) fn output_written(&mut self, slot: Slot, offset: u16) {
        if slot == Slot::DebugConsole {
            let clock = &self.clock;
            self.debug_due
                .get_or_insert_with(|| clock.now_ns() + DEBUG_LINGER_NS);
        }
        let port = HostPort::written(slot, offset);
        let Some(outlet) = port.and_then(|port| self.outlets.at(port)) else {
            return;
        };
        outlet.written = outlet.written.saturating_add(1);
        if outlet.written == BATCH || outlet.due.is_none() {
            let linger = if outlet.written < BATCH { LINGER_NS } else { 0 };
            outlet.due = Some(self.clock.now_ns() + linger);
        }
    }

    /// When output is due at the host, in VM-clock ns.
    pub(super) fn output_deadline(&self) -> Option<u64> {
        self.outlets
            .deadline()
            .into_iter()
            .chain(self.debug_due)
            .min()
    }
}
