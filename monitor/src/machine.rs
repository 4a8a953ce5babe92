//! The assembled machine: memory, board, processor, boot source.

use crate::acpi;
use crate::board::{
    Board, BoardConfig, HostPort, IoHandle, IoThread, MachineRequest, SerialBackend, SerialError,
    StopReason, open_ports,
};
use crate::clock::VmClock;
use crate::config::{
    BootSource, EngineKind, MachineConfig, Outcome, Ring3Policy, SERIAL_PORTS, StatsFormat,
};
use crate::control::{ControlError, ControlServer, Order, Orders, Remote, Screen};
use crate::cpu::cpuid::CpuModel;
use crate::drives::{self, DriveError};
use crate::executor::{host_support, sysenter_traps};
use crate::firmware::smbios::Smbios;
use crate::firmware::{self, Firmware, FirmwareError, Wishes, mp_table};
use crate::linux::{self, BootError, BootImages, RealModeKernel};
use crate::memory::GuestRam;
use crate::notice::{notice, print};
use crate::stats::Report;
use crate::vcpu::{Vcpu, VcpuExit};
use ring3_devices::vga::VRAM_SIZE;
use ring3_translator::addr::PAGE_SIZE;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a machine could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Kernel, initrd or command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// A drive or its image.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The file for firmware's messages.
    #[error("cannot write firmware's messages to {}", path.display())]
    DebugLog {
        /// The file.
        path: std::path::PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A serial or parallel port.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// The host refused something.
    #[error("the host refused {what}: {source}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A defect of ring3.
    #[error("internal error of ring3, please report it: {0}")]
    Internal(String),
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |source| MachineError::Host { what, source }
}

/// Where the SMBIOS and MP tables of a machine without firmware lie: where guests search.
const SMBIOS_AT: u32 = 0xf_0000;
const MP_AT: u32 = 0xf_2000;

/// What is put into memory at power-on.
enum Start {
    /// A kernel and the tables that firmware would have made.
    Linux {
        images: BootImages,
        acpi: acpi::AcpiImage,
        /// SMBIOS and MP tables, by physical address.
        tables: Vec<(u32, Vec<u8>)>,
    },
    /// Firmware's ROM is in its place.
    Firmware,
}

/// A machine, ready to run.
pub struct Machine {
    config: MachineConfig,
    ram: Arc<GuestRam>,
    board: Arc<Mutex<Board>>,
    clock: Arc<VmClock>,
    vcpu: Vcpu,
    start: Start,
    debug_log: Option<std::fs::File>,
    control: Option<ControlServer>,
    orders: Arc<Orders>,
    paused: bool,
    ports: Vec<(HostPort, SerialBackend)>,
}

