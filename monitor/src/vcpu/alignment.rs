//! Alignment checks: CR0.AM and EFLAGS.AC in ring 3. Intel SDM vol. 3A, 6.15, interrupt 17.
//!
//! While they are on, [`GuestState::mode`] asks for units of one instruction, and the run loop calls
//! [`before`] ahead of each. What an instruction is about to access is computed from its operands;
//! an access that would fault otherwise is left to the instruction, since #GP, #SS and #PF come
//! first. Code without alignment checks pays nothing.
//!
//! Left out: INS and OUTS without the right to the port, which raise #AC where #GP is due.

use crate::cpu::cpuid::Vendor;
use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::fpu_env::{enter_mmx, exception_pending};
use crate::cpu::operand::segment_register;
use crate::cpu::segment::linear;
use crate::vcpu::core::Core;
use crate::vcpu::debug::{fetch, operand_size, repeats_nothing, value};
use iced_x86::{Instruction, MemorySize, Mnemonic, OpAccess};
use ring3_translator::classify::{Class, Unit, requires_alignment};
use ring3_translator::state::{GuestState, SegReg};

/// Looks at the instruction at CS:EIP: raises #AC and returns true if it accesses a misaligned
/// operand and nothing comes before that.
pub(super) fn before(st: &mut GuestState, core: &mut Core) -> bool {
    let lin = (st.segment(SegReg::Cs).base as u32).wrapping_add(st.eip());
    let Some(insn) = fetch(st, core, lin) else {
        return false;
    };
    if !checked(st, core, &insn) {
        return false;
    }
    let amd = core.model.vendor() == Vendor::Amd;
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
        let size = (kind.size() as u32).max(1);
        let Ok(at) = linear(st, segment, offset as u32, size, access) else {
            return false;
        };
        if (at.0 as u32).checked_add(size - 1).is_none() {
            return false; // beyond 4 GiB: the segment's affair
        }
        let misaligned = at.0 as u32 & (alignment(&insn, kind, amd) - 1) != 0;
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
    // What INT does is not done with ring 3's rights.
    let interrupt = matches!(insn.mnemonic(), M::Int | M::Int1 | M::Int3 | M::Into);
    !matches!(class, Class::Nop | Class::TooLong | Class::MaskedLanes)
        && !unavailable
        && !interrupt
        && !insn.is_privileged()
        && !requires_alignment(insn)
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
        _ => match size.size() as u32 {
            n @ (2 | 4 | 8) => n,
            n @ (16 | 32) if amd => n,
            _ => 1,
        },
    }
}
