//! What a machine is built from, as front ends give it.

use crate::board::StopHandle;
use crate::linux::{BootError, BootImages};
use std::path::PathBuf;
use std::sync::Arc;

/// Least guest memory, in bytes.
pub const MIN_MEMORY: u64 = 4 << 20;
/// Most guest memory, in bytes: the rest of the 32-bit physical space belongs to devices.
pub const MAX_MEMORY: u64 = 3584 << 20;

/// Everything that a machine is built from.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Guest RAM in bytes, a multiple of 1 MiB between [`MIN_MEMORY`] and [`MAX_MEMORY`].
    pub memory: u64,
    /// What starts the guest.
    pub boot: BootSource,
    /// Hard disks, CD-ROM drives and floppy drives, in the order in which they are attached.
    pub drives: Vec<DriveSpec>,
    /// Writes to images are kept aside and dropped at the end.
    pub snapshot: bool,
    /// Where firmware's messages (ports 0x402 and 0xE9) go.
    pub debug_log: Option<PathBuf>,
    /// The control socket to listen on.
    pub control: Option<PathBuf>,
    /// Where the serial ports go, COM1 first: at most [`SERIAL_PORTS`], one of them standard input and
    /// output. The rest has no host side.
    pub serial: Vec<SerialSpec>,
    /// Where the parallel port prints.
    pub parallel: Option<PathBuf>,
    /// How guest code runs.
    pub engine: EngineKind,
    /// How ring 3 runs under [`EngineKind::Bt`].
    pub ring3: Ring3Policy,
    /// Whether and how counters are reported at the end.
    pub stats: Option<StatsFormat>,
    /// End the run where the guest would restart.
    pub no_reboot: bool,
    /// Provide the debug-exit port 0x501.
    pub debug_exit: bool,
    /// Ends the run from outside (signals, a front end's close button).
    pub stop: Arc<StopHandle>,
}

/// A Linux kernel and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxFiles {
    /// The bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

impl LinuxFiles {
    /// Reads the files for a guest with `memory` bytes of RAM. `rsdp`: physical address of the ACPI
    /// RSDP, 0 to let the kernel search.
    /// # Errors
    /// [`BootError`] for a file that is missing, unreadable, empty or larger than guest memory.
    pub fn read(&self, rsdp: u64, memory: u64) -> Result<BootImages, BootError> {
        let initrd = self.initrd.as_deref();
        BootImages::read(&self.kernel, initrd, &self.cmdline, rsdp, memory)
    }
}

/// What starts the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootSource {
    /// A Linux kernel by the 32-bit boot protocol, without firmware.
    Linux(LinuxFiles),
    /// Firmware, from the reset vector on.
    Firmware {
        /// The BIOS image: 64 KiB to 1 MiB, a multiple of 64 KiB.
        bios: PathBuf,
        /// The display adapter's option ROM.
        vgabios: PathBuf,
        /// What is tried first.
        first: Option<BootDevice>,
        /// Offer the boot menu.
        menu: bool,
        /// A Linux kernel that firmware starts before any drive.
        kernel: Option<LinuxFiles>,
    },
}

pub use crate::firmware::BootDevice;
pub use crate::image::{DriveSpec, ImageFormat, Interface, parse_drive};

/// Serial ports of the board.
pub const SERIAL_PORTS: usize = 4;

/// Where a serial port goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SerialSpec {
    /// This process's standard input and output.
    #[default]
    Stdio,
    /// Output to a file (truncated), no input.
    File(PathBuf),
    /// A Unix socket that the machine listens on; one peer at a time.
    Unix(PathBuf),
    /// Output is dropped, no input.
    None,
}

/// How guest code runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// Binary translation.
    #[default]
    Bt,
    /// One instruction per translation unit, nothing chained: the slow reference.
    Step,
}

/// How ring 3 runs under binary translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ring3Policy {
    /// Always translated.
    #[default]
    Translate,
    /// Translated at first; on the bare processor where that pays.
    Auto,
    /// On the bare processor wherever the processor's state allows it.
    Direct,
}

/// How counters are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsFormat {
    /// A table for people.
    Table,
    /// One JSON object.
    Json,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off.
    PowerOff,
    /// The guest restarted and the configuration says not to.
    Reset,
    /// The guest shut down by a triple fault and the configuration says not to restart.
    TripleFault,
    /// The guest wrote this byte to the debug-exit port.
    DebugExit(u8),
    /// The user left (Ctrl-A x, a closed window).
    Quit,
    /// This host signal asked the process to end.
    Signal(i32),
}