impl Machine {
    /// Builds the machine and loads the guest.
    /// # Errors
    /// [`MachineError`] with one sentence that names the file or option.
    pub fn new(config: MachineConfig) -> Result<Self, MachineError> {
        let clock = Arc::new(VmClock::new());
        let mut board_config = BoardConfig {
            memory: config.memory,
            serial_ports: SERIAL_PORTS,
            debug_exit: config.debug_exit,
            ..BoardConfig::default()
        };
        let first = match &config.boot {
            BootSource::Firmware { first, .. } => {
                board_config.firmware = true;
                *first
            }
            BootSource::Linux(_) => None,
        };
        let mut board = Board::new(board_config, Arc::clone(&clock));
        let drives = drives::attach(&mut board, &config.drives, config.snapshot)?;
        board.set_cmos(firmware::cmos(first, board.floppy_kinds()));
        let mut model = CpuModel::host_default().with_apic(true);
        let direct = config.engine == EngineKind::Bt && config.ring3 != Ring3Policy::Translate;
        if direct && host_support().is_ok() && !sysenter_traps() {
            model = model.without_sysenter();
        }
        let mhz = u16::try_from(clock.tsc_hz() / 1_000_000).unwrap_or(u16::MAX);
        let smbios = Smbios::new(config.memory, mhz, model.identity());
        let mut rom = None;
        let start = match &config.boot {
            BootSource::Linux(files) => {
                let acpi = acpi::build(&board.acpi_hardware());
                let images = files.read(u64::from(acpi.rsdp), config.memory)?;
                images.check(config.memory)?;
                let mp = mp_table::build(&board.acpi_hardware(), model.identity(), MP_AT);
                Start::Linux {
                    images,
                    acpi,
                    tables: vec![(SMBIOS_AT, smbios.placed(SMBIOS_AT)), (MP_AT, mp)],
                }
            }
            BootSource::Firmware {
                bios,
                vgabios,
                menu,
                first,
                kernel,
            } => {
                let firmware = Firmware::read(bios, vgabios)?;
                let kernel = kernel
                    .as_ref()
                    .map(|files| RealModeKernel::new(&files.read(0, config.memory)?, config.memory))
                    .transpose()?;
                let wishes = Wishes {
                    memory: config.memory,
                    first: *first,
                    menu: *menu,
                    drives,
                    kernel,
                    smbios: Some(smbios),
                };
                board.set_fw_cfg(firmware.configuration(&board.acpi_hardware(), &wishes)?);
                rom = Some(firmware.bios);
                Start::Firmware
            }
        };
        let debug_log = match &config.debug_log {
            None => None,
            Some(path) => {
                Some(
                    std::fs::File::create(path).map_err(|source| MachineError::DebugLog {
                        path: path.clone(),
                        source,
                    })?,
                )
            }
        };
        let ram = Arc::new(
            GuestRam::with_video(config.memory, VRAM_SIZE as u64).map_err(host("guest memory"))?,
        );
        if let Some(rom) = rom {
            ram.set_rom(rom);
        }
        board.connect_memory(Arc::clone(&ram));
        let board = Arc::new(Mutex::new(board));
        let vcpu = Vcpu::new(
            Arc::clone(&ram),
            Arc::clone(&board),
            Arc::clone(&clock),
            model,
            config.engine,
        )
        .map_err(host("address space for the processor"))?;
        let control = config
            .control
            .as_deref()
            .map(ControlServer::bind)
            .transpose()?;
        let ports = open_ports(&config.serial, config.parallel.as_deref())?;
        let mut machine = Self {
            config,
            ram,
            board,
            clock,
            vcpu,
            start,
            debug_log,
            control,
            orders: Arc::default(),
            paused: false,
            ports,
        };
        machine.load()?;
        Ok(machine)
    }

