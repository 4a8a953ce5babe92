//! What each opcode is to the translator: one row per opcode, computed once from the decoder's own
//! tables plus the exceptions that the architecture makes.

use crate::mode::Mode;
use iced_x86::{
    Code, CpuidFeature, FlowControl, Instruction, Mnemonic, OpCodeOperandKind, OpKind, Register,
};

/// How an instruction is lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Re-encoded as itself; at most one ordinary memory operand.
    Ident,
    /// No operation, whatever its operands.
    Nop,
    /// LEA.
    Lea,
    /// PUSH of a register, immediate, segment register or memory.
    Push,
    /// POP to a general register or memory.
    Pop,
    /// LEAVE.
    Leave,
    /// Near direct call.
    Call,
    /// Near indirect call.
    CallIndirect,
    /// Near return.
    Return,
    /// Near direct jump.
    Jump,
    /// Near indirect jump.
    JumpIndirect,
    /// Conditional jump.
    JumpIf,
    /// LOOP, LOOPE, LOOPNE, JCXZ, JECXZ.
    Loop,
    /// MOVS, STOS, LODS, SCAS, CMPS with or without a repeat prefix.
    String,
    /// CLD, STD.
    Direction,
    /// CLI.
    Cli,
    /// STI.
    Sti,
    /// PUSHF.
    Pushf,
    /// POPF.
    Popf,
    /// MOV r/m, sreg.
    StoreSelector,
    /// MASKMOVQ, MASKMOVDQU: the operand is at (E)DI, which no encoding names.
    MaskMove,
    /// VMASKMOVPS, VMASKMOVPD: only chosen lanes are accessed.
    MaskedLanes,
    /// BT, BTS, BTR, BTC with a register bit offset and a memory operand.
    BitString,
    /// Executed by the monitor.
    Callout,
    /// Executed by the monitor; the unit ends here.
    CalloutEnd,
    /// Not an instruction of the virtual processor: #UD.
    Undefined,
    /// Longer than 15 bytes: #GP(0).
    TooLong,
}

/// Which register state an opcode touches beyond the general registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// None.
    Integer,
    /// x87.
    X87,
    /// MMX and 3DNow!.
    Mmx,
    /// WAIT.
    Wait,
    /// SSE registers.
    Sse,
    /// AVX state.
    Avx,
}

/// Exceptions that the mode alone implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// #UD: not an instruction of the virtual processor, or disabled by CR4/CR0.
    Undefined,
    /// #GP(0): longer than 15 bytes.
    TooLong,
    /// #NM: CR0.TS or CR0.EM.
    DeviceNotAvailable,
}

/// The features of the virtual processor, as a set.
#[derive(Clone)]
pub struct FeatureSet(Vec<bool>);

impl FeatureSet {
    /// Collects the features for which `has` is true.
    pub fn new(has: impl Fn(CpuidFeature) -> bool) -> Self {
        Self(CpuidFeature::values().map(has).collect())
    }
    /// Whether a feature is in the set.
    #[must_use]
    pub fn has(&self, feature: CpuidFeature) -> bool {
        self.0.get(feature as usize).copied().unwrap_or(false)
    }
}

/// One row of the table.
#[derive(Clone, Copy)]
struct Row {
    class: Class,
    unit: Unit,
}

/// The table, indexed by [`Code`].
pub struct Table {
    rows: Vec<Row>,
    early_mmx: bool,
}

impl Table {
    /// Builds the table for a processor with `features`.
    #[must_use]
    pub fn new(features: &FeatureSet) -> Self {
        Self {
            rows: Code::values()
                .map(|code| Row {
                    class: class_of(code, features),
                    unit: unit_of(code),
                })
                .collect(),
            early_mmx: host_is_amd(),
        }
    }

    /// True if MASKMOVQ of this processor has turned the x87 registers into MMX registers (TOP is
    /// 0, all are in use) even when its access faults.
    #[must_use]
    pub fn early_mmx(&self) -> bool {
        self.early_mmx
    }

    /// The class of an instruction. Register forms of BT and the like are `Ident`.
    #[must_use]
    pub fn class(&self, insn: &Instruction) -> Class {
        match self.rows[insn.code() as usize].class {
            // 0F 0D is a hint with a memory operand only.
            Class::Nop
                if matches!(
                    insn.code(),
                    Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D
                ) && insn.op0_kind() == OpKind::Register =>
            {
                Class::Undefined
            }
            Class::BitString if insn.op0_kind() == OpKind::Register => Class::Ident,
            Class::Ident
                if insn.op_count() > 0 && insn.op0_register() == Register::ESP && is_rip(insn) =>
            {
                Class::Undefined
            }
            class => class,
        }
    }

