//! The assembled PC: chips, their ports and interrupt lines, and the thread that keeps their time.
//!
//! A [`Board`] lives in a mutex that the processor's thread and the I/O thread share. After every
//! cycle the board looks at the outputs of the chip that it reached, so interrupt lines and deadlines
//! are always current.

mod access;
mod apic;
mod backend;
mod chips;
mod console;
mod dma;
mod font;
mod io_thread;
mod media;
mod outlets;
mod pci;
mod ports;
mod sink;
mod stop;
mod vram;
mod wires;
mod wiring;

pub use media::Medium;

pub use backend::{SerialBackend, SerialError, open_ports};
pub use io_thread::{IoHandle, IoThread, IoWaker, Kick};
pub use outlets::HostPort;
pub use stop::{StopHandle, StopReason};
pub use wiring::{
    FIRMWARE_PM_BASE, HPET_BASE, IOAPIC_BASE, IOAPIC_ID, IRQ_SCI, LAPIC_BASE, PCI_MEMORY,
    PIIX_SLOT, PIRQ_LINES, PIRQ_PIN, PM_BASE, RESET_REGISTER, SERIAL, SMI_COMMAND_PORT, TIMER_PIN,
};

use crate::acpi::{AcpiHardware, ApicHardware};
use crate::clock::VmClock;
use crate::memory::GuestRam;
use chips::Chips;
use outlets::Outlets;
use ports::PortMap;
use ring3_devices::acpi_pm::{ACPI_DISABLE, ACPI_ENABLE};
use ring3_devices::ide::BUS_MASTER_BAR;
use ring3_devices::pci::{MemoryAttribute, PAM_REGIONS, PciFunction};
use ring3_devices::rtc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vram::Vram;
use wiring::{MOVING_BUS_MASTER, MOVING_PM, MOVING_SMBUS, Slot};

/// What a board is built with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardConfig {
    /// Bytes of RAM, for the CMOS and chipset registers that report it.
    pub memory: u64,
    /// Serial ports, 1-4 (COM1 first).
    pub serial_ports: usize,
    /// Provide the debug-exit port 0x501.
    pub debug_exit: bool,
    /// Firmware sets the board up: it starts as after RESET.
    pub firmware: bool,
    /// CMOS bytes for firmware: (index, value).
    pub cmos: Vec<(u8, u8)>,
}

/// What the guest asks of the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineRequest {
    /// Soft off.
    PowerOff,
    /// A hard reset of processor and board.
    Reset,
    /// End with this process status, from the debug-exit port.
    DebugExit(u8),
    /// Look at the orders of the control socket.
    Orders,
    /// End the run: the user or a signal asks.
    Stop(StopReason),
}

/// The PC around the processor.
#[derive(Debug)]
pub struct Board {
    config: BoardConfig,
    clock: Arc<VmClock>,
    ports: PortMap,
    chips: Chips,
    outlets: Outlets,
    request: Option<MachineRequest>,
    /// Cached: the processor's INTR input.
    intr: Arc<AtomicBool>,
    /// Guest memory, for bus masters.
    ram: Option<Arc<GuestRam>>,
    /// What the processor must hear of.
    effects: Effects,
    /// When the debug console's output is due at the host.
    debug_due: Option<u64>,
    /// Where video memory was last seen.
    video: Option<u64>,
    /// Changes of the picture that were told of.
    picture: u64,
}

/// What chips did that the processor's caches must follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The routing of the legacy area, if it changed.
    pub routing: Option<[MemoryAttribute; PAM_REGIONS.len()]>,
    /// Pages with translations that bus masters wrote to, by physical address.
    pub written: Vec<u64>,
    /// Video memory has another place, or none.
    pub video: Option<Option<u64>>,
    /// The display adapter wrote to pages of video memory that have translations.
    pub video_code_written: bool,
    /// A non-maskable interrupt.
    pub nmi: bool,
}

impl Board {
    /// A board after power-on, as firmware leaves it for a directly booted kernel: interrupt
    /// routing and power-management ports are set up.
    #[must_use]
    pub fn new(config: BoardConfig, clock: Arc<VmClock>) -> Self {
        let serial_ports = config.serial_ports.clamp(1, SERIAL.len());
        let chips = Chips::new(&config, &clock);
        let mut board = Self {
            ports: PortMap::new(serial_ports, config.debug_exit),
            chips,
            outlets: Outlets::default(),
            request: None,
            intr: Arc::new(AtomicBool::new(false)),
            ram: None,
            effects: Effects::default(),
            debug_due: None,
            video: None,
            picture: 0,
            config,
            clock,
        };
        board.after_access();
        board
    }

