//! Near transfers with every check: CALL, RET, JMP, Jcc, LOOP and JCXZ. Intel SDM vol. 2, each
//! entry. A target beyond the code segment's limit raises #GP(0) before anything changes.

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::flagsops::condition;
use crate::cpu::operand;
use crate::cpu::stackops::StackPointer;
use iced_x86::{Instruction, Mnemonic, OpKind};
use ring3_translator::lower::condition_number;
use ring3_translator::state::{GuestState, SegReg, eflags, gpr};

/// If the target is outside the code segment limit: #GP(0).
fn check_target(st: &GuestState, target: u32) -> Result<(), Fault> {
    if target > st.segment(SegReg::Cs).limit {
        Err(Fault::gp(0))
    } else {
        Ok(())
    }
}

fn target<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<u32, Fault> {
    let target = match insn.op0_kind() {
        OpKind::NearBranch16 => u32::from(insn.near_branch16()),
        OpKind::NearBranch32 => insn.near_branch32(),
        _ => operand::read_rm(st, env, insn, 0, size as usize)?,
    };
    let target = if size == 2 { target & 0xffff } else { target };
    check_target(st, target)?;
    Ok(target)
}

/// Near JMP, direct or indirect; `size` is 2 or 4.
/// # Errors
/// #GP(0) for a target beyond CS; operand faults.
pub fn jmp<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let target = target(st, env, insn, size)?;
    st.rip = u64::from(target);
    Ok(Flow::Jump)
}

/// Near CALL, direct or indirect; `size` is 2 or 4.
/// # Errors
/// #GP(0) for a target beyond CS; operand and stack faults.
pub fn call<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let target = target(st, env, insn, size)?;
    let mut sp = StackPointer::of(st);
    sp.push(st, env, size, insn.next_ip32())?;
    sp.commit(st);
    st.rip = u64::from(target);
    Ok(Flow::Jump)
}

/// Near RET with or without an immediate; `size` is 2 or 4.
/// # Errors
/// #GP(0) for a target beyond CS; stack faults.
pub fn ret<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let mut sp = StackPointer::of(st);
    let target = sp.pop(st, env, size)?;
    check_target(st, target)?;
    if insn.op_count() == 1 {
        sp.add(u32::from(insn.immediate16()));
    }
    sp.commit(st);
    st.rip = u64::from(target);
    Ok(Flow::Jump)
}

fn take(st: &mut GuestState, insn: &Instruction) -> Result<Flow, Fault> {
    let target = match insn.op0_kind() {
        OpKind::NearBranch16 => u32::from(insn.near_branch16()),
        _ => insn.near_branch32(),
    };
    check_target(st, target)?;
    st.rip = u64::from(target);
    Ok(Flow::Jump)
}

/// Jcc with condition code `cc` (0-15).
/// # Errors
/// #GP(0) if taken to a target beyond CS.
pub fn jcc(st: &mut GuestState, insn: &Instruction) -> Result<Flow, Fault> {
    if condition(st, condition_number(insn)) {
        take(st, insn)
    } else {
        Ok(Flow::Next)
    }
}

/// LOOP, LOOPE, LOOPNE, JCXZ and JECXZ; `address16` if the counter is CX.
/// # Errors
/// #GP(0) if taken to a target beyond CS; the counter is unchanged then.
pub fn counted(st: &mut GuestState, insn: &Instruction, address16: bool) -> Result<Flow, Fault> {
    let mask = if address16 { 0xffff } else { u32::MAX };
    let count = st.reg32(gpr::CX) & mask;
    let zf = st.arith_flags as u32 & eflags::ZF != 0;
    let left = count.wrapping_sub(1) & mask;
    let (taken, counts) = match insn.mnemonic() {
        Mnemonic::Loop => (left != 0, true),
        Mnemonic::Loope => (left != 0 && zf, true),
        Mnemonic::Loopne => (left != 0 && !zf, true),
        _ => (count == 0, false),
    };
    let flow = if taken { take(st, insn)? } else { Flow::Next };
    if counts {
        if address16 {
            st.set_reg16(gpr::CX, left as u16);
        } else {
            st.set_reg32(gpr::CX, left);
        }
    }
    Ok(flow)
}
