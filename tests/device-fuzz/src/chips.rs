//! The chips without storage, one target each.

use crate::ram::Ram;
use crate::target::{Op, Target, memory_op, port_op, time_op};
use ring3_devices::acpi_pm::{AcpiPm, TimerWidth};
use ring3_devices::bus::{DmaMemory, Nanos, PortDevice, Timed};
use ring3_devices::debug::{DebugConsole, DebugExit, PostPort};
use ring3_devices::dma::DmaPair;
use ring3_devices::fw_cfg::FwCfg;
use ring3_devices::hpet::Hpet;
use ring3_devices::ioapic::IoApic;
use ring3_devices::kbc::{Kbc, Port92};
use ring3_devices::lapic::Lapic;
use ring3_devices::parallel::ParallelPort;
use ring3_devices::pci::{
    Address, ConfigPorts, HostBridge, IsaBridge, PciFunction, PciSlots, PowerManagement,
};
use ring3_devices::pic::PicPair;
use ring3_devices::pit::Pit;
use ring3_devices::rtc::Rtc;
use ring3_devices::smbus::Smbus;
use ring3_devices::uart::Uart;
use ring3_devices::vga::Vga;

macro_rules! target {
    ($name:ident, $text:literal, $chip:ty, { $($property:tt)* }, $apply:expr) => {
        /// The target of that name.
        pub struct $name {
            chip: $chip,
        }
        impl Target for $name {
            fn name(&self) -> &'static str {
                $text
            }
            $($property)*
            fn apply(&mut self, now: Nanos, op: &Op) {
                let apply: fn(&mut $chip, Nanos, &Op) = $apply;
                apply(&mut self.chip, now, op);
            }
        }
        impl From<$chip> for $name {
            fn from(chip: $chip) -> Self {
                Self { chip }
            }
        }
    };
}

/// Every chip of this file after power-on.
#[must_use]
pub fn all() -> Vec<Box<dyn Target>> {
    let mut fw_cfg = FwCfg::new();
    for n in 0..3u8 {
        // A name that is refused would only make the directory shorter.
        let _ = fw_cfg.set_file(
            &format!("etc/file{n}"),
            vec![n; 100 + usize::from(n) * 5000],
        );
    }
    vec![
        Box::new(PicTarget::from(PicPair::new())),
        Box::new(PitTarget::from(Pit::new())),
        Box::new(RtcTarget::from(Rtc::new(1_700_000_000))),
        Box::new(UartTarget::from(Uart::new())),
        Box::new(KbcTarget::from(Kbc::new())),
        Box::new(Port92Target::from(Port92::default())),
        Box::new(PciTarget::from(Pci::default())),
        Box::new(AcpiTarget::from(AcpiPm::new(TimerWidth::Bits24))),
        Box::new(SmbusTarget::from(Smbus::default())),
        Box::new(DmaTarget::from((DmaPair::new(), Ram::new()))),
        Box::new(VgaTarget::from(Vga::new())),
        Box::new(ParallelTarget::from(ParallelPort::default())),
        Box::new(HpetTarget::from(Hpet::new())),
        Box::new(LapicTarget::from(Lapic::new(0))),
        Box::new(IoApicTarget::from(IoApic::new(1))),
        Box::new(FwCfgTarget::from((fw_cfg, Ram::new()))),
        Box::new(DebugTarget::from((
            PostPort::default(),
            DebugConsole::default(),
            DebugExit::default(),
        ))),
    ]
}

target!(
    PicTarget,
    "pic",
    PicPair,
    {
        fn ports(&self) -> u16 {
            8
        }
        fn commands(&self) -> &'static [u8] {
            &[0x11, 0x13, 0x20, 0x0a, 0x0b, 0x0c, 0x68, 0xa0, 0xc7]
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        if let Op::Host(n) = op {
            match n >> 30 {
                0 => _ = chip.acknowledge(),
                1 => _ = (chip.intr(), chip.requested(*n as u8), chip.masked(*n as u8)),
                _ => chip.set_line(*n as u8, n & 0x100 != 0),
            }
        }
    }
);

