//! What memory an instruction is about to access, from its operands and the registers: for
//! breakpoints and alignment checks.

use crate::cpu::operand::segment_register;
use iced_x86::{
    Code, CodeSize, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess, OpKind,
    Register, UsedMemory,
};
use ring3_translator::state::{GuestState, SegReg, gpr};

/// One access.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryAccess {
    /// The segment.
    pub segment: SegReg,
    /// Offset in it.
    pub offset: u32,
    /// Type and size; of a repeated string instruction those of one element.
    pub kind: MemorySize,
    /// Whether it writes.
    pub writes: bool,
    /// A slot of the stack, no operand.
    pub slot: bool,
}

impl MemoryAccess {
    /// Bytes, at least one.
    pub fn size(&self) -> u32 {
        (self.kind.size() as u32).max(1)
    }

    /// The linear address, unchecked.
    pub fn linear(&self, st: &GuestState) -> u32 {
        (st.segment(self.segment).base as u32).wrapping_add(self.offset)
    }
}

/// The accesses of `insn`, in the processor's order.
pub(super) fn memory_of(
    st: &GuestState,
    factory: &mut InstructionInfoFactory,
    insn: &Instruction,
) -> Vec<MemoryAccess> {
    use Mnemonic as M;
    if insn.mnemonic() == M::Enter {
        return enter(st, insn);
    }
    let mut list: Vec<_> = factory
        .info(insn)
        .used_memory()
        .iter()
        .filter_map(|memory| one(st, insn, memory))
        .collect();
    // Their destination is the first operand.
    let moves = matches!(insn.mnemonic(), M::Movsb | M::Movsw | M::Movsd) && insn.op_count() == 2;
    if moves || insn.mnemonic() == M::Pop {
        list.reverse();
    }
    list
}

fn one(st: &GuestState, insn: &Instruction, memory: &UsedMemory) -> Option<MemoryAccess> {
    let writes = match memory.access() {
        OpAccess::Read | OpAccess::CondRead => false,
        OpAccess::None | OpAccess::NoMemAccess => return None,
        _ => true,
    };
    let kind = match memory.memory_size() {
        MemorySize::Unknown => insn.memory_size(),
        known => known,
    };
    // The decoder's list has ESP after the increment as base of the operand of POP.
    let popped = if insn.mnemonic() == Mnemonic::Pop && insn.memory_base() == Register::ESP {
        kind.size() as u32
    } else {
        0
    };
    let explicit = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
        && (memory.base(), memory.index()) == (insn.memory_base(), insn.memory_index())
        && memory.displacement() as u32 == insn.memory_displacement32().wrapping_add(popped);
    let stack = insn.is_stack_instruction() && !explicit && memory.segment() == Register::SS;
    let mut offset = if stack {
        // Its width is the stack segment's; the decoder knows the code segment's only.
        let pointer = st.reg32(memory.base().number());
        on_stack(st, pointer.wrapping_add(memory.displacement() as u32))
    } else {
        memory.virtual_address(0, |reg, _, _| value(st, reg))? as u32
    };
    if explicit {
        offset = offset.wrapping_add(bit_offset(st, insn));
    }
    if !stack && memory.address_size() == CodeSize::Code16 {
        offset &= 0xffff;
    }
    Some(MemoryAccess {
        segment: segment_register(memory.segment()),
        offset,
        kind,
        writes,
        slot: stack,
    })
}

/// What a register bit offset of BT, BTS, BTR and BTC adds to the address.
fn bit_offset(st: &GuestState, insn: &Instruction) -> u32 {
    use Mnemonic as M;
    let bits = matches!(insn.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc);
    if !bits || insn.op1_kind() != OpKind::Register {
        return 0;
    }
    let n = insn.op1_register().number();
    let (words, bytes) = if insn.op1_register().is_gpr16() {
        (i32::from(st.reg16(n) as i16) >> 4, 2)
    } else {
        (st.reg32(n) as i32 >> 5, 4)
    };
    words.wrapping_mul(bytes) as u32
}

/// A stack offset within the stack's width.
fn on_stack(st: &GuestState, offset: u32) -> u32 {
    if st.mode().stack32() {
        offset
    } else {
        offset & 0xffff
    }
}

/// ENTER: pushes EBP, copies frame pointers, pushes its own.
fn enter(st: &GuestState, insn: &Instruction) -> Vec<MemoryAccess> {
    let kind = if insn.code() == Code::Enterw_imm16_imm8 {
        MemorySize::UInt16
    } else {
        MemorySize::UInt32
    };
    let size = kind.size() as u32;
    let level = u32::from(insn.immediate8_2nd()) % 32;
    let at = |register, items: u32, writes| MemoryAccess {
        segment: SegReg::Ss,
        offset: on_stack(st, st.reg32(register).wrapping_sub(items * size)),
        kind,
        writes,
        slot: true,
    };
    let mut list = vec![at(gpr::SP, 1, true)];
    for n in 1..level {
        list.extend([at(gpr::BP, n, false), at(gpr::SP, n + 1, true)]);
    }
    if level > 0 {
        list.push(at(gpr::SP, level + 1, true));
    }
    list
}

/// A repeated string instruction with a count of zero accesses nothing.
pub(super) fn repeats_nothing(st: &GuestState, insn: &Instruction) -> bool {
    if !insn.is_string_instruction() || !(insn.has_rep_prefix() || insn.has_repne_prefix()) {
        return false;
    }
    let narrow = |i| {
        matches!(
            insn.op_kind(i),
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI
        )
    };
    if (0..insn.op_count()).any(narrow) {
        st.reg16(gpr::CX) == 0
    } else {
        st.reg32(gpr::CX) == 0
    }
}

/// A register's contribution to an offset.
fn value(st: &GuestState, reg: Register) -> Option<u64> {
    if reg.is_segment_register() {
        return Some(0);
    }
    let n = reg.number();
    if reg.is_gpr32() {
        Some(u64::from(st.reg32(n)))
    } else if reg.is_gpr16() {
        Some(u64::from(st.reg16(n)))
    } else if reg.is_gpr8() && n < 8 {
        Some(u64::from(st.reg8(n)))
    } else {
        None
    }
}