    /// Whether an instruction looks for pending x87 exceptions before it does anything. Intel SDM
    /// vol. 1, 8.6.
    #[must_use]
    pub fn waits(&self, insn: &Instruction) -> bool {
        use Mnemonic as M;
        let never = matches!(
            insn.mnemonic(),
            M::Fnstcw | M::Fnstsw | M::Fnstenv | M::Fnsave | M::Fninit | M::Fnclex
        );
        (matches!(self.unit(insn), Unit::X87 | Unit::Mmx) || mmx_register(insn)) && !never
    }

    /// #NM and #UD that CR0, CR4 and the model imply. Those whose state the monitor saves and loads
    /// check for themselves.
    #[must_use]
    pub fn mode_trap(&self, insn: &Instruction, class: Class, mode: Mode) -> Option<Trap> {
        if class == Class::Undefined {
            return Some(Trap::Undefined);
        }
        if !matches!(class, Class::Ident | Class::MaskMove | Class::MaskedLanes) {
            return None;
        }
        match self.unit(insn) {
            Unit::Integer => None,
            Unit::Wait => mode.wait_traps().then_some(Trap::DeviceNotAvailable),
            Unit::X87 => mode.x87_traps().then_some(Trap::DeviceNotAvailable),
            Unit::Mmx if mode.emulation() => Some(Trap::Undefined),
            Unit::Sse if !mode.sse() => Some(Trap::Undefined),
            Unit::Avx if !mode.avx() => Some(Trap::Undefined),
            Unit::Mmx | Unit::Sse | Unit::Avx => {
                mode.simd_traps().then_some(Trap::DeviceNotAvailable)
            }
        }
    }

    /// The register state an instruction touches.
    #[must_use]
    pub fn unit(&self, insn: &Instruction) -> Unit {
        self.rows[insn.code() as usize].unit
    }
}

/// AMD's MASKMOVQ changes the x87 state before it faults (measured); the manuals say nothing.
fn host_is_amd() -> bool {
    let leaf = core::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx]
        .map(u32::to_le_bytes)
        .concat()
        == b"AuthenticAMD"
}

fn is_rip(insn: &Instruction) -> bool {
    insn.is_ip_rel_memory_operand()
}

fn unit_of(code: Code) -> Unit {
    use CpuidFeature as F;
    use Mnemonic as M;
    let m = code.mnemonic();
    if m == M::Wait {
        return Unit::Wait;
    }
    if m == M::Fisttp {
        return Unit::X87; // it came with SSE3
    }
    if matches!(
        m,
        M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchw
            | M::Prefetch
            | M::Sfence
            | M::Lfence
            | M::Mfence
            | M::Pause
            | M::Movnti
            | M::Clflush
            | M::Clflushopt
            | M::Clwb
            | M::Crc32
            | M::Popcnt
    ) {
        return Unit::Integer;
    }
    let mut unit = Unit::Integer;
    for f in code.cpuid_features() {
        let this = match f {
            F::FPU | F::FPU287 | F::FPU287XL_ONLY | F::FPU387 | F::FPU387SL_ONLY => Unit::X87,
            F::MMX | F::D3NOW | F::D3NOWEXT => Unit::Mmx,
            F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::SSE4A
            | F::AES
            | F::PCLMULQDQ
            | F::SHA
            | F::GFNI => Unit::Sse,
            F::AVX | F::AVX2 | F::F16C | F::FMA | F::FMA4 | F::XOP | F::VAES | F::VPCLMULQDQ => {
                Unit::Avx
            }
            _ => continue,
        };
        unit = match (unit, this) {
            (Unit::Avx, _) | (_, Unit::Avx) => Unit::Avx,
            (Unit::Sse, _) | (_, Unit::Sse) => Unit::Sse,
            _ => this,
        };
    }
    let (mmx, xmm) = vector_operands(code);
    if unit == Unit::Sse && mmx && !xmm {
        return Unit::Mmx; // later instructions on MMX registers need no CR4.OSFXSR
    }
    unit
}

