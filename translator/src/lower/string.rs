//! String instructions.
//!
//! Without a repeat prefix: one or two accesses in the site's form, then LEA steps. With a repeat
//! prefix, in window form with flat segments: the host's own instruction on window addresses. The
//! window's base is 4 GiB aligned, so the low halves of RSI and RDI stay the guest's ESI and EDI,
//! and a fault in the middle leaves the guest's registers as the architecture wants them. Counts
//! of 4096 and more, and everything else, go to the monitor in interruptible pieces.

use super::Lower;
use super::access::{Ea, Rw, pext_state, segment_of};
use crate::asm::{HostMem, Width, reg};
use crate::mutation::Mutation;
use crate::off;
use crate::state::{SegClass, SegReg};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// What one string instruction is made of.
struct Parts {
    source: bool,
    dest: bool,
    width: Width,
    addr16: bool,
    segment: SegReg,
}

fn parts(insn: &Instruction) -> Parts {
    use Mnemonic as M;
    let width = match insn.mnemonic() {
        M::Movsb | M::Stosb | M::Lodsb | M::Scasb | M::Cmpsb => Width::B1,
        M::Movsw | M::Stosw | M::Lodsw | M::Scasw | M::Cmpsw => Width::B2,
        _ => Width::B4,
    };
    let source = !matches!(
        insn.mnemonic(),
        M::Stosb | M::Stosw | M::Stosd | M::Scasb | M::Scasw | M::Scasd
    );
    let dest = !matches!(insn.mnemonic(), M::Lodsb | M::Lodsw | M::Lodsd);
    let addr16 = (0..insn.op_count()).any(|i| {
        matches!(
            insn.op_kind(i),
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI
        )
    });
    let segment = match insn.segment_prefix() {
        Register::None => SegReg::Ds,
        r => segment_of(r),
    };
    Parts {
        source,
        dest,
        width,
        addr16,
        segment,
    }
}

