//! Memory accesses in their forms (window, soft) and the address arithmetic before them.
//!
//! Window:  `op gs:[ea32]`. A miss is a host fault at that instruction.
//!
//! Soft, without touching flags (they must be exact if the access faults):
//! ```text
//! lea r13d, EA ; pext r14d, r13d, index bits ; lea r14d, [r14*2]
//! mov r9d, [tlb + r14*8].tag ; not r9d ; lea r9d, [r13 + r9 + size]   (last byte - tag)
//! pext r9d, r9d, page bits ; if r9d != 0 (by JRCXZ) goto slow
//! mov r14, [tlb + r14*8].delta ; op [r13 + r14]
//! ```
//! The tag compared is that of the last byte, the entry that of the first: a crossing access misses.
//! The slow path of a write repeats the operation on the resolved address and then commits.

use super::{Lower, host_number};
use crate::asm::{CodeBuf, Half, HostMem, Label, Width, reg};
use crate::helper::AccessInfo;
use crate::mutation::Mutation;
use crate::off;
use crate::state::{SegClass, SegReg, TLB_ENTRIES};
use iced_x86::{Instruction, Register};

/// A guest effective address in host registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ea {
    pub base: Option<u8>,
    pub index: Option<(u8, u8)>,
    pub disp: i32,
    /// 16-bit addressing: the sum wraps at 64 KiB.
    pub addr16: bool,
}

impl Ea {
    pub(crate) fn of_register(base: u8, disp: i32, addr16: bool) -> Self {
        Self {
            base: Some(base),
            index: None,
            disp,
            addr16,
        }
    }

    pub(crate) fn mem(&self) -> HostMem {
        HostMem {
            base: self.base,
            index: self.index,
            disp: self.disp,
            window: false,
        }
    }
}

/// The segment and effective address of an instruction's memory operand.
pub(crate) fn memory_operand(insn: &Instruction) -> (SegReg, Ea) {
    let seg = segment_of(insn.memory_segment());
    let reg_of = |r: Register| {
        if r == Register::None {
            None
        } else {
            Some(host_number(r))
        }
    };
    let base = reg_of(insn.memory_base());
    let index = reg_of(insn.memory_index()).map(|i| (i, insn.memory_index_scale() as u8));
    let addr16 = match (insn.memory_base(), insn.memory_index()) {
        (Register::None, Register::None) => insn.memory_displ_size() == 2,
        (b, i) => b.is_gpr16() || i.is_gpr16(),
    };
    (
        seg,
        Ea {
            base,
            index,
            disp: insn.memory_displacement64() as u32 as i32,
            addr16,
        },
    )
}

pub(crate) fn segment_of(r: Register) -> SegReg {
    match r {
        Register::ES => SegReg::Es,
        Register::CS => SegReg::Cs,
        Register::SS => SegReg::Ss,
        Register::FS => SegReg::Fs,
        Register::GS => SegReg::Gs,
        _ => SegReg::Ds,
    }
}

/// What an access does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rw {
    Read,
    /// Write alone.
    Write,
    /// Read-modify-write.
    Update,
}

impl Rw {
    fn writes(self) -> bool {
        self != Self::Read
    }
}

type Emit<'e> = dyn FnMut(&mut Lower, &HostMem) + 'e;

