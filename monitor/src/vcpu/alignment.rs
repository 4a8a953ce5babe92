//! Alignment checks: CR0.AM and EFLAGS.AC in ring 3. Intel SDM vol. 3A, 6.15, interrupt 17.
//!
//! While they are on, [`GuestState::mode`] asks for units of one instruction, and the run loop calls
//! [`before`] ahead of each. What an instruction is about to access is computed from its operands;
//! an access that would fault otherwise is left to the instruction, since #GP, #SS and #PF come
//! first. Code without alignment checks pays nothing.
//!
//! Left out: INS and OUTS without the right to the port, which raise #AC where #GP is due.

use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::operand::segment_register;
use crate::cpu::segment::linear;
use crate::vcpu::core::Core;
use crate::vcpu::debug::{fetch, operand_size, repeats_nothing, value};
use iced_x86::{CpuidFeature, Instruction, MemorySize, Mnemonic, OpAccess};
use ring3_translator::state::GuestState;

/// Looks at the instruction at CS:EIP: raises #AC and returns true if it accesses a misaligned
/// operand and nothing comes before that.
pub(super) fn before(st: &mut GuestState, core: &mut Core) -> bool {
    let lin = (st.segment(ring3_translator::state::SegReg::Cs).base as u32).wrapping_add(st.eip());
    let Some(insn) = fetch(st, core, lin) else {
        return false;
    };
    if !checked(st, &insn) {
        return false;
    }
    let accesses: Vec<_> = core.debug.accesses_of(&insn).collect();
    for memory in accesses {
        let access = match memory.access() {
            OpAccess::Read | OpAccess::CondRead => Access::Read,
            OpAccess::None | OpAccess::NoMemAccess => continue,
            _ => Access::Write,
        };
        let segment = segment_register(memory.segment());
        let offset = memory.virtual_address(0, |reg, _, _| {
            if reg.is_segment_register() {
                Some(0)
            } else {
                value(st, reg)
            }
        });
        let Some(offset) = offset else {
            continue;
        };
        let kind = operand_size(&insn, &memory);
        let size = kind.size() as u32;
        let Ok(at) = linear(st, segment, offset as u32, size.max(1), access) else {
            return false;
        };
        let who = Privilege::of(st);
        if core.probe(st, at, size.max(1), access, who).is_err() {
            return false;
        }
        if at.0 as u32 & (alignment(kind) - 1) != 0 {
            core.raise(st, Fault::with_error(Vector::Ac, 0));
            return true;
        }
    }
    false
}

/// Whether an instruction gets as far as its operands, and accesses them as ring 3.
fn checked(st: &GuestState, insn: &Instruction) -> bool {
    use Mnemonic as M;
    let mode = st.mode();
    let features = insn.cpuid_features();
    let x87 = features.contains(&CpuidFeature::FPU);
    let simd = !x87 && !features.iter().all(|f| is_integer(*f));
    let unavailable = (x87 && mode.x87_traps()) || (simd && mode.simd_traps());
    // What INT does is not done with ring 3's rights.
    let interrupt = matches!(insn.mnemonic(), M::Int | M::Int1 | M::Int3 | M::Into);
    !unavailable && !interrupt && !insn.is_privileged() && !repeats_nothing(st, insn)
}

const fn is_integer(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL8086_ONLY
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::CMOV
            | F::CX8
            | F::MOVBE
            | F::POPCNT
            | F::BMI1
            | F::BMI2
            | F::ADX
            | F::LZCNT
    )
}

/// The alignment that an operand must have, in bytes. Intel SDM vol. 3A, table 6-7. Operands of 16
/// bytes and more have rules of their own (vol. 2, 2.4) and raise #GP or nothing.
fn alignment(size: MemorySize) -> u32 {
    use MemorySize as S;
    match size {
        S::SegPtr16 | S::Bound16_WordWord | S::FpuEnv14 | S::FpuState94 => 2,
        S::SegPtr32 | S::Bound32_DwordDword | S::Fword6 | S::FpuEnv28 | S::FpuState108 => 4,
        S::Float80 | S::Bcd => 8,
        _ => match size.size() {
            2 => 2,
            4 => 4,
            8 => 8,
            _ => 1,
        },
    }
}
