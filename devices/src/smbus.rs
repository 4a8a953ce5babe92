//! The PIIX4's SMBus host controller, on a bus without devices.
//!
//! Intel PIIX4 datasheet (290562), 7.3. Nobody acknowledges an address, so each transaction ends
//! with a device error, as on a board whose memory modules have no EEPROM. The slave interface is
//! storage.

use crate::bus::{BytePorts, Nanos};

/// Registers by offset.
mod reg {
    pub const HOST_STATUS: u16 = 0;
    pub const HOST_CONTROL: u16 = 2;
    pub const BLOCK_DATA: u16 = 7;
    pub const LAST: u16 = 0xd;
}
/// SMBHSTSTS.
mod status {
    pub const DEVICE_ERROR: u8 = 0x04;
    pub const FAILED: u8 = 0x10;
    /// Bits that writing ones clears.
    pub const CLEARED: u8 = 0x1e;
}
/// SMBHSTCNT.
mod control {
    pub const INTERRUPT: u8 = 0x01;
    pub const KILL: u8 = 0x02;
    pub const START: u8 = 0x40;
    /// START reads as zero.
    pub const STORED: u8 = 0x1f;
}

/// The controller.
#[derive(Clone, Debug, Default)]
pub struct Smbus {
    registers: [u8; reg::LAST as usize + 1],
    /// Where the next byte of the 32-byte block goes.
    at: usize,
    block: [u8; 32],
}

impl Smbus {
    /// The interrupt: a transaction ended and software wants to hear of it.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.registers[usize::from(reg::HOST_STATUS)] != 0
            && self.registers[usize::from(reg::HOST_CONTROL)] & control::INTERRUPT != 0
    }
}

impl BytePorts for Smbus {
    fn read_byte(&mut self, _now: Nanos, offset: u16) -> u8 {
        match offset {
            // Reading the control register goes back to the block's first byte.
            reg::HOST_CONTROL => {
                self.at = 0;
                self.registers[usize::from(offset)]
            }
            reg::BLOCK_DATA => {
                let byte = self.block[self.at];
                self.at = (self.at + 1) % self.block.len();
                byte
            }
            _ => self
                .registers
                .get(usize::from(offset))
                .copied()
                .unwrap_or(0),
        }
    }

    fn write_byte(&mut self, _now: Nanos, offset: u16, value: u8) {
        match offset {
            reg::HOST_STATUS => self.registers[0] &= !(value & status::CLEARED),
            reg::HOST_CONTROL => {
                self.registers[usize::from(offset)] = value & control::STORED;
                if value & control::KILL != 0 {
                    self.registers[0] |= status::FAILED;
                } else if value & control::START != 0 {
                    self.registers[0] |= status::DEVICE_ERROR;
                }
            }
            reg::BLOCK_DATA => {
                self.block[self.at] = value;
                self.at = (self.at + 1) % self.block.len();
            }
            _ => {
                if let Some(register) = self.registers.get_mut(usize::from(offset)) {
                    *register = value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_answers() {
        let mut bus = Smbus::default();
        assert_eq!(bus.read_byte(0, 0), 0, "not busy");
        bus.write_byte(0, 4, 0xa1);
        bus.write_byte(0, 2, 0x48);
        assert_eq!((bus.read_byte(0, 0), bus.read_byte(0, 2)), (0x04, 0x08));
        assert!(!bus.irq());
        bus.write_byte(0, 0, 0xff);
        assert_eq!(bus.read_byte(0, 0), 0);
        bus.write_byte(0, 2, 0x49);
        assert!(bus.irq());
        bus.write_byte(0, 0, 0x04);
        assert!(!bus.irq());
        bus.write_byte(0, 2, 0x02);
        assert_eq!(bus.read_byte(0, 0), 0x10, "killed");
    }

    #[test]
    fn block_index_starts_over_and_wraps() {
        let mut bus = Smbus::default();
        for byte in 0..40 {
            bus.write_byte(0, 7, byte);
        }
        bus.read_byte(0, 2);
        assert_eq!((bus.read_byte(0, 7), bus.read_byte(0, 0x3f)), (32, 0));
    }
}
