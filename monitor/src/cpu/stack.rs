//! Stack accesses of instructions and event delivery: the stack pointer changes only when the
//! caller commits, after everything that can fault. Intel SDM vol. 1, 6.2, and vol. 3A, 4.6
//! (which privilege a new stack is accessed with).
//!
//! A frame is written or read with one memory access; only a frame that wraps at the top of a
//! 16-bit stack is taken apart into its slots.

use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment::bounds;
use ring3_translator::addr::LinAddr;
use ring3_translator::state::{GuestState, SegReg, Segment, gpr};

/// Width of an operand, a stack slot or a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperandSize {
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
}

impl OperandSize {
    /// Bytes: 2 or 4.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// Truncates an offset or value to this size.
    #[must_use]
    pub const fn truncate(self, value: u32) -> u32 {
        match self {
            Self::Word => value & 0xffff,
            Self::Dword => value,
        }
    }
}

/// A stack under construction; the state's ESP is untouched until [`Stack::commit`].
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    base: LinAddr,
    low: u32,
    high: u32,
    mask: u32,
    sp: u32,
    error: u32,
    who: Privilege,
}

impl Stack {
    /// The current stack, SS:ESP at the current privilege. Its faults are #SS(0).
    #[inline]
    #[must_use]
    pub fn current(st: &GuestState) -> Self {
        let mut stack = Self::new(st.segment(SegReg::Ss), st.reg32(gpr::SP), st.cpl, 0);
        if !st.protected() && stack.low > stack.high {
            // Real mode has no unusable segments: only the limit counts.
            (stack.low, stack.high) = (0, st.segment(SegReg::Ss).limit);
        }
        stack
    }

    /// The stack `ss`:`esp` accessed with the rights of `cpl`. Its faults are #SS(`error`).
    #[inline]
    #[must_use]
    pub fn new(ss: &Segment, esp: u32, cpl: u8, error: u32) -> Self {
        let (low, high) = bounds(ss);
        Self {
            base: LinAddr(ss.base),
            low,
            high,
            mask: if ss.attr.big() { u32::MAX } else { 0xffff },
            sp: esp,
            error,
            who: if cpl == 3 {
                Privilege::User
            } else {
                Privilege::Supervisor
            },
        }
    }

    /// The stack pointer now: ESP, or SP with ESP's upper half as it was.
    #[must_use]
    pub const fn pointer(&self) -> u32 {
        self.sp
    }

    const fn moved(&self, by: u32) -> u32 {
        (self.sp & !self.mask) | (self.sp.wrapping_add(by) & self.mask)
    }

    fn fault(&self) -> Fault {
        Fault::with_error(Vector::Ss, self.error)
    }

    #[inline]
    fn address(&self, offset: u32, len: u32) -> Result<LinAddr, Fault> {
        // IF the access is outside the limit of SS, THEN #SS.
        let whole = self.low == 0 && self.high == u32::MAX;
        let inside = self.low <= offset && offset <= self.high && len - 1 <= self.high - offset;
        if whole || inside {
            Ok(self.base.add32(offset))
        } else {
            Err(self.fault())
        }
    }

    /// True if `len` bytes from offset `from` upwards do not wrap at the top of the stack segment.
    #[inline]
    const fn contiguous(&self, from: u32, len: u32) -> bool {
        self.mask == u32::MAX || from + len <= 0x1_0000
    }

    /// Checks that `count` slots can be pushed, by the limit only.
    ///
    /// # Errors
    /// #SS.
    #[inline]
    pub fn check_push(&self, count: u32, size: OperandSize) -> Result<(), Fault> {
        let len = count * size.bytes();
        let from = self.sp.wrapping_sub(len) & self.mask;
        if len == 0 {
            return Ok(());
        }
        if self.contiguous(from, len) {
            return self.address(from, len).map(|_| ());
        }
        for slot in 1..=count {
            self.address(
                self.sp.wrapping_sub(slot * size.bytes()) & self.mask,
                size.bytes(),
            )?;
        }
        Ok(())
    }