    /// Puts the guest's images into memory and the processor into its entry state.
    fn load(&mut self) -> Result<(), MachineError> {
        match &self.start {
            Start::Linux {
                images,
                acpi,
                tables,
            } => {
                for (at, table) in tables {
                    self.ram.write_unwatched((*at).into(), table);
                }
                acpi.write_to(&*self.ram)
                    .map_err(|e| MachineError::Internal(e.to_string()))?;
                let entry = linux::boot(&*self.ram, images)?;
                linux::apply(self.vcpu.state_mut(), &entry);
            }
            Start::Firmware => self.ram.reset_routing(),
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), MachineError> {
        self.board
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reset();
        self.vcpu.reset();
        // Firmware expects what RAM holds to survive a reset; a kernel expects firmware's zeros.
        if matches!(self.start, Start::Linux { .. }) {
            let zeros = vec![0u8; PAGE_SIZE as usize * 256];
            let mut at = 0;
            while at < self.ram.size() {
                self.ram.write_unwatched(at, &zeros);
                at += zeros.len() as u64;
            }
        }
        self.ram.clear_all_attributes();
        self.load()
    }

    /// Makes the processor make a mistake on purpose from now on.
    #[cfg(feature = "mutation")]
    pub fn mutate(&mut self, mutation: ring3_translator::mutation::Mutation) {
        self.vcpu.mutate(mutation);
    }

    /// Runs the guest to its end on this thread.
    /// # Errors
    /// [`MachineError::Internal`] for a defect of ring3, or when the host refuses a thread;
    /// [`MachineError::Serial`] if output could not be written, whatever the guest came to.
    pub fn run(mut self) -> Result<Outcome, MachineError> {
        let registration = self.vcpu.attach_thread().map_err(host("signal handlers"))?;
        if self.config.engine == EngineKind::Bt {
            let (_, core) = self.vcpu.parts_mut();
            if let Err(why) = core.direct.start(self.config.ring3, &self.ram) {
                notice(&format!("{why}; ring 3 stays translated"));
            }
        }
        let ports = std::mem::take(&mut self.ports);
        let log = self.debug_log.take();
        let io = IoThread::spawn(
            Arc::clone(&self.board),
            self.vcpu.kicker(),
            ports,
            Arc::clone(&self.config.stop),
            log,
        )
        .map_err(host("an I/O thread"))?;
        let io: Arc<IoHandle> = Arc::new(io);
        self.vcpu.set_io(Some(Arc::clone(&io)));
        let control = self.control.take();
        if let Some(server) = &control {
            let remote = Remote {
                board: Arc::clone(&self.board),
                kick: self.vcpu.kicker(),
                io: io.waker(),
                orders: Arc::clone(&self.orders),
                stop: Arc::clone(&self.config.stop),
                snapshot: self.config.snapshot,
                screen: Arc::new(Screen::new(Arc::clone(&self.ram))),
                keyboard: Arc::default(),
            };
            server
                .serve(remote)
                .map_err(host("a thread for the control socket"))?;
        }
        let outcome = self.run_to_outcome();
        let (_, core) = self.vcpu.parts_mut();
        core.direct.stop(&mut core.mmu);
        drop(control);
        self.vcpu.set_io(None);
        let written = Arc::into_inner(io).map_or(Ok(()), IoHandle::finish);
        drop(registration);
        if let Some(format) = self.config.stats {
            let report = Report::collect(&self.vcpu, &self.clock);
            match format {
                StatsFormat::Table => print(&report.to_string()),
                StatsFormat::Json => print(&format!("{}\n", report.json())),
            }
        }
        let outcome = outcome?;
        written?;
        Ok(outcome)
    }

    fn run_to_outcome(&mut self) -> Result<Outcome, MachineError> {
        loop {
            let exit = if self.paused {
                self.wait_paused()
            } else {
                self.vcpu.run(None)
            };
            match exit {
                VcpuExit::Request(MachineRequest::Orders) => self.obey(),
                VcpuExit::Request(MachineRequest::PowerOff) => return Ok(Outcome::PowerOff),
                VcpuExit::Request(MachineRequest::DebugExit(v)) => {
                    return Ok(Outcome::DebugExit(v));
                }
                VcpuExit::Request(MachineRequest::Stop(StopReason::Quit)) => {
                    return Ok(Outcome::Quit);
                }
                VcpuExit::Request(MachineRequest::Stop(StopReason::Signal(n))) => {
                    return Ok(Outcome::Signal(n));
                }
                VcpuExit::Request(MachineRequest::Reset) if self.config.no_reboot => {
                    return Ok(Outcome::Reset);
                }
                VcpuExit::Shutdown if self.config.no_reboot => return Ok(Outcome::TripleFault),
                VcpuExit::Request(MachineRequest::Reset) | VcpuExit::Shutdown => self.restart()?,
                VcpuExit::Reached | VcpuExit::Event(_) => {}
                VcpuExit::Internal(text) => return Err(MachineError::Internal(text)),
            }
        }
    }

    /// A paused machine: only requests count.
    fn wait_paused(&self) -> VcpuExit {
        loop {
            let request = self
                .board
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take_request();
            if let Some(request) = request {
                return VcpuExit::Request(request);
            }
            self.orders.wait();
        }
    }

    /// Carries out what the control socket ordered.
    fn obey(&mut self) {
        while let Some(order) = self.orders.take() {
            match order {
                // A peer that waits no more gets no answer.
                Order::Pause(to) => {
                    self.clock.pause();
                    self.paused = true;
                    let _ = to.try_send(());
                }
                Order::Resume(to) => {
                    self.clock.resume();
                    self.paused = false;
                    if let Some(io) = &self.vcpu.core().io {
                        io.wake();
                    }
                    let _ = to.try_send(());
                }
                Order::Harvest(to) => {
                    let (st, core) = self.vcpu.parts_mut();
                    let _ = to.try_send(core.mmu.harvest_video(st));
                }
                Order::Stats(to) => {
                    let _ = to.try_send(Report::collect(&self.vcpu, &self.clock).json());
                }
            }
        }
    }
}
