//! Decimal adjustment and other one-byte relics: AAA, AAS, AAM, AAD, DAA, DAS, SALC, XLAT, and
//! BOUND's comparison. Intel SDM vol. 2, each entry. Flags that the manual leaves undefined get
//! what processors do: SF, ZF and PF of the result, others cleared.

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::flagsops::{result_flags, set_flags};
use crate::cpu::operand;
use iced_x86::{Instruction, Register};
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegReg, eflags, gpr};

const AL: usize = 0;
const AH: usize = 4;
const ALL: u32 = eflags::CF | eflags::PF | eflags::AF | eflags::ZF | eflags::SF | eflags::OF;

fn flag(st: &GuestState, mask: u32) -> bool {
    st.arith_flags as u32 & mask != 0
}

fn finish(st: &mut GuestState, carry: u32) -> Flow {
    if st.broken(Mutation::AamFlags) {
        return Flow::Next;
    }
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
    let old_cf = flag(st, eflags::CF) && !st.broken(Mutation::DecimalCarry);
    let low = old & 0xf > 9 || flag(st, eflags::AF);
    let high = old > 0x99 || old_cf;
    let change = if low { 6u8 } else { 0 };
    let (step, borrow) = if subtract {
        old.overflowing_sub(change)
    } else {
        old.overflowing_add(change)
    };
    // The low digit's own carry counts: it sets CF even where the high digit needs no adjustment.
    let mut carry = if low && (old_cf || borrow) {
        eflags::CF
    } else {
        0
    };
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
    let wrap = if st.broken(Mutation::XlatWrap) {
        u32::MAX
    } else {
        0xffff
    };
    let offset = if insn.memory_base() == Register::BX {
        u32::from(st.reg16(gpr::BX)).wrapping_add(al) & wrap
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
pub fn cmpxchg8b<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::execute::tests::{faults, run};
    use crate::cpu::testenv::machine;
    use eflags::{AF, CF, PF, SF, ZF};

    #[test]
    fn decimal_adjustment_follows_the_manual() {
        // opcode, AX and flags before, AX and the defined flags after.
        type Case = (&'static [u8], u32, u32, u32, u32, u32);
        let cases: [Case; 18] = [
            (&[0x27], 0xae, 0, 0x14, AF | CF | PF, AF | CF | PF | ZF | SF), // daa (manual's example)
            (
                &[0x27],
                0x2e,
                CF,
                0x94,
                AF | CF | SF,
                AF | CF | PF | ZF | SF,
            ),
            (
                &[0x27],
                0x9a,
                0,
                0x00,
                AF | CF | ZF | PF,
                AF | CF | PF | ZF | SF,
            ),
            (&[0x27], 0x15, 0, 0x15, 0, AF | CF | PF | ZF | SF),
            (&[0x27], 0x15, AF, 0x1b, AF | PF, AF | CF | PF | ZF | SF),
            (
                &[0x2f],
                0xee,
                0,
                0x88,
                AF | CF | SF | PF,
                AF | CF | PF | ZF | SF,
            ), // das
            (
                &[0x2f],
                0x03,
                AF,
                0xfd,
                AF | CF | SF,
                AF | CF | PF | ZF | SF,
            ),
            (&[0x2f], 0x42, 0, 0x42, PF, AF | CF | PF | ZF | SF),
            (&[0x37], 0x000a, 0, 0x0100, AF | CF, AF | CF), // aaa
            (&[0x37], 0x00fc, 0, 0x0202, AF | CF, AF | CF), // carry into AH as in AX + 106H
            (&[0x37], 0x0535, 0, 0x0505, 0, AF | CF),
            (&[0x3f], 0x020f, 0, 0x0109, AF | CF, AF | CF), // aas
            (&[0x3f], 0x0003, AF, 0xfe0d, AF | CF, AF | CF), // borrow into AH as in AX - 106H
            (&[0x3f], 0x0235, 0, 0x0205, 0, AF | CF),
            (&[0xd4, 10], 0x00ff, 0, 0x1905, PF, PF | ZF | SF), // aam
            (&[0xd4, 16], 0x1280, 0, 0x0800, ZF | PF, PF | ZF | SF),
            (&[0xd5, 10], 0x0905, 0, 0x005f, PF, PF | ZF | SF), // aad
            (&[0xd5, 16], 0x0f0f, 0, 0x00ff, PF | SF, PF | ZF | SF),
        ];
        for (code, ax, flags, expected, out, defined) in cases {
            let (mut st, mut env) = machine();
            st.set_reg32(gpr::AX, 0xabcd_0000 | ax);
            st.arith_flags = u64::from(flags);
            assert_eq!(run(&mut st, &mut env, code), Ok(Flow::Next));
            assert_eq!(
                st.reg32(gpr::AX),
                0xabcd_0000 | expected,
                "{code:02x?} {ax:x}"
            );
            assert_eq!(st.eflags() & defined, out, "{code:02x?} {ax:x}");
        }
    }

    #[test]
    fn aam_by_zero_is_a_divide_error() {
        let (mut st, mut env) = machine();
        faults(&mut st, &mut env, &[0xd4, 0], Fault::plain(Vector::De));
    }

    #[test]
    fn salc_and_xlat() {
        let (mut st, mut env) = machine();
        st.arith_flags = u64::from(CF);
        assert_eq!(run(&mut st, &mut env, &[0xd6]), Ok(Flow::Next));
        assert_eq!(st.reg8(0), 0xff);
        st.set_reg32(gpr::BX, 0x1_5001);
        env.put(0x1_5100, &[0x77]);
        env.put(0x5100, &[0x66]);
        assert_eq!(run(&mut st, &mut env, &[0xd7]), Ok(Flow::Next));
        assert_eq!(st.reg8(0), 0x77);
        st.set_reg8(0, 0xff);
        assert_eq!(run(&mut st, &mut env, &[0x67, 0xd7]), Ok(Flow::Next)); // [bx+al]
        assert_eq!(st.reg8(0), 0x66);
    }

    #[test]
    fn bound_compares_signed() {
        let (mut st, mut env) = machine();
        env.put32(0x5000, -2i32 as u32);
        env.put32(0x5004, 5);
        let code = [0x62, 0x05, 0x00, 0x50, 0, 0];
        for (index, inside) in [(-2i32, true), (5, true), (-3, false), (6, false)] {
            st.set_reg32(gpr::AX, index as u32);
            if inside {
                assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next));
            } else {
                faults(&mut st, &mut env, &code, Fault::plain(Vector::Br));
            }
        }
        env.put32(0x5000, 0x0005_fffe);
        st.set_reg32(gpr::AX, 0x1234_ffff);
        let code16 = [0x66, 0x62, 0x05, 0x00, 0x50, 0, 0];
        assert_eq!(run(&mut st, &mut env, &code16), Ok(Flow::Next));
    }

    #[test]
    fn cmpxchg8b_stores_or_loads_and_needs_write_access() {
        let (mut st, mut env) = machine();
        env.put64(0x5000, 0x1111_2222_3333_4444);
        st.set_reg32(gpr::BX, 0xbbbb_bbbb);
        st.set_reg32(gpr::CX, 0xcccc_cccc);
        let code = [0x0f, 0xc7, 0x0d, 0x00, 0x50, 0, 0];
        assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next));
        assert_eq!(
            (st.reg32(gpr::DX), st.reg32(gpr::AX)),
            (0x1111_2222, 0x3333_4444)
        );
        assert_eq!(st.eflags() & ZF, 0);
        assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next));
        assert_eq!(
            (env.get64(0x5000), st.eflags() & ZF),
            (0xcccc_cccc_bbbb_bbbb, ZF)
        );
        env.read_only_pages.push(0x5000);
        faults(&mut st, &mut env, &code, Fault::page(0x5000, 3));
    }
}
