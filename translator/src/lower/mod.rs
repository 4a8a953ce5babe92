//! Lowering: from scanned guest instructions to host code.
//!
//! Invariants of every sequence: all faulting accesses come before any architectural change; flags
//! are changed only by the guest instruction itself, so that they are exact at every fault; guest
//! registers keep zero upper halves.

mod access;
mod control;
mod ident;
mod masked;
mod stack;
mod string;
mod system;

pub use control::condition_number;

use crate::asm::{CodeBuf, Half, HostMem, Label, Width, reg, short};
use crate::classify::{self, Alignment, Class, Table, Trap, Unit};
use crate::mode::Mode;
use crate::mutation::Mutation;
use crate::off;
use crate::prelude::Stubs;
use crate::scan::Scanned;
use hashbrown::HashSet;
use iced_x86::{Encoder, Instruction, InstructionInfoFactory, Register};

/// A callout site: the instruction that the monitor executes.
#[derive(Clone, Copy)]
pub struct Site {
    /// The guest instruction, `ip` = EIP.
    pub insn: Instruction,
    /// Exception to raise instead of executing it.
    pub trap: Option<Trap>,
    /// It is the last of its unit: an interrupt shadow reaches beyond the unit.
    pub last: bool,
}

/// A patchable direct jump.
#[derive(Clone, Copy, Debug)]
pub struct LinkSite {
    /// Half that holds the rel32 field.
    pub half: Half,
    /// Offset of the rel32 field in its half.
    pub at: u32,
    /// The cold stub that exits with this link.
    pub stub: Label,
    /// EIP it goes to.
    pub target: u32,
    /// Whether the target lies in another page.
    pub cross: bool,
}

/// Reused buffers of lowering.
#[derive(Default)]
pub struct Scratch {
    /// Code of the unit.
    pub buf: CodeBuf,
    /// Callout sites, ids counted from `site_base`.
    pub sites: Vec<Site>,
    /// Links, ids counted from `link_base`.
    pub links: Vec<LinkSite>,
    /// (half, offset, EIP): from here on host code belongs to the instruction at EIP.
    pub marks: Vec<(Half, u32, u32)>,
}

/// Facts about the unit that lowering needs.
pub struct UnitInfo<'a> {
    /// Mode it is translated for.
    pub mode: Mode,
    /// EIP of the first instruction.
    pub eip: u32,
    /// Guest-physical address of the first byte.
    pub phys: u64,
    /// Physical addresses of instructions to be lowered in the adapted (soft) form.
    pub adapted: &'a HashSet<u64>,
    /// Id of the first site and link made here.
    pub site_base: u32,
    /// See `site_base`.
    pub link_base: u32,
    /// True if direct jumps may be chained.
    pub chain: bool,
    /// True if other pages may be linked directly (supervisor code, or paging off).
    pub chain_pages: bool,
    /// A mistake to make.
    #[cfg(feature = "mutation")]
    pub mutation: Option<Mutation>,
}

/// Where the parts of a lowered unit begin.
pub struct Entries {
    /// Entry for indirect jumps: checks r13.
    pub indirect: Label,
    /// Entry for direct jumps.
    pub body: Label,
}

/// Lowers one unit.
pub struct Lower<'a> {
    pub(crate) s: &'a mut Scratch,
    pub(crate) c_stubs: &'a Stubs,
    pub(crate) enc: &'a mut Encoder,
    pub(crate) info: &'a mut InstructionInfoFactory,
    pub(crate) table: &'a Table,
    pub(crate) unit: UnitInfo<'a>,
    /// The instruction being lowered.
    pub(crate) eip: u32,
    pub(crate) next_eip: u32,
    /// This instruction uses the soft form.
    pub(crate) soft: bool,
    /// It faulted in its usual form before: FS and GS are checked by the monitor.
    pub(crate) adapted: bool,
    /// The FPU state is certainly loaded.
    fpu_loaded: bool,
    /// The instruction under way ends the unit by a transfer (a commit must not leave).
    pub(crate) terminal: bool,
    /// It raises #MF for a pending x87 exception, which comes before any fault of its operand.
    pub(crate) waits: bool,
    /// Whether its memory operand must be aligned to its size.
    pub(crate) alignment: Alignment,
    /// The instruction is in the shadow of an STI: no poll before it.
    pub(crate) in_shadow: bool,
    /// The instruction is the last of the unit.
    pub(crate) last: bool,
}

impl<'a> Lower<'a> {
    /// Prepares to lower a unit.
    pub fn new(
        s: &'a mut Scratch,
        stubs: &'a Stubs,
        enc: &'a mut Encoder,
        info: &'a mut InstructionInfoFactory,
        table: &'a Table,
        unit: UnitInfo<'a>,
    ) -> Self {
        s.buf.clear();
        s.sites.clear();
        s.links.clear();
        s.marks.clear();
        let eip = unit.eip;
        Self {
            s,
            c_stubs: stubs,
            enc,
            info,
            table,
            unit,
            eip,
            next_eip: eip,
            soft: false,
            adapted: false,
            fpu_loaded: false,
            terminal: false,
            waits: false,
            alignment: Alignment::Free,
            in_shadow: false,
            last: false,
        }
    }