/// Whether an operand is an MMX register.
fn mmx_register(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|n| insn.op_register(n).is_mm())
}

/// Whether an opcode has MMX and XMM operands.
fn vector_operands(code: Code) -> (bool, bool) {
    use OpCodeOperandKind as K;
    let kinds = code.op_code();
    let any = |list: &[K]| kinds.op_kinds().iter().any(|k| list.contains(k));
    (
        any(&[K::mm_reg, K::mm_rm, K::mm_or_mem]),
        any(&[K::xmm_reg, K::xmm_rm, K::xmm_or_mem]),
    )
}

fn class_of(code: Code, features: &FeatureSet) -> Class {
    use Mnemonic as M;
    if code == Code::INVALID {
        return Class::Undefined;
    }
    let oc = code.op_code();
    if !(oc.mode16() || oc.mode32()) {
        return Class::Undefined;
    }
    let m = code.mnemonic();
    match m {
        M::Nop
        | M::Endbr32
        | M::Endbr64
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchit0
        | M::Prefetchit1
        | M::Prefetch
        | M::Cldemote
        | M::Reservednop => return Class::Nop,
        M::Lea => return Class::Lea,
        M::Cld | M::Std => return Class::Direction,
        M::Cli => return Class::Cli,
        M::Sti => return Class::Sti,
        M::Pushf | M::Pushfd => return Class::Pushf,
        M::Popf | M::Popfd => return Class::Popf,
        M::Leave => return Class::Leave,
        M::Push => return Class::Push,
        M::Pop => {
            return match code {
                Code::Pop_r16 | Code::Pop_r32 | Code::Pop_rm16 | Code::Pop_rm32 => Class::Pop,
                _ => Class::Callout,
            };
        }
        M::Bt | M::Bts | M::Btr | M::Btc => {
            return match code {
                Code::Bt_rm16_r16
                | Code::Bt_rm32_r32
                | Code::Bts_rm16_r16
                | Code::Bts_rm32_r32
                | Code::Btr_rm16_r16
                | Code::Btr_rm32_r32
                | Code::Btc_rm16_r16
                | Code::Btc_rm32_r32 => Class::BitString,
                _ => Class::Ident,
            };
        }
        M::Movsb
        | M::Movsw
        | M::Stosb
        | M::Stosw
        | M::Stosd
        | M::Lodsb
        | M::Lodsw
        | M::Lodsd
        | M::Scasb
        | M::Scasw
        | M::Scasd
        | M::Cmpsb
        | M::Cmpsw => return Class::String,
        M::Movsd if code == Code::Movsd_m32_m32 => return Class::String,
        M::Cmpsd if code == Code::Cmpsd_m32_m32 => return Class::String,
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz => return Class::Loop,
        M::Mov => match code {
            Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg => return Class::StoreSelector,
            Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 => return Class::Callout,
            Code::Mov_r32_cr | Code::Mov_r32_dr => return Class::Callout,
            Code::Mov_cr_r32 | Code::Mov_dr_r32 => return Class::CalloutEnd,
            Code::Mov_r32_tr | Code::Mov_tr_r32 => return Class::Undefined,
            _ => {}
        },
        M::Cpuid
        | M::Rdtsc
        | M::Rdtscp
        | M::Rdpmc
        | M::In
        | M::Out
        | M::Clts
        | M::Smsw
        | M::Lgdt
        | M::Lidt
        | M::Sgdt
        | M::Sidt
        | M::Lldt
        | M::Sldt
        | M::Ltr
        | M::Str
        | M::Lar
        | M::Lsl
        | M::Verr
        | M::Verw
        | M::Arpl
        | M::Rdmsr
        | M::Wrmsr
        | M::Aaa
        | M::Aas
        | M::Aam
        | M::Aad
        | M::Daa
        | M::Das
        | M::Salc
        | M::Pusha
        | M::Pushad
        | M::Popa
        | M::Popad
        | M::Enter
        | M::Xlatb
        | M::Bound
        | M::Lds
        | M::Les
        | M::Lss
        | M::Lfs
        | M::Lgs
        | M::Insb
        | M::Insw
        | M::Insd
        | M::Outsb
        | M::Outsw
        | M::Outsd
        | M::Fxsave
        | M::Fxrstor
        | M::Xsave
        | M::Xsaveopt
        | M::Xsavec
        | M::Xsaves
        | M::Xrstor
        | M::Xrstors
        | M::Fnsave
        | M::Fsave
        | M::Frstor
        | M::Fnstenv
        | M::Fstenv
        | M::Fldenv
        | M::Xgetbv
        | M::Rdpid
        | M::Monitor
        | M::Mwait => return Class::Callout,
        M::Hlt
        | M::Lmsw
        | M::Invlpg
        | M::Invd
        | M::Wbinvd
        | M::Wbnoinvd
        | M::Int
        | M::Int1
        | M::Int3
        | M::Into
        | M::Iret
        | M::Iretd
        | M::Sysenter
        | M::Sysexit
        | M::Syscall
        | M::Sysret
        | M::Ud0
        | M::Ud1
        | M::Ud2
        | M::Xsetbv
        | M::Retf
        | M::Rsm
        | M::Invpcid => return Class::CalloutEnd,
        M::Maskmovq | M::Maskmovdqu => return Class::MaskMove,
        M::Vmaskmovdqu if features.has(CpuidFeature::AVX) => return Class::MaskMove,
        M::Vmaskmovps | M::Vmaskmovpd if features.has(CpuidFeature::AVX) => {
            return Class::MaskedLanes;
        }
        M::Jmpe | M::Loadall | M::Vmaskmovdqu => return Class::Undefined,
        _ => {}
    }
    // The decoder's tables call VMRUN, XBEGIN and others branches too.
    let transfer = matches!(m, M::Jmp | M::Call | M::Ret) || code.is_jcc_short_or_near();
    if code.flow_control() != FlowControl::Next && !transfer {
        return Class::Undefined;
    }
    match code.flow_control() {
        FlowControl::UnconditionalBranch => {
            return if code.is_jmp_far() {
                Class::CalloutEnd
            } else {
                Class::Jump
            };
        }
        FlowControl::IndirectBranch => {
            return if code.is_jmp_far_indirect() {
                Class::CalloutEnd
            } else {
                Class::JumpIndirect
            };
        }
        FlowControl::ConditionalBranch => {
            return if code.is_jcc_short_or_near() {
                Class::JumpIf
            } else {
                Class::Undefined
            };
        }
        FlowControl::Call => {
            return if code.is_call_far() {
                Class::CalloutEnd
            } else {
                Class::Call
            };
        }
        FlowControl::IndirectCall => {
            return if code.is_call_far_indirect() {
                Class::CalloutEnd
            } else {
                Class::CallIndirect
            };
        }
        FlowControl::Return => {
            return match m {
                M::Ret => Class::Return,
                _ => Class::Undefined,
            };
        }
        FlowControl::Next => {}
        _ => return Class::Undefined,
    }
    if code.is_privileged() || code.is_stack_instruction() || code.is_save_restore_instruction() {
        return Class::Undefined;
    }
    if !code.cpuid_features().iter().all(|&f| features.has(f)) {
        return Class::Undefined;
    }
    Class::Ident
}

