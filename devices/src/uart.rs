//! The 16550A UART.
//!
//! National Semiconductor PC16550D datasheet. Characters move at the speed of the host, not of
//! the divisor: transmission ends at once while the host buffer has room, and received characters
//! enter the FIFO as soon as there is space, so that a receive overrun happens in loopback only.
//! For the same reason the character timeout is immediate: data below the trigger level interrupts
//! as "character timeout". DMA mode, parity and framing are stored and have no effect.

use crate::bus::{BytePorts, Nanos, OPEN_BUS};
use std::collections::VecDeque;

mod reg {
    /// RBR, THR, DLL.
    pub const DATA: u16 = 0;
    /// IER, DLM.
    pub const IER: u16 = 1;
    /// IIR, FCR.
    pub const IIR: u16 = 2;
    pub const LCR: u16 = 3;
    pub const MCR: u16 = 4;
    pub const LSR: u16 = 5;
    pub const MSR: u16 = 6;
    pub const SCR: u16 = 7;
}
mod ier {
    pub const ERBFI: u8 = 0x01;
    pub const ETBEI: u8 = 0x02;
    pub const ELSI: u8 = 0x04;
    pub const EDSSI: u8 = 0x08;
}
mod iir {
    pub const NONE: u8 = 0x01;
    pub const MODEM: u8 = 0x00;
    pub const THRE: u8 = 0x02;
    pub const RDA: u8 = 0x04;
    pub const LINE: u8 = 0x06;
    pub const TIMEOUT: u8 = 0x0c;
    pub const FIFOS: u8 = 0xc0;
}
mod fcr {
    pub const ENABLE: u8 = 0x01;
    pub const CLEAR_RX: u8 = 0x02;
    pub const CLEAR_TX: u8 = 0x04;
}
mod lcr {
    pub const BREAK: u8 = 0x40;
    pub const DLAB: u8 = 0x80;
}
mod mcr {
    pub const DTR: u8 = 0x01;
    pub const RTS: u8 = 0x02;
    pub const OUT1: u8 = 0x04;
    pub const OUT2: u8 = 0x08;
    pub const LOOP: u8 = 0x10;
}
mod lsr {
    pub const DR: u8 = 0x01;
    pub const OE: u8 = 0x02;
    pub const BI: u8 = 0x10;
    pub const THRE: u8 = 0x20;
    pub const TEMT: u8 = 0x40;
    pub const FIFO_ERROR: u8 = 0x80;
}

/// Modem status inputs, in the places of the MSR's upper half.
pub mod modem {
    /// Clear to send.
    pub const CTS: u8 = 0x10;
    /// Data set ready.
    pub const DSR: u8 = 0x20;
    /// Ring indicator.
    pub const RI: u8 = 0x40;
    /// Carrier detect.
    pub const DCD: u8 = 0x80;
}

const FIFO_SIZE: usize = 16;

/// A 16550A; the host is the other end of the line.
#[derive(Clone, Debug)]
pub struct Uart {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: u16,
    modem_in: u8,
    modem_delta: u8,
    /// Received characters with their line status bits.
    rx: VecDeque<(u8, u8)>,
    overrun: bool,
    tx: VecDeque<u8>,
    /// The THRE interrupt, which reading IIR or writing THR clears.
    thre_pending: bool,
    /// From the host, waiting for space in the FIFO.
    input: VecDeque<(u8, u8)>,
    /// To the host.
    output: Vec<u8>,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// Bytes that each direction holds for the host.
    pub const HOST_BUFFER: usize = 64 * 1024;

