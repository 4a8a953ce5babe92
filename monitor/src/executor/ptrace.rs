//! The ptrace requests that executors need, each as one function.
#![allow(unsafe_code)] // system calls with pointers to live local buffers

use libc::{c_int, pid_t, siginfo_t, user_regs_struct};
use std::io;

const NT_X86_XSTATE: usize = 0x202;
/// Options of every executor: die with the monitor, stop before exiting, mark system call stops.
const OPTIONS: usize =
    (libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_TRACESYSGOOD) as usize;

/// What a wait found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// About to carry out a system call (PTRACE_SYSEMU: it will not be).
    Syscall,
    /// About to receive a signal.
    Signal(c_int),
    /// About to die; registers can be read a last time.
    Exit,
    /// Dead and reaped.
    Gone,
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sets the options of a traced process that is stopped.
/// # Errors
/// ESRCH if it is not stopped or not ours.
pub fn set_options(pid: pid_t) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_SETOPTIONS as usize,
            pid,
            0usize,
            OPTIONS,
        )
    })
}

/// Reads the general registers.
/// # Errors
/// ESRCH if the process is not stopped.
pub fn get_regs(pid: pid_t) -> io::Result<user_regs_struct> {
    // SAFETY: an all-zero register structure is valid.
    let mut regs: user_regs_struct = unsafe { core::mem::zeroed() };
    // SAFETY: the kernel writes one register structure to a live local.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_GETREGS as usize,
            pid,
            0usize,
            &raw mut regs,
        )
    })?;
    Ok(regs)
}

/// Writes the general registers.
/// # Errors
/// ESRCH if the process is not stopped, EIO for a bad selector.
pub fn set_regs(pid: pid_t, regs: &user_regs_struct) -> io::Result<()> {
    // SAFETY: the kernel reads one register structure.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_SETREGS as usize,
            pid,
            0usize,
            &raw const *regs,
        )
    })
}

/// Writes the register at byte `offset` of `user_regs_struct`.
/// # Errors
/// As [`set_regs`].
pub fn poke_register(pid: pid_t, offset: usize, value: u64) -> io::Result<()> {
    // SAFETY: no pointers into this process.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_POKEUSER as usize,
            pid,
            offset,
            value,
        )
    })
}

/// Reads a word of the process's memory.
/// # Errors
/// ESRCH if it is not stopped, EIO if nothing is mapped there.
pub fn peek(pid: pid_t, address: u64) -> io::Result<u64> {
    let mut word = 0u64;
    // SAFETY: the raw system call stores one word to a live local.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_PEEKDATA as usize,
            pid,
            address,
            &raw mut word,
        )
    })?;
    Ok(word)
}

/// Writes a word of the process's memory.
/// # Errors
/// As [`peek`].
pub fn poke(pid: pid_t, address: u64, value: u64) -> io::Result<()> {
    // SAFETY: no pointers into this process.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_POKEDATA as usize,
            pid,
            address,
            value,
        )
    })
}

/// The signal that the process is about to receive.
/// # Errors
/// ESRCH if it is not stopped, EINVAL if no signal stopped it.
pub fn signal_info(pid: pid_t) -> io::Result<siginfo_t> {
    // SAFETY: an all-zero structure is valid.
    let mut info: siginfo_t = unsafe { core::mem::zeroed() };
    // SAFETY: the kernel writes one structure to a live local.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_GETSIGINFO as usize,
            pid,
            0usize,
            &raw mut info,
        )
    })?;
    Ok(info)
}

/// Reads the XSAVE image (standard format) into `area`; returns its length.
/// # Errors
/// ESRCH if the process is not stopped.
pub fn get_xstate(pid: pid_t, area: &mut [u8]) -> io::Result<usize> {
    let mut v = libc::iovec {
        iov_base: area.as_mut_ptr().cast(),
        iov_len: area.len(),
    };
    // SAFETY: the kernel writes at most `iov_len` bytes to `area`.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_GETREGSET as usize,
            pid,
            NT_X86_XSTATE,
            &raw mut v,
        )
    })?;
    Ok(v.iov_len)
}

/// Writes the XSAVE image; `area` must have the length that [`get_xstate`] returned.
/// # Errors
/// ESRCH if the process is not stopped, EINVAL for an image that XRSTOR would refuse.
pub fn set_xstate(pid: pid_t, area: &[u8]) -> io::Result<()> {
    let mut v = libc::iovec {
        iov_base: area.as_ptr().cast_mut().cast(),
        iov_len: area.len(),
    };
    // SAFETY: the kernel reads at most `iov_len` bytes of `area`.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_SETREGSET as usize,
            pid,
            NT_X86_XSTATE,
            &raw mut v,
        )
    })
}

/// Lets the process run with every system call stopped and none carried out; delivers `signal`
/// unless 0.
/// # Errors
/// ESRCH if it is not stopped.
pub fn run_without_syscalls(pid: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_SYSEMU as usize,
            pid,
            0usize,
            signal as usize,
        )
    })
}

/// Lets the process run with system calls: for our own fragments only.
/// # Errors
/// ESRCH if it is not stopped.
pub fn run_trusted(pid: pid_t) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_CONT as usize,
            pid,
            0usize,
            0usize,
        )
    })
}

/// Waits until the process stops or is gone.
/// # Errors
/// ECHILD if it was reaped already.
pub fn wait(pid: pid_t) -> io::Result<Stop> {
    let mut status = 0;
    // SAFETY: the kernel writes one integer to a live local.
    while unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if !libc::WIFSTOPPED(status) {
        return Ok(Stop::Gone);
    }
    let signal = libc::WSTOPSIG(status);
    Ok(match status >> 16 {
        libc::PTRACE_EVENT_EXIT => Stop::Exit,
        0 if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        _ => Stop::Signal(signal),
    })
}
