//! `ring3 run`: from options to a running machine.

use crate::cli::{MachineOptions, RunOptions};
use crate::exit;
use crate::signals::BlockedSignals;
use crate::terminal::RawTerminal;
use anyhow::{Context, Result};
use ring3_monitor::board::StopHandle;
use ring3_monitor::config::{BootSource, MachineConfig, SerialSpec};
use ring3_monitor::host;
use ring3_monitor::machine::Machine;
use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::sync::Arc;

/// Runs the kernel that the options name.
pub fn run(options: &RunOptions) -> Result<ExitCode> {
    let boot = BootSource::Linux {
        kernel: options.kernel.clone(),
        initrd: options.initrd.clone(),
        cmdline: options.append.clone(),
    };
    start(boot, options.memory, options.debug_exit, &options.machine)
}

/// Builds a machine and runs it to its end.
pub fn start(
    boot: BootSource,
    memory: u64,
    debug_exit: bool,
    options: &MachineOptions,
) -> Result<ExitCode> {
    host::check_requirements()?;
    let signals = BlockedSignals::block().context("cannot block signals")?;
    let stop = Arc::new(StopHandle::new().context("cannot create an event descriptor")?);
    let config = MachineConfig {
        memory,
        boot,
        serial: options.serial.clone(),
        engine: options.engine.into(),
        ring3: options.ring3.into(),
        stats: options.stats.map(Into::into),
        no_reboot: options.no_reboot,
        debug_exit,
        stop: Arc::clone(&stop),
    };
    let interactive = config.serial == SerialSpec::Stdio;
    let machine = Machine::new(config)?;
    let terminal = if interactive { RawTerminal::enter() } else { None };
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
