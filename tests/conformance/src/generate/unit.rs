//! One random case of a form: the instruction alone, or in a unit with instructions before it
//! that make flags and instructions after it that use them.

use super::forms::Form;
use super::operands::Draft;
use super::special::{self, Fixup};
use super::state;
use crate::case::{Case, Privilege, Width, seg};
use crate::layout;
use crate::rng::Rng;
use iced_x86::{
    Code, Decoder, DecoderError, DecoderOptions, Encoder, FlowControl, Formatter, Instruction,
    IntelFormatter, Mnemonic, OpCodeOperandKind, OpKind, RflagsBits,
};

/// Attempts at one case before its form is given up.
const ATTEMPTS: u32 = 12;

/// Makes one case of `form`.
///
/// # Errors
/// The reason if no case could be made.
pub fn make(form: Form, rng: &mut Rng) -> Result<Case, String> {
    make_pair(form, None, rng)
}

/// The same with an instruction of another form after it, in the same unit.
///
/// # Errors
/// The reason if no case could be made.
pub fn make_pair(form: Form, other: Option<Form>, rng: &mut Rng) -> Result<Case, String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match attempt(form, other, Rng::new(rng.u64())) {
            Ok(case) => return Ok(case),
            Err(reason) => last = reason,
        }
    }
    Err(last)
}

fn attempt(form: Form, other: Option<Form>, mut rng: Rng) -> Result<Case, String> {
    let regs = state::regs(&mut rng, form.width);
    let vector = state::vector(&mut rng);
    let fill = 1 + u64::from(rng.below(1 << 30));
    let mut d = Draft {
        rng,
        regs,
        vector,
        patches: Vec::new(),
        ignored: Vec::new(),
        pinned: 1 << 4,
        address: None,
        register_operand: None,
        alignment: false,
    };
    let control = Control::choose(&mut d);
    let mut i = d.instruction(form).map_err(str::to_string)?;
    let needs = special::prepare(&mut d, &mut i, form.width);
    if let Some(reason) = needs.reject {
        return Err(reason.into());
    }
    let embedded = d.rng.chance(55);
    // A step ends after the first instruction: that is the one under test.
    let before = if embedded && control != Control::Step {
        producers(&mut d)
    } else {
        Vec::new()
    };
    let after = if embedded {
        consumers(&mut d)
    } else {
        Vec::new()
    };
    let before_len: usize = before.iter().map(Vec::len).sum();

    // Two passes: the first finds the length, the second knows the branch target.
    let code_base = state::base(&d.regs, seg::CS);
    let probe = encode(
        &mut i,
        form,
        layout::CODE - code_base + 0x100,
        layout::CODE - code_base + 0x110,
        &mut d,
    )?;
    let noise = noise(&mut d, form, &probe);
    let second = match other {
        Some(other) => Some(follower(&mut d, other)?),
        None => None,
    };
    let after: Vec<Vec<u8>> = second
        .iter()
        .map(|(bytes, _)| bytes.clone())
        .chain(after)
        .collect();
    let after_len: usize = after.iter().map(Vec::len).sum();
    let total = (before_len + noise.len() + probe.len() + after_len) as u32;
    let code_at = place(&mut d.rng, total, before_len as u32);
    let start = code_at - code_base;
    let at = start + (before_len + noise.len()) as u32;
    let end = start + total;
    if code_at < layout::CODE + 2 * layout::PAGE
        && code_at + total >= layout::CODE + 2 * layout::PAGE
    {
        // Runs into the missing page: no branch can reach the end.
        if needs.fixup.is_some() {
            return Err("no room".into());
        }
    }
    let bytes = encode(&mut i, form, at, end, &mut d)?;
    if bytes.len() != probe.len() {
        return Err("the length depends on the place".into());
    }
    match needs.fixup {
        Some(Fixup::Register(n, size)) => {
            let keep = if size == 2 { 0xffff_0000 } else { 0 };
            d.regs.gpr[n] = d.regs.gpr[n] & keep | end & !keep;
        }
        Some(Fixup::Memory(at, size)) => d.patch(at, &end.to_le_bytes()[..size as usize]),
        _ => {}
    }
    let over = |at: &u32, len: usize| {
        at.wrapping_sub(code_at) < total || code_at.wrapping_sub(*at) < len as u32
    };
    if d.patches.iter().any(|(at, data)| over(at, data.len())) {
        return Err("an operand lies over the code".into());
    }
    let instruction = [noise, bytes].concat();
    // iced's FSTENV and the like are WAIT and FNSTENV in one.
    let wait = usize::from(form.code.op_code().fwait());
    let decoded = decode(instruction.get(wait..).unwrap_or_default(), form.width, at);
    let same = decoded.code() == form.code || wait == 1;
    if !same && decoded.code() != Code::INVALID {
        return Err("an old or reserved encoding that decodes as another instruction".into());
    }
    if decoded.code() == Code::INVALID && instruction.len() == probe.len() && !i.has_lock_prefix() {
        return Err("not decoded without special options".into());
    }
    let mut text = String::new();
    IntelFormatter::new().format(&i, &mut text);
    d.regs.eip = start;
    let mut case = Case {
        title: format!("{}: {text}", form.name()),
        width: form.width,
        pieces: before
            .into_iter()
            .chain([instruction])
            .chain(after)
            .collect(),
        code_at,
        regs: d.regs,
        vector: d.vector,
        fill,
        patches: d.patches,
        undefined: 0,
        undefined_at_fault: 0,
        ignored: d.ignored,
        privilege: match second {
            Some((_, Privilege::UserOnly)) => Privilege::UserOnly,
            _ if control == Control::Alignment => Privilege::UserOnly,
            _ => special::privilege(&needs, &i),
        },
    };
    follow_flags(&mut case)?;
    Ok(case)
}

