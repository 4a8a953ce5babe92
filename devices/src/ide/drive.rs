//! What disks and CD-ROM drives share: the task file, the data phase, and reset.

use super::atapi::CdRom;
use super::spec::{command, device, error, reason, status};
use crate::block::BlockBackend;

/// A register with the value before the last one, for 48-bit addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo2 {
    pub current: u8,
    pub previous: u8,
}

impl Fifo2 {
    pub fn write(&mut self, value: u8) {
        *self = Self {
            current: value,
            previous: self.current,
        };
    }
}

/// The command block registers of one device.
#[derive(Clone, Debug, Default)]
pub struct TaskFile {
    pub features: Fifo2,
    pub count: Fifo2,
    pub lba: [Fifo2; 3],
    pub device: u8,
    pub status: u8,
    pub error: u8,
}

/// What happens when the data buffer has been moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Idle,
    /// To the host, `dma` by bus master.
    DataIn {
        dma: bool,
    },
    /// From the host.
    DataOut {
        dma: bool,
    },
    /// The twelve bytes of a packet command, from the host.
    Packet,
}

/// What the device is.
pub enum Kind {
    Disk(super::ata::Disk),
    CdRom(CdRom),
}

/// One ATA or ATAPI device.
pub struct Drive {
    pub regs: TaskFile,
    pub phase: Phase,
    pub buffer: Vec<u8>,
    pub at: usize,
    pub irq: bool,
    pub udma: Option<u8>,
    pub mwdma: Option<u8>,
    pub kind: Kind,
}

impl Drive {
    pub fn disk(image: Box<dyn BlockBackend>) -> Self {
        Self::new(Kind::Disk(super::ata::Disk::new(image)))
    }

    pub fn cd_rom(medium: Option<Box<dyn BlockBackend>>) -> Self {
        Self::new(Kind::CdRom(CdRom::new(medium)))
    }

    fn new(kind: Kind) -> Self {
        let mut drive = Self {
            regs: TaskFile::default(),
            phase: Phase::Idle,
            buffer: Vec::new(),
            at: 0,
            irq: false,
            udma: None,
            mwdma: Some(2),
            kind,
        };
        drive.reset();
        drive
    }

    /// Hardware or software reset: the signature, and no transfer. ATA/ATAPI-6, 9.12.
    pub fn reset(&mut self) {
        self.phase = Phase::Idle;
        self.irq = false;
        self.signature();
        match &mut self.kind {
            Kind::Disk(disk) => disk.reset(),
            Kind::CdRom(cd) => cd.reset(),
        }
    }

    /// The register values by which hosts tell disks and packet devices apart.
    pub fn signature(&mut self) {
        let (mid, high, ready) = match self.kind {
            Kind::Disk(_) => (0x00, 0x00, status::DRDY | status::DSC),
            Kind::CdRom(_) => (0x14, 0xeb, 0),
        };
        self.regs.count = Fifo2 {
            current: 1,
            previous: 0,
        };
        self.regs.lba = [1, mid, high].map(|current| Fifo2 {
            current,
            previous: 0,
        });
        self.regs.device &= device::DEV;
        self.regs.status = ready;
        self.regs.error = 1; // diagnostics passed
    }

    pub fn is_atapi(&self) -> bool {
        matches!(self.kind, Kind::CdRom(_))
    }

    /// Ends a command well.
    pub fn complete(&mut self) {
        self.phase = Phase::Idle;
        self.regs.status = status::DRDY | status::DSC;
        self.irq = true;
    }

    /// Ends a command with error bits.
    pub fn fail(&mut self, bits: u8) {
        self.phase = Phase::Idle;
        self.regs.status = status::DRDY | status::DSC | status::ERR;
        self.regs.error = bits;
        self.irq = true;
    }

    /// Offers or requests the buffer.
    pub fn start_phase(&mut self, phase: Phase, interrupt: bool) {
        self.phase = phase;
        self.at = 0;
        self.regs.status = status::DRDY | status::DSC | status::DRQ;
        self.irq |= interrupt;
    }

