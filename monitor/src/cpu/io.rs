//! IN and OUT. Intel SDM vol. 1, 19.5 (I/O protection); vol. 2, each entry. INS and OUTS are with
//! the string instructions.

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::task;
use iced_x86::{Instruction, OpKind};
use ring3_translator::state::{GuestState, gpr};

/// In protected mode with CPL above IOPL, and always in V86 mode: if a permission bit of the
/// port's bytes is set or outside the TSS, #GP(0).
/// # Errors
/// That fault, or a page fault on the TSS.
pub fn check_port<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    port: u16,
    size: u8,
) -> Result<(), Fault> {
    let by_bitmap = st.protected() && (st.cpl > st.iopl() || st.v86());
    if by_bitmap && !task::io_permitted(st, env, port, size)? {
        return Err(Fault::gp(0));
    }
    Ok(())
}

fn port_operand(st: &GuestState, insn: &Instruction, op: u32) -> u16 {
    if insn.op_kind(op) == OpKind::Register {
        st.reg16(gpr::DX)
    } else {
        u16::from(insn.immediate8())
    }
}

/// IN; `size` is 1, 2 or 4.
/// # Errors
/// #GP(0) if the port is not permitted.
pub fn port_in<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u8,
) -> Result<Flow, Fault> {
    let port = port_operand(st, insn, 1);
    check_port(st, env, port, size)?;
    let value = env.port_in(port, size);
    match size {
        1 => st.set_reg8(gpr::AX, value as u8),
        2 => st.set_reg16(gpr::AX, value as u16),
        _ => st.set_reg32(gpr::AX, value),
    }
    Ok(Flow::Next)
}

/// OUT; `size` is 1, 2 or 4.
/// # Errors
/// #GP(0) if the port is not permitted.
pub fn port_out<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u8,
) -> Result<Flow, Fault> {
    let port = port_operand(st, insn, 0);
    check_port(st, env, port, size)?;
    let value = match size {
        1 => u32::from(st.reg8(gpr::AX)),
        2 => u32::from(st.reg16(gpr::AX)),
        _ => st.reg32(gpr::AX),
    };
    env.port_out(port, size, value);
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::execute::tests::{faults, run};
    use crate::cpu::testenv::{TSS_BASE, machine, set_ring, set_v86};
    use ring3_translator::state::eflags;

    #[test]
    fn every_form_moves_its_width() {
        let (mut st, mut env) = machine();
        env.port_values = vec![(0x1f0, 0x1122_3344), (0x60, 0x55)];
        st.set_reg32(gpr::DX, 0xffff_01f0);
        let cases: [(&[u8], u32); 4] = [
            (&[0xec], 0xaaaa_aa44),
            (&[0x66, 0xed], 0xaaaa_3344),
            (&[0xed], 0x1122_3344),
            (&[0xe4, 0x60], 0xaaaa_aa55),
        ];
        for (code, eax) in cases {
            st.set_reg32(gpr::AX, 0xaaaa_aaaa);
            assert_eq!(run(&mut st, &mut env, code), Ok(Flow::Next));
            assert_eq!(st.reg32(gpr::AX), eax, "{code:02x?}");
        }
        env.port_log.clear();
        st.set_reg32(gpr::AX, 0x8877_6655);
        for code in [
            &[0xee][..],
            &[0x66, 0xef],
            &[0xef],
            &[0xe6, 0x80],
            &[0x66, 0xe7, 0x80],
            &[0xe7, 0x80],
        ] {
            assert_eq!(run(&mut st, &mut env, code), Ok(Flow::Next));
        }
        let (a, b, c) = (Some(0x55), Some(0x6655), Some(0x8877_6655));
        let expected = [
            (0x1f0, 1, a),
            (0x1f0, 2, b),
            (0x1f0, 4, c),
            (0x80, 1, a),
            (0x80, 2, b),
            (0x80, 4, c),
        ];
        assert_eq!(env.port_log, expected);
    }

    #[test]
    fn above_iopl_and_in_v8086_mode_the_bitmap_decides() {
        let (mut st, mut env) = machine();
        env.put(TSS_BASE + 0x88, &[0xff; 0x2001]);
        env.put(TSS_BASE + 0x88 + 0x60 / 8, &[0xfe]); // port 60h
        set_ring(&mut st, 3);
        assert_eq!(run(&mut st, &mut env, &[0xe4, 0x60]), Ok(Flow::Next));
        faults(&mut st, &mut env, &[0xe4, 0x61], Fault::gp(0));
        faults(&mut st, &mut env, &[0x66, 0xe5, 0x60], Fault::gp(0)); // the second byte is 61h
        faults(&mut st, &mut env, &[0xe6, 0x61], Fault::gp(0));
        faults(&mut st, &mut env, &[0x6c], Fault::gp(0)); // insb from port 0
        st.sys_flags |= eflags::IOPL;
        assert_eq!(run(&mut st, &mut env, &[0xe4, 0x61]), Ok(Flow::Next));
        set_v86(&mut st);
        st.rip = 0x100;
        faults(&mut st, &mut env, &[0xe4, 0x61], Fault::gp(0));
        assert_eq!(run(&mut st, &mut env, &[0xe4, 0x60]), Ok(Flow::Next));
        assert_eq!(env.port_log.len(), 3);
    }
}