    /// A UART after reset, with a connected and ready peer (CTS, DSR and DCD on).
    #[must_use]
    pub fn new() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: 12,
            modem_in: modem::CTS | modem::DSR | modem::DCD,
            modem_delta: 0,
            rx: VecDeque::with_capacity(FIFO_SIZE),
            overrun: false,
            tx: VecDeque::with_capacity(FIFO_SIZE),
            thre_pending: false,
            input: VecDeque::new(),
            output: Vec::new(),
        }
    }

    /// The interrupt output behind the gate that OUT2 drives on a PC.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.mcr & (mcr::OUT2 | mcr::LOOP) == mcr::OUT2 && self.cause() != iir::NONE
    }

    /// Moves transmitted bytes to the end of `to`.
    pub fn take_output(&mut self, to: &mut Vec<u8>) {
        to.append(&mut self.output);
        self.transmit();
    }

    /// Queues bytes to be received and returns how many were taken; the rest did not fit.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        let room = Self::HOST_BUFFER.saturating_sub(self.input.len());
        let taken = bytes.len().min(room);
        self.input
            .extend(bytes[..taken].iter().map(|byte| (*byte, 0)));
        self.receive();
        taken
    }

    /// Queues a break condition after the input so far.
    pub fn push_break(&mut self) {
        if self.input.len() < Self::HOST_BUFFER {
            self.input.push_back((0, lsr::BI));
        }
        self.receive();
    }

    /// Sets the modem status inputs, a mask of [`modem`] bits.
    pub fn set_modem_inputs(&mut self, inputs: u8) {
        self.change_modem(|uart| uart.modem_in = inputs & 0xf0);
    }

    /// The line rate in bits per second that the divisor selects; `None` for divisor 0.
    #[must_use]
    pub fn baud(&self) -> Option<u32> {
        115_200u32.checked_div(self.divisor.into())
    }

    const fn fifos(&self) -> bool {
        self.fcr & fcr::ENABLE != 0
    }

    const fn capacity(&self) -> usize {
        if self.fifos() { FIFO_SIZE } else { 1 }
    }

    fn trigger(&self) -> usize {
        if self.fifos() {
            [1, 4, 8, 14][usize::from(self.fcr >> 6)]
        } else {
            1
        }
    }

    fn line_error(&self) -> u8 {
        let head = self.rx.front().map_or(0, |(_, status)| *status);
        head | if self.overrun { lsr::OE } else { 0 }
    }

    /// The highest-priority interrupt cause as IIR shows it.
    fn cause(&self) -> u8 {
        if self.ier & ier::ELSI != 0 && self.line_error() != 0 {
            iir::LINE
        } else if self.ier & ier::ERBFI != 0 && self.rx.len() >= self.trigger() {
            iir::RDA
        } else if self.ier & ier::ERBFI != 0 && !self.rx.is_empty() {
            iir::TIMEOUT
        } else if self.ier & ier::ETBEI != 0 && self.thre_pending {
            iir::THRE
        } else if self.ier & ier::EDSSI != 0 && self.modem_delta != 0 {
            iir::MODEM
        } else {
            iir::NONE
        }
    }

    fn modem_status(&self) -> u8 {
        if self.mcr & mcr::LOOP == 0 {
            return self.modem_in;
        }
        [
            (mcr::RTS, modem::CTS),
            (mcr::DTR, modem::DSR),
            (mcr::OUT1, modem::RI),
            (mcr::OUT2, modem::DCD),
        ]
        .into_iter()
        .filter(|(from, _)| self.mcr & from != 0)
        .fold(0, |status, (_, to)| status | to)
    }

    fn change_modem(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.modem_status();
        change(self);
        let after = self.modem_status();
        // The ring indicator counts when it ends (TERI).
        let delta = (before ^ after) & !modem::RI | before & !after & modem::RI;
        self.modem_delta |= delta >> 4;
    }

    fn receive(&mut self) {
        // In loopback the line's receiver is cut off.
        if self.mcr & mcr::LOOP != 0 {
            return;
        }
        while self.rx.len() < self.capacity() {
            let Some(character) = self.input.pop_front() else {
                break;
            };
            self.rx.push_back(character);
        }
    }

    fn transmit(&mut self) {
        let waited = !self.tx.is_empty();
        while let Some(byte) = self.tx.front().copied() {
            if self.mcr & mcr::LOOP != 0 {
                if self.rx.len() < self.capacity() {
                    self.rx.push_back((byte, 0));
                } else {
                    self.overrun = true;
                    if !self.fifos() {
                        // Without FIFO the new character replaces the unread one.
                        self.rx[0] = (byte, 0);
                    }
                }
            } else if self.output.len() < Self::HOST_BUFFER {
                self.output.push(byte);
            } else {
                break;
            }
            self.tx.pop_front();
        }
        if waited && self.tx.is_empty() {
            self.thre_pending = true;
        }
    }

    fn read_lsr(&mut self) -> u8 {
        let mut status = self.line_error();
        if !self.rx.is_empty() {
            status |= lsr::DR;
        }
        if self.tx.is_empty() {
            status |= lsr::THRE | lsr::TEMT;
        }
        if self.fifos() && self.rx.iter().any(|(_, error)| *error != 0) {
            status |= lsr::FIFO_ERROR;
        }
        self.overrun = false;
        if let Some(head) = self.rx.front_mut() {
            head.1 = 0;
        }
        status
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (self.fcr ^ value) & fcr::ENABLE != 0;
        if toggled || value & fcr::CLEAR_RX != 0 {
            self.rx.clear();
        }
        if toggled || value & fcr::CLEAR_TX != 0 {
            self.tx.clear();
        }
        // The other bits are writable only while the enable bit is one (datasheet, FCR).
        self.fcr = if value & fcr::ENABLE != 0 {
            value & 0xc9
        } else {
            0
        };
        self.receive();
    }
}

