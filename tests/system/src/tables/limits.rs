//! Limits, expand-down segments, and rights of segments that are loaded.

use crate::descriptor::{flag, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

const SELECTOR: u16 = at::FREE;

/// First and last offset of a segment. 5.3.
fn bounds(limit: u32, down: bool, big: bool) -> (u64, u64) {
    match (down, big) {
        (false, _) => (0, u64::from(limit)),
        (true, true) => (u64::from(limit) + 1, 0xffff_ffff),
        (true, false) => (u64::from(limit) + 1, 0xffff),
    }
}

fn accesses() -> Vec<Row> {
    let mut rows = Vec::new();
    // (limit field, flags)
    let shapes = [
        (0xfff, flag::BIG),
        (0xffe, 0),
        (0, flag::BIG),
        (0, flag::G | flag::BIG),
        (0x1, flag::G),
        (0xffff, 0),
    ];
    for (raw, flags) in shapes {
        for down in [false, true] {
            for (name, opcode, size, write) in [
                ("MOV AL, [EBX]", &[0x8a, 0x03][..], 1u64, false),
                ("MOV [EBX], AL", &[0x88, 0x03], 1, true),
                ("MOV [EBX], AX", &[0x66, 0x89, 0x03], 2, true),
                ("MOV EAX, [EBX]", &[0x8b, 0x03], 4, false),
                ("ADD [EBX], EAX", &[0x01, 0x03], 4, true),
            ] {
                let limit = if flags & flag::G != 0 {
                    raw << 12 | 0xfff
                } else {
                    raw
                };
                let (low, high) = bounds(limit, down, flags & flag::BIG != 0);
                let mut offsets = vec![
                    low,
                    low + 1,
                    (high + 1).saturating_sub(size),
                    (high + 2).saturating_sub(size),
                    high,
                ];
                if low > 0 {
                    offsets.push(low - 1);
                }
                offsets.sort_unstable();
                offsets.dedup();
                for offset in offsets {
                    if offset > 0xffff_ffff {
                        continue;
                    }
                    for stack in [false, true] {
                        let register = if stack { "SS" } else { "DS" };
                        let shape = if down { "down" } else { "up" };
                        let mut row = Row::new(format!("{register} {shape} limit {raw:#x} flags {flags:x}: {name} at {offset:#x}")).cpl(3);
                        // What is inside must be memory: the base brings it there.
                        let base = at::DATA.wrapping_sub(offset as u32).wrapping_add(0x800);
                        let k = if down { kind::DATA_DOWN } else { kind::DATA_W };
                        row.descriptor(SELECTOR, segment(base, raw, k, 3, true, flags));
                        row.gpr[3] = offset as u32;
                        row.gpr[0] = u32::from(SELECTOR | 3);
                        row.put32(at::DATA + 0x800, 0x1122_3344);
                        let prefix: &[u8] = if stack {
                            row.bytes(&[0x8e, 0xd0]); // mov ss, ax
                            &[0x36]
                        } else {
                            row.bytes(&[0x8e, 0xd8]); // mov ds, ax
                            &[]
                        };
                        row.bytes(&[0xb8, 1, 0, 0, 0]); // mov eax, 1
                        let mut bytes = prefix.to_vec();
                        bytes.extend_from_slice(opcode);
                        let eip = row.bytes(&bytes);
                        let inside = offset >= low && offset + size - 1 <= high;
                        if inside {
                            row.ends();
                            if write {
                                let old = 0x1122_3344u32;
                                let new = match size {
                                    1 => old & !0xff | 1,
                                    2 => old & !0xffff | 1,
                                    _ => old + 1,
                                };
                                row.expect(Field::Mem(at::DATA + 0x800), new);
                            } else {
                                let value = if size == 1 { 0x44 } else { 0x1122_3344 };
                                row.expect(Field::Gpr(0), value);
                            }
                        } else {
                            row.stop();
                            row.fault(if stack { 12 } else { 13 }, Some(0), eip);
                            row.expect(Field::Mem(at::DATA + 0x800), 0x1122_3344);
                            row.deviation = Some(deviation::SEGMENT_LIMITS);
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    rows
}

/// Rights: 5.5 and 5.6 for what is loaded already.
fn rights() -> Vec<Row> {
    let mut rows = Vec::new();
    for (k, readable, writable) in [
        (kind::DATA_R, true, false),
        (kind::DATA_W, true, true),
        (kind::CODE_R, true, false),
        (kind::CONFORMING, true, false),
    ] {
        for write in [false, true] {
            for (register, load, prefix) in [
                ("DS", 0xd8u8, &[][..]),
                ("ES", 0xc0, &[0x26]),
                ("FS", 0xe0, &[0x64]),
                ("GS", 0xe8, &[0x65]),
            ] {
                let mut row = Row::new(format!(
                    "{register} type {k:#x}: {}",
                    if write { "write" } else { "read" }
                ))
                .cpl(3);
                row.descriptor(SELECTOR, segment(0, 0xf_ffff, k, 3, true, 12));
                row.gpr[0] = u32::from(SELECTOR | 3);
                row.gpr[3] = at::DATA;
                row.bytes(&[0x8e, load]);
                let mut bytes = prefix.to_vec();
                bytes.extend([if write { 0x89 } else { 0x8b }, 0x03]);
                let eip = row.bytes(&bytes);
                if if write { writable } else { readable } {
                    row.ends();
                } else {
                    row.stop();
                    row.fault(13, Some(0), eip);
                    row.deviation = Some(deviation::SEGMENT_LIMITS);
                }
                rows.push(row);
            }
        }
    }
    for (register, load, prefix) in [
        ("DS", 0xd8u8, &[][..]),
        ("ES", 0xc0, &[0x26]),
        ("FS", 0xe0, &[0x64]),
        ("GS", 0xe8, &[0x65]),
    ] {
        for write in [false, true] {
            let mut row = Row::new(format!(
                "{register} null: {}",
                if write { "write" } else { "read" }
            ));
            row.gpr[0] = 0;
            row.gpr[3] = at::DATA;
            row.bytes(&[0x8e, load]);
            let mut bytes = prefix.to_vec();
            bytes.extend([if write { 0x89 } else { 0x8b }, 0x03]);
            let eip = row.bytes(&bytes);
            row.stop();
            row.fault(13, Some(0), eip);
            row.deviation = Some(deviation::SEGMENT_LIMITS);
            rows.push(row);
        }
    }
    for (what, bytes) in [
        ("write through CS", &[0x2e, 0x89, 0x03][..]),
        ("read through execute-only CS", &[0x2e, 0x8b, 0x03]),
    ] {
        let mut row = Row::new(what).cpl(3);
        row.descriptor(
            SELECTOR,
            segment(0, 0xf_ffff, kind::CODE_X | 1, 3, true, 12),
        );
        if what.contains("execute-only") {
            row.cs = SELECTOR | 3;
        }
        row.gpr[3] = at::DATA;
        let eip = row.bytes(bytes);
        row.stop();
        row.fault(13, Some(0), eip);
        row.deviation = Some(deviation::SEGMENT_LIMITS);
        rows.push(row);
    }
    rows
}

/// Name, instruction with its operand at EBX, ESI or EDI, and the operand's size.
type Access = (&'static str, &'static [u8], u32);

const OPERANDS: &[Access] = &[
    ("XCHG [EBX], AX", &[0x66, 0x87, 0x03], 2),
    ("PUSH [EBX]", &[0xff, 0x33], 4),
    ("POP [EBX]", &[0x8f, 0x03], 4),
    ("BOUND", &[0x62, 0x03], 8),
    ("LES", &[0xc4, 0x03], 6),
    ("LOCK INC DWORD", &[0xf0, 0xff, 0x03], 4),
    ("CMPXCHG8B", &[0x0f, 0xc7, 0x0b], 8),
    ("BTS by register", &[0x0f, 0xab, 0x2b], 4),
    ("SETZ", &[0x0f, 0x94, 0x03], 1),
    ("XLAT", &[0xd7], 1),
    ("LODSD", &[0xad], 4),
    ("STOSW", &[0x66, 0xab], 2),
    ("MOVSD", &[0xa5], 4),
    ("CMPSD", &[0xa7], 4),
    ("SCASB", &[0xae], 1),
    ("FLD QWORD", &[0xdd, 0x03], 8),
    ("FSTP TBYTE", &[0xdb, 0x3b], 10),
    ("FNSAVE", &[0xdd, 0x33], 108),
    ("FNSTENV", &[0xd9, 0x33], 28),
    ("MOVUPS", &[0x0f, 0x10, 0x03], 16),
    ("FXSAVE", &[0x0f, 0xae, 0x03], 512),
    ("SGDT", &[0x0f, 0x01, 0x03], 6),
    ("JMP [EBX]", &[0xff, 0x23], 4),
    ("far JMP [EBX]", &[0xff, 0x2b], 6),
];

/// Operands of every size that end at the limit and one element beyond it; expand-up and
/// expand-down.
fn operands() -> Vec<Row> {
    let mut rows = Vec::new();
    for &(name, bytes, size) in OPERANDS {
        for down in [false, true] {
            for inside in [true, false] {
                let shape = if down { "down" } else { "up" };
                let side = if inside { "within" } else { "beyond" };
                let mut row = Row::new(format!("{name} {side} a limit, expand-{shape}"));
                row.cr4 = 0x200; // OSFXSR
                let (k, limit, good) = if down {
                    (kind::DATA_DOWN, 0xfff, 0x1000)
                } else {
                    (kind::DATA_W, 0xfff, 0x1000 - size)
                };
                // FXSAVE is aligned: its next place is 16 bytes away.
                let step = if size == 512 { 16 } else { 1 };
                let offset = match (inside, down) {
                    (true, _) => good,
                    (false, true) => good - step,
                    (false, false) => good + step,
                };
                let base = at::DATA + 0x800 - good;
                row.descriptor(SELECTOR, segment(base, limit, k | 1, 0, true, flag::BIG));
                row.data[0] = SELECTOR;
                row.data[1] = SELECTOR;
                row.gpr[0] = 0;
                row.gpr[3] = offset;
                row.gpr[5] = 0;
                row.gpr[6] = offset;
                row.gpr[7] = offset;
                row.gpr[4] = at::ROW_STACK - 0x20;
                // What far and near jumps, LES and BOUND find there.
                let place = base + offset;
                row.put(place, &at::TARGET.to_le_bytes());
                row.put(place + 4, &at::CODE0.to_le_bytes());
                if name == "LES" {
                    row.put(place + 4, &at::DATA0.to_le_bytes());
                }
                if name == "BOUND" {
                    row.put(place, &[0, 0, 0, 0, 1, 0, 0, 0]);
                }
                row.put(at::TARGET, &[0x0f, 0x0b]);
                let eip = row.bytes(bytes);
                if !inside {
                    row.stop();
                    row.fault(13, Some(0), eip);
                    row.expect(Field::Esp, row.gpr[4]);
                    row.expect(Field::Gpr(6), offset);
                    row.expect(Field::Gpr(7), offset);
                    row.deviation = Some(deviation::SEGMENT_LIMITS);
                } else if name.contains("JMP") {
                    row.fault(6, None, at::TARGET);
                } else {
                    row.ends();
                }
                rows.push(row);
            }
        }
    }
    // A repeated instruction stops where the limit does, with what it has done.
    for (name, bytes, k) in [
        ("REP STOSB", &[0xf3, 0xaa][..], kind::DATA_W),
        ("REP MOVSB", &[0xf3, 0xa4], kind::DATA_W),
        ("REPNE SCASB", &[0xf2, 0xae], kind::DATA_R),
    ] {
        let mut row = Row::new(format!("{name} across the limit"));
        row.descriptor(SELECTOR, segment(at::DATA, 0xff, k | 1, 0, true, flag::BIG));
        row.data = [SELECTOR, SELECTOR, 0, 0];
        row.gpr[0] = 0x55;
        row.gpr[1] = 10;
        row.gpr[6] = 0x10;
        row.gpr[7] = 0xfc;
        let eip = row.bytes(bytes);
        row.stop();
        row.fault(13, Some(0), eip);
        row.expect(Field::Gpr(1), 6);
        row.expect(Field::Gpr(7), 0x100);
        row.deviation = Some(deviation::SEGMENT_LIMITS);
        rows.push(row);
    }
    rows
}

/// Instructions on the stack: ESP that just fits, and one less or more. Vol. 1, 6.2; vol. 2.
fn stacks() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, bytes, first, good) in [
        ("PUSH EAX", &[0x50][..], true, 4u32),
        ("PUSH AX", &[0x66, 0x50], true, 2),
        ("PUSH imm8", &[0x6a, 1], true, 4),
        ("PUSH DS", &[0x1e], true, 4),
        ("PUSHA", &[0x60], true, 32),
        ("PUSHF", &[0x9c], true, 4),
        ("CALL", &[0xe8, 0, 0, 0, 0], true, 4),
        ("ENTER 0, 0", &[0xc8, 0, 0, 0], true, 4),
        ("POP EAX", &[0x58], false, 4),
        ("POP AX", &[0x66, 0x58], false, 2),
        ("POP ES", &[0x07], false, 4),
        ("POPA", &[0x61], false, 32),
        ("POPF", &[0x9d], false, 4),
        ("RET", &[0xc3], false, 4),
        ("LEAVE", &[0xc9], false, 4),
    ] {
        for inside in [true, false] {
            let side = if inside { "within" } else { "beyond" };
            let mut row = Row::new(format!("{name} {side} the stack's limit")).cpl(3);
            let base = at::OTHER_STACK - 0x80;
            row.descriptor(
                SELECTOR,
                segment(base, 0x7f, kind::DATA_W | 1, 3, true, flag::BIG),
            );
            row.ss = SELECTOR | 3;
            row.gpr[4] = match (first, inside) {
                (true, true) => good,
                (true, false) => good - 1,
                (false, true) => 0x80 - good,
                (false, false) => 0x81 - good,
            };
            row.gpr[5] = row.gpr[4];
            if name == "RET" {
                row.put32(base + 0x7c, at::TARGET);
                row.put(at::TARGET, &[0x0f, 0x0b]);
            } else if name == "POPF" {
                row.put32(base + 0x7c, eflags::FIXED);
            }
            let eip = row.bytes(bytes);
            if inside {
                row.stop();
                let next = eip + bytes.len() as u32;
                row.fault(6, None, if name == "RET" { at::TARGET } else { next });
            } else {
                row.stop();
                row.fault(12, Some(0), eip);
                row.expect(Field::Esp, row.gpr[4]);
                row.deviation = Some(deviation::SEGMENT_LIMITS);
            }
            rows.push(row);
        }
    }
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        Table::new("limits", "SDM 3A 5.3, 3.4.5.1", accesses()),
        Table::new("segment-rights", "SDM 3A 5.4.1, 5.5, 3.4.5.1", rights()),
        Table::new("operand-limits", "SDM 3A 5.3; vol. 2", operands()),
        Table::new("stack-limits", "SDM 3A 5.3; vol. 1, 6.2; vol. 2", stacks()),
    ]
}
