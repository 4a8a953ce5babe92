//! The PCI bus of the board: who sits in which slot, and the configuration ports.

use super::wiring::{PIIX_SLOT, PIRQ_LINES, PM_BASE};
use ring3_devices::bus::{Nanos, PortDevice};
use ring3_devices::pci::{
    Address, ConfigPorts, HostBridge, IsaBridge, PciFunction, PciSlots, PowerManagement,
};

/// Function of the PIIX's power management.
const PM_FUNCTION: u8 = 3;

/// The configuration ports and the functions behind them.
#[derive(Debug)]
pub(super) struct PciBus {
    pub ports: ConfigPorts,
    pub functions: Functions,
}

/// The functions of bus 0.
#[derive(Debug, Default)]
pub(super) struct Functions {
    pub host: HostBridge,
    pub isa: IsaBridge,
    pub pm: PowerManagement,
}

impl PciSlots for Functions {
    fn function(&mut self, at: Address) -> Option<&mut dyn PciFunction> {
        match (at.bus, at.device, at.function) {
            (0, 0, 0) => Some(&mut self.host),
            (0, PIIX_SLOT, 0) => Some(&mut self.isa),
            (0, PIIX_SLOT, PM_FUNCTION) => Some(&mut self.pm),
            _ => None,
        }
    }
}

impl PciBus {
    /// The bus as firmware leaves it: the area below 1 MiB is RAM, PIRQ A-D are routed, and the
    /// power-management ports are decoded.
    pub fn new() -> Self {
        let mut functions = Functions::default();
        // PAM0 has the BIOS area in its upper half only.
        functions.host.write_config(0x59, 1, 0x30);
        for register in 0x5a..=0x5f {
            functions.host.write_config(register, 1, 0x33);
        }
        for (register, line) in (0x60..).zip(PIRQ_LINES) {
            functions.isa.write_config(register, 1, line.into());
        }
        functions.pm.set_pm_base(PM_BASE);
        Self {
            ports: ConfigPorts::default(),
            functions,
        }
    }
}

impl PortDevice for PciBus {
    fn read(&mut self, _now: Nanos, offset: u16, size: u8) -> u32 {
        self.ports.read(offset, size, &mut self.functions)
    }
    fn write(&mut self, _now: Nanos, offset: u16, size: u8, value: u32) {
        self.ports.write(offset, size, value, &mut self.functions);
    }
}
