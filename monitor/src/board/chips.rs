//! The chips of the board.

use super::apic::Apics;
use super::pci::PciBus;
use super::wires::Wires;
use super::wiring::{IRQ_SCI, PIRQ_LINES, SERIAL, Slot, cmos_memory};
use super::{BoardConfig, MachineRequest};
use crate::clock::VmClock;
use ring3_devices::acpi_pm::{AcpiPm, SleepRequest, TimerWidth};
use ring3_devices::bus::{BytePorts, PortDevice, Timed};
use ring3_devices::debug::{DebugConsole, DebugExit, PostPort};
use ring3_devices::dma::{DmaPair, offset::SECOND};
use ring3_devices::floppy::Floppy;
use ring3_devices::fw_cfg::FwCfg;
use ring3_devices::kbc::{Kbc, Port92};
use ring3_devices::parallel::ParallelPort;
use ring3_devices::pci::PciFunction;
use ring3_devices::pci::config::reg;
use ring3_devices::pic::{PicPair, offset::ELCR};
use ring3_devices::pit::Pit;
use ring3_devices::rtc::Rtc;
use ring3_devices::smbus::Smbus;
use ring3_devices::uart::Uart;

/// Every chip of the board.
pub(super) struct Chips {
    pub pic: PicPair,
    pub apic: Apics,
    pub pit: Pit,
    pub rtc: Rtc,
    pub uarts: Vec<Uart>,
    pub keyboard: Kbc,
    pub port92: Port92,
    pub pci: PciBus,
    pub pm: AcpiPm,
    pub post: PostPort,
    pub debug_console: DebugConsole,
    pub debug_exit: DebugExit,
    pub dma: DmaPair,
    pub floppy: Floppy,
    pub fw_cfg: FwCfg,
    pub parallel: ParallelPort,
    pub smbus: Smbus,
    pub wires: Wires,
}

impl core::fmt::Debug for Chips {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Chips")
            .field("pic", &self.pic)
            .field("pci", &self.pci)
            .finish_non_exhaustive()
    }
}

impl Chips {
    /// The chips after power-on; without firmware, as firmware would have set them up for a
    /// directly booted kernel.
    pub fn new(config: &BoardConfig, clock: &VmClock) -> Self {
        let mut rtc = Rtc::new((clock.wall_base_ns() / 1_000_000_000) as i64);
        let cmos = rtc.cmos_mut();
        for (index, value) in cmos_memory(config.memory) {
            cmos[index] = value;
        }
        for &(index, value) in &config.cmos {
            cmos[usize::from(index & 0x7f)] = value;
        }
        let mut pic = PicPair::new();
        if !config.firmware {
            let level = PIRQ_LINES
                .iter()
                .fold(1u16 << IRQ_SCI, |mask, line| mask | 1 << line);
            for (i, mask) in (0u16..).zip(level.to_le_bytes()) {
                pic.write_byte(0, ELCR + i, mask);
            }
        }
        let mut dma = DmaPair::new();
        if !config.firmware {
            // Channel 4 cascades the controller of channels 0-3.
            for (register, value) in [(0xb, 0xc0), (0xa, 0x00)] {
                dma.write_byte(0, SECOND + 2 * register, value);
            }
        }
        let mut chips = Self {
            pic,
            apic: Apics::new(!config.firmware),
            pit: Pit::new(),
            rtc,
            uarts: (0..config.serial_ports.clamp(1, SERIAL.len()))
                .map(|_| Uart::new())
                .collect(),
            keyboard: Kbc::new(),
            port92: Port92::default(),
            pci: if config.firmware {
                PciBus::after_reset()
            } else {
                PciBus::set_up()
            },
            pm: AcpiPm::new(TimerWidth::Bits24),
            post: PostPort::default(),
            debug_console: DebugConsole::default(),
            debug_exit: DebugExit::default(),
            dma,
            floppy: Floppy::new(),
            fw_cfg: FwCfg::new(),
            parallel: ParallelPort::default(),
            smbus: Smbus::default(),
            wires: Wires::default(),
        };
        chips.advance(clock.now_ns());
        chips
    }