/// What EFLAGS asks of every instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Nothing,
    /// AC: misaligned accesses raise #AC in ring 3.
    Alignment,
    /// TF: #DB after the first instruction.
    Step,
}

impl Control {
    fn choose(d: &mut Draft) -> Self {
        match d.rng.below(100) {
            0..8 => {
                d.regs.eflags |= 1 << 18;
                d.alignment = true;
                Self::Alignment
            }
            8..12 => {
                d.regs.eflags |= 1 << 8;
                Self::Step
            }
            _ => Self::Nothing,
        }
    }
}

/// An instruction without control flow to follow the one under test, and who may run it.
fn follower(d: &mut Draft, form: Form) -> Result<(Vec<u8>, Privilege), String> {
    use Mnemonic as M;
    let images = [
        M::Fnsave,
        M::Fsave,
        M::Fnstenv,
        M::Fstenv,
        M::Fxsave,
        M::Xsave,
        M::Xrstor,
    ];
    if form.code.op_code().fwait() || images.contains(&form.code.mnemonic()) {
        return Err("an image of the state, at an address that may have changed".into());
    }
    let mut i = d.instruction(form).map_err(str::to_string)?;
    if i.flow_control() != FlowControl::Next {
        return Err("a transfer".into());
    }
    let needs = special::prepare(d, &mut i, form.width);
    if needs.fixup.is_some() || needs.reject.is_some() {
        return Err("it asks for more".into());
    }
    let bytes = encode(&mut i, form, layout::CODE, layout::CODE, d)?;
    if decode(&bytes, form.width, 0).code() != form.code {
        return Err("an encoding that decodes as another instruction".into());
    }
    Ok((bytes, special::privilege(&needs, &i)))
}

fn encode(
    i: &mut Instruction,
    form: Form,
    at: u32,
    end: u32,
    d: &mut Draft,
) -> Result<Vec<u8>, String> {
    match i.op0_kind() {
        OpKind::NearBranch16 => i.set_near_branch16(end as u16),
        OpKind::NearBranch32 => i.set_near_branch32(end),
        OpKind::FarBranch16 | OpKind::FarBranch32 if i.op_count() == 1 => {
            if i.op0_kind() == OpKind::FarBranch16 {
                i.set_far_branch16(end as u16);
            } else {
                i.set_far_branch32(end);
            }
            let selector = special::code_selector(d);
            i.set_far_branch_selector(selector);
        }
        _ => {}
    }
    let mut encoder = Encoder::new(form.width.bits());
    // 16-bit branches in 32-bit code clear the upper half of EIP; the encoder wants an address
    // from which the target is in reach.
    let ip = if i.op0_kind() == OpKind::NearBranch16 {
        u64::from(at & 0xffff)
    } else {
        u64::from(at)
    };
    encoder
        .encode(i, ip)
        .map_err(|e| format!("the encoder refuses: {e}"))?;
    Ok(encoder.take_buffer())
}