    #[cfg(feature = "mutation")]
    pub(crate) fn broken(&self, mutation: Mutation) -> bool {
        self.unit.mutation == Some(mutation)
    }
    #[cfg(not(feature = "mutation"))]
    #[inline(always)]
    pub(crate) const fn broken(&self, _: Mutation) -> bool {
        false
    }

    /// A mistake: changes the host's flags.
    pub(crate) fn spoil_flags(&mut self, mutation: Mutation) {
        if self.broken(mutation) {
            self.c().bytes(&[0x41, 0x83, 0xf9, 0x7f]); // cmp r9d, 0x7f
        }
    }

    pub(crate) fn c(&mut self) -> &mut CodeBuf {
        &mut self.s.buf
    }

    /// Lowers the whole unit.
    pub fn run(&mut self, insns: &[Scanned]) -> Entries {
        let indirect = self.c().here();
        self.mark();
        if self.unit.chain {
            self.check_target(self.unit.eip, self.c_stubs.jump_miss);
        }
        let body = self.c().here();
        let mut open = true;
        for (i, s) in insns.iter().enumerate() {
            self.last = i + 1 == insns.len();
            self.eip = s.insn.ip32();
            // Sequential execution does not wrap at 64 KiB, in 16-bit code either: only branches
            // truncate EIP.
            self.next_eip = s.insn.next_ip32();
            let phys = self.unit.phys + u64::from(self.eip.wrapping_sub(self.unit.eip));
            self.adapted = self.unit.adapted.contains(&phys);
            self.soft = !self.unit.mode.window() || self.adapted;
            self.terminal = false;
            self.waits = self.table.waits(&s.insn) && !self.broken(Mutation::PendingOrder);
            self.alignment = if self.broken(Mutation::AlignmentIgnored) {
                Alignment::Free
            } else {
                classify::alignment(&s.insn)
            };
            self.mark();
            open = !self.instruction(s);
            self.in_shadow = s.class == Class::Sti;
        }
        if open {
            self.fall_through();
        }
        Entries { indirect, body }
    }

    /// Compares r13 with `eip`, without flags; on mismatch jumps to `miss`.
    pub(crate) fn check_target(&mut self, eip: u32, miss: u64) {
        let c = self.c();
        let difference = HostMem::at(reg::R13, eip.wrapping_neg() as i32);
        c.lea32(reg::R14, difference);
        c.if_nonzero_jump_abs(reg::R14, miss);
    }

    pub(crate) fn mark(&mut self) {
        let (half, pos, mut eip) = (self.s.buf.half(), self.s.buf.pos(), self.eip);
        if self.broken(Mutation::FaultPc) {
            eip = self.unit.eip;
        }
        if let Some(last) = self.s.marks.last_mut()
            && last.0 == half
            && last.1 == pos
        {
            last.2 = eip;
            return;
        }
        self.s.marks.push((half, pos, eip));
    }

    /// Switches to the cold half and marks it; returns the half to go back to.
    pub(crate) fn cold(&mut self) -> Half {
        let old = self.c().select(Half::Cold);
        self.mark();
        old
    }

    /// Lowers one instruction; true if it ended the unit.
    fn instruction(&mut self, s: &Scanned) -> bool {
        let insn = &s.insn;
        if let Some(trap) = self.mode_trap(insn, s.class) {
            self.callout(insn, Some(trap));
            return false;
        }
        if self.needs_target_check(s) {
            self.callout(insn, None);
            return false;
        }
        match s.class {
            Class::Ident => self.ident(insn),
            Class::Nop => {}
            Class::Lea => self.lea(insn),
            Class::Push => self.push(insn),
            Class::Pop => self.pop(insn),
            Class::Leave => self.leave(insn),
            Class::String => self.string(insn),
            Class::Direction => self.direction(insn),
            Class::Cli => self.cli(insn),
            Class::Sti => self.sti(insn),
            Class::Pushf => self.pushf(insn),
            Class::Popf => self.popf(insn),
            Class::StoreSelector => self.store_selector(insn),
            Class::BitString => self.bit_string(insn),
            Class::MaskMove => self.mask_move(insn),
            Class::MaskedLanes => self.masked_lanes(insn),
            Class::Callout => self.callout(insn, None),
            Class::CalloutEnd => self.callout(insn, None),
            Class::Undefined => self.callout(insn, Some(Trap::Undefined)),
            Class::TooLong => self.callout(insn, Some(Trap::TooLong)),
            Class::Call => return self.call(insn),
            Class::CallIndirect => return self.call_indirect(insn),
            Class::Return => return self.near_return(insn),
            Class::Jump => return self.jump(insn),
            Class::JumpIndirect => return self.jump_indirect(insn),
            Class::JumpIf => return self.jump_if(insn),
            Class::Loop => return self.loop_instruction(insn),
        }
        false
    }

