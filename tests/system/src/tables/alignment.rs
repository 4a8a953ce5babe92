//! Alignment checks: #AC with CR0.AM and EFLAGS.AC in ring 3.

use crate::descriptor::{kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};
use ring3_monitor::cpu::cpuid::{CpuModel, Vendor};

const AM: u32 = 1 << 18;

/// Name, instruction with its operand at EBX, and the alignment that it needs. Table 6-7.
const CASES: &[(&str, &[u8], u32)] = &[
    ("MOV AL, [EBX]", &[0x8a, 0x03], 1),
    ("MOV AX, [EBX]", &[0x66, 0x8b, 0x03], 2),
    ("MOV [EBX], AX", &[0x66, 0x89, 0x03], 2),
    ("MOV EAX, [EBX]", &[0x8b, 0x03], 4),
    ("MOV [EBX], EAX", &[0x89, 0x03], 4),
    ("ADD [EBX], EAX", &[0x01, 0x03], 4),
    ("XCHG [EBX], EAX", &[0x87, 0x03], 4),
    ("PUSH DWORD [EBX]", &[0xff, 0x33], 4),
    ("MOVZX EAX, WORD [EBX]", &[0x0f, 0xb7, 0x03], 2),
    ("FLD DWORD [EBX]", &[0xd9, 0x03], 4),
    ("FLD QWORD [EBX]", &[0xdd, 0x03], 8),
    ("FSTP QWORD [EBX]", &[0xdd, 0x1b], 8),
    ("FILD WORD [EBX]", &[0xdf, 0x03], 2),
    ("FNSTCW [EBX]", &[0xd9, 0x3b], 2),
    ("MOVQ MM0, [EBX]", &[0x0f, 0x6f, 0x03], 8),
    ("BOUND", &[0x62, 0x03], 4),
    ("LEA EAX, [EBX]", &[0x8d, 0x03], 1),
];

fn row(name: String, am: bool, ac: bool, cpl: u8) -> Row {
    let mut row = Row::new(name).cpl(cpl);
    row.cr0 |= if am { AM } else { 0 };
    row.eflags |= if ac { eflags::AC } else { 0 };
    row.gpr[0] = 0;
    row
}

fn operands() -> Vec<Row> {
    let mut rows = Vec::new();
    for &(name, bytes, alignment) in CASES {
        for offset in [0u32, 1, 2, 4, 6] {
            for (am, ac, cpl) in [
                (true, true, 3u8),
                (true, false, 3),
                (false, true, 3),
                (true, true, 0),
                (true, true, 2),
            ] {
                let on = am && ac && cpl == 3;
                if !on && offset != 1 {
                    continue;
                }
                let mut row = row(
                    format!("{name} at {offset}: AM {am} AC {ac} CPL {cpl}"),
                    am,
                    ac,
                    cpl,
                );
                row.put(at::DATA, &[0; 32]);
                row.gpr[3] = at::DATA + 8 + offset;
                let eip = row.bytes(bytes);
                if on && offset % alignment != 0 {
                    row.stop();
                    row.fault(17, Some(0), eip);
                    row.expect(Field::Esp, at::ROW_STACK);
                } else {
                    row.ends();
                }
                rows.push(row);
            }
        }
    }
    rows
}

