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
pub fn check_port<E: Env>(st: &mut GuestState, env: &mut E, port: u16, size: u8) -> Result<(), Fault> {
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
