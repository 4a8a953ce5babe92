//! What a case exercises beyond its form: addressing, prefixes, segments, crossings, faults. The
//! report counts it, and the quick run fails if something in [`DIMENSIONS`] was never exercised.

use crate::case::{Case, Outcome, Stop, Width, seg};
use crate::generate::state::MXCSR_MM;
use crate::layout::{self, Descriptor};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};

/// Everything that is counted, by name.
pub const DIMENSIONS: [&str; 64] = [
    "16-bit code",
    "32-bit code",
    "instruction alone",
    "instruction within a unit with live flags",
    "register operands only",
    "memory operand",
    "16-bit address",
    "32-bit address",
    "16-bit address in 32-bit code",
    "32-bit address in 16-bit code",
    "address: base",
    "address: base + disp8",
    "address: base + disp16/32",
    "address: base + index",
    "address: index * scale",
    "address: ESP as base (SIB)",
    "address: displacement only",
    "segment override ES",
    "segment override CS",
    "segment override SS",
    "segment override DS",
    "segment override FS",
    "segment override GS",
    "segment with a base",
    "segment with a limit",
    "expand-down segment",
    "read-only segment",
    "null selector",
    "16-bit stack segment",
    "LOCK, executed",
    "LOCK, #UD",
    "REP, string",
    "REPNE, string",
    "REP or REPNE, no string",
    "operand-size prefix",
    "address-size prefix",
    "repeated prefix",
    "longer than 15 bytes",
    "direction flag set",
    "alignment checks on, operand aligned or none",
    "alignment checks on, operand not aligned",
    "trap flag set",
    "MXCSR.MM set (where it exists), operand not aligned",
    "operand not aligned",
    "operand crosses a page",
    "operand crosses into a missing page",
    "operand crosses into a read-only page",
    "code crosses a page",
    "code runs into a missing page",
    "#DE",
    "#DB",
    "#BP",
    "#OF",
    "#BR",
    "#UD",
    "#NP",
    "#SS",
    "#GP",
    "#MF",
    "#AC",
    "#XM",
    "#PF, page not present, read",
    "#PF, page not present, write",
    "#PF, write to a read-only page",
];

/// How often something of [`DIMENSIONS`] was exercised.
#[derive(Clone, Debug, Default)]
pub struct Exercised {
    /// Cases.
    pub cases: u64,
    /// Forms with such a case. Cases of one form come together.
    pub forms: u32,
    last: String,
}

impl Exercised {
    /// Counts one case of `form`.
    pub fn count(&mut self, form: &str) {
        self.cases += 1;
        if self.last != form {
            self.last = form.into();
            self.forms += 1;
        }
    }
}

const PREFIXES: [u8; 11] = [
    0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3,
];

/// The dimensions of one case, given what the host did. May name one twice.
#[must_use]
pub fn of(case: &Case, outcome: &Outcome) -> Vec<&'static str> {
    let mut found = Vec::new();
    found.push(match case.width {
        Width::Code16 => "16-bit code",
        Width::Code32 => "32-bit code",
    });
    found.push(if case.pieces.len() == 1 {
        "instruction alone"
    } else {
        "instruction within a unit with live flags"
    });
    if case.regs.eflags & 0x400 != 0 {
        found.push("direction flag set");
    }
    if Descriptor::of(case.regs.seg[seg::SS]).is_some_and(|d| !d.big) {
        found.push("16-bit stack segment");
    }
    let page = |at: u32| at & !(layout::PAGE - 1);
    if page(case.code_at) != page(case.end() - 1) {
        found.push(if case.end() > layout::CODE + 2 * layout::PAGE {
            "code runs into a missing page"
        } else {
            "code crosses a page"
        });
    }
    let ud = matches!(outcome.stop, Stop::Trap { vector: 6, .. });
    let mut memory = false;
    for piece in &case.pieces {
        let i = Decoder::with_ip(case.width.bits(), piece, 0, DecoderOptions::NONE).decode();
        prefixes(piece, &i, ud, outcome.stop == Stop::End, &mut found);
        if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
            memory = true;
            address(case, &i, &mut found);
        }
    }
    if case.regs.eflags & 1 << 18 != 0 {
        found.push(if found.contains(&"operand not aligned") {
            "alignment checks on, operand not aligned"
        } else {
            "alignment checks on, operand aligned or none"
        });
    }
    if case.vector.mxcsr & MXCSR_MM != 0 && found.contains(&"operand not aligned") {
        found.push("MXCSR.MM set (where it exists), operand not aligned");
    }
    if case.regs.eflags & 1 << 8 != 0 {
        found.push("trap flag set");
    }
    found.push(if memory {
        "memory operand"
    } else {
        "register operands only"
    });
    found.extend(fault(&outcome.stop));
    found
}

fn fault(stop: &Stop) -> Option<&'static str> {
    let Stop::Trap { vector, error, .. } = stop else {
        return None;
    };
    Some(match (vector, error & 7) {
        (0, _) => "#DE",
        (1, _) => "#DB",
        (3, _) => "#BP",
        (4, _) => "#OF",
        (5, _) => "#BR",
        (6, _) => "#UD",
        (11, _) => "#NP",
        (12, _) => "#SS",
        (13, _) => "#GP",
        (14, 4) => "#PF, page not present, read",
        (14, 6) => "#PF, page not present, write",
        (14, 7) => "#PF, write to a read-only page",
        (16, _) => "#MF",
        (17, _) => "#AC",
        (19, _) => "#XM",
        _ => return None,
    })
}

