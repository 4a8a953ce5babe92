//! Where two outcomes of one case differ.
//!
//! Not compared: undefined flags (the case says which), RF (fault frames carry it), the upper
//! half of ESP with a 16-bit stack segment (the host's interrupt return does not restore it),
//! the RPL of null selectors (cleared by the same return),
//! the x87 instruction and operand pointers (AMD hosts save them only with a pending exception),
//! what [`Freedom`], [`both_right`] and [`read_more`] name,
//! state components that one of the engines does not have, and memory that the case excludes.

use crate::case::{Case, Outcome, Stop, seg};
use crate::layout;
use crate::vector::Vector;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use ring3_monitor::cpu::cpuid::CpuModel;

/// One difference, as text: what, expected, got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which part of the state.
    pub what: String,
    /// The oracle's value.
    pub expected: String,
    /// The other engine's value.
    pub got: String,
}

const GPR: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];
const SEG: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
/// Flags that are compared: CF PF AF ZF SF TF IF DF OF IOPL NT AC ID.
const FLAGS: u32 = 0x0024_7fd5;
const PF_USER: u32 = 4;
/// Set for fetches by processors with NXE or SMEP on: a property of the paging mode.
const PF_FETCH: u32 = 0x10;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// State components that both engines have (XCR0 bits).
    pub components: u64,
    /// False if the other engine ran at CPL 0-2: the U bit of page-fault codes, IF and IOPL differ.
    pub same_cpl: bool,
}

/// All differences; empty if the outcomes agree.
#[must_use]
pub fn differences(
    case: &Case,
    expected: &Outcome,
    got: &Outcome,
    rules: Rules,
) -> Vec<Difference> {
    let mut found = Vec::new();
    if matches!(got.stop, Stop::Skipped(_)) {
        return found;
    }
    let mut note = |what: String, expected: String, got: String| {
        found.push(Difference {
            what,
            expected,
            got,
        })
    };
    if read_more(case, expected, got) {
        return found;
    }
    let free = freedom(case, expected);
    let stop_e = normal_stop(&expected.stop, rules, free.address);
    let stop_g = normal_stop(&got.stop, rules, free.address);
    let near_end =
        expected.regs.eip.wrapping_add(case.code_base()) > layout::CODE + 2 * layout::PAGE - 15;
    let any_order =
        free.order && matches!((&stop_e, &stop_g), (Stop::Trap { .. }, Stop::Trap { .. }));
    if stop_e != stop_g && !any_order && !both_right(case, expected, &stop_e, &stop_g, near_end) {
        note("stop".into(), describe(&stop_e), describe(&stop_g));
    }
    if matches!(stop_e, Stop::Lost(_)) || matches!(stop_g, Stop::Lost(_)) {
        return found;
    }
    let (e, g) = (&expected.regs, &got.regs);
    let narrow_stack = layout::Descriptor::of(e.seg[seg::SS]).is_some_and(|d| !d.big);
    for (n, name) in GPR.into_iter().enumerate() {
        let mask = if n == 4 && narrow_stack {
            0xffff
        } else {
            u32::MAX
        };
        if e.gpr[n] & mask != g.gpr[n] & mask && (n == 4 || !free.registers) {
            note(
                name.into(),
                format!("{:08x}", e.gpr[n] & mask),
                format!("{:08x}", g.gpr[n] & mask),
            );
        }
    }
    if e.eip != g.eip {
        note(
            "eip".into(),
            format!("{:08x}", e.eip),
            format!("{:08x}", g.eip),
        );
    }
    let undefined = if stop_e == Stop::End {
        case.undefined
    } else {
        case.undefined_at_fault
    };
    let mask = FLAGS & !undefined & if rules.same_cpl { u32::MAX } else { !0x3200 };
    if (e.eflags ^ g.eflags) & mask != 0 {
        note(
            "eflags".into(),
            flag_text(e.eflags & mask),
            flag_text(g.eflags & mask),
        );
    }
    for (n, name) in SEG.into_iter().enumerate() {
        let mask = if rules.same_cpl { 0xffff } else { 0xfffc };
        // The host kernel's IRET clears the RPL of null selectors in data segment registers.
        let both_null = e.seg[n] <= 3 && g.seg[n] <= 3;
        if !both_null && (e.seg[n] ^ g.seg[n]) & mask != 0 {
            note(
                name.into(),
                format!("{:04x}", e.seg[n]),
                format!("{:04x}", g.seg[n]),
            );
        }
    }
    vector_differences(&expected.vector, &got.vector, rules.components, &mut note);
    if !free.memory {
        memory_differences(case, expected, got, &mut note);
    }
    found
}

