//! The memory that parent and child share: commands, and a slot for each case of a batch.
#![allow(unsafe_code)] // Shared memory with another process is raw by nature.

use crate::case::Regs;
use crate::layout::MEMORY_BYTES;
use crate::vector::{XSAVE_BYTES, XsaveLayout};
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::time::Duration;

/// Cases in one batch.
pub const BATCH: usize = 64;
/// The child's state before its first batch.
pub const MAGIC_RUNNING: u32 = 0x52_55_4e_31;

/// Initial state of a case.
#[repr(C, align(64))]
pub struct Input {
    pub xsave: [u8; XSAVE_BYTES],
    pub regs: Regs,
    pub memory: [u8; MEMORY_BYTES],
}

/// Final state of a case.
#[repr(C, align(64))]
pub struct Output {
    pub xsave: [u8; XSAVE_BYTES],
    pub regs: Regs,
    pub trap: u32,
    pub error: u32,
    pub cr2: u64,
    pub memory: [u8; MEMORY_BYTES],
}

/// The whole area.
#[repr(C, align(64))]
pub struct Shared {
    /// Number of the batch that the child is to run.
    pub go: AtomicU32,
    /// Number of the last batch that is complete.
    pub done: AtomicU32,
    /// The case that runs now.
    pub current: AtomicU32,
    /// Cases in the batch.
    pub count: AtomicU32,
    /// [`MAGIC_RUNNING`] once the child's handler works.
    pub state: AtomicU32,
    /// The host's XSAVE layout.
    pub layout: XsaveLayout,
    /// Initial states.
    pub input: [Input; BATCH],
    /// Final states.
    pub output: [Output; BATCH],
}

/// The parent's mapping of a [`Shared`].
pub struct Area {
    at: *mut Shared,
    /// The memfd behind it.
    pub fd: i32,
}

impl Area {
    /// Creates and maps it.
    pub fn new(layout: XsaveLayout) -> io::Result<Self> {
        // SAFETY: plain system calls; the results are checked.
        unsafe {
            let fd = libc::memfd_create(c"conformance".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let len = size_of::<Shared>();
            if libc::ftruncate(fd, len as i64) < 0 {
                return Err(io::Error::last_os_error());
            }
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let at = libc::mmap(core::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, 0);
            if at == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let at = at.cast::<Shared>();
            (&raw mut (*at).layout).write(layout);
            Ok(Self { at, fd })
        }
    }

    fn shared(&self) -> &Shared {
        // SAFETY: `at` is a live mapping of a zero-initialised (valid) `Shared`. The plain fields
        // are written by one side at a time, ordered by `go` and `done`.
        unsafe { &*self.at }
    }

    pub fn reset(&mut self) {
        let s = self.shared();
        for word in [&s.go, &s.done, &s.current, &s.count, &s.state] {
            word.store(0, Ordering::SeqCst);
        }
    }

    pub fn state(&self) -> u32 {
        self.shared().state.load(Ordering::SeqCst)
    }

    pub fn current(&self) -> u32 {
        self.shared().current.load(Ordering::SeqCst)
    }

    /// The initial state of case `n` of the batch; only while no batch runs.
    pub fn input(&mut self, n: usize) -> &mut Input {
        // SAFETY: in bounds by the minimum; the child reads it only between `go` and `done`.
        unsafe {
            &mut *(&raw mut (*self.at).input)
                .cast::<Input>()
                .add(n.min(BATCH - 1))
        }
    }

    /// The final state of case `n`; only when that case is over.
    pub fn output(&mut self, n: usize) -> &Output {
        // SAFETY: as `input`; the child writes it only before it moves `current` past `n`.
        unsafe {
            &*(&raw const (*self.at).output)
                .cast::<Output>()
                .add(n.min(BATCH - 1))
        }
    }

    /// Starts batch `sequence`.
    pub fn submit(&mut self, sequence: u32, count: u32) {
        let s = self.shared();
        s.current.store(0, Ordering::SeqCst);
        s.count.store(count, Ordering::SeqCst);
        s.go.store(sequence, Ordering::SeqCst);
        // SAFETY: a futex wake on a live word.
        unsafe { libc::syscall(libc::SYS_futex, s.go.as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    /// Waits until batch `sequence` is complete, at most `patience`; true if it is.
    pub fn wait_done(&self, sequence: u32, patience: Duration) -> bool {
        let done = &self.shared().done;
        let seen = done.load(Ordering::SeqCst);
        if sequence != 0 && seen == sequence {
            return true;
        }
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        // SAFETY: a futex wait on a live word with a valid timeout.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                done.as_ptr(),
                libc::FUTEX_WAIT,
                seen,
                &raw const time,
            )
        };
        sequence != 0 && done.load(Ordering::SeqCst) == sequence
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: both were created in `new` and nothing uses them after this.
        unsafe {
            libc::munmap(self.at.cast(), size_of::<Shared>());
            libc::close(self.fd);
        }
    }
}