    /// Checks that the pointer is aligned for `count` slots that fit, where alignment is checked.
    ///
    /// # Errors
    /// #AC(0); before it #PF, on processors that look at the pages first.
    pub fn check_alignment<E: Env>(
        &self,
        st: &mut GuestState,
        env: &mut E,
        count: u32,
        size: OperandSize,
    ) -> Result<(), Fault> {
        let bytes = size.bytes();
        for slot in 1..=count {
            let at = self.address(self.sp.wrapping_sub(slot * bytes) & self.mask, bytes)?;
            if at.0 & u64::from(bytes - 1) == 0 {
                return Ok(()); // then all of them are
            }
            if env.alignment_first() {
                break;
            }
            env.probe(st, at, bytes, Access::Write, self.who)?;
        }
        Err(Fault::with_error(Vector::Ac, 0))
    }

    /// Pushes one slot.
    ///
    /// # Errors
    /// #SS or #PF; nothing changed then.
    #[inline]
    pub fn push<E: Env>(
        &mut self,
        st: &mut GuestState,
        env: &mut E,
        size: OperandSize,
        value: u32,
    ) -> Result<(), Fault> {
        let offset = self.sp.wrapping_sub(size.bytes()) & self.mask;
        let at = self.address(offset, size.bytes())?;
        match size {
            OperandSize::Word => env.write(st, at, &(value as u16).to_le_bytes(), self.who)?,
            OperandSize::Dword => env.write(st, at, &value.to_le_bytes(), self.who)?,
        }
        self.sp = self.moved(size.bytes().wrapping_neg());
        Ok(())
    }

    /// Pushes `values`, the first one first, with one memory write.
    ///
    /// # Errors
    /// #SS or #PF; the stack pointer is unchanged then.
    #[inline]
    pub fn push_all<E: Env, const N: usize>(
        &mut self,
        st: &mut GuestState,
        env: &mut E,
        size: OperandSize,
        values: [u32; N],
    ) -> Result<(), Fault> {
        let len = N as u32 * size.bytes();
        let from = self.sp.wrapping_sub(len) & self.mask;
        if !self.contiguous(from, len) {
            return self.push_each(st, env, size, &values);
        }
        let at = self.address(from, len)?;
        match size {
            OperandSize::Dword => {
                let mut frame = [[0; 4]; N];
                for (slot, value) in frame.iter_mut().rev().zip(values) {
                    *slot = value.to_le_bytes();
                }
                env.write(st, at, frame.as_flattened(), self.who)
            }
            OperandSize::Word => {
                let mut frame = [[0; 2]; N];
                for (slot, value) in frame.iter_mut().rev().zip(values) {
                    *slot = (value as u16).to_le_bytes();
                }
                env.write(st, at, frame.as_flattened(), self.who)
            }
        }
        .map_err(|fault| self.first_fault(st, env, size, N as u32, fault))?;
        self.sp = self.moved(len.wrapping_neg());
        Ok(())
    }

    /// The page fault that pushing `count` slots one after the other meets first: the highest one
    /// is written first. `whole` is the fault of the frame as a whole.
    #[cold]
    fn first_fault<E: Env>(
        &self,
        st: &mut GuestState,
        env: &mut E,
        size: OperandSize,
        count: u32,
        whole: Fault,
    ) -> Fault {
        for slot in 1..=count {
            let offset = self.sp.wrapping_sub(slot * size.bytes()) & self.mask;
            let probed = self
                .address(offset, size.bytes())
                .and_then(|at| env.probe(st, at, size.bytes(), Access::Write, self.who));
            if let Err(fault) = probed {
                return fault;
            }
        }
        whole
    }

    /// Pushes a slice of values, slot by slot.
    ///
    /// # Errors
    /// #SS or #PF; the stack pointer is unchanged then.
    pub fn push_each<E: Env>(
        &mut self,
        st: &mut GuestState,
        env: &mut E,
        size: OperandSize,
        values: &[u32],
    ) -> Result<(), Fault> {
        let mut stack = *self;
        for &value in values {
            stack.push(st, env, size, value)?;
        }
        *self = stack;
        Ok(())
    }