    /// The device's command register.
    pub fn command(&mut self, value: u8) {
        if value != command::DEVICE_RESET && self.regs.status & status::BSY != 0 {
            return;
        }
        self.irq = false;
        self.phase = Phase::Idle;
        self.regs.error = 0;
        match (value, self.is_atapi()) {
            (command::DIAGNOSTIC, _) => {
                self.signature();
                self.irq = true;
            }
            (command::DEVICE_RESET, true) => self.reset(),
            (command::PACKET, true) => {
                self.buffer = vec![0; super::atapi::PACKET_SIZE];
                self.start_phase(Phase::Packet, false);
                self.regs.count.current = reason::COMMAND;
            }
            (command::IDENTIFY_PACKET, true) => self.identify_packet(),
            (command::IDENTIFY | command::READ, true) => {
                // Packet devices abort these and show their signature (ATA/ATAPI-6, 8.16).
                self.signature();
                self.fail(error::ABRT);
            }
            (command::SET_FEATURES, _) => self.set_features(),
            (command::STANDBY_NOW..=command::IDLE | command::SLEEP, _) => self.complete(),
            (command::CHECK_POWER, _) => {
                self.regs.count.current = 0xff;
                self.complete();
            }
            (_, true) => self.fail(error::ABRT),
            (_, false) => self.disk_command(value),
        }
    }

    fn set_features(&mut self) {
        let value = self.regs.count.current;
        match self.regs.features.current {
            // Transfer mode.
            0x03 => match (value >> 3, value & 7) {
                (0, _) | (1, 0..=4) => self.complete(),
                (4, mode @ 0..=2) => {
                    (self.mwdma, self.udma) = (Some(mode), None);
                    self.complete();
                }
                (8, mode @ 0..=2) => {
                    (self.mwdma, self.udma) = (None, Some(mode));
                    self.complete();
                }
                _ => self.fail(error::ABRT),
            },
            // Write cache on, off.
            feature @ (0x02 | 0x82) => {
                if let Some(disk) = self.the_disk() {
                    disk.write_through = feature == 0x82;
                }
                self.complete();
            }
            // Look-ahead, reverting to defaults: nothing to switch.
            0xaa | 0x55 | 0xcc | 0x66 => self.complete(),
            _ => self.fail(error::ABRT),
        }
    }

    /// All of the buffer has been moved: the next block, or the end of the command.
    pub fn buffer_done(&mut self) {
        match (self.phase, self.is_atapi()) {
            (Phase::Idle, _) => {}
            (Phase::Packet, _) => self.packet(),
            (_, true) => self.packet_data_done(),
            (_, false) => self.disk_data_done(),
        }
    }

    /// Reads `size` (2 or 4) bytes of the data register.
    pub fn read_data(&mut self, size: u8) -> u32 {
        if self.phase != (Phase::DataIn { dma: false }) {
            return 0;
        }
        let end = (self.at + usize::from(size.clamp(2, 4))).min(self.buffer.len());
        let bytes = &self.buffer[self.at..end];
        let value = bytes
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        self.at = end;
        if end == self.buffer.len() {
            self.buffer_done();
        }
        value
    }

    /// Writes `size` (2 or 4) bytes of the data register.
    pub fn write_data(&mut self, size: u8, value: u32) {
        if !matches!(self.phase, Phase::DataOut { dma: false } | Phase::Packet) {
            return;
        }
        let end = (self.at + usize::from(size.clamp(2, 4))).min(self.buffer.len());
        for (slot, byte) in self.buffer[self.at..end]
            .iter_mut()
            .zip(value.to_le_bytes())
        {
            *slot = byte;
        }
        self.at = end;
        if end == self.buffer.len() {
            self.buffer_done();
        }
    }
}

/// Stores text in IDENTIFY words: two characters per word, the first in the high byte.
pub fn put_text(words: &mut [u16; 256], from: usize, len: usize, text: &str) {
    let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
    for word in &mut words[from..from + len] {
        let pair = [bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' ')];
        *word = u16::from_be_bytes(pair);
    }
}

/// The transfer mode words of IDENTIFY: supported in the low byte, selected in the high one.
pub fn mode_word(selected: Option<u8>) -> u16 {
    0x07 | selected.map_or(0, |mode| 0x100 << mode)
}
