//! The command line.

use crate::exit;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use regex::Regex;
use ring3_monitor::config::{
    BootDevice, DriveSpec, EngineKind, Ring3Policy, SerialSpec, StatsFormat, parse_drive,
    parse_memory_size, parse_parallel, parse_serial,
};
use std::path::PathBuf;
use std::time::Duration;

/// A binary-translating x86 virtual machine monitor.
#[derive(Debug, Parser)]
#[command(name = "ring3", version, arg_required_else_help = true, after_help = exit::HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a kernel, or what firmware finds on the drives.
    Run(Box<RunOptions>),
    /// Work with the guests that have recipes.
    #[command(subcommand)]
    Guests(GuestsCommand),
    /// See and drive a machine that was started with --control.
    Ctl(CtlOptions),
    /// Show what this machine offers to ring3.
    Host,
}

#[derive(Debug, Args)]
pub struct CtlOptions {
    /// The control socket.
    pub socket: PathBuf,
    #[command(subcommand)]
    pub command: CtlCommand,
}

#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Print the text-mode screen.
    ScreenText,
    /// Write the screen to a PNG file.
    Screenshot {
        /// The file to write.
        file: PathBuf,
    },
    /// Press keys, one chord after the other.
    Sendkey {
        /// Chords such as a, f1, ctrl-alt-delete.
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Type text on a US keyboard.
    Type {
        /// The text; \n, \t, \e and \\ stand for Enter, Tab, Escape and a backslash.
        #[arg(allow_hyphen_values = true)]
        text: String,
    },
    /// Move the mouse and its wheel, and press or release its buttons.
    #[command(allow_negative_numbers = true)]
    Mouse {
        /// Steps to the right.
        dx: i32,
        /// Steps down.
        dy: i32,
        /// Buttons held after it: the sum of 1 (left), 2 (right) and 4 (middle).
        #[arg(default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=7))]
        buttons: u8,
        /// Clicks of the wheel towards the user.
        #[arg(long, default_value_t = 0)]
        wheel: i32,
    },
    /// Wait until the text-mode screen matches a regular expression, and print it.
    WaitText {
        /// The expression, in the syntax of Rust's regex crate.
        #[arg(allow_hyphen_values = true, value_parser = parse_regex)]
        regex: Regex,
        /// How long to wait.
        #[arg(long, value_name = "SECONDS", default_value = "60", allow_negative_numbers = true,
              value_parser = parse_seconds)]
        timeout: Duration,
    },
    /// Exchange the disc in the first CD-ROM drive.
    Cdrom {
        /// The image, or "eject" to take the disc out.
        image: PathBuf,
    },
    /// Exchange the diskette in the first floppy drive.
    Floppy {
        /// The image, or "eject" to take the diskette out.
        image: PathBuf,
    },
    /// Stop the machine and its clock.
    Pause,
    /// Let it go on.
    Resume,
    /// Press the reset button.
    Reset,
    /// Press the ACPI power button.
    Powerdown,
    /// Print the counters as JSON.
    Stats,
    /// End the run.
    Quit,
}

/// How a machine runs, whatever it boots.
#[derive(Clone, Debug, Args)]
pub struct MachineOptions {
    /// Where a serial port goes: stdio, none, file:PATH, or unix:PATH (a socket to listen on). The
    /// first is COM1; up to four can be given.
    #[arg(long, value_name = "WHERE", default_value = "stdio", value_parser = parse_serial)]
    pub serial: Vec<SerialSpec>,
    /// How guest code runs.
    #[arg(long, value_enum, default_value_t = Engine::Bt)]
    pub engine: Engine,
    /// How ring 3 runs under the bt engine.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Ring3::Auto)]
    pub ring3: Ring3,
    /// Print counters at the end, to standard error.
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "table")]
    pub stats: Option<Stats>,
    /// End the run where the guest would restart.
    #[arg(long)]
    pub no_reboot: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = exit::HELP)]
// Something to boot, or a socket by which it can be inserted.
#[command(group(ArgGroup::new("source").required(true).multiple(true)
    .args(["kernel", "disk", "cdrom", "floppy", "bios", "control"])))]
pub struct RunOptions {
    /// Boot this Linux kernel, a bzImage; without firmware unless --firmware asks for it.
    #[arg(long, value_name = "BZIMAGE")]
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "console=ttyS0",
        allow_hyphen_values = true
    )]
    pub append: String,
    /// What starts the machine: seabios, or none (a kernel by its 32-bit entry). By default none
    /// with --kernel, seabios without.
    #[arg(long, value_enum, value_name = "WHICH")]
    pub firmware: Option<FirmwareKind>,
    /// A drive with an image: FILE[,format=raw|qcow2][,if=ide|floppy|cdrom][,ro][,backing].
    #[arg(long, value_name = "IMAGE", value_parser = parse_drive)]
    pub disk: Vec<DriveSpec>,
    /// A disc in a CD-ROM drive.
    #[arg(long, value_name = "FILE")]
    pub cdrom: Vec<PathBuf>,
    /// A diskette in a floppy drive.
    #[arg(long, value_name = "FILE")]
    pub floppy: Vec<PathBuf>,
    /// What firmware tries first: a (floppy), c (disk), d (CD-ROM), or menu.
    #[arg(long, value_enum, value_name = "DEVICE", conflicts_with = "kernel")]
    pub boot: Option<Boot>,
    /// Drop what the guest writes to its images at the end.
    #[arg(long)]
    pub snapshot: bool,
    /// Firmware instead of SeaBIOS from Debian's package.
    #[arg(long, value_name = "FILE")]
    pub bios: Option<PathBuf>,
    /// The display adapter's BIOS instead of the one from Debian's package.
    #[arg(long, value_name = "FILE")]
    pub vgabios: Option<PathBuf>,
    /// Write firmware's messages to a file.
    #[arg(long, value_name = "FILE")]
    pub debug_log: Option<PathBuf>,
    /// Listen for `ring3 ctl`: unix:PATH.
    #[arg(long, value_name = "unix:PATH", value_parser = parse_control)]
    pub control: Option<PathBuf>,
    /// Print what the guest sends to its parallel port: file:PATH.
    #[arg(long, value_name = "file:PATH", value_parser = parse_parallel)]
    pub parallel: Option<PathBuf>,
    /// Guest memory: a whole number with K, M or G, 4M to 3584M.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_memory_size)]
    pub memory: u64,
    /// Provide the debug-exit port 0x501.
    #[arg(long)]
    pub debug_exit: bool,
    #[command(flatten)]
    pub machine: MachineOptions,
}