/// True if `got` faulted on a second page of which the oracle read nothing: instructions that use
/// only half of a 16-byte operand "may fetch only the appropriate 64 bits" (Intel SDM vol. 2B,
/// UNPCKLPS, PUNPCKLBW; AMD processors do so for shift counts too). Only MXCSR.MM lets these operands
/// cross a page.
fn read_more(case: &Case, expected: &Outcome, got: &Outcome) -> bool {
    use Mnemonic::*;
    let Stop::Trap {
        vector: 14,
        address,
        ..
    } = got.stop
    else {
        return false;
    };
    expected.regs.eip != got.regs.eip
        && address % layout::PAGE == 0
        && instruction_at(case, got).is_some_and(|i| {
            let half = matches!(
                i.mnemonic(),
                Unpcklps | Unpcklpd | Punpcklbw | Punpcklwd | Punpckldq | Punpcklqdq
            ) || matches!(
                i.mnemonic(),
                Psllw | Pslld | Psllq | Psrlw | Psrld | Psrlq | Psraw | Psrad
            );
            half && i.op1_kind() == OpKind::Memory && i.op0_register().is_xmm()
        })
}

/// The instruction that an outcome ended at.
fn instruction_at(case: &Case, outcome: &Outcome) -> Option<Instruction> {
    let start = case.code_at.wrapping_sub(case.code_base());
    let offset = outcome.regs.eip.wrapping_sub(start) as usize;
    let code = case.code();
    let rest = code.get(offset..)?;
    Some(Decoder::with_ip(case.width.bits(), rest, 0, DecoderOptions::NONE).decode())
}

/// What of a faulting instruction's effect is the processor model's choice.
#[derive(Clone, Copy, Debug, Default)]
struct Freedom {
    /// Which of several missing pages CR2 names (and whether that one is present).
    address: bool,
    /// Which of several exceptions comes first.
    order: bool,
    /// Registers other than ESP: POPA of AMD hosts has loaded some before the fault.
    registers: bool,
    /// Memory: instructions that store several items may have stored some.
    memory: bool,
}

/// The freedom of the instruction that the oracle faulted at.
fn freedom(case: &Case, expected: &Outcome) -> Freedom {
    use Mnemonic::*;
    if expected.stop == Stop::End {
        return Freedom::default();
    }
    let Some(i) = instruction_at(case, expected) else {
        return Freedom::default();
    };
    let far_call = i.is_call_far() || i.is_call_far_indirect();
    Freedom {
        address: far_call
            || matches!(
                i.mnemonic(),
                Retf | Iret | Iretd | Popa | Popad | Fxrstor | Xrstor | Frstor | Fldenv | Bound
            )
            || matches!(
                i.mnemonic(),
                Pusha | Pushad | Enter | Fnsave | Fnstenv | Fxsave | Xsave
            ),
        // XSAVE meets limits and pages piece by piece.
        // AMD's IRET and RETF have read the outer stack before they look at the selector.
        // A misaligned FXSAVE area raises #GP or #AC (Intel SDM vol. 3A, 6.15, interrupt 17), and
        // what comes first of the pieces of an FNSAVE area is not written.
        order: matches!(i.mnemonic(), Iret | Iretd | Retf | Xsave)
            || (expected.regs.eflags & 1 << 18 != 0
                && matches!(i.mnemonic(), Fxsave | Fxrstor | Fnsave | Frstor)),
        registers: matches!(i.mnemonic(), Popa | Popad),
        memory: far_call
            || matches!(
                i.mnemonic(),
                Pusha | Pushad | Enter | Fnsave | Fnstenv | Fxsave | Xsave
            ),
    }
}

/// True if two different exceptions are both right.
///
/// An access that reaches over the end of a 4 GiB segment may raise the limit's exception or wrap
/// (Intel SDM vol. 3A, 5.3: "implementation-specific"). An undefined opcode may be known as such
/// before its last bytes are fetched, or only after (they lie in a missing page, or beyond the
/// fifteenth).
fn both_right(case: &Case, at: &Outcome, expected: &Stop, got: &Stop, near_end: bool) -> bool {
    let wraps = |address: u32| {
        at.regs.seg.iter().any(|s| {
            let base = layout::Descriptor::of(*s).map_or(0, |d| d.base);
            !(0x200..0xffff_fe00).contains(&address.wrapping_sub(base))
        })
    };
    let near_end = near_end || long_and_undefined(case, at);
    let (
        Stop::Trap {
            vector: e,
            error: 0,
            ..
        },
        Stop::Trap {
            vector: g, address, ..
        },
    ) = (expected, got)
    else {
        return near_end
            && matches!(
                (expected, got),
                (Stop::Trap { vector: 14, .. }, Stop::Trap { vector: 6, .. })
            );
    };
    match (e, g) {
        (12 | 13, 14) => wraps(*address),
        (6, 13 | 14) | (13 | 14, 6) => near_end,
        _ => false,
    }
}

/// True if the faulting instruction is longer than 15 bytes, and undefined without that: UD1 is so
/// for ever.
fn long_and_undefined(case: &Case, at: &Outcome) -> bool {
    let mut start = case.code_at.wrapping_sub(case.code_base());
    for piece in &case.pieces {
        if start == at.regs.eip && piece.len() > 15 {
            let tail = &piece[piece.len() - 15..];
            let bits = case.width.bits();
            let i = Decoder::with_ip(bits, tail, 0, DecoderOptions::NONE).decode();
            let model = CpuModel::host_default();
            return i.is_invalid()
                || matches!(i.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2)
                || !i.cpuid_features().iter().all(|f| model.supports(*f));
        }
        start = start.wrapping_add(piece.len() as u32);
    }
    false
}