fn others() -> Vec<Row> {
    let mut rows = Vec::new();
    // The stack.
    for (name, bytes) in [
        ("PUSH EAX", &[0x50][..]),
        ("POP EAX", &[0x58]),
        ("CALL", &[0xe8, 0, 0, 0, 0]),
        ("PUSHF", &[0x9c]),
        ("PUSHA", &[0x60]),
        ("LEAVE", &[0xc9]),
    ] {
        for offset in [0u32, 1, 2] {
            let mut row = row(format!("{name}, ESP + {offset}"), true, true, 3);
            row.gpr[4] = at::ROW_STACK - 0x40 + offset;
            row.gpr[5] = at::ROW_STACK - 0x20 + offset;
            let eip = row.bytes(bytes);
            if offset == 0 {
                row.ends();
            } else {
                row.stop();
                row.fault(17, Some(0), eip);
                row.expect(Field::Esp, at::ROW_STACK - 0x40 + offset);
            }
            rows.push(row);
        }
    }
    // Strings, each element.
    for (name, bytes, alignment) in [
        ("REP MOVSB", &[0xf3, 0xa4][..], 1u32),
        ("REP MOVSW", &[0x66, 0xf3, 0xa5], 2),
        ("REP MOVSD", &[0xf3, 0xa5], 4),
        ("STOSD", &[0xab], 4),
        ("LODSD", &[0xad], 4),
    ] {
        for offset in [0u32, 1, 2] {
            let mut row = row(
                format!("{name}, ESI + {offset}, EDI + {offset}"),
                true,
                true,
                3,
            );
            row.gpr[6] = at::DATA + offset;
            row.gpr[7] = at::DATA + 0x100 + offset;
            row.gpr[1] = 3;
            let eip = row.bytes(bytes);
            if offset % alignment == 0 {
                row.ends();
            } else {
                row.stop();
                row.fault(17, Some(0), eip);
                row.expect(Field::Gpr(1), 3);
            }
            rows.push(row);
        }
    }
    let mut nothing = row("REP MOVSD of nothing".into(), true, true, 3);
    nothing.gpr[6] = at::DATA + 1;
    nothing.gpr[7] = at::DATA + 1;
    nothing.gpr[1] = 0;
    nothing.bytes(&[0xf3, 0xa5]);
    nothing.ends();
    rows.push(nothing);
    // POPF turns it on for the next instruction, and off.
    for on in [true, false] {
        let mut row = row(
            format!("POPF that turns it {}", if on { "on" } else { "off" }),
            true,
            !on,
            3,
        );
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(
            at::ROW_STACK - 0x20,
            eflags::FIXED | if on { eflags::AC } else { 0 },
        );
        row.gpr[3] = at::DATA + 1;
        row.bytes(&[0x9d]);
        let eip = row.bytes(&[0x8b, 0x03]);
        if on {
            row.stop();
            row.fault(17, Some(0), eip);
        } else {
            row.ends();
        }
        rows.push(row);
    }
    // #GP comes first; what the processor accesses for itself is not checked. The SDM (3A table 6-2)
    // lists #PF before #AC; AMD processors raise #AC first, and the guest's is the host's.
    let amd = CpuModel::host_default().vendor() == Vendor::Amd;
    let mut absent = row("#AC and #PF at once".into(), true, true, 3).paging();
    absent.gpr[3] = at::TEST + 0x5001;
    let eip = absent.bytes(&[0x8b, 0x03]);
    absent.stop();
    absent.fault(
        if amd { 17 } else { 14 },
        Some(if amd { 0 } else { 4 }),
        eip,
    );
    rows.push(absent);
    let mut null = row("#GP comes first".into(), true, true, 3);
    null.data[0] = 0;
    null.gpr[3] = at::DATA + 1;
    let eip = null.bytes(&[0x8b, 0x03]);
    null.stop();
    null.fault(13, Some(0), eip);
    rows.push(null);
    let mut frame = row("a misaligned inner stack".into(), true, true, 3);
    frame.open_vector(0x40, 3);
    frame.put32(at::TSS + 4, at::STACK0 - 1);
    frame.bytes(&[0xcd, 0x40]);
    let next = frame.here();
    frame.fault(0x40, None, next);
    rows.push(frame);
    let mut table = row("descriptors are not checked".into(), true, true, 3);
    table.gpr[0] = u32::from(at::DATA3);
    table.bytes(&[0x8e, 0xd8]);
    table.ends();
    rows.push(table);
    // V8086 mode is ring 3.
    for offset in [0u32, 1] {
        let mut row = Row::new(format!("V8086 mode, word at {offset}")).v86(3);
        row.cr0 |= AM;
        row.eflags |= eflags::AC;
        let eip = row.bytes(&[0xa1, offset as u8, 0x01]);
        if offset == 0 {
            row.ends();
        } else {
            row.stop();
            row.fault(17, Some(0), eip);
        }
        rows.push(row);
    }
    // The linear address counts, not the offset.
    let mut based = row("a segment with an odd base".into(), true, true, 3);
    based.descriptor(at::FREE, segment(at::DATA + 1, 0xffff, 0x13, 3, true, 4));
    based.gpr[0] = u32::from(at::FREE | 3);
    based.gpr[3] = 4;
    based.bytes(&[0x8e, 0xd8]);
    let eip = based.bytes(&[0x8b, 0x03]);
    based.stop();
    based.fault(17, Some(0), eip);
    rows.push(based);
    rows
}

