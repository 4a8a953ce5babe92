//! Privileged and sensitive instructions that are simple enough to stay in the cache.

use super::access::{Rw, memory_operand, segment_of, selector_off};
use super::{Lower, host_number};
use crate::asm::{HostMem, Width, reg};
use crate::off;
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

impl Lower<'_> {
    /// CLD, STD: the host's own flag, and the step of single string instructions.
    pub(crate) fn direction(&mut self, insn: &Instruction) {
        let set = insn.mnemonic() == Mnemonic::Std;
        let c = self.c();
        c.bytes(&[if set { 0xfd } else { 0xfc }]);
        c.store_imm(Width::B8, if set { u32::MAX } else { 1 }, &HostMem::state(off!(string_step)));
    }

    /// True if CLI and STI need no IOPL check: real mode and ring 0.
    fn may_change_if(&self) -> bool {
        let mode = self.unit.mode;
        !mode.protected() || (mode.cpl() == 0 && !mode.v86())
    }

    /// CLI.
    pub(crate) fn cli(&mut self, insn: &Instruction) {
        if self.may_change_if() {
            self.c().store_imm(Width::B1, 0, &HostMem::state(off!(if_flag)));
        } else {
            self.callout(insn, None);
        }
    }

    /// STI: sets IF; if an event waits, the monitor takes it after the next instruction.
    pub(crate) fn sti(&mut self, insn: &Instruction) {
        if !self.may_change_if() {
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
        let old = self.cold();
        self.c().bind(slow);
        self.callout(insn, None);
        self.c().jmp(done);
        self.c().select(old);
    }

    /// PUSHF.
    pub(crate) fn pushf(&mut self, insn: &Instruction) {
        self.callout(insn, None);
    }

    /// POPF.
    pub(crate) fn popf(&mut self, insn: &Instruction) {
        self.callout(insn, None);
    }

    /// MOV r/m, sreg.
    pub(crate) fn store_selector(&mut self, insn: &Instruction) {
        let seg = segment_of(insn.op1_register());
        self.c().load(Width::B2, reg::R11, &HostMem::state(selector_off(seg)));
        if insn.op0_kind() == OpKind::Register {
            let wide = insn.op0_register().is_gpr32();
            debug_assert!(wide || insn.code() != Code::INVALID);
            let to = host_number(insn.op0_register());
            self.c().mov_rr(if wide { Width::B4 } else { Width::B2 }, to, reg::R11);
            return;
        }
        let (data, ea) = memory_operand(insn);
        self.access(data, ea, 2, Rw::Write, &mut |l, m| l.c().store(Width::B2, reg::R11, m));
    }
}
