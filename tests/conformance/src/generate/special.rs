//! State that particular instructions need to do something useful: return addresses on the
//! stack, branch targets, counts, selectors, frame pointers; and what of their effect is not
//! compared.

use super::operands::Draft;
use super::state;
use crate::case::{Privilege, Width, seg};
use crate::layout;
use iced_x86::{
    Code, FlowControl, Instruction, Mnemonic, OpCodeOperandKind as K, OpKind, Register,
};

/// Selectors that user code may try to load.
const SELECTORS: [u16; 14] = [
    layout::SEL_DATA32,
    layout::SEL_DATA32,
    layout::SEL_BASED,
    layout::SEL_DATA16,
    layout::SEL_STACK16,
    layout::SEL_LIMITED,
    layout::SEL_DOWN,
    layout::SEL_READ_ONLY,
    layout::SEL_CODE32_BASED,
    layout::SEL_CODE16,
    layout::SEL_ABSENT,
    0,
    3,
    0x104, // beyond the local table
];

/// Where a control transfer's target has to be written once the layout is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixup {
    /// Low `bytes` of general register.
    Register(usize, u32),
    /// `bytes` at a linear address.
    Memory(u32, u32),
    /// The instruction's own relative or far operand.
    Operand,
}

/// What a special instruction asks of the case.
#[derive(Default)]
pub struct Needs {
    /// The target.
    pub fixup: Option<Fixup>,
    /// Only CPL 3 gives this outcome.
    pub user_only: bool,
    /// Why these operands make no case.
    pub reject: Option<&'static str>,
}

/// The linear address of the top of the stack.
fn top(d: &Draft) -> u32 {
    state::base(&d.regs, seg::SS).wrapping_add(d.regs.gpr[4])
}

fn operand_bytes(code: Code, width: Width) -> u32 {
    match code.op_code().operand_size() {
        16 => 2,
        32 => 4,
        _ => width.bits() / 8,
    }
}

/// Adjusts the draft for `i`.
pub fn prepare(d: &mut Draft, i: &mut Instruction, width: Width) -> Needs {
    let mut needs = Needs::default();
    let code = i.code();
    let op = code.op_code();
    if op.is_privileged() || op.is_input_output() || op.must_be_cpl0() || op.may_require_cpl0() {
        needs.user_only = true;
    }
    counts(d, i);
    wrapping(d, i);
    if i.op_count() > 0
        && i.op0_kind() == OpKind::Register
        && i.op0_register().is_segment_register()
    {
        load_selector(d, i, &mut needs);
    }
    branches(d, i, width, &mut needs);
    use Mnemonic::*;
    match i.mnemonic() {
        Popf | Popfd => {
            needs.user_only = true;
            let image = rare(d);
            d.patch(top(d), &image.to_le_bytes());
        }
        Lds | Les | Lss | Lfs | Lgs => {
            let selector = d.rng.pick(&SELECTORS);
            if let Some(at) = d.address {
                let offset = operand_bytes(code, width);
                d.patch(at.wrapping_add(offset), &selector.to_le_bytes());
            }
            needs.user_only = i.mnemonic() == Lss;
        }
        Leave => {
            let at = layout::STACK + 0x600 + d.rng.below(0x300);
            let at = if d.rng.chance(10) {
                layout::STACK + layout::PAGE - d.rng.below(6)
            } else {
                at
            };
            let offset = at.wrapping_sub(state::base(&d.regs, seg::SS));
            d.pin(5, offset);
        }
        Enter => {
            let at = layout::STACK + 0x700 + d.rng.below(0x200);
            d.pin(5, at.wrapping_sub(state::base(&d.regs, seg::SS)));
        }
        Iret | Iretd => {
            // With NT set a host in long mode raises #GP, where others return from a task.
            d.regs.eflags &= !(1 << 14);
            needs.user_only = true;
        }
        Into if d.rng.chance(60) => d.regs.eflags |= 0x800,
        Cli | Sti | Hlt => needs.user_only = true,
        Ldmxcsr | Fxrstor if d.rng.chance(75) => {
            let value = state::mxcsr(&mut d.rng);
            let offset = if i.mnemonic() == Fxrstor { 24 } else { 0 };
            if let Some(at) = d.address {
                d.patch(at.wrapping_add(offset), &value.to_le_bytes());
            }
        }
        Xsave | Xrstor => {
            // Components beyond AVX are the host's alone.
            let mask = d.rng.below(8);
            if !d.pin(0, mask) || !d.pin(2, 0) {
                needs.reject = Some("the mask's registers are the address's");
            }
            if i.mnemonic() == Xrstor
                && let Some(at) = d.address
            {
                let mxcsr = state::mxcsr(&mut d.rng);
                d.patch(at.wrapping_add(24), &mxcsr.to_le_bytes());
                let mut header = [0; 64];
                header[0] = d.rng.below(8) as u8;
                if d.rng.chance(10) {
                    // Bits that no processor has; the others are the host's own affair.
                    header[2 + d.rng.below(22) as usize] |= 1 << d.rng.below(7);
                }
                d.patch(at.wrapping_add(512), &header);
            }
        }
        Clzero => {
            let at = super::operands::target(&mut d.rng, 64);
            let offset = at.wrapping_sub(state::base(&d.regs, seg::DS));
            d.pin(0, offset);
        }
        _ => {}
    }
    ignored(d, i, width);
    needs
}

