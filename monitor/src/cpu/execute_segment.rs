//! Instructions that move selectors and far pointers: MOV, PUSH and POP of segment registers,
//! LDS and its kin, far JMP, CALL and RET. Intel SDM vol. 2, each entry.

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::stack::OperandSize;
use crate::cpu::stackops::StackPointer;
use crate::cpu::{far, operand, segment};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegReg, shadow};

/// MOV r/m16, Sreg: a 32-bit register is zero-extended, memory receives 16 bits.
/// # Errors
/// Operand faults.
pub fn mov_from_sreg<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    let selector = st
        .segment(operand::segment_register(insn.op1_register()))
        .selector;
    operand::write_rm(st, env, insn, 0, 2, u32::from(selector))?;
    Ok(Flow::Next)
}

/// MOV Sreg, r/m16. A load of SS holds interrupts off for one instruction.
/// # Errors
/// #UD for CS; operand and descriptor faults.
pub fn mov_to_sreg<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    let reg = operand::segment_register(insn.op0_register());
    if reg == SegReg::Cs {
        return Err(Fault::ud());
    }
    let selector = operand::read_rm(st, env, insn, 1, 2)? as u16;
    segment::load_segment(st, env, reg, selector)?;
    if reg == SegReg::Ss && !st.broken(Mutation::MovSsShadow) {
        st.interrupt_shadow = shadow::SS;
    }
    Ok(Flow::Next)
}

/// PUSH Sreg; `size` is 2 or 4, the selector is zero-extended.
/// # Errors
/// Stack faults.
pub fn push_sreg<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let selector = st
        .segment(operand::segment_register(insn.op0_register()))
        .selector;
    let mut sp = StackPointer::of(st);
    sp.push(st, env, size, u32::from(selector))?;
    sp.commit(st);
    Ok(Flow::Next)
}

/// POP Sreg; `size` is 2 or 4. A load of SS holds interrupts off for one instruction. The stack
/// pointer moves by the width of the old stack.
/// # Errors
/// #UD for CS; stack and descriptor faults.
pub fn pop_sreg<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let reg = operand::segment_register(insn.op0_register());
    if reg == SegReg::Cs {
        return Err(Fault::ud());
    }
    let mut sp = StackPointer::of(st);
    let selector = sp.pop(st, env, size)? as u16;
    segment::load_segment(st, env, reg, selector)?;
    sp.commit(st);
    if reg == SegReg::Ss {
        st.interrupt_shadow = shadow::SS;
    }
    Ok(Flow::Next)
}

/// The far pointer in memory: offset of `size` (2 or 4) bytes, then the selector.
fn far_pointer<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<(u16, u32), Fault> {
    if insn.op_kind(insn.op_count() - 1) != OpKind::Memory {
        return Err(Fault::ud());
    }
    let (seg, offset) = operand::address(st, insn);
    let pointer = operand::load(st, env, seg, offset, size as usize + 2)?;
    Ok(if size == 4 {
        ((pointer >> 32) as u16, pointer as u32)
    } else {
        ((pointer >> 16) as u16, u32::from(pointer as u16))
    })
}

/// LDS, LES, LSS, LFS and LGS; `size` is 2 or 4.
/// # Errors
/// #UD for a register operand; memory and descriptor faults.
pub fn load_far_pointer<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    let destination = insn.op0_register();
    let size = if destination >= Register::EAX && destination <= Register::EDI {
        4
    } else {
        2
    };
    let reg = match insn.mnemonic() {
        Mnemonic::Les => SegReg::Es,
        Mnemonic::Lds => SegReg::Ds,
        Mnemonic::Lss => SegReg::Ss,
        Mnemonic::Lfs => SegReg::Fs,
        _ => SegReg::Gs,
    };
    let (selector, offset) = far_pointer(st, env, insn, size)?;
    segment::load_segment(st, env, reg, selector)?;
    operand::set_register(st, destination, offset);
    Ok(Flow::Next)
}

fn operand_size(size: u32) -> OperandSize {
    if size == 4 {
        OperandSize::Dword
    } else {
        OperandSize::Word
    }
}

fn far_target<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<(u16, u32), Fault> {
    match insn.op0_kind() {
        OpKind::FarBranch16 => Ok((insn.far_branch_selector(), u32::from(insn.far_branch16()))),
        OpKind::FarBranch32 => Ok((insn.far_branch_selector(), insn.far_branch32())),
        _ => far_pointer(st, env, insn, size),
    }
}

/// Far JMP; `size` is 2 or 4.
/// # Errors
/// Memory faults, and those of the transfer.
pub fn far_jmp<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let (selector, offset) = far_target(st, env, insn, size)?;
    far::far_jump(
        st,
        env,
        selector,
        offset,
        insn.next_ip32(),
        operand_size(size),
    )?;
    Ok(Flow::Jump)
}

/// Far CALL; `size` is 2 or 4.
/// # Errors
/// Memory faults, and those of the transfer.
pub fn far_call<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let (selector, offset) = far_target(st, env, insn, size)?;
    far::far_call(
        st,
        env,
        selector,
        offset,
        insn.next_ip32(),
        operand_size(size),
    )?;
    Ok(Flow::Jump)
}

/// Far RET with or without an immediate; `size` is 2 or 4.
/// # Errors
/// Stack faults, and those of the transfer.
pub fn far_ret<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let bytes = if insn.op_count() == 1 {
        insn.immediate16()
    } else {
        0
    };
    far::far_return(st, env, bytes, operand_size(size))?;
    Ok(Flow::Jump)
}