/// A regular expression; the error is one line.
fn parse_regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|e| {
        let text = e.to_string();
        let last = text.lines().last().unwrap_or_default();
        let why = last.strip_prefix("error: ").unwrap_or(last);
        format!("it is not a regular expression: {why}")
    })
}

/// A number of seconds, perhaps with a fraction.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    seconds
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| "it is not a number of seconds, such as 60 or 0.5".into())
}

/// The value of `--control`.
fn parse_control(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(format!("'{text}' is no control socket: use unix:PATH")),
    }
}

/// What starts the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FirmwareKind {
    /// Nothing: the monitor does what firmware would.
    None,
    /// SeaBIOS, or what --bios names.
    Seabios,
}

/// What firmware tries first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Boot {
    /// The first floppy drive.
    A,
    /// The first hard disk.
    C,
    /// The first CD-ROM drive.
    D,
    /// Offer a menu for 2.5 seconds: Esc opens it
    Menu,
}

impl Boot {
    /// The device, if it is one.
    pub fn device(self) -> Option<BootDevice> {
        match self {
            Self::A => Some(BootDevice::Floppy),
            Self::C => Some(BootDevice::Disk),
            Self::D => Some(BootDevice::CdRom),
            Self::Menu => None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum GuestsCommand {
    /// List the guests.
    List,
    /// Fetch or build what a guest needs, and check it.
    Fetch {
        /// NAME or NAME/FLAVOUR.
        name: String,
        /// Look for newer packages even if everything is there.
        #[arg(long)]
        refresh: bool,
    },
    /// Boot guests, drive them by their recipes, and print a table of the results; or boot one on
    /// this terminal.
    #[command(after_help = exit::GUESTS_HELP)]
    Run(Box<GuestsRunOptions>),
}

#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("guests").required(true).args(["names", "all", "quick"])))]
pub struct GuestsRunOptions {
    /// NAME or NAME/FLAVOUR. A flavour that is made for a person boots on this terminal.
    pub names: Vec<String>,
    /// All guests that are not made for a person.
    #[arg(long)]
    pub all: bool,
    /// Those of them that take only seconds.
    #[arg(long)]
    pub quick: bool,
    /// What they are compared with.
    #[arg(long, value_enum, default_value_t = Peer::Auto)]
    pub peer: Peer,
    /// How often each runs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Keep pictures of the screens in this directory.
    #[arg(long, value_name = "DIR")]
    pub screenshots: Option<PathBuf>,
    /// Print when each step was done, in seconds, and the monitor's processor time.
    #[arg(long)]
    pub times: bool,
    /// Boot the guest on this terminal and do nothing with it.
    #[arg(long, conflicts_with_all = ["all", "quick"])]
    pub console: bool,
    /// Guest memory instead of the recipe's.
    #[arg(long, value_name = "SIZE", value_parser = parse_memory_size)]
    pub memory: Option<u64>,
    #[command(flatten)]
    pub machine: MachineOptions,
}

/// What guests are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// QEMU's translator where it is installed.
    Auto,
    /// QEMU's translator.
    Qemu,
    /// Nothing.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Binary translation.
    Bt,
    /// One instruction at a time: the slow reference.
    Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ring3 {
    /// Translated at first; on the bare processor where that pays.
    Auto,
    /// On the bare processor wherever possible.
    Direct,
    /// Always translated.
    Translate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stats {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

impl From<Engine> for EngineKind {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Bt => Self::Bt,
            Engine::Step => Self::Step,
        }
    }
}

impl From<Ring3> for Ring3Policy {
    fn from(policy: Ring3) -> Self {
        match policy {
            Ring3::Auto => Self::Auto,
            Ring3::Direct => Self::Direct,
            Ring3::Translate => Self::Translate,
        }
    }
}

impl From<Stats> for StatsFormat {
    fn from(format: Stats) -> Self {
        match format {
            Stats::Table => Self::Table,
            Stats::Json => Self::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run_options(args: &[&str]) -> RunOptions {
        let all = ["ring3", "run", "--kernel", "k"].iter().chain(args);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Run(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let o = run_options(&[]);
        assert_eq!((o.memory, o.append.as_str()), (512 << 20, "console=ttyS0"));
        assert_eq!(
            (o.machine.serial, o.machine.engine),
            (vec![SerialSpec::Stdio], Engine::Bt)
        );
        assert!(o.machine.stats.is_none() && !o.debug_exit && !o.machine.no_reboot);
    }

    #[test]
    fn stats_with_and_without_a_format() {
        assert_eq!(run_options(&["--stats"]).machine.stats, Some(Stats::Table));
        assert_eq!(
            run_options(&["--stats=json"]).machine.stats,
            Some(Stats::Json)
        );
    }

    #[test]
    fn append_may_begin_with_a_dash() {
        assert_eq!(run_options(&["--append", "-- x"]).append, "-- x");
    }
}