/// INS and OUTS: the right to the port comes first (vol. 2, INS, OUTS: "Operation").
fn ports() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, bytes, alignment) in [
        ("INSB", &[0x6c][..], 1u32),
        ("INSW", &[0x66, 0x6d], 2),
        ("INSD", &[0x6d], 4),
        ("REP INSD", &[0xf3, 0x6d], 4),
        ("OUTSB", &[0x6e], 1),
        ("OUTSW", &[0x66, 0x6f], 2),
        ("OUTSD", &[0x6f], 4),
        ("REP OUTSD", &[0xf3, 0x6f], 4),
    ] {
        for permitted in [true, false] {
            for offset in [0u32, 1, 2] {
                let right = if permitted { "with" } else { "without" };
                let mut row = row(
                    format!("{name} {right} the port, at {offset}"),
                    true,
                    true,
                    3,
                );
                row.eflags |= if permitted { eflags::IOPL } else { 0 };
                row.gpr[1] = 1;
                row.gpr[2] = 0x80;
                row.gpr[6] = at::DATA + offset;
                row.gpr[7] = at::DATA + offset;
                let eip = row.bytes(bytes);
                match (permitted, offset % alignment) {
                    (true, 0) => {
                        row.ends();
                    }
                    (true, _) => {
                        row.stop();
                        row.fault(17, Some(0), eip);
                    }
                    (false, _) => {
                        row.stop();
                        row.fault(13, Some(0), eip);
                    }
                }
                rows.push(row);
            }
        }
    }
    rows
}

/// Far calls: the target's checks come before the push (vol. 2, CALL: "Operation").
fn far_calls() -> Vec<Row> {
    let mut rows = Vec::new();
    let absent = segment(0, 0xf_ffff, kind::CODE_R, 3, false, 12);
    for (target, selector, fault) in [
        ("null", 0, Some((13, 0))),
        ("beyond the table", 0xfff8, Some((13, 0xfff8))),
        ("absent", at::FREE | 3, Some((11, u32::from(at::FREE)))),
        ("good", at::code_of(3), None),
    ] {
        for offset in [0u32, 1, 2] {
            let mut row = row(
                format!("far CALL, target {target}, ESP + {offset}"),
                true,
                true,
                3,
            );
            row.descriptor(at::FREE, absent);
            row.gpr[4] = at::ROW_STACK - 0x40 + offset;
            let mut bytes = vec![0x9a];
            bytes.extend((row.here() + 7).to_le_bytes());
            bytes.extend(selector.to_le_bytes());
            let eip = row.bytes(&bytes);
            match (fault, offset) {
                (Some((vector, error)), _) => {
                    row.stop();
                    row.fault(vector, Some(error), eip);
                }
                (None, 0) => {
                    row.ends();
                }
                (None, _) => {
                    row.stop();
                    row.fault(17, Some(0), eip);
                }
            }
            rows.push(row);
        }
    }
    rows
}

/// The table.
pub fn tables() -> Vec<Table> {
    let mut rows = operands();
    rows.extend(others());
    rows.extend(ports());
    rows.extend(far_calls());
    for row in &mut rows {
        let checks = row
            .checks
            .iter()
            .any(|c| c.field == Field::Kind && c.value == 17);
        row.deviation = checks.then_some(deviation::NO_ALIGNMENT_CHECK);
    }
    deviate(&mut rows, deviation::SEGMENT_LIMITS, |name| {
        name == "#GP comes first"
    });
    vec![Table::new(
        "alignment",
        "SDM 3A 6.15, interrupt 17 (table 6-7)",
        rows,
    )]
}
