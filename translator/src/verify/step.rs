//! One host instruction: is it permitted here, and what does it make of the registers?

use super::memory::{Place, field, place, slot_of};
use super::rules::general;
use super::value::{Facts, GUEST, Lookup, Val};
use crate::helper::AccessInfo;
use crate::off;
use iced_x86::{
    Code, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

/// Most bytes that one look-up may cover: it proves one page.
const LOOKUP_BYTES: u32 = 4096;

pub(super) type Check<T> = Result<T, String>;

/// Guest registers hold numbers below 2^32, as every other unit and the monitor expect.
pub(super) fn guest_registers_are_clean(f: &Facts) -> Check<()> {
    for g in GUEST {
        if !f.regs[g].is_u32() {
            return Err(format!(
                "leaves with guest register {g} being {:?}",
                f.regs[g]
            ));
        }
    }
    Ok(())
}

fn reads(a: OpAccess) -> bool {
    matches!(
        a,
        OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

fn writes(a: OpAccess) -> bool {
    matches!(
        a,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

fn number(f: &Facts, r: Register) -> Check<()> {
    let Some((n, _)) = general(r) else {
        return Ok(());
    };
    if n == 4 || n == 15 {
        return Err(format!("{r:?} as an operand"));
    }
    if f.regs[n].is_number() {
        Ok(())
    } else {
        Err(format!("reads {r:?}, which is {:?}", f.regs[n]))
    }
}

fn not_pinned(r: Register) -> Check<usize> {
    match general(r) {
        Some((4 | 15, _)) | None => Err(format!("writes {r:?}")),
        Some((n, _)) => Ok(n),
    }
}

/// Applies an instruction without control flow to `f`.
pub(super) fn apply(
    insn: &Instruction,
    f: &mut Facts,
    info: &mut InstructionInfoFactory,
) -> Check<()> {
    let register = insn.op_count() >= 2
        && insn.op0_kind() == OpKind::Register
        && insn.op1_kind() == OpKind::Register;
    match insn.code() {
        Code::Lea_r32_m | Code::Lea_r64_m => return lea(insn, f),
        Code::Mov_rm64_r64 | Code::Mov_r64_rm64 if register => return copy64(insn, f),
        Code::Mov_rm32_r32 | Code::Mov_r32_rm32 if register => return copy32(insn, f),
        Code::Mov_r64_rm64 => return load64(insn, f),
        Code::Mov_rm64_r64 | Code::Mov_rm64_imm32 => return store64(insn, f),
        Code::Mov_r32_rm32 => {
            let value = match place(insn, f)? {
                Place::Tag { table, write } => Some(Val::Tag { table, write }),
                Place::Field(at) if at == off!(string_step) => Some(Val::Step),
                _ => None,
            };
            if let Some(value) = value {
                let n = not_pinned(insn.op0_register())?;
                f.set(n, value);
                return Ok(());
            }
        }
        Code::Mov_r32_imm32 => {
            let n = not_pinned(insn.op0_register())?;
            f.set(n, Val::Const(insn.immediate32()));
            return Ok(());
        }
        Code::Movzx_r32_rm16 if register => {
            number(f, insn.op1_register())?;
            let n = not_pinned(insn.op0_register())?;
            f.set(n, Val::U16);
            return Ok(());
        }
        Code::Not_rm64 | Code::Not_rm32 if insn.op0_kind() == OpKind::Register => {
            number(f, insn.op0_register())?;
            let n = not_pinned(insn.op0_register())?;
            let value = match f.regs[n] {
                _ if insn.code() == Code::Not_rm64 => Val::Wide,
                Val::Tag { table, write } => Val::NotTag { table, write },
                _ => Val::U32,
            };
            f.set(n, value);
            return Ok(());
        }
        Code::VEX_Rorx_r64_rm64_imm8 if register => {
            number(f, insn.op1_register())?;
            let n = not_pinned(insn.op0_register())?;
            f.set(n, Val::Wide);
            return Ok(());
        }
        Code::VEX_Pext_r32_r32_rm32 if pext(insn, f)? => return Ok(()),
        Code::Maskmovq_rDI_mm_mm => return mask_move(f, 8),
        Code::Maskmovdqu_rDI_xmm_xmm | Code::VEX_Vmaskmovdqu_rDI_xmm_xmm => {
            return mask_move(f, 16);
        }
        Code::Cld => {
            f.forward = true;
            return Ok(());
        }
        Code::Std => {
            f.forward = false;
            return Ok(());
        }
        _ => {}
    }
    if insn.is_string_instruction() {
        return string(insn, f);
    }
    generic(insn, f, info)
}

fn lea(insn: &Instruction, f: &mut Facts) -> Check<()> {
    let wide = insn.code() == Code::Lea_r64_m;
    let to = not_pinned(insn.op0_register())?;
    if insn.segment_prefix() != Register::None || insn.is_ip_rel_memory_operand() {
        return Err("LEA with a prefix, or relative to the instruction pointer".into());
    }
    let value = |r: Register| general(r).map(|(n, _)| f.regs[n]);
    let (base, index) = (insn.memory_base(), insn.memory_index());
    for r in [base, index] {
        if general(r).is_some_and(|(n, bytes)| n == 4 || n == 15 || bytes != 8) {
            return Err(format!("LEA from {r:?}"));
        }
    }
    let scale = insn.memory_index_scale();
    let disp = insn.memory_displacement64();
    let shape = (value(base), value(index), scale, disp);
    let r13 = |r: Register| r == Register::R13;
    let result = match shape {
        (Some(Val::Delta(l)), Some(v), 1, 0) if wide && r13(index) && v.is_u32() => Val::Host(l),
        (Some(v), Some(Val::Delta(l)), 1, 0) if wide && r13(base) && v.is_u32() => Val::Host(l),
        (Some(v), Some(Val::Window), 1, 0) if wide && v.is_u32() => Val::InWindow,
        (Some(v), Some(Val::NotTag { table, write }), 1, n)
            if !wide && r13(base) && v.is_u32() && n <= u64::from(LOOKUP_BYTES) =>
        {
            Val::Distance(Lookup {
                table,
                write,
                bytes: n as u32,
                scaled: 0,
            })
        }
        (Some(Val::Distance(l)), Some(Val::Scaled(w)), 1, 0) if !wide && l.scaled == 0 => {
            Val::Distance(Lookup { scaled: w, ..l })
        }
        (Some(Val::Index), Some(Val::Index), 1, 0) if !wide && base == index => Val::Entry,
        (None, Some(Val::Count), w, 0) if !wide => Val::Scaled(w),
        (Some(Val::Step), None, _, n) if !wide && n == u64::MAX => Val::StepLessOne,
        (a, b, ..) => {
            if let Some(v) = [a, b].into_iter().flatten().find(|v| !v.is_number()) {
                return Err(format!("LEA from {v:?}"));
            }
            if wide { Val::Wide } else { Val::U32 }
        }
    };
    f.set(to, result);
    Ok(())
}

fn copy64(insn: &Instruction, f: &mut Facts) -> Check<()> {
    let to = not_pinned(insn.op0_register())?;
    let from = not_pinned(insn.op1_register())?;
    match f.regs[from] {
        Val::Unset => Err(format!(
            "copies {:?}, which is not set",
            insn.op1_register()
        )),
        v => {
            f.set(to, v);
            Ok(())
        }
    }
}

fn copy32(insn: &Instruction, f: &mut Facts) -> Check<()> {
    let to = not_pinned(insn.op0_register())?;
    let from = not_pinned(insn.op1_register())?;
    let value = match f.regs[from] {
        // The window's base is aligned to 4 GiB: its low half is the guest's address.
        Val::InWindow | Val::NearWindow => Val::U32,
        Val::Wide => Val::U32,
        v if v.is_number() => v,
        v => return Err(format!("reads {:?}, which is {v:?}", insn.op1_register())),
    };
    f.set(to, value);
    Ok(())
}

fn load64(insn: &Instruction, f: &mut Facts) -> Check<()> {
    let to = not_pinned(insn.op0_register())?;
    let value = match place(insn, f)? {
        Place::Field(at) => {
            field(at, 8, false)?;
            if at == off!(window_base) {
                Val::Window
            } else if at == off!(string_step) {
                Val::Wide
            } else {
                Val::Readable
            }
        }
        Place::Delta { table } => match f.hit {
            Some(l) if l.table == table => Val::Delta(l),
            _ => return Err("loads a delta without a hit".into()),
        },
        other => return Err(format!("a 64-bit load from {other:?}")),
    };
    f.set(to, value);
    Ok(())
}

fn store64(insn: &Instruction, f: &Facts) -> Check<()> {
    let Place::Field(at) = place(insn, f)? else {
        return Err("a 64-bit store outside GuestState".into());
    };
    field(at, 8, true)?;
    if insn.op1_kind() == OpKind::Register {
        number(f, insn.op1_register())?;
    }
    if at == off!(string_step) && !matches!(insn.immediate32to64(), 1 | -1) {
        return Err("a string step other than 1 and -1".into());
    }
    Ok(())
}

/// PEXT with a mask of `GuestState`, or with a constant in a register; false if it is neither.
fn pext(insn: &Instruction, f: &mut Facts) -> Check<bool> {
    let source = insn.op1_register();
    number(f, source)?;
    let from = not_pinned(source)?;
    let to = not_pinned(insn.op0_register())?;
    if insn.op2_kind() == OpKind::Register {
        let Some((mask, _)) = general(insn.op2_register()) else {
            return Ok(false);
        };
        let Val::Const(mask) = f.regs[mask] else {
            return Ok(false);
        };
        f.set(
            to,
            Val::Below(1u32.checked_shl(mask.count_ones()).unwrap_or(0)),
        );
        return Ok(true);
    }
    let Place::Field(at) = place(insn, f)? else {
        return Ok(false);
    };
    field(at, 4, false)?;
    let value = if at == off!(mask_index) && from == 13 && f.regs[13].is_u32() {
        Val::Index
    } else if at == off!(mask_page) {
        match f.regs[from] {
            Val::Distance(l) => Val::Miss(l),
            _ => Val::U32,
        }
    } else if at == off!(mask_long_count) && from == 1 && f.regs[1].is_u32() {
        f.forget_count();
        f.regs[1] = Val::Candidate;
        Val::High
    } else {
        Val::U32
    };
    f.set(to, value);
    Ok(true)
}

fn mask_move(f: &Facts, bytes: u32) -> Check<()> {
    match f.regs[7] {
        Val::Host(l) if l.write && l.scaled == 0 && l.bytes >= bytes => Ok(()),
        v => Err(format!("a masked move to rdi, which is {v:?}")),
    }
}

/// A repeated string instruction on host addresses.
fn string(insn: &Instruction, f: &mut Facts) -> Check<()> {
    use Mnemonic as M;
    let (source, dest, stores) = match insn.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd => (true, true, true),
        M::Stosb | M::Stosw | M::Stosd => (false, true, true),
        M::Lodsb | M::Lodsw | M::Lodsd => (true, false, false),
        M::Scasb | M::Scasw | M::Scasd => (false, true, false),
        M::Cmpsb | M::Cmpsw | M::Cmpsd => (true, true, false),
        _ => return Err("a string instruction of no permitted kind".into()),
    };
    if !(insn.has_rep_prefix() || insn.has_repne_prefix()) {
        return Err("a string instruction without a repeat prefix".into());
    }
    if insn.segment_prefix() != Register::None {
        return Err("a string instruction with a segment prefix".into());
    }
    let narrow = (0..insn.op_count()).any(|i| {
        matches!(
            insn.op_kind(i),
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI
        )
    });
    if narrow {
        return Err("a string instruction with 32-bit addresses".into());
    }
    if f.regs[1] != Val::Count {
        return Err(format!("a repeat count that is {:?}", f.regs[1]));
    }
    let width = insn.memory_size().size() as u32;
    for (used, register, write) in [(source, 6, false), (dest, 7, stores)] {
        if !used {
            continue;
        }
        f.regs[register] = match f.regs[register] {
            Val::InWindow => Val::NearWindow,
            Val::Host(l) if f.forward && l.scaled >= width && (l.write || !write) => Val::Unset,
            v => return Err(format!("a string address that is {v:?}")),
        };
    }
    if source && !dest {
        f.regs[0] = Val::U32;
    } else {
        number(f, Register::EAX)?;
    }
    f.forget_count();
    f.regs[1] = Val::U32;
    Ok(())
}

/// Any other instruction: at most one memory operand of a permitted form, numbers in and out.
fn generic(insn: &Instruction, f: &mut Facts, factory: &mut InstructionInfoFactory) -> Check<()> {
    if insn.code().op_code().operand_size() == 64 || insn.is_stack_instruction() {
        return Err("a 64-bit or stack instruction".into());
    }
    if insn.has_rep_prefix() || insn.has_repne_prefix() {
        // Hints and ignored prefixes do no harm; the translator emits none.
        return Err("a repeat prefix".into());
    }
    let info = factory.info(insn).clone();
    memory_operands(insn, f, &info)?;
    if takes_bit_offset(insn) {
        bit_offset(insn, f)?;
    }
    let explicit = |r: Register| {
        (0..insn.op_count()).any(|i| {
            insn.op_kind(i) == OpKind::Register
                && insn.op_register(i).full_register() == r.full_register()
        })
    };
    for i in 0..insn.op_count() {
        if insn.op_kind(i) == OpKind::Register {
            let r = insn.op_register(i);
            if r.is_gpr64() {
                return Err(format!("{r:?} as an operand"));
            }
            if reads(info.op_access(i)) {
                number(f, r)?;
            }
        }
    }
    let address = |r: Register| {
        let full = r.full_register();
        full == insn.memory_base().full_register() || full == insn.memory_index().full_register()
    };
    for used in info.used_registers() {
        let r = used.register();
        if r.is_segment_register() && writes(used.access()) {
            return Err(format!("writes {r:?}"));
        }
        if general(r).is_some() && reads(used.access()) && !address(r) {
            number(f, r)?;
        }
    }
    for used in info.used_registers() {
        let r = used.register();
        if general(r).is_none() || !writes(used.access()) {
            continue;
        }
        let n = not_pinned(r)?;
        let width = (0..insn.op_count())
            .filter(|&i| insn.op_kind(i) == OpKind::Register)
            .map(|i| insn.op_register(i))
            .filter(|o| o.full_register() == r.full_register())
            .map(|o| o.size())
            .max()
            .unwrap_or(2);
        if explicit(r) && width == 4 {
            f.set(n, Val::U32);
        } else {
            // A part of it, or an implied register: the upper half is kept or cleared.
            number(f, r.full_register32())?;
            let value = if f.regs[n].is_u32() {
                Val::U32
            } else {
                Val::Wide
            };
            f.set(n, value);
        }
    }
    Ok(())
}

fn memory_operands(insn: &Instruction, f: &Facts, info: &InstructionInfo) -> Check<()> {
    let explicit = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    if info.used_memory().len() != usize::from(explicit) {
        return Err("a memory access that no operand names".into());
    }
    let Some(used) = info.used_memory().first() else {
        return Ok(());
    };
    let bytes = used.memory_size().size() as u32;
    if bytes == 0 || bytes > 64 {
        return Err(format!("a memory operand of {bytes} bytes"));
    }
    let (read, write) = (reads(used.access()), writes(used.access()));
    if !read && !write {
        return Err("a memory operand that is neither read nor written".into());
    }
    match place(insn, f)? {
        Place::Window => Ok(()),
        Place::Field(at) => {
            if read {
                field(at, bytes, false)?;
            }
            if write {
                field(at, bytes, true)?;
            }
            Ok(())
        }
        Place::Looked(l, at) => {
            let inside = at >= 0 && at + i64::from(bytes) <= i64::from(l.bytes);
            if inside && (l.write || !write) {
                Ok(())
            } else {
                Err(format!(
                    "{bytes} bytes at {at}, written: {write}, after {l:?}"
                ))
            }
        }
        Place::Pointee if bytes == 4 && !write => Ok(()),
        other => Err(format!("an ordinary access to {other:?}")),
    }
}

/// BT and the like with a register reach beyond their operand, unless the offset is bounded.
fn takes_bit_offset(insn: &Instruction) -> bool {
    matches!(
        insn.mnemonic(),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
    ) && insn.op0_kind() == OpKind::Memory
        && insn.op1_kind() == OpKind::Register
}

fn bit_offset(insn: &Instruction, f: &Facts) -> Check<()> {
    let bits = insn.memory_size().size() as u32 * 8;
    let Some((n, _)) = general(insn.op1_register()) else {
        return Err("a bit offset of no permitted kind".into());
    };
    match f.regs[n] {
        Val::Below(bound) if bound != 0 && bound <= bits => Ok(()),
        v => Err(format!("a bit offset that is {v:?}")),
    }
}

/// What a helper was asked to look up.
pub(super) fn asked(f: &Facts, table: usize, write: bool) -> Check<Lookup> {
    if !f.regs[13].is_u32() {
        return Err(format!("a helper gets r13 as {:?}", f.regs[13]));
    }
    match (f.regs[9], f.regs[10]) {
        (Val::Const(_), Val::Const(info)) => {
            let info = AccessInfo(info);
            if info.size() == 0 || info.size() > LOOKUP_BYTES || info.write() != write {
                return Err(format!("a helper is asked for {info:?}"));
            }
            Ok(Lookup {
                table,
                write,
                bytes: info.size(),
                scaled: 0,
            })
        }
        (a, b) => Err(format!("a helper gets r9 {a:?} and r10 {b:?}")),
    }
}

/// The jump-cache operand of an indirect jump or call.
pub(super) fn through_cache(insn: &Instruction, f: &Facts, table: usize) -> Check<()> {
    if !f.regs[13].is_u32() {
        return Err(format!("jumps with r13 being {:?}", f.regs[13]));
    }
    match place(insn, f)? {
        Place::Slot { table: t } if t == table => Ok(()),
        Place::Field(at) => match (slot_of(at), f.regs[13]) {
            (Some((t, slot)), Val::Const(eip)) if t == table && slot == eip & 0xffff => Ok(()),
            (slot, eip) => Err(format!("jumps by slot {slot:?} with r13 {eip:?}")),
        },
        other => Err(format!("jumps by {other:?}")),
    }
}
