//! Far JMP and CALL straight to a code segment; what sets its accessed bit.

use super::{CODE_KINDS, GATE, TARGET_SEL, code, far, is_conforming};
use crate::descriptor::{flag, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

/// Far JMP and CALL straight to a code segment. Vol. 2, JMP and CALL.
fn direct() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, opcode) in [("JMP", 0xeau8), ("CALL", 0x9a)] {
        for cpl in 0..4u8 {
            for rpl in 0..4u8 {
                for dpl in 0..4u8 {
                    for k in CODE_KINDS {
                        for present in [true, false] {
                            let mut row = Row::new(format!(
                                "{name}: CPL {cpl} RPL {rpl} DPL {dpl} type {k:#x} P {present}"
                            ))
                            .cpl(cpl);
                            row.descriptor(TARGET_SEL, code(k, dpl, present));
                            row.put(at::TARGET, &[0x0f, 0x0b]);
                            let selector = TARGET_SEL | u16::from(rpl);
                            let eip = row.bytes(&far(opcode, selector, at::TARGET));
                            let next = row.stop();
                            // Conforming: DPL ≤ CPL. Else RPL ≤ CPL and DPL = CPL.
                            let allowed = if is_conforming(k) {
                                dpl <= cpl
                            } else {
                                rpl <= cpl && dpl == cpl
                            };
                            let access = at::GDT + u32::from(TARGET_SEL) + 4;
                            if !allowed {
                                row.fault(13, Some(u32::from(TARGET_SEL)), eip);
                                row.expect_bits(Field::Mem(access), 0x100, u32::from(k & 1) << 8);
                            } else if !present {
                                row.fault(11, Some(u32::from(TARGET_SEL)), eip);
                                row.expect_bits(Field::Mem(access), 0x100, u32::from(k & 1) << 8);
                            } else {
                                // The selector is loaded with RPL = CPL.
                                row.fault(6, None, at::TARGET);
                                row.expect(Field::Cs, u32::from(TARGET_SEL | u16::from(cpl)));
                                if opcode == 0x9a {
                                    row.expect(Field::Esp, at::ROW_STACK - 8);
                                    row.expect(Field::Mem(at::ROW_STACK - 8), next);
                                    row.expect16(at::ROW_STACK - 4, at::code_of(cpl));
                                }
                            }
                            rows.push(row);
                        }
                    }
                }
            }
        }
        // Everything that is no target.
        for access in 0..32u8 {
            let valid_gate = matches!(access, 1 | 4 | 5 | 9 | 12);
            if access & 0x18 == 0x18 || valid_gate {
                continue;
            }
            let mut row = Row::new(format!("{name}: descriptor type {access:#x}"));
            row.descriptor(TARGET_SEL, segment(at::TSS2, 0x67, access, 0, true, 0));
            let eip = row.bytes(&far(opcode, TARGET_SEL, 0));
            row.stop();
            row.fault(13, Some(u32::from(TARGET_SEL)), eip);
            rows.push(row);
        }
        for (what, selector, error) in [
            ("null", 0u16, 0u32),
            ("null with RPL", 2, 0),
            ("beyond the GDT", 0x1000, 0x1000),
            ("beyond the LDT", 0x407, 0x404),
        ] {
            let mut row = Row::new(format!("{name}: selector {what}"));
            let eip = row.bytes(&far(opcode, selector, 0));
            row.stop();
            row.fault(13, Some(error), eip);
            rows.push(row);
        }
        // The offset is checked against the new limit.
        for (limit, inside) in [(0x1000, true), (0xfff, false)] {
            let mut row = Row::new(format!("{name}: limit {limit:#x}"));
            row.descriptor(
                TARGET_SEL,
                segment(at::TARGET - 0x1000, limit, kind::CODE_R, 0, true, flag::BIG),
            );
            row.put(at::TARGET, &[0x90, 0x0f, 0x0b]);
            let eip = row.bytes(&far(opcode, TARGET_SEL, 0x1000));
            row.stop();
            if inside {
                // NOP, and then the limit.
                row.fault(13, Some(0), 0x1001);
                row.expect(Field::Cs, u32::from(TARGET_SEL));
                row.deviation = Some(deviation::SEGMENT_LIMITS);
            } else {
                row.fault(13, Some(0), eip);
                row.expect(Field::Esp, at::ROW_STACK);
            }
            rows.push(row);
        }
    }
    rows
}

/// The accessed bit of a code segment is set by whatever loads CS from it. 3.4.5.1.
fn accessed() -> Vec<Row> {
    let mut rows = Vec::new();
    let frame = |row: &mut Row, values: &[u32]| {
        row.gpr[4] = at::ROW_STACK - 0x20;
        for (n, value) in values.iter().enumerate() {
            row.put32(at::ROW_STACK - 0x20 + n as u32 * 4, *value);
        }
    };
    for cpl in [0, 3u8] {
        for way in [
            "JMP",
            "CALL",
            "RETF",
            "IRET",
            "INT",
            "CALL gate",
            "JMP gate",
            "no",
        ] {
            let mut row = Row::new(format!("accessed bit of code: {way}, CPL {cpl}")).cpl(cpl);
            row.descriptor(TARGET_SEL, code(kind::CODE_R, cpl, true));
            row.descriptor(GATE, gate(kind::CALL32, 3, true, TARGET_SEL, at::TARGET, 0));
            row.gate(0x40, gate(kind::INT32, 3, true, TARGET_SEL, at::TARGET, 0));
            row.put(at::TARGET, &[0x0f, 0x0b]);
            let selector = TARGET_SEL | u16::from(cpl);
            match way {
                "JMP" => row.bytes(&far(0xea, selector, at::TARGET)),
                "CALL" => row.bytes(&far(0x9a, selector, at::TARGET)),
                "JMP gate" => row.bytes(&far(0xea, GATE, at::TARGET)),
                "CALL gate" => row.bytes(&far(0x9a, GATE, at::TARGET)),
                "INT" => row.bytes(&[0xcd, 0x40]),
                "no" => row.bytes(&far(0xea, selector | 4, at::TARGET)),
                _ => {
                    frame(&mut row, &[at::TARGET, u32::from(selector), eflags::FIXED]);
                    row.bytes(&[if way == "IRET" { 0xcf } else { 0xcb }])
                }
            };
            let set = if way == "no" {
                row.expect(Field::Kind, 13);
                0
            } else {
                row.fault(6, None, at::TARGET);
                row.deviation = Some(deviation::CODE_ACCESSED);
                0x100
            };
            row.expect_bits(Field::Mem(at::GDT + u32::from(TARGET_SEL) + 4), 0x100, set);
            rows.push(row);
        }
    }
    rows
}

/// The table of transfers.
pub(super) fn table() -> Table {
    let mut rows = direct();
    deviate(&mut rows, deviation::CALL_LIMIT, |name| {
        name == "CALL: limit 0xfff"
    });
    Table::new("far-direct", "SDM 3A 5.8.1; vol. 2, JMP, CALL", rows)
}

/// The table of accessed bits.
pub(super) fn accessed_table() -> Table {
    Table::new("code-accessed", "SDM 3A 3.4.5.1", accessed())
}
