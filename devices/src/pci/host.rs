//! Configuration mechanism #1 and the reset control register that shares its ports.
//!
//! PCI Local Bus Specification 2.1, 3.7.4.1; PIIX3 datasheet (290550), 2.5.5.4 (RCR).

use super::{Address, PciSlots};

/// Offset of CONFADD (CF8h) and CONFDATA (CFCh) in [`ConfigPorts`].
const CONFADD: u16 = 0;
const RCR: u16 = 1;
const CONFDATA: u16 = 4;

const ENABLE: u32 = 0x8000_0000;
/// Bits of CONFADD that exist.
const CONFADD_MASK: u32 = 0x80ff_fffc;

mod rcr {
    /// SRST: the next reset is a hard one.
    pub const HARD: u8 = 0x02;
    /// RCPU: a rising bit resets.
    pub const TRIGGER: u8 = 0x04;
}

/// What the reset control register asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// INIT: the processor only.
    Soft,
    /// The whole machine.
    Hard,
}

/// Ports CF8h-CFFh.
#[derive(Clone, Debug, Default)]
pub struct ConfigPorts {
    address: u32,
    rcr: u8,
    reset: Option<Reset>,
}

impl ConfigPorts {
    /// A reset that the guest asked for since the last call.
    pub fn take_reset_request(&mut self) -> Option<Reset> {
        self.reset.take()
    }

    fn target(&self) -> Option<(Address, u8)> {
        let a = self.address;
        (a & ENABLE != 0).then_some((
            Address {
                bus: (a >> 16) as u8,
                device: (a >> 11 & 31) as u8,
                function: (a >> 8 & 7) as u8,
            },
            a as u8 & 0xfc,
        ))
    }

    /// Reads `size` bytes at `offset` from CF8h; an empty slot reads as all ones.
    pub fn read(&mut self, offset: u16, size: u8, slots: &mut dyn PciSlots) -> u32 {
        let ones = u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)));
        match (offset, size) {
            (CONFADD, 4) => self.address,
            (RCR, 1) => self.rcr.into(),
            (CONFDATA..8, 1 | 2 | 4) => {
                let lane = (offset - CONFDATA) as u8;
                let Some((at, register)) = self.target() else {
                    return ones;
                };
                if lane + size > 4 {
                    return ones;
                }
                slots
                    .function(at)
                    .map_or(ones, |f| f.read_config(register + lane, size) & ones)
            }
            _ => ones,
        }
    }

    /// Writes `size` bytes at `offset` from CF8h.
    pub fn write(&mut self, offset: u16, size: u8, value: u32, slots: &mut dyn PciSlots) {
        match (offset, size) {
            (CONFADD, 4) => self.address = value & CONFADD_MASK,
            (RCR, 1) => {
                let value = value as u8;
                if value & !self.rcr & rcr::TRIGGER != 0 {
                    let hard = value & rcr::HARD != 0;
                    self.reset = Some(if hard { Reset::Hard } else { Reset::Soft });
                }
                self.rcr = value & (rcr::HARD | rcr::TRIGGER);
            }
            (CONFDATA..8, 1 | 2 | 4) => {
                let lane = (offset - CONFDATA) as u8;
                if lane + size > 4 {
                    return;
                }
                if let Some((at, register)) = self.target()
                    && let Some(function) = slots.function(at)
                {
                    function.write_config(register + lane, size, value);
                }
            }
            _ => {}
        }
    }
}
