//! The board's side of the serial ports: output is collected for a short while, so that a guest
//! that prints character by character does not wake the I/O thread for each one.

use super::Board;
use super::wiring::{SERIAL_SLOTS, Slot};

/// How long output may wait for more, in ns.
const LINGER_NS: u64 = 500_000;
/// The same for the debug console.
const DEBUG_LINGER_NS: u64 = 20_000_000;
/// Bytes that are not made to wait.
const BATCH: u32 = 4096;

/// When a port's output is due at the host.
#[derive(Clone, Debug, Default)]
pub(super) struct SerialPort {
    due: Option<u64>,
    written: u32,
    /// The host takes no more for now: no deadline until it has.
    blocked: bool,
    /// Output of a UART that a reset has replaced.
    kept: Vec<u8>,
}

impl SerialPort {
    /// VM-clock time at which the output should be taken, in ns.
    pub fn flush_deadline(&self) -> Option<u64> {
        if self.blocked { None } else { self.due }
    }

    /// Keeps output across a reset.
    pub fn keep(&mut self, mut output: Vec<u8>) {
        self.kept.append(&mut output);
    }
}

impl Board {
    /// Appends what the guest sent on `port` (0 is COM1) to `to`, at most once per batch.
    pub fn serial_output(&mut self, port: usize, to: &mut Vec<u8>) {
        let Some(uart) = self.chips.uarts.get_mut(port) else {
            return;
        };
        to.append(&mut self.serial[port].kept);
        uart.take_output(to);
        self.serial[port] = SerialPort {
            blocked: self.serial[port].blocked,
            ..SerialPort::default()
        };
        // Room in the buffer may have made the transmitter ready: its interrupt follows.
        self.after_change(SERIAL_SLOTS[port]);
    }

    /// Tells the board whether the host side of `port` takes output now. While it does not,
    /// output stays in the UART, whose transmitter then reports busy.
    pub fn set_serial_blocked(&mut self, port: usize, blocked: bool) {
        if let Some(serial) = self.serial.get_mut(port) {
            serial.blocked = blocked;
        }
    }

    /// Gives input to the guest on `port`; returns how many bytes were taken.
    pub fn serial_input(&mut self, port: usize, bytes: &[u8]) -> usize {
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

    /// Serial ports of this board.
    #[must_use]
    pub fn serial_ports(&self) -> usize {
        self.serial.len()
    }

    /// Notes that the guest wrote to a chip whose output goes to the host.
    pub(super) fn output_written(&mut self, slot: Slot, offset: u16) {
        if slot == Slot::DebugConsole {
            let clock = &self.clock;
            self.debug_due
                .get_or_insert_with(|| clock.now_ns() + DEBUG_LINGER_NS);
        }
        let port = SERIAL_SLOTS.iter().position(|&s| s == slot);
        let Some(serial) = port.and_then(|port| self.serial.get_mut(port)) else {
            return;
        };
        if offset != 0 {
            return;
        }
        serial.written = serial.written.saturating_add(1);
        if serial.written == BATCH || serial.due.is_none() {
            let linger = if serial.written < BATCH { LINGER_NS } else { 0 };
            serial.due = Some(self.clock.now_ns() + linger);
        }
    }

    /// When output is due at the host, in VM-clock ns.
    pub(super) fn output_deadline(&self) -> Option<u64> {
        let serial = self.serial.iter().filter_map(SerialPort::flush_deadline);
        serial.chain(self.debug_due).min()
    }
}
