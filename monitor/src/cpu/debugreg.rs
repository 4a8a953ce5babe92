//! MOV to and from debug registers. Intel SDM vol. 3B, 18.2 (debug registers).

use crate::cpu::control::require_cpl0;
use crate::cpu::execute::Flow;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::operand;
use iced_x86::{Instruction, Register};
use ring3_translator::state::{GuestState, cr4, dr6, dr7};

/// DR6 bits that software sets and clears.
const DR6_WRITABLE: u64 = dr6::B | dr6::BD | dr6::BS | dr6::BT;
/// DR7 bits that software sets and clears; 11, 12, 14 and 15 read as zero.
const DR7_WRITABLE: u64 = 0xffff_23ff;

/// The number of the register to access, with DR4 and DR5 resolved.
/// CR4.DE set and DR4 or DR5: #UD. CPL not 0: #GP(0). DR7.GD set: #DB with DR6.BD.
fn checked_number(st: &mut GuestState, reg: Register) -> Result<usize, Fault> {
    let mut n = (reg as usize).wrapping_sub(Register::DR0 as usize);
    if n > 7 || (matches!(n, 4 | 5) && st.cr4 & cr4::DE != 0) {
        return Err(Fault::ud());
    }
    if matches!(n, 4 | 5) {
        n += 2;
    }
    require_cpl0(st)?;
    if st.dr[7] & dr7::GD != 0 {
        st.dr[6] |= dr6::BD;
        return Err(Fault::plain(Vector::Db));
    }
    Ok(n)
}

/// MOV r32, DRn.
/// # Errors
/// #UD, #GP(0) or #DB: see the manual's table for MOV (debug registers).
pub fn mov_from_dr(st: &mut GuestState, insn: &Instruction) -> Result<Flow, Fault> {
    let n = checked_number(st, insn.op1_register())?;
    let value = st.dr[n] as u32;
    operand::set_register(st, insn.op0_register(), value);
    Ok(Flow::Next)
}

/// MOV DRn, r32.
/// # Errors
/// As [`mov_from_dr`].
pub fn mov_to_dr(st: &mut GuestState, insn: &Instruction) -> Result<Flow, Fault> {
    let n = checked_number(st, insn.op0_register())?;
    let value = u64::from(operand::register(st, insn.op1_register()));
    st.dr[n] = match n {
        6 => (value & DR6_WRITABLE) | dr6::ONES,
        7 => (value & DR7_WRITABLE) | dr7::ONES,
        _ => value,
    };
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::execute::tests::{faults, run};
    use crate::cpu::testenv::machine;
    use ring3_translator::state::gpr;

    #[test]
    fn reserved_bits_are_fixed_and_dr4_dr5_are_aliases() {
        let (mut st, mut env) = machine();
        for (value, dr6, dr7) in [
            (u32::MAX, 0xffff_efff, 0xffff_27ff),
            (0, 0xffff_0ff0, 0x400),
        ] {
            st.set_reg32(gpr::AX, value);
            st.dr[7] = dr7::ONES;
            assert_eq!(run(&mut st, &mut env, &[0x0f, 0x23, 0xe0]), Ok(Flow::Next)); // mov dr4, eax
            assert_eq!(run(&mut st, &mut env, &[0x0f, 0x23, 0xd8]), Ok(Flow::Next)); // mov dr3, eax
            assert_eq!(run(&mut st, &mut env, &[0x0f, 0x23, 0xe8]), Ok(Flow::Next)); // mov dr5, eax
            assert_eq!((st.dr[6], st.dr[7], st.dr[3]), (dr6, dr7, u64::from(value)));
        }
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x21, 0xe1]), Ok(Flow::Next)); // mov ecx, dr4
        assert_eq!(st.reg32(gpr::CX), 0xffff_0ff0);
        st.cr4 = cr4::DE;
        faults(&mut st, &mut env, &[0x0f, 0x21, 0xe1], Fault::ud());
        faults(&mut st, &mut env, &[0x0f, 0x23, 0xe8], Fault::ud());
    }

    #[test]
    fn general_detect_raises_db_before_the_access() {
        let (mut st, mut env) = machine();
        st.dr[7] = dr7::ONES | dr7::GD;
        st.set_reg32(gpr::AX, 0x1234);
        assert_eq!(
            run(&mut st, &mut env, &[0x0f, 0x23, 0xc0]),
            Err(Fault::plain(Vector::Db))
        );
        assert_eq!((st.dr[0], st.dr[6]), (0, dr6::ONES | dr6::BD));
    }
}
