//! INT n, INT3, INTO, INT1 and exceptions through interrupt and trap gates.

use super::{CODE_KINDS, TARGET_SEL, code, is_conforming};
use crate::descriptor::{gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

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
            let wide = matches!(k, kind::INT32 | kind::TRAP32);
            let narrow = row.handler_gate(vector, k, 3);
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
            for k in CODE_KINDS.into_iter().chain([kind::DATA_W, kind::LDT]) {
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
                        let new_cpl = if is_conforming(k) { cpl } else { dpl };
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

/// The table.
pub(super) fn table() -> Table {
    let mut rows = interrupt_gates();
    deviate(&mut rows, deviation::INT1, |name| name.starts_with("INT1:"));
    Table::new("interrupt-gates", "SDM 3A 6.10-6.13; vol. 2, INT", rows)
}
