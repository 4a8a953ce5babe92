//! Why guest code stopped, derived from what the kernel reports.

use super::registers::{Selectors, USER32_CS, UserRegs, selectors};
use libc::{c_int, siginfo_t, user_regs_struct};

/// What stopped guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapKind {
    /// #PF; EIP is the instruction's. Nothing else of it is known without [`super::Executor::exact`];
    /// the guest's page tables say what it means.
    PageFault {
        /// The linear address.
        cr2: u32,
        /// Something is mapped there in the executor, with too few rights.
        mapped: bool,
    },
    /// Another exception by its vector. EIP as hardware leaves it: at the instruction for faults,
    /// after it for #BP, #OF and #DB.
    Exception {
        /// The vector.
        vector: u8,
        /// The error code (host's; selector-related ones name the selector).
        error: u32,
    },
    /// A system call instruction that the host kernel takes: `int 0x80` and EIP after it, or on
    /// some processors SYSENTER or SYSCALL, whose EIP is lost: look at the two bytes before EIP.
    Syscall,
    /// A kick, or another signal from outside; EIP is the next instruction.
    Kick,
    /// The process was killed from outside. Registers are exact and EIP is the next instruction;
    /// all mappings are gone.
    Killed,
    /// Guest code has left flat 32-bit mode (a far jump to a host code segment): the registers are
    /// truncated. Also a 32-bit SYSCALL (AMD) or SYSENTER (Intel), whose EIP is lost. Deliver #GP,
    /// or go on in whatever way costs the guest only itself.
    Foreign(ForeignCause),
}

/// What stopped guest code that has left 32-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignCause {
    /// A system call, not carried out.
    Syscall,
    /// The host signal.
    Signal(i32),
}

/// One stop of guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Why.
    pub kind: TrapKind,
    /// Segment selectors as found.
    pub selectors: Selectors,
}

/// What a signal stop is, or that only a signal frame can tell.
pub(super) enum Class {
    Kind(TrapKind),
    NeedsFrame,
}

/// Classifies a signal stop. Intel SDM vol. 3A, 6.15, and the kernel's arch/x86/kernel/traps.c.
pub(super) fn classify(signal: c_int, info: &siginfo_t, address: u64) -> Class {
    const SI_KERNEL: i32 = 0x80;
    let code = info.si_code;
    let exception = |vector| Class::Kind(TrapKind::Exception { vector, error: 0 });
    // Zero and below: sent by a process, not raised by an instruction.
    if code <= 0 {
        return Class::Kind(TrapKind::Kick);
    }
    match (signal, code) {
        (libc::SIGSEGV, SI_KERNEL) | (libc::SIGBUS, SI_KERNEL) => Class::NeedsFrame,
        (libc::SIGSEGV, _) => Class::Kind(TrapKind::PageFault {
            cr2: address as u32,
            mapped: code != 1,
        }),
        (libc::SIGBUS, 1) => exception(17),
        (libc::SIGBUS, _) => Class::Kind(TrapKind::PageFault {
            cr2: address as u32,
            mapped: true,
        }),
        (libc::SIGFPE, 1) => exception(0),
        (libc::SIGFPE, _) => Class::NeedsFrame,
        (libc::SIGTRAP, SI_KERNEL) => exception(3),
        (libc::SIGTRAP, _) => exception(1),
        (libc::SIGILL, _) => exception(6),
        _ => Class::Kind(TrapKind::Kick),
    }
}

/// True if the process was in 32-bit code.
pub(super) fn in_compat(r: &user_regs_struct) -> bool {
    // `into`, `int3` and the like at the top of the address space leave RIP at exactly 4 GiB.
    r.cs == u64::from(USER32_CS) && r.rip <= 1 << 32
}

impl Trap {
    /// A stop before anything ran.
    pub(super) fn unmoved(kind: TrapKind, regs: &UserRegs) -> Self {
        Self {
            kind,
            selectors: Selectors::loaded(regs),
        }
    }

    pub(super) fn new(kind: TrapKind, r: &user_regs_struct) -> Self {
        Self {
            kind,
            selectors: selectors(r),
        }
    }
}
