//! PUSH, POP, PUSHA, POPA, ENTER and LEAVE with every segment check, for stacks that translated
//! code does not handle inline. Intel SDM vol. 2, each entry; vol. 1, 6.2 (stacks).

use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::operand::{self, load, store};
use crate::cpu::segment;
use iced_x86::{Instruction, OpKind};
use ring3_translator::state::{GuestState, SegReg, gpr};

/// A stack pointer on its way: pushes and pops move it, [`StackPointer::commit`] makes it
/// architectural. So an instruction that faults half way leaves ESP as it was.
#[derive(Clone, Copy, Debug)]
pub struct StackPointer {
    value: u32,
    wide: bool,
}

impl StackPointer {
    /// The current stack pointer; 32 or 16 bits wide by SS.B.
    #[must_use]
    pub fn of(st: &GuestState) -> Self {
        Self {
            value: st.reg32(gpr::SP),
            wide: st.segment(SegReg::Ss).attr.big(),
        }
    }

    /// The offset in SS.
    #[must_use]
    pub fn offset(&self) -> u32 {
        if self.wide {
            self.value
        } else {
            self.value & 0xffff
        }
    }

    /// Moves the pointer, wrapping at its width.
    pub fn add(&mut self, n: u32) {
        let sum = self.value.wrapping_add(n);
        self.value = if self.wide {
            sum
        } else {
            (self.value & 0xffff_0000) | (sum & 0xffff)
        };
    }

    /// Sets the offset; the upper half of ESP is kept on a 16-bit stack.
    pub fn set_offset(&mut self, offset: u32) {
        self.value = if self.wide {
            offset
        } else {
            (self.value & 0xffff_0000) | (offset & 0xffff)
        };
    }

    /// Pushes the low `size` (2 or 4) bytes of `value`.
    /// # Errors
    /// #SS(0) or #PF; the pointer has not moved then.
    pub fn push<E: Env>(
        &mut self,
        st: &mut GuestState,
        env: &mut E,
        size: u32,
        value: u32,
    ) -> Result<(), Fault> {
        let mut next = *self;
        next.add(size.wrapping_neg());
        store(
            st,
            env,
            SegReg::Ss,
            next.offset(),
            size as usize,
            u64::from(value),
        )?;
        *self = next;
        Ok(())
    }

    /// Pops `size` (2 or 4) bytes.
    /// # Errors
    /// #SS(0) or #PF; the pointer has not moved then.
    pub fn pop<E: Env>(&mut self, st: &mut GuestState, env: &mut E, size: u32) -> Result<u32, Fault> {
        let value = load(st, env, SegReg::Ss, self.offset(), size as usize)? as u32;
        self.add(size);
        Ok(value)
    }

    /// Makes the pointer architectural.
    pub fn commit(self, st: &mut GuestState) {
        if self.wide {
            st.set_reg32(gpr::SP, self.value);
        } else {
            st.set_reg16(gpr::SP, self.value as u16);
        }
    }
}

/// PUSH of a register, an immediate or memory; `size` is 2 or 4.
/// # Errors
/// Operand and stack faults.
pub fn push<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction, size: u32) -> Result<Flow, Fault> {
    let value = match insn.op0_kind() {
        OpKind::Register | OpKind::Memory => operand::read_rm(st, env, insn, 0, size as usize)?,
        _ => insn.immediate(0) as u32,
    };
    let mut sp = StackPointer::of(st);
    sp.push(st, env, size, value)?;
    sp.commit(st);
    Ok(Flow::Next)
}

/// POP to a register or memory; `size` is 2 or 4.
/// # Errors
/// Operand and stack faults.
pub fn pop<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction, size: u32) -> Result<Flow, Fault> {
    let mut sp = StackPointer::of(st);
    let value = sp.pop(st, env, size)?;
    if insn.op0_kind() == OpKind::Register {
        // The pointer moves first: POP ESP leaves the popped value in ESP.
        sp.commit(st);
        operand::set_register(st, insn.op0_register(), value);
    } else {
        let (seg, offset) = operand::address_biased(st, insn, size);
        store(st, env, seg, offset, size as usize, u64::from(value))?;
        sp.commit(st);
    }
    Ok(Flow::Next)
}

/// PUSHA and PUSHAD; `size` is 2 or 4.
/// # Errors
/// Stack faults; memory below the stack pointer may have changed then, as on hardware.
pub fn pusha<E: Env>(st: &mut GuestState, env: &mut E, size: u32) -> Result<Flow, Fault> {
    let mut sp = StackPointer::of(st);
    for n in 0..8 {
        let value = st.reg32(n);
        sp.push(st, env, size, value)?;
    }
    sp.commit(st);
    Ok(Flow::Next)
}

/// POPA and POPAD; `size` is 2 or 4.
/// # Errors
/// Stack faults.
pub fn popa<E: Env>(st: &mut GuestState, env: &mut E, size: u32) -> Result<Flow, Fault> {
    let mut sp = StackPointer::of(st);
    let mut values = [0u32; 8];
    for value in values.iter_mut().rev() {
        *value = sp.pop(st, env, size)?;
    }
    for (n, value) in values.into_iter().enumerate() {
        if n == gpr::SP {
            continue; // the saved stack pointer is discarded
        }
        if size == 4 {
            st.set_reg32(n, value);
        } else {
            st.set_reg16(n, value as u16);
        }
    }
    sp.commit(st);
    Ok(Flow::Next)
}

/// ENTER; `size` is 2 or 4.
/// # Errors
/// Stack faults, also where a write at the final stack pointer would fault.
pub fn enter<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction, size: u32) -> Result<Flow, Fault> {
    let allocation = u32::from(insn.immediate16());
    let level = u32::from(insn.immediate8_2nd()) % 32;
    let mut sp = StackPointer::of(st);
    let bp = st.reg32(gpr::BP);
    sp.push(st, env, size, bp)?;
    let frame = sp;
    if level > 0 {
        let mut outer = sp;
        outer.set_offset(bp);
        for _ in 1..level {
            outer.add(size.wrapping_neg());
            let link = load(st, env, SegReg::Ss, outer.offset(), size as usize)? as u32;
            sp.push(st, env, size, link)?;
        }
        sp.push(st, env, size, frame.value)?;
    }
    sp.add(allocation.wrapping_neg());
    let at = segment::linear(st, SegReg::Ss, sp.offset(), size, Access::Write)?;
    let who = Privilege::of(st);
    env.probe(st, at, size, Access::Write, who)?;
    if size == 4 {
        st.set_reg32(gpr::BP, frame.value);
    } else {
        st.set_reg16(gpr::BP, frame.value as u16);
    }
    sp.commit(st);
    Ok(Flow::Next)
}

/// LEAVE; `size` is 2 or 4.
/// # Errors
/// Stack faults.
pub fn leave<E: Env>(st: &mut GuestState, env: &mut E, size: u32) -> Result<Flow, Fault> {
    let mut sp = StackPointer::of(st);
    sp.set_offset(st.reg32(gpr::BP));
    let bp = sp.pop(st, env, size)?;
    if size == 4 {
        st.set_reg32(gpr::BP, bp);
    } else {
        st.set_reg16(gpr::BP, bp as u16);
    }
    sp.commit(st);
    Ok(Flow::Next)
}