/// Whether a memory operand must be aligned to its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// It need not.
    Free,
    /// If not, #GP(0), unless MXCSR.MM is set (AMD processors).
    UnlessMasked,
    /// If not, #GP(0).
    Required,
}

/// Whether an instruction's memory operand must be aligned. Intel SDM vol. 1, 13.3 (legacy SSE) and
/// 14.9 (VEX); AMD APM vol. 1, 4.2.2 (MXCSR.MM).
#[must_use]
pub fn alignment(insn: &Instruction) -> Alignment {
    use Alignment as A;
    use Mnemonic as M;
    if !(0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
        || insn.memory_size().size() < 16
    {
        return A::Free;
    }
    match insn.mnemonic() {
        M::Movaps
        | M::Movapd
        | M::Movdqa
        | M::Movntdq
        | M::Movntps
        | M::Movntpd
        | M::Movntdqa
        | M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovntdq
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdqa => A::Required,
        M::Movups
        | M::Movupd
        | M::Movdqu
        | M::Lddqu
        | M::Pcmpestri
        | M::Pcmpestrm
        | M::Pcmpistri
        | M::Pcmpistrm => A::Free,
        // The SHA instructions look at the page first (measured); x87 operands have other sizes.
        _ if insn.memory_size().size() == 16
            && matches!(unit_of(insn.code()), Unit::Sse)
            && !insn.cpuid_features().contains(&CpuidFeature::SHA) =>
        {
            A::UnlessMasked
        }
        _ => A::Free,
    }
}