    /// Pops one slot, zero-extended.
    ///
    /// # Errors
    /// #SS or #PF; nothing changed then.
    #[inline]
    pub fn pop<E: Env>(
        &mut self,
        st: &mut GuestState,
        env: &mut E,
        size: OperandSize,
    ) -> Result<u32, Fault> {
        let [value] = self.pop_all(st, env, size)?;
        Ok(value)
    }

    /// Pops `N` slots with one memory read; the first popped comes first.
    ///
    /// # Errors
    /// #SS or #PF; nothing changed then.
    #[inline]
    pub fn pop_all<E: Env, const N: usize>(
        &mut self,
        st: &mut GuestState,
        env: &mut E,
        size: OperandSize,
    ) -> Result<[u32; N], Fault> {
        let len = N as u32 * size.bytes();
        let from = self.sp & self.mask;
        let mut values = [0; N];
        if N > 1 && !self.contiguous(from, len) {
            let mut stack = *self;
            for value in &mut values {
                *value = stack.pop(st, env, size)?;
            }
            *self = stack;
            return Ok(values);
        }
        let at = self.address(from, len)?;
        match size {
            OperandSize::Dword => {
                let mut frame = [[0; 4]; N];
                env.read(st, at, frame.as_flattened_mut(), self.who)?;
                for (value, slot) in values.iter_mut().zip(frame) {
                    *value = u32::from_le_bytes(slot);
                }
            }
            OperandSize::Word => {
                let mut frame = [[0; 2]; N];
                env.read(st, at, frame.as_flattened_mut(), self.who)?;
                for (value, slot) in values.iter_mut().zip(frame) {
                    *value = u32::from(u16::from_le_bytes(slot));
                }
            }
        }
        self.sp = self.moved(len);
        Ok(values)
    }

    /// True if the next `len` bytes are inside the limit and inside one page, so that reading
    /// them together can raise nothing that reading the first of them does not.
    #[inline]
    #[must_use]
    pub fn same_page(&self, len: u32) -> bool {
        let from = self.sp & self.mask;
        self.contiguous(from, len)
            && self
                .address(from, len)
                .is_ok_and(|at| at.offset() + u64::from(len) <= ring3_translator::addr::PAGE_SIZE)
    }

    /// Moves the pointer up over `bytes` without reading them.
    pub fn release(&mut self, bytes: u32) {
        self.sp = self.moved(bytes);
    }

