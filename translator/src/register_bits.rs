//! Bits of EFLAGS, control and debug registers, EFER and IA32_APIC_BASE, by the manual's names.

/// EFLAGS bits. Intel SDM vol. 1, 3.4.3.
pub mod eflags {
    /// Carry.
    pub const CF: u32 = 1 << 0;
    /// The bit that always reads as one.
    pub const FIXED: u32 = 1 << 1;
    /// Parity.
    pub const PF: u32 = 1 << 2;
    /// Auxiliary carry.
    pub const AF: u32 = 1 << 4;
    /// Zero.
    pub const ZF: u32 = 1 << 6;
    /// Sign.
    pub const SF: u32 = 1 << 7;
    /// Trap (single step).
    pub const TF: u32 = 1 << 8;
    /// Interrupt enable.
    pub const IF: u32 = 1 << 9;
    /// Direction.
    pub const DF: u32 = 1 << 10;
    /// Overflow.
    pub const OF: u32 = 1 << 11;
    /// I/O privilege level (two bits).
    pub const IOPL: u32 = 3 << 12;
    /// Nested task.
    pub const NT: u32 = 1 << 14;
    /// Resume.
    pub const RF: u32 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u32 = 1 << 17;
    /// Alignment check.
    pub const AC: u32 = 1 << 18;
    /// Virtual interrupt flag.
    pub const VIF: u32 = 1 << 19;
    /// Virtual interrupt pending.
    pub const VIP: u32 = 1 << 20;
    /// CPUID available.
    pub const ID: u32 = 1 << 21;
    /// The flags that live in the host's flags register while translated code runs.
    pub const ARITH: u32 = CF | PF | AF | ZF | SF | OF | DF;
    /// The flags kept in `GuestState::sys_flags` (IF is kept apart in `if_flag`).
    pub const SYS: u32 = TF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}

/// Values of [`GuestState::interrupt_shadow`]. Intel SDM vol. 3A, 6.8.
pub mod shadow {
    /// After STI with IF clear: interrupts wait for one instruction.
    pub const STI: u8 = 1;
    /// After MOV SS and POP SS: debug exceptions wait too.
    pub const SS: u8 = 2;
}

/// DR6 bits. Intel SDM vol. 3B, 18.2.3.
pub mod dr6 {
    /// B0-B3: the breakpoints that were met.
    pub const B: u64 = 0xf;
    /// The next instruction accesses a debug register.
    pub const BD: u64 = 1 << 13;
    /// A single step.
    pub const BS: u64 = 1 << 14;
    /// A task switch.
    pub const BT: u64 = 1 << 15;
    /// The bits that read as one.
    pub const ONES: u64 = 0xffff_0ff0;
}

/// DR7 bits. Intel SDM vol. 3B, 18.2.4.
pub mod dr7 {
    /// L0-L3, G0-G3: a breakpoint is enabled.
    pub const ENABLES: u64 = 0xff;
    /// L0-L3 and LE: what a task switch clears.
    pub const LOCAL: u64 = 0x155;
    /// General detect.
    pub const GD: u64 = 1 << 13;
    /// The bit that reads as one.
    pub const ONES: u64 = 1 << 10;
}

/// IA32_APIC_BASE bits. Intel SDM vol. 3A, 11.4.4.
pub mod apic_base {
    /// The bootstrap processor.
    pub const BSP: u64 = 1 << 8;
    /// Global enable.
    pub const ENABLE: u64 = 1 << 11;
}

/// CR0 bits. Intel SDM vol. 3A, 2.5.
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1 << 0;
    /// Monitor coprocessor.
    pub const MP: u64 = 1 << 1;
    /// Emulation: x87 raises #NM.
    pub const EM: u64 = 1 << 2;
    /// Task switched.
    pub const TS: u64 = 1 << 3;
    /// Extension type (reads as one).
    pub const ET: u64 = 1 << 4;
    /// Numeric error: native #MF.
    pub const NE: u64 = 1 << 5;
    /// Write protect for supervisor accesses.
    pub const WP: u64 = 1 << 16;
    /// Alignment mask.
    pub const AM: u64 = 1 << 18;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// CR4 bits. Intel SDM vol. 3A, 2.5.
pub mod cr4 {
    /// Virtual-8086 mode extensions.
    pub const VME: u64 = 1 << 0;
    /// Protected-mode virtual interrupts.
    pub const PVI: u64 = 1 << 1;
    /// Time stamp disable.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions.
    pub const DE: u64 = 1 << 3;
    /// 4 MiB pages.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine check enable.
    pub const MCE: u64 = 1 << 6;
    /// Global pages.
    pub const PGE: u64 = 1 << 7;
    /// Performance counters in user mode.
    pub const PCE: u64 = 1 << 8;
    /// FXSAVE and SSE.
    pub const OSFXSR: u64 = 1 << 9;
    /// Unmasked SIMD exceptions.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// User-mode instruction prevention.
    pub const UMIP: u64 = 1 << 11;
    /// FS/GS base instructions.
    pub const FSGSBASE: u64 = 1 << 16;
    /// XSAVE and extended states.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Supervisor-mode execution prevention.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor-mode access prevention.
    pub const SMAP: u64 = 1 << 21;
}

/// EFER bits. Intel SDM vol. 3A, 2.2.1.
pub mod efer {
    /// SYSCALL enable.
    pub const SCE: u64 = 1 << 0;
    /// Long mode enable.
    pub const LME: u64 = 1 << 8;
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
    /// No-execute enable.
    pub const NXE: u64 = 1 << 11;
}
