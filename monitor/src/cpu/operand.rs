//! Operands of a decoded instruction: registers, effective addresses, and memory by way of the
//! full segment check and paging. Intel SDM vol. 1, 3.7 (operand addressing).
//!
//! Only 16- and 32-bit addressing exist here; effective addresses wrap at the address size.
//! Alignment checks (#AC) are not made.

use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::fault::Fault;
use crate::cpu::segment;
use iced_x86::{Instruction, OpKind, Register};
use ring3_translator::state::{GuestState, SegReg};

/// The segment register that a decoder register names; DS if it names none.
#[must_use]
pub fn segment_register(reg: Register) -> SegReg {
    match reg {
        Register::ES => SegReg::Es,
        Register::CS => SegReg::Cs,
        Register::SS => SegReg::Ss,
        Register::FS => SegReg::Fs,
        Register::GS => SegReg::Gs,
        _ => SegReg::Ds,
    }
}

/// The number of a general register of any width (AL and AH encodings for bytes).
#[must_use]
pub fn gpr_number(reg: Register) -> usize {
    let n = reg as usize;
    let base = if reg >= Register::EAX && reg <= Register::EDI {
        Register::EAX
    } else if reg >= Register::AX && reg <= Register::DI {
        Register::AX
    } else {
        Register::AL
    };
    n.wrapping_sub(base as usize) & 7
}

/// Reads an 8-, 16- or 32-bit general register, zero-extended.
#[must_use]
pub fn register(st: &GuestState, reg: Register) -> u32 {
    let n = gpr_number(reg);
    if reg >= Register::EAX && reg <= Register::EDI {
        st.reg32(n)
    } else if reg >= Register::AX && reg <= Register::DI {
        u32::from(st.reg16(n))
    } else {
        u32::from(st.reg8(n))
    }
}

/// Writes an 8-, 16- or 32-bit general register; the other bits of a narrower one are kept.
pub fn set_register(st: &mut GuestState, reg: Register, value: u32) {
    let n = gpr_number(reg);
    if reg >= Register::EAX && reg <= Register::EDI {
        st.set_reg32(n, value);
    } else if reg >= Register::AX && reg <= Register::DI {
        st.set_reg16(n, value as u16);
    } else {
        st.set_reg8(n, value as u8);
    }
}

/// True if the memory operand is addressed with 16 bits.
#[must_use]
pub fn address16(insn: &Instruction) -> bool {
    let is16 = |r: Register| r >= Register::AX && r <= Register::DI;
    let (base, index) = (insn.memory_base(), insn.memory_index());
    is16(base)
        || is16(index)
        || (base == Register::None && index == Register::None && insn.memory_displ_size() == 2)
}

/// Segment and offset of the memory operand. `stack_bias` is added where ESP is the base: POP to
/// memory computes its address with the incremented stack pointer (SDM vol. 2B, POP).
#[must_use]
pub fn address_biased(st: &GuestState, insn: &Instruction, stack_bias: u32) -> (SegReg, u32) {
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let mut offset = insn.memory_displacement32();
    if base != Register::None {
        offset = offset.wrapping_add(register(st, base));
        if base == Register::ESP {
            offset = offset.wrapping_add(stack_bias);
        }
    }
    if index != Register::None {
        offset = offset.wrapping_add(register(st, index).wrapping_mul(insn.memory_index_scale()));
    }
    if address16(insn) {
        offset &= 0xffff;
    }
    (segment_register(insn.memory_segment()), offset)
}

/// Segment and offset of the memory operand.
#[must_use]
pub fn address(st: &GuestState, insn: &Instruction) -> (SegReg, u32) {
    address_biased(st, insn, 0)
}

/// Reads `size` (1-8) bytes at `seg:offset`, little-endian, zero-extended.
/// # Errors
/// The segment's #GP or #SS, or #PF.
pub fn load<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    seg: SegReg,
    offset: u32,
    size: usize,
) -> Result<u64, Fault> {
    let mut bytes = [0u8; 8];
    load_bytes(st, env, seg, offset, &mut bytes[..size])?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes the low `size` (1-8) bytes of `value` at `seg:offset`.
/// # Errors
/// The segment's #GP or #SS, or #PF; nothing was written then.
pub fn store<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    seg: SegReg,
    offset: u32,
    size: usize,
    value: u64,
) -> Result<(), Fault> {
    store_bytes(st, env, seg, offset, &value.to_le_bytes()[..size])
}

