//! Call gates.

use super::{CODE_KINDS, GATE, TARGET_SEL, far, is_conforming};
use crate::descriptor::{flag, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table};

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
                    for k in CODE_KINDS.into_iter().chain([kind::DATA_W, kind::LDT]) {
                        for present in [true, false] {
                            if k < kind::CODE_X && (!present || !wide) {
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
    let conforming = is_conforming(k);
    let is_code = k & 0x18 == 0x18;
    // CALL: DPL ≤ CPL. JMP: conforming DPL ≤ CPL, nonconforming DPL = CPL.
    let allowed = is_code && dpl <= cpl && (call || conforming || dpl == cpl);
    if !allowed {
        row.fault(13, Some(error), eip);
        return row;
    }
    if !present {
        row.fault(11, Some(error), eip);
        row.deviation = (!call).then_some(deviation::JMP_GATE_ABSENT);
        return row;
    }
    row.fault(6, None, target);
    row.deviation = (call && conforming && dpl < cpl).then_some(deviation::GATE_CONFORMING);
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

/// The table.
pub(super) fn table() -> Table {
    Table::new(
        "call-gates",
        "SDM 3A 5.8.3-5.8.4; vol. 2, CALL, JMP",
        call_gates(),
    )
}