/// Repeat counts, loop counts, bit offsets, divisors: values with which the instruction does not
/// only fault.
fn counts(d: &mut Draft, i: &mut Instruction) {
    use Mnemonic::*;
    let op = i.code().op_code();
    if op.can_use_rep_prefix() && i.is_string_instruction() {
        match d.rng.below(5) {
            0 => {}
            1 | 2 => i.set_has_rep_prefix(true),
            _ if op.can_use_repne_prefix() => i.set_has_repne_prefix(true),
            _ => i.set_has_rep_prefix(true),
        }
        let count = match d.rng.below(10) {
            0 => 0,
            1..7 => d.rng.below(12),
            7 | 8 => d.rng.below(300),
            _ => d.rng.u32() & 0xffff,
        };
        d.pin(1, count);
        if d.rng.chance(40) {
            d.regs.eflags ^= 0x400;
        }
    }
    if matches!(i.mnemonic(), Loop | Loope | Loopne | Jcxz | Jecxz) {
        let count = d.rng.pick(&[0, 1, 2, 0x1_0000, 0x1_0001, u32::MAX]);
        d.pin(1, count);
    }
    if matches!(i.mnemonic(), Bt | Bts | Btr | Btc)
        && i.op1_kind() == OpKind::Register
        && d.rng.chance(75)
    {
        let n = i.op1_register().number();
        let bit = d.rng.below(1024).wrapping_sub(512);
        d.pin(n, bit);
    }
    if matches!(i.mnemonic(), Div | Idiv) && d.rng.chance(70) {
        let high = d.rng.pick(&[0, 0, 0, 1, u32::MAX]);
        d.pin(2, high);
        let low = d.regs.gpr[0] & 0xff00_00ff | high << 8 & 0xff00;
        if i.op0_kind() == OpKind::Register && i.op0_register().size() == 1 {
            d.pin(0, low);
        }
    }
    if op.can_use_lock_prefix() && i.op0_kind() == OpKind::Memory && d.rng.chance(30) {
        i.set_has_lock_prefix(true);
    }
}

/// 16-bit addresses that pass 64 KiB within the instruction: single string instructions that step
/// down from offset 0 (the upper halves of ESI and EDI stay), and XLAT whose sum wraps.
fn wrapping(d: &mut Draft, i: &mut Instruction) {
    let narrow = (0..i.op_count()).any(|n| {
        matches!(
            i.op_kind(n),
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI
        )
    });
    let string = i.is_string_instruction() && !i.code().op_code().is_input_output();
    if string && narrow && d.rng.chance(10) {
        i.set_has_rep_prefix(false);
        i.set_has_repne_prefix(false);
        i.set_segment_prefix(Register::None);
        d.regs.seg[seg::ES] = layout::SEL_LIMITED;
        d.regs.seg[seg::DS] = layout::SEL_LIMITED;
        d.regs.gpr[6] &= 0xffff_0000;
        d.regs.gpr[7] &= 0xffff_0000;
        d.regs.eflags |= 0x400;
    }
    if i.mnemonic() == Mnemonic::Xlatb && i.memory_base() == Register::BX && d.rng.chance(20) {
        d.regs.gpr[3] |= 0xff80;
        d.regs.gpr[0] |= 0x80;
    }
}

/// A random image of EFLAGS, seldom with TF and AC: little would run.
fn rare(d: &mut Draft) -> u32 {
    let image = d.rng.u32();
    if d.rng.chance(30) {
        image
    } else {
        image & !0x0004_0100
    }
}

