//! Privileged and sensitive instructions that are simple enough to stay in the cache.

use super::access::{Rw, memory_operand, pdep_state, pext_state, segment_of, selector_off};
use super::{Lower, host_number};
use crate::asm::{HostMem, Width, cond, reg};
use crate::mutation::Mutation;
use crate::off;
use crate::state::{SegReg, eflags};
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

impl Lower<'_> {
    /// CLD, STD: the host's own flag, and the step of single string instructions.
    pub(crate) fn direction(&mut self, insn: &Instruction) {
        let set = insn.mnemonic() == Mnemonic::Std;
        let backward = set && !self.broken(Mutation::DirectionStep);
        let c = self.c();
        c.bytes(&[if set { 0xfd } else { 0xfc }]);
        c.store_imm(
            Width::B8,
            if backward { u32::MAX } else { 1 },
            &HostMem::state(off!(string_step)),
        );
    }

    /// True if CLI and STI need no IOPL check: real mode and ring 0.
    fn may_change_if(&self) -> bool {
        let mode = self.unit.mode;
        !mode.protected() || (mode.cpl() == 0 && !mode.v86())
    }

    /// CLI.
    pub(crate) fn cli(&mut self, insn: &Instruction) {
        if self.may_change_if() {
            self.c()
                .store_imm(Width::B1, 0, &HostMem::state(off!(if_flag)));
        } else {
            self.callout(insn, None);
        }
    }

    /// STI: sets IF; if an event waits, the monitor takes it after the next instruction. So it does
    /// where the next instruction is not in this unit, since events are taken between units.
    pub(crate) fn sti(&mut self, insn: &Instruction) {
        if !self.may_change_if() || self.last {
            self.callout(insn, None);
            return;
        }
        let slow = self.c().label();
        let done = self.c().label();
        let c = self.c();
        c.load(Width::B4, reg::R9, &HostMem::state(off!(event_waiting)));
        c.if_nonzero_jump(reg::R9, slow);
        c.store_imm(Width::B1, 1, &HostMem::state(off!(if_flag)));
        c.bind(done);
        self.callout_aside(slow, done, insn);
    }

    /// PUSHF: outside V8086 mode it needs no privilege. Flag-free: AND is PEXT and PDEP with one
    /// mask, OR of disjoint bits is LEA.
    /// ```text
    /// pushfq ; pop r11 ; r11 = r11 & arith ; r11 += if << 9 + 2 ; r11 += sys ; push r11
    /// ```
    pub(crate) fn pushf(&mut self, insn: &Instruction) {
        if self.unit.mode.v86() {
            self.callout(insn, None);
            return;
        }
        let size = if insn.code() == Code::Pushfw { 2 } else { 4 };
        let c = self.c();
        c.bytes(&[0x9c, 0x41, 0x5b]); // pushfq; pop r11
        pext_state(c, reg::R11, reg::R11, off!(mask_arith));
        pdep_state(c, reg::R11, reg::R11, off!(mask_arith));
        c.load(Width::B1, reg::R9, &HostMem::state(off!(if_flag)));
        if self.broken(Mutation::PushfInterruptFlag) {
            self.c().mov_imm(reg::R9, 0);
        }
        self.rorx32(reg::R9, reg::R9, 32 - 9);
        let c = self.c();
        c.lea32(reg::R11, HostMem::indexed(reg::R11, (reg::R9, 1), 2));
        c.load(Width::B4, reg::R9, &HostMem::state(off!(sys_flags)));
        // RF and VM read as zero: the run loop clears RF, and VM is clear in this mode.
        c.lea32(reg::R11, HostMem::indexed(reg::R11, (reg::R9, 1), 0));
        self.push_register(reg::R11, size);
    }

    /// POPF in ring 0 and real mode, when no system flag but IF changes, DF is clear, and no event
    /// waits for IF; everything else is the monitor's.
    pub(crate) fn popf(&mut self, insn: &Instruction) {
        if !self.may_change_if() || insn.code() == Code::Popfw || !self.unit.chain {
            self.callout(insn, None);
            return;
        }
        let slow = self.c().label();
        let done = self.c().label();
        let ea = self.stack_ea(0);
        self.access(SegReg::Ss, ea, 4, Rw::Read, &mut |l, m| {
            l.c().load(Width::B4, reg::R11, m)
        });
        let c = self.c();
        c.mov_rr(Width::B4, reg::R9, reg::R11);
        c.bytes(&[0x41, 0x81, 0xe1]); // and r9d, the flags that POPF may change, and DF
        c.bytes(
            &(eflags::TF | eflags::IOPL | eflags::NT | eflags::AC | eflags::ID | eflags::DF)
                .to_le_bytes(),
        );
        c.op_mem(
            Width::B4,
            &[0x3b],
            reg::R9,
            &HostMem::state(off!(sys_flags)),
        );
        c.jcc(cond::NE, slow);
        c.mov_rr(Width::B4, reg::R9, reg::R11);
        c.bytes(&[0x41, 0xc1, 0xe9, 9]); // shr r9d, 9
        c.bytes(&[0x41, 0x83, 0xe1, 1]); // and r9d, 1
        c.mov_rr(Width::B4, reg::R10, reg::R9);
        c.op_mem(
            Width::B4,
            &[0x23],
            reg::R10,
            &HostMem::state(off!(event_waiting)),
        );
        c.jcc(cond::NE, slow);
        c.store(Width::B1, reg::R9, &HostMem::state(off!(if_flag)));
        c.bytes(&[0xfc]); // cld
        c.store_imm(Width::B8, 1, &HostMem::state(off!(string_step)));
        self.stack_adjust(4);
        let c = self.c();
        c.mov_rr(Width::B8, reg::R10, reg::RAX);
        c.mov_rr(Width::B4, reg::RAX, reg::R11);
        c.bytes(&[0x41, 0xc1, 0xeb, 11]); // shr r11d, 11
        c.bytes(&[0x41, 0x83, 0xe3, 1]); // and r11d, 1
        c.bytes(&[0x41, 0x80, 0xc3, 0x7f]); // add r11b, 0x7f: OF
        c.bytes(&[0x88, 0xc4, 0x9e]); // mov ah, al; sahf
        c.mov_rr(Width::B8, reg::RAX, reg::R10);
        c.bind(done);
        self.callout_aside(slow, done, insn);
    }

    /// MOV r/m, sreg.
    pub(crate) fn store_selector(&mut self, insn: &Instruction) {
        let seg = segment_of(insn.op1_register());
        self.c()
            .load(Width::B2, reg::R11, &HostMem::state(selector_off(seg)));
        if insn.op0_kind() == OpKind::Register {
            let wide = insn.op0_register().is_gpr32() && !self.broken(Mutation::SelectorUpperHalf);
            let to = host_number(insn.op0_register());
            self.c()
                .mov_rr(if wide { Width::B4 } else { Width::B2 }, to, reg::R11);
            return;
        }
        let (data, ea) = memory_operand(insn);
        self.access(data, ea, 2, Rw::Write, &mut |l, m| {
            l.c().store(Width::B2, reg::R11, m)
        });
    }
}
