//! PUSH, POP, LEAVE.

use super::access::{Ea, Rw, memory_operand, selector_off};
use super::{Lower, host_number};
use crate::asm::{HostMem, Width, reg};
use crate::mutation::Mutation;
use crate::state::SegReg;
use iced_x86::{Code, Instruction, OpKind, Register};

impl Lower<'_> {
    /// Pushes a constant of `size` bytes.
    pub(crate) fn push_imm(&mut self, value: u32, size: u32) {
        let width = if size == 2 { Width::B2 } else { Width::B4 };
        let ea = self.stack_ea(-(size as i32));
        self.access(SegReg::Ss, ea, size, Rw::Write, &mut |l, m| {
            l.c().store_imm(width, value, m);
            l.stack_adjust(-(size as i32));
        });
    }

    /// Pushes the low `size` bytes of a host register (not r9, r10, r13, r14).
    pub(crate) fn push_register(&mut self, source: u8, size: u32) {
        let width = if size == 2 { Width::B2 } else { Width::B4 };
        if self.broken(Mutation::PushOrder) && source != reg::R12 {
            self.stack_adjust(-(size as i32));
            let ea = self.stack_ea(0);
            self.access(SegReg::Ss, ea, size, Rw::Write, &mut |l, m| {
                l.c().store(width, source, m);
            });
            return;
        }
        let ea = self.stack_ea(-(size as i32));
        self.access(SegReg::Ss, ea, size, Rw::Write, &mut |l, m| {
            l.c().store(width, source, m);
            l.stack_adjust(-(size as i32));
        });
    }

    /// PUSH in every form.
    pub(crate) fn push(&mut self, insn: &Instruction) {
        let size = insn.stack_pointer_increment().unsigned_abs();
        match insn.op0_kind() {
            OpKind::Register if insn.op0_register().is_segment_register() => {
                let seg = super::access::segment_of(insn.op0_register());
                self.c()
                    .load(Width::B2, reg::R11, &HostMem::state(selector_off(seg)));
                self.push_register(reg::R11, size);
            }
            OpKind::Register => self.push_register(host_number(insn.op0_register()), size),
            OpKind::Memory => {
                let (seg, ea) = memory_operand(insn);
                let width = if size == 2 { Width::B2 } else { Width::B4 };
                self.access(seg, ea, size, Rw::Read, &mut |l, m| {
                    l.c().load(width, reg::R11, m)
                });
                self.push_register(reg::R11, size);
            }
            OpKind::Immediate8to16 | OpKind::Immediate8to32
                if self.broken(Mutation::PushSignExtension) =>
            {
                self.push_imm(insn.immediate(0) as u32 & 0xff, size);
            }
            _ => self.push_imm(insn.immediate(0) as u32, size),
        }
    }

    /// POP to a general register or memory.
    pub(crate) fn pop(&mut self, insn: &Instruction) {
        let size = insn.stack_pointer_increment() as u32;
        let width = if size == 2 { Width::B2 } else { Width::B4 };
        let stack = self.stack_ea(0);
        if insn.op0_kind() == OpKind::Register {
            let to = host_number(insn.op0_register());
            if width == Width::B4 && to != reg::R12 {
                self.access(SegReg::Ss, stack, size, Rw::Read, &mut |l, m| {
                    l.c().load(width, to, m)
                });
                self.stack_adjust(4);
                return;
            }
            self.access(SegReg::Ss, stack, size, Rw::Read, &mut |l, m| {
                l.c().load(width, reg::R11, m)
            });
            self.stack_adjust(size as i32);
            self.c().mov_rr(width, to, reg::R11);
            return;
        }
        self.access(SegReg::Ss, stack, size, Rw::Read, &mut |l, m| {
            l.c().load(width, reg::R11, m)
        });
        let (seg, mut ea) = memory_operand(insn);
        if insn.memory_base() == Register::ESP && !self.broken(Mutation::PopAddress) {
            // The address is computed after the increment. SDM vol. 2B, POP.
            ea.disp = ea.disp.wrapping_add(size as i32);
        }
        if self.broken(Mutation::PopOrder) && insn.memory_base() != Register::ESP {
            self.stack_adjust(size as i32);
            self.access(seg, ea, size, Rw::Write, &mut |l, m| {
                l.c().store(width, reg::R11, m);
            });
            return;
        }
        self.access(seg, ea, size, Rw::Write, &mut |l, m| {
            l.c().store(width, reg::R11, m);
            l.stack_adjust(size as i32);
        });
    }

    /// LEAVE: (E)SP = (E)BP, then POP (E)BP.
    pub(crate) fn leave(&mut self, insn: &Instruction) {
        let size: u32 = if insn.code() == Code::Leavew { 2 } else { 4 };
        let width = if size == 2 { Width::B2 } else { Width::B4 };
        let stack32 = self.unit.mode.stack32();
        let ea = Ea::of_register(reg::RBP, 0, !stack32);
        if self.broken(Mutation::LeaveOrder) {
            self.c().mov_rr(width, reg::R12, reg::RBP);
        }
        self.access(SegReg::Ss, ea, size, Rw::Read, &mut |l, m| {
            l.c().load(width, reg::R11, m)
        });
        let after = HostMem::at(reg::RBP, size as i32);
        if stack32 {
            self.c().lea32(reg::R12, after);
        } else {
            self.c().lea32(reg::R9, after);
            self.c().mov_rr(Width::B2, reg::R12, reg::R9);
        }
        self.c().mov_rr(width, reg::RBP, reg::R11);
    }
}