impl Lower<'_> {
    /// Lowers a string instruction.
    pub(crate) fn string(&mut self, insn: &Instruction) {
        let p = parts(insn);
        if insn.has_rep_prefix() || insn.has_repne_prefix() {
            let flat = |l: &Self, s| l.unit.mode.seg_class(s) == SegClass::Flat;
            let ok = self.unit.chain
                && !p.addr16
                && (!p.source || flat(self, p.segment))
                && (!p.dest || flat(self, SegReg::Es));
            let plain = matches!(
                insn.mnemonic(),
                Mnemonic::Movsb
                    | Mnemonic::Movsw
                    | Mnemonic::Movsd
                    | Mnemonic::Stosb
                    | Mnemonic::Stosw
                    | Mnemonic::Stosd
            );
            if ok && !self.soft {
                self.repeat_inline(insn, &p);
            } else if ok && plain {
                self.repeat_soft(insn, &p);
            } else {
                self.callout(insn, None);
            }
            return;
        }
        self.single(insn.mnemonic(), &p);
    }

    fn step(&mut self, register: u8, p: &Parts) {
        let whole = !p.addr16 || self.broken(Mutation::StringUpperHalf);
        let c = self.c();
        c.load(Width::B8, reg::R8, &HostMem::state(off!(string_step)));
        let next = HostMem::indexed(register, (reg::R8, p.width.bytes() as u8), 0);
        if whole {
            c.lea32(register, next);
        } else {
            c.lea32(reg::R9, next);
            c.mov_rr(Width::B2, register, reg::R9);
        }
    }

    fn single(&mut self, mnemonic: Mnemonic, p: &Parts) {
        use Mnemonic as M;
        let size = p.width.bytes();
        let from = Ea::of_register(reg::RSI, 0, p.addr16);
        let to = Ea::of_register(reg::RDI, 0, p.addr16);
        match mnemonic {
            M::Lodsb | M::Lodsw | M::Lodsd => {
                let w = p.width;
                self.access(p.segment, from, size, Rw::Read, &mut |l, m| {
                    l.c().load(w, reg::R11, m)
                });
                self.c().mov_rr(w, reg::RAX, reg::R11);
                self.step(reg::RSI, p);
            }
            M::Stosb | M::Stosw | M::Stosd if self.broken(Mutation::StringOrder) => {
                self.c().mov_rr(Width::B4, reg::R11, reg::RDI);
                self.step(reg::RDI, p);
                let to = Ea::of_register(reg::R11, 0, p.addr16);
                self.access(SegReg::Es, to, size, Rw::Write, &mut |l, m| {
                    l.c().store(p.width, reg::RAX, m);
                });
            }
            M::Stosb | M::Stosw | M::Stosd => {
                self.access(SegReg::Es, to, size, Rw::Write, &mut |l, m| {
                    l.c().store(p.width, reg::RAX, m);
                    l.step(reg::RDI, p);
                });
            }
            M::Movsb | M::Movsw | M::Movsd => {
                self.access(p.segment, from, size, Rw::Read, &mut |l, m| {
                    l.c().load(p.width, reg::R11, m)
                });
                self.access(SegReg::Es, to, size, Rw::Write, &mut |l, m| {
                    l.c().store(p.width, reg::R11, m);
                    l.step(reg::RSI, p);
                    l.step(reg::RDI, p);
                });
            }
            M::Scasb | M::Scasw | M::Scasd => {
                self.access(SegReg::Es, to, size, Rw::Read, &mut |l, m| {
                    l.compare(p.width, reg::RAX, m)
                });
                self.step(reg::RDI, p);
            }
            _ => {
                self.access(p.segment, from, size, Rw::Read, &mut |l, m| {
                    l.c().load(p.width, reg::R11, m)
                });
                self.access(SegReg::Es, to, size, Rw::Read, &mut |l, m| {
                    l.compare(p.width, reg::R11, m)
                });
                self.step(reg::RSI, p);
                self.step(reg::RDI, p);
            }
        }
    }

    /// `cmp register, memory`.
    fn compare(&mut self, width: Width, register: u8, m: &HostMem) {
        let opcode = if width == Width::B1 { 0x3a } else { 0x3b };
        self.c().op_mem(width, &[opcode], register, m);
    }

    fn repeat_inline(&mut self, insn: &Instruction, p: &Parts) {
        use Mnemonic as M;
        let long = self.c().label();
        let done = self.c().label();
        let c = self.c();
        pext_state(c, reg::R14, reg::RCX, off!(mask_long_count));
        c.if_nonzero_jump(reg::R14, long);
        c.load(Width::B8, reg::R14, &HostMem::state(off!(window_base)));
        let window = |r| HostMem::indexed(r, (reg::R14, 1), 0);
        if p.source {
            c.lea64(reg::RSI, window(reg::RSI));
        }
        if p.dest {
            c.lea64(reg::RDI, window(reg::RDI));
        }
        let opcode = match insn.mnemonic() {
            M::Movsb | M::Movsw | M::Movsd => 0xa4,
            M::Stosb | M::Stosw | M::Stosd => 0xaa,
            M::Lodsb | M::Lodsw | M::Lodsd => 0xac,
            M::Scasb | M::Scasw | M::Scasd => 0xae,
            _ => 0xa6,
        };
        c.bytes(&[if insn.has_repne_prefix() { 0xf2 } else { 0xf3 }]);
        match p.width {
            Width::B1 => c.bytes(&[opcode]),
            Width::B2 => c.bytes(&[0x66, opcode | 1]),
            _ => c.bytes(&[opcode | 1]),
        }
        // Back to the low halves.
        if p.source {
            c.mov_rr(Width::B4, reg::RSI, reg::RSI);
        }
        if p.dest {
            c.mov_rr(Width::B4, reg::RDI, reg::RDI);
        }
        c.bind(done);
        self.callout_aside(long, done, insn);
    }

    /// REP MOVS and REP STOS in the soft form: both ranges lie in one page each and hit the TLB,
    /// the count is small and DF is clear; everything else is the monitor's.
    /// ```text
    /// r8 = ecx * width ; r11 = host(edi, r8) ; r14 = host(esi, r8)
    /// rsi, rdi = r14, r11 ; rep movs ; esi, edi = old + r8
    /// ```
    fn repeat_soft(&mut self, insn: &Instruction, p: &Parts) {
        let long = self.c().label();
        let done = self.c().label();
        let at = |base, index| HostMem::indexed(base, (index, 1), 0);
        let c = self.c();
        pext_state(c, reg::R14, reg::RCX, off!(mask_long_count));
        c.if_nonzero_jump(reg::R14, long);
        c.load(Width::B4, reg::R8, &HostMem::state(off!(string_step)));
        c.add_const(reg::R8, -1);
        c.if_nonzero_jump(reg::R8, long);
        let scaled = (reg::RCX, p.width.bytes() as u8);
        c.lea32(
            reg::R8,
            HostMem {
                base: None,
                index: Some(scaled),
                disp: 0,
                window: false,
            },
        );
        c.mov_rr(Width::B4, reg::R13, reg::RDI);
        self.soft_lookup(0, Some(reg::R8), Rw::Write, long);
        self.c().lea64(reg::R11, at(reg::R13, reg::R14));
        if p.source {
            self.c().mov_rr(Width::B4, reg::R13, reg::RSI);
            self.soft_lookup(0, Some(reg::R8), Rw::Read, long);
            let c = self.c();
            c.mov_rr(Width::B4, reg::R9, reg::RSI);
            c.lea64(reg::RSI, at(reg::R13, reg::R14));
        }
        let c = self.c();
        c.mov_rr(Width::B4, reg::R10, reg::RDI);
        c.mov_rr(Width::B8, reg::RDI, reg::R11);
        let opcode = if p.source { 0xa4 } else { 0xaa };
        match p.width {
            Width::B1 => c.bytes(&[0xf3, opcode]),
            Width::B2 => c.bytes(&[0x66, 0xf3, opcode | 1]),
            _ => c.bytes(&[0xf3, opcode | 1]),
        }
        c.lea32(reg::RDI, at(reg::R10, reg::R8));
        if p.source {
            c.lea32(reg::RSI, at(reg::R9, reg::R8));
        }
        c.bind(done);
        self.callout_aside(long, done, insn);
    }
}
