//! Running an image under one of ring3's engines or QEMU's translator.

use anyhow::{Context, Result, bail};
use ring3_monitor::board::StopHandle;
use ring3_monitor::config::{
    BootSource, EngineKind, MachineConfig, Outcome, Ring3Policy, SerialSpec,
};
use ring3_monitor::machine::Machine;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What runs an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// `ring3 --engine bt`.
    Bt,
    /// `ring3 --engine step`.
    Step,
    /// `qemu-system-i386` without KVM.
    Qemu,
    /// `ring3 --engine bt` that makes a mistake on purpose.
    #[cfg(feature = "mutation")]
    Mutant(ring3_translator::mutation::Mutation),
}

impl Runner {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bt => "bt",
            Self::Step => "step",
            Self::Qemu => "qemu",
            #[cfg(feature = "mutation")]
            Self::Mutant(_) => "mutant",
        }
    }
}

/// QEMU's processor: everything, without what ring3's model lacks and rows could meet.
const CPU: &str = "max,-pse36,-apic";
/// Guest memory, bytes.
const MEMORY: u64 = 16 << 20;
/// A run that takes longer is ended; what it said so far counts.
const LIMIT: Duration = Duration::from_secs(30);
/// So is QEMU when it says nothing for so long.
const SILENCE: Duration = Duration::from_secs(5);
/// An option ROM with nothing in it: ring3's firmware boot wants one.
const NO_OPTION_ROM: [u8; 512] = {
    let mut rom = [0; 512];
    rom[0] = 0x55;
    rom[1] = 0xaa;
    rom
};

/// Runs a ROM image and returns what it sent over COM1.
///
/// # Errors
/// If it cannot be run.
pub fn run(runner: Runner, image: &[u8]) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let rom = directory.path().join("rom");
    let serial = directory.path().join("serial");
    std::fs::write(&rom, image).context("cannot write the image")?;
    std::fs::write(&serial, []).context("cannot write the serial output")?;
    match runner {
        Runner::Bt => ring3(EngineKind::Bt, directory.path(), |_| {})?,
        Runner::Step => ring3(EngineKind::Step, directory.path(), |_| {})?,
        #[cfg(feature = "mutation")]
        Runner::Mutant(mistake) => {
            ring3(EngineKind::Bt, directory.path(), |m| m.mutate(mistake))?;
        }
        Runner::Qemu => qemu(&rom, &serial)?,
    }
    std::fs::read(&serial).context("cannot read the serial output")
}

fn ring3(engine: EngineKind, directory: &Path, prepare: impl FnOnce(&mut Machine)) -> Result<()> {
    let vgabios = directory.join("vga");
    std::fs::write(&vgabios, NO_OPTION_ROM).context("cannot write the option ROM")?;
    let stop = Arc::new(StopHandle::new().context("cannot create an event descriptor")?);
    let config = MachineConfig {
        memory: MEMORY,
        boot: BootSource::Firmware {
            bios: directory.join("rom"),
            vgabios,
            first: None,
            menu: false,
            kernel: None,
        },
        drives: Vec::new(),
        snapshot: false,
        debug_log: None,
        control: None,
        serial: vec![SerialSpec::File(directory.join("serial"))],
        parallel: None,
        engine,
        ring3: Ring3Policy::default(),
        stats: None,
        no_reboot: false,
        debug_exit: true,
        stop: Arc::clone(&stop),
    };
    let (done, wait) = channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            stop.request(ring3_monitor::board::StopReason::Quit);
        }
    });
    let outcome = Machine::new(config)
        .map_err(anyhow::Error::from)
        .and_then(|mut m| {
            prepare(&mut m);
            Ok(m.run()?)
        });
    drop(done);
    if watchdog.join().is_err() {
        bail!("the watchdog panicked");
    }
    match outcome? {
        Outcome::DebugExit(_) | Outcome::Quit => Ok(()),
        other => bail!("the machine ended by {other:?}"),
    }
}

fn qemu(rom: &Path, serial: &Path) -> Result<()> {
    let mut child = Command::new("qemu-system-i386")
        .args(["-accel", "tcg", "-machine", "pc", "-cpu", CPU, "-m", "16"])
        .args(["-display", "none", "-nodefaults"])
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"])
        .arg("-bios")
        .arg(rom)
        .arg("-serial")
        .arg(format!("file:{}", serial.display()))
        .args(["-serial", "null"])
        .stdin(Stdio::null())
        // It says so when it aborts; the row it did that in is known.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run qemu-system-i386 (Debian's package qemu-system-x86 has it)")?;
    let (mut heard, mut said) = (Instant::now(), 0);
    loop {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        let now = std::fs::metadata(serial)?.len();
        if now != said {
            (heard, said) = (Instant::now(), now);
        }
        if heard.elapsed() > SILENCE {
            child.kill()?;
            child.wait()?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
