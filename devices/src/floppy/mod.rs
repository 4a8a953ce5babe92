//! The 82077AA floppy disk controller with two drives.
//!
//! Intel 82077AA datasheet (290166). Sectors of 512 bytes; commands run at once, data by DMA or by
//! programmed I/O. Data rates, write precompensation, deleted data marks and scans are left out
//! (scan commands are invalid). DMA needs the 8237 and memory, which port cycles do not carry: the
//! board calls [`Floppy::run_dma`] after a write if [`Floppy::dma_ready`].

mod drive;
mod execute;

pub use drive::Geometry;

use crate::block::{BlockBackend, SECTOR};
use crate::bus::{BytePorts, DmaMemory, Nanos, OPEN_BUS};
use crate::dma::DmaPair;
use drive::Drive;

/// The 8237 channel of the controller.
pub const DMA_CHANNEL: usize = 2;

mod reg {
    pub const SRA: u16 = 0;
    pub const SRB: u16 = 1;
    pub const DOR: u16 = 2;
    pub const TDR: u16 = 3;
    /// Read: main status; write: data rate select.
    pub const MSR: u16 = 4;
    pub const FIFO: u16 = 5;
    /// Read: digital input; write: configuration control.
    pub const DIR: u16 = 7;
}
mod dor {
    pub const RESET_N: u8 = 0x04;
    pub const DMA_GATE: u8 = 0x08;
}
mod msr {
    pub const RQM: u8 = 0x80;
    pub const DIO: u8 = 0x40;
    pub const NON_DMA: u8 = 0x20;
    pub const BUSY: u8 = 0x10;
}
mod st0 {
    pub const ABNORMAL: u8 = 0x40;
    pub const INVALID: u8 = 0x80;
    pub const SEEK_END: u8 = 0x20;
    pub const EQUIPMENT_CHECK: u8 = 0x10;
}
mod st1 {
    pub const END_OF_CYLINDER: u8 = 0x80;
    pub const DATA_ERROR: u8 = 0x20;
    pub const NO_DATA: u8 = 0x04;
    pub const NOT_WRITABLE: u8 = 0x02;
    pub const MISSING_MARK: u8 = 0x01;
}
/// Command codes without their MT, MFM and SK bits.
mod command {
    pub const SPECIFY: u8 = 0x03;
    pub const SENSE_DRIVE: u8 = 0x04;
    pub const WRITE: u8 = 0x05;
    pub const READ: u8 = 0x06;
    pub const RECALIBRATE: u8 = 0x07;
    pub const SENSE_INTERRUPT: u8 = 0x08;
    pub const READ_ID: u8 = 0x0a;
    pub const FORMAT: u8 = 0x0d;
    pub const DUMP_REGISTERS: u8 = 0x0e;
    pub const SEEK: u8 = 0x0f;
    pub const VERSION: u8 = 0x10;
    pub const PERPENDICULAR: u8 = 0x12;
    pub const CONFIGURE: u8 = 0x13;
    pub const LOCK: u8 = 0x14;
    pub const VERIFY: u8 = 0x16;
    pub const MT: u8 = 0x80;
}

/// Bytes of the longest command.
const LONGEST: usize = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Read,
    Write,
    Verify,
    /// The address fields of the sectors to format, four bytes each.
    Format,
}

/// An execution phase.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    action: Action,
    drive: usize,
    multi_track: bool,
    cylinder: u8,
    head: u8,
    sector: u8,
    /// Last sector of the track; for FORMAT: sectors still to come.
    last: u8,
    fill: u8,
    buffer: [u8; SECTOR],
    at: usize,
    len: usize,
}

#[expect(
    clippy::large_enum_variant,
    reason = "one per controller; a box would cost an allocation per sector"
)]
enum Phase {
    Command,
    Execution(Transfer),
    Result,
}

