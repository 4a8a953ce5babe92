//! Who may switch: type, DPL, RPL, presence and limit of the TSS and the task gate.

use super::{Case, GATE, NEW, VECTOR, Way, base, tss_kind};
use crate::descriptor::{flat, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate};

/// Who may switch: type, DPL, RPL, P, limits. Vol. 2, CALL, JMP, INT, IRET; 7.3 steps 2-4.
fn refusals() -> Vec<Row> {
    let mut rows = Vec::new();
    let case = |way, old_cpl| Case::wide(way, old_cpl, 0);
    // The descriptor's type, for what names a TSS directly or through a gate.
    for way in [
        Way::Jump,
        Way::Call,
        Way::JumpGate,
        Way::CallGate,
        Way::Interrupt,
        Way::Return,
        Way::Fault,
    ] {
        for system in 0..16u8 {
            let call_gate = matches!(system, 4 | 5 | 12);
            if !way.by_gate() && way != Way::Return && call_gate {
                continue; // a gate: other rules
            }
            let available = matches!(system, kind::TSS16 | kind::TSS32);
            let busy = matches!(system, 3 | 11);
            let good = if way == Way::Return { busy } else { available };
            if good {
                continue;
            }
            let c = case(way, 0);
            let (mut row, eip, _) = base(format!("{way:?}: type {system} for a TSS"), &c);
            row.stop();
            row.descriptor(NEW, segment(at::TSS2, 0x67, system, 0, true, 0));
            // CALL, JMP: #GP(TSS selector). INT: #GP(TSS selector + EXT). IRET: #TS(TSS selector).
            let ext = u32::from(way == Way::Fault);
            let vector = if way == Way::Return { 10 } else { 13 };
            row.fault(vector, Some(u32::from(NEW) + ext), eip);
            row.expect(Field::Tr, u32::from(at::TSS_SEL));
            rows.push(row);
        }
        // Code and data.
        for k in [kind::DATA_W, kind::CODE_R] {
            if matches!(way, Way::Jump | Way::Call) {
                continue;
            }
            let (mut row, eip, _) =
                base(format!("{way:?}: segment {k:#x} for a TSS"), &case(way, 0));
            row.stop();
            row.descriptor(NEW, flat(k, 0));
            let ext = u32::from(way == Way::Fault);
            let vector = if way == Way::Return { 10 } else { 13 };
            row.fault(vector, Some(u32::from(NEW) + ext), eip);
            rows.push(row);
        }
        // Not present: #NP(TSS selector).
        let (mut row, eip, _) = base(format!("{way:?}: absent TSS"), &case(way, 0));
        row.stop();
        let k = tss_kind(true, way == Way::Return);
        row.descriptor(NEW, segment(at::TSS2, 0x67, k, 0, false, 0));
        row.fault(11, Some(u32::from(NEW) + u32::from(way == Way::Fault)), eip);
        rows.push(row);
        // "IF the TSS limit is less than 67H (2BH): #TS(TSS selector)".
        for (wide, limit) in [(true, 0x66), (false, 0x2a)] {
            let (mut row, eip, _) = base(format!("{way:?}: TSS limit {limit:#x}"), &case(way, 0));
            row.stop();
            let k = tss_kind(wide, way == Way::Return);
            row.descriptor(NEW, segment(at::TSS2, limit, k, 0, true, 0));
            row.fault(10, Some(u32::from(NEW) + u32::from(way == Way::Fault)), eip);
            rows.push(row);
        }
        // A selector beyond the GDT, and one of the LDT.
        for selector in [0x1000u16, NEW | 4] {
            let (mut row, eip, _) = base(
                format!("{way:?}: TSS selector {selector:#x}"),
                &case(way, 0),
            );
            row.stop();
            row.descriptor(
                NEW | 4,
                segment(
                    at::TSS2,
                    0x67,
                    tss_kind(true, way == Way::Return),
                    0,
                    true,
                    0,
                ),
            );
            let [low, high] = selector.to_le_bytes();
            match way {
                Way::Jump => row.put(eip, &[0xea, 0, 0, 0, 0, low, high]),
                Way::Call => row.put(eip, &[0x9a, 0, 0, 0, 0, low, high]),
                Way::JumpGate | Way::CallGate => {
                    row.descriptor(GATE, gate(kind::TASK, 0, true, selector, 0, 0))
                }
                Way::Interrupt => row.gate(VECTOR, gate(kind::TASK, 3, true, selector, 0, 0)),
                Way::Fault => row.gate(5, gate(kind::TASK, 3, true, selector, 0, 0)),
                _ => row.put(at::TSS, &selector.to_le_bytes()),
            }
            let vector = if way == Way::Return { 10 } else { 13 };
            row.fault(
                vector,
                Some(u32::from(selector) + u32::from(way == Way::Fault)),
                eip,
            );
            rows.push(row);
        }
    }
    // Privilege: max(CPL, RPL) ≤ DPL of what is named.
    for way in [Way::Jump, Way::Call, Way::JumpGate, Way::CallGate] {
        for cpl in [0, 1, 2, 3u8] {
            for rpl in 0..4u8 {
                for dpl in 0..4u8 {
                    let c = case(way, cpl);
                    let (mut row, eip, _) =
                        base(format!("{way:?}: CPL {cpl} RPL {rpl} DPL {dpl}"), &c);
                    row.stop();
                    let named = if way.by_gate() { GATE } else { NEW };
                    if way.by_gate() {
                        row.descriptor(GATE, gate(kind::TASK, dpl, true, NEW, 0, 0));
                        // The TSS's own DPL does not count.
                        row.descriptor(NEW, segment(at::TSS2, 0x67, kind::TSS32, 0, true, 0));
                    } else {
                        row.descriptor(NEW, segment(at::TSS2, 0x67, kind::TSS32, dpl, true, 0));
                    }
                    let [low, high] = (named | u16::from(rpl)).to_le_bytes();
                    row.put(eip + 5, &[low, high]);
                    if dpl < cpl.max(rpl) {
                        row.fault(13, Some(u32::from(named)), eip);
                    } else {
                        row.fault(6, None, at::TARGET);
                        row.expect_bits(Field::Tr, 0xfffc, u32::from(NEW));
                    }
                    rows.push(row);
                }
            }
        }
    }
    for cpl in 0..4u8 {
        for dpl in 0..4u8 {
            let c = case(Way::Interrupt, cpl);
            let (mut row, eip, _) = base(format!("Interrupt: CPL {cpl} gate DPL {dpl}"), &c);
            row.stop();
            row.gate(VECTOR, gate(kind::TASK, dpl, true, NEW, 0, 0));
            if dpl < cpl {
                row.fault(13, Some(u32::from(VECTOR) * 8 + 2), eip);
            } else {
                row.fault(6, None, at::TARGET);
            }
            rows.push(row);
        }
    }
    // An absent gate.
    for way in [Way::JumpGate, Way::CallGate, Way::Interrupt, Way::Fault] {
        let (mut row, eip, _) = base(format!("{way:?}: absent gate"), &case(way, 0));
        row.stop();
        let absent = gate(kind::TASK, 3, false, NEW, 0, 0);
        let error = match way {
            Way::Interrupt => {
                row.gate(VECTOR, absent);
                u32::from(VECTOR) * 8 + 2
            }
            Way::Fault => {
                row.gate(5, absent);
                5 * 8 + 3
            }
            _ => {
                row.descriptor(GATE, absent);
                u32::from(GATE)
            }
        };
        row.fault(11, Some(error), eip);
        rows.push(row);
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = refusals();
    deviate(&mut rows, deviation::EXT_CLEAR, |name| {
        name.starts_with("Fault: ")
    });
    deviate(&mut rows, deviation::TSS_IN_LDT, |name| {
        name.contains("TSS selector 0x84") && !name.starts_with("Return")
    });
    Table::new(
        "task-refusals",
        "SDM 3A 7.2.2-7.2.5, 7.3; vol. 2, CALL, JMP, INT, IRET",
        rows,
    )
}
