//! Fills in an instruction's operands: registers, immediates, and memory in every addressing form.
//!
//! Memory is placed backwards: first the linear address that the access shall have, then an
//! addressing form, then the value of its base register (or the displacement) that leads there.

use super::state;
use crate::case::{Regs, Width, seg};
use crate::generate::forms::{Form, Shape, is_either};
use crate::layout;
use crate::rng::Rng;
use crate::vector::Vector;
use iced_x86::{Code, Instruction, OpCodeOperandKind as K, OpKind, Register};

/// A case in the making.
pub struct Draft {
    /// Random numbers.
    pub rng: Rng,
    /// Initial registers.
    pub regs: Regs,
    /// Initial vector state.
    pub vector: Vector,
    /// Bytes over the initial memory.
    pub patches: Vec<(u32, Vec<u8>)>,
    /// Memory not to compare.
    pub ignored: Vec<(u32, u32)>,
    /// Bit n: general register n has the value that an operand needs.
    pub pinned: u8,
    /// Linear address of the explicit memory operand.
    pub address: Option<u32>,
    /// The general register operand that is not an address, if it is the last one chosen.
    pub register_operand: Option<usize>,
    /// Alignment checks are on: operands are misaligned more often.
    pub alignment: bool,
}

const GPR8: [Register; 8] = {
    use Register::*;
    [AL, CL, DL, BL, AH, CH, DH, BH]
};
const SEGMENTS: [Register; 6] = {
    use Register::*;
    [ES, CS, SS, DS, FS, GS]
};

fn nth(first: Register, n: u32) -> Register {
    first + n
}

/// A linear address for an access of `size` bytes: usual places, page crossings, faults.
pub fn target(rng: &mut Rng, size: u32) -> u32 {
    place(rng, size, 62)
}

/// The same; `aligned` of a hundred lie at usual places, those up to 72 are misaligned.
fn place(rng: &mut Rng, size: u32, aligned: u32) -> u32 {
    let size = size.max(1);
    let inside = |rng: &mut Rng, from: u32, len: u32| {
        let align = if size.is_power_of_two() && size <= 64 {
            size
        } else {
            16
        };
        from + (rng.below(len - size.min(len - 1)) & !(align - 1))
    };
    let crossing = |rng: &mut Rng, edge: u32| edge - 1 - rng.below(size.max(2) - 1).min(edge - 1);
    match rng.below(100) {
        n if n < aligned => inside(rng, layout::DATA, 2 * layout::PAGE),
        0..72 => layout::DATA + rng.below(2 * layout::PAGE - size.min(4096)),
        72..79 => crossing(rng, layout::DATA + layout::PAGE),
        79..84 => inside(rng, layout::READ_ONLY, layout::PAGE),
        84..87 => crossing(rng, layout::READ_ONLY),
        87..90 => crossing(rng, layout::READ_ONLY + layout::PAGE),
        90..92 => crossing(rng, layout::DATA),
        92..94 => rng.u32(),
        94..95 => 0u32.wrapping_sub(rng.below(size + 1)),
        _ => inside(rng, layout::STACK, layout::PAGE),
    }
}

impl Draft {
    /// A linear address for an access of `size` bytes, see [`target`].
    fn target(&mut self, size: u32) -> u32 {
        place(&mut self.rng, size, if self.alignment { 30 } else { 62 })
    }

    /// Sets general register `n` to `value` and pins it, unless an operand already needs it.
    pub fn pin(&mut self, n: usize, value: u32) -> bool {
        if self.pinned >> n & 1 != 0 {
            return self.regs.gpr[n] == value;
        }
        self.pinned |= 1 << n;
        self.regs.gpr[n] = value;
        true
    }

    /// As [`Self::pin`] for the low 16 bits.
    pub fn pin16(&mut self, n: usize, value: u16) -> bool {
        let old = self.regs.gpr[n];
        self.pin(n, old & 0xffff_0000 | u32::from(value))
    }

    /// Puts bytes at a linear address of the initial memory.
    pub fn patch(&mut self, at: u32, bytes: &[u8]) {
        self.patches.push((at, bytes.to_vec()));
    }