fn load_selector(d: &mut Draft, i: &Instruction, needs: &mut Needs) {
    let selector = d.rng.pick(&SELECTORS);
    match (i.mnemonic(), i.op_count()) {
        (Mnemonic::Mov, 2) if i.op1_kind() == OpKind::Register => {
            d.pin16(i.op1_register().number(), selector);
        }
        (Mnemonic::Mov, 2) => {
            if let Some(at) = d.address {
                d.patch(at, &selector.to_le_bytes());
            }
        }
        (Mnemonic::Pop, _) => d.patch(top(d), &selector.to_le_bytes()),
        _ => return,
    }
    needs.user_only |= i.op0_register() == Register::SS;
}

fn branches(d: &mut Draft, i: &mut Instruction, width: Width, needs: &mut Needs) {
    use Mnemonic::*;
    let bytes = operand_bytes(i.code(), width);
    match i.flow_control() {
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
            if i.op_count() == 1 && !matches!(i.op0_kind(), OpKind::Register | OpKind::Memory) =>
        {
            needs.fixup = Some(Fixup::Operand);
            needs.user_only |= matches!(i.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32);
        }
        FlowControl::IndirectBranch | FlowControl::IndirectCall if i.op_count() == 1 => {
            if i.op0_kind() == OpKind::Register {
                let n = i.op0_register().number();
                d.pinned |= 1 << n;
                needs.fixup = Some(Fixup::Register(n, bytes));
            } else if let Some(at) = d.address {
                needs.fixup = Some(Fixup::Memory(at, bytes));
                if i.is_jmp_far_indirect() || i.is_call_far_indirect() {
                    needs.user_only = true;
                    let selector = code_selector(d);
                    d.patch(at.wrapping_add(bytes), &selector.to_le_bytes());
                }
            }
        }
        FlowControl::Return => {
            let at = top(d);
            needs.fixup = Some(Fixup::Memory(at, bytes));
            if matches!(i.mnemonic(), Retf | Iret | Iretd) {
                needs.user_only = true;
                let selector = code_selector(d);
                d.patch(
                    at.wrapping_add(bytes),
                    &u32::from(selector).to_le_bytes()[..bytes as usize],
                );
                let flags = rare(d) & !0x2_0000 | 0x202; // no VM
                let flags = if bytes == 4 {
                    flags & 0x0027_ffff
                } else {
                    flags
                };
                if i.mnemonic() != Retf {
                    d.patch(
                        at.wrapping_add(2 * bytes),
                        &flags.to_le_bytes()[..bytes as usize],
                    );
                }
            }
        }
        _ => {}
    }
}

/// A selector for a far transfer: mostly the current code segment.
pub fn code_selector(d: &mut Draft) -> u16 {
    let current = d.regs.seg[seg::CS];
    if d.rng.chance(80) {
        current
    } else {
        d.rng
            .pick(&[0, layout::SEL_DATA32, layout::SEL_ABSENT, 0x104])
    }
}

/// Excludes the x87 pointers from images in memory: AMD hosts save them only while an exception
/// is pending, and the virtual machine does not promise them.
fn ignored(d: &mut Draft, i: &Instruction, width: Width) {
    use Mnemonic::*;
    let Some(at) = d.address else { return };
    match i.mnemonic() {
        Fnstenv | Fstenv | Fnsave | Fsave => {
            let wide = match i.code() {
                Code::Fnstenv_m14byte
                | Code::Fstenv_m14byte
                | Code::Fnsave_m94byte
                | Code::Fsave_m94byte => false,
                Code::Fnstenv_m28byte
                | Code::Fstenv_m28byte
                | Code::Fnsave_m108byte
                | Code::Fsave_m108byte => true,
                _ => width == Width::Code32,
            };
            d.ignored.push(if wide {
                (at.wrapping_add(12), 16)
            } else {
                (at.wrapping_add(6), 8)
            });
        }
        Fxsave | Xsave => d.ignored.push((at.wrapping_add(6), 18)),
        _ => {}
    }
}

/// Whether the case's outcome depends on CPL.
#[must_use]
pub fn privilege(needs: &Needs, i: &Instruction) -> Privilege {
    let kinds = i.code().op_code().op_kinds();
    let system = kinds.iter().any(|k| matches!(k, K::cr_reg | K::dr_reg));
    if needs.user_only || system {
        Privilege::UserOnly
    } else {
        Privilege::Any
    }
}