/// Sometimes a prefix that means nothing here, or makes the instruction undefined.
fn noise(d: &mut Draft, form: Form, bytes: &[u8]) -> Vec<u8> {
    if !d.rng.chance(6) {
        return Vec::new();
    }
    let prefix = d.rng.pick(&[
        0xf0, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x66, 0x66, 0x67, 0x67,
    ]);
    // A segment override that is overridden, or an operand size that is said twice, means nothing.
    let count = match d.rng.below(12) {
        0 => 1 + d.rng.below(14) as usize,
        1 | 2 => 2,
        _ => 1,
    };
    let prefixes = vec![prefix; count];
    let segment_like = |b: u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65);
    let prefix_like = matches!(bytes[0], 0xf0 | 0xf2 | 0xf3);
    // AMD hosts give REP before LOOPcc and LOCK before MOV CR a meaning of their own.
    let own = matches!(form.code.mnemonic(), Mnemonic::Loope | Mnemonic::Loopne)
        || form
            .code
            .op_code()
            .op_kinds()
            .contains(&OpCodeOperandKind::cr_reg);
    if form.code.op_code().fwait() || own {
        return Vec::new();
    }
    let all = [&prefixes, bytes].concat();
    let mut decoder = Decoder::with_ip(form.width.bits(), &all, 0, DecoderOptions::NONE);
    let decoded = decoder.decode();
    if decoder.last_error() == DecoderError::NoMoreBytes {
        return Vec::new(); // it has become longer
    }
    let plain = decode(bytes, form.width, 0);
    if plain.is_invalid() {
        return Vec::new(); // no instruction of its own
    }
    // A prefix that moves the memory operand would leave its data behind; only those are wanted
    // that change nothing, or make the instruction undefined.
    let effect = |i: &Instruction| {
        (
            i.memory_segment(),
            i.memory_base(),
            i.memory_index(),
            i.memory_displacement32(),
            i.op_kinds().collect::<Vec<_>>(),
        )
    };
    let moves = if decoded.code() == Code::INVALID {
        segment_like(prefix) && d.address.is_some()
    } else {
        effect(&decoded) != effect(&plain)
    };
    let repeats = d.pinned >> 1 & 1 == 0 && form.code.op_code().can_use_rep_prefix();
    if prefix_like
        || moves
        || repeats
        || (decoded.code() != form.code && decoded.code() != Code::INVALID)
    {
        return Vec::new();
    }
    prefixes
}

/// Where the code lies: mostly within a page, sometimes so that the instruction crosses one.
fn place(rng: &mut Rng, total: u32, before: u32) -> u32 {
    match rng.below(20) {
        0 | 1 => layout::CODE + layout::PAGE - before - 1 - rng.below((total - before).max(2) - 1),
        2 if rng.chance(40) => {
            layout::CODE + 2 * layout::PAGE - total + 1 + rng.below((total - 1).max(1))
        }
        _ => layout::CODE + 0x100 + rng.below(0x40),
    }
}

fn decode(bytes: &[u8], width: Width, at: u32) -> Instruction {
    Decoder::with_ip(width.bits(), bytes, u64::from(at), DecoderOptions::NONE).decode()
}

/// One to three instructions that set flags and change no register that an operand needs.
fn producers(d: &mut Draft) -> Vec<Vec<u8>> {
    let count = 1 + d.rng.below(3);
    (0..count)
        .map(|_| {
            let rng = &mut d.rng;
            let modrm = (0xc0 | rng.below(0x40)) as u8;
            let r = rng.below(8) as u8;
            match rng.below(12) {
                0 | 1 => vec![0x39, modrm],                 // cmp r, r
                2 => vec![0x38, modrm],                     // cmp r8, r8
                3 => vec![0x85, modrm],                     // test r, r
                4 => vec![0x83, 0xf8 | r, rng.u32() as u8], // cmp r, imm8
                5 => vec![0xf9],                            // stc
                6 => vec![0xf8],                            // clc
                7 => vec![0xf5],                            // cmc
                8 => vec![0x9e],                            // sahf
                9 => vec![0x80, 0xf8 | r, rng.u32() as u8], // cmp r8, imm8
                10 => vec![0x0f, 0xa3, modrm],              // bt r, r
                _ if d.pinned >> r & 1 == 0 => vec![0x83, 0xc0 | r, rng.u32() as u8], // add r, imm8
                _ => vec![0x84, modrm],                     // test r8, r8
            }
        })
        .collect()
}

