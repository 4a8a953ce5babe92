//! The one place that knows where chips are: ports, interrupt lines, PCI ids.
//!
//! The board is an i440FX with a PIIX3 south bridge and the PIIX4's power management, as PC
//! guests know it (Intel 440FX datasheet 290549, PIIX3 290550, PIIX4 290562).

use ring3_devices::{dma, ide, vga};

/// A group of ports that one chip function decodes; the APICs and the HPET, which have none, are one
/// too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Slot {
    /// Nothing answers: all ones.
    None,
    Pic,
    Pit,
    Rtc,
    Uart0,
    Uart1,
    Uart2,
    Uart3,
    Keyboard,
    Port92,
    Post,
    DebugConsole,
    DebugExit,
    PciConfig,
    Apm,
    Pm,
    Vga,
    Ide,
    Dma,
    Floppy,
    FwCfg,
    Parallel,
    Smbus,
    Apics,
}

impl Slot {
    /// Every slot, indexed by its number.
    pub const ALL: [Self; 24] = [
        Self::None,
        Self::Pic,
        Self::Pit,
        Self::Rtc,
        Self::Uart0,
        Self::Uart1,
        Self::Uart2,
        Self::Uart3,
        Self::Keyboard,
        Self::Port92,
        Self::Post,
        Self::DebugConsole,
        Self::DebugExit,
        Self::PciConfig,
        Self::Apm,
        Self::Pm,
        Self::Vga,
        Self::Ide,
        Self::Dma,
        Self::Floppy,
        Self::FwCfg,
        Self::Parallel,
        Self::Smbus,
        Self::Apics,
    ];

    /// Whether the chip behind it looks at the time in a cycle.
    pub const fn looks_at_time(self, write: bool) -> bool {
        match self {
            Self::Pit | Self::Rtc | Self::Keyboard | Self::Pm | Self::Apm | Self::Apics => true,
            // The retrace bits of input status 1.
            Self::Vga => !write,
            _ => false,
        }
    }
}

/// A run of ports: first port, count, who decodes it, the chip's offset of the first one.
pub(super) type PortRun = (u16, u16, Slot, u16);

/// Ports that never move.
pub(super) const FIXED_PORTS: &[PortRun] = &[
    (0x020, 2, Slot::Pic, 0),
    (0x0a0, 2, Slot::Pic, 2),
    (0x4d0, 2, Slot::Pic, 4),
    (0x040, 4, Slot::Pit, 0),
    (0x061, 1, Slot::Pit, 4),
    (0x070, 2, Slot::Rtc, 0),
    (0x060, 1, Slot::Keyboard, 0),
    (0x064, 1, Slot::Keyboard, 4),
    (0x092, 1, Slot::Port92, 0),
    (0x080, 1, Slot::Post, 0),
    (0x0e9, 1, Slot::DebugConsole, 0),
    (0xcf8, 8, Slot::PciConfig, 0),
    (0x0b2, 2, Slot::Apm, 0x40),
    (0x3b0, 0x30, Slot::Vga, 0),
    (0x1ce, 3, Slot::Vga, vga::offset::DISPI),
    (0x1f0, 8, Slot::Ide, ide::offset::PRIMARY),
    (0x3f6, 1, Slot::Ide, ide::offset::PRIMARY_CONTROL),
    (0x170, 8, Slot::Ide, ide::offset::SECONDARY),
    (0x376, 1, Slot::Ide, ide::offset::SECONDARY_CONTROL),
    (0x000, 16, Slot::Dma, dma::offset::FIRST),
    // 80h is the POST port.
    (0x081, 15, Slot::Dma, dma::offset::PAGES + 1),
    (0x0c0, 32, Slot::Dma, dma::offset::SECOND),
    (0x3f0, 6, Slot::Floppy, 0),
    (0x3f7, 1, Slot::Floppy, 7),
    (0x510, 12, Slot::FwCfg, 0),
    (0x378, 3, Slot::Parallel, 0),
    // Where SeaBIOS writes its messages.
    (0x402, 1, Slot::DebugConsole, 0),
];

/// Ports that the guest moves by base addresses: count, who decodes them, first offset.
pub(super) const MOVING_PORTS: [(u16, Slot, u16); 3] = [
    (PM_PORTS, Slot::Pm, 0),
    (16, Slot::Ide, ide::offset::BUS_MASTER),
    (16, Slot::Smbus, 0),
];
/// Index in [`MOVING_PORTS`] of the power-management registers.
pub(super) const MOVING_PM: usize = 0;
/// Index in [`MOVING_PORTS`] of the IDE bus master.
pub(super) const MOVING_BUS_MASTER: usize = 1;
/// Index in [`MOVING_PORTS`] of the SMBus host controller.
pub(super) const MOVING_SMBUS: usize = 2;

/// The debug-exit port.
pub(super) const DEBUG_EXIT_PORTS: PortRun = (0x501, 4, Slot::DebugExit, 0);

/// First port and interrupt line of each serial port.
pub const SERIAL: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];
pub(super) const SERIAL_SLOTS: [Slot; 4] = [Slot::Uart0, Slot::Uart1, Slot::Uart2, Slot::Uart3];

