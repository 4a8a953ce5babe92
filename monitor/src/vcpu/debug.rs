//! Breakpoints and single steps: DR0-DR3, DR6, DR7, TF. Intel SDM vol. 3B, 18.2 and 18.3.
//!
//! While DR7 enables a breakpoint, [`GuestState::mode`] asks for units of one instruction, and the
//! run loop calls [`before`] and [`after`] around each:
//! - instruction breakpoints are faults, found before the instruction unless RF is set;
//! - data and I/O breakpoints are traps. What an instruction is about to access is computed from
//!   its operands and the registers before it runs; the trap comes after it has completed;
//! - what the processor accesses for itself (descriptor tables, task states, the frames of events
//!   and far transfers) is noted as it happens: [`Debugger::note`]. After an event that met a
//!   breakpoint the trap comes before the handler's first instruction: [`overdue`];
//! - after MOV SS and POP SS traps wait for one more instruction, and instruction breakpoints
//!   there are not seen.
//!
//! Walks of the page tables meet no breakpoint: DR0-DR3 hold linear addresses, which are compared
//! before translation (18.2.1), and the processor reaches its page tables by physical addresses
//! (vol. 3A, 4.3).

use crate::cpu::fault::{Fault, Vector};
use crate::vcpu::core::Core;
use crate::vcpu::operands::{MemoryAccess, memory_of, repeats_nothing};
use iced_x86::{
    Decoder, DecoderError, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpKind,
};
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::mutation::Mutation;
use ring3_translator::scan::LONGEST;
use ring3_translator::state::{GuestState, SegReg, cr4, dr6, eflags, gpr, shadow};

/// What is remembered between instructions.
pub struct Debugger {
    factory: InstructionInfoFactory,
    /// B0-B3 of the instruction that runs.
    hits: u64,
    /// B0-B3 that wait: because of the shadow of MOV SS, or for an event's handler.
    held: u64,
}

impl Default for Debugger {
    fn default() -> Self {
        Self {
            factory: InstructionInfoFactory::new(),
            hits: 0,
            held: 0,
        }
    }
}

impl Debugger {
    /// The memory that an instruction is about to access.
    pub(super) fn memory_of(&mut self, st: &GuestState, insn: &Instruction) -> Vec<MemoryAccess> {
        memory_of(st, &mut self.factory, insn)
    }

    /// A trap waits.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.held != 0
    }

    /// Notes an access that the monitor makes for the processor. Call it while DR7 enables any
    /// breakpoint.
    pub(super) fn note(&mut self, st: &GuestState, at: u32, len: u32, write: bool) {
        self.hits |= met(st, at, len, write);
    }

    /// An event begins: an instruction that ends by it has met nothing.
    pub(super) fn begin_event(&mut self) {
        self.hits = 0;
    }

    /// An event has been delivered: what it met is due before its handler.
    pub(super) fn end_event(&mut self) {
        self.held |= core::mem::take(&mut self.hits);
    }
}

/// B0-B3 of the data breakpoints that an access touches.
fn met(st: &GuestState, at: u32, len: u32, write: bool) -> u64 {
    enabled(st)
        .filter(|b| {
            let write = write || st.broken(Mutation::BreakpointDirection);
            (b.condition == Condition::ReadWrite || (write && b.condition == Condition::Write))
                && b.touches(at, len)
        })
        .fold(0, |bits, b| bits | b.bit)
}

/// Raises the #DB of data breakpoints that the delivery of an event has met.
pub(super) fn overdue(st: &mut GuestState, core: &mut Core) {
    if core.shutdown || st.interrupt_shadow == shadow::SS {
        return;
    }
    let bits = core::mem::take(&mut core.debug.held);
    set_status(st, bits);
    core.raise(st, Fault::plain(Vector::Db));
}

/// DR7's R/Wn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Execute,
    Write,
    Port,
    ReadWrite,
}

/// One enabled breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Breakpoint {
    bit: u64,
    condition: Condition,
    address: u32,
    len: u32,
}

impl Breakpoint {
    /// True if an access to `len` bytes at `at` touches it.
    fn touches(&self, at: u32, len: u32) -> bool {
        let first = self.address & !(self.len - 1);
        // Distances modulo 4 GiB: one range begins inside the other.
        at.wrapping_sub(first) < self.len || first.wrapping_sub(at) < len
    }
}

/// The breakpoints that DR7 enables. Without CR4.DE, R/W 2 is undefined: never met here.
fn enabled(st: &GuestState) -> impl Iterator<Item = Breakpoint> {
    let (dr, dr7, extensions) = (st.dr, st.dr[7], st.cr4 & cr4::DE != 0);
    (0..4usize).filter_map(move |n| {
        if dr7 >> (2 * n) & 3 == 0 {
            return None;
        }
        let control = dr7 >> (16 + 4 * n) & 15;
        let condition = match control & 3 {
            0 => Condition::Execute,
            1 => Condition::Write,
            2 if extensions => Condition::Port,
            2 => return None,
            _ => Condition::ReadWrite,
        };
        let len = match control >> 2 {
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4,
        };
        Some(Breakpoint {
            bit: 1 << n,
            condition,
            address: dr[n] as u32,
            len,
        })
    })
}