    /// Takes from the chips before a reset what a reset does not touch: drives with their media,
    /// firmware's configuration, the battery-backed memory, and messages on their way.
    pub fn adopt(&mut self, old: Self) {
        let Self {
            mut rtc,
            pci,
            mut floppy,
            fw_cfg,
            debug_console,
            parallel,
            ..
        } = old;
        self.rtc.cmos_mut()[0x0e..].copy_from_slice(&rtc.cmos_mut()[0x0e..]);
        self.fw_cfg = fw_cfg;
        self.debug_console = debug_console;
        self.parallel = parallel;
        // Digital output register: reset, then out of it with the DMA gate on.
        floppy.write_byte(0, 2, 0x00);
        floppy.write_byte(0, 2, 0x0c);
        self.floppy = floppy;
        let mut ide = pci.functions.ide;
        for (control, bus_master) in [(0x08, 0x20), (0x18, 0x28)] {
            PortDevice::write(&mut ide, 0, bus_master, 1, 0);
            PortDevice::write(&mut ide, 0, bus_master + 2, 1, 0x06);
            PortDevice::write(&mut ide, 0, control, 1, 0x04);
            PortDevice::write(&mut ide, 0, control, 1, 0x00);
        }
        let fresh = &self.pci.functions.ide;
        for at in [reg::COMMAND, 0x20, 0x40] {
            let value = fresh.config().read(at, 4);
            ide.config_mut().write(at, 4, value);
        }
        self.pci.functions.ide = ide;
    }

    /// The chip behind a slot that has ports.
    pub fn at(&mut self, slot: Slot) -> Option<&mut dyn PortDevice> {
        Some(match slot {
            Slot::None | Slot::Apics => return None,
            Slot::Pic => &mut self.pic,
            Slot::Pit => &mut self.pit,
            Slot::Rtc => &mut self.rtc,
            Slot::Uart0 => self.uarts.get_mut(0)?,
            Slot::Uart1 => self.uarts.get_mut(1)?,
            Slot::Uart2 => self.uarts.get_mut(2)?,
            Slot::Uart3 => self.uarts.get_mut(3)?,
            Slot::Keyboard => &mut self.keyboard,
            Slot::Port92 => &mut self.port92,
            Slot::Post => &mut self.post,
            Slot::DebugConsole => &mut self.debug_console,
            Slot::DebugExit => &mut self.debug_exit,
            Slot::PciConfig => &mut self.pci,
            Slot::Apm | Slot::Pm => &mut self.pm,
            Slot::Vga => &mut self.pci.functions.vga,
            Slot::Ide => &mut self.pci.functions.ide,
            Slot::Dma => &mut self.dma,
            Slot::Floppy => &mut self.floppy,
            Slot::FwCfg => &mut self.fw_cfg,
            Slot::Parallel => &mut self.parallel,
            Slot::Smbus => &mut self.smbus,
        })
    }

    /// Brings the chips that know time to `now`.
    pub fn advance(&mut self, now: u64) {
        self.pit.advance(now);
        self.rtc.advance(now);
        self.keyboard.advance(now);
        self.pm.advance(now);
        self.apic.advance(now);
    }

    /// What the guest asked of the machine through a chip, once.
    pub fn take_request(&mut self) -> Option<MachineRequest> {
        if let Some(status) = self.debug_exit.take_exit() {
            return Some(MachineRequest::DebugExit(status as u8));
        }
        match self.pm.take_sleep_request() {
            Some(SleepRequest::PowerOff) => return Some(MachineRequest::PowerOff),
            // The tables offer no S3; a guest that enters it anyway wakes at once.
            Some(SleepRequest::Suspend) => self.pm.wake(),
            None => {}
        }
        // Every source is asked, so that none is left to fire later. A reset of the processor
        // alone (RCR without SRST, the keyboard controller) resets the board as well.
        let sources = [
            self.keyboard.take_reset_request(),
            self.port92.take_reset_request(),
            self.pci.ports.take_reset_request().is_some(),
        ];
        sources.contains(&true).then_some(MachineRequest::Reset)
    }

    /// The A20 gate: either of its two controls opens it.
    pub fn a20(&self) -> bool {
        self.keyboard.a20() || self.port92.a20()
    }
}