impl Lower<'_> {
    /// Emits one access of `size` bytes. `emit` emits the operation on the host operand and all
    /// that follows it in the instruction; for writes in the soft form it is called twice.
    /// Clobbers r9, r10, r13, r14.
    pub(crate) fn access(&mut self, seg: SegReg, ea: Ea, size: u32, rw: Rw, emit: &mut Emit) {
        let class = self.class_for(seg, rw);
        let ea = Ea {
            addr16: ea.addr16 && !self.broken(Mutation::AddressWrap),
            ..ea
        };
        if !self.soft && class == SegClass::Flat && !ea.addr16 {
            let m = HostMem {
                window: true,
                ..ea.mem()
            };
            emit(self, &m);
            return;
        }
        self.linear_address(seg, class, ea, size, rw);
        if self.soft {
            self.soft_access(size, rw, emit);
        } else {
            emit(
                self,
                &HostMem {
                    window: true,
                    ..HostMem::at(reg::R13, 0)
                },
            );
        }
    }

    pub(crate) fn class_for(&self, seg: SegReg, rw: Rw) -> SegClass {
        let class = self.unit.mode.seg_class(seg);
        if seg == SegReg::Cs && rw.writes() && !self.unit.mode.real_addressing() {
            return SegClass::Odd; // code segments are never writable
        }
        if matches!(seg, SegReg::Fs | SegReg::Gs) && self.adapted && class == SegClass::Based {
            return SegClass::Odd; // the site may be here because its segment is unusable
        }
        class
    }

    /// r13 = linear address; faults of segmentation are raised.
    pub(crate) fn linear_address(
        &mut self,
        seg: SegReg,
        class: SegClass,
        ea: Ea,
        size: u32,
        rw: Rw,
    ) {
        match (ea.base, ea.index) {
            (None, None) => {
                let offset = if ea.addr16 {
                    ea.disp as u32 & 0xffff
                } else {
                    ea.disp as u32
                };
                self.c().mov_imm(reg::R13, offset);
            }
            _ => {
                self.c().lea32(reg::R13, ea.mem());
                if ea.addr16 {
                    self.c().movzx16(reg::R13, reg::R13);
                }
            }
        }
        let info =
            AccessInfo::new(size, seg as u8, rw.writes(), rw == Rw::Update).aligned(self.alignment);
        match class {
            SegClass::Flat => {}
            SegClass::Based if self.broken(Mutation::BaseIgnored) => {}
            SegClass::Limited if self.broken(Mutation::WindowForLimited) => self.add_base(seg),
            SegClass::Based => self.add_base(seg),
            SegClass::Limited => {
                let reach = if self.broken(Mutation::LimitOff) {
                    2
                } else {
                    1
                };
                self.spoil_flags(Mutation::SegmentCheckFlags);
                let slow = self.c().label();
                let back = self.c().label();
                // limit - (offset + size - 1) as 64 bits, negative if beyond: its high half.
                let limit = HostMem::state(off!(seg) + seg as i32 * SEG_BYTES + SEG_LIMIT);
                let c = self.c();
                c.lea64(reg::R9, HostMem::at(reg::R13, size as i32 - reach));
                c.load(Width::B4, reg::R14, &limit);
                c.bytes(&[0x49, 0xf7, 0xd1]); // not r9
                c.lea64(reg::R9, HostMem::indexed(reg::R9, (reg::R14, 1), 1));
                c.bytes(&[0xc4, 0x43, 0xfb, 0xf0, 0xc9, 32]); // rorx r9, r9, 32
                c.if_nonzero_jump(reg::R9, slow);
                self.add_base(seg);
                self.c().bind(back);
                self.segment_slow(slow, back, info);
            }
            SegClass::Odd => {
                self.wait();
                let thunk = self.c_stubs.segment_check;
                let eip = self.eip;
                let c = self.c();
                c.mov_imm(reg::R9, eip);
                c.mov_imm(reg::R10, info.0);
                c.call_abs(thunk);
            }
        }
    }

    /// FWAIT before what may raise another exception, if the instruction asks for it.
    fn wait(&mut self) {
        if self.waits {
            self.c().bytes(&[0x9b]);
        }
    }

    fn segment_slow(&mut self, slow: Label, back: Label, info: AccessInfo) {
        let old = self.cold();
        let thunk = self.c_stubs.segment_check;
        let eip = self.eip;
        self.c().bind(slow);
        self.wait();
        let c = self.c();
        c.mov_imm(reg::R9, eip);
        c.mov_imm(reg::R10, info.0);
        c.call_abs(thunk);
        c.jmp(back);
        c.select(old);
    }

    /// r13 += base of `seg` (mod 2^32).
    fn add_base(&mut self, seg: SegReg) {
        let direct = HostMem::state(off!(seg) + seg as i32 * SEG_BYTES + SEG_BASE);
        let pointer = match seg {
            SegReg::Fs if !self.unit.mode.real_addressing() => Some(off!(fs_base_ptr)),
            SegReg::Gs if !self.unit.mode.real_addressing() => Some(off!(gs_base_ptr)),
            _ => None,
        };
        if pointer.is_some() && self.broken(Mutation::FsBaseIgnored) {
            return;
        }
        let c = self.c();
        match pointer {
            Some(p) => {
                // The pointer is poisoned while the segment cannot be used without a check.
                c.load(Width::B8, reg::R14, &HostMem::state(p));
                c.load(Width::B4, reg::R14, &HostMem::at(reg::R14, 0));
            }
            None => c.load(Width::B4, reg::R14, &direct),
        }
        c.lea32(reg::R13, HostMem::indexed(reg::R13, (reg::R14, 1), 0));
    }

    /// Looks r13 up in the soft TLB for an access of `size` bytes plus, if given, the count in a
    /// register (then `size` is 0): r14 = delta; jumps to `slow` on a miss.
    pub(crate) fn soft_lookup(&mut self, size: u32, more: Option<u8>, rw: Rw, slow: Label) {
        let tlb = off!(tlb) + (self.unit.mode.table() * TLB_ENTRIES * 16) as i32;
        self.spoil_flags(Mutation::SoftLookupFlags);
        let writes = rw.writes() && !self.broken(Mutation::WriteByReadTag);
        let tag = tlb + if writes { 4 } else { 0 };
        let crossing = size > 1 && self.broken(Mutation::CrossingMissed);
        let size = if crossing { 1 } else { size };
        let entry = |disp| HostMem {
            base: Some(reg::R15),
            index: Some((reg::R14, 8)),
            disp,
            window: false,
        };
        let c = self.c();
        pext_state(c, reg::R14, reg::R13, off!(mask_index));
        c.lea32(reg::R14, HostMem::indexed(reg::R14, (reg::R14, 1), 0));
        c.load(Width::B4, reg::R9, &entry(tag));
        c.bytes(&[0x41, 0xf7, 0xd1]); // not r9d
        c.lea32(
            reg::R9,
            HostMem::indexed(reg::R13, (reg::R9, 1), size as i32),
        );
        if let Some(more) = more {
            c.lea32(reg::R9, HostMem::indexed(reg::R9, (more, 1), 0));
        }
        pext_state(c, reg::R9, reg::R9, off!(mask_page));
        c.if_nonzero_jump(reg::R9, slow);
        c.load(Width::B8, reg::R14, &entry(tlb + 8));
    }

    fn soft_access(&mut self, size: u32, rw: Rw, emit: &mut Emit) {
        let slow = self.c().label();
        let back = self.c().label();
        self.soft_lookup(size, None, rw, slow);
        if rw == Rw::Read {
            self.c().bind(back);
        }
        let m = HostMem::indexed(reg::R13, (reg::R14, 1), 0);
        emit(self, &m);
        if rw.writes() {
            self.c().bind(back);
        }
        let old = self.cold();
        self.c().bind(slow);
        self.wait();
        let info = AccessInfo::new(size, 0, rw.writes(), rw == Rw::Update).aligned(self.alignment);
        let (eip, mut next, terminal) = (self.eip, self.next_eip, self.terminal);
        if self.broken(Mutation::CommitAddress) {
            next = eip;
        }
        let stubs = self.c_stubs;
        let c = self.c();
        c.mov_imm(reg::R9, eip);
        c.mov_imm(reg::R10, info.0);
        match rw {
            Rw::Read => c.call_abs(stubs.soft_read),
            Rw::Write | Rw::Update => {
                c.call_abs(stubs.soft_write);
                emit(self, &m);
                let c = self.c();
                c.store_imm(Width::B4, next, &HostMem::state(off!(rip)));
                c.mov_imm(reg::R9, u32::from(terminal));
                c.call_abs(stubs.commit);
            }
        }
        debug_assert_eq!(self.c().half(), Half::Cold);
        self.c().jmp(back);
        self.c().select(old);
    }
}

