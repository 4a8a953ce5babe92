//! The parallel port (SPP), with a host that prints.
//!
//! IBM PC/AT Technical Reference, "Parallel Printer Adapter". The peripheral takes every byte at
//! once and is never out of paper; EPP and ECP are left out.

use crate::bus::{BytePorts, Nanos, OPEN_BUS};

const DATA: u16 = 0;
const STATUS: u16 = 1;
/// Offset of the control register: its strobe sends a byte.
pub const CONTROL: u16 = 2;

mod status {
    /// Fixed bits: not busy, selected, no error; bits 0-2 read as ones.
    pub const READY: u8 = 0x9f;
    /// Low while the peripheral acknowledges.
    pub const ACK_N: u8 = 0x40;
}
mod control {
    pub const STROBE: u8 = 0x01;
    pub const INTERRUPT: u8 = 0x10;
    /// Bidirectional: the data lines are inputs.
    pub const INPUT: u8 = 0x20;
}

/// A parallel port.
#[derive(Clone, Debug, Default)]
pub struct ParallelPort {
    data: u8,
    control: u8,
    acknowledged: bool,
    output: Vec<u8>,
}

impl ParallelPort {
    /// Bytes kept until the host takes them; the port is busy while they are full.
    pub const CAPACITY: usize = 64 * 1024;

    /// The interrupt (IRQ 7): the acknowledge pulse of a byte, until status is read.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.acknowledged && self.control & control::INTERRUPT != 0
    }

    /// Moves the printed bytes to the end of `to`.
    pub fn take_output(&mut self, to: &mut Vec<u8>) {
        to.append(&mut self.output);
    }
}

impl BytePorts for ParallelPort {
    fn read_byte(&mut self, _now: Nanos, offset: u16) -> u8 {
        match offset {
            DATA if self.control & control::INPUT != 0 => OPEN_BUS,
            DATA => self.data,
            STATUS => {
                // BUSY is inverted: a full host shows 0 there.
                let ready = if self.output.len() < Self::CAPACITY {
                    0xff
                } else {
                    0x7f
                };
                let pulse = std::mem::take(&mut self.acknowledged);
                status::READY & ready | if pulse { 0 } else { status::ACK_N }
            }
            CONTROL => self.control | 0xc0,
            _ => OPEN_BUS,
        }
    }

    fn write_byte(&mut self, _now: Nanos, offset: u16, value: u8) {
        match offset {
            DATA => self.data = value,
            CONTROL => {
                let strobe = value & !self.control & control::STROBE != 0;
                self.control = value & 0x3f;
                if strobe && self.output.len() < Self::CAPACITY {
                    self.output.push(self.data);
                    self.acknowledged = true;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strobe_prints_and_acknowledges() {
        let mut port = ParallelPort::default();
        assert_eq!(port.read_byte(0, STATUS), 0xdf);
        port.write_byte(0, DATA, b'P');
        port.write_byte(0, CONTROL, 0x1d);
        assert!(port.irq());
        assert_eq!(port.read_byte(0, STATUS) & status::ACK_N, 0);
        assert!(!port.irq());
        port.write_byte(0, CONTROL, 0x1d);
        let mut out = Vec::new();
        port.take_output(&mut out);
        assert_eq!(out, b"P", "only the strobe's edge prints");
        assert_eq!(port.read_byte(0, CONTROL), 0xdd);
    }

    #[test]
    fn full_host_shows_busy_and_drops_nothing_taken() {
        let mut port = ParallelPort::default();
        for _ in 0..ParallelPort::CAPACITY + 5 {
            port.write_byte(0, CONTROL, 1);
            port.write_byte(0, CONTROL, 0);
        }
        assert_eq!(port.read_byte(0, STATUS) & 0x80, 0);
        let mut out = Vec::new();
        port.take_output(&mut out);
        assert_eq!(out.len(), ParallelPort::CAPACITY);
        assert_eq!(port.read_byte(0, STATUS) & 0x80, 0x80);
    }

    /// "Printer control": interrupts only while enabled; data lines as inputs.
    #[test]
    fn interrupts_need_their_bit_and_input_floats() {
        let mut port = ParallelPort::default();
        port.write_byte(0, DATA, 0x55);
        assert_eq!(port.read_byte(0, DATA), 0x55);
        port.write_byte(0, CONTROL, control::STROBE);
        assert!(!port.irq());
        port.write_byte(0, CONTROL, control::INTERRUPT);
        assert!(port.irq(), "the acknowledge still stands");
        port.write_byte(0, CONTROL, control::INPUT);
        assert_eq!(port.read_byte(0, DATA), OPEN_BUS);
    }
}