fn normal_stop(stop: &Stop, rules: Rules, free_address: bool) -> Stop {
    match *stop {
        Stop::Trap {
            vector: 14,
            error,
            address,
        } => {
            let ignored = PF_FETCH | if rules.same_cpl { 0 } else { PF_USER };
            let (address, ignored) = if free_address {
                (0, ignored | 1)
            } else {
                (address, ignored)
            };
            Stop::Trap {
                vector: 14,
                error: error & !ignored,
                address,
            }
        }
        ref other => other.clone(),
    }
}

/// A stop in words.
#[must_use]
pub fn describe(stop: &Stop) -> String {
    const NAMES: [&str; 20] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP", "#SS",
        "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM",
    ];
    match stop {
        Stop::End => "reached the end".into(),
        Stop::Trap {
            vector,
            error,
            address,
        } => {
            let name = NAMES
                .get(usize::from(*vector))
                .copied()
                .unwrap_or("vector?");
            match vector {
                14 => format!("{name}({error:#x}) at {address:08x}"),
                10..=13 | 17 => format!("{name}({error:#x})"),
                _ => name.into(),
            }
        }
        Stop::Skipped(why) => format!("skipped: {why}"),
        Stop::Lost(why) => format!("lost: {why}"),
    }
}

/// EFLAGS as names.
#[must_use]
pub fn flag_text(flags: u32) -> String {
    const NAMES: [(u32, &str); 13] = [
        (0, "CF"),
        (2, "PF"),
        (4, "AF"),
        (6, "ZF"),
        (7, "SF"),
        (8, "TF"),
        (9, "IF"),
        (10, "DF"),
        (11, "OF"),
        (12, "IOPL0"),
        (14, "NT"),
        (18, "AC"),
        (21, "ID"),
    ];
    let set: Vec<&str> = NAMES
        .iter()
        .filter(|(bit, _)| flags >> bit & 1 != 0)
        .map(|(_, name)| *name)
        .collect();
    format!("{:06x} [{}]", flags, set.join(" "))
}

fn vector_differences(
    e: &Vector,
    g: &Vector,
    components: u64,
    note: &mut impl FnMut(String, String, String),
) {
    let hex = |b: &[u8]| {
        b.iter()
            .rev()
            .map(|x| format!("{x:02x}"))
            .collect::<String>()
    };
    if components & 1 != 0 {
        let words = [
            ("fcw", e.fcw, g.fcw),
            ("fsw", e.fsw, g.fsw),
            ("ftw", u16::from(e.ftw), u16::from(g.ftw)),
        ];
        for (name, a, b) in words {
            if a != b {
                note(name.into(), format!("{a:04x}"), format!("{b:04x}"));
            }
        }
        for n in 0..8 {
            if e.st[n] != g.st[n] {
                note(format!("st{n}"), hex(&e.st[n]), hex(&g.st[n]));
            }
        }
    }
    if components & 2 != 0 && e.mxcsr != g.mxcsr {
        note(
            "mxcsr".into(),
            format!("{:08x}", e.mxcsr),
            format!("{:08x}", g.mxcsr),
        );
    }
    let lanes = [
        (1, 0..16, "xmm"),
        (2, 16..32, "ymm high "),
        (6, 32..64, "zmm high "),
    ];
    for (bit, range, name) in lanes {
        for n in 0..8 {
            let (a, b) = (&e.zmm[n][range.clone()], &g.zmm[n][range.clone()]);
            if components >> bit & 1 != 0 && a != b {
                note(format!("{name}{n}"), hex(a), hex(b));
            }
        }
    }
    for n in 0..8 {
        if components >> 5 & 1 != 0 && e.k[n] != g.k[n] {
            note(
                format!("k{n}"),
                format!("{:x}", e.k[n]),
                format!("{:x}", g.k[n]),
            );
        }
    }
}

/// Longest list of memory differences.
const MOST_RUNS: usize = 8;

fn memory_differences(
    case: &Case,
    e: &Outcome,
    g: &Outcome,
    note: &mut impl FnMut(String, String, String),
) {
    if e.memory == g.memory {
        return;
    }
    let compared = |at: usize| {
        let lin = layout::address_of(at);
        e.memory[at] != g.memory[at]
            && !case
                .ignored
                .iter()
                .any(|(base, len)| lin.wrapping_sub(*base) < *len)
    };
    let (mut at, mut runs) = (0, 0);
    while at < e.memory.len() && runs < MOST_RUNS {
        if !compared(at) {
            at += 1;
            continue;
        }
        let start = at;
        while at < e.memory.len() && at < start + 16 && compared(at) {
            at += 1;
        }
        let hex = |m: &[u8]| {
            m[start..at]
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        note(
            format!("[{:08x}]", layout::address_of(start)),
            hex(&e.memory),
            hex(&g.memory),
        );
        runs += 1;
    }
}