/// One to four instructions that use flags and registers.
fn consumers(d: &mut Draft) -> Vec<Vec<u8>> {
    let count = 1 + d.rng.below(4);
    (0..count)
        .map(|_| {
            let rng = &mut d.rng;
            let cc = rng.below(16) as u8;
            // Never ESP: the stack stays usable.
            let r = rng.pick(&[0u8, 1, 2, 3, 5, 6, 7]);
            let s = rng.below(8) as u8;
            match rng.below(11) {
                0 | 1 => vec![0x0f, 0x90 | cc, 0xc0 | rng.below(8) as u8 & 3], // setcc r8
                2 => vec![0x0f, 0x40 | cc, 0xc0 | r << 3 | s],                 // cmovcc
                3 => vec![0x9f],                                               // lahf
                4 => vec![0x11, 0xc0 | s << 3 | r],                            // adc r, r
                5 => vec![0x19, 0xc0 | s << 3 | r],                            // sbb r, r
                6 => vec![0xd1, 0xd0 | r],                                     // rcl r, 1
                7 => vec![0x70 | cc, 1, 0x40 | r],                             // jcc over; inc r
                8 => vec![0x9c, 0x58 | r],                                     // pushf; pop r
                9 => vec![0x40 | r],                                           // inc r
                _ => vec![0xf7, 0xd8 | r],                                     // neg r
            }
        })
        .collect()
}

fn to_eflags(bits: u32) -> u32 {
    const MAP: [(u32, u32); 6] = [
        (RflagsBits::OF, 1 << 11),
        (RflagsBits::SF, 1 << 7),
        (RflagsBits::ZF, 1 << 6),
        (RflagsBits::AF, 1 << 4),
        (RflagsBits::CF, 1 << 0),
        (RflagsBits::PF, 1 << 2),
    ];
    MAP.iter()
        .filter(|(from, _)| bits & from != 0)
        .map(|(_, to)| to)
        .sum()
}

/// Computes which flags are undefined at the end and at a fault.
///
/// # Errors
/// If an instruction would use an undefined flag: such a case proves nothing.
pub fn follow_flags(case: &mut Case) -> Result<(), String> {
    (case.undefined, case.undefined_at_fault) = (0, 0);
    let code = case.code();
    let start = u64::from(case.regs.eip);
    let (mut now, mut ever) = (0, 0);
    let mut skippable = false;
    for i in Decoder::with_ip(case.width.bits(), &code, start, DecoderOptions::NONE).iter() {
        if to_eflags(i.rflags_read()) & now != 0 {
            return Err("uses an undefined flag".into());
        }
        let conditional = i.has_rep_prefix()
            || i.has_repne_prefix()
            || matches!(
                i.mnemonic(),
                Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar | Mnemonic::Sal
            )
            || matches!(
                i.mnemonic(),
                Mnemonic::Shld | Mnemonic::Shrd | Mnemonic::Rol | Mnemonic::Ror
            )
            || matches!(i.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr)
            || skippable;
        if !conditional {
            now &= !to_eflags(i.rflags_written() | i.rflags_cleared() | i.rflags_set());
        }
        let branch = i.flow_control() == FlowControl::ConditionalBranch;
        skippable = branch;
        now |= to_eflags(i.rflags_undefined());
        ever |= now;
        if branch {
            // What follows may be skipped: what is undefined now may stay so.
            case.undefined |= now;
        }
    }
    case.undefined |= now;
    case.undefined_at_fault = ever;
    Ok(())
}

/// True if the case can run at any privilege level.
#[must_use]
pub fn any_privilege(case: &Case) -> bool {
    case.privilege == Privilege::Any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::forms;

    #[test]
    fn most_forms_yield_a_case_and_the_same_seed_the_same_case() {
        let (forms, _) = forms::table();
        let mut made = 0;
        for form in &forms {
            let a = make(*form, &mut Rng::derived(1, form.salt()));
            let b = make(*form, &mut Rng::derived(1, form.salt()));
            assert_eq!(a, b);
            made += usize::from(a.is_ok());
        }
        assert!(made * 10 > forms.len() * 9, "{made} of {}", forms.len());
    }

    #[test]
    fn undefined_flags_are_followed() {
        let form = forms::table()
            .0
            .into_iter()
            .find(|f| f.code == Code::Mul_rm32 && f.width == Width::Code32);
        let mut rng = Rng::new(3);
        let alone = loop {
            let case = make(form.unwrap(), &mut rng).unwrap();
            if case.pieces.len() == 1 {
                break case;
            }
        };
        assert_eq!(alone.undefined, 0xd4); // SF ZF AF PF
    }
}
