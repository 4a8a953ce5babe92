//! Alignment checks: CR0.AM and EFLAGS.AC in ring 3. Intel SDM vol. 3A, 6.15, interrupt 17.
//!
//! While they are on, [`GuestState::mode`] asks for units of one instruction, and the run loop calls
//! [`before`] ahead of each. What an instruction is about to access is computed from its operands;
//! an access that would fault otherwise is left to the instruction. Code without alignment checks
//! pays nothing.
//!
//! Far calls check the stack themselves, after the selector.

use crate::cpu::cpuid::Vendor;
use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::fpu_env::{enter_mmx, exception_pending};
use crate::cpu::io::check_port;
use crate::cpu::segment::linear;
use crate::vcpu::core::Core;
use crate::vcpu::debug::fetch;
use crate::vcpu::operands::{MemoryAccess, repeats_nothing};
use iced_x86::{Code, Instruction, MemorySize, Mnemonic};
use ring3_translator::classify::{self, Alignment, Class, Unit};
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegReg, gpr};

/// Looks at the instruction at CS:EIP: raises #AC and returns true if it accesses a misaligned
/// operand and nothing comes before that.
pub(super) fn before(st: &mut GuestState, core: &mut Core) -> bool {
    let lin = (st.segment(SegReg::Cs).base as u32).wrapping_add(st.eip());
    let Some(insn) = fetch(st, core, lin) else {
        return false;
    };
    if !checked(st, core, &insn) || !permitted(st, core, &insn) {
        return false;
    }
    let amd = core.model.vendor() == Vendor::Amd;
    let mut accesses = core.debug.memory_of(st, &insn);
    accesses.extend(new_top(st, &insn));
    if insn.is_call_far() || insn.is_call_far_indirect() {
        accesses.retain(|memory| !memory.slot);
    }
    for memory in accesses {
        // ARPL writes only what it changes.
        let access = if memory.writes && insn.mnemonic() != Mnemonic::Arpl {
            Access::Write
        } else {
            Access::Read
        };
        let size = first_part(memory.kind);
        let Ok(at) = linear(st, memory.segment, memory.offset, size, access) else {
            return false;
        };
        if memory.offset.checked_add(size - 1).is_none() {
            return false; // beyond any limit
        }
        let misaligned = at.0 as u32 & (alignment(&insn, memory.kind, amd) - 1) != 0;
        // AMD processors look at the alignment before the page (measured), the SDM's table 6-2 has
        // it the other way round.
        if misaligned && amd {
            if insn.mnemonic() == Mnemonic::Maskmovq && core.translator.table().early_mmx() {
                enter_mmx(st);
            }
            core.raise(st, Fault::with_error(Vector::Ac, 0));
            return true;
        }
        if core.probe(st, at, size, access, Privilege::of(st)).is_err() {
            return false;
        }
        if misaligned {
            core.raise(st, Fault::with_error(Vector::Ac, 0));
            return true;
        }
    }
    false
}

/// Bytes of an operand that are accessed together, at least one: of a far pointer the offset, of
/// bounds the lower one, of an x87 environment the control word.
fn first_part(kind: MemorySize) -> u32 {
    use MemorySize as S;
    match kind {
        S::SegPtr16 | S::Bound16_WordWord | S::FpuEnv14 => 2,
        S::SegPtr32 | S::Bound32_DwordDword | S::Fword6 | S::FpuEnv28 => 4,
        _ => (kind.size() as u32).max(1),
    }
}

/// ENTER looks at the place of the new stack pointer too (measured).
fn new_top(st: &GuestState, insn: &Instruction) -> Option<MemoryAccess> {
    if insn.mnemonic() != Mnemonic::Enter {
        return None;
    }
    let wide = insn.code() == Code::Enterd_imm16_imm8;
    let (kind, size) = if wide {
        (MemorySize::UInt32, 4)
    } else {
        (MemorySize::UInt16, 2)
    };
    let level = u32::from(insn.immediate8_2nd()) % 32;
    let down = (level + 1) * size + u32::from(insn.immediate16());
    let offset = st.reg32(gpr::SP).wrapping_sub(down);
    Some(MemoryAccess {
        segment: SegReg::Ss,
        offset: if st.mode().stack32() {
            offset
        } else {
            offset & 0xffff
        },
        kind,
        writes: true,
        slot: true,
    })
}

/// Privileged instructions raise #GP before they look at an operand; so do INS and OUTS without the
/// right to their port.
fn permitted(st: &mut GuestState, core: &mut Core, insn: &Instruction) -> bool {
    use Mnemonic as M;
    let size = match insn.mnemonic() {
        M::Insb | M::Outsb => 1,
        M::Insw | M::Outsw => 2,
        M::Insd | M::Outsd => 4,
        _ => return !insn.is_privileged(),
    };
    let port = st.reg16(gpr::DX);
    st.broken(Mutation::PortAlignment) || check_port(st, core, port, size).is_ok()
}

/// Whether an instruction gets as far as its operands, accesses them as ring 3, and has no rule of
/// its own for their alignment.
fn checked(st: &GuestState, core: &Core, insn: &Instruction) -> bool {
    use Mnemonic as M;
    let (mode, table) = (st.mode(), core.translator.table());
    let class = table.class(insn);
    let state = insn.is_save_restore_instruction();
    let unavailable = table.mode_trap(insn, class, mode).is_some()
        || (class == Class::Callout && table.unit(insn) == Unit::X87 && mode.x87_traps())
        || (class == Class::Callout && state && mode.simd_traps())
        || (table.waits(insn) && exception_pending(st));
    let aligned = match classify::alignment(insn) {
        Alignment::Free => false,
        Alignment::UnlessMasked => !st.misalignment_masked(),
        Alignment::Required => true,
    };
    // What INT does is not done with ring 3's rights.
    let interrupt = matches!(insn.mnemonic(), M::Int | M::Int1 | M::Int3 | M::Into);
    !matches!(class, Class::Nop | Class::TooLong | Class::MaskedLanes)
        && (!unavailable || st.broken(Mutation::AlignmentOrder))
        && !interrupt
        && !aligned
        && !repeats_nothing(st, insn)
}

/// The alignment that an operand must have, in bytes. Intel SDM vol. 3A, table 6-7. Operands of 16
/// bytes and more that may be misaligned are checked by AMD processors only; what masks choose is
/// not, but for MASKMOVDQU (measured).
fn alignment(insn: &Instruction, size: MemorySize, amd: bool) -> u32 {
    use MemorySize as S;
    match size {
        _ if matches!(
            insn.mnemonic(),
            Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu
        ) =>
        {
            8
        }
        S::SegPtr16 | S::Bound16_WordWord | S::FpuEnv14 | S::FpuState94 => 2,
        S::SegPtr32 | S::Bound32_DwordDword | S::Fword6 | S::FpuEnv28 | S::FpuState108 => 4,
        S::Float80 | S::Bcd => 8,
        S::Fxsave_512Byte if amd => 16,
        _ => match size.size() as u32 {
            n @ (2 | 4 | 8) => n,
            16 | 32 if amd => 16,
            _ => 1,
        },
    }
}