/// The controller: offset n is port 3F0h + n.
pub struct Floppy {
    drives: [Option<Drive>; 2],
    dor: u8,
    tdr: u8,
    phase: Phase,
    /// Command bytes so far.
    bytes: [u8; LONGEST],
    received: usize,
    expected: usize,
    result: [u8; 10],
    result_at: usize,
    result_len: usize,
    interrupt: bool,
    /// ST0 and cylinder that SENSE INTERRUPT reports, per drive.
    seek_done: [Option<u8>; 4],
    specify: [u8; 2],
    configure: [u8; 2],
    perpendicular: u8,
    lock: bool,
}

impl Default for Floppy {
    fn default() -> Self {
        Self::new()
    }
}

impl Floppy {
    /// A controller without drives.
    #[must_use]
    pub fn new() -> Self {
        Self {
            drives: [None, None],
            dor: dor::RESET_N | dor::DMA_GATE,
            tdr: 0,
            phase: Phase::Command,
            bytes: [0; LONGEST],
            received: 0,
            expected: 0,
            result: [0; 10],
            result_at: 0,
            result_len: 0,
            interrupt: false,
            seek_done: [None; 4],
            specify: [0; 2],
            configure: [0; 2],
            perpendicular: 0,
            lock: false,
        }
    }

    /// The kind of drive `unit` (0-1) by the CMOS's codes (byte 10h); 0 if there is none.
    #[must_use]
    pub fn kind(&self, unit: usize) -> u8 {
        self.drives
            .get(unit)
            .and_then(Option::as_ref)
            .map_or(0, Drive::kind)
    }

    /// Attaches drive 0 or 1, with or without a medium.
    pub fn attach(&mut self, unit: usize, medium: Option<Box<dyn BlockBackend>>) {
        self.drives[unit & 1] = Some(Drive::new(medium));
    }

    /// Exchanges the medium of drive 0 or 1; false if there is no such drive.
    pub fn set_medium(&mut self, unit: usize, medium: Option<Box<dyn BlockBackend>>) -> bool {
        let drive = self.drives[unit & 1].as_mut();
        drive.map(|drive| drive.set_medium(medium)).is_some()
    }

    /// The interrupt output (IRQ 6).
    #[must_use]
    pub fn irq(&self) -> bool {
        self.interrupt && self.dor & dor::DMA_GATE != 0
    }

    fn uses_dma(&self) -> bool {
        self.specify[1] & 1 == 0
    }

    /// Whether an execution phase waits for [`Floppy::run_dma`].
    #[must_use]
    pub fn dma_ready(&self) -> bool {
        matches!(self.phase, Phase::Execution(_))
            && self.uses_dma()
            && self.dor & dor::DMA_GATE != 0
    }

    /// Moves the data of a waiting command through the 8237's channel 2.
    pub fn run_dma(&mut self, dma: &mut DmaPair, memory: &mut dyn DmaMemory) {
        while self.dma_ready() && dma.ready(DMA_CHANNEL) {
            let Phase::Execution(transfer) = &mut self.phase else {
                break;
            };
            let span = transfer.at..transfer.len;
            let moved = dma.transfer(DMA_CHANNEL, &mut transfer.buffer[span], memory);
            // A transfer outside memory moves nothing but counts, as on the ISA bus.
            let (count, terminal) =
                moved.unwrap_or((transfer.len - transfer.at, !dma.ready(DMA_CHANNEL)));
            if count == 0 {
                break;
            }
            transfer.at += count;
            if transfer.at == transfer.len || terminal {
                self.block_done(terminal);
            }
        }
    }

    fn reset(&mut self) {
        self.phase = Phase::Command;
        (self.received, self.expected) = (0, 0);
        self.seek_done = [None; 4];
        self.interrupt = false;
        if !self.lock {
            self.configure = [0; 2];
        }
    }

    fn write_dor(&mut self, value: u8) {
        let was = std::mem::replace(&mut self.dor, value);
        if value & dor::RESET_N == 0 {
            self.reset();
        } else if was & dor::RESET_N == 0 {
            // After reset, polling reports a change of state of all four drives.
            for (unit, done) in (0u8..).zip(self.seek_done.iter_mut()) {
                *done = Some(0xc0 | unit);
            }
            self.interrupt = true;
        }
    }

