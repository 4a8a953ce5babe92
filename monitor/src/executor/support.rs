//! Whether this host can execute guest code directly.

use super::registers::{USER32_CS, UserRegs};
use super::spawn;
use super::{ExecutorError, ExecutorPool, Rights, Trap, TrapKind};
use std::os::fd::AsFd;

/// Why ring 3 stays translated on this host. One line.
#[derive(Debug, thiserror::Error)]
pub enum Unsupported {
    /// A step of making an executor failed (ptrace, exec of a memfd, seccomp refused).
    #[error("no direct execution: {}", chain(.0))]
    Executor(#[from] ExecutorError),
    /// 32-bit code does not run or its system calls do not stop.
    #[error("no direct execution: a 32-bit probe ended with {0} (IA32 emulation off?)")]
    Probe(String),
}

fn chain(e: &ExecutorError) -> String {
    std::error::Error::source(e).map_or_else(|| e.to_string(), |source| format!("{e}: {source}"))
}

/// Address of the probe in guest space.
const PROBE: u32 = 0x0804_8000;

/// Runs `code` in a new executor, with EAX = 1233h.
fn probe(code: &[u8]) -> Result<(Trap, UserRegs), ExecutorError> {
    let ram =
        spawn::memfd(c"ring3-probe", 4096, code, false).map_err(|source| ExecutorError::Setup {
            step: "memfd",
            source,
        })?;
    let mut pool = ExecutorPool::new(ram.as_fd(), None)?;
    let mut executor = pool.take()?;
    let rights = Rights {
        write: false,
        execute: true,
    };
    executor.map(PROBE, 0, 4096, rights)?;
    let mut regs = UserRegs {
        eip: PROBE,
        ..UserRegs::default()
    };
    regs.gpr[0] = 0x1233;
    let trap = executor.run(&mut regs)?;
    Ok((trap, regs))
}

/// Makes an executor and runs a few 32-bit instructions in it.
/// # Errors
/// [`Unsupported`] with the reason.
pub fn host_support() -> Result<(), Unsupported> {
    // inc eax (REX prefix in 64-bit code); int 0x80
    let (trap, regs) = probe(&[0x40, 0xcd, 0x80])?;
    // Without IA32 emulation `int 0x80` is an ordinary #GP, which serves as well.
    let stopped = match trap.kind {
        TrapKind::Syscall => regs.eip == PROBE + 3,
        TrapKind::Exception { vector: 13, .. } => regs.eip == PROBE + 1,
        _ => false,
    };
    if stopped && regs.gpr[0] == 0x1234 && trap.selectors.cs == USER32_CS {
        Ok(())
    } else {
        Err(Unsupported::Probe(format!(
            "{:?}, EIP {:#x}, EAX {:#x}",
            trap.kind, regs.eip, regs.gpr[0]
        )))
    }
}

/// True if `int 0x80` in an executor stops as a system call: the host's kernel has IA32 emulation.
/// Without it, the same is #GP, which serves as well. False too where there are no executors.
#[must_use]
pub fn int80_is_call() -> bool {
    probe(&[0xcd, 0x80]).is_ok_and(|(trap, _)| trap.kind == TrapKind::Syscall)
}

/// True if SYSENTER in an executor is an exact trap, as on AMD processors (#UD in compatibility
/// mode). On others it enters the host's kernel, which loses EIP and ESP: a guest that runs directly
/// must not be offered it. False too where there are no executors.
#[must_use]
pub fn sysenter_traps() -> bool {
    probe(&[0x0f, 0x34]).is_ok_and(|(trap, regs)| {
        matches!(trap.kind, TrapKind::Exception { vector: 6, .. }) && regs.eip == PROBE
    })
}
