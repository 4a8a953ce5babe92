//! Far transfers in all their widths: operands in memory, 16-bit offsets and frames, parameters of
//! call gates, and what stops the pushes.

use super::{GATE, STACK_SEL, TARGET_SEL, code, far};
use crate::descriptor::{Tss16, Tss32, flag, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

/// Never mapped in rows with paging.
const NOWHERE: u32 = at::TEST + 0x5000;

/// A frame of words or dwords at an address.
fn frame(row: &mut Row, at: u32, wide: bool, values: &[u32]) {
    let width = if wide { 4 } else { 2 };
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|v| v.to_le_bytes()[..width].to_vec())
        .collect();
    row.put(at, &bytes);
}

/// Expects one slot of a frame.
fn expect_slot(row: &mut Row, address: u32, wide: bool, value: u32) {
    row.watches.push((address, if wide { 4 } else { 2 }));
    let value = if wide { value } else { value & 0xffff };
    row.expect(Field::Mem(address), value);
}

/// JMP and CALL, immediate and from memory, with 16- and 32-bit operands, in 16- and 32-bit code.
/// Vol. 2, CALL and JMP.
fn operands() -> Vec<Row> {
    let mut rows = Vec::new();
    for call in [false, true] {
        for memory in [false, true] {
            for wide in [false, true] {
                for code32 in [false, true] {
                    for cpl in [0u8, 3] {
                        let width = if wide { 4 } else { 2 };
                        let mut row = Row::new(format!(
                            "{} {}:{} in {}-bit code, CPL {cpl}",
                            if call { "CALL" } else { "JMP" },
                            if memory { "m16" } else { "ptr16" },
                            width * 8,
                            if code32 { 32 } else { 16 },
                        ))
                        .cpl(cpl);
                        let rpl = u16::from(cpl);
                        let based =
                            |base, flags| segment(base, 0xffff, kind::CODE_R | 1, cpl, true, flags);
                        row.descriptor(TARGET_SEL, based(at::TARGET - 0x100, flag::BIG));
                        row.put(at::TARGET, &[0x0f, 0x0b]);
                        // The code itself lies in a based segment of its own size.
                        let size = if code32 { flag::BIG } else { 0 };
                        row.descriptor(GATE, based(at::CODE, size));
                        row.cs = GATE | rpl;
                        row.org(at::CODE, at::CODE);
                        row.eip = 0;
                        if wide != code32 {
                            row.bytes(&[0x66]);
                        }
                        let selector = TARGET_SEL | rpl;
                        if memory {
                            frame(&mut row, at::DATA, wide, &[0x100]);
                            row.put(at::DATA + width, &selector.to_le_bytes());
                            row.gpr[3] = at::DATA;
                            if !code32 {
                                row.bytes(&[0x67]);
                            }
                            row.bytes(&[0xff, if call { 0x1b } else { 0x2b }]);
                        } else {
                            row.bytes(&[if call { 0x9a } else { 0xea }]);
                            row.bytes(&0x100u32.to_le_bytes()[..width as usize]);
                            row.bytes(&selector.to_le_bytes());
                        }
                        let next = row.stop();
                        row.fault(6, None, 0x100);
                        row.expect(Field::Cs, u32::from(selector));
                        if call {
                            let esp = at::ROW_STACK - 2 * width;
                            row.expect(Field::Esp, esp);
                            expect_slot(&mut row, esp, wide, next);
                            row.expect_bits(Field::Mem(esp + width), 0xffff, u32::from(GATE | rpl));
                        } else {
                            row.expect(Field::Esp, at::ROW_STACK);
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    rows
}

/// RETF and RETF n of both widths, to the same and to outer rings. Vol. 2, RET.
fn returns() -> Vec<Row> {
    let mut rows = Vec::new();
    for wide in [false, true] {
        for release in [None, Some(0u16), Some(6), Some(0x40)] {
            for cpl in 0..4u8 {
                for rpl in cpl..4u8 {
                    let width = if wide { 4 } else { 2 };
                    let mut row = Row::new(format!(
                        "RETF of {} bits, release {release:?}, ring {cpl} to {rpl}",
                        width * 8
                    ))
                    .cpl(cpl);
                    row.descriptor(
                        TARGET_SEL,
                        segment(at::TARGET, 0xffff, kind::CODE_R | 1, rpl, true, flag::BIG),
                    );
                    row.put(at::TARGET + 0x20, &[0x0f, 0x0b]);
                    let selector = u32::from(TARGET_SEL | u16::from(rpl));
                    let esp = at::ROW_STACK - 0x60;
                    row.gpr[4] = esp;
                    frame(&mut row, esp, wide, &[0x20, selector]);
                    let released = u32::from(release.unwrap_or(0));
                    // A 16-bit frame has a 16-bit stack pointer: its segment is based.
                    let base = at::OTHER_STACK - 0x80;
                    row.descriptor(
                        STACK_SEL,
                        segment(base, 0xffff, kind::DATA_W | 1, rpl, true, flag::BIG),
                    );
                    let ss = u32::from(STACK_SEL | u16::from(rpl));
                    if rpl != cpl {
                        frame(&mut row, esp + 2 * width + released, wide, &[0x80, ss]);
                    }
                    if !wide {
                        row.bytes(&[0x66]);
                    }
                    match release {
                        Some(n) => {
                            row.bytes(&[0xca]);
                            row.bytes(&n.to_le_bytes());
                        }
                        None => {
                            row.bytes(&[0xcb]);
                        }
                    }
                    row.stop();
                    row.fault(6, None, 0x20);
                    row.expect(Field::Cs, selector);
                    if rpl == cpl {
                        row.expect(Field::Esp, esp + 2 * width + released);
                    } else {
                        row.expect(Field::Esp, 0x80 + released);
                        row.expect(Field::Ss, ss);
                    }
                    rows.push(row);
                }
            }
        }
    }
    rows
}

/// Every count of parameters. 5.8.5.
fn parameters() -> Vec<Row> {
    let mut rows = Vec::new();
    for wide in [true, false] {
        for count in 0..32u8 {
            let width = if wide { 4 } else { 2 };
            let mut row = Row::new(format!(
                "CALL gate of {} bits with {count} parameters",
                width * 8
            ))
            .cpl(3);
            let base = if wide { 0 } else { at::TARGET };
            let kind = if wide { kind::CALL32 } else { kind::CALL16 };
            row.descriptor(
                TARGET_SEL,
                segment(base, 0xf_ffff, kind::CODE_R | 1, 0, true, 12),
            );
            row.descriptor(
                GATE,
                gate(kind, 3, true, TARGET_SEL, at::TARGET - base, count),
            );
            row.put(at::TARGET, &[0x0f, 0x0b]);
            let values: Vec<u32> = (0..32).map(|n| 0x4001_2001 + n * 0x0101_0101).collect();
            frame(&mut row, at::ROW_STACK, wide, &values);
            row.bytes(&far(0x9a, GATE, 0));
            let next = row.stop();
            row.fault(6, None, at::TARGET - base);
            let esp = at::STACK0 - (4 + u32::from(count)) * width;
            row.expect(Field::Esp, esp);
            expect_slot(&mut row, esp, wide, next);
            for (n, value) in values.iter().take(usize::from(count)).enumerate() {
                expect_slot(&mut row, esp + (2 + n as u32) * width, wide, *value);
            }
            let old = at::STACK0 - 2 * width;
            expect_slot(&mut row, old, wide, at::ROW_STACK);
            row.expect_bits(Field::Mem(old + width), 0xffff, u32::from(at::DATA3));
            rows.push(row);
        }
    }
    rows
}

/// A transfer that is stopped leaves everything as it was.
fn stopped(mut row: Row, vector: u8, error: u32, eip: u32) -> Row {
    row.stop();
    row.fault(vector, Some(error), eip);
    row.expect(Field::Cs, u32::from(row.cs));
    row.expect(Field::Ss, u32::from(row.ss));
    row.expect(Field::Esp, row.gpr[4]);
    row
}

/// Stack limits, pages of the stack, offsets beyond the new segment. Vol. 2, CALL, RET, INT.
fn stops() -> Vec<Row> {
    let mut rows = Vec::new();
    // No room on the current stack: #SS(0).
    for (what, bytes) in [
        ("CALL", far(0x9a, at::CODE3, at::TARGET)),
        ("CALL gate", far(0x9a, GATE, 0)),
    ] {
        let mut row = Row::new(format!("{what}: no room on the stack")).cpl(3);
        row.descriptor(GATE, gate(kind::CALL32, 3, true, at::CODE3, at::TARGET, 0));
        row.descriptor(
            STACK_SEL,
            segment(at::OTHER_STACK, 0xff, kind::DATA_W | 1, 3, true, flag::BIG),
        );
        row.ss = STACK_SEL | 3;
        row.gpr[4] = 6;
        let eip = row.bytes(&bytes);
        row.deviation = Some(deviation::SEGMENT_LIMITS);
        rows.push(stopped(row, 12, 0, eip));
    }
    for (what, bytes) in [("RETF", 0xcb), ("IRET", 0xcf)] {
        let mut row = Row::new(format!("{what}: the frame ends beyond the stack")).cpl(3);
        row.descriptor(
            STACK_SEL,
            segment(at::OTHER_STACK, 0xff, kind::DATA_W | 1, 3, true, flag::BIG),
        );
        row.ss = STACK_SEL | 3;
        row.gpr[4] = 0xfc;
        frame(
            &mut row,
            at::OTHER_STACK + 0xfc,
            true,
            &[at::TARGET, u32::from(at::CODE3), eflags::FIXED],
        );
        row.put(at::TARGET, &[0x0f, 0x0b]);
        let eip = row.bytes(&[bytes]);
        row.deviation = Some(deviation::SEGMENT_LIMITS);
        rows.push(stopped(row, 12, 0, eip));
    }
    // The stack's page is absent: the first push faults, with the rights of the new ring.
    for (what, bytes, to, error) in [
        ("CALL", far(0x9a, at::CODE3, at::TARGET), 3u8, 6u32),
        ("CALL gate, ring 3", far(0x9a, GATE, 0), 3, 6),
        ("CALL gate, ring 2", far(0x9a, GATE, 0), 2, 2),
        ("CALL gate, ring 0", far(0x9a, GATE, 0), 0, 2),
        ("INT, ring 3", vec![0xcd, 0x40], 3, 6),
        ("INT, ring 1", vec![0xcd, 0x40], 1, 2),
    ] {
        let mut row = Row::new(format!("{what}: no page for the stack"))
            .cpl(3)
            .paging();
        let target = at::code_of(to);
        row.descriptor(GATE, gate(kind::CALL32, 3, true, target, at::TARGET, 0));
        row.gate(0x40, gate(kind::INT32, 3, true, target, at::TARGET, 0));
        // The page fault's handler is a task: it needs none of these stacks.
        row.task_vector(14);
        if to == 3 {
            row.gpr[4] = NOWHERE + 0x800;
        } else {
            let slot = at::TSS + 4 + u32::from(to) * 8;
            row.put32(slot, NOWHERE + 0x800);
        }
        let eip = row.bytes(&bytes);
        row.stop();
        row.fault_by_task(14, Some(error));
        row.expect(Field::Cr2, NOWHERE + 0x7fc);
        row.expect(Field::Mem(at::TSS + 0x20), eip);
        row.expect16(at::TSS + 0x4c, at::CODE3);
        row.expect(Field::Mem(at::TSS + 0x38), row.gpr[4]);
        row.deviation = (to == 3).then_some(deviation::PUSH_AS_SUPERVISOR);
        rows.push(row);
    }
    // The offset lies beyond the new code segment: #GP(0), and nothing was pushed.
    for (what, bytes, dpl) in [
        ("CALL gate, same ring", far(0x9a, GATE, 0), 3u8),
        ("CALL gate, inner ring", far(0x9a, GATE, 0), 0),
        ("JMP gate", far(0xea, GATE, 0), 3),
        ("INT, same ring", vec![0xcd, 0x40], 3),
        ("INT, inner ring", vec![0xcd, 0x40], 0),
    ] {
        let mut row = Row::new(format!("{what}: offset beyond the segment")).cpl(3);
        row.descriptor(
            TARGET_SEL,
            segment(at::TARGET, 0xff, kind::CODE_R | 1, dpl, true, flag::BIG),
        );
        row.descriptor(GATE, gate(kind::CALL32, 3, true, TARGET_SEL, 0x100, 0));
        row.gate(0x40, gate(kind::INT32, 3, true, TARGET_SEL, 0x100, 0));
        row.put(at::TARGET + 0x100, &[0x0f, 0x0b]);
        let eip = row.bytes(&bytes);
        row.deviation = (what != "JMP gate").then_some(deviation::SEGMENT_LIMITS);
        rows.push(stopped(row, 13, 0, eip));
    }
    for (what, opcode, values) in [
        (
            "RETF, same ring",
            0xcbu8,
            &[0x100u32, (TARGET_SEL | 3) as u32][..],
        ),
        (
            "IRET, same ring",
            0xcf,
            &[0x100, (TARGET_SEL | 3) as u32, eflags::FIXED],
        ),
    ] {
        let mut row = Row::new(format!("{what}: offset beyond the segment")).cpl(3);
        row.descriptor(
            TARGET_SEL,
            segment(at::TARGET, 0xff, kind::CODE_R | 1, 3, true, flag::BIG),
        );
        row.put(at::TARGET + 0x100, &[0x0f, 0x0b]);
        row.gpr[4] = at::ROW_STACK - 0x20;
        frame(&mut row, at::ROW_STACK - 0x20, true, values);
        let eip = row.bytes(&[opcode]);
        row.deviation = Some(deviation::SEGMENT_LIMITS);
        rows.push(stopped(row, 13, 0, eip));
    }
    rows
}

/// Stacks of 16 bits, from 16-bit TSSs too. 5.8.5, 6.12.1, 7.6.
fn narrow_stacks() -> Vec<Row> {
    let mut rows = Vec::new();
    for tss16 in [false, true] {
        for (what, bytes, slots) in [
            ("CALL gate", far(0x9a, GATE, 0), 4u32),
            ("INT", vec![0xcd, 0x40], 5),
        ] {
            for wide in [false, true] {
                let size = if wide { 32 } else { 16 };
                let mut row = Row::new(format!(
                    "{what} of {size} bits into a 16-bit stack, {}-bit TSS",
                    if tss16 { 16 } else { 32 }
                ))
                .cpl(3);
                let base = at::STACK1 - 0x8000;
                row.descriptor(
                    STACK_SEL,
                    segment(base, 0xffff, kind::DATA_W | 1, 1, true, 0),
                );
                row.descriptor(
                    TARGET_SEL,
                    segment(at::TARGET, 0xffff, kind::CODE_R | 1, 1, true, flag::BIG),
                );
                if tss16 {
                    row.descriptor(at::TSS_SEL, segment(at::TSS, 0x2b, kind::TSS16, 0, true, 0));
                    let tss = Tss16 {
                        stacks: [(0x900, at::DATA0), (0x8000, STACK_SEL | 1), (0, 0)],
                        ..Tss16::default()
                    };
                    row.put(at::TSS, &tss.bytes());
                    // Ring 0's stack would have 16 bits: what ends the row is a task.
                    row.task_vector(6);
                } else {
                    let tss = Tss32 {
                        stacks: [
                            (at::STACK0, at::DATA0),
                            (0x8000, STACK_SEL | 1),
                            (at::STACK2, at::DATA2),
                        ],
                        io_map: 0x68,
                        ..Tss32::default()
                    };
                    row.put(at::TSS, &tss.bytes());
                }
                let (call, int) = if wide {
                    (kind::CALL32, kind::INT32)
                } else {
                    (kind::CALL16, kind::INT16)
                };
                row.descriptor(GATE, gate(call, 3, true, TARGET_SEL | 1, 0, 0));
                row.gate(0x40, gate(int, 3, true, TARGET_SEL | 1, 0, 0));
                row.put(at::TARGET, &[0x0f, 0x0b]);
                row.bytes(&bytes);
                let next = row.here();
                row.stop();
                let width = if wide { 4 } else { 2 };
                let top = at::STACK1 - slots * width;
                if tss16 {
                    row.fault_by_task(6, None);
                    row.watches.push((at::TSS + 0x1a, 2)); // SP
                    row.expect(Field::Mem(at::TSS + 0x1a), 0x8000 - slots * width);
                } else {
                    row.fault(6, None, 0);
                    row.expect_bits(Field::Esp, 0xffff, 0x8000 - slots * width);
                    row.expect(Field::Ss, u32::from(STACK_SEL | 1));
                }
                expect_slot(&mut row, top, wide, next);
                expect_slot(&mut row, at::STACK1 - 2 * width, wide, at::ROW_STACK);
                row.expect_bits(Field::Mem(at::STACK1 - width), 0xffff, u32::from(at::DATA3));
                rows.push(row);
            }
        }
    }
    rows
}

/// Gates and code segments of the LDT. 3.5.1.
fn local() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, opcode) in [("JMP", 0xeau8), ("CALL", 0x9a)] {
        for through in [false, true] {
            for present in [true, false] {
                let named = if through { "gate" } else { "segment" };
                let mut row = Row::new(format!("{what}: {named} of the LDT, P {present}")).cpl(3);
                row.descriptor(TARGET_SEL | 4, code(kind::CODE_R, 3, present || through));
                row.descriptor(
                    GATE | 4,
                    gate(kind::CALL32, 3, present, TARGET_SEL | 7, at::TARGET, 0),
                );
                row.put(at::TARGET, &[0x0f, 0x0b]);
                let selector = if through { GATE | 7 } else { TARGET_SEL | 7 };
                let eip = row.bytes(&far(opcode, selector, at::TARGET));
                row.stop();
                if present {
                    row.fault(6, None, at::TARGET);
                    row.expect(Field::Cs, u32::from(TARGET_SEL | 7));
                } else {
                    row.fault(11, Some(u32::from(selector & !3)), eip);
                }
                rows.push(row);
            }
        }
    }
    rows
}

/// The tables.
pub(super) fn tables() -> Vec<Table> {
    vec![
        Table::new("far-operands", "SDM vol. 2, CALL, JMP, RET; 3A 3.5.1", {
            let mut rows = operands();
            rows.extend(returns());
            rows.extend(local());
            rows
        }),
        Table::new(
            "stack-switches",
            "SDM 3A 5.8.5, 6.12.1, 7.6; vol. 2, CALL, RET, INT",
            {
                let mut rows = parameters();
                rows.extend(narrow_stacks());
                rows.extend(stops());
                rows
            },
        ),
    ]
}
