//! Where QEMU's translator is known to deviate from the manual. A row names its deviation; the run
//! then expects the row to fail under QEMU, and reports it if it does not.

/// A deviation: its name and what QEMU 7.2 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deviation {
    /// A short name for the report.
    pub name: &'static str,
    /// What QEMU does instead.
    pub what: &'static str,
}

/// Names a deviation.
macro_rules! deviations {
    ($($id:ident: $name:literal, $what:literal;)*) => {
        $(
            #[doc = $what]
            pub const $id: Deviation = Deviation { name: $name, what: $what };
        )*
    };
}

deviations! {
    RSVD_WITHOUT_P: "rsvd-without-p",
        "page faults for reserved bits report P = 0 (SDM 3A 4.7: RSVD comes with P = 1)";
    PDPTE_UNCHECKED: "pdpte-unchecked",
        "MOV to CR3 does not look at the PAE directory-pointer entries (SDM 3A 4.4.1)";
    EXT_CLEAR: "ext-clear",
        "faults met while an exception is delivered have EXT = 0 in the error code (SDM 3A 6.13)";
    TSS_IN_LDT: "tss-in-ldt",
        "a TSS selector with TI set raises #TS where JMP, CALL and interrupts raise #GP (SDM 3A 7.2.2)";
    TASK_SS_ABSENT: "task-ss-absent",
        "an absent stack segment of a new task raises #NP, not #SS (SDM 3A table 7-1)";
    TSS_TRAP_FLAG: "tss-trap-flag",
        "the T flag of a TSS raises no #DB (SDM 3B 18.2.4, 18.3.1.5)";
    SEGMENT_LIMITS: "segment-limits",
        "segment limits and rights are not checked on most accesses (SDM 3A 5.3)";
    CODE_ACCESSED: "code-accessed",
        "loading CS does not set the accessed bit of the descriptor (SDM 3A 3.4.5.1)";
    LTR_NULL: "ltr-null",
        "LTR takes a null selector (SDM vol. 2, LTR: #GP(0))";
    CALL_LIMIT: "call-limit",
        "a far CALL beyond the new limit raises #GP(selector), not #GP(0) (SDM vol. 2, CALL)";
    JMP_GATE_ABSENT: "jmp-gate-absent",
        "JMP through a call gate to an absent segment raises #GP, not #NP (SDM vol. 2, JMP)";
    GATE_CONFORMING: "gate-conforming",
        "a call gate to a conforming segment of an inner ring changes CPL (SDM 3A 5.8.3, 5.8.4)";
    INNER_SS_ABSENT: "inner-ss-absent",
        "an absent stack segment of an inner ring raises #TS, not #SS (SDM vol. 2, CALL, INT)";
    OUTER_SS_ABSENT: "outer-ss-absent",
        "an absent stack segment of an outer ring raises #NP, not #SS (SDM vol. 2, RET, IRET)";
    INT1: "int1",
        "INT1 (F1) raises no #DB";
    NO_VME: "no-vme",
        "the translator's processors have no virtual-mode extensions (CPUID.VME = 0), and IRET does not load VIF and VIP";
    V86_HANDLER: "v86-handler",
        "interrupts from V8086 mode enter rings 1 and 2 (SDM vol. 2, INT: #GP(handler's CS))";
    IRET_VM: "iret-vm",
        "IRETD takes VM from the image in every ring (SDM vol. 2, IRET: CPL = 0 only)";
    LOCK_LATE: "lock-late",
        "an invalid LOCK prefix is found after the memory operand was accessed (SDM 3A table 6-2)";
    EM_LATE: "em-late",
        "SSE with CR0.EM and CR0.TS raises #NM, not #UD (SDM 3A 13.1)";
    MSR_UNKNOWN: "msr-unknown",
        "RDMSR and WRMSR of an unknown register raise no #GP";
    CR_UNCHECKED: "cr-unchecked",
        "reserved bits and forbidden combinations of CR0 and CR4 are taken (SDM vol. 2, MOV to CRn)";
    STI_NO_TRAP: "sti-no-trap",
        "the single-step trap after STI comes one instruction late (SDM vol. 2, STI: interrupts only)";
    LSS_SHADOW: "lss-shadow",
        "LSS holds traps back like MOV SS (SDM 3A 6.8.3: MOV and POP only)";
    HLT_NO_TRAP: "hlt-no-trap",
        "HLT under TF waits (SDM vol. 2, HLT: a debug exception resumes execution)";
    RF_CLEAR: "rf-clear",
        "faults do not set RF in the saved EFLAGS (SDM 3B 18.3.1.1)";
    SS_SHADOW_BREAKPOINT: "ss-shadow-breakpoint",
        "execution breakpoints are met in the shadow of MOV SS (SDM 3A 6.8.3)";
    BREAKPOINT_WIDE: "breakpoint-wide",
        "misaligned accesses meet data breakpoints on bytes beside them";
    BREAK_AND_STEP: "break-and-step",
        "a data breakpoint under TF raises two exceptions, not one with both bits (SDM 3A 6.9)";
    GENERAL_DETECT: "general-detect",
        "DR7.GD does nothing (SDM 3B 18.2.4)";
    NO_ALIGNMENT_CHECK: "no-alignment-check",
        "there is no #AC (SDM 3A 6.15, interrupt 17)";
    PUSH_AS_SUPERVISOR: "push-as-supervisor",
        "ring 3 pushes of far CALL and INT are made with supervisor rights: U/S is clear in the error code (SDM 3A 4.6.1)";
    NO_SIMD_EXCEPTIONS: "no-simd-exceptions",
        "there is no #XM (SDM 3A 6.15, interrupt 19)";
    EVENT_BREAKPOINT: "event-breakpoint",
        "QEMU aborts when a data breakpoint is met while an event is delivered (SDM 3B 18.3.1.2)";
    BREAK_BEFORE_FAULT: "break-before-fault",
        "an instruction that meets a data breakpoint and then faults raises #DB (SDM 3B 18.3.1.2: after it has executed)";
    MODIFY_READS_FIRST: "modify-reads-first",
        "read-modify-write instructions read as reads: W/R is clear in the error code, and A is set although the write is refused";
}
