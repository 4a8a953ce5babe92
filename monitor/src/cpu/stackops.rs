//! PUSH, POP, PUSHA, POPA, ENTER and LEAVE with every segment check, for stacks that translated
//! code does not handle inline. Intel SDM vol. 2, each entry; vol. 1, 6.2 (stacks).

use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::operand::{self, load, probe_store, store};
use crate::cpu::segment;
use crate::cpu::stack::{OperandSize, Stack};
use iced_x86::{Instruction, OpKind};
use ring3_translator::mutation::Mutation;
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
    pub fn pop<E: Env>(
        &mut self,
        st: &mut GuestState,
        env: &mut E,
        size: u32,
    ) -> Result<u32, Fault> {
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
pub fn push<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
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
pub fn pop<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
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
/// Stack faults; nothing was written then.
pub fn pusha<E: Env>(st: &mut GuestState, env: &mut E, size: u32) -> Result<Flow, Fault> {
    let width = if size == 4 {
        OperandSize::Dword
    } else {
        OperandSize::Word
    };
    let mut stack = Stack::current(st);
    let mut values: [u32; 8] = core::array::from_fn(|n| st.reg32(n));
    if st.broken(Mutation::PushaStack) {
        values[gpr::SP] = values[gpr::SP].wrapping_sub(size * 4);
    }
    if let Err(fault) = stack.push_all(st, env, width, values) {
        // The fault is that of the first slot that cannot be pushed, from above.
        let mut sp = StackPointer::of(st);
        for _ in 0..8 {
            sp.add(size.wrapping_neg());
            probe_store(st, env, SegReg::Ss, sp.offset(), size)?;
        }
        return Err(fault);
    }
    stack.commit(st);
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
pub fn enter<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    size: u32,
) -> Result<Flow, Fault> {
    let allocation = u32::from(insn.immediate16());
    let level = u32::from(insn.immediate8_2nd()) % 32;
    let mut sp = StackPointer::of(st);
    let bp = st.reg32(gpr::BP);
    sp.push(st, env, size, bp)?;
    let frame = sp;
    if level > 0 {
        let mut outer = sp;
        outer.set_offset(bp);
        let first = if st.broken(Mutation::EnterDisplay) {
            2
        } else {
            1
        };
        for _ in first..level {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::execute::tests::{faults, run};
    use crate::cpu::fault::Vector;
    use crate::cpu::testenv::{machine, set_real};

    const STACK_FAULT: Fault = Fault::with_error(Vector::Ss, 0);

    /// A stack of 32 bits with the limit 7FFFH at base 0.
    fn limit_stack(st: &mut GuestState) {
        let mut ss = *st.segment(SegReg::Ss);
        ss.limit = 0x7fff;
        st.set_segment(SegReg::Ss, ss);
    }

    #[test]
    fn pushes_and_pops_of_every_operand() {
        let (mut st, mut env) = machine();
        env.put32(0x5000, 0xcafe_babe);
        let cases: [(&[u8], u32, u32); 7] = [
            (&[0x54], 4, 0x8000), // push esp: the value before
            (&[0x6a, 0xff], 4, 0xffff_ffff),
            (&[0x68, 1, 2, 3, 4], 4, 0x0403_0201),
            (&[0xff, 0x35, 0, 0x50, 0, 0], 4, 0xcafe_babe),
            (&[0x66, 0x6a, 0x80], 2, 0xff80),
            (&[0x66, 0x68, 1, 2], 2, 0x0201),
            (&[0x66, 0x54], 2, 0x8000),
        ];
        for (code, size, value) in cases {
            st.set_reg32(gpr::SP, 0x8000);
            assert_eq!(run(&mut st, &mut env, code), Ok(Flow::Next));
            assert_eq!(st.reg32(gpr::SP), 0x8000 - size, "{code:02x?}");
            let got = if size == 4 {
                env.get32(0x7ffc)
            } else {
                u32::from(env.get16(0x7ffe))
            };
            assert_eq!(got, value, "{code:02x?}");
        }
        st.set_reg32(gpr::SP, 0x8000);
        env.put32(0x8000, 0x0000_9000);
        assert_eq!(run(&mut st, &mut env, &[0x8f, 0x04, 0x24]), Ok(Flow::Next)); // pop [esp]
        assert_eq!((env.get32(0x8004), st.reg32(gpr::SP)), (0x9000, 0x8004));
        assert_eq!(run(&mut st, &mut env, &[0x5c]), Ok(Flow::Next)); // pop esp
        assert_eq!(st.reg32(gpr::SP), 0x9000);
    }

    #[test]
    fn a_16_bit_stack_wraps_and_keeps_the_upper_half_of_esp() {
        let (mut st, mut env) = machine();
        set_real(&mut st);
        st.rip = 0x100;
        st.set_reg32(gpr::SP, 0x1234_0000);
        assert_eq!(run(&mut st, &mut env, &[0x50]), Ok(Flow::Next));
        assert_eq!(st.reg32(gpr::SP), 0x1234_fffe);
        assert_eq!(run(&mut st, &mut env, &[0x58]), Ok(Flow::Next));
        assert_eq!(st.reg32(gpr::SP), 0x1234_0000);
        st.set_reg32(gpr::SP, 1);
        faults(&mut st, &mut env, &[0x50], STACK_FAULT); // would straddle the limit
    }

    #[test]
    fn a_faulting_stack_instruction_changes_no_register() {
        let (mut st, mut env) = machine();
        limit_stack(&mut st);
        faults(&mut st, &mut env, &[0x58], STACK_FAULT);
        faults(&mut st, &mut env, &[0xc3], STACK_FAULT);
        st.set_reg32(gpr::SP, 0x7ff8);
        faults(&mut st, &mut env, &[0x61], STACK_FAULT); // popa
        st.set_reg32(gpr::SP, 0x10);
        faults(&mut st, &mut env, &[0x60], STACK_FAULT); // pusha wraps to the top
        faults(&mut st, &mut env, &[0xc8, 0, 1, 0], STACK_FAULT); // enter: only its final ESP is bad
        st.set_reg32(gpr::BP, 0x8000);
        faults(&mut st, &mut env, &[0xc9], STACK_FAULT); // leave
        st.set_reg32(gpr::SP, 0x4000);
        env.fault_pages.push(0x3000);
        faults(
            &mut st,
            &mut env,
            &[0xe8, 0, 0, 0, 0],
            Fault::page(0x3ffc, 2),
        );
    }

    #[test]
    fn pusha_and_popa_are_inverse_but_for_esp() {
        let (mut st, mut env) = machine();
        for n in 0..8 {
            if n != gpr::SP {
                st.set_reg32(n, 0x1111_1111 * n as u32);
            }
        }
        assert_eq!(run(&mut st, &mut env, &[0x60]), Ok(Flow::Next));
        assert_eq!(st.reg32(gpr::SP), 0x7fe0);
        let words = env.dwords::<8>(0x7fe0);
        assert_eq!(
            words,
            [
                0x7777_7777,
                0x6666_6666,
                0x5555_5555,
                0x8000,
                0x3333_3333,
                0x2222_2222,
                0x1111_1111,
                0
            ]
        );
        env.put32(0x7fec, 0xdead); // the ESP slot
        env.put32(0x7fe0, 0x42);
        assert_eq!(run(&mut st, &mut env, &[0x61]), Ok(Flow::Next));
        assert_eq!(
            (st.reg32(gpr::SP), st.reg32(gpr::DI), st.reg32(gpr::BX)),
            (0x8000, 0x42, 0x3333_3333)
        );
        st.set_reg32(gpr::CX, 0xaaaa_5555);
        assert_eq!(run(&mut st, &mut env, &[0x66, 0x60]), Ok(Flow::Next));
        st.set_reg32(gpr::CX, 0xbbbb_0000);
        assert_eq!(run(&mut st, &mut env, &[0x66, 0x61]), Ok(Flow::Next));
        assert_eq!(st.reg32(gpr::CX), 0xbbbb_5555);
    }

    #[test]
    fn enter_copies_the_display_and_leave_undoes_it() {
        let (mut st, mut env) = machine();
        st.set_reg32(gpr::BP, 0x7000);
        env.put32(0x6ffc, 0x1111);
        env.put32(0x6ff8, 0x2222);
        assert_eq!(run(&mut st, &mut env, &[0xc8, 0x20, 0, 3]), Ok(Flow::Next));
        assert_eq!(env.dwords::<4>(0x7ff0), [0x7ffc, 0x2222, 0x1111, 0x7000]);
        assert_eq!((st.reg32(gpr::BP), st.reg32(gpr::SP)), (0x7ffc, 0x7fd0));
        assert_eq!(run(&mut st, &mut env, &[0xc9]), Ok(Flow::Next));
        assert_eq!((st.reg32(gpr::BP), st.reg32(gpr::SP)), (0x7000, 0x8000));
        // Level 32 counts as 0; 16-bit operands keep the upper half of EBP.
        st.set_reg32(gpr::BP, 0xabcd_7000);
        assert_eq!(
            run(&mut st, &mut env, &[0x66, 0xc8, 4, 0, 32]),
            Ok(Flow::Next)
        );
        assert_eq!(
            (st.reg32(gpr::BP), st.reg32(gpr::SP)),
            (0xabcd_7ffe, 0x7ffa)
        );
    }
}
