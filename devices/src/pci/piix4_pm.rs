//! The PIIX4's power management function (function 3): the base address of the ACPI registers.
//!
//! Intel PIIX4 datasheet (290562), 7.1. The SMBus host controller is in [`crate::smbus`]. Device
//! monitors are storage.

use super::{ConfigSpace, Identity, PciFunction};

const PMBASE: u8 = 0x40;
const DEVACTB: u8 = 0x58;
const PMREGMISC: u8 = 0x80;
const SMBBASE: u8 = 0x90;
const SMBHSTCFG: u8 = 0xd2;

/// The power management function.
#[derive(Clone, Debug)]
pub struct PowerManagement {
    config: ConfigSpace,
}

impl Default for PowerManagement {
    fn default() -> Self {
        Self::new()
    }
}

impl PowerManagement {
    /// The function after reset: no block is decoded.
    #[must_use]
    pub fn new() -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7113,
            revision: 3,
            class: 0x06_80_00,
        });
        config.set_u16(super::config::reg::STATUS, 0x0280);
        config.set_interrupt_pin(1);
        // The interrupt is wired to IRQ 9 inside the chip.
        config.set_u8(super::config::reg::INTERRUPT_LINE, 9);
        config.set_u8(PMBASE, 1);
        config.allow(PMBASE, &[0xc0, 0xff]);
        // CNTA, CNTB, GPICTL and the DEVRES registers.
        config.allow(0x44, &[0xff; 0x14]);
        config.allow(DEVACTB, &[0xff; 0x28]);
        config.allow(PMREGMISC, &[0x01]);
        config.set_u8(SMBBASE, 1);
        config.allow(SMBBASE, &[0xf0, 0xff]);
        config.allow(SMBHSTCFG, &[0x0f, 0xff, 0xff, 0xff]);
        Self { config }
    }

    /// The I/O base of the 64 power management ports, while decoded.
    #[must_use]
    pub fn pm_base(&self) -> Option<u16> {
        let base = self.config.u16(PMBASE) & 0xffc0;
        (self.config.u8(PMREGMISC) & 1 != 0 && base != 0).then_some(base)
    }

    /// The I/O base of the 16 SMBus ports, while decoded.
    #[must_use]
    pub fn smbus_base(&self) -> Option<u16> {
        let base = self.config.u16(SMBBASE) & 0xfff0;
        (self.config.u8(SMBHSTCFG) & 1 != 0 && base != 0).then_some(base)
    }

    /// Decodes the power management ports at `base` as firmware would, for boards that start a
    /// kernel without firmware.
    pub fn set_pm_base(&mut self, base: u16) {
        self.config.set_u16(PMBASE, base & 0xffc0 | 1);
        self.config.set_u8(PMREGMISC, 1);
    }
}

impl PowerManagement {
    /// Decodes the SMBus ports at `base`, interrupting by IRQ 9, as firmware would.
    pub fn set_smbus_base(&mut self, base: u16) {
        self.config.set_u16(SMBBASE, base & 0xfff0 | 1);
        self.config.set_u8(SMBHSTCFG, 0x09);
        self.config.set_u16(
            super::config::reg::COMMAND,
            self.config.command() | 1, // I/O space
        );
    }
}

impl PciFunction for PowerManagement {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}