target!(
    PitTarget,
    "pit",
    Pit,
    {
        fn ports(&self) -> u16 {
            5
        }
        fn commands(&self) -> &'static [u8] {
            &[0x34, 0x36, 0x30, 0xb6, 0x00, 0xd2, 0xe2, 0x1, 0x72]
        }
        fn deadline(&self) -> Option<Nanos> {
            self.chip.next_deadline()
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        time_op(chip, now, op);
        _ = (
            chip.irq(),
            chip.take_edge(),
            chip.backlog(),
            chip.speaker_hertz(),
        );
    }
);

target!(
    RtcTarget,
    "rtc",
    Rtc,
    {
        fn ports(&self) -> u16 {
            4
        }
        fn commands(&self) -> &'static [u8] {
            &[0x0a, 0x0b, 0x0c, 0x00, 0x04, 0x32, 0x26, 0x70, 0xff]
        }
        fn deadline(&self) -> Option<Nanos> {
            self.chip.next_deadline()
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        time_op(chip, now, op);
        _ = chip.irq();
    }
);

target!(
    UartTarget,
    "uart",
    Uart,
    {
        fn ports(&self) -> u16 {
            8
        }
        fn commands(&self) -> &'static [u8] {
            &[0x83, 0x03, 0xc7, 0x10, 0x1f, 0x0f]
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        if let Op::Host(n) = op {
            match n % 4 {
                0 => {
                    chip.push_input(&[*n as u8; 300][..(n >> 8) as usize % 300]);
                }
                1 => chip.take_output(&mut Vec::new()),
                2 => chip.push_break(),
                _ => chip.set_modem_inputs((n >> 8) as u8),
            }
        }
        _ = (chip.irq(), chip.baud());
    }
);

target!(
    KbcTarget,
    "kbc",
    Kbc,
    {
        fn ports(&self) -> u16 {
            5
        }
        fn favourites(&self) -> &'static [u16] {
            &[0, 4]
        }
        fn commands(&self) -> &'static [u8] {
            &[
                0xed, 0xf0, 0xf3, 0xf4, 0xff, 0xd4, 0x60, 0x20, 0xd1, 0xaa, 0xea, 0xe9,
            ]
        }
        fn deadline(&self) -> Option<Nanos> {
            self.chip.next_deadline()
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        time_op(chip, now, op);
        if let Op::Host(n) = op {
            if n & 1 != 0 {
                let key = ring3_devices::kbc::Key::from_set1((n >> 8) as u16 & 0xe07f);
                if let Some(key) = key {
                    chip.key_event(now, key, n & 2 != 0);
                }
            } else {
                let big = |shift: u32| (n << shift) as i32;
                let buttons = ring3_devices::kbc::Buttons::from_bits_truncate(*n as u8);
                chip.mouse_event(now, big(3), big(9), big(17), buttons);
            }
        }
        _ = (
            chip.irq(),
            chip.aux_irq(),
            chip.a20(),
            chip.take_reset_request(),
        );
    }
);

target!(
    Port92Target,
    "port92",
    Port92,
    {
        fn ports(&self) -> u16 {
            1
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        _ = (chip.a20(), chip.take_reset_request());
    }
);

/// The configuration ports with all functions behind them.
#[derive(Default)]
pub struct Pci {
    ports: ConfigPorts,
    slots: Slots,
}

#[derive(Default)]
struct Slots {
    host: HostBridge,
    isa: IsaBridge,
    power: PowerManagement,
    ide: ring3_devices::ide::Ide,
    vga: Vga,
}

impl PciSlots for Slots {
    fn function(&mut self, at: Address) -> Option<&mut dyn PciFunction> {
        match (at.bus, at.device, at.function) {
            (0, 0, 0) => Some(&mut self.host),
            (0, 1, 0) => Some(&mut self.isa),
            (0, 1, 1) => Some(&mut self.ide),
            (0, 1, 3) => Some(&mut self.power),
            (0, 2, 0) => Some(&mut self.vga),
            _ => None,
        }
    }
}

struct PciPorts<'a>(&'a mut Pci);