    /// Builds the instruction of a form with random operands.
    ///
    /// # Errors
    /// The reason if this form has an operand that user code cannot have.
    pub fn instruction(&mut self, form: Form) -> Result<Instruction, &'static str> {
        let op = form.code.op_code();
        let mut i = Instruction::default();
        i.set_code(form.code);
        for n in 0..op.op_count() {
            let kind = op.op_kind(n);
            if is_either(kind) && form.shape == Shape::Memory {
                self.memory(&mut i, n, form);
            } else {
                self.operand(&mut i, n, kind, form)?;
            }
        }
        if op.can_use_op_mask_register() && (op.require_op_mask_register() || self.rng.chance(50)) {
            i.set_op_mask(nth(Register::K1, self.rng.below(7)));
            if op.can_use_zeroing_masking() && self.rng.chance(40) {
                i.set_zeroing_masking(true);
            }
        }
        let memory = (0..op.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
        if memory && op.can_broadcast() && self.rng.chance(40) {
            i.set_is_broadcast(true);
        }
        if !memory && op.can_use_rounding_control() && self.rng.chance(30) {
            use iced_x86::RoundingControl::*;
            let rc = self
                .rng
                .pick(&[RoundToNearest, RoundDown, RoundUp, RoundTowardZero]);
            i.set_rounding_control(rc);
        } else if !memory && op.can_suppress_all_exceptions() && self.rng.chance(30) {
            i.set_suppress_all_exceptions(true);
        }
        Ok(i)
    }

