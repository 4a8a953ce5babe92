//! Executors: jailed host processes in which ring-3 32-bit guest code runs on the bare processor.
//!
//! An executor's address space below 4 GiB is one guest address space, made of shared mappings of
//! the guest RAM memfd; above 4 GiB lie a page of code and a read-only mailbox (`image.rs`). Guest
//! code runs in compatibility mode. The monitor's processor thread traces the process (ptrace) and
//! holds it while it does not run guest code.
//!
//! # The jail
//! Assume guest code that far-jumps into 64-bit mode, reads everything above 4 GiB, and jumps to
//! any byte of the stub with any registers.
//! 1. While guest code runs, it runs under PTRACE_SYSEMU: the kernel stops every system call, by
//!    every entry and number, before seccomp and before dispatch, and never carries it out. There
//!    is no allowed range and no selector byte that guest code could reach.
//! 2. The stub's command loop makes system calls only while the monitor runs it, and then nothing
//!    of the guest runs: one thread, registers set by the monitor, code and commands in pages that
//!    the process cannot write or replace. So mapping commands need no secret: guest code has no
//!    moment at which a mapping call would be carried out.
//! 3. A seccomp filter (`filter.rs`) allows the loop only shared mappings of guest RAM and unmapping,
//!    below 4 GiB; it also stops the emulated vsyscall page. It never lets anything through that 1.
//!    would have stopped.
//! 4. RAM is the only open descriptor. Stack, vdso and vvar are unmapped; the stub needs none.
//! 5. What happened comes from the kernel (stop status, registers, signal information), not from
//!    memory that guest code can write; nothing the guest does forges a trap. It cannot block a
//!    signal (no system call, no sigreturn), so a kick always stops it.
//!
//! # Killing an executor loses nothing
//! A traced process stops once more before it dies (PTRACE_O_TRACEEXIT), also of SIGKILL, with the
//! registers it had; guest memory is in the RAM memfd. [`Executor::run`] then returns
//! [`TrapKind::Killed`] with exact registers, and [`Executor::save_fpu`] still answers. System calls
//! and faults in flight are neither lost nor repeated. What can be lost, within microseconds of the
//! kill, is an exception that hardware reports after its instruction (#BP, #OF, #DB): the kernel
//! drops signals to a dying process, and EIP alone does not tell.
//!
//! # Why not signal frames and a mailbox
//! Handing traps over by a handler in the process, eventfds and Syscall User Dispatch was measured
//! at 6.0-6.7 µs per trap against 9.6-10.3 µs for this. But registers then live in the process
//! alone while it runs, so that SIGKILL loses them; everything in the record is the guest's to
//! forge; and mapping commands need a secret that a hostile guest can try to catch by
//! single-stepping the stub. Code that traps often enough for 3.5 µs to matter is demoted to the
//! translator anyway.
//!
//! What is not there: the kernel tells a tracer no error code and no vector. Where that matters
//! (#GP, #SS, #OF, #BR, #MF, #XM) the kernel is made to write one signal frame, at 13 µs more; for
//! page faults this is left to the caller ([`Executor::exact`]), whose page tables say the same.
//!
//! # Measured (the least of many; monitor thread and executor pinned to one processor, µs)
//! | | |
//! |---|---|
//! | page fault, registers as they were / all changed (FPU state read: 0.9 of it) | 9.6 / 10.3 |
//! | `int 0x80`; #UD; #GP with its frame (4-5 each are the outer virtual machine's) | 14.0; 15.6; 22 |
//! | FPU state: load | 1.8 |
//! | mapping a page: alone, in batches of 16, of 256 | 11; 2.2; 1.65 |
//! | take and give back an idle executor; start a process | 12; 220 |
//!
//! # Threads
//! ptrace belongs to a thread: a pool and its executors live and die on the thread that made them
//! (they are not `Send`). [`ExecutorKick`] may go anywhere.

#[cfg(test)]
mod bench_tests;
mod costs;
#[cfg(test)]
mod death_tests;
mod filter;
#[cfg(test)]
mod hostile_tests;
mod image;
mod init;
mod kick;
mod mailbox;
mod pool;
mod process;
mod ptrace;
mod registers;
mod spawn;
mod state;
mod support;
#[cfg(test)]
mod tests;
mod trap;

pub use image::ExecutorImage;
pub use kick::ExecutorKick;
pub use mailbox::Rights;
pub use pool::ExecutorPool;
pub use process::Executor;
pub use registers::{Selectors, UserRegs};
pub use support::{Unsupported, host_support, int80_is_call, sysenter_traps};
pub use trap::{ForeignCause, Trap, TrapKind};

/// The descriptor of guest RAM inside every executor.
const RAM_FD: i32 = 0;
/// The descriptor of the mailbox inside an executor until its start is over.
const MAILBOX_FD: i32 = 1;

/// What goes wrong with executors. The registers that a caller passed are untouched.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The image could not be assembled: a bug.
    #[error("cannot assemble the executor image: {0}")]
    Image(String),
    /// The host refused a step of starting a process.
    #[error("cannot start an executor: {step}")]
    Spawn {
        /// The step.
        step: &'static str,
        /// The host's reason.
        source: std::io::Error,
    },
    /// The host refused a step of jailing a started process.
    #[error("cannot set up an executor: {step}")]
    Setup {
        /// The step.
        step: &'static str,
        /// The host's reason.
        source: std::io::Error,
    },
    /// A mapping command failed (ENOMEM: vm.max_map_count). Which mappings exist is now unknown:
    /// reset or give back the executor.
    #[error("executor: a mapping command failed")]
    Map(#[source] std::io::Error),
    /// A range outside the guest address space or RAM, or not page aligned.
    #[error("executor: bad range {0:#x}, {1:#x} bytes")]
    BadRange(u64, u64),
    /// The process is dead; take another.
    #[error("executor: the process is dead")]
    Dead,
    /// The process did what it cannot do: a bug, here or in the host.
    #[error("executor: {0}")]
    Protocol(String),
    /// The host refused a ptrace request.
    #[error("executor: {request}")]
    Ptrace {
        /// The request.
        request: &'static str,
        /// The host's reason.
        source: std::io::Error,
    },
}