impl BytePorts for Uart {
    fn read_byte(&mut self, _now: Nanos, offset: u16) -> u8 {
        let dlab = self.lcr & lcr::DLAB != 0;
        match offset {
            reg::DATA if dlab => self.divisor as u8,
            reg::DATA => {
                let byte = self.rx.pop_front().map_or(0, |(byte, _)| byte);
                self.receive();
                byte
            }
            reg::IER if dlab => (self.divisor >> 8) as u8,
            reg::IER => self.ier,
            reg::IIR => {
                let cause = self.cause();
                if cause == iir::THRE {
                    self.thre_pending = false;
                }
                cause | if self.fifos() { iir::FIFOS } else { 0 }
            }
            reg::LCR => self.lcr,
            reg::MCR => self.mcr,
            reg::LSR => self.read_lsr(),
            reg::MSR => self.modem_status() | std::mem::take(&mut self.modem_delta),
            reg::SCR => self.scr,
            _ => OPEN_BUS,
        }
    }

    fn write_byte(&mut self, _now: Nanos, offset: u16, value: u8) {
        let dlab = self.lcr & lcr::DLAB != 0;
        match offset {
            reg::DATA if dlab => self.divisor = self.divisor & 0xff00 | u16::from(value),
            reg::DATA => {
                self.thre_pending = false;
                if self.tx.len() < self.capacity() {
                    self.tx.push_back(value);
                }
                self.transmit();
            }
            reg::IER if dlab => self.divisor = self.divisor & 0xff | u16::from(value) << 8,
            reg::IER => {
                let enabled = value & !self.ier & ier::ETBEI != 0;
                self.ier = value & 0x0f;
                if enabled && self.tx.is_empty() {
                    self.thre_pending = true;
                }
            }
            reg::IIR => self.write_fcr(value),
            reg::LCR => {
                let broke = value & !self.lcr & lcr::BREAK != 0;
                self.lcr = value;
                if broke && self.mcr & mcr::LOOP != 0 && self.rx.len() < self.capacity() {
                    self.rx.push_back((0, lsr::BI));
                }
            }
            reg::MCR => {
                self.change_modem(|uart| uart.mcr = value & 0x1f);
                self.receive();
            }
            reg::SCR => self.scr = value,
            // LSR and MSR are read-only.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uart(fcr: u8, ier: u8) -> Uart {
        let mut uart = Uart::new();
        uart.write_byte(0, reg::IIR, fcr);
        uart.write_byte(0, reg::MCR, mcr::OUT2);
        uart.write_byte(0, reg::IER, ier);
        uart
    }

    fn iir(uart: &mut Uart) -> u8 {
        uart.read_byte(0, reg::IIR) & 0x0f
    }

    #[test]
    fn transmitted_bytes_reach_the_host_and_thre_interrupts() {
        let mut uart = uart(1, ier::ETBEI);
        assert!(uart.irq());
        assert_eq!(iir(&mut uart), iir::THRE);
        assert!(!uart.irq(), "reading IIR clears THRE");
        uart.write_byte(0, reg::DATA, b'A');
        assert!(uart.irq());
        let mut out = Vec::new();
        uart.take_output(&mut out);
        assert_eq!(out, b"A");
        assert_eq!(uart.read_byte(0, reg::LSR), lsr::THRE | lsr::TEMT);
    }

    #[test]
    fn full_host_buffer_holds_thre_back_until_taken() {
        let mut uart = uart(1, 0);
        for _ in 0..Uart::HOST_BUFFER + 1 {
            uart.write_byte(0, reg::DATA, b'x');
        }
        assert_eq!(uart.read_byte(0, reg::LSR) & lsr::THRE, 0);
        let mut out = Vec::new();
        uart.take_output(&mut out);
        assert_eq!(uart.read_byte(0, reg::LSR) & lsr::THRE, lsr::THRE);
        uart.take_output(&mut out);
        assert_eq!(out.len(), Uart::HOST_BUFFER + 1);
    }

    #[test]
    fn receive_interrupts_at_trigger_and_by_timeout_below_it() {
        let mut uart = uart(0x81, ier::ERBFI);
        assert_eq!(uart.push_input(&[1, 2, 3]), 3);
        assert!(uart.irq());
        assert_eq!(iir(&mut uart), iir::TIMEOUT);
        uart.push_input(&[4, 5, 6, 7, 8]);
        assert_eq!(iir(&mut uart), iir::RDA);
        for expected in 1..=8 {
            assert_eq!(uart.read_byte(0, reg::LSR) & lsr::DR, lsr::DR);
            assert_eq!(uart.read_byte(0, reg::DATA), expected);
        }
        assert!(!uart.irq());
    }

    #[test]
    fn long_input_flows_through_the_fifo_without_loss() {
        let mut uart = uart(1, 0);
        let data: Vec<u8> = (0..200).collect();
        uart.push_input(&data);
        assert_eq!(uart.rx.len(), FIFO_SIZE);
        let read: Vec<u8> = data.iter().map(|_| uart.read_byte(0, reg::DATA)).collect();
        assert_eq!(read, data);
        let big = vec![0; Uart::HOST_BUFFER * 2];
        assert!(uart.push_input(&big) <= Uart::HOST_BUFFER);
    }

    #[test]
    fn loopback_wires_modem_outputs_to_inputs_as_drivers_probe_it() {
        let mut uart = Uart::new();
        uart.write_byte(0, reg::MCR, mcr::LOOP | mcr::OUT2 | mcr::RTS);
        assert_eq!(uart.read_byte(0, reg::MSR) & 0xf0, 0x90);
        uart.write_byte(0, reg::DATA, 0x5a);
        assert_eq!(uart.read_byte(0, reg::DATA), 0x5a);
        let mut out = Vec::new();
        uart.take_output(&mut out);
        assert!(out.is_empty());
        assert!(!uart.irq());
    }

    #[test]
    fn loopback_overrun_sets_oe_once() {
        let mut uart = Uart::new();
        uart.write_byte(0, reg::MCR, mcr::LOOP);
        uart.write_byte(0, reg::DATA, 1);
        uart.write_byte(0, reg::DATA, 2);
        assert_eq!(uart.read_byte(0, reg::LSR) & lsr::OE, lsr::OE);
        assert_eq!(uart.read_byte(0, reg::LSR) & lsr::OE, 0);
        assert_eq!(uart.read_byte(0, reg::DATA), 2);
    }

    #[test]
    fn modem_changes_interrupt_and_clear_on_read() {
        let mut uart = uart(0, ier::EDSSI);
        uart.set_modem_inputs(modem::CTS | modem::DSR);
        assert_eq!(iir(&mut uart), iir::MODEM);
        assert!(uart.irq());
        assert_eq!(uart.read_byte(0, reg::MSR), 0x38);
        assert!(!uart.irq());
        uart.set_modem_inputs(modem::CTS | modem::DSR | modem::RI);
        assert_eq!(
            uart.read_byte(0, reg::MSR) & 0x0f,
            0,
            "rising RI is no event"
        );
        uart.set_modem_inputs(modem::CTS | modem::DSR);
        assert_eq!(uart.read_byte(0, reg::MSR) & 0x0f, 4);
    }

    #[test]
    fn break_is_a_line_status_interrupt() {
        let mut uart = uart(1, ier::ELSI | ier::ERBFI);
        uart.push_break();
        assert_eq!(iir(&mut uart), iir::LINE);
        let status = uart.read_byte(0, reg::LSR);
        assert_eq!(
            status & (lsr::BI | lsr::FIFO_ERROR),
            lsr::BI | lsr::FIFO_ERROR
        );
        assert_eq!(iir(&mut uart), iir::RDA);
    }

    #[test]
    fn divisor_scratch_and_fifo_identification() {
        let mut uart = Uart::new();
        assert_eq!(uart.read_byte(0, reg::IIR), iir::NONE);
        uart.write_byte(0, reg::IIR, 1);
        assert_eq!(uart.read_byte(0, reg::IIR), 0xc1);
        uart.write_byte(0, reg::SCR, 0xa5);
        assert_eq!(uart.read_byte(0, reg::SCR), 0xa5);
        uart.write_byte(0, reg::LCR, 0x83);
        uart.write_byte(0, reg::DATA, 1);
        uart.write_byte(0, reg::IER, 0);
        assert_eq!(uart.baud(), Some(115_200));
        uart.write_byte(0, reg::LCR, 0x03);
        assert_eq!(uart.read_byte(0, reg::IER), 0);
        assert_eq!(uart.read_byte(0, 9), OPEN_BUS);
    }

    #[test]
    fn out2_gates_the_interrupt() {
        let mut uart = uart(0, ier::ETBEI);
        assert!(uart.irq());
        uart.write_byte(0, reg::MCR, 0);
        assert!(!uart.irq());
    }
}