/// Looks at the instruction at CS:EIP: raises #DB and returns true if a breakpoint on it is met,
/// else notes which data breakpoints it is about to meet.
pub(super) fn before(st: &mut GuestState, core: &mut Core) -> bool {
    let lin = (st.segment(SegReg::Cs).base as u32).wrapping_add(st.eip());
    let resumed = st.sys_flags & eflags::RF != 0 || core.repeating;
    if !resumed && st.interrupt_shadow != shadow::SS {
        // An instruction breakpoint's length is 1: the first byte, prefixes included.
        let met = enabled(st).filter(|b| b.condition == Condition::Execute && b.address == lin);
        let bits = met.fold(0, |bits, b| bits | b.bit);
        if bits != 0 {
            set_status(st, bits);
            core.raise(st, Fault::plain(Vector::Db));
            return true;
        }
    }
    core.debug.hits = if enabled(st).any(|b| b.condition != Condition::Execute) {
        fetch(st, core, lin).map_or(0, |insn| accesses(st, &mut core.debug.factory, &insn))
    } else {
        0
    };
    false
}

/// After an instruction: the traps that are due. `trap_flag` is TF as it was before it.
pub(super) fn after(st: &mut GuestState, core: &mut Core, trap_flag: bool) {
    let hits = core::mem::take(&mut core.debug.hits);
    if core.shutdown || !(core.completed || core.repeating) {
        return; // it faulted, or was an INT: no trap of its own
    }
    core.debug.held |= hits;
    if st.interrupt_shadow == shadow::SS {
        return;
    }
    let step = if trap_flag && !st.broken(Mutation::StepStatus) {
        dr6::BS
    } else {
        0
    };
    let bits = core::mem::take(&mut core.debug.held) | step;
    if bits == 0 && !trap_flag {
        return;
    }
    if core::mem::take(&mut core.repeating) {
        // A trap after an iteration that is not the last saves RF. Intel SDM vol. 3B, 18.3.1.1.
        st.sys_flags |= eflags::RF;
    }
    set_status(st, bits);
    core.raise(st, Fault::plain(Vector::Db));
}

/// DR6 of a #DB: B0-B3 are those of this exception, the other bits stay until software clears them.
fn set_status(st: &mut GuestState, bits: u64) {
    st.dr[6] = st.dr[6] & !dr6::B | bits;
}

/// The instruction at a linear address, if it can be fetched and decoded.
pub(super) fn fetch(st: &mut GuestState, core: &mut Core, lin: u32) -> Option<Instruction> {
    let mut bytes = [0; LONGEST];
    let room = ((PAGE_SIZE - u64::from(lin) % PAGE_SIZE) as usize).min(LONGEST);
    let phys = core.fetch_code(st, lin).ok()?.phys;
    core.read_code(phys, &mut bytes[..room]);
    let bits = if st.mode().code32() { 32 } else { 16 };
    let eip = st.rip;
    let decode = |bytes: &[u8]| {
        let mut decoder = Decoder::with_ip(bits, bytes, eip, DecoderOptions::NONE);
        let insn = decoder.decode();
        (decoder.last_error() == DecoderError::None).then_some(insn)
    };
    if let Some(insn) = decode(&bytes[..room]) {
        return Some(insn);
    }
    if room == LONGEST {
        return None;
    }
    let phys = core
        .fetch_code(st, lin.wrapping_add(room as u32))
        .ok()?
        .phys;
    core.read_code(phys, &mut bytes[room..]);
    decode(&bytes)
}

/// B0-B3 of the data and I/O breakpoints that an instruction is about to meet.
fn accesses(st: &GuestState, factory: &mut InstructionInfoFactory, insn: &Instruction) -> u64 {
    use Condition as C;
    let mut bits = 0;
    if repeats_nothing(st, insn) || transfers_far(insn) {
        return 0;
    }
    if let Some((port, size)) = port_access(st, insn) {
        let met = enabled(st).filter(|b| b.condition == C::Port && b.touches(port, size));
        bits |= met.fold(0, |bits, b| bits | b.bit);
    }
    for memory in memory_of(st, factory, insn) {
        bits |= met(st, memory.linear(st), memory.size(), memory.writes);
    }
    bits
}

/// Transfers whose accesses depend on descriptors: these are noted as they happen.
fn transfers_far(insn: &Instruction) -> bool {
    use Mnemonic as M;
    insn.is_call_far()
        || insn.is_call_far_indirect()
        || insn.is_jmp_far()
        || insn.is_jmp_far_indirect()
        || matches!(
            insn.mnemonic(),
            M::Retf | M::Iret | M::Iretd | M::Int | M::Int3 | M::Int1 | M::Into
        )
}

