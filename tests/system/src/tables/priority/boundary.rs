//! Traps, interrupts and breakpoints of one instruction boundary.

use super::NOWHERE;
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};
use iced_x86::code_asm::ebx;

/// Interrupts, traps and breakpoints of one boundary: 6.9.
fn boundary() -> Vec<Row> {
    let mut rows = Vec::new();
    // A single-step trap comes before an interrupt.
    let mut row = Row::new("trap before interrupt");
    row.irq = true;
    row.eflags |= eflags::TF;
    row.bytes(&[0xfb]); // sti
    row.bytes(&[0x90]);
    let end = row.stop();
    let _ = end;
    row.fault(1, None, at::CODE + 1);
    rows.push(row);
    let mut row = Row::new("trap before interrupt, the interrupt before the handler");
    row.irq = true;
    row.eflags |= eflags::TF | eflags::IF;
    // The trap gate leaves IF set: the interrupt is taken before the handler's first instruction.
    // The pending interrupt itself is taken before the row's first instruction.
    row.bytes(&[0x90]);
    row.stop();
    row.fault(0x23, None, at::CODE);
    rows.push(row);
    // A fault of the instruction means no trap.
    let mut row = Row::new("a fault has no trap of its own");
    row.eflags |= eflags::TF;
    let eip = row.bytes(&[0x0f, 0x0b]);
    row.fault(6, None, eip);
    row.expect_bits(Field::Eflags, eflags::TF, eflags::TF);
    row.expect_bits(Field::Dr6, 0x4000, 0);
    rows.push(row);
    // An interrupt comes before a code breakpoint at the next instruction.
    let mut row = Row::new("interrupt before code breakpoint");
    row.irq = true;
    row.eflags |= eflags::IF;
    row.dr[0] = at::CODE;
    row.dr7 = 0x402;
    row.stop();
    row.fault(0x23, None, at::CODE);
    row.expect_bits(Field::Dr6, 0xf, 0);
    rows.push(row);
    // A code breakpoint comes before faults of fetching and decoding.
    let mut row = Row::new("code breakpoint before an invalid opcode");
    row.dr[0] = at::CODE;
    row.dr7 = 0x402;
    let eip = row.stop();
    row.fault(1, None, eip);
    row.expect_bits(Field::Dr6, 0xf, 1);
    rows.push(row);
    let mut row = Row::new("code breakpoint before a fault of fetching").paging();
    row.dr[0] = NOWHERE;
    row.dr7 = 0x402;
    row.gpr[3] = NOWHERE;
    row.asm(|a| a.jmp(ebx));
    row.fault(1, None, NOWHERE);
    row.expect_bits(Field::Dr6, 0xf, 1);
    rows.push(row);
    rows
}

/// After MOV [EBX], EAX: its traps come first, in one exception; then an interrupt; then a code
/// breakpoint on UD2; then UD2. Table 6-2, classes 4 to 8.
fn breakpoints() -> Vec<Row> {
    let mut rows = Vec::new();
    let choices = (0..16u32).map(|n| [n & 1 != 0, n & 2 != 0, n & 4 != 0, n & 8 != 0]);
    for [tf, data, irq, code] in choices {
        if tf && irq {
            continue; // nothing sets TF and IF with a shadow
        }
        let mut row = Row::new(format!(
            "TF {tf}, data breakpoint {data}, interrupt {irq}, code breakpoint {code}"
        ));
        row.irq = irq;
        row.gpr[3] = at::DATA;
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(row.gpr[4], eflags::FIXED | eflags::TF);
        // What POPF and STI set counts after the instruction that follows them.
        row.bytes(match (tf, irq) {
            (true, _) => &[0x9d],
            (_, true) => &[0xfb],
            _ => &[0x90],
        });
        row.bytes(&[0x89, 0x03]);
        let next = row.stop();
        row.dr = [next, at::DATA, 0, 0];
        row.dr7 |= u32::from(code) << 1 | u32::from(data) << 3 | 0xd << 20;
        let status = u32::from(tf) << 14 | u32::from(data) << 1;
        if status != 0 {
            row.fault(1, None, next);
            row.expect_bits(Field::Dr6, 0xe00e, status);
        } else if irq {
            row.fault(0x23, None, next);
            row.expect_bits(Field::Dr6, 0xe00f, 0);
        } else if code {
            row.fault(1, None, next);
            row.expect_bits(Field::Dr6, 0xe00f, 1);
        } else {
            row.fault(6, None, next);
        }
        row.deviation = (tf && data).then_some(deviation::BREAK_AND_STEP);
        rows.push(row);
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = boundary();
    rows.extend(breakpoints());
    deviate(&mut rows, deviation::STI_NO_TRAP, |name| {
        name == "trap before interrupt"
    });
    Table::new("boundary-order", "SDM 3A 6.9 (table 6-2)", rows)
}