    /// Stores the pointer to ESP, or to SP if the stack segment is a 16-bit one.
    #[inline]
    pub fn commit(&self, st: &mut GuestState) {
        if self.mask == u32::MAX {
            st.set_reg32(gpr::SP, self.sp);
        } else {
            st.set_reg16(gpr::SP, self.sp as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::descriptor::Descriptor;
    use crate::cpu::testenv::{machine, segment};
    use OperandSize::{Dword, Word};

    /// A machine whose SS has base 0x1_0000 and the given raw limit and rights.
    fn with_stack(
        limit: u32,
        attr: u16,
        esp: u32,
    ) -> (
        ring3_translator::state_box::StateBox,
        crate::cpu::testenv::FlatEnv,
    ) {
        let (mut st, env) = machine();
        st.set_segment(
            SegReg::Ss,
            Descriptor(segment(0x1_0000, limit, attr)).to_segment(0x10),
        );
        st.set_reg32(gpr::SP, esp);
        (st, env)
    }

    #[test]
    fn pushes_and_pops_by_limit_type_and_width() {
        // (raw limit, attr, ESP, size, ESP after one push; None: #SS)
        let cases = [
            (0xffffu32, 0x4093u16, 0x100u32, Dword, Some(0xfcu32)),
            (0xffff, 0x4093, 0x100, Word, Some(0xfe)),
            (0xffff, 0x4093, 0, Dword, None),
            (0xffff, 0x4093, 0x1_0000, Dword, Some(0xfffc)),
            (0xffff, 0x4093, 0x1_0001, Dword, None),
            (0xffff, 0x0093, 0x5555_0000, Word, Some(0x5555_fffe)),
            (0xffff, 0x0093, 0x5555_0000, Dword, Some(0x5555_fffc)),
            (0xffff, 0x0093, 1, Word, None),
            (0x0fff, 0x4097, 0x1004, Dword, Some(0x1000)),
            (0x0fff, 0x4097, 0x1003, Dword, None),
            (0x0fff, 0x0097, 0, Word, Some(0xfffe)),
        ];
        for (limit, attr, esp, size, expected) in cases {
            let (mut st, mut env) = with_stack(limit, attr, esp);
            let mut stack = Stack::current(&st);
            let fits = stack.check_push(1, size);
            let got = stack.push(&mut st, &mut env, size, 0x1234_5678);
            assert_eq!(got, fits);
            assert_eq!(st.reg32(gpr::SP), esp, "nothing is committed yet");
            let Some(sp) = expected else {
                assert_eq!(
                    got,
                    Err(Fault::with_error(Vector::Ss, 0)),
                    "{limit:#x} {attr:#x} {esp:#x} {size:?}"
                );
                assert_eq!(stack.pointer(), esp);
                continue;
            };
            got.unwrap();
            stack.commit(&mut st);
            assert_eq!(
                st.reg32(gpr::SP),
                sp,
                "{limit:#x} {attr:#x} {esp:#x} {size:?}"
            );
            assert_eq!(
                stack.pop(&mut st, &mut env, size),
                Ok(size.truncate(0x1234_5678))
            );
            assert_eq!(stack.pointer(), esp);
        }
    }

    #[test]
    fn a_frame_is_one_access_and_reads_back() {
        let (mut st, mut env) = with_stack(0xffff, 0x4093, 0x200);
        let mut stack = Stack::current(&st);
        stack.push_all(&mut st, &mut env, Dword, [1, 2, 3]).unwrap();
        assert_eq!((env.writes, env.dwords::<3>(0x1_01f4)), (1, [3, 2, 1]));
        assert!(stack.same_page(12));
        assert_eq!(stack.pop_all(&mut st, &mut env, Dword), Ok([3, 2, 1]));
        assert_eq!((env.reads, stack.pointer()), (1, 0x200));
    }

    #[test]
    fn frames_wrap_on_16_bit_stacks() {
        let (mut st, mut env) = with_stack(0xffff, 0x0093, 4);
        let mut stack = Stack::current(&st);
        stack.check_push(3, Dword).unwrap();
        stack.push_all(&mut st, &mut env, Dword, [1, 2, 3]).unwrap();
        assert_eq!(
            (
                env.get32(0x1_0000),
                env.get32(0x1_fffc),
                env.get32(0x1_fff8)
            ),
            (1, 2, 3)
        );
        assert!(!stack.same_page(12));
        assert_eq!(stack.pop_all(&mut st, &mut env, Dword), Ok([3, 2, 1]));
        assert_eq!(stack.pointer(), 4);
        // A slot itself cannot wrap.
        let (mut st, mut env) = with_stack(0xffff, 0x0093, 6);
        let mut stack = Stack::current(&st);
        assert_eq!(
            stack.check_push(2, Dword),
            Err(Fault::with_error(Vector::Ss, 0))
        );
        assert_eq!(
            stack.push_all(&mut st, &mut env, Dword, [1, 2]),
            Err(Fault::with_error(Vector::Ss, 0))
        );
        assert_eq!(stack.pointer(), 6);
    }

    #[test]
    fn a_new_stack_names_its_selector_in_faults() {
        let (mut st, mut env) = machine();
        let ss = Descriptor(segment(0, 0xff, 0x4093)).to_segment(0x48);
        let mut stack = Stack::new(&ss, 0x200, 0, 0x48);
        assert_eq!(
            stack.push(&mut st, &mut env, Dword, 1),
            Err(Fault::with_error(Vector::Ss, 0x48))
        );
        let mut stack = Stack::new(&ss, 0x100, 0, 0x48);
        stack.push(&mut st, &mut env, Word, 7).unwrap();
        stack.push(&mut st, &mut env, Dword, 8).unwrap();
        assert_eq!(
            (
                stack.pop(&mut st, &mut env, Dword),
                stack.pop(&mut st, &mut env, Word)
            ),
            (Ok(8), Ok(7))
        );
    }
}