    fn main_status(&self) -> u8 {
        if self.dor & dor::RESET_N == 0 {
            return 0;
        }
        match &self.phase {
            Phase::Command if self.received == 0 => msr::RQM,
            Phase::Command => msr::RQM | msr::BUSY,
            Phase::Result => msr::RQM | msr::DIO | msr::BUSY,
            Phase::Execution(_) if self.uses_dma() => msr::BUSY,
            Phase::Execution(transfer) => {
                let direction = if transfer.action == Action::Read {
                    msr::DIO
                } else {
                    0
                };
                msr::RQM | msr::NON_DMA | msr::BUSY | direction
            }
        }
    }

    /// Bytes of a command with its first one; 1 for invalid commands.
    fn length(first: u8) -> usize {
        match first & 0x1f {
            command::WRITE | command::READ | command::VERIFY => 9,
            command::FORMAT => 6,
            command::SPECIFY | command::SEEK => 3,
            command::CONFIGURE => 4,
            command::SENSE_DRIVE
            | command::RECALIBRATE
            | command::READ_ID
            | command::PERPENDICULAR => 2,
            _ => 1,
        }
    }

    fn write_fifo(&mut self, value: u8) {
        match &mut self.phase {
            Phase::Command => {
                if self.received == 0 {
                    self.expected = Self::length(value);
                    self.interrupt = false;
                }
                // `expected` is at most LONGEST: the buffer cannot overrun.
                if let Some(slot) = self.bytes.get_mut(self.received) {
                    *slot = value;
                    self.received += 1;
                }
                if self.received >= self.expected {
                    self.received = 0;
                    self.run();
                }
            }
            Phase::Execution(transfer) if self.specify[1] & 1 != 0 => {
                if transfer.action == Action::Read {
                    return;
                }
                transfer.buffer[transfer.at] = value;
                transfer.at += 1;
                if transfer.at == transfer.len {
                    self.block_done(false);
                }
            }
            // Bytes in the result phase or during DMA go nowhere.
            _ => {}
        }
    }

    fn read_fifo(&mut self) -> u8 {
        match &mut self.phase {
            Phase::Result => {
                self.interrupt = false;
                let byte = self.result[self.result_at];
                self.result_at += 1;
                if self.result_at == self.result_len {
                    self.phase = Phase::Command;
                }
                byte
            }
            Phase::Execution(transfer)
                if self.specify[1] & 1 != 0 && transfer.action == Action::Read =>
            {
                let byte = transfer.buffer[transfer.at];
                transfer.at += 1;
                if transfer.at == transfer.len {
                    self.block_done(false);
                }
                byte
            }
            _ => 0,
        }
    }

    fn finish(&mut self, bytes: &[u8]) {
        self.result[..bytes.len()].copy_from_slice(bytes);
        (self.result_at, self.result_len) = (0, bytes.len());
        self.phase = Phase::Result;
    }

    fn drive(&mut self, unit: usize) -> Option<&mut Drive> {
        self.drives.get_mut(unit)?.as_mut()
    }

