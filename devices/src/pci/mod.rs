//! PCI: configuration spaces, configuration mechanism #1, the 440FX bridge, and PIIX functions.

pub mod config;
mod host;
mod i440fx;
mod piix3;
mod piix4_pm;

pub use config::{Bar, ConfigSpace, Identity};
pub use host::{ConfigPorts, Reset};
pub use i440fx::{HostBridge, MemoryAttribute, PAM_REGIONS, Smram};
pub use piix3::{IsaBridge, pirq};
pub use piix4_pm::PowerManagement;

/// The place of a function on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Bus, 0-255.
    pub bus: u8,
    /// Device, 0-31.
    pub device: u8,
    /// Function, 0-7.
    pub function: u8,
}

/// One PCI function.
pub trait PciFunction {
    /// Its configuration space.
    fn config(&self) -> &ConfigSpace;
    /// Its configuration space.
    fn config_mut(&mut self) -> &mut ConfigSpace;
    /// The level of its interrupt pin; false for a function that has none.
    fn interrupt(&self) -> bool {
        false
    }
    /// A configuration read of `size` (1, 2, 4) bytes within one doubleword.
    fn read_config(&mut self, offset: u8, size: u8) -> u32 {
        self.config().read(offset, size)
    }
    /// A configuration write of `size` (1, 2, 4) bytes within one doubleword.
    fn write_config(&mut self, offset: u8, size: u8, value: u32) {
        self.config_mut().write(offset, size, value);
    }
}

/// The functions of a board, for configuration cycles.
pub trait PciSlots {
    /// The function at an address, if the slot is occupied.
    fn function(&mut self, at: Address) -> Option<&mut dyn PciFunction>;
}

#[cfg(test)]
mod tests;
