//! `ring3 run`: from options to a running machine.

use crate::cli::{Boot, Cli, Command, FirmwareKind, MachineOptions, RunOptions};
use crate::exit;
use crate::signals::BlockedSignals;
use crate::terminal::RawTerminal;
use anyhow::{Context, Result, bail};
use clap::Parser;
use ring3_guests::cache::Cache;
use ring3_guests::session::ring3_machine;
use ring3_guests::{Image, Refresh, package_file};
use ring3_monitor::board::StopHandle;
use ring3_monitor::config::{
    BootSource, DriveSpec, Interface, LinuxFiles, MachineConfig, SerialSpec,
};
use ring3_monitor::host;
use ring3_monitor::machine::Machine;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Runs what the options name.
pub fn run(options: &RunOptions) -> Result<ExitCode> {
    let boot = boot_source(options)?;
    let mut config = configuration(boot, options.memory, options.debug_exit, &options.machine)?;
    let medium = |path: &PathBuf, interface| DriveSpec::new(path.clone(), interface);
    config.drives = options.disk.clone();
    let discs = options.cdrom.iter().map(|p| medium(p, Interface::CdRom));
    config.drives.extend(discs);
    let diskettes = options.floppy.iter().map(|p| medium(p, Interface::Floppy));
    config.drives.extend(diskettes);
    config.snapshot = options.snapshot;
    config.debug_log = options.debug_log.clone();
    config.control = options.control.clone();
    config.parallel = options.parallel.clone();
    start(config)
}

/// What starts the guest.
fn boot_source(options: &RunOptions) -> Result<BootSource> {
    let kernel = options.kernel.as_ref().map(|kernel| LinuxFiles {
        kernel: kernel.clone(),
        initrd: options.initrd.clone(),
        cmdline: options.append.clone(),
    });
    let own_rom = options.bios.is_some() || options.vgabios.is_some();
    match (options.firmware, kernel) {
        (None | Some(FirmwareKind::None), Some(_)) if own_rom => {
            bail!("--bios and --vgabios need firmware: add --firmware seabios")
        }
        (None | Some(FirmwareKind::None), Some(files)) => Ok(BootSource::Linux(files)),
        (Some(FirmwareKind::None), None) => {
            bail!("--firmware none starts a kernel only: name one with --kernel")
        }
        (None | Some(FirmwareKind::Seabios), kernel) => Ok(BootSource::Firmware {
            bios: firmware(options.bios.as_ref(), "bios-256k.bin")?,
            vgabios: firmware(options.vgabios.as_ref(), "vgabios-stdvga.bin")?,
            first: options.boot.and_then(Boot::device),
            menu: options.boot == Some(Boot::Menu),
            kernel,
        }),
    }
}

/// Boots a guest that has a recipe.
pub fn image(image: &Image, machine: &MachineOptions) -> Result<ExitCode> {
    let words = ring3_machine(Path::new("ring3"), image);
    let words = std::iter::once(words.get_program()).chain(words.get_args());
    let Command::Run(mut options) = Cli::try_parse_from(words)?.command else {
        bail!("the recipe of {} boots by no run", image.name);
    };
    options.machine = machine.clone();
    run(&options)
}

/// A firmware image: the one that the options name, or the one of Debian's package.
fn firmware(named: Option<&PathBuf>, file: &str) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.clone());
    }
    let path = format!("usr/share/seabios/{file}");
    let root = Cache::default_root()?;
    package_file(&root, "seabios", &path, Refresh::IfMissing)
        .context("cannot get the firmware (--bios and --vgabios name your own)")
}

/// A machine without drives.
fn configuration(
    boot: BootSource,
    memory: u64,
    debug_exit: bool,
    options: &MachineOptions,
) -> Result<MachineConfig> {
    Ok(MachineConfig {
        memory,
        boot,
        drives: Vec::new(),
        snapshot: false,
        debug_log: None,
        control: None,
        serial: options.serial.clone(),
        parallel: None,
        engine: options.engine.into(),
        ring3: options.ring3.into(),
        stats: options.stats.map(Into::into),
        no_reboot: options.no_reboot,
        debug_exit,
        stop: Arc::new(StopHandle::new().context("cannot create an event descriptor")?),
    })
}

/// Builds a machine and runs it to its end.
fn start(config: MachineConfig) -> Result<ExitCode> {
    host::check_requirements()?;
    let signals = BlockedSignals::block().context("cannot block signals")?;
    let stop = Arc::clone(&config.stop);
    let interactive = config.serial.contains(&SerialSpec::Stdio);
    let machine = Machine::new(config)?;
    let terminal = if interactive {
        RawTerminal::enter()
    } else {
        None
    };
    if terminal.is_some() && stderr().is_terminal() {
        eprint!("ring3: Ctrl-A h for help, Ctrl-A x to quit\r\n");
    }
    signals
        .watch(stop, terminal.as_ref().map(RawTerminal::restore_handle))
        .context("cannot start the signal thread")?;
    let outcome = machine.run();
    drop(terminal);
    Ok(exit::of(outcome?))
}