/// Fills `bytes` from `seg:offset`.
/// # Errors
/// The segment's #GP or #SS, or #PF.
pub fn load_bytes<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    seg: SegReg,
    offset: u32,
    bytes: &mut [u8],
) -> Result<(), Fault> {
    let at = segment::linear(st, seg, offset, bytes.len() as u32, Access::Read)?;
    let who = Privilege::of(st);
    env.read(st, at, bytes, who)
}

/// Writes `bytes` at `seg:offset`.
/// # Errors
/// The segment's #GP or #SS, or #PF; nothing was written then.
pub fn store_bytes<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    seg: SegReg,
    offset: u32,
    bytes: &[u8],
) -> Result<(), Fault> {
    let at = segment::linear(st, seg, offset, bytes.len() as u32, Access::Write)?;
    let who = Privilege::of(st);
    env.write(st, at, bytes, who)
}

/// Checks that `len` bytes at `seg:offset` could be written, without writing.
/// # Errors
/// What the write would raise.
pub fn probe_store<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    seg: SegReg,
    offset: u32,
    len: u32,
) -> Result<(), Fault> {
    let at = segment::linear(st, seg, offset, len, Access::Write)?;
    let who = Privilege::of(st);
    env.probe(st, at, len, Access::Write, who)
}

/// Reads operand `op`: a general register (its own width) or `size` bytes of memory.
/// # Errors
/// Those of [`load`].
pub fn read_rm<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    op: u32,
    size: usize,
) -> Result<u32, Fault> {
    if insn.op_kind(op) == OpKind::Register {
        return Ok(register(st, insn.op_register(op)));
    }
    let (seg, offset) = address(st, insn);
    Ok(load(st, env, seg, offset, size)? as u32)
}

/// Writes operand `op`: a general register (its own width) or `size` bytes of memory.
/// # Errors
/// Those of [`store`].
pub fn write_rm<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    op: u32,
    size: usize,
    value: u32,
) -> Result<(), Fault> {
    if insn.op_kind(op) == OpKind::Register {
        set_register(st, insn.op_register(op), value);
        return Ok(());
    }
    let (seg, offset) = address(st, insn);
    store(st, env, seg, offset, size, u64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};
    use ring3_translator::state::gpr;
    use ring3_translator::state_box::StateBox;

    fn decode(bits: u32, bytes: &[u8]) -> Instruction {
        Decoder::with_ip(bits, bytes, 0x1000, DecoderOptions::NONE).decode()
    }

    #[test]
    fn effective_addresses_wrap_at_their_size_and_choose_the_segment() {
        let mut st = StateBox::new();
        st.set_reg32(gpr::BX, 0x1234_fff0);
        st.set_reg32(gpr::SI, 0x20);
        st.set_reg32(gpr::BP, 0xffff_ffff);
        st.set_reg32(gpr::SP, 0x100);
        let cases: [(u32, &[u8], SegReg, u32); 8] = [
            (16, &[0x8b, 0x00], SegReg::Ds, 0x10),                // [bx+si]
            (16, &[0x8b, 0x46, 0x02], SegReg::Ss, 1),             // [bp+2]
            (16, &[0x26, 0x8b, 0x46, 0x02], SegReg::Es, 1),       // es:[bp+2]
            (16, &[0x8b, 0x06, 0x34, 0x12], SegReg::Ds, 0x1234),  // [1234h]
            (32, &[0x8b, 0x04, 0xb3], SegReg::Ds, 0x1235_0070),   // [ebx+esi*4]
            (32, &[0x8b, 0x45, 0x02], SegReg::Ss, 1),             // [ebp+2]
            (32, &[0x65, 0xa1, 0x14, 0, 0, 0], SegReg::Gs, 0x14), // gs:[14h]
            (32, &[0x67, 0xa1, 0x14, 0xff], SegReg::Ds, 0xff14),  // moffs16
        ];
        for (bits, bytes, seg, offset) in cases {
            let insn = decode(bits, bytes);
            assert_eq!(address(&st, &insn), (seg, offset), "{bytes:02x?}");
        }
        let pop = decode(32, &[0x8f, 0x04, 0x24]);
        assert_eq!(address_biased(&st, &pop, 4), (SegReg::Ss, 0x104));
    }

    #[test]
    fn byte_and_word_registers_keep_the_other_bits() {
        let mut st = StateBox::new();
        st.set_reg32(gpr::CX, 0x1122_3344);
        set_register(&mut st, Register::CH, 0xaa);
        assert_eq!(st.reg32(gpr::CX), 0x1122_aa44);
        set_register(&mut st, Register::CX, 0xbbcc);
        assert_eq!(st.reg32(gpr::CX), 0x1122_bbcc);
        assert_eq!(register(&st, Register::CH), 0xbb);
        assert_eq!(register(&st, Register::ECX), 0x1122_bbcc);
    }
}
