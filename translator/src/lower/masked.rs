//! Moves under a mask: MASKMOVQ, MASKMOVDQU, VMASKMOVDQU, VMASKMOVPS, VMASKMOVPD.

use super::access::{Ea, Rw, memory_operand, segment_of};
use super::{Lower, set_memory};
use crate::asm::{HostMem, Width, reg};
use crate::state::SegClass;
use iced_x86::{Code, Instruction, OpKind, Register};

impl Lower<'_> {
    /// MASKMOVQ, MASKMOVDQU, VMASKMOVDQU: always in the soft form, where RDI can hold the host
    /// address because nothing faults any more.
    pub(crate) fn mask_move(&mut self, insn: &Instruction) {
        let seg = segment_of(insn.memory_segment());
        let size = if insn.code() == Code::Maskmovq_rDI_mm_mm {
            8
        } else {
            16
        };
        let addr16 = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::MemorySegDI);
        let mut host = *insn;
        host.set_segment_prefix(Register::None);
        for i in 0..host.op_count() {
            if matches!(host.op_kind(i), OpKind::MemorySegDI | OpKind::MemorySegEDI) {
                host.set_op_kind(i, OpKind::MemorySegRDI);
            }
        }
        self.soft = true;
        if size == 8 && self.table.early_mmx() {
            // pmovmskb r11d, mm: the x87 registers become MMX registers before any fault.
            self.c().bytes(&[0x44, 0x0f, 0xd7, 0xd8]);
        }
        let mut ok = true;
        let ea = Ea::of_register(reg::RDI, 0, addr16);
        self.access(seg, ea, size, Rw::Update, &mut |l, m| {
            l.c().mov_rr(Width::B4, reg::R8, reg::RDI);
            l.c().lea64(reg::RDI, *m);
            ok &= l.encode(&host);
            l.c().mov_rr(Width::B4, reg::RDI, reg::R8);
        });
        debug_assert!(ok);
    }

    /// VMASKMOVPS, VMASKMOVPD. Lanes that are masked off raise no fault: an operand that is not
    /// accessible as a whole is the monitor's, lane by lane. In the window the host does it right.
    pub(crate) fn masked_lanes(&mut self, insn: &Instruction) {
        let (seg, ea) = memory_operand(insn);
        let rw = if insn.op0_kind() == OpKind::Memory {
            Rw::Write
        } else {
            Rw::Read
        };
        let class = self.class_for(seg, rw);
        if !matches!(class, SegClass::Flat | SegClass::Based) {
            self.callout(insn, None);
            return;
        }
        if !self.soft {
            self.ident(insn);
            return;
        }
        let size = insn.memory_size().size() as u32;
        self.linear_address(seg, class, ea, size, rw);
        let slow = self.c().label();
        let back = self.c().label();
        self.soft_lookup(size, None, rw, slow);
        let mut host = *insn;
        let place = HostMem::indexed(reg::R13, (reg::R14, 1), 0);
        set_memory(&mut host, &place);
        let ok = self.encode(&host);
        debug_assert!(ok, "cannot encode {insn}");
        self.c().bind(back);
        self.callout_aside(slow, back, insn);
    }
}
