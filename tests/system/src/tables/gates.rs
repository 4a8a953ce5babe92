//! Far CALL, JMP and RET: direct, through call gates, between rings; INT through gates; the stacks.

use crate::descriptor::{Tss32, flag, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

/// The code segment under test.
const TARGET_SEL: u16 = at::FREE;
/// The gate under test.
const GATE: u16 = at::FREE + 8;
/// A stack segment.
const STACK_SEL: u16 = at::FREE + 0x10;

fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    let mut bytes = vec![opcode];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    bytes
}

fn code(k: u8, dpl: u8, present: bool) -> u64 {
    segment(0, 0xf_ffff, k, dpl, present, flag::G | flag::BIG)
}

/// Far JMP and CALL straight to a code segment. Vol. 2, JMP and CALL.
fn direct() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, opcode) in [("JMP", 0xeau8), ("CALL", 0x9a)] {
        for cpl in 0..4u8 {
            for rpl in 0..4u8 {
                for dpl in 0..4u8 {
                    for k in [kind::CODE_X, kind::CODE_R, kind::CONFORMING] {
                        for present in [true, false] {
                            if k == kind::CODE_X && !present {
                                continue;
                            }
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
                            let allowed = if k == kind::CONFORMING {
                                dpl <= cpl
                            } else {
                                rpl <= cpl && dpl == cpl
                            };
                            let access = at::GDT + u32::from(TARGET_SEL) + 4;
                            if !allowed {
                                row.fault(13, Some(u32::from(TARGET_SEL)), eip);
                                row.expect_bits(Field::Mem(access), 0x100, 0);
                            } else if !present {
                                row.fault(11, Some(u32::from(TARGET_SEL)), eip);
                                row.expect_bits(Field::Mem(access), 0x100, 0);
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
        // Through memory, 16- and 32-bit offsets; the offset is checked against the new limit.
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

/// Call gates. 5.8.3 to 5.8.5; vol. 2, CALL and JMP.
fn call_gates() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, opcode) in [("JMP", 0xeau8), ("CALL", 0x9a)] {
        // Privilege of the gate.
        for cpl in 0..4u8 {
            for rpl in 0..4u8 {
                for dpl in 0..4u8 {
                    for present in [true, false] {
                        let mut row = Row::new(format!(
                            "{name} gate: CPL {cpl} RPL {rpl} DPL {dpl} P {present}"
                        ))
                        .cpl(cpl);
                        row.descriptor(
                            GATE,
                            gate(kind::CALL32, dpl, present, at::code_of(cpl), at::TARGET, 0),
                        );
                        row.put(at::TARGET, &[0x0f, 0x0b]);
                        let eip = row.bytes(&far(opcode, GATE | u16::from(rpl), 0xdead_beef));
                        row.stop();
                        if dpl < cpl.max(rpl) {
                            row.fault(13, Some(u32::from(GATE)), eip);
                        } else if !present {
                            row.fault(11, Some(u32::from(GATE)), eip);
                        } else {
                            row.fault(6, None, at::TARGET);
                            row.expect(Field::Cs, u32::from(at::code_of(cpl)));
                        }
                        rows.push(row);
                    }
                }
            }
        }
        // Privilege and kind of the code segment behind it.
        for wide in [true, false] {
            for cpl in 0..4u8 {
                for dpl in 0..4u8 {
                    for k in [kind::CODE_R, kind::CONFORMING, kind::DATA_W, kind::LDT] {
                        for present in [true, false] {
                            if k < kind::CODE_R && (!present || !wide) {
                                continue;
                            }
                            rows.push(through_gate(name, opcode, wide, cpl, dpl, k, present));
                        }
                    }
                }
            }
        }
        for (what, selector, error) in [("null", 3u16, 0u32), ("beyond the GDT", 0x1003, 0x1000)] {
            let mut row = Row::new(format!("{name} gate: code selector {what}"));
            row.descriptor(GATE, gate(kind::CALL32, 0, true, selector, at::TARGET, 0));
            let eip = row.bytes(&far(opcode, GATE, 0));
            row.stop();
            row.fault(13, Some(error), eip);
            rows.push(row);
        }
    }
    rows
}

fn through_gate(name: &str, opcode: u8, wide: bool, cpl: u8, dpl: u8, k: u8, present: bool) -> Row {
    let call = opcode == 0x9a;
    let mut row = Row::new(format!(
        "{name} {} gate to type {k:#x}: CPL {cpl} DPL {dpl} P {present}",
        if wide { 32 } else { 16 }
    ))
    .cpl(cpl);
    let gate_kind = if wide { kind::CALL32 } else { kind::CALL16 };
    // A 16-bit gate has a 16-bit offset: the segment is based.
    let base = if wide { 0 } else { at::TARGET };
    let target = at::TARGET - base;
    let parameters = 3;
    row.descriptor(
        GATE,
        gate(gate_kind, 3, true, TARGET_SEL | 1, target, parameters),
    );
    if wide {
        row.descriptor(
            TARGET_SEL,
            segment(0, 0xf_ffff, k, dpl, present, flag::G | flag::BIG),
        );
    } else {
        row.descriptor(
            TARGET_SEL,
            segment(base, 0xffff, k, dpl, present, flag::BIG),
        );
    }
    row.put(at::TARGET, &[0x0f, 0x0b]);
    for n in 0..6u32 {
        row.put32(at::ROW_STACK + n * 4, 0x1111_0000 * (n + 1) + 0x2345 + n);
    }
    let eip = row.bytes(&far(opcode, GATE, 0xdead_beef));
    let next = row.stop();
    let error = u32::from(TARGET_SEL);
    let conforming = k == kind::CONFORMING;
    let is_code = k & 0x18 == 0x18;
    // CALL: DPL ≤ CPL. JMP: conforming DPL ≤ CPL, nonconforming DPL = CPL.
    let allowed = is_code && dpl <= cpl && (call || conforming || dpl == cpl);
    if !allowed {
        row.fault(13, Some(error), eip);
        return row;
    }
    if !present {
        row.fault(11, Some(error), eip);
        return row;
    }
    row.fault(6, None, target);
    let new_cpl = if conforming { cpl } else { dpl };
    row.expect(Field::Cs, u32::from(TARGET_SEL | u16::from(new_cpl)));
    let width = if wide { 4 } else { 2 };
    if !call {
        row.expect(Field::Esp, at::ROW_STACK);
        return row;
    }
    let trim = |v: u32| if wide { v } else { v & 0xffff };
    let expect_slot = |row: &mut Row, address: u32, value: u32, mask: u32| {
        row.watches.push((address, width));
        row.expect_bits(Field::Mem(address), mask, value);
    };
    let full = if wide { u32::MAX } else { 0xffff };
    if new_cpl == cpl {
        let esp = at::ROW_STACK - 2 * width;
        row.expect(Field::Esp, esp);
        expect_slot(&mut row, esp, trim(next), full);
        expect_slot(&mut row, esp + width, u32::from(at::code_of(cpl)), 0xffff);
        return row;
    }
    // More privilege: the stack of the new ring with SS, ESP, parameters, CS, EIP.
    let top = [at::STACK0, at::STACK1, at::STACK2][usize::from(new_cpl)];
    let esp = top - (4 + u32::from(parameters)) * width;
    let ss = [at::DATA0, at::DATA1, at::DATA2][usize::from(new_cpl)];
    row.expect(Field::Ss, u32::from(ss));
    row.expect(Field::Esp, esp);
    expect_slot(&mut row, esp, trim(next), full);
    expect_slot(&mut row, esp + width, u32::from(at::code_of(cpl)), 0xffff);
    for n in 0..u32::from(parameters) {
        let at_caller = n * width;
        let dword = 0x1111_0000 * (at_caller / 4 + 1) + 0x2345 + at_caller / 4;
        let value = if wide {
            dword
        } else {
            dword >> (at_caller % 4 * 8) & 0xffff
        };
        expect_slot(&mut row, esp + (2 + n) * width, value, full);
    }
    expect_slot(&mut row, top - 2 * width, trim(at::ROW_STACK), full);
    expect_slot(&mut row, top - width, u32::from(at::data_of(cpl)), 0xffff);
    row
}

/// How an inner ring is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    CallGate,
    Software,
    /// #BR: benign, so that what goes wrong is delivered as itself.
    Exception,
}

/// The inner stack: what the TSS says and what its descriptor may be. 5.8.5, 6.12.1; vol. 2.
fn inner_stacks() -> Vec<Row> {
    let mut rows = Vec::new();
    let data = |k: u8, dpl: u8, p: bool| segment(0, 0xf_ffff, k, dpl, p, flag::G | flag::BIG);
    let cases: Vec<(&str, u16, Option<u64>, u8, u32)> = vec![
        ("null", 0, None, 10, 0),
        ("null with RPL", 1, None, 10, 0),
        ("beyond the GDT", 0x1001, None, 10, 0x1000),
        (
            "RPL too low",
            STACK_SEL,
            Some(data(kind::DATA_W, 1, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "RPL too high",
            STACK_SEL | 2,
            Some(data(kind::DATA_W, 1, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "DPL too low",
            STACK_SEL | 1,
            Some(data(kind::DATA_W, 0, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "DPL too high",
            STACK_SEL | 1,
            Some(data(kind::DATA_W, 2, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "read-only",
            STACK_SEL | 1,
            Some(data(kind::DATA_R, 1, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "code",
            STACK_SEL | 1,
            Some(data(kind::CODE_R, 1, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "system",
            STACK_SEL | 1,
            Some(segment(at::LDT, 0x3ff, kind::LDT, 1, true, 0)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "absent",
            STACK_SEL | 1,
            Some(data(kind::DATA_W, 1, false)),
            12,
            u32::from(STACK_SEL),
        ),
        (
            "absent and read-only",
            STACK_SEL | 1,
            Some(data(kind::DATA_R, 1, false)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "too small",
            STACK_SEL | 1,
            Some(segment(at::STACK1, 0x1f, kind::DATA_W, 1, true, flag::BIG)),
            12,
            u32::from(STACK_SEL),
        ),
    ];
    for entry in [Entry::CallGate, Entry::Software, Entry::Exception] {
        for &(what, ss, descriptor, vector, error) in &cases {
            let mut row = Row::new(format!("{entry:?} into ring 1: SS {what}")).cpl(3);
            let tss = Tss32 {
                stacks: [
                    (at::STACK0, at::DATA0),
                    // For "too small": the frame wraps below 0.
                    (if what == "too small" { 4 } else { at::STACK1 }, ss),
                    (0, 0),
                ],
                io_map: 0x68,
                ..Tss32::default()
            };
            row.put(at::TSS, &tss.bytes());
            if let Some(d) = descriptor {
                row.descriptor(STACK_SEL, d);
            }
            let eip = enter(&mut row, entry);
            row.stop();
            let ext = u32::from(entry == Entry::Exception);
            row.fault(vector, Some(error + ext), eip);
            row.expect(Field::Cs, u32::from(at::CODE3));
            row.expect(Field::Esp, at::ROW_STACK);
            if what == "too small" {
                row.deviation = Some(deviation::SEGMENT_LIMITS);
            } else if ext != 0 {
                row.deviation = Some(deviation::EXT_CLEAR);
            }
            rows.push(row);
        }
        // The TSS does not reach to the stack's slot: #TS(TSS).
        for (limit, inside) in [(0x13, true), (0x10, false)] {
            let mut row = Row::new(format!("{entry:?} into ring 1: TSS limit {limit:#x}")).cpl(3);
            row.descriptor(
                at::TSS_SEL,
                segment(at::TSS, limit, kind::TSS32, 0, true, 0),
            );
            let eip = enter(&mut row, entry);
            row.stop();
            if inside {
                // The dword at 0CH is ESP1, the word at 10H SS1.
                row.fault(6, None, at::TARGET);
                row.expect(Field::Ss, u32::from(at::DATA1));
            } else {
                let ext = u32::from(entry == Entry::Exception);
                row.fault(10, Some(u32::from(at::TSS_SEL) + ext), eip);
                if ext != 0 {
                    row.deviation = Some(deviation::EXT_CLEAR);
                }
            }
            rows.push(row);
        }
    }
    rows
}

/// Goes from ring 3 to ring 1 at TARGET; gives the instruction's EIP.
fn enter(row: &mut Row, entry: Entry) -> u32 {
    row.put(at::TARGET, &[0x0f, 0x0b]);
    match entry {
        Entry::CallGate => {
            row.descriptor(GATE, gate(kind::CALL32, 3, true, at::CODE1, at::TARGET, 0));
            row.bytes(&far(0x9a, GATE, 0))
        }
        Entry::Software => {
            row.gate(0x40, gate(kind::INT32, 3, true, at::CODE1, at::TARGET, 0));
            row.bytes(&[0xcd, 0x40])
        }
        Entry::Exception => {
            row.gate(5, gate(kind::INT32, 0, true, at::CODE1, at::TARGET, 0));
            row.put(at::DATA, &[5, 0, 0, 0, 9, 0, 0, 0]);
            row.gpr[3] = 0;
            row.asm(|a| a.bound(iced_x86::code_asm::ebx, iced_x86::code_asm::ptr(at::DATA)))
        }
    }
}

/// Far RET. Vol. 2, RET.
fn returns() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in 0..4u8 {
        for rpl in 0..4u8 {
            for dpl in 0..4u8 {
                for k in [kind::CODE_R, kind::CONFORMING] {
                    for present in [true, false] {
                        let mut row = Row::new(format!(
                            "RETF: CPL {cpl} RPL {rpl} DPL {dpl} type {k:#x} P {present}"
                        ))
                        .cpl(cpl);
                        row.descriptor(TARGET_SEL, code(k, dpl, present));
                        row.put(at::TARGET, &[0x0f, 0x0b]);
                        let selector = TARGET_SEL | u16::from(rpl);
                        let esp = at::ROW_STACK - 0x20;
                        row.gpr[4] = esp;
                        for (n, value) in [
                            at::TARGET,
                            u32::from(selector),
                            0x77,
                            0x88,
                            at::OTHER_STACK,
                            u32::from(at::data_of(rpl)),
                        ]
                        .into_iter()
                        .enumerate()
                        {
                            row.put32(esp + n as u32 * 4, value);
                        }
                        row.data = [at::data_of(cpl), at::DATA3, 0, 0];
                        let eip = row.bytes(&[0xca, 8, 0]); // retf 8
                        row.stop();
                        // RPL ≥ CPL; conforming DPL ≤ RPL, nonconforming DPL = RPL.
                        let allowed = rpl >= cpl
                            && if k == kind::CONFORMING {
                                dpl <= rpl
                            } else {
                                dpl == rpl
                            };
                        if !allowed || !present {
                            row.fault(
                                if allowed { 11 } else { 13 },
                                Some(u32::from(TARGET_SEL)),
                                eip,
                            );
                            row.expect(Field::Esp, esp);
                        } else {
                            row.fault(6, None, at::TARGET);
                            row.expect(Field::Cs, u32::from(selector));
                            if rpl > cpl {
                                row.expect(Field::Esp, at::OTHER_STACK + 8);
                                row.expect(Field::Ss, u32::from(at::data_of(rpl)));
                                // Segments that the new ring may not use become null.
                                row.expect(Field::Ds, 0);
                                row.expect(Field::Es, u32::from(at::DATA3));
                            } else {
                                row.expect(Field::Esp, esp + 16);
                                row.expect(Field::Ds, u32::from(at::data_of(cpl)));
                            }
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    // The outer stack.
    let data = |k: u8, dpl: u8, p: bool| segment(0, 0xf_ffff, k, dpl, p, flag::G | flag::BIG);
    let cases: Vec<(&str, u16, Option<u64>, u8, u32)> = vec![
        ("null", 0, None, 13, 0),
        ("null with RPL", 3, None, 13, 0),
        ("beyond the GDT", 0x1003, None, 13, 0x1000),
        (
            "RPL too low",
            STACK_SEL | 2,
            Some(data(kind::DATA_W, 3, true)),
            13,
            u32::from(STACK_SEL),
        ),
        (
            "DPL too low",
            STACK_SEL | 3,
            Some(data(kind::DATA_W, 2, true)),
            13,
            u32::from(STACK_SEL),
        ),
        (
            "read-only",
            STACK_SEL | 3,
            Some(data(kind::DATA_R, 3, true)),
            13,
            u32::from(STACK_SEL),
        ),
        (
            "code",
            STACK_SEL | 3,
            Some(data(kind::CODE_R, 3, true)),
            13,
            u32::from(STACK_SEL),
        ),
        (
            "absent",
            STACK_SEL | 3,
            Some(data(kind::DATA_W, 3, false)),
            12,
            u32::from(STACK_SEL),
        ),
    ];
    for iret in [false, true] {
        for &(what, ss, descriptor, vector, error) in &cases {
            let name = if iret { "IRET" } else { "RETF" };
            let mut row = Row::new(format!("{name} to ring 3: SS {what}"));
            if let Some(d) = descriptor {
                row.descriptor(STACK_SEL, d);
            }
            let esp = at::ROW_STACK - 0x20;
            row.gpr[4] = esp;
            let mut frame = vec![at::TARGET, u32::from(at::CODE3)];
            if iret {
                frame.push(eflags::FIXED);
            }
            frame.extend([at::OTHER_STACK, u32::from(ss)]);
            for (n, value) in frame.into_iter().enumerate() {
                row.put32(esp + n as u32 * 4, value);
            }
            let eip = row.bytes(&[if iret { 0xcf } else { 0xcb }]);
            row.stop();
            row.fault(vector, Some(error), eip);
            row.expect(Field::Esp, esp);
            rows.push(row);
        }
    }
    for (what, selector, error) in [
        ("null", 0u32, 0u32),
        ("null with RPL", 3, 0),
        ("beyond the GDT", 0x1000, 0x1000),
        ("of data", u32::from(at::DATA0), u32::from(at::DATA0)),
        ("of a TSS", u32::from(at::TSS_SEL), u32::from(at::TSS_SEL)),
    ] {
        for iret in [false, true] {
            let name = if iret { "IRET" } else { "RETF" };
            let mut row = Row::new(format!("{name}: CS {what}"));
            let esp = at::ROW_STACK - 0x20;
            row.gpr[4] = esp;
            for (n, value) in [at::TARGET, selector, eflags::FIXED]
                .into_iter()
                .enumerate()
            {
                row.put32(esp + n as u32 * 4, value);
            }
            let eip = row.bytes(&[if iret { 0xcf } else { 0xcb }]);
            row.stop();
            row.fault(13, Some(error), eip);
            row.expect(Field::Esp, esp);
            rows.push(row);
        }
    }
    rows
}

/// Interrupt and trap gates. 6.11, 6.12; vol. 2, INT.
fn interrupt_gates() -> Vec<Row> {
    let mut rows = Vec::new();
    // Rights of the gate, for each way of raising the vector.
    for cpl in 0..4u8 {
        for dpl in 0..4u8 {
            for (what, bytes, vector, checked) in [
                ("INT n", vec![0xcd, 0x40], 0x40u8, true),
                ("INT3", vec![0xcc], 3, true),
                ("INTO", vec![0xce], 4, true),
                ("INT1", vec![0xf1], 1, false),
                ("INT 1", vec![0xcd, 1], 1, true),
                ("INT 13", vec![0xcd, 13], 13, true),
                ("UD2", vec![0x0f, 0x0b], 6, false),
            ] {
                let mut row = Row::new(format!("{what}: CPL {cpl} gate DPL {dpl}")).cpl(cpl);
                row.eflags |= 0x800; // OF
                row.open_vector(vector, dpl);
                row.error_code = Some(false);
                let eip = row.bytes(&bytes);
                let next = row.here();
                row.stop();
                if checked && dpl < cpl {
                    row.error_code = None;
                    row.fault(13, Some(u32::from(vector) * 8 + 2), eip);
                } else {
                    row.fault(vector, None, if what == "UD2" { eip } else { next });
                    row.expect(Field::Esp, at::ROW_STACK);
                }
                rows.push(row);
            }
        }
    }
    // Kinds of gates: width of the frame, IF, TF, NT, RF and VM.
    for k in 0..32u8 {
        for software in [true, false] {
            let vector = if software { 0x40u8 } else { 5 };
            let mut row = Row::new(format!(
                "gate type {k:#x}, {}",
                if software { "INT n" } else { "#BR" }
            ))
            .cpl(3);
            row.eflags |= eflags::IF | eflags::NT | eflags::AC | eflags::DF;
            let narrow = matches!(k, kind::INT16 | kind::TRAP16);
            let wide = matches!(k, kind::INT32 | kind::TRAP32);
            let (selector, offset) = if narrow {
                (at::STUBS, at::stub16(vector))
            } else {
                (at::CODE0, at::stub(vector))
            };
            row.gate(vector, gate(k, 3, true, selector, offset, 0));
            if k == kind::TASK {
                continue;
            }
            let eip = if software {
                row.bytes(&[0xcd, vector])
            } else {
                row.put(at::DATA, &[5, 0, 0, 0, 9, 0, 0, 0]);
                row.gpr[3] = 0;
                row.asm(|a| a.bound(iced_x86::code_asm::ebx, iced_x86::code_asm::ptr(at::DATA)))
            };
            let next = row.here();
            row.stop();
            if narrow || wide {
                row.narrow_frame = narrow;
                let saved = if software { next } else { eip };
                row.fault(vector, None, if narrow { saved & 0xffff } else { saved });
                row.expect(Field::Cs, u32::from(at::CODE3));
                row.expect(Field::Ss, u32::from(at::DATA3));
                row.expect(
                    Field::Esp,
                    if narrow {
                        at::ROW_STACK & 0xffff
                    } else {
                        at::ROW_STACK
                    },
                );
                row.expect(Field::HandlerEsp, at::STACK0 - if narrow { 10 } else { 20 });
                row.expect(Field::HandlerSs, u32::from(at::DATA0));
                let mask = if narrow { 0xffff } else { !eflags::RF };
                row.expect_bits(Field::Eflags, mask, row.eflags);
                let keeps_if = matches!(k, kind::TRAP16 | kind::TRAP32);
                let mut handler = row.eflags & !eflags::NT;
                if !keeps_if {
                    handler &= !eflags::IF;
                }
                row.expect(Field::HandlerFlags, handler);
            } else {
                let error = u32::from(vector) * 8 + 2 + u32::from(!software);
                row.fault(13, Some(error), eip);
                if !software {
                    row.deviation = Some(deviation::EXT_CLEAR);
                }
            }
            rows.push(row);
        }
    }
    // The handler's code segment.
    for cpl in 0..4u8 {
        for dpl in 0..4u8 {
            for k in [kind::CODE_R, kind::CONFORMING, kind::DATA_W, kind::LDT] {
                for present in [true, false] {
                    let mut row = Row::new(format!(
                        "handler's segment type {k:#x}: CPL {cpl} DPL {dpl} P {present}"
                    ))
                    .cpl(cpl);
                    if k == kind::LDT {
                        row.descriptor(TARGET_SEL, segment(at::LDT, 0x3ff, k, dpl, present, 0));
                    } else {
                        row.descriptor(TARGET_SEL, code(k, dpl, present));
                    }
                    row.gate(
                        0x40,
                        gate(kind::INT32, 3, true, TARGET_SEL | 2, at::TARGET, 0),
                    );
                    row.put(at::TARGET, &[0x0f, 0x0b]);
                    let eip = row.bytes(&[0xcd, 0x40]);
                    row.stop();
                    // "not a code segment, or DPL > CPL: #GP(selector)"; then P.
                    let allowed = k & 0x18 == 0x18 && dpl <= cpl;
                    if !allowed || !present {
                        row.fault(
                            if allowed { 11 } else { 13 },
                            Some(u32::from(TARGET_SEL)),
                            eip,
                        );
                        row.expect(Field::Esp, at::ROW_STACK);
                    } else {
                        row.fault(6, None, at::TARGET);
                        let new_cpl = if k == kind::CONFORMING { cpl } else { dpl };
                        row.expect(Field::Cs, u32::from(TARGET_SEL | u16::from(new_cpl)));
                        let top = if new_cpl == cpl {
                            at::ROW_STACK - 12
                        } else {
                            [at::STACK0, at::STACK1, at::STACK2][usize::from(new_cpl)] - 20
                        };
                        row.expect(Field::Esp, top);
                    }
                    rows.push(row);
                }
            }
        }
    }
    for (what, selector, error) in [
        ("null", 0u16, 0u32),
        ("null with RPL", 3, 0),
        ("beyond the GDT", 0x1003, 0x1000),
    ] {
        let mut row = Row::new(format!("handler's selector {what}"));
        row.gate(0x40, gate(kind::INT32, 3, true, selector, at::TARGET, 0));
        let eip = row.bytes(&[0xcd, 0x40]);
        row.stop();
        row.fault(13, Some(error), eip);
        rows.push(row);
    }
    // The IDT's limit, and an absent gate.
    for (limit, inside) in [
        (0x207, true),
        (0x206, false),
        (0x200, false),
        (0x1ff, false),
    ] {
        let mut row = Row::new(format!("IDT limit {limit:#x}"));
        row.open_vector(0x40, 0);
        row.idt_limit = limit;
        let eip = row.bytes(&[0xcd, 0x40]);
        let next = row.here();
        row.stop();
        if inside {
            row.fault(0x40, None, next);
        } else {
            row.fault(13, Some(0x202), eip);
        }
        rows.push(row);
    }
    let mut row = Row::new("absent interrupt gate");
    row.gate(0x40, gate(kind::INT32, 3, false, at::CODE0, at::TARGET, 0));
    let eip = row.bytes(&[0xcd, 0x40]);
    row.stop();
    row.fault(11, Some(0x202), eip);
    rows.push(row);
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

/// CPL and DPL as a row's name has them.
fn levels(name: &str) -> (u8, u8) {
    let number = |after: &str| {
        let digit = name
            .split(after)
            .nth(1)
            .and_then(|rest| rest.bytes().next());
        digit.map_or(0, |d| d - b'0')
    };
    (number("CPL "), number("DPL "))
}

/// True if a JMP of these levels may enter the segment: conforming or of the same level.
fn may_jump(name: &str) -> bool {
    let (cpl, dpl) = levels(name);
    if name.contains("0x1e") {
        dpl <= cpl
    } else {
        dpl == cpl
    }
}

/// The table.
pub fn table() -> Table {
    let mut rows = direct();
    deviate(&mut rows, deviation::CALL_LIMIT, |name| {
        name == "CALL: limit 0xfff"
    });
    rows.extend(accessed());
    let mut gates = call_gates();
    deviate(&mut gates, deviation::JMP_GATE_ABSENT, |name| {
        // Present segments of this kind may be entered; absent ones are refused too early.
        name.starts_with("JMP ")
            && name.ends_with("P false")
            && name.contains(" gate to type 0x1")
            && may_jump(name)
    });
    deviate(&mut gates, deviation::GATE_CONFORMING, |name| {
        name.starts_with("CALL ") && name.contains("to type 0x1e") && name.ends_with("P true") && {
            let (cpl, dpl) = levels(name);
            dpl < cpl
        }
    });
    rows.extend(gates);
    let mut stacks = inner_stacks();
    deviate(&mut stacks, deviation::INNER_SS_ABSENT, |name| {
        name.ends_with("SS absent")
    });
    rows.extend(stacks);
    let mut back = returns();
    deviate(&mut back, deviation::OUTER_SS_ABSENT, |name| {
        name.ends_with("SS absent")
    });
    rows.extend(back);
    let mut gates = interrupt_gates();
    deviate(&mut gates, deviation::INT1, |name| {
        name.starts_with("INT1:")
    });
    rows.extend(gates);
    Table {
        name: "gates",
        source: "SDM 3A 5.8, 6.10-6.13; vol. 2, CALL, JMP, RET, INT",
        rows,
    }
}