fn prefixes(
    piece: &[u8],
    i: &Instruction,
    undefined: bool,
    ended: bool,
    found: &mut Vec<&'static str>,
) {
    let count = piece.iter().take_while(|b| PREFIXES.contains(b)).count();
    let prefixes = &piece[..count];
    let has = |b: u8| prefixes.contains(&b);
    if has(0xf0) && undefined {
        found.push("LOCK, #UD");
    } else if i.has_lock_prefix() && ended {
        found.push("LOCK, executed");
    }
    let string = i.is_string_instruction();
    if has(0xf3) && string {
        found.push("REP, string");
    } else if has(0xf2) && string {
        found.push("REPNE, string");
    } else if i.has_rep_prefix() || i.has_repne_prefix() {
        found.push("REP or REPNE, no string");
    }
    if has(0x66) {
        found.push("operand-size prefix");
    }
    if has(0x67) {
        found.push("address-size prefix");
    }
    if (1..count).any(|n| prefixes[n] == prefixes[n - 1]) {
        found.push("repeated prefix");
    }
    if i.code() == Code::INVALID && piece.len() > 15 {
        found.push("longer than 15 bytes");
    }
}

fn address(case: &Case, i: &Instruction, found: &mut Vec<&'static str>) {
    let (base, index) = (i.memory_base(), i.memory_index());
    let narrow = if base == Register::None && index == Register::None {
        i.memory_displ_size() == 2
    } else {
        base.is_gpr16() || index.is_gpr16()
    };
    found.push(match narrow {
        true => "16-bit address",
        false => "32-bit address",
    });
    match (narrow, case.width) {
        (true, Width::Code32) => found.push("16-bit address in 32-bit code"),
        (false, Width::Code16) => found.push("32-bit address in 16-bit code"),
        _ => {}
    }
    let displacement = i.memory_displ_size();
    found.push(match (base, index) {
        (Register::None, Register::None) => "address: displacement only",
        (Register::None, _) => "address: index * scale",
        (_, Register::None) if displacement == 0 => "address: base",
        (_, Register::None) if displacement == 1 => "address: base + disp8",
        (_, Register::None) => "address: base + disp16/32",
        _ => "address: base + index",
    });
    if base == Register::ESP {
        found.push("address: ESP as base (SIB)");
    }
    let (name, n) = match i.memory_segment() {
        Register::ES => ("segment override ES", seg::ES),
        Register::CS => ("segment override CS", seg::CS),
        Register::SS => ("segment override SS", seg::SS),
        Register::FS => ("segment override FS", seg::FS),
        Register::GS => ("segment override GS", seg::GS),
        _ => ("segment override DS", seg::DS),
    };
    if i.segment_prefix() != Register::None {
        found.push(name);
    }
    let Some(descriptor) = Descriptor::of(case.regs.seg[n]) else {
        found.push("null selector");
        return;
    };
    if descriptor.base != 0 {
        found.push("segment with a base");
    }
    if descriptor.byte_limit() != u32::MAX {
        found.push("segment with a limit");
    }
    match descriptor.kind {
        k if k & 0xc == 4 => found.push("expand-down segment"),
        k if k & 0xa == 0 => found.push("read-only segment"),
        _ => {}
    }
    let operand = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory);
    let at = operand.and_then(|n| i.virtual_address(n, 0, |r, _, _| register(case, r)));
    // The segment's base is taken as 0 above: offsets wrap, bases are added here.
    let (Some(offset), size) = (at, i.memory_size().size() as u32) else {
        return;
    };
    let offset = if narrow {
        offset as u16 as u32
    } else {
        offset as u32
    };
    crossing(offset.wrapping_add(descriptor.base), size, found);
}

fn crossing(at: u32, size: u32, found: &mut Vec<&'static str>) {
    if size.is_power_of_two() && at & (size - 1) != 0 {
        found.push("operand not aligned");
    }
    let last = at.wrapping_add(size.max(1) - 1);
    if (at ^ last) & !(layout::PAGE - 1) == 0 {
        return;
    }
    let (first, second) = (layout::offset_of(at), layout::offset_of(last));
    let read_only = last.wrapping_sub(layout::READ_ONLY) < layout::PAGE;
    match (first, second) {
        (Some(_), Some(_)) => found.push("operand crosses a page"),
        (Some(_), None) if read_only => found.push("operand crosses into a read-only page"),
        _ => found.push("operand crosses into a missing page"),
    }
}

fn register(case: &Case, r: Register) -> Option<u64> {
    if r.is_segment_register() {
        return Some(0);
    }
    let full = r.full_register32();
    if full.is_gpr32() {
        let value = case.regs.gpr[full.number()];
        Some(u64::from(if r.is_gpr16() { value & 0xffff } else { value }))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_counts_once() {
        let mut seen = Exercised::default();
        for form in ["a", "a", "b"] {
            seen.count(form);
        }
        assert_eq!((seen.cases, seen.forms), (3, 2));
    }

    #[test]
    fn names_are_unique() {
        let mut names = DIMENSIONS.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DIMENSIONS.len());
    }
}
