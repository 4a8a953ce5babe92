//! The mailbox: mapping commands and constants that the monitor writes and an executor only reads.
#![allow(unsafe_code)] // a shared mapping written through a raw pointer

use super::ExecutorError;
use super::image::{COMMAND_BYTES, MAILBOX_BASE, MAILBOX_SIZE};
use super::spawn;
use core::ptr::NonNull;
use std::os::fd::{AsRawFd, OwnedFd};

/// Where the constants of the start begin; commands lie below.
pub const CONSTANTS: usize = 0xf000;
/// Commands that fit, an end mark included.
const COMMANDS: usize = CONSTANTS / COMMAND_BYTES;
const WORDS: usize = MAILBOX_SIZE as usize / 8;
const END: u64 = u64::MAX;

/// Rights of a mapping. Everything mapped is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Guest code may write.
    pub write: bool,
    /// Guest code may execute (guests without NX: always true).
    pub execute: bool,
}

impl Rights {
    fn prot(self) -> u64 {
        let bit = |on: bool, bit: i32| if on { bit as u64 } else { 0 };
        libc::PROT_READ as u64
            | bit(self.write, libc::PROT_WRITE)
            | bit(self.execute, libc::PROT_EXEC)
    }
}

/// A queue of commands in memory shared with one executor.
pub struct Mailbox {
    base: NonNull<u64>,
    /// Kept for the executor's start.
    pub fd: OwnedFd,
    queued: usize,
    /// The last command, for merging.
    last: [u64; 7],
}

impl Mailbox {
    /// An empty mailbox.
    /// # Errors
    /// When the host refuses the memfd or its mapping.
    pub fn new() -> std::io::Result<Self> {
        let fd = spawn::memfd(c"ring3-mailbox", MAILBOX_SIZE, &[], false)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let p = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                MAILBOX_SIZE as usize,
                prot,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(p.cast()) {
            Some(base) if p != libc::MAP_FAILED => Ok(Self {
                base,
                fd,
                queued: 0,
                last: [END; 7],
            }),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    fn write(&mut self, word: usize, value: u64) {
        assert!(word < WORDS, "mailbox word {word}");
        // SAFETY: inside the mapping by the line above; the executor cannot write it.
        unsafe { self.base.as_ptr().add(word).write_volatile(value) };
    }

    /// Writes constants at byte `offset` from [`CONSTANTS`]; returns their address in the executor.
    pub fn constants(&mut self, offset: usize, words: &[u64]) -> u64 {
        for (i, &w) in words.iter().enumerate() {
            self.write((CONSTANTS + offset) / 8 + i, w);
        }
        MAILBOX_BASE + (CONSTANTS + offset) as u64
    }

    /// Number of queued commands.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// True if the next command must wait for a flush.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued + 1 >= COMMANDS
    }

    /// Queues a system call; the caller has checked [`Self::is_full`].
    pub fn push(&mut self, command: [u64; 7]) {
        self.put(self.queued, command);
        self.queued += 1;
    }

    fn put(&mut self, index: usize, command: [u64; 7]) {
        for (i, v) in command.into_iter().enumerate() {
            self.write(index * COMMAND_BYTES / 8 + i, v);
        }
        self.last = command;
    }

    /// Queues a mapping of guest RAM, merged with the last one where it continues it.
    pub fn push_map(&mut self, lin: u64, ram_offset: u64, len: u64, rights: Rights) {
        let [nr, start, length, prot, flags, fd, offset] = self.last;
        let merges = self.queued > 0
            && nr == libc::SYS_mmap as u64
            && prot == rights.prot()
            && start + length == lin
            && offset + length == ram_offset;
        if merges {
            self.put(
                self.queued - 1,
                [nr, start, length + len, prot, flags, fd, offset],
            );
        } else {
            let (flags, fd) = (u64::from(super::filter::MAP_FLAGS), super::RAM_FD as u64);
            self.push([
                libc::SYS_mmap as u64,
                lin,
                len,
                rights.prot(),
                flags,
                fd,
                ram_offset,
            ]);
        }
    }

    /// Queues an unmapping, merged with the last one where it continues it.
    pub fn push_unmap(&mut self, lin: u64, len: u64) {
        let [nr, start, length, ..] = self.last;
        if self.queued > 0 && nr == libc::SYS_munmap as u64 && start + length == lin {
            self.put(self.queued - 1, [nr, start, length + len, 0, 0, 0, 0]);
        } else {
            self.push([libc::SYS_munmap as u64, lin, len, 0, 0, 0, 0]);
        }
    }

    /// Marks the end; the commands are ready to run.
    pub fn seal(&mut self) {
        self.write(self.queued * COMMAND_BYTES / 8, END);
    }

    /// Wipes the commands: they name guest-physical addresses, which are not the guest program's
    /// to know.
    pub fn clear(&mut self) {
        for index in 0..self.queued {
            for i in 0..COMMAND_BYTES / 8 {
                self.write(index * COMMAND_BYTES / 8 + i, 0);
            }
        }
        self.queued = 0;
        self.write(0, END);
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing points into any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), MAILBOX_SIZE as usize) };
    }
}

/// Checks a range of guest pages: aligned, not empty, from the host's lowest address to 4 GiB.
/// # Errors
/// [`ExecutorError::BadRange`].
pub fn check_range(lin: u32, len: u64, lowest: u32) -> Result<(), ExecutorError> {
    let start = u64::from(lin);
    let good = lin >= lowest && (start | len) & 0xfff == 0 && len > 0 && len <= (1 << 32) - start;
    if good {
        Ok(())
    } else {
        Err(ExecutorError::BadRange(start, len))
    }
}
