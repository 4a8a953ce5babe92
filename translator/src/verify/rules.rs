//! Which host instructions may stand in a unit at all.
//!
//! This list is made from the manuals, not from the translator's own table, so that a mistake there
//! is not repeated here.

use iced_x86::{Code, CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind, Register};

/// Why an instruction is forbidden whatever its operands; None if it is not.
pub(super) fn forbidden(insn: &Instruction) -> Option<&'static str> {
    let code = insn.code();
    if code == Code::INVALID {
        return Some("not an instruction");
    }
    if code.is_privileged() {
        return Some("a privileged instruction");
    }
    if sensitive(insn.mnemonic()) {
        return Some("an instruction that enters the kernel, or reads or changes host state");
    }
    if matches!(code.encoding(), EncodingKind::EVEX | EncodingKind::MVEX) {
        return Some("an instruction of a feature that guests do not have");
    }
    if !code.cpuid_features().iter().all(|&f| permitted_feature(f)) {
        return Some("an instruction of a feature that guests do not have");
    }
    for i in 0..insn.op_count() {
        if insn.op_kind(i) == OpKind::Register {
            let r = insn.op_register(i);
            if r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr() {
                return Some("a segment, control or debug register as operand");
            }
            if r.is_k() || r.is_bnd() || r.is_tmm() || r.is_zmm() {
                return Some("a register that guests do not have");
            }
        }
    }
    None
}

fn sensitive(m: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        m,
        // Ways into the kernel and out of the mode.
        M::Syscall | M::Sysenter | M::Sysret | M::Sysretq | M::Sysexit | M::Sysexitq
            | M::Int | M::Int1 | M::Int3 | M::Into | M::Iret | M::Iretd | M::Iretq | M::Retf
            | M::Hlt | M::Ud0 | M::Ud1 | M::Ud2 | M::Bound | M::Rsm
            | M::Vmcall | M::Vmmcall | M::Vmfunc | M::Vmgexit | M::Getsec
            | M::Enclu | M::Encls | M::Enclv | M::Pconfig
            | M::Xbegin | M::Xend | M::Xabort | M::Xtest
            | M::Clui | M::Stui | M::Testui | M::Uiret | M::Senduipi
            // Port I/O, interrupt flag, whole flags.
            | M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd
            | M::Cli | M::Sti | M::Popf | M::Popfd | M::Popfq | M::Pushf | M::Pushfd
            // Host state.
            | M::Cpuid | M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Rdpid | M::Rdpru | M::Xgetbv | M::Xsetbv
            | M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw | M::Lmsw | M::Lgdt | M::Lidt | M::Lldt
            | M::Ltr | M::Lar | M::Lsl | M::Verr | M::Verw | M::Arpl | M::Clts
            | M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase | M::Swapgs
            | M::Rdpkru | M::Wrpkru | M::Rdmsr | M::Wrmsr | M::Ptwrite
            | M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss
            | M::Monitor | M::Mwait | M::Monitorx | M::Mwaitx | M::Umonitor | M::Umwait | M::Tpause
            | M::Clzero | M::Movdir64b | M::Enqcmd | M::Enqcmds
            | M::Incsspd | M::Incsspq | M::Rdsspd | M::Rdsspq | M::Saveprevssp | M::Rstorssp
            | M::Wrssd | M::Wrssq | M::Wrussd | M::Wrussq | M::Setssbsy | M::Clrssbsy
            // FPU images hold host addresses, or reach beyond their operand's size.
            | M::Fnsave | M::Fsave | M::Frstor | M::Fnstenv | M::Fstenv | M::Fldenv
            | M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64
            | M::Xsave | M::Xsave64 | M::Xsaveopt | M::Xsaveopt64 | M::Xsavec | M::Xsavec64
            | M::Xsaves | M::Xsaves64 | M::Xrstor | M::Xrstor64 | M::Xrstors | M::Xrstors64
            // Addresses that no operand names, and the stack.
            | M::Xlatb | M::Enter | M::Leave | M::Push | M::Loop | M::Loope | M::Loopne | M::Jecxz | M::Jcxz
            | M::Vpgatherdd | M::Vpgatherdq | M::Vpgatherqd | M::Vpgatherqq
            | M::Vgatherdps | M::Vgatherdpd | M::Vgatherqps | M::Vgatherqpd
    )
}

fn permitted_feature(f: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        f,
        F::INTEL8086
            | F::INTEL8086_ONLY
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CMOV
            | F::CX8
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::CLFSH
            | F::CLFLUSHOPT
            | F::CLWB
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::MMX
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::SSE4A
            | F::AES
            | F::PCLMULQDQ
            | F::SHA
            | F::GFNI
            | F::AVX
            | F::AVX2
            | F::F16C
            | F::FMA
            | F::VAES
            | F::VPCLMULQDQ
            | F::BMI1
            | F::BMI2
            | F::ADX
            | F::POPCNT
            | F::LZCNT
            | F::MOVBE
            | F::PREFETCHW
            | F::RDRAND
            | F::RDSEED
            | F::CET_IBT
    )
}

/// Number of a general register of any width, and its width in bytes.
pub(super) fn general(r: Register) -> Option<(usize, u32)> {
    if !r.is_gpr() {
        return None;
    }
    Some((r.full_register().number(), r.size() as u32))
}