/// Why a memory size was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemorySizeError {
    /// Not a number with an optional suffix.
    #[error("'{0}' is not a memory size: write a whole number with K, M or G, such as 512M")]
    Malformed(String),
    /// Too small or too large.
    #[error("a guest can have between 4M and 3584M of memory, not {0}")]
    OutOfRange(String),
    /// Not a multiple of 1 MiB.
    #[error("guest memory comes in whole mebibytes, which {0} is not")]
    Unaligned(String),
}

/// Parses a memory size: a whole number with suffix K, M or G (binary, either case); without a
/// suffix, mebibytes.
/// # Errors
/// [`MemorySizeError`] for anything else or a size that no machine can have.
pub fn parse_memory_size(text: &str) -> Result<u64, MemorySizeError> {
    let malformed = || MemorySizeError::Malformed(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match trimmed[digits.len()..].to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => 10,
        "" | "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(malformed()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let out_of_range = || MemorySizeError::OutOfRange(trimmed.to_owned());
    let count: u64 = digits.parse().map_err(|_| out_of_range())?;
    let bytes = count.checked_mul(1 << shift).ok_or_else(out_of_range)?;
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&bytes) {
        return Err(out_of_range());
    }
    if !bytes.is_multiple_of(1 << 20) {
        return Err(MemorySizeError::Unaligned(trimmed.to_owned()));
    }
    Ok(bytes)
}

/// Parses a serial specification: `stdio`, `none`, `file:PATH` or `unix:PATH`.
/// # Errors
/// A sentence for the user.
pub fn parse_serial(text: &str) -> Result<SerialSpec, String> {
    match text.split_once(':') {
        None if text == "stdio" => Ok(SerialSpec::Stdio),
        None if text == "none" => Ok(SerialSpec::None),
        Some((kind @ ("file" | "unix"), "")) => {
            Err(format!("'{kind}:' needs a path after the colon"))
        }
        Some(("file", path)) => Ok(SerialSpec::File(path.into())),
        Some(("unix", path)) => Ok(SerialSpec::Unix(path.into())),
        _ => Err(format!(
            "'{text}' is not a serial port: use stdio, none, file:PATH or unix:PATH"
        )),
    }
}

/// Parses where a parallel port prints: `file:PATH`.
/// # Errors
/// A sentence for the user.
pub fn parse_parallel(text: &str) -> Result<PathBuf, String> {
    match parse_serial(text) {
        Ok(SerialSpec::File(path)) => Ok(path),
        _ => Err(format!("'{text}' is nothing to print to: use file:PATH")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("512", 512 << 20),
            ("4m", 4 << 20),
            ("2G", 2 << 30),
            ("65536K", 64 << 20),
            ("3584MiB", 3584 << 20),
        ] {
            assert_eq!(parse_memory_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_sizes_are_refused() {
        for text in ["", "M", "-5M", "1.5G", "12X", "0x100M", "5 M", "١M", "1T"] {
            assert!(
                matches!(parse_memory_size(text), Err(MemorySizeError::Malformed(_))),
                "{text}"
            );
        }
        for text in [
            "0",
            "3M",
            "4G",
            "99999999999999999999M",
            "18446744073709551615G",
        ] {
            assert!(
                matches!(parse_memory_size(text), Err(MemorySizeError::OutOfRange(_))),
                "{text}"
            );
        }
        assert!(matches!(
            parse_memory_size("5000K"),
            Err(MemorySizeError::Unaligned(_))
        ));
    }

    #[test]
    fn serial_specs() {
        assert_eq!(parse_serial("stdio"), Ok(SerialSpec::Stdio));
        assert_eq!(
            parse_serial("file:/a:b"),
            Ok(SerialSpec::File("/a:b".into()))
        );
        assert_eq!(parse_serial("unix:x"), Ok(SerialSpec::Unix("x".into())));
        for text in ["", "file", "file:", "tty", "Stdio", "tcp:1"] {
            assert!(parse_serial(text).is_err(), "{text}");
            assert!(parse_parallel(text).is_err(), "{text}");
        }
    }
}