    /// A complete command has arrived.
    fn run(&mut self) {
        let b = self.bytes;
        let unit = usize::from(b[1] & 3);
        match b[0] & 0x1f {
            command::SPECIFY => self.specify = [b[1], b[2]],
            command::SENSE_DRIVE => {
                let st3 = self
                    .drives
                    .get(unit)
                    .and_then(Option::as_ref)
                    .map_or(0x20, |drive| {
                        let track0 = if drive.cylinder == 0 { 0x10 } else { 0 };
                        let protected = if drive.protected() { 0x40 } else { 0 };
                        let two_sided = if drive.geometry.heads == 2 { 0x08 } else { 0 };
                        0x20 | track0 | protected | two_sided
                    });
                self.finish(&[st3 | b[1] & 7]);
            }
            command::RECALIBRATE => self.seek(unit, 0, b[1] & 3),
            // Relative seek (bit 7) moves by a number of cylinders, inwards with bit 6.
            command::SEEK if b[0] & 0x80 != 0 => {
                let from = self.drive(unit).map_or(0, |drive| drive.cylinder);
                let inwards = b[0] & 0x40 != 0;
                let to = if inwards {
                    from.saturating_add(b[2])
                } else {
                    from.saturating_sub(b[2])
                };
                self.seek(unit, to, b[1] & 7);
            }
            command::SEEK => self.seek(unit, b[2], b[1] & 7),
            command::SENSE_INTERRUPT => {
                self.interrupt = false;
                match self.seek_done.iter_mut().find_map(Option::take) {
                    Some(st0) => {
                        let cylinder = self.drive(usize::from(st0 & 3)).map_or(0, |d| d.cylinder);
                        self.finish(&[st0, cylinder]);
                    }
                    None => self.finish(&[st0::INVALID]),
                }
            }
            command::VERSION => self.finish(&[0x90]),
            command::CONFIGURE => self.configure = [b[2], b[3]],
            command::PERPENDICULAR => self.perpendicular = b[1],
            command::LOCK => {
                self.lock = b[0] & 0x80 != 0;
                self.finish(&[u8::from(self.lock) << 4]);
            }
            command::DUMP_REGISTERS => {
                let cylinders = [0, 1].map(|unit| self.drive(unit).map_or(0, |d| d.cylinder));
                let [a, c] = cylinders;
                let (s, f) = (self.specify, self.configure);
                let lock = u8::from(self.lock) << 7 | self.perpendicular & 0x7f;
                self.finish(&[a, c, 0, 0, s[0], s[1], 0, lock, f[0], f[1]]);
            }
            command::READ_ID => self.read_id(unit, b[1] >> 2 & 1),
            command::READ => self.start(Action::Read),
            command::WRITE => self.start(Action::Write),
            command::VERIFY => self.start(Action::Verify),
            command::FORMAT => self.start_format(),
            _ => self.finish(&[st0::INVALID]),
        }
    }

    fn seek(&mut self, unit: usize, cylinder: u8, select: u8) {
        let st0 = match self.drive(unit) {
            Some(drive) => {
                drive.seek(cylinder.min(83));
                st0::SEEK_END
            }
            // No track 0 signal ever comes.
            None => st0::SEEK_END | st0::ABNORMAL | st0::EQUIPMENT_CHECK,
        };
        self.seek_done[unit] = Some(st0 | select);
        self.interrupt = true;
    }

    fn read_id(&mut self, unit: usize, head: u8) {
        let select = head << 2 | unit as u8;
        let found = self
            .drive(unit)
            .filter(|drive| drive.has_medium() && head < drive.geometry.heads);
        match found.map(|drive| drive.cylinder) {
            Some(cylinder) => self.finish(&[select, 0, 0, cylinder, head, 1, 2]),
            None => self.finish(&[st0::ABNORMAL | select, st1::MISSING_MARK, 0, 0, head, 1, 2]),
        }
        self.interrupt = true;
    }
}

impl BytePorts for Floppy {
    fn read_byte(&mut self, _now: Nanos, offset: u16) -> u8 {
        let selected = usize::from(self.dor & 3);
        match offset {
            reg::SRA => {
                if self.interrupt {
                    0x80
                } else {
                    0
                }
            }
            reg::SRB => 0xc0 | self.dor >> 4 & 3,
            reg::DOR => self.dor,
            reg::TDR => self.tdr,
            reg::MSR => self.main_status(),
            reg::FIFO => self.read_fifo(),
            reg::DIR => {
                // The change line is driven by the selected drive while its motor runs.
                let motor = self.dor & 0x10 << selected != 0;
                let drive = self.drives.get(selected).and_then(Option::as_ref);
                if motor && drive.is_none_or(|drive| drive.changed) {
                    0x80
                } else {
                    0
                }
            }
            _ => OPEN_BUS,
        }
    }

    fn write_byte(&mut self, _now: Nanos, offset: u16, value: u8) {
        match offset {
            reg::DOR => self.write_dor(value),
            reg::TDR => self.tdr = value & 3,
            reg::MSR if value & 0x80 != 0 => {
                // The software reset of the data rate register clears itself.
                let dor = self.dor;
                self.write_dor(dor & !dor::RESET_N);
                self.write_dor(dor);
            }
            reg::FIFO if self.dor & dor::RESET_N != 0 => self.write_fifo(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