    fn operand(
        &mut self,
        i: &mut Instruction,
        n: u32,
        kind: K,
        form: Form,
    ) -> Result<(), &'static str> {
        use Register as R;
        let r = self.rng.below(8);
        let register = match kind {
            K::r8_or_mem | K::r8_reg | K::r8_opcode => {
                self.register_operand = Some((r & 3) as usize);
                GPR8[r as usize]
            }
            K::r16_or_mem | K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode => {
                self.register_operand = Some(r as usize);
                if kind == K::r16_reg_mem {
                    self.address_register(i, r as usize);
                }
                nth(R::AX, r)
            }
            K::r32_or_mem
            | K::r32_or_mem_mpx
            | K::r32_reg
            | K::r32_reg_mem
            | K::r32_rm
            | K::r32_opcode
            | K::r32_vvvv => {
                self.register_operand = Some(r as usize);
                nth(R::EAX, r)
            }
            K::mm_or_mem | K::mm_reg | K::mm_rm => nth(R::MM0, r),
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 | K::xmm_is5 => {
                nth(R::XMM0, r)
            }
            K::xmmp3_vvvv => nth(R::XMM0, r & 4),
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_is5 => {
                nth(R::YMM0, r)
            }
            K::zmm_or_mem | K::zmm_reg | K::zmm_rm | K::zmm_vvvv => nth(R::ZMM0, r),
            K::zmmp3_vvvv => nth(R::ZMM0, r & 4),
            K::k_or_mem | K::k_reg | K::k_rm | K::k_vvvv => nth(R::K0, r),
            K::kp1_reg => nth(R::K0, r & 6),
            K::bnd_or_mem_mpx | K::bnd_reg => nth(R::BND0, r & 3),
            K::cr_reg => [R::CR0, R::CR2, R::CR3, R::CR4][r as usize & 3],
            K::dr_reg => nth(R::DR0, r),
            K::seg_reg => SEGMENTS[self.rng.below(6) as usize],
            K::es => R::ES,
            K::cs => R::CS,
            K::ss => R::SS,
            K::ds => R::DS,
            K::fs => R::FS,
            K::gs => R::GS,
            K::al => R::AL,
            K::cl => R::CL,
            K::ax => R::AX,
            K::dx => R::DX,
            K::eax => R::EAX,
            K::st0 => R::ST0,
            K::sti_opcode => nth(R::ST0, r),
            _ => return self.other_operand(i, n, kind, form),
        };
        i.set_op_kind(n, OpKind::Register);
        i.set_op_register(n, register);
        Ok(())
    }

    /// A register that holds an address without a memory operand (UMONITOR and the like).
    fn address_register(&mut self, _i: &Instruction, n: usize) {
        let at = self.target(64);
        self.pin(n, at);
    }

    fn other_operand(
        &mut self,
        i: &mut Instruction,
        n: u32,
        kind: K,
        form: Form,
    ) -> Result<(), &'static str> {
        let value = if self.rng.chance(40) {
            u64::from(self.rng.below(40))
        } else {
            state::integer(&mut self.rng)
        };
        match kind {
            K::mem
            | K::mem_mpx
            | K::mem_mib
            | K::mem_vsib32x
            | K::mem_vsib64x
            | K::mem_vsib32y
            | K::mem_vsib64y
            | K::mem_vsib32z
            | K::mem_vsib64z => self.memory(i, n, form),
            K::mem_offs => self.memory_offset(i, n),
            K::imm4_m2z => {
                i.set_op_kind(n, OpKind::Immediate8);
                i.set_immediate8((value & 3) as u8);
            }
            K::imm8 => {
                let second = (0..n)
                    .any(|m| matches!(i.op_kind(m), OpKind::Immediate8 | OpKind::Immediate16));
                if second {
                    i.set_op_kind(n, OpKind::Immediate8_2nd);
                    i.set_immediate8_2nd(value as u8 & if self.rng.chance(80) { 3 } else { 0x3f });
                } else {
                    i.set_op_kind(n, OpKind::Immediate8);
                    i.set_immediate8(value as u8);
                }
            }
            K::imm8_const_1 => {
                i.set_op_kind(n, OpKind::Immediate8);
                i.set_immediate8(1);
            }
            K::imm8sex16 => {
                i.set_op_kind(n, OpKind::Immediate8to16);
                i.set_immediate8to16(i16::from(value as i8));
            }
            K::imm8sex32 => {
                i.set_op_kind(n, OpKind::Immediate8to32);
                i.set_immediate8to32(i32::from(value as i8));
            }
            K::imm16 => {
                i.set_op_kind(n, OpKind::Immediate16);
                let small = matches!(form.code, Code::Enterw_imm16_imm8 | Code::Enterd_imm16_imm8);
                let small = small || form.code.op_code().op_count() == 1; // RET n
                i.set_immediate16(
                    if small && (form.code.op_code().op_count() == 1 || self.rng.chance(90)) {
                        value as u16 & 0x1ff
                    } else {
                        value as u16
                    },
                );
            }
            K::imm32 => {
                i.set_op_kind(n, OpKind::Immediate32);
                i.set_immediate32(value as u32);
            }
            K::seg_rSI | K::es_rDI | K::seg_rDI | K::seg_rBX_al => {
                self.string_operand(i, n, kind, form)
            }
            K::br16_1 | K::br16_2 | K::brdisp_2 => {
                i.set_op_kind(n, OpKind::NearBranch16);
                i.set_near_branch16(0);
            }
            K::br32_1 | K::br32_4 | K::xbegin_2 | K::xbegin_4 | K::brdisp_4 => {
                i.set_op_kind(n, OpKind::NearBranch32);
                i.set_near_branch32(0);
            }
            K::farbr2_2 => i.set_op_kind(n, OpKind::FarBranch16),
            K::farbr4_2 => i.set_op_kind(n, OpKind::FarBranch32),
            _ => return Err("an operand of 64-bit mode only"),
        }
        Ok(())
    }

    /// Chooses the segment register of a memory operand whose default is `default`; sets the
    /// override. Returns its index.
    fn segment(&mut self, i: &mut Instruction, default: usize) -> usize {
        if self.rng.chance(75) {
            return default;
        }
        let n = self.rng.below(6) as usize;
        i.set_segment_prefix(SEGMENTS[n]);
        n
    }

    /// Offset within segment `n` that reaches linear `at`; for segments with limits mostly one
    /// that is allowed.
    fn offset_in(&mut self, n: usize, at: u32) -> u32 {
        at.wrapping_sub(state::base(&self.regs, n))
    }

    fn size_of(i: &Instruction, form: Form) -> u32 {
        let _ = i;
        let size = form.code.op_code().memory_size().size() as u32;
        if size == 0 { 64 } else { size }
    }

    fn memory(&mut self, i: &mut Instruction, n: u32, form: Form) {
        i.set_op_kind(n, OpKind::Memory);
        let size = Self::size_of(i, form);
        let mut at = self.target(size);
        if size >= 16 && self.rng.chance(if self.alignment { 35 } else { 55 }) {
            at &= !(size.next_power_of_two().min(64) - 1);
        }
        let kind = form.code.op_code().op_kind(n);
        let vsib = match kind {
            K::mem_vsib32x | K::mem_vsib64x => Some(Register::XMM0),
            K::mem_vsib32y | K::mem_vsib64y => Some(Register::YMM0),
            K::mem_vsib32z | K::mem_vsib64z => Some(Register::ZMM0),
            _ => None,
        };
        if let Some(first) = vsib {
            let narrow = matches!(kind, K::mem_vsib32x | K::mem_vsib32y | K::mem_vsib32z);
            self.vector_index(i, first, narrow, at);
        } else {
            let natural16 = form.width == Width::Code16;
            let use16 = kind != K::mem_mib && natural16 != self.rng.chance(12);
            if use16 {
                self.memory16(i, at)
            } else {
                self.memory32(i, at)
            }
        }
        if self.rng.chance(60) {
            let mut bytes = vec![0; size.min(128) as usize];
            state::lanes(&mut self.rng, &mut bytes);
            let at = self.address.unwrap_or(at);
            self.patch(at, &bytes);
        }
    }

    fn memory32(&mut self, i: &mut Instruction, at: u32) {
        use Register as R;
        let base = self.rng.chance(80).then(|| self.rng.below(8));
        let index = self
            .rng
            .chance(40)
            .then(|| self.rng.pick(&[0u32, 1, 2, 3, 5, 6, 7]));
        let default = if matches!(base, Some(4 | 5)) {
            seg::SS
        } else {
            seg::DS
        };
        let segment = self.segment(i, default);
        let offset = self.offset_in(segment, at);
        let scale = 1u32 << self.rng.below(4);
        if let Some(x) = index {
            i.set_memory_index(nth(R::EAX, x));
            i.set_memory_index_scale(scale);
            if self.rng.chance(40) {
                let small = self.rng.below(256);
                self.pin(x as usize, small);
            }
            self.pinned |= 1 << x;
        }
        let scaled = index.map_or(0, |x| self.regs.gpr[x as usize].wrapping_mul(scale));
        let mut displacement = offset.wrapping_sub(scaled);
        let mut size = 4;
        if let Some(b) = base {
            i.set_memory_base(nth(R::EAX, b));
            let free = b != 4 && self.pinned >> b & 1 == 0;
            if free {
                (displacement, size) = match self.rng.below(4) {
                    0 => (0, u32::from(b == 5)),
                    1 | 2 => (self.rng.u32() as i8 as u32, 1),
                    _ => (self.rng.u32(), 4),
                };
                self.pin(
                    b as usize,
                    offset.wrapping_sub(scaled).wrapping_sub(displacement),
                );
            } else {
                self.pinned |= 1 << b;
                displacement = displacement.wrapping_sub(self.regs.gpr[b as usize]);
            }
        }
        i.set_memory_displacement32(displacement);
        i.set_memory_displ_size(if base.is_none() { 4 } else { size });
        self.address = Some(at);
    }

    fn memory16(&mut self, i: &mut Instruction, at: u32) {
        use Register as R;
        const FORMS: [(Register, Register); 9] = [
            (R::BX, R::SI),
            (R::BX, R::DI),
            (R::BP, R::SI),
            (R::BP, R::DI),
            (R::SI, R::None),
            (R::DI, R::None),
            (R::BP, R::None),
            (R::BX, R::None),
            (R::None, R::None),
        ];
        let (base, index) = self.rng.pick(&FORMS);
        let segment = self.segment(i, if base == R::BP { seg::SS } else { seg::DS });
        let mut offset = self.offset_in(segment, at);
        if offset > 0xffff {
            // Out of a 16-bit address's reach: somewhere in the segment, mostly its data.
            offset = 0x8000 + self.rng.below(0x2000);
            if self.rng.chance(20) {
                offset = self.rng.u32() & 0xffff;
            }
        }
        let number = |r: Register| r.number();
        let mut left = offset as u16;
        for r in [index, base] {
            if r != R::None && self.pinned >> number(r) & 1 != 0 {
                left = left.wrapping_sub(self.regs.gpr[number(r)] as u16);
            }
        }
        let (mut displacement, mut size) = (left, 2);
        let free: Vec<usize> = [base, index]
            .into_iter()
            .filter(|r| *r != R::None && self.pinned >> number(*r) & 1 == 0)
            .map(number)
            .collect();
        if !free.is_empty() {
            (displacement, size) = match self.rng.below(4) {
                0 => (0, u32::from(base == R::BP && index == R::None)),
                1 | 2 => (self.rng.u32() as i8 as u16, 1),
                _ => (self.rng.u32() as u16, 2),
            };
            left = left.wrapping_sub(displacement);
            for (k, n) in free.iter().enumerate() {
                let part = if k + 1 == free.len() {
                    left
                } else {
                    self.rng.u32() as u16
                };
                self.pin16(*n, part);
                left = left.wrapping_sub(part);
            }
        }
        i.set_memory_base(base);
        i.set_memory_index(index);
        i.set_memory_displacement32(u32::from(displacement));
        i.set_memory_displ_size(if base == R::None { 2 } else { size });
        self.address = Some(state::base(&self.regs, segment).wrapping_add(offset));
    }

    fn vector_index(&mut self, i: &mut Instruction, first: Register, narrow: bool, at: u32) {
        let x = self.rng.below(8);
        let b = self.rng.pick(&[0u32, 1, 2, 3, 6, 7]);
        let segment = self.segment(i, seg::DS);
        let offset = self.offset_in(segment, at);
        let lane = if narrow { 4 } else { 8 };
        let spread = self.rng.pick(&[16u32, 256, 1024]);
        for chunk in self.vector.zmm[x as usize].chunks_mut(lane) {
            let v = i64::from(self.rng.below(spread)) - i64::from(spread / 4);
            chunk.copy_from_slice(&v.to_le_bytes()[..lane]);
        }
        let displacement = if self.rng.chance(50) {
            0
        } else {
            self.rng.u32() as i8 as u32
        };
        self.pin(b as usize, offset.wrapping_sub(displacement));
        i.set_memory_base(nth(Register::EAX, b));
        i.set_memory_index(nth(first, x));
        i.set_memory_index_scale(1 << self.rng.below(4));
        i.set_memory_displacement32(displacement);
        i.set_memory_displ_size(u32::from(displacement != 0));
        self.address = None;
    }

    fn memory_offset(&mut self, i: &mut Instruction, n: u32) {
        i.set_op_kind(n, OpKind::Memory);
        let at = self.target(4);
        let segment = self.segment(i, seg::DS);
        let mut offset = self.offset_in(segment, at);
        let narrow = layout::Descriptor::of(self.regs.seg[segment]).is_some_and(|d| !d.big);
        let size = if narrow || self.rng.chance(10) { 2 } else { 4 };
        if size == 2 {
            offset &= 0xffff;
        }
        i.set_memory_displ_size(size);
        i.set_memory_displacement32(offset);
        self.address = Some(state::base(&self.regs, segment).wrapping_add(offset));
    }

    fn string_operand(&mut self, i: &mut Instruction, n: u32, kind: K, form: Form) {
        let narrow = (form.width == Width::Code16) != self.rng.chance(8);
        let size = Self::size_of(i, form).min(16);
        let at = self.target(size);
        // Two string operands share the address size.
        let narrow = match (0..n)
            .map(|m| i.op_kind(m))
            .find(|k| *k != OpKind::Register)
        {
            Some(OpKind::MemorySegSI | OpKind::MemoryESDI | OpKind::MemorySegDI) => true,
            Some(OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI) => false,
            _ => narrow,
        };
        let segment = if kind == K::es_rDI {
            seg::ES
        } else {
            self.segment(i, seg::DS)
        };
        let (op, register) = match (kind, narrow) {
            (K::seg_rSI, true) => (OpKind::MemorySegSI, 6),
            (K::seg_rSI, false) => (OpKind::MemorySegESI, 6),
            (K::es_rDI, true) => (OpKind::MemoryESDI, 7),
            (K::es_rDI, false) => (OpKind::MemoryESEDI, 7),
            (K::seg_rDI, true) => (OpKind::MemorySegDI, 7),
            (K::seg_rDI, false) => (OpKind::MemorySegEDI, 7),
            _ => (OpKind::Memory, 3),
        };
        i.set_op_kind(n, op);
        let mut offset = self.offset_in(segment, at);
        if narrow && offset > 0xffff {
            offset = 0x8000 + self.rng.below(0x2000);
        }
        if op == OpKind::Memory {
            i.set_memory_base(if narrow { Register::BX } else { Register::EBX });
            i.set_memory_index(Register::AL);
            offset = offset.wrapping_sub(self.regs.gpr[0] & 0xff);
        }
        if narrow {
            self.pin16(register, offset as u16);
        } else {
            self.pin(register, offset);
        }
        self.address = Some(at);
    }
}