/// `pext dst, src, [state + offset]`.
pub(crate) fn pext_state(c: &mut CodeBuf, dst: u8, src: u8, offset: i32) {
    bits_state(c, dst, src, offset, 2);
}

/// `pdep dst, src, [state + offset]`.
pub(crate) fn pdep_state(c: &mut CodeBuf, dst: u8, src: u8, offset: i32) {
    bits_state(c, dst, src, offset, 3);
}

/// VEX.LZ.F3 (PEXT, `pp` 2) or F2 (PDEP, 3).0F38.W0 F5 /r with base r15.
fn bits_state(c: &mut CodeBuf, dst: u8, src: u8, offset: i32, pp: u8) {
    let r = if dst >= 8 { 0 } else { 0x80 };
    let b1 = r | 0x40 | 0x02; // R, X=1 (unused), B=0 (r15), map 0F38
    let b2 = ((!src & 0xf) << 3) | pp;
    c.bytes(&[0xc4, b1, b2, 0xf5, 0x80 | ((dst & 7) << 3) | 7]);
    c.bytes(&offset.to_le_bytes());
}

const SEG_BYTES: i32 = core::mem::size_of::<crate::state::Segment>() as i32;
const SEG_BASE: i32 = core::mem::offset_of!(crate::state::Segment, base) as i32;
const SEG_LIMIT: i32 = core::mem::offset_of!(crate::state::Segment, limit) as i32;
pub(crate) const SEG_SELECTOR: i32 = core::mem::offset_of!(crate::state::Segment, selector) as i32;

/// Displacement of a segment register's selector.
pub(crate) fn selector_off(seg: SegReg) -> i32 {
    off!(seg) + seg as i32 * SEG_BYTES + SEG_SELECTOR
}
