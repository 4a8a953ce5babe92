//! Near control transfers: chaining, the host call/return scheme, the jump cache, polls.
//!
//! A guest CALL pushes its return EIP and executes a host `call`; a guest RET pops the EIP into
//! r13 and executes a host `ret`. The return site compares r13 with its EIP; a mismatch looks r13
//! up. Polls stand where loops close: backward jumps and calls, indirect jumps and calls, and
//! returns that do not match a call (in the prelude's lookups). A poll is two loads; an event
//! poisons the pointer of the second.

use super::access::{Ea, Rw, memory_operand, segment_of};
use super::{LinkSite, Lower, host_number};
use crate::asm::{HostMem, Label, Width, cond, reg};
use crate::classify::Class;
use crate::mutation::Mutation;
use crate::off;
use crate::prelude::{jump_by_cache, jump_cache_off};
use crate::state::{SegClass, SegReg};
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

/// How a direct branch is encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    Jump,
    If(u8),
    Call,
}

impl Lower<'_> {
    fn same_page(&self, target: u32) -> bool {
        // Offsets within the page agree with linear ones as long as CS.base is page aligned; a
        // unit knows its distance to the page's end from its bytes.
        let start = self.unit.eip;
        let page_offset = (self.unit.phys & 0xfff) as u32;
        let relative = target.wrapping_sub(start).wrapping_add(page_offset);
        relative < 0x1000
    }

    /// Near transfers whose target may lie beyond CS.limit: the monitor checks before anything is
    /// pushed. None does when the limit is 4 GiB, or 64 KiB and the operand size 16 bits.
    pub(crate) fn needs_target_check(&self, s: &crate::scan::Scanned) -> bool {
        let transfer = matches!(
            s.class,
            Class::Call
                | Class::CallIndirect
                | Class::Return
                | Class::Jump
                | Class::JumpIndirect
                | Class::JumpIf
                | Class::Loop
        );
        let mode = self.unit.mode;
        let unlimited = matches!(mode.seg_class(SegReg::Cs), SegClass::Flat | SegClass::Based);
        let within = mode.code_64k() && s.insn.code().op_code().operand_size() == 16;
        transfer && !unlimited && !within
    }

    /// Two loads that fault when an event waits; the guest is at the start of this instruction.
    pub(crate) fn poll(&mut self) {
        if self.in_shadow {
            return;
        }
        let c = self.c();
        c.load(Width::B8, reg::R14, &HostMem::state(off!(poll_ptr)));
        c.load(Width::B4, reg::R14, &HostMem::at(reg::R14, 0));
    }

    /// Ends the unit with a jump to `target`.
    pub(crate) fn go_to(&mut self, target: u32) {
        self.branch(Branch::Jump, target);
    }

    /// Ends a unit that has no transfer at its end.
    pub(crate) fn fall_through(&mut self) {
        let next = self.next_eip;
        if next <= self.eip && self.unit.chain {
            // Around the end of the segment: this closes a loop too. The last instruction is done.
            self.eip = next;
            self.mark();
            self.poll();
        }
        self.go_to(next);
    }

    fn branch(&mut self, kind: Branch, target: u32) {
        if !self.unit.chain {
            // No host call: nobody would ever return to this unit.
            let kind = if kind == Branch::Call {
                Branch::Jump
            } else {
                kind
            };
            let stub = self.c().label();
            self.emit_branch(kind, stub);
            self.exit_stub(stub, target);
            return;
        }
        let cross = !self.same_page(target);
        if cross && !self.unit.chain_pages {
            self.branch_by_cache(kind, target);
            return;
        }
        let stub = self.c().label();
        let half = self.c().half();
        let at = self.emit_branch(kind, stub);
        let link = self.unit.link_base + self.s.links.len() as u32;
        self.s.links.push(LinkSite {
            half,
            at,
            stub,
            target,
            cross,
        });
        let exit = self.c_stubs.exit_link;
        let old = self.cold();
        let c = self.c();
        c.bind(stub);
        c.store_imm(Width::B4, target, &HostMem::state(off!(rip)));
        c.store_imm(Width::B4, link, &HostMem::state(off!(exit_arg)));
        c.jmp_abs(exit);
        c.select(old);
    }

    fn emit_branch(&mut self, kind: Branch, to: Label) -> u32 {
        let c = self.c();
        match kind {
            Branch::Jump => c.jmp(to),
            Branch::If(cc) => c.jcc(cc, to),
            Branch::Call => c.call(to),
        }
    }

    /// An unchained exit to `target`.
    fn exit_stub(&mut self, stub: Label, target: u32) {
        let exit = self.c_stubs.exit_end;
        let old = self.cold();
        let c = self.c();
        c.bind(stub);
        c.store_imm(Width::B4, target, &HostMem::state(off!(rip)));
        c.jmp_abs(exit);
        c.select(old);
    }

    /// A jump to another page that may be remapped: by the jump cache, at a constant index.
    fn branch_by_cache(&mut self, kind: Branch, target: u32) {
        let table = self.unit.mode.table();
        if let Branch::If(cc) = kind {
            let away = self.c().label();
            self.c().jcc(cc, away);
            let old = self.cold();
            let c = self.c();
            c.bind(away);
            jump_by_cache(c, table, target, false);
            c.select(old);
            return;
        }
        jump_by_cache(self.c(), table, target, kind == Branch::Call);
    }

    /// `jmp` or `call` to the EIP in r13 through the jump cache.
    fn indirect(&mut self, call: bool) {
        if !self.unit.chain {
            let exit = self.c_stubs.exit_end;
            let c = self.c();
            c.store(Width::B8, reg::R13, &HostMem::state(off!(rip)));
            c.jmp_abs(exit);
            return;
        }
        let table = jump_cache_off(self.unit.mode.table());
        let c = self.c();
        c.movzx16(reg::R14, reg::R13);
        let slot = HostMem::indexed(reg::R15, (reg::R14, 8), table);
        c.transfer(&slot, call);
    }

    /// After a host `call`: the place that the matching host `ret` comes back to.
    fn return_site(&mut self, return_eip: u32) {
        if !self.unit.chain {
            return;
        }
        let miss = self.c_stubs.return_lookup[self.unit.mode.table()];
        self.eip = return_eip;
        self.mark();
        if !self.broken(Mutation::ReturnMatch) {
            self.check_target(return_eip, miss);
        }
        self.go_to(return_eip);
    }

    /// CALL rel.
    pub(crate) fn call(&mut self, insn: &Instruction) -> bool {
        let target = insn.near_branch_target() as u32;
        let size = if insn.code() == Code::Call_rel16 {
            2
        } else {
            4
        };
        let next = self.next_eip;
        self.terminal = true;
        if target <= self.eip && self.unit.chain {
            self.poll();
        }
        let pushed = if self.broken(Mutation::ReturnAddress) {
            self.eip
        } else {
            next
        };
        self.push_imm(pushed, size);
        self.branch(Branch::Call, target);
        self.return_site(next);
        true
    }

    /// CALL r/m.
    pub(crate) fn call_indirect(&mut self, insn: &Instruction) -> bool {
        let size = if matches!(insn.code(), Code::Call_rm16) {
            2
        } else {
            4
        };
        let next = self.next_eip;
        if self.unit.chain {
            self.poll();
        }
        if self.broken(Mutation::IndirectReturn) {
            self.push_imm(next, size);
            self.load_target(insn, reg::R13, size);
            self.indirect(true);
            self.return_site(next);
            return true;
        }
        self.load_target(insn, reg::R11, size);
        self.terminal = true;
        self.push_imm(next, size);
        self.c().mov_rr(Width::B4, reg::R13, reg::R11);
        self.indirect(true);
        self.return_site(next);
        true
    }

    /// RET, RET n.
    pub(crate) fn near_return(&mut self, insn: &Instruction) -> bool {
        let size = if matches!(insn.code(), Code::Retnw | Code::Retnw_imm16) {
            2
        } else {
            4
        };
        let extra = if insn.op_count() > 0 && !self.broken(Mutation::ReturnRelease) {
            i32::from(insn.immediate16())
        } else {
            0
        };
        let narrow = size == 2 && !self.broken(Mutation::ReturnWidth);
        let width = if narrow { Width::B2 } else { Width::B4 };
        let ea = self.stack_ea(0);
        self.access(SegReg::Ss, ea, size, Rw::Read, &mut |l, m| {
            l.c().load(width, reg::R13, m)
        });
        self.stack_adjust(size as i32 + extra);
        self.spoil_flags(Mutation::ReturnFlags);
        if self.unit.chain {
            self.c().bytes(&[0xc3]);
        } else {
            self.indirect(false);
        }
        true
    }

    /// JMP rel.
    pub(crate) fn jump(&mut self, insn: &Instruction) -> bool {
        let target = insn.near_branch_target() as u32;
        if target <= self.eip && self.unit.chain {
            self.poll();
        }
        self.go_to(target);
        true
    }

    /// JMP r/m.
    pub(crate) fn jump_indirect(&mut self, insn: &Instruction) -> bool {
        let size = if matches!(insn.code(), Code::Jmp_rm16) {
            2
        } else {
            4
        };
        if self.unit.chain {
            self.poll();
        }
        self.load_target(insn, reg::R13, size);
        self.indirect(false);
        true
    }

    fn load_target(&mut self, insn: &Instruction, to: u8, size: u32) {
        if insn.op0_kind() == OpKind::Register {
            let source = host_number(insn.op0_register());
            if size == 2 && !self.broken(Mutation::JumpWidth) {
                self.c().movzx16(to, source);
            } else {
                self.c().mov_rr(Width::B4, to, source);
            }
            return;
        }
        let (_, ea) = memory_operand(insn);
        let seg = segment_of(insn.memory_segment());
        let width = if size == 2 { Width::B2 } else { Width::B4 };
        self.access(seg, ea, size, Rw::Read, &mut |l, m| {
            l.c().load(width, to, m)
        });
    }

    /// Jcc rel.
    pub(crate) fn jump_if(&mut self, insn: &Instruction) -> bool {
        let target = insn.near_branch_target() as u32;
        let mut cc = condition_number(insn);
        if cc >> 1 == 5 && self.broken(Mutation::ParityCondition) {
            cc ^= 1;
        }
        if target <= self.eip && self.unit.chain {
            self.poll();
        }
        self.branch(Branch::If(cc), target);
        let next = self.next_eip;
        self.go_to(next);
        true
    }

    /// LOOP, LOOPE, LOOPNE, JCXZ, JECXZ: no flag changes, so they are built from LEA and the
    /// RCX-zero branch.
    pub(crate) fn loop_instruction(&mut self, insn: &Instruction) -> bool {
        let target = insn.near_branch_target() as u32;
        let next = self.next_eip;
        let wide = matches!(
            insn.code(),
            Code::Loop_rel8_16_ECX
                | Code::Loop_rel8_32_ECX
                | Code::Loope_rel8_16_ECX
                | Code::Loope_rel8_32_ECX
                | Code::Loopne_rel8_16_ECX
                | Code::Loopne_rel8_32_ECX
                | Code::Jecxz_rel8_16
                | Code::Jecxz_rel8_32
        );
        if target <= self.eip && self.unit.chain {
            self.poll();
        }
        let taken = self.c().label();
        let not_taken = self.c().label();
        match insn.mnemonic() {
            Mnemonic::Jcxz | Mnemonic::Jecxz => {
                self.test_count(wide, not_taken);
                self.c().bind(taken);
                self.go_to(target);
            }
            m => {
                // Decrement, then leave the loop if zero or if ZF says so.
                self.spoil_flags(Mutation::LoopFlags);
                let wide_step = wide || self.broken(Mutation::LoopUpperHalf);
                let ignore = self.broken(Mutation::LoopCondition);
                let c = self.c();
                if wide_step {
                    c.add_const(reg::RCX, -1);
                } else {
                    let cx = HostMem::at(reg::RCX, -1);
                    c.lea32(reg::R9, cx);
                    c.mov_rr(Width::B2, reg::RCX, reg::R9);
                }
                match m {
                    _ if ignore => {}
                    Mnemonic::Loope => _ = c.jcc(cond::NE, not_taken),
                    Mnemonic::Loopne => _ = c.jcc(cond::E, not_taken),
                    _ => {}
                }
                self.test_count(wide, taken);
                self.c().jmp(not_taken);
                self.c().bind(taken);
                self.go_to(target);
            }
        }
        self.c().bind(not_taken);
        self.go_to(next);
        true
    }

    /// Jumps to `nonzero` if (E)CX is not zero.
    fn test_count(&mut self, wide: bool, nonzero: Label) {
        if wide || self.broken(Mutation::CountWidth) {
            self.c().mov_rr(Width::B4, reg::R9, reg::RCX);
        } else {
            self.c().movzx16(reg::R9, reg::RCX);
        }
        self.c().if_nonzero_jump(reg::R9, nonzero);
    }

    /// The stack operand at `disp` from the stack pointer.
    pub(crate) fn stack_ea(&self, disp: i32) -> Ea {
        let wraps = !self.unit.mode.stack32() && !self.broken(Mutation::StackWrap);
        Ea::of_register(reg::R12, disp, wraps)
    }

    /// ESP or SP += n, without flags. Clobbers r9 for a 16-bit stack.
    pub(crate) fn stack_adjust(&mut self, n: i32) {
        if self.unit.mode.stack32() || self.broken(Mutation::StackUpperHalf) {
            self.c().add_const(reg::R12, n);
        } else {
            let sp = HostMem::at(reg::R12, n);
            self.c().lea32(reg::R9, sp);
            self.c().mov_rr(Width::B2, reg::R12, reg::R9);
        }
    }
}

/// The condition of Jcc, SETcc or CMOVcc as the opcode's low four bits encode it. Intel SDM vol. 1,
/// appendix B. Zero for instructions that have none.
#[must_use]
pub fn condition_number(insn: &Instruction) -> u8 {
    // iced numbers the conditions in the same order, from 1.
    (insn.condition_code() as u8).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::condition_number;
    use iced_x86::{Decoder, DecoderOptions};

    #[test]
    fn conditions_are_numbered_as_opcodes_encode_them() {
        let decode = |bytes: &[u8]| Decoder::new(32, bytes, DecoderOptions::NONE).decode();
        for n in 0..16u8 {
            for bytes in [
                &[0x70 | n, 0][..],
                &[0x0f, 0x80 | n, 0, 0, 0, 0],
                &[0x0f, 0x90 | n, 0xc0],
                &[0x0f, 0x40 | n, 0xc0],
            ] {
                assert_eq!(condition_number(&decode(bytes)), n, "{bytes:x?}");
            }
        }
    }
}