/// The port and size of IN, OUT, INS and OUTS.
fn port_access(st: &GuestState, insn: &Instruction) -> Option<(u32, u32)> {
    use Mnemonic as M;
    let dx = u32::from(st.reg16(gpr::DX));
    match insn.mnemonic() {
        M::In | M::Out => {
            let port = |i| match insn.op_kind(i) {
                OpKind::Immediate8 => Some(u32::from(insn.immediate8())),
                _ => None,
            };
            let data = if insn.mnemonic() == M::Out {
                insn.op1_register()
            } else {
                insn.op0_register()
            };
            Some((
                port(0).or_else(|| port(1)).unwrap_or(dx),
                data.size() as u32,
            ))
        }
        M::Insb | M::Outsb => Some((dx, 1)),
        M::Insw | M::Outsw => Some((dx, 2)),
        M::Insd | M::Outsd => Some((dx, 4)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring3_translator::state_box::StateBox;

    fn decoded(bytes: &[u8]) -> Instruction {
        Decoder::with_ip(32, bytes, 0x1000, DecoderOptions::NONE).decode()
    }

    /// Enables breakpoint 0 with the given R/W and LEN fields.
    fn armed(address: u32, rw: u64, len: u64) -> StateBox {
        let mut st = StateBox::new();
        st.dr[0] = u64::from(address);
        st.dr[7] = 0x401 | rw << 16 | len << 18;
        st.cr4 = cr4::DE;
        st
    }

    fn hits(st: &GuestState, bytes: &[u8]) -> u64 {
        accesses(st, &mut InstructionInfoFactory::new(), &decoded(bytes))
    }

    #[test]
    fn ranges_overlap_modulo_4_gib_and_are_aligned_to_their_length() {
        let b = Breakpoint {
            bit: 1,
            condition: Condition::Write,
            address: 0x1003,
            len: 4,
        };
        for (at, len, touched) in [
            (0xfff, 1, false),
            (0xfff, 2, true),
            (0x1003, 1, true),
            (0x1004, 4, false),
            (0xff0, 0x40, true),
        ] {
            assert_eq!(b.touches(at, len), touched, "{at:#x} {len}");
        }
        let top = Breakpoint { address: 0, ..b };
        assert!(top.touches(0xffff_fffe, 4));
    }

    #[test]
    fn writes_are_told_from_reads() {
        let mut st = armed(0x2000, 1, 3);
        st.set_reg32(gpr::BX, 0x1ff0);
        assert_eq!(hits(&st, &[0x89, 0x43, 0x10]), 1, "mov [ebx+16], eax");
        assert_eq!(hits(&st, &[0x8b, 0x43, 0x10]), 0, "mov eax, [ebx+16]");
        assert_eq!(hits(&st, &[0x01, 0x43, 0x13]), 1, "add [ebx+19], eax");
        assert_eq!(hits(&st, &[0x89, 0x43, 0x14]), 0, "mov [ebx+20], eax");
        let mut st = armed(0x2000, 3, 3);
        st.set_reg32(gpr::BX, 0x1ff0);
        assert_eq!(hits(&st, &[0x8b, 0x43, 0x10]), 1, "mov eax, [ebx+16]");
        assert_eq!(hits(&st, &[0x8d, 0x43, 0x10]), 0, "lea");
    }

    #[test]
    fn stack_and_string_operands_count() {
        let mut st = armed(0x2000, 1, 3);
        st.set_reg32(gpr::SP, 0x2004);
        assert_eq!(hits(&st, &[0x50]), 1, "push eax");
        assert_eq!(hits(&st, &[0x58]), 0, "pop eax");
        st.set_reg32(gpr::DI, 0x2000);
        assert_eq!(hits(&st, &[0xaa]), 1, "stosb");
        assert_eq!(hits(&st, &[0xf3, 0xaa]), 0, "rep stosb, nothing to do");
        st.set_reg32(gpr::CX, 1);
        assert_eq!(hits(&st, &[0xf3, 0xaa]), 1, "rep stosb");
    }

    #[test]
    fn ports_count_only_with_debugging_extensions() {
        let mut st = armed(0x61, 2, 0);
        assert_eq!(hits(&st, &[0xe4, 0x61]), 1, "in al, 61h");
        assert_eq!(hits(&st, &[0xe7, 0x60]), 1, "out 60h, eax");
        assert_eq!(hits(&st, &[0xec]), 0, "in al, dx");
        st.set_reg32(gpr::DX, 0x61);
        assert_eq!(hits(&st, &[0xee]), 1, "out dx, al");
        st.cr4 = 0;
        assert_eq!(hits(&st, &[0xee]), 0);
    }
}