impl PortDevice for PciPorts<'_> {
    fn read(&mut self, _: Nanos, offset: u16, size: u8) -> u32 {
        self.0.ports.read(offset, size, &mut self.0.slots)
    }
    fn write(&mut self, _: Nanos, offset: u16, size: u8, value: u32) {
        // Addresses of functions that exist come up often.
        let value = if offset == 0 && size == 4 {
            0x8000_0000 | value & 0x13fc
        } else {
            value
        };
        self.0.ports.write(offset, size, value, &mut self.0.slots);
    }
}

target!(
    PciTarget,
    "pci",
    Pci,
    {
        fn ports(&self) -> u16 {
            9
        }
        fn favourites(&self) -> &'static [u16] {
            &[0, 4, 6]
        }
    },
    |chip, now, op| {
        port_op(&mut PciPorts(chip), now, op);
        let s = &mut chip.slots;
        for function in [
            &mut s.host as &mut dyn PciFunction,
            &mut s.isa,
            &mut s.power,
            &mut s.ide,
            &mut s.vga,
        ] {
            for bar in 0..7 {
                let _ = function.config().mapping(bar);
            }
        }
        for n in 0..16 {
            _ = (s.host.pam(n), s.isa.route(n));
        }
        _ = (s.host.smram(), s.isa.asserted([true, false, true, true]));
        _ = (
            s.power.pm_base(),
            s.power.smbus_base(),
            s.vga.framebuffer(),
            chip.ports.take_reset_request(),
        );
    }
);

target!(
    AcpiTarget,
    "acpi_pm",
    AcpiPm,
    {
        fn ports(&self) -> u16 {
            64
        }
        fn deadline(&self) -> Option<Nanos> {
            self.chip.next_deadline()
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        time_op(chip, now, op);
        if let Op::Host(n) = op {
            match n % 4 {
                0 => chip.press_power_button(),
                1 => chip.wake(),
                2 => chip.rtc_asserted(),
                _ => chip.raise_gpe((n >> 8) as u8),
            }
        }
        _ = (chip.irq(), chip.acpi_enabled(), chip.take_sleep_request());
    }
);

target!(
    SmbusTarget,
    "smbus",
    Smbus,
    {
        fn ports(&self) -> u16 {
            16
        }
        fn commands(&self) -> &'static [u8] {
            &[0x40, 0x48, 0x54, 0x41, 0x02, 0x1e]
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        _ = chip.irq();
    }
);

target!(
    DmaTarget,
    "dma",
    (DmaPair, Ram),
    {
        fn ports(&self) -> u16 {
            0x40
        }
        fn bus_master(&self) -> bool {
            true
        }
    },
    |(chip, ram), now, op| {
        port_op(chip, now, op);
        if let Op::Host(n) = op {
            let channel = (n % 8) as usize;
            let mut data = vec![*n as u8; (n >> 8) as usize % 70_000];
            _ = (chip.ready(channel), chip.remaining(channel));
            _ = chip.transfer(channel, &mut data, ram);
        }
    }
);

target!(
    VgaTarget,
    "vga",
    Vga,
    {
        fn ports(&self) -> u16 {
            0x103
        }
        fn favourites(&self) -> &'static [u16] {
            // Attribute, sequencer, graphics, CRTC, DISPI index and data.
            &[
                0x10, 0x14, 0x15, 0x1e, 0x1f, 0x24, 0x25, 0x100, 0x101, 0x102, 0x100, 0x101,
            ]
        }
        fn memory(&self) -> u64 {
            0x2_0000
        }
        fn commands(&self) -> &'static [u8] {
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x41, 0x61, 0xc1, 0x0e, 0x0f]
        }
        fn deadline(&self) -> Option<Nanos> {
            None
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        memory_op(chip, now, op);
        if let Op::Host(n) = op {
            match n % 8 {
                0 => _ = chip.render(),
                1 | 2 => _ = chip.text().map(|t| t.lines()),
                3 => chip.set_text_mode(),
                n if n < 6 => {
                    let mut data = [0; 64];
                    chip.read_vram(u64::from(n << 6), &mut data);
                    chip.read_vram(u64::MAX - u64::from(n), &mut data);
                }
                _ => {
                    chip.write_vram(u64::from(*n), &[1; 64]);
                    chip.write_vram(u64::MAX - 3, &[1; 64]);
                }
            }
        }
    }
);

