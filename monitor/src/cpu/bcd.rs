//! Decimal adjustment and other one-byte relics: AAA, AAS, AAM, AAD, DAA, DAS, SALC, XLAT, and
//! BOUND's comparison. Intel SDM vol. 2, each entry. Flags that the manual leaves undefined get
//! what processors do: SF, ZF and PF of the result, others cleared.

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::flagsops::{result_flags, set_flags};
use crate::cpu::operand;
use iced_x86::{Instruction, Register};
use ring3_translator::state::{GuestState, SegReg, eflags, gpr};

const AL: usize = 0;
const AH: usize = 4;
const ALL: u32 = eflags::CF | eflags::PF | eflags::AF | eflags::ZF | eflags::SF | eflags::OF;

fn flag(st: &GuestState, mask: u32) -> bool {
    st.arith_flags as u32 & mask != 0
}

fn finish(st: &mut GuestState, carry: u32) -> Flow {
    let flags = result_flags(u32::from(st.reg8(AL)), 8) | carry;
    set_flags(st, ALL, flags);
    Flow::Next
}

/// AAA.
pub fn aaa(st: &mut GuestState) -> Flow {
    let adjust = st.reg8(AL) & 0xf > 9 || flag(st, eflags::AF);
    if adjust {
        let ax = st.reg16(gpr::AX).wrapping_add(0x106);
        st.set_reg16(gpr::AX, ax);
    }
    let al = st.reg8(AL) & 0xf;
    st.set_reg8(AL, al);
    finish(st, if adjust { eflags::AF | eflags::CF } else { 0 })
}

/// AAS.
pub fn aas(st: &mut GuestState) -> Flow {
    let adjust = st.reg8(AL) & 0xf > 9 || flag(st, eflags::AF);
    if adjust {
        let ax = st.reg16(gpr::AX).wrapping_sub(0x106);
        st.set_reg16(gpr::AX, ax);
    }
    let al = st.reg8(AL) & 0xf;
    st.set_reg8(AL, al);
    finish(st, if adjust { eflags::AF | eflags::CF } else { 0 })
}

/// AAM with divisor `base`.
/// # Errors
/// #DE if `base` is 0.
pub fn aam(st: &mut GuestState, base: u8) -> Result<Flow, Fault> {
    let al = st.reg8(AL);
    let (Some(high), Some(low)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(Fault::plain(Vector::De));
    };
    st.set_reg8(AH, high);
    st.set_reg8(AL, low);
    Ok(finish(st, 0))
}

/// AAD with factor `base`.
pub fn aad(st: &mut GuestState, base: u8) -> Flow {
    let al = st.reg8(AL).wrapping_add(st.reg8(AH).wrapping_mul(base));
    st.set_reg16(gpr::AX, u16::from(al));
    finish(st, 0)
}

/// DAA and DAS: `subtract` chooses.
fn decimal(st: &mut GuestState, subtract: bool) -> Flow {
    let old = st.reg8(AL);
    let old_cf = flag(st, eflags::CF);
    let low = old & 0xf > 9 || flag(st, eflags::AF);
    let high = old > 0x99 || old_cf;
    let change = if low { 6u8 } else { 0 };
    let (step, borrow) = if subtract {
        old.overflowing_sub(change)
    } else {
        old.overflowing_add(change)
    };
    // The low digit's own carry counts: it sets CF even where the high digit needs no adjustment.
    let mut carry = if low && (old_cf || borrow) { eflags::CF } else { 0 };
    if low {
        carry |= eflags::AF;
    }
    let mut al = step;
    if high {
        al = if subtract {
            al.wrapping_sub(0x60)
        } else {
            al.wrapping_add(0x60)
        };
        carry |= eflags::CF;
    } else if !subtract {
        carry &= !eflags::CF; // DAA clears CF where the high digit was fine
    }
    st.set_reg8(AL, al);
    finish(st, carry)
}

/// DAA.
pub fn daa(st: &mut GuestState) -> Flow {
    decimal(st, false)
}

/// DAS.
pub fn das(st: &mut GuestState) -> Flow {
    decimal(st, true)
}

/// SALC: AL = CF ? FFH : 0 (AMD64 APM vol. 3 lists it as undocumented; every processor has it).
pub fn salc(st: &mut GuestState) -> Flow {
    let value = if flag(st, eflags::CF) { 0xff } else { 0 };
    st.set_reg8(AL, value);
    Flow::Next
}

/// XLAT: AL = [rBX + AL].
/// # Errors
/// Memory faults.
pub fn xlat<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    let seg = operand::segment_register(insn.memory_segment());
    let al = u32::from(st.reg8(AL));
    let offset = if insn.memory_base() == Register::BX {
        u32::from(st.reg16(gpr::BX)).wrapping_add(al) & 0xffff
    } else {
        st.reg32(gpr::BX).wrapping_add(al)
    };
    let value = operand::load(st, env, seg, offset, 1)?;
    st.set_reg8(AL, value as u8);
    Ok(Flow::Next)
}

/// BOUND; `size` is 2 or 4.
/// # Errors
/// #BR if the signed index is outside the bounds; memory faults.
pub fn bound<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: usize,
) -> Result<Flow, Fault> {
    let (seg, offset): (SegReg, u32) = operand::address(st, insn);
    let pair = operand::load(st, env, seg, offset, size * 2)?;
    let index = operand::register(st, insn.op0_register());
    let (index, lower, upper) = if size == 4 {
        (index as i32, pair as i32, (pair >> 32) as i32)
    } else {
        (
            i32::from(index as i16),
            i32::from(pair as i16),
            i32::from((pair >> 16) as i16),
        )
    };
    if index < lower || index > upper {
        Err(Fault::plain(Vector::Br))
    } else {
        Ok(Flow::Next)
    }
}

/// CMPXCHG8B: compares EDX:EAX with memory; equal: stores ECX:EBX and sets ZF, else loads EDX:EAX
/// and clears ZF. Memory is written in both cases, as the manual says.
/// # Errors
/// Memory faults, those of a write also where the comparison fails.
pub fn cmpxchg8b<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    let (seg, offset) = operand::address(st, insn);
    operand::probe_store(st, env, seg, offset, 8)?;
    let old = operand::load(st, env, seg, offset, 8)?;
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let equal = old == pair(st.reg32(gpr::DX), st.reg32(gpr::AX));
    let new = if equal {
        pair(st.reg32(gpr::CX), st.reg32(gpr::BX))
    } else {
        old
    };
    operand::store(st, env, seg, offset, 8, new)?;
    if !equal {
        st.set_reg32(gpr::AX, old as u32);
        st.set_reg32(gpr::DX, (old >> 32) as u32);
    }
    set_flags(st, eflags::ZF, if equal { eflags::ZF } else { 0 });
    Ok(Flow::Next)
}