    /// What CR0 and CR4 imply; else makes sure that the FPU state is loaded if it is needed.
    fn mode_trap(&mut self, insn: &Instruction, class: Class) -> Option<Trap> {
        let trap = self.table.mode_trap(insn, class, self.unit.mode);
        let state = matches!(class, Class::Ident | Class::MaskMove | Class::MaskedLanes)
            && self.table.unit(insn) != Unit::Integer;
        if trap.is_none() && state {
            self.need_fpu();
        }
        trap
    }

    fn need_fpu(&mut self) {
        if self.fpu_loaded || self.broken(Mutation::FpuState) {
            return;
        }
        self.fpu_loaded = true;
        let live = HostMem::state(off!(fpu_live));
        let c = self.c();
        // if fpu_live == 0 { call fpu_load }, without flags
        c.mov_rr(Width::B8, reg::R10, reg::RCX);
        c.load(Width::B4, reg::RCX, &live);
        let zero = c.short(short::JRCXZ);
        c.mov_rr(Width::B8, reg::RCX, reg::R10);
        let done = c.short(short::JMP);
        c.bind_short(zero);
        c.mov_rr(Width::B8, reg::RCX, reg::R10);
        let load = self.c_stubs.fpu_load;
        self.c().call_abs(load);
        self.c().bind_short(done);
    }

    /// Calls the monitor to execute this instruction.
    pub(crate) fn callout(&mut self, insn: &Instruction, trap: Option<Trap>) {
        let site = self.unit.site_base + self.s.sites.len() as u32;
        self.s.sites.push(Site {
            insn: *insn,
            trap,
            last: self.last,
        });
        let thunk = self.c_stubs.callout;
        let c = self.c();
        c.mov_imm(reg::R9, site);
        c.call_abs(thunk);
    }

    /// Out of line at `slow`: calls the monitor to execute this instruction, then goes on at `done`.
    pub(crate) fn callout_aside(&mut self, slow: Label, done: Label, insn: &Instruction) {
        let old = self.cold();
        self.c().bind(slow);
        self.callout(insn, None);
        self.c().jmp(done);
        self.c().select(old);
    }

    /// Encodes a host instruction through the encoder.
    pub(crate) fn encode(&mut self, insn: &Instruction) -> bool {
        let mut insn = *insn;
        // Repeat prefixes mean nothing here (mandatory prefixes are part of the opcode).
        insn.set_has_rep_prefix(false);
        insn.set_has_repne_prefix(false);
        let ok = self.enc.encode(&insn, 0).is_ok();
        let mut bytes = self.enc.take_buffer();
        if ok {
            self.c().bytes(&bytes);
        }
        bytes.clear();
        self.enc.set_buffer(bytes);
        ok
    }
}

const REG64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];
const REG32: [Register; 16] = [
    Register::EAX,
    Register::ECX,
    Register::EDX,
    Register::EBX,
    Register::ESP,
    Register::EBP,
    Register::ESI,
    Register::EDI,
    Register::R8D,
    Register::R9D,
    Register::R10D,
    Register::R11D,
    Register::R12D,
    Register::R13D,
    Register::R14D,
    Register::R15D,
];

/// The host register that holds a guest register (any width of it): ESP lives in r12.
pub(crate) fn host_number(r: Register) -> u8 {
    match r.number() as u8 {
        4 if matches!(r, Register::ESP | Register::SP) => reg::R12,
        n => n,
    }
}

/// Puts a host memory operand into an instruction.
pub(crate) fn set_memory(insn: &mut Instruction, m: &HostMem) {
    let names = if m.window { &REG32 } else { &REG64 };
    insn.set_segment_prefix(if m.window {
        Register::GS
    } else {
        Register::None
    });
    insn.set_memory_base(m.base.map_or(Register::None, |b| names[b as usize]));
    match m.index {
        Some((i, scale)) => {
            insn.set_memory_index(names[i as usize]);
            insn.set_memory_index_scale(u32::from(scale));
        }
        None => {
            insn.set_memory_index(Register::None);
            insn.set_memory_index_scale(1);
        }
    }
    if m.window {
        // 32-bit addresses: the displacement is taken modulo 2^32.
        insn.set_memory_displacement64(u64::from(m.disp as u32));
    } else {
        insn.set_memory_displacement64(i64::from(m.disp) as u64);
    }
    let size = match (m.base, m.disp) {
        (None, _) => 4,
        (_, 0) => 0,
        (_, d) if i8::try_from(d).is_ok() => 1,
        _ => {
            if m.window {
                4
            } else {
                8
            }
        }
    };
    insn.set_memory_displ_size(size);
}