    /// Puts every chip into its power-on state. Serial data on its way to or from the host and
    /// the shared INTR flag survive.
    pub fn reset(&mut self) {
        let outputs: Vec<Vec<u8>> = self
            .chips
            .uarts
            .iter_mut()
            .map(|uart| {
                let mut output = Vec::new();
                uart.take_output(&mut output);
                output
            })
            .collect();
        let old = std::mem::replace(&mut self.chips, Chips::new(&self.config, &self.clock));
        self.chips.adopt(old);
        self.effects = Effects::default();
        self.connect_video();
        for (port, output) in self.outlets.serial.iter_mut().zip(outputs) {
            port.keep(output);
        }
        self.request = None;
        self.after_access();
    }

    /// The processor's INTR input, or a pending interrupt of its local APIC.
    #[must_use]
    pub fn interrupt_pending(&self) -> bool {
        self.chips.apic.pending() || self.chips.pic.intr() && self.chips.apic.accepts_extint()
    }

    /// INTR as a flag that can be read without the board's lock. It is set and cleared under the
    /// lock, so a reader without it may see a change late, never wrongly for long.
    #[must_use]
    pub fn interrupt_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.intr)
    }

    /// The processor's interrupt acknowledge cycle: the vector of the highest request.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = if self.chips.apic.pending() {
            self.chips.apic.local.acknowledge()
        } else {
            self.chips.pic.acknowledge()
        };
        self.carry();
        vector
    }

    /// The processor wrote IA32_APIC_BASE.
    pub fn set_apic_base(&mut self, value: u64) {
        self.chips.apic.set_base(value);
        self.after_change(Slot::Apics);
    }

    /// The processor wrote IA32_TSC_DEADLINE: its counter gets there at VM-clock time `due`, in
    /// ns; `None` disarms. False if the timer of the local APIC is in another mode.
    pub fn set_tsc_deadline(&mut self, due: Option<u64>) -> bool {
        let taken = self.chips.apic.set_deadline(self.clock.now_ns(), due);
        self.after_change(Slot::Apics);
        taken
    }

    /// Whether the local APIC's timer waits for a deadline.
    #[must_use]
    pub fn tsc_deadline_armed(&self) -> bool {
        self.chips.apic.local.deadline_armed()
    }

    /// An NMI from outside, as a front panel's button makes it.
    pub fn raise_nmi(&mut self) {
        self.chips.apic.raise_nmi();
        self.after_change(Slot::Apics);
    }

    /// VM-clock time of the earliest deadline, in ns.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let output = self.output_deadline();
        self.chips.next_deadline().into_iter().chain(output).min()
    }

    /// Brings every timer to the clock's time.
    pub fn run_timers(&mut self) {
        let now = self.clock.now_ns();
        self.chips.advance(now);
        self.after_access();
    }

    /// What the guest asked of the machine, once.
    pub fn take_request(&mut self) -> Option<MachineRequest> {
        self.request.take()
    }

    /// True while a request waits.
    #[must_use]
    pub fn request_pending(&self) -> bool {
        self.request.is_some()
    }

    /// True while an effect waits.
    #[must_use]
    pub fn effects_pending(&self) -> bool {
        self.effects.routing.is_some()
            || !self.effects.written.is_empty()
            || self.effects.video.is_some()
            || self.effects.video_code_written
            || self.effects.nmi
    }

    /// What the processor's caches must follow, once.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Gives bus masters and the display adapter their memory.
    pub fn connect_memory(&mut self, ram: Arc<GuestRam>) {
        self.ram = Some(ram);
        self.connect_video();
    }

    /// Puts the display adapter's memory into the guest's.
    fn connect_video(&mut self) {
        let Some(ram) = &self.ram else { return };
        let vga = &mut self.chips.pci.functions.vga;
        if ram.video_size() > 0 {
            vga.set_memory(Box::new(Vram::new(Arc::clone(ram))));
        }
        if !self.config.firmware {
            vga.set_text_mode();
            vga.load_font(font::shape);
        }
        self.video = vga.framebuffer();
        self.effects.video = None;
        ram.place_video(self.video);
    }

    /// Asks for the end of the run. A power-off or debug exit that the guest asked for first is
    /// kept; a reset is not.
    pub fn request_stop(&mut self, reason: StopReason) {
        if matches!(
            self.request,
            None | Some(MachineRequest::Reset | MachineRequest::Orders)
        ) {
            self.request = Some(MachineRequest::Stop(reason));
        }
    }

    /// Asks the machine's thread to look at its orders, unless it is asked for more already.
    pub fn request_orders(&mut self) {
        self.request.get_or_insert(MachineRequest::Orders);
    }

    /// The reset button.
    pub fn request_reset(&mut self) {
        if matches!(self.request, None | Some(MachineRequest::Orders)) {
            self.request = Some(MachineRequest::Reset);
        }
    }

    /// The A20 gate: false forces address bit 20 to zero.
    #[must_use]
    pub fn a20(&self) -> bool {
        self.chips.a20()
    }

    /// The board's clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<VmClock> {
        &self.clock
    }

    /// What the ACPI tables of a directly booted guest say about this board.
    #[must_use]
    pub fn acpi_hardware(&self) -> AcpiHardware {
        AcpiHardware {
            pm_base: if self.config.firmware {
                FIRMWARE_PM_BASE
            } else {
                PM_BASE
            },
            sci_irq: IRQ_SCI,
            smi_command: Some((SMI_COMMAND_PORT, ACPI_ENABLE, ACPI_DISABLE)),
            reset: RESET_REGISTER,
            isa_bridge_slot: PIIX_SLOT,
            pirq_irqs: PIRQ_LINES,
            pci_memory: PCI_MEMORY,
            serial_ports: SERIAL[..self.chips.uarts.len()].to_vec(),
            century: rtc::CENTURY,
            apic: ApicHardware {
                local: LAPIC_BASE as u32,
                io: IOAPIC_BASE as u32,
                io_id: IOAPIC_ID,
                timer_pin: TIMER_PIN,
                pirq_pins: std::array::from_fn(|i| PIRQ_PIN + i as u8),
            },
            hpet: HPET_BASE as u32,
        }
    }

    /// Tells who follows video memory what the display adapter did to it and to the picture.
    fn after_video(&mut self) {
        let Some(ram) = &self.ram else { return };
        self.effects.video_code_written |= ram.take_video_code_written();
        let changes = self.chips.pci.functions.vga.changes();
        if changes != self.picture {
            self.picture = changes;
            ram.video_signal().raise();
        }
    }

    /// Follows what the guest's configuration says of where chips and memory answer.
    fn follow_configuration(&mut self) {
        let functions = &mut self.chips.pci.functions;
        self.ports.set_moving(MOVING_PM, functions.pm.pm_base());
        self.ports
            .set_moving(MOVING_SMBUS, functions.pm.smbus_base());
        let bus_master = functions.ide.config().mapping(BUS_MASTER_BAR);
        let bus_master = bus_master.and_then(|(base, _)| u16::try_from(base).ok());
        self.ports.set_moving(MOVING_BUS_MASTER, bus_master);
        if functions.host.take_memory_map_changed() {
            self.effects.routing = Some(std::array::from_fn(|i| functions.host.pam(i)));
        }
        let video = functions.vga.framebuffer();
        if video != self.video {
            self.video = video;
            self.effects.video = Some(video);
        }
    }

    /// Takes what the guest asked of the machine through a chip.
    fn take_requests(&mut self) {
        if let Some(request) = self.chips.take_request() {
            self.request.get_or_insert(request);
        }
    }

    /// Follows a change of any number of chips.
    fn after_access(&mut self) {
        self.follow_configuration();
        self.after_video();
        self.take_requests();
        self.chips.look_at_all();
        self.carry();
    }

    /// Follows a change of the chip behind `slot`.
    fn after_change(&mut self, slot: Slot) {
        if self.chips.look(slot) {
            self.carry();
        }
        debug_assert!(self.is_current(), "{slot:?}");
    }

    /// Carries interrupts to the processor.
    fn carry(&mut self) {
        self.chips.carry();
        let signals = self.chips.apic.take_signals();
        self.effects.nmi |= signals.nmi;
        if signals.init {
            // The processor's INIT resets the board as well, like its other resets.
            self.request.get_or_insert(MachineRequest::Reset);
        }
        self.intr.store(self.interrupt_pending(), Ordering::Release);
    }

    /// Whether a look at everything would find nothing new.
    fn is_current(&self) -> bool {
        let functions = &self.chips.pci.functions;
        self.chips.is_current()
            && self.video == functions.vga.framebuffer()
            && self.intr.load(Ordering::Relaxed) == self.interrupt_pending()
    }
}

#[cfg(test)]
mod apic_tests;
#[cfg(test)]
mod setup_tests;
#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
#[cfg(test)]
mod wires_tests;
