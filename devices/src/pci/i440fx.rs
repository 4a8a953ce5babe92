//! The 82441FX PCI and memory controller: function 0 of device 0.
//!
//! Intel 440FX PCIset datasheet (290549), 3.2: PAM registers and SMRAM. DRAM timing and sizing
//! registers are storage.

use super::{ConfigSpace, Identity, PciFunction};

/// Configuration register offsets.
mod reg {
    /// PMCCFG to DRB7.
    pub const DRAM: u8 = 0x50;
    /// PAM0 to PAM6.
    pub const PAM: u8 = 0x59;
    pub const SMRAM: u8 = 0x72;
}

mod smram {
    pub const OPEN: u8 = 0x40;
    pub const CLOSED: u8 = 0x20;
    pub const LOCKED: u8 = 0x10;
    pub const ENABLE: u8 = 0x08;
    /// C_BASE_SEG: A0000h-BFFFFh, the only value.
    pub const BASE: u8 = 0x02;
}

/// How accesses to a region between C0000h and FFFFFh are routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAttribute {
    /// Reads go to RAM (else to PCI and so to the ROM).
    pub read_ram: bool,
    /// Writes go to RAM (else to PCI, which drops them).
    pub write_ram: bool,
}

/// The thirteen regions that PAM registers control: first address and size in bytes.
pub const PAM_REGIONS: [(u32, u32); 13] = [
    (0xf0000, 0x10000),
    (0xc0000, 0x4000),
    (0xc4000, 0x4000),
    (0xc8000, 0x4000),
    (0xcc000, 0x4000),
    (0xd0000, 0x4000),
    (0xd4000, 0x4000),
    (0xd8000, 0x4000),
    (0xdc000, 0x4000),
    (0xe0000, 0x4000),
    (0xe4000, 0x4000),
    (0xe8000, 0x4000),
    (0xec000, 0x4000),
];

/// Who sees RAM instead of the VGA window at A0000h-BFFFFh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smram {
    /// Nobody.
    Disabled,
    /// The processor in system management mode.
    InSmm,
    /// Every access (D_OPEN).
    Open,
}

/// The host bridge.
#[derive(Clone, Debug)]
pub struct HostBridge {
    config: ConfigSpace,
    changed: bool,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl HostBridge {
    /// The bridge after reset: all PAM regions go to PCI, SMRAM is off.
    #[must_use]
    pub fn new() -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x1237,
            revision: 2,
            class: 0x06_00_00,
        });
        config.set_u16(super::config::reg::COMMAND, 0x0006);
        config.set_u16(super::config::reg::STATUS, 0x0280);
        config.allow(reg::DRAM, &[0xff; 9]);
        config.allow(reg::PAM, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
        config.allow(0x60, &[0xff; 8]);
        config.allow(
            reg::SMRAM,
            &[smram::OPEN | smram::CLOSED | smram::LOCKED | smram::ENABLE],
        );
        config.set_u8(reg::SMRAM, smram::BASE);
        Self {
            config,
            changed: true,
        }
    }

    /// The routing of [`PAM_REGIONS`]`[region]`; regions that do not exist go to PCI.
    #[must_use]
    pub fn pam(&self, region: usize) -> MemoryAttribute {
        // Region 0 is the upper half of PAM0; then each register holds two, lower half first.
        let nibble = match region {
            0 => self.config.u8(reg::PAM) >> 4,
            1..13 => {
                let byte = self.config.u8(reg::PAM + region.div_ceil(2) as u8);
                if region % 2 == 1 { byte } else { byte >> 4 }
            }
            _ => 0,
        };
        MemoryAttribute {
            read_ram: nibble & 1 != 0,
            write_ram: nibble & 2 != 0,
        }
    }

    /// The state of system management RAM.
    #[must_use]
    pub fn smram(&self) -> Smram {
        match self.config.u8(reg::SMRAM) {
            value if value & smram::ENABLE == 0 => Smram::Disabled,
            value if value & smram::OPEN != 0 => Smram::Open,
            _ => Smram::InSmm,
        }
    }

    /// Whether the routing of memory may have changed since the last call (and once at first).
    pub fn take_memory_map_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

impl PciFunction for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn write_config(&mut self, offset: u8, size: u8, value: u32) {
        self.config.write(offset, size, value);
        let end = u16::from(offset) + u16::from(size);
        if u16::from(offset) < 0x74 && end > u16::from(reg::PAM) {
            self.changed = true;
        }
        let state = self.config.u8(reg::SMRAM);
        if state & smram::LOCKED != 0 {
            // D_LCK: the register is read-only until reset, and D_OPEN is clear.
            self.config.set_u8(reg::SMRAM, state & !smram::OPEN);
            self.config.forbid(reg::SMRAM);
        }
    }
}