/// Where firmware puts the power-management registers (PMBASE).
pub const PM_BASE: u16 = 0xb000;
/// Where SeaBIOS puts them.
pub const FIRMWARE_PM_BASE: u16 = 0x600;
/// Where firmware puts the SMBus registers.
pub const SMBUS_BASE: u16 = 0xb100;
/// Ports of the power-management registers.
pub(super) const PM_PORTS: u16 = 64;

/// The system timer's line.
pub(super) const IRQ_TIMER: u8 = 0;
/// The keyboard's line.
pub(super) const IRQ_KEYBOARD: u8 = 1;
/// The clock's line.
pub(super) const IRQ_RTC: u8 = 8;
/// The ACPI system control interrupt's line.
pub const IRQ_SCI: u8 = 9;
/// The floppy controller's line.
pub(super) const IRQ_FLOPPY: u8 = 6;
/// The parallel port's line.
pub(super) const IRQ_PARALLEL: u8 = 7;
/// The IDE channels' lines.
pub(super) const IRQ_IDE: [u8; 2] = [14, 15];
/// The mouse's line.
pub(super) const IRQ_MOUSE: u8 = 12;
/// Lines that firmware routes PIRQ A-D to.
pub const PIRQ_LINES: [u8; 4] = [10, 10, 11, 11];

/// Slot of the PIIX on bus 0; function 0 is the ISA bridge, 1 IDE, 3 the power management.
pub const PIIX_SLOT: u8 = 1;
/// Slot of the display adapter on bus 0.
pub const VGA_SLOT: u8 = 2;
/// Where firmware puts the bus master registers of a directly booted kernel.
pub(super) const BUS_MASTER_BASE: u16 = 0xc000;
/// Where firmware puts the linear framebuffer of a directly booted kernel.
pub(super) const FRAMEBUFFER_BASE: u32 = 0xfd00_0000;
/// The VGA window.
pub(super) const VGA_WINDOW: core::ops::Range<u64> = 0xa_0000..0xc_0000;
/// The PCI memory window: from the end of RAM's largest extent to the I/O APIC.
pub const PCI_MEMORY: (u32, u32) = (0xe000_0000, 0xfebf_ffff);

/// Where the local APIC answers after RESET.
pub const LAPIC_BASE: u64 = 0xfee0_0000;
/// Where the I/O APIC answers.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// The I/O APIC's id.
pub const IOAPIC_ID: u8 = 0;
/// Where the HPET answers.
pub const HPET_BASE: u64 = 0xfed0_0000;
/// The I/O APIC input of the system timer's line; lines 1-15 have the inputs of their numbers.
pub const TIMER_PIN: u8 = 2;
/// The I/O APIC input of PIRQ A; B-D follow.
pub const PIRQ_PIN: u8 = 16;

/// The SMI command port.
pub const SMI_COMMAND_PORT: u16 = 0xb2;

/// The reset control register and the value that resets.
pub const RESET_REGISTER: (u16, u8) = (0xcf9, 0x06);

/// The CMOS bytes that describe memory: (index, value). IBM PC/AT Technical Reference; the 16 MiB
/// pair (34h, 35h) is the de-facto extension that SeaBIOS and others read.
pub(super) fn cmos_memory(memory: u64) -> [(usize, u8); 10] {
    let above_1m = ((memory >> 10).saturating_sub(1024)).min(0xfc00) as u16;
    let extended = above_1m.to_le_bytes();
    let above_16m = (memory.saturating_sub(16 << 20) >> 16).min(0xffff) as u16;
    let [lo16, hi16] = above_16m.to_le_bytes();
    // 10h: no floppy; 14h: coprocessor and mouse; 15h, 16h: 640 KiB.
    [
        (0x10, 0x00),
        (0x14, 0x06),
        (0x15, 0x80),
        (0x16, 0x02),
        (0x17, extended[0]),
        (0x18, extended[1]),
        (0x30, extended[0]),
        (0x31, extended[1]),
        (0x34, lo16),
        (0x35, hi16),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_numbered_by_their_place() {
        for (i, slot) in Slot::ALL.iter().enumerate() {
            assert_eq!(*slot as usize, i);
        }
    }

    #[test]
    fn port_runs_do_not_overlap() {
        let mut runs: Vec<(u16, u16)> = FIXED_PORTS.iter().map(|r| (r.0, r.1)).collect();
        runs.push((DEBUG_EXIT_PORTS.0, DEBUG_EXIT_PORTS.1));
        runs.push((PM_BASE, PM_PORTS));
        runs.extend(SERIAL.iter().map(|s| (s.0, 8)));
        runs.sort_unstable();
        for pair in runs.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
    }

    #[test]
    fn cmos_sizes_match_memory() {
        let of = |memory: u64, index| cmos_memory(memory).iter().find(|e| e.0 == index).unwrap().1;
        assert_eq!((of(512 << 20, 0x35), of(512 << 20, 0x34)), (0x1f, 0x00));
        assert_eq!((of(4 << 20, 0x31), of(4 << 20, 0x30)), (0x0c, 0x00));
        assert_eq!((of(512 << 20, 0x18), of(512 << 20, 0x17)), (0xfc, 0x00));
    }
}
