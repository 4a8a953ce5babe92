//! What can be wrong with the files of a Linux boot, each with one sentence for the user.

use super::OutOfMemory;
use std::path::PathBuf;

/// Why a kernel could not be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file does not exist.
    #[error("there is no file {}: check the path after {option}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The command-line option that named it.
        option: &'static str,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("{} is empty: copy or download it again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file has more bytes than guest memory, or no end.
    #[error("{} does not fit into the {} MiB of guest memory: check the path after {option}, or give more with --memory",
        path.display(), memory >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The command-line option that named it.
        option: &'static str,
        /// Bytes of RAM that the guest has.
        memory: u64,
    },
    /// The file ends before what its header promises.
    #[error("{} is truncated ({have} bytes, its header promises at least {need}): copy or download it again",
        path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        have: u64,
        /// Bytes it must have.
        need: u64,
    },
    /// No boot protocol header.
    #[error("{} is not a bzImage ({what}): give a Linux kernel image such as /boot/vmlinuz-*", path.display())]
    NotBzImage {
        /// The file.
        path: PathBuf,
        /// What was seen instead.
        what: &'static str,
    },
    /// A boot protocol before 2.04.
    #[error("{} speaks boot protocol {}.{:02}, at least 2.04 is needed: use a kernel from Linux 2.6.14 or later",
        path.display(), version >> 8, version & 0xff)]
    OldProtocol {
        /// The file.
        path: PathBuf,
        /// Major version in the high byte.
        version: u16,
    },
    /// The kernel needs more RAM.
    #[error("{} needs {} MiB of memory to start and the guest has {} MiB: give more with --memory",
        path.display(), need.div_ceil(1 << 20), memory >> 20)]
    KernelTooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes of RAM that it needs.
        need: u64,
        /// Bytes of RAM that the guest has.
        memory: u64,
    },
    /// The initial RAM disk does not fit above the kernel.
    #[error("{} ({} MiB) does not fit into the {} MiB that the kernel leaves free: give more with --memory",
        path.display(), size.div_ceil(1 << 20), room >> 20)]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// Bytes that are free for it.
        room: u64,
    },
    /// The command line is longer than the kernel accepts.
    #[error("the kernel command line has {len} bytes and {} accepts {max}: shorten --append", path.display())]
    CommandLineTooLong {
        /// The kernel.
        path: PathBuf,
        /// Bytes of the command line.
        len: usize,
        /// The kernel's limit.
        max: usize,
    },
    /// The command line has a NUL byte.
    #[error("the kernel command line has a NUL byte: remove it from --append")]
    CommandLineNul,
    /// A placement outside of RAM: a bug in the placement rules.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}
