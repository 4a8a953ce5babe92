//! The PCI bus of the board: who sits in which slot, and the configuration ports.

use super::wiring::{
    BUS_MASTER_BASE, FRAMEBUFFER_BASE, PIIX_SLOT, PIRQ_LINES, PM_BASE, SMBUS_BASE, VGA_SLOT,
};
use ring3_devices::bus::{Nanos, PortDevice};
use ring3_devices::ide::{BUS_MASTER_BAR, Ide};
use ring3_devices::pci::config::reg;
use ring3_devices::pci::{
    Address, ConfigPorts, HostBridge, IsaBridge, PciFunction, PciSlots, PowerManagement, pirq,
};
use ring3_devices::vga::Vga;

/// Function of the PIIX's IDE controller.
const IDE_FUNCTION: u8 = 1;
/// Function of the PIIX's power management.
const PM_FUNCTION: u8 = 3;

/// The configuration ports and the functions behind them.
#[derive(Debug)]
pub(super) struct PciBus {
    pub ports: ConfigPorts,
    pub functions: Functions,
}

/// The functions of bus 0.
#[derive(Default)]
pub(super) struct Functions {
    pub host: HostBridge,
    pub isa: IsaBridge,
    pub ide: Ide,
    pub pm: PowerManagement,
    pub vga: Vga,
}

impl core::fmt::Debug for Functions {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Functions")
            .field("host", &self.host)
            .field("isa", &self.isa)
            .field("pm", &self.pm)
            .finish_non_exhaustive()
    }
}

impl Functions {
    /// The levels of PIRQ A-D: the interrupt outputs of functions, by slot and pin. The PIIX4's
    /// power management has its own wire to IRQ 9.
    pub fn pirqs(&self) -> [bool; 4] {
        let mut levels = [false; 4];
        let sources: [(u8, &dyn PciFunction); 1] = [(VGA_SLOT, &self.vga)];
        for (slot, function) in sources {
            if let Some(pin) = function.config().interrupt_pin() {
                levels[pirq(slot, pin)] |= function.interrupt();
            }
        }
        levels
    }
}

impl PciSlots for Functions {
    fn function(&mut self, at: Address) -> Option<&mut dyn PciFunction> {
        match (at.bus, at.device, at.function) {
            (0, 0, 0) => Some(&mut self.host),
            (0, PIIX_SLOT, 0) => Some(&mut self.isa),
            (0, PIIX_SLOT, IDE_FUNCTION) => Some(&mut self.ide),
            (0, PIIX_SLOT, PM_FUNCTION) => Some(&mut self.pm),
            (0, VGA_SLOT, 0) => Some(&mut self.vga),
            _ => None,
        }
    }
}

impl PciBus {
    /// The bus after RESET, for firmware to set up.
    pub fn after_reset() -> Self {
        let mut functions = Functions::default();
        // By this subsystem id SeaBIOS recognizes a board that it knows.
        for function in [
            functions.host.config_mut(),
            functions.isa.config_mut(),
            functions.ide.config_mut(),
            functions.pm.config_mut(),
            functions.vga.config_mut(),
        ] {
            function.set_u16(reg::SUBSYSTEM, 0x1af4);
            function.set_u16(reg::SUBSYSTEM + 2, 0x1100);
        }
        // DEVACTB.APMC_EN: there is no system management mode to set up.
        functions.pm.config_mut().set_u8(0x5b, 0x02);
        Self {
            ports: ConfigPorts::default(),
            functions,
        }
    }

    /// The bus as firmware leaves it: the area below 1 MiB is RAM, PIRQ A-D are routed, base
    /// addresses are assigned, and the screen shows text.
    pub fn set_up() -> Self {
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
        functions.pm.set_smbus_base(SMBUS_BASE);
        let bus_master = reg::BAR0 + 4 * BUS_MASTER_BAR as u8;
        functions
            .ide
            .write_config(bus_master, 4, BUS_MASTER_BASE.into());
        functions.ide.write_config(reg::COMMAND, 2, 5);
        functions.vga.write_config(reg::BAR0, 4, FRAMEBUFFER_BASE);
        functions.vga.write_config(reg::COMMAND, 2, 3);
        functions.vga.set_text_mode();
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
