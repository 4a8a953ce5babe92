//! The bus master registers of one channel and the walk over its descriptor table.
//!
//! "Programming Interface for Bus Master IDE Controller", revision 1.0.

use super::drive::{Drive, Phase};
use crate::bus::DmaMemory;

mod command {
    pub const START: u8 = 0x01;
    /// The transfer writes to memory.
    pub const TO_MEMORY: u8 = 0x08;
}
mod status {
    pub const ACTIVE: u8 = 0x01;
    pub const ERROR: u8 = 0x02;
    pub const INTERRUPT: u8 = 0x04;
    /// Drive capability bits, written by firmware.
    pub const CAPABLE: u8 = 0x60;
}

/// Descriptors that one step may visit: a table of 64 KiB holds no more.
const MAX_DESCRIPTORS: u32 = 8192;

/// One channel's registers.
#[derive(Clone, Debug, Default)]
pub struct BusMaster {
    command: u8,
    status: u8,
    table: u32,
    /// The descriptor to fetch next.
    next: u32,
    /// What is left of the current descriptor.
    address: u32,
    left: u32,
    last: bool,
}

impl BusMaster {
    pub fn read(&self, offset: u16) -> u8 {
        match offset {
            0 => self.command,
            2 => self.status,
            4..=7 => self.table.to_le_bytes()[usize::from(offset - 4)],
            _ => 0,
        }
    }

    pub fn write(&mut self, offset: u16, value: u8) {
        match offset {
            0 => {
                let started = value & !self.command & command::START != 0;
                self.command = value & (command::START | command::TO_MEMORY);
                if started {
                    self.status |= status::ACTIVE;
                    self.next = self.table;
                    (self.left, self.last) = (0, false);
                } else if value & command::START == 0 {
                    self.status &= !status::ACTIVE;
                }
            }
            2 => {
                self.status &= !(value & (status::ERROR | status::INTERRUPT));
                self.status = self.status & !status::CAPABLE | value & status::CAPABLE;
            }
            4..=7 => {
                let mut bytes = self.table.to_le_bytes();
                bytes[usize::from(offset - 4)] = value;
                self.table = u32::from_le_bytes(bytes) & !3;
            }
            _ => {}
        }
    }

    /// Latches the drive's interrupt.
    pub fn interrupt(&mut self) {
        self.status |= status::INTERRUPT;
    }

    pub fn active(&self) -> bool {
        self.status & status::ACTIVE != 0
    }

    /// Fetches the next descriptor; false at the end of the table or on a bad table.
    fn fetch(&mut self, memory: &mut dyn DmaMemory) -> bool {
        if self.last {
            self.status &= !status::ACTIVE;
            return false;
        }
        let mut entry = [0; 8];
        if memory.read(self.next.into(), &mut entry).is_err() {
            return self.abort();
        }
        let [a, b, c, d, low, high, _, flags] = entry;
        self.address = u32::from_le_bytes([a, b, c, d]) & !1;
        self.left = match u16::from_le_bytes([low, high]) & !1 {
            0 => 0x1_0000,
            n => n.into(),
        };
        self.last = flags & 0x80 != 0;
        self.next = self.next.wrapping_add(8);
        true
    }

    fn abort(&mut self) -> bool {
        self.status = self.status & !status::ACTIVE | status::ERROR;
        false
    }

    /// Moves data between a drive that waits for DMA and memory until either side ends.
    pub fn run(&mut self, drive: &mut Drive, memory: &mut dyn DmaMemory) {
        let mut descriptors = 0;
        while self.active() {
            let to_memory = match drive.phase {
                Phase::DataIn { dma: true } => true,
                Phase::DataOut { dma: true } => false,
                _ => break,
            };
            if to_memory != (self.command & command::TO_MEMORY != 0) {
                self.abort();
                break;
            }
            if self.left == 0 {
                descriptors += 1;
                if descriptors > MAX_DESCRIPTORS {
                    self.abort();
                    break;
                }
                if !self.fetch(memory) {
                    break;
                }
            }
            let len = (drive.buffer.len() - drive.at).min(self.left as usize);
            let chunk = &mut drive.buffer[drive.at..drive.at + len];
            let moved = if to_memory {
                memory.write(self.address.into(), chunk)
            } else {
                memory.read(self.address.into(), chunk)
            };
            if moved.is_err() {
                self.abort();
                drive.fail(super::spec::error::ABRT);
                break;
            }
            drive.at += len;
            self.address = self.address.wrapping_add(len as u32);
            self.left -= len as u32;
            if drive.at == drive.buffer.len() {
                drive.buffer_done();
            }
        }
        // The table ended together with the data: the engine is idle. If descriptors are left it
        // stays active (specification, "Status Bits").
        if drive.phase == Phase::Idle && self.last && self.left == 0 {
            self.status &= !status::ACTIVE;
        }
    }
}