target!(
    ParallelTarget,
    "parallel",
    ParallelPort,
    {
        fn ports(&self) -> u16 {
            8
        }
    },
    |chip, now, op| {
        port_op(chip, now, op);
        if matches!(op, Op::Host(n) if n % 16 == 0) {
            chip.take_output(&mut Vec::new());
        }
        _ = chip.irq();
    }
);

target!(
    HpetTarget,
    "hpet",
    Hpet,
    {
        fn memory(&self) -> u64 {
            0x400
        }
        fn deadline(&self) -> Option<Nanos> {
            self.chip.next_deadline()
        }
    },
    |chip, now, op| {
        memory_op(chip, now, op);
        time_op(chip, now, op);
        for n in 0..4 {
            _ = (chip.irq(n), chip.take_edge(n), chip.route(n));
        }
        _ = chip.legacy_replacement();
    }
);

target!(
    LapicTarget,
    "lapic",
    Lapic,
    {
        fn memory(&self) -> u64 {
            0x1000
        }
        fn deadline(&self) -> Option<Nanos> {
            self.chip.next_deadline()
        }
    },
    |chip, now, op| {
        memory_op(chip, now, op);
        time_op(chip, now, op);
        if let Op::Host(n) = op {
            match n % 8 {
                0 => _ = chip.acknowledge(),
                2 => chip.set_virtual_wire(),
                3 => _ = chip.set_deadline(now, Some(u64::from(*n) << 20)),
                4 => _ = chip.matches_logical((n >> 8) as u8),
                _ => _ = chip.accept((n >> 8) as u8, n & 0x10000 != 0),
            }
        }
        _ = (
            chip.pending(),
            chip.take_ipi(),
            chip.take_eoi(),
            chip.enabled(),
        );
        _ = (
            chip.accepts_extint(),
            chip.accepts_nmi(),
            chip.requested(3),
            chip.deadline_armed(),
        );
    }
);

target!(
    IoApicTarget,
    "ioapic",
    IoApic,
    {
        fn memory(&self) -> u64 {
            0x100
        }
    },
    |chip, now, op| {
        memory_op(chip, now, op);
        if let Op::Host(n) = op {
            match n % 4 {
                0 => chip.send(|m| m.vector & 1 != 0),
                1 => chip.end_of_interrupt((n >> 8) as u8),
                _ => chip.set_line((n >> 8) as usize % 32, n & 0x10000 != 0),
            }
        }
        for pin in 0..32 {
            let _ = chip.vector(pin);
        }
    }
);

target!(
    FwCfgTarget,
    "fw_cfg",
    (FwCfg, Ram),
    {
        fn ports(&self) -> u16 {
            12
        }
        fn bus_master(&self) -> bool {
            true
        }
    },
    |(chip, ram), now, op| {
        port_op(chip, now, op);
        if let Op::Ram { at, data } = op {
            // A request block of DMA at that address: control, length, target.
            let mut block = vec![0, 0, 0, 0x0a];
            block.extend_from_slice(data);
            _ = ram.write(*at, &block);
        }
        if chip.dma_ready() {
            chip.run_dma(ram);
        }
    }
);

target!(
    DebugTarget,
    "debug",
    (PostPort, DebugConsole, DebugExit),
    {
        fn ports(&self) -> u16 {
            3
        }
    },
    |(post, console, exit), now, op| {
        port_op(post, now, op);
        port_op(console, now, op);
        port_op(exit, now, op);
        if matches!(op, Op::Host(n) if n % 64 == 0) {
            console.take_output(&mut Vec::new());
        }
        _ = (post.code(), exit.take_exit());
    }
);
